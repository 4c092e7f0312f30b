//! What happens to the deployed functions, as it happens. Ctrl-C ends the watching and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use kip_control::{DecisionRecord, RequestRecord};
use kip_wire::DeployedVersion;

use crate::client::Client;
use crate::commands::inspect::decision_line;
use crate::output::{Output, clock, micros};

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How many records of each kind one look asks for.
const AT_ONCE: u32 = 100;

pub(crate) async fn decisions(client: &Client, deployed: &[DeployedVersion], output: Output) -> anyhow::Result<()> {
    output.say("\nWatching requests and decisions. Ctrl-C ends the watching; the server goes on.\n");
    let watching = async {
        let mut seen: BTreeMap<String, i64> = BTreeMap::new();
        let now = kip_host::clock::wall_millis();
        loop {
            for made in deployed {
                let name = made.function.to_string();
                let since = seen.entry(name.clone()).or_insert(now);
                let decisions: Vec<DecisionRecord> =
                    client.get(&format!("/api/v1/functions/{name}/decisions?limit={AT_ONCE}")).await?;
                let requests: Vec<RequestRecord> =
                    client.get(&format!("/api/v1/functions/{name}/requests?limit={AT_ONCE}")).await?;
                let decisions = decisions.iter().map(|record| (record.at, decision_line(record)));
                let requests = requests.iter().map(|record| (record.at, request_line(record)));
                let mut lines: Vec<(i64, String)> = decisions.chain(requests).filter(|(at, _)| at > since).collect();
                lines.sort();
                for (at, line) in lines {
                    output.say(&line);
                    *since = at;
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::select! {
        watched = watching => watched,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn request_line(record: &RequestRecord) -> String {
    let start = record.start.as_deref().unwrap_or("-");
    let status = if record.status == 0 { record.outcome.clone() } else { record.status.to_string() };
    format!(
        "{}  {:<10}  {} {} → {status} {start} in {}",
        clock(record.at),
        record.instance.as_deref().unwrap_or("-"),
        record.method,
        record.path,
        micros(record.total_us)
    )
}
