//! Scaling policies drawn from the seed, and what is provisioned from outside.

use kip_fleet::Policy;
use kip_spec::scaling::kpa::{Algorithm, KpaDeclaration, Metric};
use kip_spec::scaling::provision::{self, FireTime, Provision, ScheduledAction, Tracking, Window};
use kip_spec::scaling::{Fc, Kpa, Scaling};
use kip_spec::{Finite, Millis};

use crate::random::Random;

/// A policy of a version, which half of the time scales by something else than its backlog.
pub(crate) fn scaled(policy: Policy, random: &mut Random) -> Policy {
    // All are drawn each time, so that one kind does not shift another.
    let (kind, kpa, fc) = (random.below(4), kpa(&policy, random), fc(random));
    match kind {
        0 => Policy { min: kpa.min_scale, max: kpa.max_scale.max(1), scaling: Scaling::Kpa(Box::new(kpa)), ..policy },
        1 => Policy { scaling: Scaling::Fc(Box::new(fc)), ..policy },
        _ => policy,
    }
}

fn kpa(policy: &Policy, random: &mut Random) -> Kpa {
    let total = f64::from(policy.concurrency.hard);
    let share = random.pick(&[0.3, 0.7, 1.0]);
    let max = policy.max;
    let min = policy.min.min(max);
    let seconds = |random: &mut Random, most| Millis::from_secs(random.scale(1, most));
    Kpa {
        metric: random.pick(&[Metric::Concurrency, Metric::Concurrency, Metric::Rps]),
        target: Finite::constant((total * share).max(Kpa::LEAST_TARGET)),
        total: Finite::constant(total),
        algorithm: random.pick(&[Algorithm::Linear, Algorithm::WeightedExponential]),
        stable_window: Millis::from_secs(random.between(6, 60)),
        panic_window: Millis::from_secs(random.between(1, 6)),
        panic_threshold: Finite::constant(random.pick(&[1.1, 2.0, 10.0])),
        min_scale: min,
        max_scale: max,
        initial_scale: random.small(0, max),
        activation_scale: if random.one_in(4) { max.min(2) } else { 0 },
        scale_down_delay: if random.one_in(2) { seconds(random, 60) } else { Millis(0) },
        retention: if random.one_in(2) { seconds(random, 60) } else { Millis(0) },
        grace: seconds(random, 30),
        scale_to_zero: !random.one_in(8) || min > 0,
        target_burst_capacity: Finite::constant(random.pick(&[-1.0, 0.0, 2.0, 211.0])),
        activator_capacity: Finite::whole(100),
        max_scale_up_rate: Finite::constant(random.pick(&[1.1, 2.0, 1000.0])),
        max_scale_down_rate: Finite::constant(random.pick(&[1.1, 2.0, 10.0])),
        progress_deadline: seconds(random, 20),
        declared: KpaDeclaration::default(),
    }
}

/// What is provisioned, in windows around the beginning of 1970, which is when the world's clock begins.
pub(crate) fn fc(random: &mut Random) -> Fc {
    let window = |random: &mut Random| {
        let start = random.one_in(2).then(|| i64::try_from(random.below(60_000)).unwrap_or(0));
        let end = random.one_in(2).then(|| 60_001 + i64::try_from(random.below(120_000)).unwrap_or(0));
        Window::new(start, end, "").unwrap_or_else(|_| unreachable!("UTC is known"))
    };
    let policy = |random: &mut Random, number: u64| {
        let min = random.small(0, 2);
        Tracking {
            name: format!("policy {number}"),
            window: window(random),
            metric: provision::Metric::Concurrency,
            target: Finite::constant(random.pick(&[0.3, 0.5, 1.0])),
            min,
            max: min + random.small(0, 3),
        }
    };
    let action = |random: &mut Random, number: u64| {
        let cron = random.pick(&["*/20 * * * * *", "0 * * * * *", "30 */2 * * * *"]);
        let at = i64::try_from(random.below(120_000)).unwrap_or(0);
        let when = match cron.parse() {
            Ok(cron) if random.one_in(2) => FireTime::Cron(cron),
            _ => FireTime::At(at),
        };
        ScheduledAction { name: format!("action {number}"), window: window(random), when, target: random.small(0, 3) }
    };
    let tracking = (0..random.below(3)).map(|number| policy(random, number)).collect();
    let scheduled = (0..random.below(3)).map(|number| action(random, number)).collect();
    let (default_target, always_allocate_cpu) = (random.small(0, 2), random.one_in(2));
    Fc {
        provision: Provision { default_target, always_allocate_cpu, always_allocate_gpu: true, tracking, scheduled },
        period: Millis(random.pick(&[100, 1_000, 10_000])),
        hold: random.small(1, 3),
        coefficient: Finite::constant(random.pick(&[0.5, 1.0])),
        disable_ondemand: random.one_in(6),
    }
}
