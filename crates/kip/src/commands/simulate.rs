//! `kip simulate`: a trace of requests under several policies, by the code that decides in the server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use kip_fleet::Policy;
use kip_manifest::{Deployer, Source};
use kip_sim::replay::trace::{Reader, Service, TraceError};
use kip_sim::replay::{Bounds, Costs, InstanceTimes, Outcome, Prices, TraceRequest, bounds, replay};
use kip_spec::{Millis, Problem, code};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::arguments::Simulate;
use crate::output::{Output, millis, table};
use crate::problem::Problems;

/// What is compared if nothing is said.
const USUAL: [&str; 3] = ["auto", "fixed", "kpa"];
/// Nobody is refused: a trace says who was served.
const PATIENCE: u64 = 366 * 86_400_000;
/// Requests that may wait.
const ROOM: u32 = u32::MAX;

/// What a policy made of a trace. Times in milliseconds.
#[derive(Debug, Serialize)]
struct Row {
    policy: String,
    /// The cost, as a share of a fleet of the size of the peak.
    cost_of_peak: f64,
    /// The cost, in times of the clairvoyant bound without delay.
    cost_of_oracle: f64,
    delay_p50_ms: u64,
    delay_p90_ms: u64,
    delay_p99_ms: u64,
    delay_max_ms: u64,
    delay_mean_ms: f64,
    /// The share of requests that waited for more than a second.
    delayed_over_1s: f64,
    cold_share: f64,
    woken_share: f64,
    active_ms: u64,
    asleep_ms: u64,
    busy_ms: u64,
    starts: u64,
    peak_instances: u32,
    refused: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    requests: usize,
    span_ms: u64,
    peak: u32,
    busy_ms: u64,
    /// The clairvoyant bound as a share of a fleet of the size of the peak.
    oracle_of_peak: f64,
    policies: Vec<Row>,
}

pub(crate) fn run(options: &Simulate, output: Output) -> anyhow::Result<()> {
    let prices = match options.idle_price {
        None => Prices::default(),
        Some(asleep) if (0.0..=1.0).contains(&asleep) => Prices { asleep },
        Some(other) => {
            let problem = Problem::new(code::COMMAND_INPUT, format!("--idle-price {other} is not from 0 to 1"));
            return Err(problem.hint("the share of the price of an active instance, such as 0.238").into());
        }
    };
    let names: Vec<String> = match options.policies.is_empty() {
        true => USUAL.map(str::to_owned).to_vec(),
        false => options.policies.clone(),
    };
    let policies = names.iter().map(|text| policy(text)).collect::<anyhow::Result<Vec<(String, Policy)>>>()?;
    let service = options.service.as_deref().map(service).transpose()?;
    let requests = read(&options.trace, service.as_ref())?;
    let times = InstanceTimes { cold: options.cold.0, wake: options.wake.0 };
    let from = options.warm_up.0;
    let bounds = bounds(&requests, times, prices.asleep, from);
    if requests.last().is_none_or(|last| last.at < from) {
        let message = "the trace ends before the warm-up is over";
        return Err(Problem::new(code::TRACE_INVALID, message).hint("shorten --warm-up").into());
    }
    let peak = peak_cost(&bounds);
    let rows = policies.into_iter().map(|(name, policy)| {
        let outcome = replay(requests.iter().copied(), policy, times, from);
        row(name, &outcome, prices, (peak, bounds.oracle))
    });
    let report = Report {
        requests: requests.len(),
        span_ms: bounds.span,
        peak: bounds.peak,
        busy_ms: bounds.busy,
        oracle_of_peak: bounds.oracle / peak,
        policies: rows.collect(),
    };
    output.result(&report, shown)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of any trace fit into 52 bits")]
fn peak_cost(bounds: &Bounds) -> f64 {
    f64::from(bounds.peak.max(1)) * bounds.span.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "shares for people")]
fn row(policy: String, outcome: &Outcome, prices: Prices, (peak, oracle): (f64, f64)) -> Row {
    let costs = Costs::of(outcome);
    let total = costs.total(prices);
    let delays = &outcome.delays;
    let share = |count: u64| count as f64 / delays.count().max(1) as f64;
    Row {
        policy,
        cost_of_peak: total / peak,
        cost_of_oracle: total / oracle.max(1.0),
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
        starts: outcome.starts,
        peak_instances: outcome.peak_instances,
        refused: outcome.refused,
    }
}

/// A policy by its name, or under a name of one's own with keys of a function of kip.yaml.
fn policy(text: &str) -> anyhow::Result<(String, Policy)> {
    let (name, settings) = text.split_once('=').map_or((text, None), |(name, settings)| (name, Some(settings)));
    let mut function = Map::new();
    function.insert("run".to_owned(), json!(["simulated"]));
    function.insert("instances".to_owned(), json!({ "max": 1_000 }));
    if ["auto", "kpa", "fc"].contains(&name) {
        function.insert("scaling".to_owned(), json!({ "mode": name }));
    } else if name != "fixed" && settings.is_none() {
        let problem = Problem::new(code::COMMAND_INPUT, format!("there is no policy `{name}`"));
        return Err(problem.hint("auto, fixed, fc, kpa, or NAME={…} with keys of a function of kip.yaml").into());
    }
    if let Some(settings) = settings {
        let given: Map<String, Value> = serde_saphyr::from_str(settings).map_err(|error| {
            Problem::new(code::COMMAND_INPUT, format!("the settings of policy `{name}` are not understood"))
                .cause(error.to_string())
                .hint("write them as in kip.yaml: --policy 'frozen={idle: {pause: 3s, stop: 10m}}'")
        })?;
        for (key, value) in given {
            merge(function.entry(key).or_insert(Value::Null), value);
        }
    }
    let text = json!({ "api": "kip/v1", "functions": { "simulated": function } }).to_string();
    let (variables, env_files) = (BTreeMap::new(), BTreeMap::new());
    let deployer = Deployer { variables: &variables, env_files: &env_files };
    let source = Source { file: name, text: &text, directory: Path::new("/"), deployer };
    let manifest = kip_manifest::read(&source).map_err(Problems)?;
    let Some(spec) = manifest.functions.first() else {
        return Err(Problem::new(code::COMMAND_INPUT, format!("policy `{name}` declares nothing")).into());
    };
    let mut policy = Policy::from(spec);
    (policy.queue_depth, policy.queue_timeout) = (ROOM, PATIENCE);
    // How long an operation takes is given.
    (policy.limits.start, policy.limits.sleep, policy.limits.request) = (PATIENCE, PATIENCE, PATIENCE);
    Ok((name.to_owned(), policy))
}

/// Maps are merged key by key; anything else replaces.
fn merge(into: &mut Value, value: Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(value)) => {
            for (key, value) in value {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value,
    }
}

fn service(text: &str) -> anyhow::Result<Service> {
    if let Ok(time) = text.parse::<Millis>() {
        return Ok(Service::Constant(time.0));
    }
    Ok(Service::formula(text).map_err(wrong)?)
}

fn wrong(error: TraceError) -> Problem {
    let hint = match &error {
        TraceError::Unsorted { .. } => "sort the lines by arrival: the trace is read once, from the beginning",
        TraceError::NoColumn { .. } => {
            "--service names another column, a formula or a duration; arrivals are in t_s or at_ms"
        }
        _ => "docs/simulate.md describes the form of a trace",
    };
    Problem::new(code::TRACE_INVALID, error.to_string()).hint(hint)
}

fn read(path: &Path, service: Option<&Service>) -> anyhow::Result<Vec<TraceRequest>> {
    let input: Box<dyn BufRead> = match path.as_os_str() == "-" {
        true => Box::new(BufReader::new(stdin())),
        false => {
            let file = File::open(path).map_err(|error| {
                Problem::new(code::TRACE_INVALID, format!("{} cannot be read", path.display())).cause(error.to_string())
            })?;
            match path.extension().is_some_and(|extension| extension == "gz") {
                true => Box::new(BufReader::new(MultiGzDecoder::new(file))),
                false => Box::new(BufReader::new(file)),
            }
        }
    };
    let requests: Vec<TraceRequest> = Reader::new(input, service).and_then(|reader| reader.collect()).map_err(wrong)?;
    if requests.is_empty() {
        return Err(wrong(TraceError::Empty).into());
    }
    Ok(requests)
}

fn shown(report: &Report) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut text = format!(
        "{} requests in {}, at most {} at once; without delay and with knowledge of the future {} of a fleet of that size\n\n",
        report.requests,
        millis(report.span_ms),
        report.peak,
        percent(report.oracle_of_peak)
    );
    let header = [
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
    ];
    let rows: Vec<Vec<String>> = report
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
            ]
        })
        .collect();
    text.push_str(&table(&header, &rows));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_spec::scaling::Scaling;

    #[test]
    fn policies_are_names_or_settings() {
        assert!(matches!(policy("auto").unwrap().1.scaling, Scaling::Auto(_)));
        let (name, frozen) = policy("frozen={idle: {pause: 3s, stop: 10m}, instances: {max: 5}}").unwrap();
        assert_eq!((name.as_str(), frozen.max), ("frozen", 5));
        assert_eq!((frozen.idle.pause, frozen.idle.stop), (Some(Millis(3_000)), Some(Millis(600_000))));
        let latency = policy("auto={scaling: {class: latency}}").unwrap().1;
        assert!(matches!(latency.scaling, Scaling::Auto(auto) if auto.class == kip_spec::scaling::Class::Latency));
        assert!(policy("autp").is_err() && policy("x={idle: [1]}").is_err() && policy("x={{").is_err());
    }
}
