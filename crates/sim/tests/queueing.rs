//! The replay against what is known of queues: Erlang's formula, Allen and Cunneen's approximation, Little's law, and relations that
//! must hold between two runs.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

use std::sync::Arc;

use kip_fleet::policy::Limits;
use kip_fleet::{Policy, State};
use kip_sim::replay::{Costs, InstanceTimes, Outcome, Prices, Setup, TraceRequest, bounds, replay};
use kip_spec::Millis;
use kip_spec::function::{Idle, defaults};
use kip_spec::scaling::Scaling;

const LONG: u64 = 366 * 86_400_000;

fn policy(scaling: Scaling, (min, max): (u32, u32), pause: Option<u64>, stop: Option<u64>) -> Policy {
    Policy {
        min,
        max,
        scaling,
        idle: Idle { pause: pause.map(Millis), stop: stop.map(Millis), ..defaults::IDLE },
        grace: Some(0),
        ..Policy::plain(Limits::all(LONG))
    }
}

fn fixed(bounds: (u32, u32), pause: Option<u64>, stop: Option<u64>) -> Policy {
    policy(Scaling::Fixed, bounds, pause, stop)
}

fn auto() -> Policy {
    policy(Scaling::Auto(Box::default()), (0, 1_000), defaults::IDLE.pause.map(|it| it.0), None)
}

fn play(requests: &[TraceRequest], policy: Policy, times: &InstanceTimes, from: u64) -> Outcome {
    let setup = Setup { policy: Arc::new(policy), times: times.clone(), from, devices: None, seed: 1, explain: None };
    replay(requests.iter().copied(), setup)
}

/// Draws from 0 to 1.
struct Dice(u64);

impl Dice {
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.share().ln()
    }

    fn lognormal(&mut self, mean: f64, cv: f64) -> f64 {
        let spread = (1.0 + cv * cv).ln();
        let normal = (-2.0 * self.share().ln()).sqrt() * (std::f64::consts::TAU * self.share()).cos();
        (mean.ln() - spread / 2.0 + spread.sqrt() * normal).exp()
    }
}

/// Random arrivals for so many servers at this load. Times are long against the millisecond in which they are counted.
fn random(servers: u32, load: f64, cv: Option<f64>, count: u32) -> Vec<TraceRequest> {
    const SERVICE: f64 = 60_000.0;
    let (mut dice, mut at) = (Dice(7), 0.0);
    let gap = SERVICE / (f64::from(servers) * load);
    let request = |_| {
        at += dice.exponential(gap);
        let service = match cv {
            None => dice.exponential(SERVICE),
            Some(cv) => dice.lognormal(SERVICE, cv),
        };
        TraceRequest { at: 1_000_000 + at.round() as u64, service: (service.round() as u64).max(1), function: 0 }
    };
    (0..count).map(request).collect()
}

/// The mean wait of Erlang's C formula, in service times.
fn erlang(servers: u32, load: f64) -> f64 {
    let offered = f64::from(servers) * load;
    // Erlang's B by its recursion.
    let blocked = (1..=servers).fold(1.0, |b, k| offered * b / (f64::from(k) + offered * b));
    let waits = blocked / (1.0 - load * (1.0 - blocked));
    waits / (f64::from(servers) * (1.0 - load))
}

#[test]
fn waits_are_those_of_erlang_and_of_allen_and_cunneen() {
    for (servers, load, cv) in [(4, 0.7, None), (10, 0.85, None), (4, 0.7, Some(0.533)), (10, 0.85, Some(0.533))] {
        let requests = random(servers, load, cv, 400_000);
        let outcome = play(&requests, fixed((servers, servers), None, None), &InstanceTimes::constant(1, 1), 2_000_000);
        let measured = outcome.delays.mean() / 60_000.0;
        let variation = cv.map_or(1.0, |cv| f64::midpoint(1.0, cv * cv));
        let expected = erlang(servers, load) * variation;
        let relation = measured / expected;
        assert!((0.9..1.1).contains(&relation), "{servers} servers at {load}, {cv:?}: {measured} against {expected}");
    }
}

fn policies() -> Vec<Policy> {
    vec![auto(), fixed((0, 50), Some(3_000), Some(600_000)), fixed((2, 50), None, Some(60_000))]
}

#[test]
fn littles_law_holds_exactly_and_intervals_add_up_to_lifetimes() {
    let requests = random(8, 0.6, None, 5_000);
    for policy in policies() {
        let outcome = play(&requests, policy, &InstanceTimes::constant(30_000, 3_000), 0);
        let sum = |part: fn(&kip_sim::replay::Interval) -> u64| outcome.series.intervals.iter().map(part).sum::<u64>();
        assert_eq!(u128::from(sum(|it| it.in_flight + it.waiting)), outcome.sojourn);
        let metered = |states: &[State]| states.iter().map(|state| outcome.times[state.index()]).sum::<u64>();
        assert_eq!(sum(|it| it.hot), metered(&[State::Ready, State::Busy]));
        assert_eq!(sum(|it| it.starting), metered(&[State::Starting, State::Initializing, State::Waking]));
        assert_eq!(sum(|it| it.asleep), metered(&[State::Pausing, State::Paused]));
        assert_eq!(sum(|it| it.arrivals), 5_000);
        let busy: u64 = requests.iter().map(|request| request.service).sum();
        assert_eq!(metered(&[State::Busy]), busy, "one request at a time");
    }
}

#[test]
fn equal_runs_are_equal_event_by_event() {
    let requests = random(8, 0.6, None, 5_000);
    let times = InstanceTimes::constant(30_000, 3_000);
    let hashes: Vec<u64> = policies().into_iter().map(|policy| play(&requests, policy, &times, 0).hash).collect();
    let again: Vec<u64> = policies().into_iter().map(|policy| play(&requests, policy, &times, 0).hash).collect();
    assert_eq!(hashes, again);
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2]);
    // One request that comes a millisecond later is another run.
    let mut other = requests;
    other[4_000].at += 1;
    other.sort_by_key(|request| request.at);
    assert_ne!(play(&other, auto(), &times, 0).hash, hashes[0]);
}

#[test]
fn relations_between_runs() {
    let requests = random(8, 0.5, None, 4_000);
    let times = InstanceTimes::constant(30_000, 3_000);
    let bound = |idle: f64| bounds(requests.iter().copied(), &times, idle, 0);
    let cost = |outcome: &Outcome, asleep: f64| Costs::of(outcome).total(Prices { asleep });
    // Whoever lets nobody wait costs at least as much as the bound.
    let peak = bound(0.238).peak;
    let hot = play(&requests, fixed((peak, peak), None, None), &times, 500_000);
    assert_eq!(hot.delays.max(), 0);
    assert!(cost(&hot, 0.238) >= bounds(requests.iter().copied(), &times, 0.238, 500_000).oracle);
    // A dearer sleep never makes anything cheaper.
    let sleeps = play(&requests, fixed((0, 50), Some(3_000), Some(600_000)), &times, 0);
    let prices = [0.0, 0.1, 0.238, 0.5, 1.0];
    assert!(prices.windows(2).all(|pair| cost(&sleeps, pair[0]) <= cost(&sleeps, pair[1])));
    assert!(prices.windows(2).all(|pair| bound(pair[0]).oracle <= bound(pair[1]).oracle));
    // More instances never let anybody wait for longer.
    let waits: Vec<f64> = [6, 8, 12, 50]
        .map(|max| play(&requests, fixed((0, max), Some(3_000), Some(600_000)), &times, 0).delays.mean())
        .to_vec();
    assert!(waits.windows(2).all(|pair| pair[1] <= pair[0]), "{waits:?}");
    // Ten times as slow is ten times as dear.
    let slow: Vec<TraceRequest> = requests
        .iter()
        .map(|request| TraceRequest { at: request.at * 10, service: request.service * 10, ..*request })
        .collect();
    let slow = play(&slow, fixed((0, 50), Some(30_000), Some(6_000_000)), &InstanceTimes::constant(300_000, 30_000), 0);
    assert!((cost(&slow, 0.238) / cost(&sleeps, 0.238) - 10.0).abs() < 1e-9);
    assert_eq!((slow.delays.quantile(990), slow.starts), (sleeps.delays.quantile(990) * 10, sleeps.starts));
}

#[test]
fn functions_share_a_limited_number_of_devices() {
    // Three functions, each with a request every minute, that could all be served by two devices one after the other.
    let mut requests: Vec<TraceRequest> = (0..300)
        .map(|number| TraceRequest { at: number * 20_000, service: 5_000, function: (number % 3) as u32 })
        .collect();
    requests.sort_by_key(|request| request.at);
    let setup = |devices| Setup {
        policy: Arc::new(fixed((0, 5), Some(1_000), Some(3_600_000))),
        times: InstanceTimes::constant(10_000, 1_000),
        from: 0,
        devices,
        seed: 1,
        explain: None,
    };
    let unlimited = replay(requests.iter().copied(), setup(None));
    let limited = replay(requests.iter().copied(), setup(Some(1)));
    assert_eq!((unlimited.functions.len(), unlimited.delays.count(), limited.delays.count()), (3, 300, 300));
    assert_eq!(limited.peak_awake, 1, "one device is never used by two");
    assert!(limited.refused == 0 && limited.delays.quantile(500) <= 1_000, "{}", limited.delays.quantile(500));
    // Twelve at once on four devices: all are served, one after the other.
    let burst: Vec<TraceRequest> =
        (0..12).map(|number| TraceRequest { at: 1_000, service: 5_000, function: number % 3 }).collect();
    let burst = replay(burst, setup(Some(4)));
    assert!(burst.delays.count() == 12 && burst.peak_awake <= 4, "{} {}", burst.delays.count(), burst.peak_awake);
}
