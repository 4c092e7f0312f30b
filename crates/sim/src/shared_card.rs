//! Days of ten models on a device that has room for two: what overcommitment is for.

use std::sync::Arc;

use kip_fleet::policy::{Limits, Rungs};
use kip_fleet::room::{Device, Gpu, Host, Inventory, Pool};
use kip_fleet::{Call, Policy, RoomNeed};
use kip_spec::Millis;
use kip_spec::function::{Idle, defaults};

use crate::fate::{FateSource, ScriptedFates};
use crate::invariant::Failure;
use crate::random::Random;
use crate::trace::Detail;
use crate::world::World;

/// Models.
const MODELS: usize = 10;
/// What each takes of the device, and what there is.
const MODEL: u64 = 10;
const DEVICE: u64 = 2 * MODEL;
/// The first start of a model, milliseconds. A park and a wake take 500 ms each.
const START: u64 = 30_000;
/// The mean time between two requests of the most popular model at noon, seconds; of the next twice that, and so on.
const BETWEEN: u64 = 60;
const DAY: u64 = 86_400;

/// How it went.
#[derive(Debug, Clone)]
pub struct SharedCard {
    /// The first rule that was broken, if any: the device's memory above all.
    pub failure: Option<Failure>,
    /// Requests that came.
    pub requests: u64,
    /// Requests that got an answer.
    pub answered: u64,
    /// Waits of all requests that got a place, milliseconds, ascending.
    pub waits: Vec<u64>,
    /// Steps of function cores.
    pub steps: u64,
}

impl SharedCard {
    /// The wait that this many of a thousand requests did not exceed, milliseconds.
    pub fn quantile(&self, per_mille: usize) -> u64 {
        let last = self.waits.len().saturating_sub(1);
        self.waits.get(last * per_mille / 1_000).copied().unwrap_or(0)
    }
}

/// Plays so many days. Requests come by the hour: few at night, most at noon.
pub fn shared_card(days: u64, seed: u64) -> SharedCard {
    let device = Device { name: "card".to_owned(), memory: DEVICE, ..Device::default() };
    let host = Host { cpu: u64::MAX, memory: u64::MAX, devices: vec![device] };
    let pool = Pool { name: "local".to_owned(), max: None, hosts: vec![host] };
    let inventory = Inventory { pools: vec![pool], ..Inventory::default() };
    let takes = (0..MODELS).map(|model| ((model, "start"), START)).collect();
    let fates = FateSource::Scripted(ScriptedFates { takes, ..ScriptedFates::default() });
    let names = (0..MODELS).map(|model| format!("model-{model}")).collect();
    let mut world = World::new(names, inventory, fates, Detail::Hash);
    world.waits = Some(Vec::new());
    let policy = Policy {
        idle: Idle { pause: Some(Millis::from_secs(30)), stop: None, ..defaults::IDLE },
        need: RoomNeed { gpu: Gpu::Slice(MODEL), ..RoomNeed::default() },
        rungs: Rungs { park: true, spill: false },
        ..Policy::plain(Limits::all(600_000))
    };
    let policy = Arc::new(policy);
    (0..MODELS).for_each(|model| world.deploy(model, policy.clone()));
    let mut random = Random::stream(seed, "shared card", 0);
    for second in 0..days * DAY {
        world.run_until(second * 1_000);
        if world.failure.is_some() {
            break;
        }
        // From a quarter of the traffic at midnight to all of it at noon.
        let hour = second % DAY / 3_600;
        let share = 3 + hour.min(24 - hour) * 9 / 12;
        for (rank, model) in (1..).zip(0..MODELS) {
            if random.below(BETWEEN * rank * 12) < share {
                world.arrive(model, random.between(500, 3_500), None, Call::default());
            }
        }
    }
    world.run_until((days * DAY + 3_600) * 1_000);
    let mut waits = world.waits.take().unwrap_or_default();
    waits.sort_unstable();
    SharedCard {
        failure: world.failure.take(),
        requests: world.cells.iter().map(|cell| cell.ends.accepted).sum(),
        answered: world.cells.iter().map(|cell| cell.ends.left).sum(),
        waits,
        steps: world.steps,
    }
}
