//! `kip inspect` and `kip why`.

use kip_control::{DecisionRecord, FunctionInfo, InstanceInfo, ScalingInfo};
use kip_host::clock::wall_millis;
use kip_spec::InstanceId;
use serde::Serialize;

use crate::arguments::{Inspect, Why};
use crate::client::{Client, segment};
use crate::output::{Output, clock, millis};

pub(crate) async fn inspect(client: &Client, options: &Inspect, output: Output) -> anyhow::Result<()> {
    let what = &options.what;
    if what.parse::<InstanceId>().is_ok() {
        let info: InstanceInfo = client.get(&format!("/api/v1/instances/{what}")).await?;
        return output.result(&info, lines);
    }
    let info: FunctionInfo = client.get(&format!("/api/v1/functions/{}", segment(what))).await?;
    output.result(&info, lines)
}

/// A value as `key: value` lines; nested values as indented ones.
fn lines<T: Serialize>(value: &T) -> String {
    fn add(text: &mut String, indent: usize, key: &str, value: &serde_json::Value) {
        let margin = "  ".repeat(indent);
        match value {
            serde_json::Value::Object(map) if !map.is_empty() => {
                text.push_str(&format!("{margin}{key}:\n"));
                map.iter().for_each(|(key, value)| add(text, indent + 1, key, value));
            }
            serde_json::Value::String(value) => text.push_str(&format!("{margin}{key}: {value}\n")),
            serde_json::Value::Null => {}
            other => text.push_str(&format!("{margin}{key}: {other}\n")),
        }
    }
    let mut text = String::new();
    if let Ok(serde_json::Value::Object(map)) = serde_json::to_value(value) {
        map.iter().for_each(|(key, value)| add(&mut text, 0, key, value));
    }
    text
}

/// What `kip why` shows.
#[derive(Debug, Serialize)]
struct Explanation {
    function: FunctionInfo,
    decisions: Vec<DecisionRecord>,
}

pub(crate) async fn why(client: &Client, options: &Why, output: Output) -> anyhow::Result<()> {
    let name = segment(&options.function);
    let function: FunctionInfo = client.get(&format!("/api/v1/functions/{name}")).await?;
    let decisions: Vec<DecisionRecord> =
        client.get(&format!("/api/v1/functions/{name}/decisions?limit={}", options.limit)).await?;
    output.result(&Explanation { function, decisions }, |explanation| {
        let mut text = present(&explanation.function, &explanation.decisions);
        text.push('\n');
        for decision in explanation.decisions.iter().rev() {
            text.push_str(&decision_line(decision));
            text.push('\n');
        }
        text
    })
}

/// The present state in a sentence.
fn present(info: &FunctionInfo, decisions: &[DecisionRecord]) -> String {
    let mut text = format!(
        "{} {}: {} hot, {} starting, {} asleep; {} in flight",
        info.name, info.version, info.hot, info.starting, info.asleep, info.in_flight
    );
    if info.queued > 0 {
        let age = info.oldest_waiting_ms.map(millis).unwrap_or_default();
        text.push_str(&format!("; {} wait, the oldest for {age}", info.queued));
    }
    let scaled = !info.scaling.is_empty();
    if info.hot + info.starting + info.asleep == 0 && info.failed_starts == 0 && !scaled {
        // The newest decision comes first.
        let ended = decisions.iter().find(|decision| decision.to == "stopping");
        match ended.filter(|decision| decision.why.starts_with("evicted")) {
            Some(decision) => {
                let age = u64::try_from(wall_millis().saturating_sub(decision.at)).unwrap_or_default();
                text.push_str(&format!("; nothing runs: its instance was {}, {} ago", decision.why, millis(age)));
            }
            None => text.push_str("; nothing runs because nothing was asked of it lately"),
        }
    }
    text.push('\n');
    for scaling in &info.scaling {
        let ScalingInfo { whom, mode, target, current, why, .. } = scaling;
        let panic = if scaling.panic { ", in a panic" } else { "" };
        text.push_str(&format!("{whom} by {mode}: {target} wanted, {current} there{panic}; {why}\n"));
    }
    if let Some(reminder) = &info.reminder {
        text.push_str(&format!("reminder: {reminder}\n"));
    }
    for wait in &info.waits {
        text.push_str(&format!("requests of {} wait because {}\n", wait.version, wait.why));
    }
    if let Some(version) = info.crash_loop {
        text.push_str(&format!("{version} is in a crash loop: it is tried again, with longer and longer pauses\n"));
    }
    if info.failed_starts > 0 {
        let failure = info.last_failure.as_deref().unwrap_or_default().replace('\n', "\n    ");
        let starts = match info.failed_starts {
            1 => "the last start failed:".to_owned(),
            several => format!("{several} starts failed in a row; the last one:"),
        };
        text.push_str(&format!("{starts}\n    {failure}\n"));
    }
    text
}

/// One decision in a line, with the program's last lines below where a start failed.
pub(crate) fn decision_line(decision: &DecisionRecord) -> String {
    let who = decision.instance.clone().unwrap_or_else(|| format!("version v{}", decision.version));
    let step = match &decision.from {
        Some(from) => format!("{from} → {}", decision.to),
        None => decision.to.clone(),
    };
    let mut text = format!("{}  {who:<10}  {step:<24}  {}", clock(decision.at), decision.why);
    for line in decision.detail.iter().flat_map(|detail| detail.lines()) {
        text.push_str(&format!("\n              | {line}"));
    }
    text
}
