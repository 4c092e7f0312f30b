//! `kip run`: a program that runs to its end, as a run of a job that is made for it and removed with it. What the program writes
//! is written here, and the command exits as the program does.

use kip_spec::{FunctionName, Problem, code};
use kip_wire::{Deployment, DeploymentResult, JobInfo};
use serde_json::{Map, Value, json};

use super::jobs::follow;
use super::variables;
use crate::arguments::tasks::Run;
use crate::client::{Client, segment};
use crate::output::Output;

pub(crate) async fn run(client: &Client, options: &Run, output: Output) -> anyhow::Result<()> {
    no_flag(&options.program[0])?;
    let name = options.name.clone().unwrap_or_else(|| name_of(&options.program[0], kip_host::random::unique()));
    name.parse::<FunctionName>().map_err(|error| {
        Problem::new(code::COMMAND_INPUT, format!("`{name}` cannot be a job's name"))
            .cause(error.to_string())
            .hint("use 1 to 64 letters, digits, `-` or `_`, beginning with a letter or `_`: --name NAME")
    })?;
    spare(client, &name).await?;
    let text = manifest(options, &name)?;
    let directory = std::env::current_dir()?;
    let needs = kip_manifest::needs(&text);
    let deployment = Deployment {
        file: "kip run".to_owned(),
        variables: super::deploy::variables(&needs),
        env_files: super::deploy::env_files(&needs, &directory)?,
        directory: directory.to_string_lossy().into_owned(),
        text,
        only: Vec::new(),
        start: false,
        once: true,
        keep_unchanged: false,
        no_traffic: false,
    };
    let _made: DeploymentResult = client.post("/api/v1/deployments", &deployment).await?;
    follow(client, &name, options.detach, output).await
}

/// A program that begins with `-` is a mistyped option of ours.
fn no_flag(program: &str) -> Result<(), Problem> {
    if !program.starts_with('-') {
        return Ok(());
    }
    Err(Problem::new(code::COMMAND_INPUT, format!("`kip run` has no option `{program}`"))
        .hint(format!("`kip run --help` lists its options; a program of this name is run as ./{program}")))
}

/// What has this name already must be a job of this kind too.
async fn spare(client: &Client, name: &str) -> anyhow::Result<()> {
    let taken = |what: &str, hint: String| {
        Problem::new(code::COMMAND_INPUT, format!("`{name}` is {what}, which this would replace")).hint(hint)
    };
    match client.get::<JobInfo>(&format!("/api/v1/functions/{}/job", segment(name))).await {
        Ok(JobInfo { schedule: None, .. }) => Ok(()),
        Ok(_) => {
            let hint = format!("`kip job run {name}` runs it now; --name gives this one another name");
            Err(taken("a job with a schedule", hint).into())
        }
        Err(error) => match error.downcast_ref::<Problem>().map(|problem| problem.code) {
            Some(code::FUNCTION_NOT_FOUND) => Ok(()),
            Some(code::JOB_UNKNOWN) => Err(taken("a function", "--name gives this one another name".to_owned()).into()),
            _ => Err(error),
        },
    }
}

/// The job as a manifest. JSON is YAML too.
fn manifest(options: &Run, name: &str) -> anyhow::Result<String> {
    let env = variables::given(&options.env, "kip run")?;
    let mut resources = Map::new();
    if let Some(memory) = options.memory {
        resources.insert("memory".to_owned(), json!(memory.to_string()));
    }
    if let Some(memory) = options.gpu {
        resources.insert("gpu".to_owned(), json!({ "memory": memory.to_string() }));
    }
    if let Some(cpu) = &options.cpu {
        resources.insert("cpu".to_owned(), json!(cpu));
    }
    let mut retries = json!({ "max": options.retries, "never": options.retry_never });
    if !options.retry_only.is_empty() {
        retries["only"] = json!(options.retry_only);
    }
    let mut job = json!({ "run": options.program, "env": env, "resources": resources, "retries": retries });
    if !options.env_file.is_empty() {
        job["env_file"] = json!(options.env_file);
    }
    if let Some(timeout) = options.timeout {
        job["timeout"] = json!(timeout.to_string());
    }
    if let Some(grace) = options.grace {
        job["grace"] = json!(grace.to_string());
    }
    if let Value::Object(keys) = &mut job {
        keys.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
    }
    Ok(json!({ "api": "kip/v1", "jobs": { name: job } }).to_string())
}

/// A job's name made of a program's, which no other run has.
fn name_of(program: &str, random: u128) -> String {
    let file = program.rsplit('/').next().unwrap_or(program);
    let fit: String = file.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let random = random & 0xff_ffff;
    format!("run-{}-{random:06x}", fit.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_option_is_not_a_program() {
        assert!(no_flag("--memroy").unwrap_err().message.contains("--memroy"));
        assert!(no_flag("./-x").is_ok());
    }

    #[test]
    fn each_run_has_a_name_of_its_own() {
        assert_eq!(name_of("/usr/bin/python3.12", 0xab), "run-python3-12-0000ab");
        assert!(name_of(&"x".repeat(100), u128::MAX).parse::<FunctionName>().is_ok());
    }
}
