//! `kip stop` and `kip rm`.

use std::time::Duration;

use kip_spec::{Problem, code};

use crate::arguments::{Connection, Remove};
use crate::client::{Client, data_directory, segment};
use crate::output::Output;
use crate::progress::Progress;
use crate::{serve, start};

/// The server's own patience is 30 s unless set otherwise; this is only for the case that it hangs.
const LIMIT: Duration = Duration::from_secs(600);

pub(crate) async fn stop(connection: &Connection, output: Output) -> anyhow::Result<()> {
    if connection.api.is_none() {
        let data = data_directory(connection)?;
        // One that is starting or stopping already is waited for.
        let settled = async {
            while start::running(&data).await.is_none() && kip_host::directory::owner(&data).is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(LIMIT, settled).await;
        // Nobody answers: what a server left that was killed, or told to keep its instances, is to end.
        if start::running(&data).await.is_none()
            && let Ok(ended @ 1..) = serve::end_left(&data).await
        {
            return output.result(&serde_json::json!({"ended_instances": ended}), |_| {
                format!("no server runs; ended the {ended} instances that the last one left\n")
            });
        }
    }
    let client = Client::find(connection)?;
    let pid = stop_and_wait(&client, output).await?;
    output.result(&serde_json::json!({"stopped": pid}), |_| {
        format!("stopped the server (process {pid}) and everything it ran\n")
    })
}

/// Tells a server to end and waits until its process is gone.
pub(crate) async fn stop_and_wait(client: &Client, output: Output) -> anyhow::Result<u32> {
    let pid = client.about().await?.pid;
    client.post::<_, serde_json::Value>("/api/v1/stop", &serde_json::json!({})).await?;
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let gone = async {
        let mut progress = Progress::new(output);
        // A zombie has ended; only its parent has not looked yet.
        while process.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()) && !is_zombie(pid) {
            progress.say(&format!("the server (process {pid}) stops its instances, each within its grace"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(LIMIT, gone).await.is_err() {
        return Err(Problem::new(code::SERVER_UNREACHABLE, format!("the server (process {pid}) does not end"))
            .hint(format!("`kill -9 {pid}` ends it; the next start clears away what it leaves"))
            .into());
    }
    Ok(pid)
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

pub(crate) async fn remove(client: &Client, names: &Remove, output: Output) -> anyhow::Result<()> {
    // Who may remove functions may see their tasks.
    let tasks: kip_tasks::Summary = client.get("/api/v1/tasks/summary").await?;
    // One that cannot be removed does not keep the others.
    let mut failed = Vec::new();
    for name in &names.functions {
        let of = tasks.functions.iter().find(|of| of.function == *name);
        let waiting = of.map_or(0, |of| of.ready + of.later + of.held);
        let removed: serde_json::Value = match client.delete(&format!("/api/v1/functions/{}", segment(name))).await {
            Ok(removed) => removed,
            Err(error) => {
                failed.push(error);
                continue;
            }
        };
        output.line(&removed, |_| format!("removed {name}"))?;
        if waiting > 0 {
            output.remark(&format!(
                "{waiting} tasks of {name} waited and are not run: kip task ls {name} --status Invalid"
            ));
        }
    }
    let Some(last) = failed.pop() else { return Ok(()) };
    failed.iter().for_each(|error| output.remark(&format!("{error:#}")));
    Err(last)
}
