//! Samples sent, answers compared, the function left alone until it sleeps, and woken.

use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kip_control::DecisionRecord;
use kip_host::clock::boot_millis;
use kip_host::endpoint::Endpoint;
use kip_host::http_client;
use kip_spec::problem::Envelope;
use kip_wire::{FunctionInfo, InstanceInfo};
use serde::Serialize;

use super::failed;
use super::samples::{Sample, TryFile};
use crate::client::Client;
use crate::commands::inspect::decision_line;
use crate::commands::invoke::{InvokeAnswer, call};
use crate::output::{Output, micros, millis};

/// What was seen.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The first request.
    pub(crate) first: InvokeAnswer,
    /// How many samples were sent.
    pub(crate) samples: usize,
    /// How many answers were right.
    pub(crate) right: usize,
    /// Their share.
    pub(crate) accuracy: f64,
    /// The median of the requests to a hot instance, from the outside, in microseconds.
    pub(crate) warm_p50_us: u64,
    /// The instances that fell asleep, if the function lets them.
    pub(crate) asleep: Vec<InstanceInfo>,
    /// Whether they were seen to be silent when called past the gateway; `None` where nobody tried.
    pub(crate) silent: Option<bool>,
    /// The request that woke one.
    pub(crate) woken: Option<InvokeAnswer>,
}

/// How much longer than `idle.pause` it may take until everything sleeps.
const SLEEP_MARGIN: Duration = Duration::from_secs(15);

/// Tries the function. With `prove`, sleepers are called past the gateway, which must find them silent.
pub(crate) async fn run(
    client: &Client,
    gateway: &str,
    directory: &Path,
    try_file: &TryFile,
    prove: bool,
    output: Output,
) -> anyhow::Result<Report> {
    let samples = try_file.samples(directory)?;
    let info: FunctionInfo = client.get(&format!("/api/v1/functions/{}", try_file.function)).await?;
    output.say("");
    output.say(&format!(
        "{:<16} {:>5} {:>7}   {:<5} {:>10} {:>11} {:>10}",
        "SAMPLE", "TRUTH", "ANSWER", "START", "WAIT", "FIRST BYTE", "TOTAL"
    ));
    let progress = progress(samples.len(), output);
    let (mut first, mut right, mut warm) = (None, 0, Vec::new());
    for (number, sample) in samples.iter().enumerate() {
        let called = send(gateway, try_file, sample).await?;
        let answer = prediction(&called, try_file)?;
        right += usize::from(answer == sample.truth);
        if number < try_file.show {
            progress.suspend(|| output.say(&row(sample, &answer, &called)));
        }
        if called.start.as_deref() == Some("warm") {
            warm.push(called.total_us);
        }
        first.get_or_insert(called);
        progress.inc(1);
    }
    progress.finish_and_clear();
    warm.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "counts of samples are far below 2^52")]
    let accuracy = right as f64 / samples.len() as f64;
    let warm_p50_us = warm.get(warm.len() / 2).copied().unwrap_or(0);
    output.say(&format!(
        "Accuracy  {right} of {} held-back samples right: {:.1} %, p50 {}",
        samples.len(),
        accuracy * 100.0,
        micros(warm_p50_us)
    ));

    let (asleep, silent, woken) = match info.spec.idle.pause {
        None => (Vec::new(), None, None),
        Some(pause) => {
            let asleep = until_asleep(client, &info, pause.to_std(), output).await?;
            let silent = if prove { Some(all_silent(&asleep).await) } else { None };
            let sample = &samples[0];
            let called = send(gateway, try_file, sample).await?;
            let answer = prediction(&called, try_file)?;
            output.say(&row(sample, &answer, &called));
            let decisions: Vec<DecisionRecord> =
                client.get(&format!("/api/v1/functions/{}/decisions?limit=4", try_file.function)).await?;
            decisions.iter().rev().for_each(|decision| output.say(&format!("          {}", decision_line(decision))));
            (asleep, silent, Some(called))
        }
    };
    let first = first.ok_or_else(|| failed("there were no samples"))?;
    Ok(Report { first, samples: samples.len(), right, accuracy, warm_p50_us, asleep, silent, woken })
}

fn progress(samples: usize, output: Output) -> ProgressBar {
    let bar = ProgressBar::new(samples as u64);
    if !output.is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} samples") {
        bar.set_style(style);
    }
    bar
}

async fn send(gateway: &str, try_file: &TryFile, sample: &Sample) -> anyhow::Result<InvokeAnswer> {
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_str(&sample.content_type)?)];
    let path = format!("/f/{}{}", try_file.function, try_file.path);
    call(gateway, "POST", &path, headers, sample.body.clone()).await
}

fn prediction(called: &InvokeAnswer, try_file: &TryFile) -> anyhow::Result<String> {
    if called.status != 200 {
        return Err(match serde_json::from_slice::<Envelope>(&called.body) {
            Ok(envelope) => envelope.error.into(),
            Err(_) => {
                failed(format!("the function answered {}: {}", called.status, String::from_utf8_lossy(&called.body)))
                    .into()
            }
        });
    }
    let value: serde_json::Value = serde_json::from_slice(&called.body)?;
    let found = value
        .pointer(&try_file.answer)
        .ok_or_else(|| failed(format!("the answer has nothing at {}: {value}", try_file.answer)))?;
    Ok(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
}

fn row(sample: &Sample, answer: &str, called: &InvokeAnswer) -> String {
    let mark = if answer == sample.truth { ' ' } else { '✗' };
    let start = called.start.as_deref().unwrap_or("-");
    format!(
        "{:<16} {:>5} {answer:>7} {mark} {start:<5} {:>10} {:>11} {:>10}",
        sample.name,
        sample.truth,
        micros(called.wait_us),
        micros(called.first_byte_us),
        micros(called.total_us)
    )
}

/// How long a sleeper is listened to.
const SILENCE: Duration = Duration::from_millis(300);

/// Calls sleepers directly. The kernel takes the connection for a frozen process; only an answer would show that it runs.
async fn all_silent(asleep: &[InstanceInfo]) -> bool {
    for instance in asleep {
        let endpoint = instance.address.as_deref().and_then(|address| address.parse::<Endpoint>().ok());
        let Some(endpoint) = endpoint else { return false };
        let headers = http::HeaderMap::new();
        if http_client::status_of(http::Method::GET, &endpoint, "/", &headers, SILENCE).await.is_ok() {
            return false;
        }
    }
    true
}

/// Waits until all instances of the function sleep.
async fn until_asleep(
    client: &Client,
    info: &FunctionInfo,
    pause: Duration,
    output: Output,
) -> anyhow::Result<Vec<InstanceInfo>> {
    let begun = boot_millis();
    let limit = begun + u64::try_from((pause + SLEEP_MARGIN).as_millis()).unwrap_or(u64::MAX);
    loop {
        let all: Vec<InstanceInfo> = client.get("/api/v1/instances").await?;
        let mine: Vec<InstanceInfo> = all.into_iter().filter(|instance| instance.function == info.name).collect();
        if !mine.is_empty() && mine.iter().all(|instance| instance.state == "paused") {
            let ids: Vec<String> = mine.iter().map(|instance| instance.id.to_string()).collect();
            output.say(&format!(
                "Asleep    {} after {} without a request: it gets no CPU until the next one",
                ids.join(", "),
                millis(boot_millis() - begun)
            ));
            return Ok(mine);
        }
        if boot_millis() > limit {
            return Err(
                failed(format!("`{}` did not fall asleep within {pause:?} and {SLEEP_MARGIN:?}", info.name)).into()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
