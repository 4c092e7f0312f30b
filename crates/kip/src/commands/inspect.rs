//! `kip inspect` and `kip why`.

use std::fmt::Write as _;

use kip_control::DecisionRecord;
use kip_host::clock::wall_millis;
use kip_spec::function::{GpuNeed, HttpAuth, Instances, Program};
use kip_spec::{InstanceId, Millis, VersionId, people};
use kip_wire::{FunctionInfo, InstanceInfo, ScalingInfo, VersionStatus};
use serde::Serialize;

use crate::arguments::{Inspect, WhyArguments};
use crate::client::{Client, segment};
use crate::output::{Output, clock, millis};

pub(crate) async fn inspect(client: &Client, options: &Inspect, output: Output) -> anyhow::Result<()> {
    let what = &options.what;
    if what.parse::<InstanceId>().is_ok() {
        let info: InstanceInfo = client.get(&format!("/api/v1/instances/{what}")).await?;
        return output.result(&info, instance);
    }
    let info: FunctionInfo = client.get(&format!("/api/v1/functions/{}", segment(what))).await?;
    let gateway = client.gateway().await?;
    output.result(&info, |info| function(info, &gateway))
}

/// Lines of a name and a value, for people.
#[derive(Debug, Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        let value = value.to_string();
        if !value.is_empty() {
            let _ = writeln!(self.0, "{name:<13}{value}");
        }
    }
}

fn instance(info: &InstanceInfo) -> String {
    let mut lines = Lines::default();
    lines.add("instance", format!("{} of {} {}", info.id, info.function, info.label));
    lines.add("state", format!("{} for {}", info.state, millis(info.for_ms)));
    lines.add("kind", &info.kind);
    lines.add("waits for", info.waits_for.as_deref().unwrap_or_default());
    lines.add("replaced", info.replace.as_deref().unwrap_or_default());
    if info.unready {
        lines.add("ready", "no: its ready probe fails, and it gets no requests");
    }
    lines.add("requests", format!("{} in flight, {} served", info.in_flight, info.served));
    lines.add("devices", info.devices.join(", "));
    lines.add("process", info.process.map(|process| process.to_string()).unwrap_or_default());
    lines.add("address", info.address.as_deref().unwrap_or_default());
    lines.add("peak memory", info.peak_memory.map(people::size).unwrap_or_default());
    lines.0
}

fn function(info: &FunctionInfo, gateway: &str) -> String {
    let spec = &info.spec;
    let mut lines = Lines::default();
    lines.add(if spec.job.is_some() { "job" } else { "function" }, &info.name);
    let newer = info.outcomes.last().filter(|(version, _)| *version != info.version);
    let newer = newer.map(|(version, status)| format!("; {} {}", info.label_of(*version), status_text(info, status)));
    lines.add("serves", format!("{}{}", info.label, newer.unwrap_or_default()));
    let traffic: Vec<String> = info.traffic.iter().map(|(to, percent)| format!("{to} {percent} %")).collect();
    lines.add("traffic", traffic.join(", "));
    if spec.job.is_none() {
        lines.add("url", format!("http://{gateway}/f/{}/", info.name));
    }
    lines.add("instances", format!("{} hot, {} starting, {} asleep", info.hot, info.starting, info.asleep));
    lines.add("requests", format!("{} in flight, {} queued", info.in_flight, info.queued));
    if info.failed_starts > 0 {
        let why = info.last_failure.as_deref().and_then(|text| text.lines().next()).unwrap_or_default();
        lines.add("failures", format!("{} starts failed in a row: {why}", info.failed_starts));
    }
    match &spec.program {
        Program::Command { argv, dir } => {
            lines.add("runs", argv.join(" "));
            lines.add("in", dir.display());
        }
        Program::Model { path } => lines.add("model", path.display()),
        Program::Image(container) => {
            lines.add("image", &container.image);
            if let Some(id) = &container.id {
                lines.add("is", container.digest.as_ref().unwrap_or(id));
            }
            let words: Vec<&str> = container.entrypoint.iter().chain(&container.argv).map(String::as_str).collect();
            lines.add("runs", if words.is_empty() { "what the image says".to_owned() } else { words.join(" ") });
        }
    }
    for (name, value) in &spec.env {
        lines.add("env", format!("{name}={value}"));
    }
    let resources = &spec.resources;
    let gpu = resources.gpu.as_ref().map(|gpu| {
        let kind = gpu.kind.as_deref().map(|kind| format!(" of type {kind}")).unwrap_or_default();
        match gpu.need {
            GpuNeed::Memory(bytes) => format!("{} of a device{kind}", people::size(bytes.0)),
            GpuNeed::Measured => format!("as much of a device{kind} as is measured"),
            GpuNeed::Cards(cards) => format!("{cards} devices{kind}"),
        }
    });
    let parts = [
        resources.cpu.map(|cpu| format!("{cpu} cores")),
        resources.memory.map(|memory| format!("{} of memory", people::size(memory.0))),
        gpu,
    ];
    lines.add("reserves", parts.into_iter().flatten().collect::<Vec<_>>().join(", "));
    let Instances { min, max, concurrency } = &spec.instances;
    let at_once = match (concurrency.soft, concurrency.hard) {
        (soft, hard) if soft == hard => format!("{hard} requests at once in each"),
        (soft, hard) => format!("{soft} requests at once in each, {hard} at most"),
    };
    lines.add("limits", format!("{min} to {max} instances, {at_once}, {} may wait", spec.queue_depth));
    let never = |time: Option<Millis>| time.map_or_else(|| "never".to_owned(), |time| people::duration(time.0));
    lines.add("idle", format!("paused after {}, stopped after {}", never(spec.idle.pause), never(spec.idle.stop)));
    lines.add("scaling", spec.scaling.name());
    let times = &spec.timeouts;
    lines.add(
        "timeouts",
        format!(
            "start {}, queue {}, first byte {}, total {}",
            people::duration(times.startup.0),
            people::duration(times.queue.0),
            people::duration(times.first_byte.0),
            people::duration(times.total.0)
        ),
    );
    if spec.job.is_none() {
        let keys = match spec.http.auth {
            HttpAuth::Key => "with a key",
            HttpAuth::Jwt => "with a token or a key",
            HttpAuth::Anonymous => "without a key",
        };
        lines.add("callers", keys);
    }
    lines.0 + &format!("{:<13}kip why {1}, kip logs {1}, kip inspect {1} -o json\n", "more", info.name)
}

fn status_text(info: &FunctionInfo, status: &VersionStatus) -> String {
    match status {
        VersionStatus::Candidate => "is starting".to_owned(),
        VersionStatus::Serving => "served".to_owned(),
        VersionStatus::Replaced { by } => format!("was replaced by {}", info.label_of(*by)),
        VersionStatus::Failed { why, .. } => format!("failed: {why}"),
    }
}

/// What `kip why` shows.
#[derive(Debug, Serialize)]
struct Explanation {
    function: FunctionInfo,
    decisions: Vec<DecisionRecord>,
}

pub(crate) async fn why(client: &Client, options: &WhyArguments, output: Output) -> anyhow::Result<()> {
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
        info.name, info.label, info.hot, info.starting, info.asleep, info.in_flight
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
    if let Some(missing) = &info.missing {
        text.push_str(&format!("missing: {missing}\n"));
    }
    if let Some(reminder) = &info.reminder {
        text.push_str(&format!("reminder: {reminder}\n"));
    }
    for wait in &info.waits {
        text.push_str(&format!("requests of {} wait because {}\n", wait.label, wait.why));
    }
    if let Some(version) = info.crash_loop {
        let version = info.label_of(version);
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
    let who = decision.instance.clone().unwrap_or_else(|| match decision.version {
        0 => "function".to_owned(),
        version => {
            let label = decision.label.clone().unwrap_or_else(|| VersionId(version).to_string());
            format!("version {label}")
        }
    });
    let step = match &decision.from {
        Some(from) => format!("{from} → {}", decision.to),
        None => decision.to.clone(),
    };
    let mut text = format!("{}  {who:<10}  {step:<24}  {}", clock(decision.at), decision.why);
    for line in decision.detail.iter().flat_map(|detail| detail.lines()) {
        text.push_str(&format!("\n                  | {line}"));
    }
    text
}
