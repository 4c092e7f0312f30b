//! The result as a table, and as JSON.

use std::collections::BTreeMap;

use kip_fleet::{ScalingExplanation, State};
use kip_sim::replay::{Bounds, Costs, Outcome, Prices};
use serde::Serialize;

use super::bill::{Tariff, by_state};
use super::input::Source;
use super::policies::Contestant;
use super::{Played, explain};
use crate::output::{millis, table};

/// What a policy made of a trace. Times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) policy: String,
    /// The cost, as a share of a fleet of the size of the peak.
    pub(super) cost_of_peak: f64,
    /// The cost, in times of the clairvoyant bound without delay.
    pub(super) cost_of_oracle: f64,
    delay_p50_ms: u64,
    delay_p90_ms: u64,
    pub(super) delay_p99_ms: u64,
    delay_max_ms: u64,
    delay_mean_ms: f64,
    /// The share of requests that waited for more than a second.
    delayed_over_1s: f64,
    cold_share: f64,
    woken_share: f64,
    active_ms: u64,
    asleep_ms: u64,
    busy_ms: u64,
    /// The time of all instances by state; nothing for the bounds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    states_ms: BTreeMap<String, u64>,
    /// What it would be billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    billed: Option<String>,
    /// The mean power, watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    watts: Option<f64>,
    starts: u64,
    peak_instances: u32,
    /// Instances at once at most that were not asleep.
    peak_awake: u32,
    refused: u64,
    /// The largest share of cold requests that three quarters of the functions do not exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    cold_share_q75: Option<f64>,
    /// Equal for equal runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    hash: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    explanations: Vec<Explained>,
}

/// Why a function had so many instances.
#[derive(Debug, Clone, Serialize)]
struct Explained {
    function: Option<String>,
    scaling: ScalingExplanation,
    text: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    form: &'static str,
    requests: u64,
    functions: usize,
    span_ms: u64,
    peak: u32,
    busy_ms: u64,
    /// Of what is billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    /// The clairvoyant bound as a share of a fleet of the size of the peak.
    oracle_of_peak: f64,
    policies: Vec<Row>,
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of any trace fit into 52 bits")]
fn peak_cost(bounds: &Bounds) -> f64 {
    f64::from(bounds.peak.max(1)) * bounds.span.max(1) as f64
}

impl Report {
    pub(super) fn new(
        source: &Source,
        bounds: &Bounds,
        played: &[Played],
        prices: (Prices, &Tariff),
        names: &[String],
    ) -> Self {
        Self {
            form: source.form().name(),
            requests: bounds.requests,
            functions: names.len().max(1),
            span_ms: bounds.span,
            peak: bounds.peak,
            busy_ms: bounds.busy,
            currency: prices.1.currency().map(str::to_owned),
            oracle_of_peak: bounds.oracle / peak_cost(bounds),
            policies: played.iter().map(|played| row(played, bounds, prices, names)).collect(),
        }
    }
}

/// One row of the table.
pub(super) fn row((contestant, outcome): &Played, bounds: &Bounds, prices: (Prices, &Tariff), names: &[String]) -> Row {
    match (contestant, outcome) {
        (Contestant::Policy(name, _), Some(outcome)) => of_policy(name, outcome, bounds, prices, names),
        (Contestant::Oracle, _) => of_bound("oracle", bounds.oracle, bounds, prices.1),
        _ => of_bound("peak", peak_cost(bounds), bounds, prices.1),
    }
}

/// A bound lets no request wait.
fn of_bound(name: &str, cost: f64, bounds: &Bounds, tariff: &Tariff) -> Row {
    let peak = name == "peak";
    let active = if peak { u64::from(bounds.peak) * bounds.span } else { 0 };
    // A fleet that is always there is never idle in the sense of a price.
    let times = BTreeMap::from([(State::Busy.name().to_owned(), active)]);
    Row {
        policy: name.to_owned(),
        cost_of_peak: cost / peak_cost(bounds),
        cost_of_oracle: cost / bounds.oracle.max(1.0),
        delay_p50_ms: 0,
        delay_p90_ms: 0,
        delay_p99_ms: 0,
        delay_max_ms: 0,
        delay_mean_ms: 0.0,
        delayed_over_1s: 0.0,
        cold_share: 0.0,
        woken_share: 0.0,
        active_ms: active,
        asleep_ms: 0,
        busy_ms: bounds.busy,
        states_ms: BTreeMap::new(),
        billed: tariff.billed(bounds.requests, &times).filter(|_| peak),
        watts: tariff.watts(active, 0, bounds.span).filter(|_| peak),
        starts: if peak { 0 } else { bounds.starts },
        peak_instances: bounds.peak,
        peak_awake: bounds.peak,
        refused: 0,
        cold_share_q75: None,
        hash: String::new(),
        explanations: Vec::new(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shares for people")]
fn of_policy(
    name: &str,
    outcome: &Outcome,
    bounds: &Bounds,
    (prices, tariff): (Prices, &Tariff),
    names: &[String],
) -> Row {
    let states = by_state(outcome);
    let costs = Costs::of(outcome);
    let total = costs.total(prices);
    let delays = &outcome.delays;
    let share = |count: u64| count as f64 / delays.count().max(1) as f64;
    let mut cold: Vec<f64> = outcome
        .functions
        .iter()
        .filter(|(requests, _)| *requests > 0)
        .map(|(requests, cold)| *cold as f64 / *requests as f64)
        .collect();
    cold.sort_by(f64::total_cmp);
    let explained = outcome.explanations.iter().map(|it| Explained {
        function: names.get(it.function as usize).cloned(),
        scaling: it.scaling.clone(),
        text: explain::text(it),
    });
    Row {
        policy: name.to_owned(),
        cost_of_peak: total / peak_cost(bounds),
        cost_of_oracle: total / bounds.oracle.max(1.0),
        delay_p50_ms: delays.quantile(500),
        delay_p90_ms: delays.quantile(900),
        delay_p99_ms: delays.quantile(990),
        delay_max_ms: delays.max(),
        delay_mean_ms: delays.mean(),
        delayed_over_1s: delays.share_over(1_000),
        cold_share: share(outcome.cold),
        woken_share: share(outcome.woken),
        active_ms: costs.active,
        asleep_ms: costs.asleep,
        busy_ms: costs.busy,
        billed: tariff.billed(outcome.delays.count(), &states),
        watts: tariff.watts(costs.active, costs.asleep, bounds.span),
        states_ms: states,
        starts: outcome.starts,
        peak_instances: outcome.peak_instances,
        peak_awake: outcome.peak_awake,
        refused: outcome.refused,
        cold_share_q75: (cold.len() > 1).then(|| cold[(cold.len() * 3).div_ceil(4) - 1]),
        hash: format!("{:016x}", outcome.hash),
        explanations: explained.collect(),
    }
}

pub(super) fn shown(report: &Report) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let functions = if report.functions > 1 { format!(" of {} functions", report.functions) } else { String::new() };
    let mut text = format!(
        "{} requests{functions} in {}, at most {} at once; without delay and with knowledge of the future {} of a fleet of that size\n\n",
        report.requests,
        millis(report.span_ms),
        report.peak,
        percent(report.oracle_of_peak)
    );
    let mut header = vec![
        "POLICY",
        "#COST/PEAK",
        "#X ORACLE",
        "#P50",
        "#P90",
        "#P99",
        "#MAX",
        "#>1s",
        "#COLD",
        "#WOKEN",
        "#ACTIVE",
        "#ASLEEP",
        "#STARTS",
        "#INSTANCES",
        "#AWAKE",
    ];
    let mut rows: Vec<Vec<String>> = report
        .policies
        .iter()
        .map(|row| {
            vec![
                row.policy.clone(),
                format!("{:.3}", row.cost_of_peak),
                format!("{:.2}", row.cost_of_oracle),
                millis(row.delay_p50_ms),
                millis(row.delay_p90_ms),
                millis(row.delay_p99_ms),
                millis(row.delay_max_ms),
                percent(row.delayed_over_1s),
                percent(row.cold_share),
                percent(row.woken_share),
                millis(row.active_ms),
                millis(row.asleep_ms),
                row.starts.to_string(),
                row.peak_instances.to_string(),
                row.peak_awake.to_string(),
            ]
        })
        .collect();
    let mut further = |name: &'static str, value: fn(&Row) -> Option<String>| {
        if report.policies.iter().any(|row| value(row).is_some()) {
            header.push(name);
            let values = report.policies.iter().map(|row| value(row).unwrap_or_else(|| "-".to_owned()));
            rows.iter_mut().zip(values).for_each(|(row, value)| row.push(value));
        }
    };
    further("#BILLED", |row| row.billed.clone());
    further("#WATTS", |row| row.watts.map(|watts| format!("{watts:.0}")));
    text.push_str(&table(&header, &rows));
    if let Some(currency) = &report.currency {
        text.push_str(&format!("billed in {currency}\n"));
    }
    for row in &report.policies {
        for explained in &row.explanations {
            let of = explained.function.as_deref().map(|name| format!(", {name}")).unwrap_or_default();
            text.push_str(&format!("\n{}{of}:\n{}", row.policy, explained.text));
        }
    }
    text
}
