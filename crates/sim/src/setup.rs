//! What a run consists of: functions, their versions, their traffic, the host's size and the faults, all drawn from the seed.

use std::sync::Arc;

use kip_fleet::policy::{Limits, Rungs};
use kip_fleet::room::{Device, DeviceKind, Gpu, Host, Pool, Quota, Turns};
use kip_fleet::{Inventory, Policy, RoomNeed};
use kip_spec::Millis;
use kip_spec::function::{Concurrency, Dispatch, FunctionPriority, Idle, defaults};
use kip_spec::sleep::RungUse;

use crate::fault::{Fault, FaultRates};
use crate::random::Random;
use crate::scaling;
use crate::workload::Workload;

/// What is left out of a run, to find the smallest one that still fails. The default leaves out nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reduction {
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
    pub(crate) rates: FaultRates,
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
    pub(crate) fn draw(seed: u64, cut: &Reduction) -> Self {
        let mut random = Random::stream(seed, "setup", 0);
        let number = usize::try_from(random.between(1, 6)).unwrap_or(1);
        let horizon = random.scale(3_000, 120_000);
        let requests = random.scale(50, 1_500);
        let rates = FaultRates::draw(seed, &cut.without);
        let mut functions: Vec<FunctionSetup> =
            (0..number).map(|function| FunctionSetup::draw(seed, function, horizon, &rates)).collect();
        let inventory = inventory(seed, &functions);
        for (index, setup) in functions.iter_mut().enumerate() {
            setup.give_a_port(seed, index);
            setup.give_priority(seed, index);
            setup.add_a_giant(seed, index, &inventory);
            if !cut.only.is_empty() && !cut.only.contains(&index) {
                setup.changes.clear();
            }
        }
        Self { seed, functions, inventory, rates, horizon, requests: cut.requests.unwrap_or(requests).min(requests) }
    }

    /// Whether one instance of this policy fits into the empty inventory.
    pub(crate) fn fits(&self, policy: &Policy) -> bool {
        let need = policy.need;
        let host_has = |host: &Host| {
            let fitting = host.devices.iter().filter(|device| need.kind.accepts(device.kind));
            let devices = match need.gpu {
                Gpu::None => true,
                Gpu::Slice(bytes) => fitting.into_iter().any(|device| device.memory >= bytes),
                Gpu::Cards(cards) => fitting.count() >= usize::from(cards),
            };
            need.memory <= host.memory && devices
        };
        let cards = if let Gpu::Cards(cards) = need.gpu { u32::from(cards) } else { 0 };
        let within = self.inventory.quota.cards.is_none_or(|most| cards <= most);
        within && self.inventory.pools.iter().flat_map(|pool| &pool.hosts).any(host_has)
    }
}

/// One to three hosts in one or two pools, sometimes with devices; half of the time there is little room.
fn inventory(seed: u64, functions: &[FunctionSetup]) -> Inventory {
    let mut random = Random::stream(seed, "inventory", 0);
    let policies = || functions.iter().flat_map(|setup| &setup.changes).filter_map(|(_, policy)| policy.as_ref());
    let hungriest = policies().map(|policy| policy.need.memory).max().unwrap_or(0);
    let (tight, with_devices) = (random.one_in(2), random.one_in(2));
    let host = |random: &mut Random| {
        let devices = if with_devices { random.below(4) } else { 0 };
        let memory = if tight { hungriest + random.below(8) } else { 1_000_000 };
        let cpu = if random.one_in(2) { random.between(2_000, 8_000) } else { u64::MAX };
        let device = |random: &mut Random| Device {
            name: "d".to_owned(),
            kind: DeviceKind::named(random.pick(&["small", "large"])),
            memory: random.between(8, 24),
        };
        Host { cpu, memory, devices: (0..devices).map(|_| device(random)).collect() }
    };
    let hosts = |random: &mut Random| (0..random.pick(&[1, 1, 2])).map(|_| host(random)).collect();
    let mut pools = vec![Pool { name: "own".to_owned(), max: None, hosts: hosts(&mut random) }];
    if random.one_in(4) {
        pools.push(Pool { name: "burst".to_owned(), max: Some(random.small(1, 4)), hosts: hosts(&mut random) });
    }
    let instances = random.one_in(6).then(|| random.small(2, 8));
    let cards = (with_devices && random.one_in(4)).then(|| random.small(1, 3));
    let longest = Random::stream(seed, "turns", 0).pick(&[60_000, 60_000, 60_000, 5_000, 0]);
    Inventory { pools, quota: Quota { cards, instances }, turns: Turns { longest } }
}

impl FunctionSetup {
    fn draw(seed: u64, function: usize, horizon: u64, rates: &FaultRates) -> Self {
        let mut random = Random::stream(seed, "function", function);
        let workload = Workload::draw(&mut random, function, horizon);
        let work = random.scale(1, 2_000);
        let mut ways = Random::stream(seed, "scaling", function);
        let mut orders = Random::stream(seed, "strategy", function);
        let mut rungs = Random::stream(seed, "rungs", function);
        // The other seeds stay what they were before versions could choose their rungs.
        let chooses = Random::stream(seed, "chooses rungs", 0).one_in(3);
        let mut policy = |random: &mut Random| {
            let drawn = Policy { recreate: orders.one_in(5), ..policy(random) };
            if chooses { choose_rungs(drawn, &mut rungs) } else { drawn }
        };
        let first = Arc::new(scaling::scaled(policy(&mut random), &mut ways));
        let mut changes = vec![(random.below(500), Some(first))];
        let mut random = Random::stream(seed, "changes", function);
        for _ in 0..6 {
            let at = random.below(horizon);
            let next = Arc::new(scaling::scaled(policy(&mut random), &mut ways));
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

    /// A function whose program listens on a port that it alone has: one instance at a time, over its versions too.
    fn give_a_port(&mut self, seed: u64, function: usize) {
        let mut random = Random::stream(seed, "port", function);
        if !random.one_in(8) {
            return;
        }
        let port = random.pick(&[9_000, 9_001]);
        for policy in self.changes.iter_mut().filter_map(|(_, policy)| policy.as_mut()) {
            let plain = Policy::clone(policy);
            let need = RoomNeed { port, ..plain.need };
            *policy = Arc::new(Policy { need, max: 1, min: plain.min.min(1), recreate: true, ..plain });
        }
    }

    /// A function that is more or less important than others.
    fn give_priority(&mut self, seed: u64, function: usize) {
        let mut random = Random::stream(seed, "priority", function);
        let priority = random.pick(&[
            FunctionPriority::Low,
            FunctionPriority::Normal,
            FunctionPriority::Normal,
            FunctionPriority::High,
        ]);
        for policy in self.changes.iter_mut().filter_map(|(_, policy)| policy.as_mut()) {
            let plain = Policy::clone(policy);
            *policy = Arc::new(Policy { need: RoomNeed { priority, ..plain.need }, ..plain });
        }
    }

    /// Sometimes one version needs more than the host has.
    fn add_a_giant(&mut self, seed: u64, function: usize, inventory: &Inventory) {
        let capacity = inventory.pools.iter().flat_map(|pool| &pool.hosts).map(|host| host.memory).max().unwrap_or(0);
        let mut random = Random::stream(seed, "giant", function);
        if random.one_in(20)
            && let Some((_, Some(policy))) = self.changes.last_mut()
        {
            let mut giant = Policy::clone(policy);
            (giant.need, giant.min) = (RoomNeed { memory: capacity + 1, ..giant.need }, 0);
            *policy = Arc::new(giant);
        }
    }
}

/// Rungs by time, instances that keep their room, and limits on the time of a wake.
fn choose_rungs(policy: Policy, random: &mut Random) -> Policy {
    let mut after = |used: bool| {
        let time = RungUse::After(Millis(random.scale(20, 8_000)));
        if used && random.one_in(2) { time } else { RungUse::WhenNeeded }
    };
    let idle = Idle { park: after(policy.rungs.park), spill: after(policy.rungs.spill), ..policy.idle };
    let (pinned, limited) = (random.one_in(10), random.one_in(6));
    Policy { idle, pinned, wake: limited.then(|| random.scale(5, 4_000)), ..policy }
}

fn policy(random: &mut Random) -> Policy {
    let hard = random.pick(&[1, 1, 2, 4, 8]);
    let max = random.small(1, 5);
    let gpu = match random.below(6) {
        0 | 1 => Gpu::Slice(random.between(2, 10)),
        2 => Gpu::Cards(if random.one_in(3) { 2 } else { 1 }),
        _ => Gpu::None,
    };
    let kind = DeviceKind::named(random.pick(&["any", "any", "small", "large"]));
    let cpu = random.pick(&[0, 0, 0, 500, 1_000, 2_000]);
    let need = RoomNeed { cpu, memory: random.below(5), gpu, kind, ..RoomNeed::default() };
    let pause = (!random.one_in(4)).then(|| Millis(random.scale(20, 8_000)));
    let stop = (!random.one_in(4)).then(|| Millis(random.scale(100, 60_000)));
    let min = random.pick(&[0, 0, 0, 1, 2]).min(max);
    Policy {
        min,
        max,
        concurrency: Concurrency { hard, soft: random.small(1, hard) },
        queue_depth: random.small(1, 40),
        queue_timeout: random.scale(100, 600_000),
        idle: Idle { pause, stop, ..defaults::IDLE },
        dispatch: if random.one_in(2) { Dispatch::Packed } else { Dispatch::Balanced },
        need,
        initialize: random.one_in(2),
        rungs: Rungs { park: random.one_in(2), spill: random.one_in(3) },
        grace: Some(random.between(1, 200)),
        stall: random.one_in(2).then(|| random.scale(300, 20_000)),
        max_age: random.one_in(6).then(|| random.scale(2_000, 100_000)),
        ..Policy::plain(Limits {
            start: random.between(450, 3_000),
            initialize: random.between(60, 500),
            sleep: random.between(15, 200),
            park: random.between(50, 400),
            stop: random.between(100, 500),
            request: random.between(5_000, 60_000),
        })
    }
}
