//! `burst.yaml` beside a `kip.yaml`: callers that come and go, and a view of what the brain makes of them, with reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use kip_control::DecisionRecord;
use kip_host::clock::boot_millis;
use kip_spec::{Millis, Problem, code};
use kip_wire::{FunctionInfo, InstanceInfo};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::commands::inspect::decision_line;
use crate::commands::invoke::call;
use crate::output::Output;

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Who calls, and for how long.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BurstFile {
    /// The function to call.
    function: String,
    /// Its path.
    path: String,
    /// A file that is sent.
    body: String,
    /// What that file is.
    content_type: String,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// What is to be seen.
    say: String,
    /// Callers, each with one request after another.
    callers: usize,
    /// For how long.
    #[serde(rename = "for")]
    length: Millis,
}

/// What was seen in a step.
#[derive(Debug, Serialize)]
pub(crate) struct StepObservation {
    say: String,
    answered: u64,
    refused: u64,
    /// The most instances by kind and state at once.
    most: BTreeMap<String, usize>,
    /// Decisions, with their reasons.
    decisions: Vec<DecisionRecord>,
}

impl BurstFile {
    /// Reads the file; a folder without one is fine.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Option<Self>> {
        let file = directory.join("burst.yaml");
        let Ok(text) = std::fs::read_to_string(&file) else { return Ok(None) };
        Ok(Some(serde_saphyr::from_str(&text).map_err(|error| bad(&file, &error.to_string()))?))
    }
}

fn bad(file: &Path, cause: &str) -> Problem {
    Problem::new(code::MANIFEST_UNREADABLE, format!("{} cannot be used", file.display())).cause(cause)
}

/// Plays the steps and shows what happens.
pub(crate) async fn run(
    client: &Client,
    gateway: &str,
    directory: &Path,
    burst: &BurstFile,
    output: Output,
) -> anyhow::Result<Vec<StepObservation>> {
    let file = directory.join(&burst.body);
    let body = Bytes::from(std::fs::read(&file).map_err(|error| bad(&file, &error.to_string()))?);
    let kind = HeaderValue::from_str(&burst.content_type)?;
    let mut told = PreviousOutput::default();
    let mut all = Vec::new();
    for step in &burst.steps {
        output.say(&format!("\n== {} ({} callers for {})", step.say, step.callers, step.length));
        let stop = Arc::new(AtomicBool::new(false));
        let (answered, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let callers: Vec<_> = (0..step.callers)
            .map(|_| {
                let (gateway, path) = (gateway.to_owned(), format!("/f/{}{}", burst.function, burst.path));
                let (body, kind, stop) = (body.clone(), kind.clone(), stop.clone());
                let (answered, refused) = (answered.clone(), refused.clone());
                kip_host::tasks::spawn("caller", async move {
                    while !stop.load(Ordering::Relaxed) {
                        let headers = vec![(CONTENT_TYPE, kind.clone())];
                        let called = call(&gateway, "POST", &path, headers, body.clone()).await;
                        let well = called.is_ok_and(|called| called.status == 200);
                        if well { &answered } else { &refused }.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let (mut most, mut decisions) = (BTreeMap::new(), Vec::new());
        let end = boot_millis() + step.length.0;
        while boot_millis() < end {
            decisions.extend(look(client, &burst.function, &mut told, &mut most, output).await?);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            let _ = caller.await;
        }
        let (answered, refused) = (answered.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
        output.say(&format!("   {answered} answered, {refused} refused"));
        all.push(StepObservation { say: step.say.clone(), answered, refused, most, decisions });
    }
    Ok(all)
}

/// What was shown before.
#[derive(Default)]
struct PreviousOutput {
    decisions: BTreeSet<String>,
    counts: String,
}

/// Shows what is new since the last look.
async fn look(
    client: &Client,
    function: &str,
    told: &mut PreviousOutput,
    most: &mut BTreeMap<String, usize>,
    output: Output,
) -> anyhow::Result<Vec<DecisionRecord>> {
    let latest: Vec<DecisionRecord> = client.get(&format!("/api/v1/functions/{function}/decisions?limit=100")).await?;
    let mut fresh = Vec::new();
    for decision in latest.into_iter().rev() {
        let line = decision_line(&decision);
        if told.decisions.insert(line.clone()) {
            output.say(&format!("   {line}"));
            fresh.push(decision);
        }
    }
    let instances: Vec<InstanceInfo> = client.get("/api/v1/instances").await?;
    let mut now: BTreeMap<String, usize> = BTreeMap::new();
    for instance in instances.iter().filter(|instance| instance.function.as_str() == function) {
        *now.entry(format!("{} {}", instance.kind, instance.state)).or_default() += 1;
    }
    for (what, count) in &now {
        let entry = most.entry(what.clone()).or_default();
        *entry = (*entry).max(*count);
    }
    let info: FunctionInfo = client.get(&format!("/api/v1/functions/{function}")).await?;
    let counts = now.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ");
    let why = info.scaling.first().map(|scaling| format!("{} wanted: {}", scaling.target, scaling.why));
    let text = format!("   [{counts}] {}", why.unwrap_or_default());
    if text != told.counts {
        output.say(&text);
        told.counts = text;
    }
    Ok(fresh)
}
