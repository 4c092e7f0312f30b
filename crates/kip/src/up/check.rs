//! `kip up DIR --check`: the whole journey on a private data directory and free ports, each link asserted.

use std::path::Path;

use kip_control::{DecisionRecord, RequestRecord};
use kip_spec::{Problem, code};
use kip_wire::InstanceInfo;

use super::samples::TryFile;
use super::{Summary, failed, show};
use crate::arguments::Up;
use crate::client::Client;
use crate::commands::{deploy, stop};
use crate::output::Output;
use crate::start::{self, Listen};

pub(crate) async fn run(options: &Up, output: Output) -> anyhow::Result<()> {
    let (_, directory) = deploy::manifest_file(&options.path)?;
    let try_file = TryFile::read(&directory)?.ok_or_else(|| {
        Problem::new(code::MANIFEST_UNREADABLE, format!("there is no try.yaml in {}", directory.display()))
            .hint("--check compares answers with those that try.yaml declares")
    })?;
    let data = tempfile::Builder::new().prefix("kip-check-").tempdir()?;
    let free = Listen { gateway: Some(([127, 0, 0, 1], 0).into()), api: Some("127.0.0.1:0".to_owned()) };
    let client = start::background(data.path(), &free).await?;
    // From here on the server must be ended whatever is found.
    let journey = journey(&client, &options.path, &try_file, output).await;
    let ended = stop::stop_and_wait(&client, output).await;
    let summary = journey?;
    ended?;
    nothing_left(&summary, data.path())?;
    output.result(&summary, |_| {
        "Check     passed: cold start, right answers, pause, wake, records, reasons, clean end\n".to_owned()
    })
}

async fn journey(client: &Client, path: &Path, try_file: &TryFile, output: Output) -> anyhow::Result<Summary> {
    let summary = show(client, path, true, output).await?;
    let report = summary.tried.as_ref().ok_or_else(|| failed("nothing was tried"))?;
    let first = &report.first;
    expect(first.start.as_deref() == Some("cold"), || {
        format!("the first request found {:?}, not a cold start", first.start)
    })?;
    expect(first.wait_us > 0, || "the first request's start has no duration".to_owned())?;
    expect(report.accuracy >= try_file.accuracy, || {
        format!(
            "only {:.1} % of the answers are right, {:.1} % are expected",
            report.accuracy * 100.0,
            try_file.accuracy * 100.0
        )
    })?;
    let woken = report.woken.as_ref().ok_or_else(|| failed("the function never sleeps, so its wake was not seen"))?;
    expect(woken.start.as_deref() == Some("woken"), || {
        format!("after the pause a request found {:?}, not a wake", woken.start)
    })?;
    expect(report.asleep.len() == 1, || format!("{} instances slept, one was expected", report.asleep.len()))?;
    expect(report.silent == Some(true), || {
        "the sleeping instance answered a direct call: it is not paused".to_owned()
    })?;
    let slept = &report.asleep[0];
    expect(woken.instance.as_deref() == Some(slept.id.to_string().as_str()), || {
        "another instance answered than the one that slept".to_owned()
    })?;
    let now: InstanceInfo = client.get(&format!("/api/v1/instances/{}", slept.id)).await?;
    expect(now.process == slept.process && now.process.is_some(), || {
        "the woken instance is another process".to_owned()
    })?;

    let name = &try_file.function;
    let requests: Vec<RequestRecord> = client.get(&format!("/api/v1/functions/{name}/requests?limit=10000")).await?;
    expect(requests.len() == report.samples + 1, || {
        format!("{} requests were sent and {} recorded", report.samples + 1, requests.len())
    })?;
    let phases = requests
        .iter()
        .all(|record| record.status == 200 && record.total_us >= record.queue_us && record.start.is_some());
    expect(phases, || "a request's record lacks its phases".to_owned())?;
    let decisions: Vec<DecisionRecord> = client.get(&format!("/api/v1/functions/{name}/decisions?limit=1000")).await?;
    for state in ["starting", "ready", "paused", "waking"] {
        let found = decisions.iter().any(|decision| decision.to == state && !decision.why.is_empty());
        expect(found, || format!("the decision log does not say why an instance became {state}"))?;
    }
    Ok(summary)
}

/// After the end: no process that carries this server's mark, nothing that listens, no cgroup.
fn nothing_left(summary: &Summary, data: &Path) -> anyhow::Result<()> {
    let processes = summary.tried.iter().flat_map(|report| &report.asleep).filter_map(|instance| instance.process);
    for process in processes {
        expect(!Path::new(&format!("/proc/{process}")).exists(), || {
            format!("process {process} is still there after the stop")
        })?;
    }
    let gateway = summary.gateway.trim_start_matches("http://").parse::<std::net::SocketAddr>()?;
    expect(std::net::TcpStream::connect(gateway).is_err(), || format!("something still listens on {gateway}"))?;
    expect(!data.join(crate::client::FOUND).exists(), || "the server's address file is still there".to_owned())?;
    Ok(())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> anyhow::Result<()> {
    if holds {
        Ok(())
    } else {
        Err(failed(otherwise()).hint("run it without --check and look at `kip why` and `kip logs`").into())
    }
}
