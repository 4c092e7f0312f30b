//! `kip run`: a program that runs to its end, as a run of a job that is made for it.

use kip_spec::{FunctionName, Problem, code};
use kip_wire::{Deployment, DeploymentResult, JobInfo};
use serde_json::{Map, Value, json};

use super::jobs::follow;
use crate::arguments::tasks::Run;
use crate::client::{Client, segment};
use crate::output::Output;

pub(crate) async fn run(client: &Client, options: &Run, output: Output) -> anyhow::Result<()> {
    let name = options.name.clone().unwrap_or_else(|| name_of(&options.program[0]));
    name.parse::<FunctionName>().map_err(|error| {
        Problem::new(code::COMMAND_INPUT, format!("`{name}` cannot be a job's name"))
            .cause(error.to_string())
            .hint("use 1 to 63 letters, digits, `-` or `_`, beginning with a letter: --name NAME")
    })?;
    spare(client, &name).await?;
    let text = manifest(options, &name)?;
    let directory = std::env::current_dir()?.to_string_lossy().into_owned();
    let deployment = Deployment { text, file: "kip run".to_owned(), directory, only: Vec::new() };
    let _made: DeploymentResult = client.post("/api/v1/deployments", &deployment).await?;
    follow(client, &name, options.detach, output).await
}

/// What has this name already must be a job of this kind too.
async fn spare(client: &Client, name: &str) -> anyhow::Result<()> {
    let taken = |what: &str, hint: String| {
        Problem::new(code::COMMAND_INPUT, format!("`{name}` is {what}, which this would replace")).hint(hint)
    };
    match client.get::<JobInfo>(&format!("/api/v1/functions/{}/job", segment(name))).await {
        Ok(JobInfo { schedule: None, .. }) => Ok(()),
        Ok(_) => {
            let hint = format!("`kip jobs run {name}` runs it now; --name gives this one another name");
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
    let mut env = Map::new();
    for pair in &options.env {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Problem::new(code::COMMAND_INPUT, format!("`{pair}` is no variable")).hint("write --env NAME=VALUE")
        })?;
        env.insert(key.to_owned(), json!(value));
    }
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
    if let Some(timeout) = options.timeout {
        job["timeout"] = json!(timeout.to_string());
    }
    if let Value::Object(keys) = &mut job {
        keys.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
    }
    Ok(json!({ "api": "kip/v1", "jobs": { name: job } }).to_string())
}

/// A job's name made of a program's.
fn name_of(program: &str) -> String {
    let file = program.rsplit('/').next().unwrap_or(program);
    let fit: String = file.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(50).collect();
    format!("job-{}", fit.trim_matches('-'))
}
