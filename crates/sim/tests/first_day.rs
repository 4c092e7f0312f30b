//! Who writes nothing about scaling waits no longer than with `fixed`: a first day of seldom and regular calls, and a first burst.

use std::sync::Arc;

use kip_fleet::Policy;
use kip_fleet::policy::Limits;
use kip_sim::replay::{InstanceTimes, Outcome, Setup, TraceRequest, replay};
use kip_spec::Millis;
use kip_spec::function::defaults;
use kip_spec::scaling::{Auto, Scaling};

/// As `kip.yaml` reads a function without `scaling`, and with `mode: fixed`.
fn policy(scaling: Scaling, max: u32) -> Policy {
    const LONG: u64 = 366 * 86_400_000;
    Policy { max, scaling, idle: defaults::IDLE, ..Policy::plain(Limits::all(LONG)) }
}

fn auto() -> Scaling {
    Scaling::Auto(Box::new(Auto { keep: Millis::from_secs(12 * 3_600), ..Auto::default() }))
}

/// Starts and wakes of a small web service, and of a model that is only paused.
const TIMES: [InstanceTimes; 2] = [InstanceTimes::constant(300, 1), InstanceTimes::constant(30_000, 1)];

fn played(requests: &[TraceRequest], times: &InstanceTimes, scaling: Scaling, max: u32) -> Outcome {
    let policy = Arc::new(policy(scaling, max));
    let setup = Setup { policy, times: times.clone(), from: 0, devices: None, seed: 1, explain: None };
    replay(requests.iter().copied(), setup)
}

fn no_longer(requests: &[TraceRequest], max: u32) {
    for times in &TIMES {
        let fixed = played(requests, times, Scaling::Fixed, max);
        let auto = played(requests, times, auto(), max);
        for share in [500, 900, 990, 1_000] {
            let (own, other) = (auto.delays.quantile(share), fixed.delays.quantile(share));
            assert!(own <= other, "{share} in a thousand: {own} ms, and {other} ms with fixed ({times:?})");
        }
        let counts = |outcome: &Outcome| (outcome.cold, outcome.woken, outcome.starts, outcome.delays.mean());
        let (own, other) = (counts(&auto), counts(&fixed));
        assert!(own.0 <= other.0 && own.2 <= other.2, "cold, woken, starts, mean: {own:?} and {other:?} ({times:?})");
    }
}

fn request(at: u64, service: u64) -> TraceRequest {
    TraceRequest { at, service, function: 0 }
}

#[test]
fn a_call_every_few_minutes_or_hours() {
    for gap in [20, 45, 600, 3_600, 4 * 3_600, 11 * 3_600] {
        let calls: Vec<TraceRequest> =
            (1..=(86_400 / gap).max(3)).map(|number| request(number * gap * 1_000, 500)).collect();
        no_longer(&calls, 10);
    }
}

#[test]
fn a_busy_morning_and_a_call_at_night() {
    let mut calls: Vec<TraceRequest> = (0..3_000).map(|number| request(60_000 + number * 1_200, 900)).collect();
    calls.push(request(10 * 3_600_000, 900));
    calls.push(request(21 * 3_600_000, 900));
    no_longer(&calls, 10);
    no_longer(&calls, 1);
}

#[test]
fn the_first_bursts() {
    let burst = |hour: u64| (0..8).map(move |_| request(hour * 3_600_000, 2_000));
    let calls: Vec<TraceRequest> = [1, 2, 5, 9].into_iter().flat_map(burst).collect();
    no_longer(&calls, 10);
}
