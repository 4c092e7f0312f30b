//! The grid of policies that `auto` is compared with.

use std::sync::Arc;

use kip_fleet::Policy;
use kip_fleet::policy::Limits;
use kip_sim::replay::{Costs, InstanceTimes, Outcome, Prices, Setup, bounds, replay};
use kip_spec::function::{Idle, defaults};
use kip_spec::scaling::kpa::KpaDeclaration;
use kip_spec::scaling::provision::{Metric, Provision, Tracking, Window};
use kip_spec::scaling::{Auto, Class, Fc, Kpa, Scaling};
use kip_spec::{Finite, Millis};

use crate::traces::Workload;

/// Longer than any trace.
const PATIENCE: u64 = 366 * 86_400_000;

/// A policy under its name.
pub(crate) type Named = (String, Policy);

fn base(scaling: Scaling, idle: Idle) -> Policy {
    Policy { max: 1_000, scaling, idle, grace: Some(0), ..Policy::plain(Limits::all(PATIENCE)) }
}

fn idle(pause: Option<u64>, stop: u64) -> Idle {
    Idle { pause: pause.map(Millis), stop: Some(Millis(stop)), ..defaults::IDLE }
}

pub(crate) fn auto(class: Class) -> Named {
    let settings = Auto { class, ..Auto::default() };
    let name = match class {
        Class::Economy => "auto economy",
        Class::Balanced => "auto balanced",
        Class::Latency => "auto latency",
    };
    (name.to_owned(), base(Scaling::Auto(Box::new(settings)), defaults::IDLE))
}

fn keep_alive(name: &str, pause: Option<u64>, minutes: u64) -> Named {
    (name.to_owned(), base(Scaling::Fixed, idle(pause, minutes * 60_000)))
}

/// Asleep after a wake's time, gone when the sleep has cost as much as a start would.
fn ski_rental(times: &InstanceTimes) -> Named {
    let (cold, wake) = (times.cold.mean(), times.wake.mean());
    let stop = wake + (cold - wake) * 21 / 5;
    ("ski-rental".to_owned(), base(Scaling::Fixed, idle(Some(wake), stop)))
}

fn kpa(name: &str, min: u32, delay: u64) -> Named {
    let kpa = Kpa {
        metric: kip_spec::scaling::kpa::Metric::Concurrency,
        target: Finite::constant(0.7),
        total: Finite::constant(1.0),
        algorithm: kip_spec::scaling::kpa::Algorithm::Linear,
        stable_window: Millis::from_secs(60),
        panic_window: Millis::from_secs(6),
        panic_threshold: Finite::constant(2.0),
        min_scale: min,
        max_scale: 1_000,
        initial_scale: 1,
        activation_scale: 0,
        scale_down_delay: Millis::from_secs(delay),
        retention: Millis(0),
        grace: Millis::from_secs(30),
        scale_to_zero: true,
        target_burst_capacity: Finite::constant(211.0),
        activator_capacity: Finite::whole(100),
        max_scale_up_rate: Finite::constant(1_000.0),
        max_scale_down_rate: Finite::constant(2.0),
        progress_deadline: Millis(PATIENCE),
        declared: KpaDeclaration::default(),
    };
    let policy = Policy { min, ..base(Scaling::Kpa(Box::new(kpa)), idle(None, PATIENCE)) };
    (name.to_owned(), policy)
}

/// Function Compute's: minutes, 3 min of life for instances on demand, idle ones sleep after 5 s.
fn fc(name: &str, target: f64) -> Named {
    let window = Window::new(None, None, "").unwrap();
    let (metric, target) = (Metric::Concurrency, Finite::constant(target));
    let tracking = Tracking { name: "load".to_owned(), window, metric, target, min: 1, max: 1_000 };
    let provision =
        Provision { default_target: 1, always_allocate_cpu: false, tracking: vec![tracking], ..Provision::default() };
    let fc = Fc { period: Millis::from_secs(60), ..Fc::new(provision) };
    (name.to_owned(), base(Scaling::Fc(Box::new(fc)), idle(Some(5_000), 180_000)))
}

/// Everything that `auto` must not be worse than.
pub(crate) fn grid(times: &InstanceTimes) -> Vec<Named> {
    let wake = Some(times.wake.mean());
    vec![
        kpa("kpa", 0, 0),
        kpa("kpa, delay 300 s", 1, 300),
        fc("fc 0.3", 0.3),
        fc("fc 0.6", 0.6),
        keep_alive("10 min hot", None, 10),
        keep_alive("10 min asleep", wake, 10),
        keep_alive("60 min hot", None, 60),
        keep_alive("60 min asleep", wake, 60),
        ski_rental(times),
    ]
}

/// What a policy made of a workload.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) name: String,
    /// Cost, in times of the clairvoyant bound.
    pub(crate) cost: f64,
    pub(crate) outcome: Outcome,
}

impl Point {
    /// Added delay of this share of requests, in thousandths; seconds.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a delay")]
    pub(crate) fn delay(&self, share: u64) -> f64 {
        self.outcome.delays.quantile(share) as f64 / 1_000.0
    }

    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub(crate) fn cold(&self) -> f64 {
        self.outcome.cold as f64 / self.outcome.delays.count().max(1) as f64
    }
}

pub(crate) fn play(workload: &Workload, (name, policy): Named) -> Point {
    let prices = Prices::default();
    let bounds = bounds(workload.requests.iter().copied(), &workload.times, prices.asleep, workload.from);
    let setup = Setup {
        policy: Arc::new(policy),
        times: workload.times.clone(),
        from: workload.from,
        devices: None,
        seed: 1,
        explain: None,
    };
    let outcome = replay(workload.requests.iter().copied(), setup);
    let cost = Costs::of(&outcome).total(prices) / bounds.oracle;
    let point = Point { name, cost, outcome };
    println!(
        "{:14} {:18} cost {:6.3}  p50 {:6.3}  p90 {:6.3}  p99 {:6.3}  mean {:6.3}  cold {:5.2} %  starts {:6}  peak {:4}  awake {:4}  hash {:016x}",
        workload.name,
        point.name,
        cost,
        point.delay(500),
        point.delay(900),
        point.delay(990),
        point.outcome.delays.mean() / 1_000.0,
        point.cold() * 100.0,
        point.outcome.starts,
        point.outcome.peak_instances,
        point.outcome.peak_awake,
        point.outcome.hash,
    );
    point
}
