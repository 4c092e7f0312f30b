//! `kip simulate --replay`: the decisions of a server, decided again.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use kip_fleet::Recording;
use kip_spec::{Problem, code};
use kip_wire::DecisionRecording;
use serde::Serialize;

use crate::output::{Output, clock};

/// What became of a recording.
#[derive(Debug, Serialize)]
struct Report {
    function: String,
    from: Option<i64>,
    to: Option<i64>,
    steps: usize,
    decisions: usize,
    identical: bool,
}

pub(super) fn run(file: &Path, output: Output) -> anyhow::Result<()> {
    let mut text = String::new();
    match file.as_os_str() == "-" {
        true => drop(std::io::stdin().read_to_string(&mut text)?),
        false => text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?,
    }
    let unreadable = |error: serde_json::Error| {
        let problem = Problem::new(code::COMMAND_INPUT, format!("{} is no recording", file.display()));
        problem.cause(error.to_string()).hint("`kip scaler recording FUNCTION` prints one")
    };
    let found: DecisionRecording = serde_json::from_str(&text).map_err(unreadable)?;
    let recording: Recording = serde_json::from_value(found.recording).map_err(unreadable)?;
    let replayed = recording.replay();
    if let Some(divergence) = replayed.divergence {
        let (step, other) = *divergence;
        let problem = Problem::new(
            code::REPLAY_DIFFERS,
            format!("step {} of {} is not decided the same again", replayed.steps + 1, recording.len()),
        );
        let shown = |value: String| value.chars().take(2_000).collect::<String>();
        let cause = format!(
            "at {}, {} led to {}, and now to {}",
            clock(step.now.wall),
            shown(format!("{:?}", step.event)),
            shown(format!("{:?}", step.effects)),
            shown(format!("{other:?}"))
        );
        return Err(problem.cause(cause).hint("was it recorded by the same version of kip?").into());
    }
    let report = Report {
        function: found.function.to_string(),
        from: found.from,
        to: found.to,
        steps: replayed.steps,
        decisions: replayed.decisions,
        identical: true,
    };
    output.result(&report, |report| {
        let Report { function, steps, decisions, .. } = report;
        let span = match (report.from, report.to) {
            (Some(from), Some(to)) => format!(", {} to {}", clock(from), clock(to)),
            _ => String::new(),
        };
        format!("{function}: {steps} steps{span}; all {decisions} decisions are the same\n")
    })
}
