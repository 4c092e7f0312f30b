//! What measured figures say about a function's scaling settings.

pub mod rules;

use std::collections::BTreeMap;

use kip_fleet::State;
use kip_store::{DecisionRecord, RequestRecord};
use kip_wire::Measurements;

use crate::decision::Decision;

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
        let Some(Decision::Instance { to, .. }) = Decision::of(decision) else { continue };
        match to {
            State::Starting => drop(begun.insert(instance, decision.at)),
            State::Ready => spans.extend(begun.remove(instance).map(|since| (since, decision.at))),
            State::Stopping | State::Gone(_) => drop(begun.remove(instance)),
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

/// How long wakes took, by the state that was left.
fn wakes(decisions: &[DecisionRecord]) -> BTreeMap<String, u64> {
    let mut begun: BTreeMap<&str, (State, i64)> = BTreeMap::new();
    let mut by: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for decision in decisions {
        let Some(instance) = decision.instance.as_deref() else { continue };
        let Some(Decision::Instance { from: Some(from), to, .. }) = Decision::of(decision) else { continue };
        match to {
            State::Waking => drop(begun.insert(instance, (from, decision.at))),
            State::Ready => {
                if let Some((slept, since)) = begun.remove(instance) {
                    by.entry(slept.name().to_owned()).or_default().push(decision.at.abs_diff(since));
                }
            }
            _ => drop(begun.remove(instance)),
        }
    }
    by.into_iter().filter_map(|(slept, times)| Some((slept, median(times)?))).collect()
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
pub fn measure(decisions: &[DecisionRecord], requests: &[RequestRecord]) -> Measurements {
    let (start_ms, starts) = starts(decisions);
    let served = || requests.iter().filter(|request| request.instance.is_some() && request.status < 500);
    let times: Vec<u64> = served().map(|request| request.total_us.saturating_sub(request.queue_us) / 1_000).collect();
    Measurements {
        start_ms,
        starts,
        wake_ms: wakes(decisions),
        longest_service_ms: times.iter().copied().max(),
        service_ms: median(times),
        longest_ms: served().map(|request| request.total_us.div_ceil(1_000)).max(),
        requests: served().count(),
        peak_memory: served().filter_map(|request| request.peak_memory).max(),
        peak_in_flight: overlap(requests),
        device_memory: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_fleet::Reason;

    fn decision(at: i64, instance: &str, to: State) -> DecisionRecord {
        let text = |text: &str| text.to_owned();
        DecisionRecord {
            at,
            function: text("f"),
            version: 1,
            label: None,
            instance: Some(text(instance)),
            from: None,
            // What the sentences say is nobody's business.
            to: text("in other words"),
            why: text("why"),
            detail: None,
            decision: Decision::Instance { from: None, to, why: Reason::Done }.value(),
        }
    }

    #[test]
    fn wakes_are_told_by_the_state_that_they_leave() {
        let moved = |at, instance: &str, from, to| {
            let why = Reason::Done;
            DecisionRecord {
                decision: Decision::Instance { from: Some(from), to, why }.value(),
                ..decision(at, instance, to)
            }
        };
        let decisions = [
            moved(0, "a", State::Parked, State::Waking),
            moved(10, "b", State::Paused, State::Waking),
            moved(11, "b", State::Waking, State::Ready),
            moved(700, "a", State::Waking, State::Ready),
            moved(800, "c", State::Parked, State::Waking),
            moved(900, "c", State::Waking, State::Stopping),
            moved(950, "c", State::Starting, State::Ready),
        ];
        let told = BTreeMap::from([("parked".to_owned(), 700), ("paused".to_owned(), 1)]);
        assert_eq!(wakes(&decisions), told, "one that failed is none");
    }

    #[test]
    fn starts_are_grouped_by_how_many_were_under_way() {
        let mut decisions = vec![decision(0, "a", State::Starting), decision(900, "a", State::Ready)];
        for (number, name) in ["b", "c", "d"].into_iter().enumerate() {
            decisions.push(decision(10_000, name, State::Starting));
            decisions.push(decision(12_000 + i64::try_from(number).expect("small"), name, State::Ready));
        }
        decisions.push(decision(20_000, "e", State::Starting));
        decisions.push(decision(20_100, "e", State::Stopping));
        assert_eq!(starts(&decisions), (BTreeMap::from([(1, 900), (4, 2_001)]), 4));
    }
}
