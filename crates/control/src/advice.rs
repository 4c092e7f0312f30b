//! What measured figures say about a function's scaling settings.

use std::collections::BTreeMap;

use kip_spec::function::FunctionSpec;
use kip_spec::scaling::Scaling;
use kip_spec::{Bytes, Millis};
use kip_store::{DecisionRecord, RequestFilter, RequestRecord};
use serde::{Deserialize, Serialize};

use crate::control::{Control, Error};

/// Records that are looked at.
const MOST: u32 = 10_000;
/// Provisioned instances that were not used for this long are worth a word, milliseconds.
const UNUSED: u64 = 2 * 3_600_000;

/// What was measured of a function.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Milliseconds from the beginning of a start to readiness, the median, by how many were under way at once: 1, 4 and 16
    /// stand for one, up to four, and more.
    pub start_ms: BTreeMap<u32, u64>,
    /// Starts that were counted.
    pub starts: usize,
    /// The median of what a request takes once it is with an instance, milliseconds.
    pub service_ms: Option<u64>,
    /// The longest request, milliseconds.
    pub longest_ms: Option<u64>,
    /// Requests that were counted.
    pub requests: usize,
    /// The most memory that an instance used, bytes.
    pub peak_memory: Option<u64>,
    /// The most requests that were with instances at once.
    pub peak_in_flight: u32,
}

/// A piece of advice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// Which setting.
    pub setting: String,
    /// What it is.
    pub now: String,
    /// What would be better.
    pub better: String,
    /// Why, with the figures.
    pub why: String,
}

/// What is advised, and by which figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advised {
    /// The figures.
    pub measured: Measured,
    /// The advice; none if all is well, or nothing is known yet.
    pub advice: Vec<Advice>,
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// How long starts took, by how many were under way: a start is from `starting` to the first state after it that is hot.
fn starts(decisions: &[DecisionRecord]) -> (BTreeMap<u32, u64>, usize) {
    let mut begun: BTreeMap<&str, i64> = BTreeMap::new();
    let mut spans: Vec<(i64, i64)> = Vec::new();
    for decision in decisions {
        let Some(instance) = decision.instance.as_deref() else { continue };
        match decision.to.as_str() {
            "starting" => drop(begun.insert(instance, decision.at)),
            "ready" => spans.extend(begun.remove(instance).map(|since| (since, decision.at))),
            "stopping" | "gone" => drop(begun.remove(instance)),
            _ => {}
        }
    }
    let mut by: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (since, until) in &spans {
        let beside = spans.iter().filter(|(from, to)| from <= until && to >= since).count();
        let group = match beside {
            0 | 1 => 1,
            2..=4 => 4,
            _ => 16,
        };
        by.entry(group).or_default().push(until.abs_diff(*since));
    }
    let count = spans.len();
    (by.into_iter().filter_map(|(group, times)| Some((group, median(times)?))).collect(), count)
}

/// The most requests that overlap in time while they are with an instance.
fn overlap(requests: &[RequestRecord]) -> u32 {
    let mut edges: Vec<(i64, i32)> = Vec::new();
    let millis = |micros: u64| i64::try_from(micros / 1_000).unwrap_or(i64::MAX);
    for request in requests.iter().filter(|request| request.instance.is_some()) {
        edges.push((request.at + millis(request.queue_us), 1));
        edges.push((request.at + millis(request.total_us).max(millis(request.queue_us) + 1), -1));
    }
    edges.sort_unstable();
    let most = edges.into_iter().scan(0i32, |now, (_, change)| {
        *now += change;
        Some(*now)
    });
    u32::try_from(most.max().unwrap_or(0)).unwrap_or(0)
}

/// The figures of a function, from its latest records, oldest first.
fn measure(decisions: &[DecisionRecord], requests: &[RequestRecord]) -> Measured {
    let (start_ms, starts) = starts(decisions);
    let served = || requests.iter().filter(|request| request.instance.is_some() && request.status < 500);
    let times: Vec<u64> = served().map(|request| request.total_us.saturating_sub(request.queue_us) / 1_000).collect();
    Measured {
        start_ms,
        starts,
        service_ms: median(times),
        longest_ms: served().map(|request| request.total_us.div_ceil(1_000)).max(),
        requests: served().count(),
        peak_memory: served().filter_map(|request| request.peak_memory).max(),
        peak_in_flight: overlap(requests),
    }
}

/// What the figures say about the settings.
fn advise(spec: &FunctionSpec, measured: &Measured) -> Vec<Advice> {
    let mut all = Vec::new();
    let mut say = |setting: &str, now: String, better: String, why: String| {
        all.push(Advice { setting: setting.to_owned(), now, better, why });
    };
    let slowest = measured.start_ms.values().copied().max();
    let whole = |millis: u64| Millis::from_secs(millis.div_ceil(1_000).max(1));
    if let Scaling::Kpa(kpa) = &spec.scaling {
        if let Some(start) = slowest {
            let window = whole(2 * start).max(Millis::from_secs(6));
            if kpa.stable_window.0 < 2 * start {
                let why = format!(
                    "a start takes {}: a window shorter than twice that forgets what it was started for",
                    Millis(start)
                );
                say("scaling.annotations.window", kpa.stable_window.to_string(), window.to_string(), why);
            }
            if kpa.panic_window.0 > start {
                let percent = (start as f64 * 100.0 / kpa.stable_window.0.max(1) as f64).clamp(1.0, 100.0);
                let why = format!(
                    "a start takes {}: the panic window should be shorter, so that a burst is seen before it is over",
                    Millis(start)
                );
                let better = format!("{percent:.0}");
                say(
                    "scaling.annotations.panic-window-percentage",
                    format!("{} ({} s)", kpa.panic_window, kpa.panic_window.0 / 1_000),
                    better,
                    why,
                );
            }
        }
        if kpa.panic_threshold.get() >= 2.0 && slowest.is_some_and(|start| start > 2_000) {
            let now = format!("{:.0}", kpa.panic_threshold.get() * 100.0);
            let why = "starts are slow: below 200 % the count grows before twice the load is there".to_owned();
            say("scaling.annotations.panic-threshold-percentage", now, "150".to_owned(), why);
        }
        if measured.peak_in_flight > 0 {
            let needed = f64::from(measured.peak_in_flight) / kpa.total.get().max(0.01);
            let better = kip_spec::round::up_decimal(needed * 1.2).min(kpa.max_scale.max(1));
            if better > kpa.initial_scale.max(1) {
                let why =
                    format!("{} requests were in flight at once; 1.2 times what they need", measured.peak_in_flight);
                say("scaling.annotations.initial-scale", kpa.initial_scale.to_string(), better.to_string(), why);
            }
        }
    }
    if let Some(longest) = measured.longest_ms.filter(|_| measured.requests >= 20) {
        let total = whole(longest * 12 / 10);
        if spec.timeouts.total.0 < total.0 || spec.timeouts.total.0 > total.0.saturating_mul(20) {
            let why = format!(
                "the longest of {} requests took {}; 1.2 times that is enough",
                measured.requests,
                Millis(longest)
            );
            say("timeouts.total", spec.timeouts.total.to_string(), total.to_string(), why);
        }
    }
    if spec.resources.gpu.is_some() && spec.instances.concurrency.hard > 1 {
        let why =
            "one device computes one thing at a time, unless the program batches: then write the size of its batch"
                .to_owned();
        say(
            "instances.concurrency",
            spec.instances.concurrency.hard.to_string(),
            "1, or the batch size".to_owned(),
            why,
        );
    }
    if spec.instances.min == 0 && slowest.is_some_and(|start| start > 10_000) && measured.requests > 0 {
        let why = format!("the first request waits for a start, which takes {}", Millis(slowest.unwrap_or(0)));
        say("instances.min", "0".to_owned(), "1, and asleep when it is idle".to_owned(), why);
    }
    if let (Some(peak), Some(declared)) = (measured.peak_memory, spec.resources.memory)
        && declared.0 > peak.saturating_mul(2)
    {
        let why = format!("no instance used more than {}", Bytes(peak));
        say("resources.memory", declared.to_string(), Bytes(peak / 10 * 12).to_string(), why);
    }
    all
}

impl Control {
    /// What measured figures say about a function's settings.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::Store`].
    pub async fn advise(&self, name: &str) -> Result<Advised, Error> {
        let cell = self.require(name)?;
        self.recorder().flush().await;
        let mut decisions = self.records().decisions(name.to_owned(), MOST).await?;
        decisions.reverse();
        let filter = RequestFilter { function: Some(name.to_owned()), limit: MOST, ..RequestFilter::default() };
        let mut requests = self.records().requests(filter).await?;
        requests.reverse();
        let measured = measure(&decisions, &requests);
        let mut advice = advise(&cell.serving().spec, &measured);
        let provisioned = cell.provisions().iter().any(|info| info.current > 0);
        let now = kip_host::clock::wall_millis();
        let last = requests.last().map(|request| request.at);
        let since = decisions.last().map(|decision| decision.at);
        let unused = last.or(since).map_or(0, |at| u64::try_from(now - at).unwrap_or(0));
        if provisioned && unused > UNUSED {
            advice.push(Advice {
                setting: "provision".to_owned(),
                now: "instances are kept".to_owned(),
                better: format!("kip provision rm {name}"),
                why: format!("nothing was asked of them for {}", Millis(unused / 60_000 * 60_000)),
            });
        }
        Ok(Advised { measured, advice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(at: i64, instance: &str, to: &str) -> DecisionRecord {
        let text = |text: &str| text.to_owned();
        DecisionRecord {
            at,
            function: text("f"),
            version: 1,
            instance: Some(text(instance)),
            from: None,
            to: text(to),
            why: text("why"),
            detail: None,
        }
    }

    #[test]
    fn starts_are_grouped_by_how_many_were_under_way() {
        let mut decisions = vec![decision(0, "a", "starting"), decision(900, "a", "ready")];
        for (number, name) in ["b", "c", "d"].into_iter().enumerate() {
            decisions.push(decision(10_000, name, "starting"));
            decisions.push(decision(12_000 + i64::try_from(number).expect("small"), name, "ready"));
        }
        decisions.push(decision(20_000, "e", "starting"));
        decisions.push(decision(20_100, "e", "stopping"));
        assert_eq!(starts(&decisions), (BTreeMap::from([(1, 900), (4, 2_001)]), 4));
    }
}
