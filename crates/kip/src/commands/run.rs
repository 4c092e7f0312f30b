//! `kip run`: a program that runs to its end, as a task of a function that is made for it.

use kip_api::Taken;
use kip_api::wire::{Deployment, DeploymentMade};
use kip_control::InstanceInfo;
use kip_spec::{Problem, code};
use kip_tasks::config::AsyncConfig;
use kip_tasks::view::TaskInfo;
use serde_json::json;

use super::job_runner::RESULTS;
use crate::arguments::tasks::Run;
use crate::client::{Client, segment};
use crate::output::Output;

pub(crate) async fn run(client: &Client, options: &Run, output: Output) -> anyhow::Result<()> {
    let name = options.name.clone().unwrap_or_else(|| name_of(&options.program[0]));
    deploy(client, options, &name).await?;
    let config = AsyncConfig {
        async_task: true,
        max_async_retry_attempts: options.retries,
        timeout_in_seconds: options.timeout.map_or(kip_tasks::config::DAY, |time| time.0.div_ceil(1_000)),
        ..AsyncConfig::default()
    };
    let base = format!("/api/v1/functions/{}", segment(&name));
    client.put::<_, AsyncConfig>(&format!("{base}/async-invoke-config"), &config).await?;
    let taken: Taken = client.post(&format!("{base}/tasks"), &json!({})).await?;
    let id = &taken.task_id;
    if options.detach {
        return output.result(&taken, |_| {
            format!("task {id} of job {name}; `kip tasks watch {name} {id}` follows it, `kip logs {name} -f` shows what it writes\n")
        });
    }
    output.remark(&format!("task {id} of job {name}; it goes on if this is ended: kip tasks watch {name} {id}"));
    let task = loop {
        let task: TaskInfo = client.get(&format!("{base}/tasks/{id}?wait=20")).await?;
        if task.end_time.is_some() {
            break task;
        }
    };
    if task.status != "Succeeded" {
        let why = task.return_payload.clone().or_else(|| task.task_error_message.clone()).unwrap_or_default();
        return Err(Problem::new(code::TASK_STATE, format!("job {name} is {}", task.status))
            .cause(why)
            .hint(format!("`kip logs {name}` shows what it wrote, `kip tasks show {name} {id}` its steps"))
            .into());
    }
    output.result(&task, |task| task.return_payload.clone().unwrap_or_default())
}

/// Makes or renews the function of a job. It has one instance, which ends soon after its work.
async fn deploy(client: &Client, options: &Run, name: &str) -> anyhow::Result<()> {
    let about = client.about().await?;
    let mut argv =
        vec![std::env::current_exe()?.to_string_lossy().into_owned(), "job-runner".to_owned(), "--".to_owned()];
    argv.extend(options.program.iter().cloned());
    let mut env = serde_json::Map::new();
    env.insert(RESULTS.to_owned(), json!(std::path::Path::new(&about.data_directory).join("jobs").join(name)));
    for pair in &options.env {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Problem::new(code::COMMAND_INPUT, format!("`{pair}` is no variable")).hint("write --env NAME=VALUE")
        })?;
        env.insert(key.to_owned(), json!(value));
    }
    let mut resources = serde_json::Map::new();
    if let Some(memory) = &options.gpu {
        resources.insert("gpu".to_owned(), json!({ "memory": memory.to_string() }));
    }
    if let Some(memory) = &options.memory {
        resources.insert("memory".to_owned(), json!(memory.to_string()));
    }
    if let Some(cpu) = &options.cpu {
        resources.insert("cpu".to_owned(), json!(cpu));
    }
    let mut function =
        json!({ "run": argv, "env": env, "instances": { "max": 1 }, "idle": { "pause": "never", "stop": "1s" } });
    if !resources.is_empty() {
        function["resources"] = resources.into();
    }
    let directory = std::env::current_dir()?.to_string_lossy().into_owned();
    // JSON is YAML too.
    let text = json!({ "api": "kip/v1", "functions": { name: function } }).to_string();
    let deployment = Deployment { text, file: "kip run".to_owned(), directory, only: Vec::new() };
    let made: DeploymentMade = client.post("/api/v1/deployments", &deployment).await?;
    let wanted = made.deployed.first().map(|made| made.version);
    // An instance of the version before may still be there: it runs another program.
    loop {
        let instances: Vec<InstanceInfo> = client.get("/api/v1/instances").await?;
        let old =
            instances.iter().any(|instance| instance.function.as_str() == name && Some(instance.version) != wanted);
        if !old {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// A function's name made of a program's.
fn name_of(program: &str) -> String {
    let file = program.rsplit('/').next().unwrap_or(program);
    let fit: String = file.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(50).collect();
    format!("job-{}", fit.trim_matches('-'))
}
