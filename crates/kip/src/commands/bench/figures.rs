//! Figures of a phase.

use std::collections::BTreeSet;

use serde::Serialize;

use super::load::{Sample, Start};
use crate::arguments::{Load, Phase};
use crate::output;

/// What a phase measured. Latencies are in microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PhaseFigures {
    pub(crate) name: String,
    /// `200/s`, or a number of callers.
    pub(crate) load: String,
    /// Where latencies begin: `schedule` (at a rate) or `send` (by callers).
    pub(crate) from: &'static str,
    pub(crate) seconds: f64,
    pub(crate) requests: usize,
    pub(crate) answers: usize,
    /// Answers with a status of 400 or more.
    pub(crate) errors: usize,
    pub(crate) without_answer: usize,
    /// Answers below 400 each second.
    pub(crate) rate: f64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
    pub(crate) warm: usize,
    pub(crate) woken: usize,
    pub(crate) cold: usize,
    /// Instances that answered.
    pub(crate) instances: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_fault: Option<String>,
}

impl PhaseFigures {
    pub(crate) fn of(phase: &Phase, samples: &[Sample]) -> Self {
        let mut latencies: Vec<u64> =
            samples.iter().filter(|sample| sample.status.is_some()).map(|sample| sample.latency).collect();
        latencies.sort_unstable();
        let seconds = seconds(phase, samples);
        let started = |start| samples.iter().filter(|sample| sample.start == Some(start)).count();
        let good = samples.iter().filter(|sample| sample.status.is_some_and(|status| status < 400)).count();
        Self {
            name: phase.name.clone(),
            load: match phase.load {
                Load::Rate(rate) => format!("{rate}/s"),
                Load::Callers(count) => format!("{count} callers"),
            },
            from: if matches!(phase.load, Load::Rate(_)) { "schedule" } else { "send" },
            seconds,
            requests: samples.len(),
            answers: latencies.len(),
            errors: latencies.len() - good,
            without_answer: samples.len() - latencies.len(),
            rate: if seconds > 0.0 { count(good) / seconds } else { 0.0 },
            p50: percentile(&latencies, 50),
            p90: percentile(&latencies, 90),
            p99: percentile(&latencies, 99),
            max: latencies.last().copied().unwrap_or_default(),
            warm: started(Start::Warm),
            woken: started(Start::Woken),
            cold: started(Start::Cold),
            instances: samples.iter().filter_map(|one| one.instance.as_deref()).collect::<BTreeSet<_>>().len(),
            first_fault: samples.iter().find_map(|sample| sample.fault.clone()),
        }
    }
}

/// From the first request to the last answer, at least as long as the phase was to be.
fn seconds(phase: &Phase, samples: &[Sample]) -> f64 {
    let end = samples.iter().map(|sample| sample.at + sample.latency).max().unwrap_or_default();
    micros(end.max(phase.duration.0.saturating_mul(1_000))) / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a test are far below 2^52")]
fn micros(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "requests of a test are far below 2^52")]
fn count(value: usize) -> f64 {
    value as f64
}

/// The value that so many percent are not above; of sorted values.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// All phases, a line each.
pub(crate) fn table(all: &[&PhaseFigures]) -> String {
    let row = |figures: &&PhaseFigures| {
        vec![
            figures.name.clone(),
            figures.load.clone(),
            figures.requests.to_string(),
            format!("{:.1}", figures.rate),
            (figures.errors + figures.without_answer).to_string(),
            output::micros(figures.p50),
            output::micros(figures.p90),
            output::micros(figures.p99),
            output::micros(figures.max),
            figures.warm.to_string(),
            figures.woken.to_string(),
            figures.cold.to_string(),
            figures.instances.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let header = [
        "PHASE",
        "LOAD",
        "#REQUESTS",
        "#GOOD/S",
        "#FAILED",
        "#P50",
        "#P90",
        "#P99",
        "#MAX",
        "#WARM",
        "#WOKEN",
        "#COLD",
        "#INSTANCES",
    ];
    output::table(&header, &rows)
}

#[cfg(test)]
mod tests {
    use kip_spec::Millis;

    use super::*;

    #[test]
    fn percentiles_and_counts() {
        assert_eq!((percentile(&[], 50), percentile(&[7], 99)), (0, 7));
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99), percentile(&values, 100)), (100, 198, 200));
        let sample = |status, start, latency| Sample {
            at: 0,
            latency,
            status,
            start,
            instance: status.map(|_| "i-1-1-1".to_owned()),
            fault: status.is_none().then(|| "x".to_owned()),
        };
        let samples = [
            sample(Some(200), Some(Start::Cold), 900_000),
            sample(Some(503), None, 1_000),
            sample(None, None, 5_000_000),
            sample(Some(200), Some(Start::Warm), 2_000),
        ];
        let phase = Phase { name: "a".to_owned(), load: Load::Rate(2), duration: Millis(2_000), path: None };
        let figures = PhaseFigures::of(&phase, &samples);
        assert_eq!((figures.requests, figures.answers, figures.errors, figures.without_answer), (4, 3, 1, 1));
        assert_eq!((figures.max, figures.cold, figures.warm, figures.from), (900_000, 1, 1, "schedule"));
        assert!((figures.rate - 0.4).abs() < 1e-9, "two good answers in five seconds: {}", figures.rate);
    }
}
