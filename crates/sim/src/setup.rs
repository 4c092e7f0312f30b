//! What a run consists of: functions, their versions, their traffic, the host's size and the faults, all drawn from the seed.

use std::sync::Arc;

use kip_fleet::Need;
use kip_fleet::policy::{Limits, Rungs};
use kip_fleet::{Inventory, Policy};
use kip_spec::Millis;
use kip_spec::function::{Concurrency, Dispatch, Idle};

use crate::fault::{Fault, Rates};
use crate::random::Random;
use crate::workload::Workload;

/// What is left out of a run, to find the smallest one that still fails. The default leaves out nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// Only these functions, by number; all if empty.
    pub only: Vec<usize>,
    /// At most this many requests in all.
    pub requests: Option<u64>,
    /// Without these faults.
    pub without: Vec<Fault>,
}

/// A drawn run.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) functions: Vec<FunctionSetup>,
    pub(crate) inventory: Inventory,
    pub(crate) rates: Rates,
    /// When traffic and faults end.
    pub(crate) horizon: u64,
    pub(crate) requests: u64,
}

/// One function of a run.
#[derive(Debug)]
pub(crate) struct FunctionSetup {
    pub(crate) workload: Workload,
    /// How long a request takes, at most.
    pub(crate) work: u64,
    /// When it changes, and to what: `None` removes it.
    pub(crate) changes: Vec<(u64, Option<Arc<Policy>>)>,
}

impl Setup {
    pub(crate) fn draw(seed: u64, cut: &Cut) -> Self {
        let mut random = Random::stream(seed, "setup", 0);
        let number = usize::try_from(random.between(1, 6)).unwrap_or(1);
        let horizon = random.scale(3_000, 120_000);
        let requests = random.scale(50, 1_500);
        let (tight, spare) = (random.one_in(2), random.below(8));
        let rates = Rates::draw(seed, &cut.without);
        let mut functions: Vec<FunctionSetup> =
            (0..number).map(|function| FunctionSetup::draw(seed, function, horizon, &rates)).collect();
        let policies = |setup: &FunctionSetup| -> Vec<Need> {
            setup.changes.iter().filter_map(|(_, policy)| Some(policy.as_ref()?.need)).collect()
        };
        // All minima fit at once beside one instance of the hungriest: else the declared rest is out of reach by design.
        let minima: u64 = functions
            .iter()
            .map(|setup| {
                let each = setup.changes.iter().filter_map(|(_, policy)| policy.as_ref());
                each.map(|policy| u64::from(policy.min) * policy.need.memory).max().unwrap_or(0)
            })
            .sum();
        let hungriest = functions.iter().flat_map(policies).map(|need| need.memory).max().unwrap_or(0);
        let capacity = if tight { minima + hungriest + spare } else { 1_000_000 };
        for (index, setup) in functions.iter_mut().enumerate() {
            setup.add_a_giant(seed, index, capacity);
            if !cut.only.is_empty() && !cut.only.contains(&index) {
                setup.changes.clear();
            }
        }
        let inventory = Inventory::of_memory(capacity);
        Self { seed, functions, inventory, rates, horizon, requests: cut.requests.unwrap_or(requests).min(requests) }
    }
}

impl FunctionSetup {
    fn draw(seed: u64, function: usize, horizon: u64, rates: &Rates) -> Self {
        let mut random = Random::stream(seed, "function", function);
        let workload = Workload::draw(&mut random, function, horizon);
        let work = random.scale(1, 2_000);
        let first = Arc::new(policy(&mut random));
        let mut changes = vec![(random.below(500), Some(first))];
        let mut random = Random::stream(seed, "changes", function);
        for _ in 0..6 {
            let at = random.below(horizon);
            let next = Arc::new(policy(&mut random));
            // Both are drawn, so that leaving one kind out does not shift the other.
            let (deploys, removes) =
                (random.per_mille(rates.of(Fault::Deploy)), random.per_mille(rates.of(Fault::Remove) / 4));
            if removes {
                changes.push((at, None));
            } else if deploys {
                changes.push((at, Some(next)));
            }
        }
        changes.sort_by_key(|(at, _)| *at);
        Self { workload, work, changes }
    }

    /// Sometimes one version needs more than the host has.
    fn add_a_giant(&mut self, seed: u64, function: usize, capacity: u64) {
        let mut random = Random::stream(seed, "giant", function);
        if random.one_in(20)
            && let Some((_, Some(policy))) = self.changes.last_mut()
        {
            let mut giant = Policy::clone(policy);
            (giant.need, giant.min) = (Need { memory: capacity + 1, ..giant.need }, 0);
            *policy = Arc::new(giant);
        }
    }
}

fn policy(random: &mut Random) -> Policy {
    let hard = random.pick(&[1, 1, 2, 4, 8]);
    let max = random.small(1, 5);
    let mut need = Need { memory: random.below(5), ..Need::default() };
    let pause = (!random.one_in(4)).then(|| Millis(random.scale(20, 8_000)));
    let stop = (!random.one_in(4)).then(|| Millis(random.scale(100, 60_000)));
    let min = random.pick(&[0, 0, 0, 1, 2]).min(max);
    // What stays hot for ever can never be asked to make room, so it must not need any.
    if pause.is_none() && (stop.is_none() || min > 0) {
        need.memory = 0;
    }
    Policy {
        min,
        max,
        concurrency: Concurrency { hard, soft: random.small(1, hard) },
        queue_depth: random.small(1, 40),
        queue_timeout: random.scale(100, 20_000),
        idle: Idle { pause, stop },
        dispatch: if random.one_in(2) { Dispatch::Packed } else { Dispatch::Balanced },
        need,
        initialize: random.one_in(2),
        rungs: Rungs::default(),
        grace: Some(random.between(1, 200)),
        stall: None,
        max_age: None,
        limits: Limits {
            start: random.between(450, 3_000),
            initialize: random.between(60, 500),
            sleep: random.between(15, 200),
            park: random.between(50, 400),
            stop: random.between(100, 500),
            request: 60_000,
        },
    }
}
