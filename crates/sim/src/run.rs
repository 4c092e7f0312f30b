//! One seed from the first request to the last instance's end.

use std::sync::Arc;

use kip_fleet::policy::Limits;
use kip_fleet::rollout::RolloutPlan;
use kip_fleet::{AliasNumber, Call, Event, Inventory, Place, Policy, Priority, Qualifier};
use kip_spec::VersionId;
use kip_spec::function::Concurrency;
use kip_spec::scaling::Fc;

use crate::fate::{FateSource, ScriptedFates, SeededFates};
use crate::fault::Fault;
use crate::invariant::Failure;
use crate::moving::{self, MOVING};
use crate::plant::PlantedBug;
use crate::random::Random;
use crate::scaling;
use crate::setup::{FunctionSetup, Reduction, Setup};
use crate::task::{Submission, TaskEvent};
use crate::trace::Detail;
use crate::world::{World, WorldEvent};

/// How a run went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Equal in every run of the seed.
    pub hash: u64,
    /// The first rule that was broken, if any.
    pub failure: Option<Failure>,
    /// Requests that arrived.
    pub requests: u64,
    /// Steps of function cores.
    pub steps: u64,
    /// Virtual milliseconds that passed.
    pub virtual_millis: u64,
    /// What happened, as far as it was asked for.
    pub lines: Vec<String>,
}

/// Runs a seed: traffic and faults up to a horizon, then none, until everything has settled; then a request to each
/// function; then a shutdown.
pub fn run(seed: u64, cut: &Reduction, plant: Option<PlantedBug>, detail: Detail) -> Outcome {
    let setup = Setup::draw(seed, cut);
    let fates = FateSource::Seeded(Box::new(SeededFates::new(seed, setup.functions.len(), setup.rates.clone())));
    let names = ('a'..='z').take(setup.functions.len()).map(String::from).collect();
    let mut world = World::new(names, setup.inventory.clone(), fates, detail);
    world.plant = plant;
    traffic(&mut world, &setup);
    world.fates.calm();
    if world.failure.is_none() {
        world.settle(&setup);
    }
    Outcome {
        seed,
        hash: world.trace.hash(),
        failure: world.failure.take(),
        requests: world.cells.iter().map(|cell| cell.ends.accepted).sum(),
        steps: world.steps,
        virtual_millis: world.now,
        lines: std::mem::take(&mut world.trace.lines),
    }
}

/// What happens to the world besides requests.
#[derive(Debug, Clone)]
enum Change {
    /// A version is deployed, or the function is removed.
    Deploy(Option<Arc<Policy>>),
    /// An alias is pointed at up to three of the versions there are, with these weights.
    Alias([u32; 3], u32),
    /// Something is provisioned from outside, or not any more.
    Provision(Option<Arc<Fc>>),
    /// An alias begins to move to the newest version.
    Rollout(RolloutPlan),
    /// Every instance is replaced.
    Rotate,
    /// The first hot instance uses too much memory.
    Outgrow,
    /// The server is killed and started again.
    Restart,
    /// A device is out of use until a time, or in use again.
    Yield(Place, Option<u64>),
}

/// Everything that was drawn, in the order of time.
fn changes(world: &mut World, setup: &Setup) -> Vec<(u64, usize, Change)> {
    let mut changes: Vec<(u64, usize, Change)> = Vec::new();
    for (function, drawn) in setup.functions.iter().enumerate() {
        changes.extend(drawn.changes.iter().map(|(at, policy)| (*at, function, Change::Deploy(policy.clone()))));
        let mut random = Random::stream(setup.seed, "operators", function);
        for _ in 0..4 {
            let at = random.below(setup.horizon);
            let weights = [random.small(0, 5), random.small(0, 5), random.small(1, 5)];
            let provisioned = random.pick(&[0, 0, 1, 3]);
            let (points, rotates, grows) = (
                random.per_mille(setup.rates.of(Fault::Alias)),
                random.per_mille(setup.rates.of(Fault::Rotate)),
                random.one_in(2),
            );
            if drawn.changes.is_empty() {
                continue;
            }
            if points {
                changes.push((at, function, Change::Alias(weights, provisioned)));
            }
            if rotates {
                changes.push((at, function, if grows { Change::Outgrow } else { Change::Rotate }));
            }
        }
    }
    let used = |(_, drawn): &(usize, &FunctionSetup)| !drawn.changes.is_empty();
    for (function, _) in setup.functions.iter().enumerate().filter(used) {
        let mut random = Random::stream(setup.seed, "provision", function);
        for _ in 0..3 {
            let (at, settings) = (random.below(setup.horizon), Arc::new(scaling::fc(&mut random)));
            let (puts, removes) = (random.per_mille(setup.rates.of(Fault::Alias)), random.one_in(3));
            if puts {
                changes.push((at, function, Change::Provision((!removes).then_some(settings))));
            }
        }
    }
    for (function, _) in setup.functions.iter().enumerate().filter(used) {
        let mut random = Random::stream(setup.seed, "rollouts", function);
        for _ in 0..8 {
            let (at, plan) = (random.below(setup.horizon), moving::plan(&mut random));
            if random.per_mille(setup.rates.of(Fault::Rollout)) {
                changes.push((at, function, Change::Rollout(plan)));
            }
        }
    }
    changes.extend(yields(setup));
    changes.extend(world.fates.restarts(setup.horizon).into_iter().map(|at| (at, 0, Change::Restart)));
    changes.sort_by_key(|(at, function, _)| (*at, *function));
    changes
}

/// Devices that are out of use for a time. The server asks for one again and again until nothing is on it.
fn yields(setup: &Setup) -> Vec<(u64, usize, Change)> {
    let mut random = Random::stream(setup.seed, "yields", 0);
    let mut all = Vec::new();
    for (pool, declared) in (0u16..).zip(&setup.inventory.pools) {
        for (host, machine) in (0u32..).zip(&declared.hosts) {
            for device in 0..machine.devices.len() {
                let (begin, long) = (random.below(setup.horizon), random.scale(1_000, 100_000));
                if !random.per_mille(setup.rates.of(Fault::Yield)) {
                    continue;
                }
                let place = Place { pool, host, devices: 1 << device };
                let end = begin.saturating_add(long).min(setup.horizon);
                let again = (begin..end).step_by(1_000);
                all.extend(again.map(|at| (at, 0, Change::Yield(place, Some(end)))));
                all.push((end, 0, Change::Yield(place, None)));
            }
        }
    }
    all
}

fn change(world: &mut World, function: usize, change: Change) {
    match change {
        Change::Deploy(Some(policy)) => world.deploy(function, policy),
        Change::Deploy(None) => world.step(function, Event::Remove),
        Change::Alias(weights, provisioned) => world.point(function, &weights, provisioned),
        Change::Provision(settings) => world.provision(function, settings),
        Change::Rollout(plan) => world.roll_out(function, plan),
        Change::Rotate => world.step(function, Event::Rotate),
        Change::Outgrow => {
            if let Some(instance) = world.cells[function].bodies.keys().next().copied() {
                world.step(function, Event::Replace { instance, why: kip_fleet::Reason::Outgrown });
            }
        }
        Change::Restart => world.restart(),
        Change::Yield(place, until) => world.yield_device(place, until),
    }
}

fn traffic(world: &mut World, setup: &Setup) {
    let streams = |name| (0..setup.functions.len()).map(move |function| Random::stream(setup.seed, name, function));
    let mut arrivals: Vec<Random> = streams("traffic").collect();
    let mut calls: Vec<Random> = streams("calls").collect();
    let mut movers: Vec<Random> = streams("calls of moving aliases").collect();
    for (function, drawn) in setup.functions.iter().enumerate() {
        if !drawn.changes.is_empty() {
            let first = drawn.workload.next(0, &mut arrivals[function]);
            world.plan(first, function, WorldEvent::Arrive);
        }
    }
    submissions(world, setup);
    let mut changes = changes(world, setup).into_iter().peekable();
    let mut requests = 0;
    while world.failure.is_none() {
        let next = world.next_at().filter(|at| *at <= setup.horizon);
        let due = changes.next_if(|(at, _, _)| next.is_none_or(|next| *at <= next));
        if let Some((at, function, what)) = due {
            world.now = at.max(world.now);
            change(world, function, what);
            continue;
        }
        let Some((function, happening)) = next.and_then(|_| world.take()) else { break };
        if !matches!(happening, WorldEvent::Arrive) {
            world.happen(function, happening);
            continue;
        }
        if requests >= setup.requests {
            continue;
        }
        requests += 1;
        let (drawn, random) = (&setup.functions[function], &mut arrivals[function]);
        let work = random.below(drawn.work);
        let next = drawn.workload.next(world.now, random);
        let patience = world.fates.patience(function);
        let mut call = call(world, function, &mut calls[function]);
        // By a stream of its own: it changes no other.
        if world.cells[function].aliases.contains_key(&MOVING) && movers[function].one_in(2) {
            call.to = Qualifier::Alias(MOVING);
            call.caller = Some(movers[function].below(50)).filter(|caller| *caller < 25);
        }
        world.plan(next, function, WorldEvent::Arrive);
        world.arrive(function, work, patience, call);
    }
}

/// Tasks, in bursts and alone, of several tenants.
fn submissions(world: &mut World, setup: &Setup) {
    let (tasks, stops) = (setup.rates.of(Fault::Task), setup.rates.of(Fault::TaskStop));
    for (function, drawn) in setup.functions.iter().enumerate() {
        let mut random = Random::stream(setup.seed, "tasks", function);
        if tasks == 0 || drawn.changes.is_empty() || random.one_in(3) {
            continue;
        }
        let (number, together) = (random.scale(1, 60), random.scale(1, 20));
        let mut at = random.below(setup.horizon);
        for count in 0..number {
            if count.is_multiple_of(together) {
                at = random.below(setup.horizon);
            }
            let stop = random.per_mille(stops);
            let submission = Submission {
                order: random.pick(&[None, None, Some("x"), Some("y")]),
                tenant: random.pick(&["heavy", "heavy", "b", "c"]),
                priority: if random.one_in(4) { 0 } else { 1 },
                held: random.one_in(3),
                retries: random.small(0, 3),
                work: random.below(drawn.work.saturating_mul(2)),
                delay: if random.one_in(4) { random.scale(1, 20_000) } else { 0 },
                expires: random.scale(1_000, 400_000),
                stop: Some(random.scale(1, 5_000)).filter(|_| stop),
            };
            world.plan(at, function, WorldEvent::Task(TaskEvent::Submit(submission)));
        }
    }
}

/// Most callers want what serves; some name an alias or a version, some can wait.
fn call(world: &World, function: usize, random: &mut Random) -> Call {
    let (whom, level, hurry, version) = (random.below(6), random.below(4), random.one_in(10), random.between(1, 8));
    let to = match whom {
        0 | 1 if world.cells[function].aliases.contains_key(&AliasNumber(0)) => Qualifier::Alias(AliasNumber(0)),
        2 if hurry => Qualifier::Version(VersionId(version)),
        _ => Qualifier::Latest,
    };
    let priority = if level == 0 { Priority::ASYNC } else { Priority::SYNC };
    Call { to, priority, patience: hurry.then_some(50), caller: None }
}

/// Requests one after another to one hot instance, without faults and without checks: what the simulator itself costs.
/// Answers with the number of requests that were served.
pub fn steady(requests: u64) -> u64 {
    let mut world = World::new(
        vec!["a".to_owned()],
        Inventory::of_memory(u64::MAX),
        FateSource::Scripted(ScriptedFates::default()),
        Detail::Hash,
    );
    world.checked = false;
    let policy = Policy {
        concurrency: Concurrency { hard: 4, soft: 4 },
        queue_depth: 100,
        queue_timeout: 60_000,
        ..Policy::plain(Limits {
            start: 5_000,
            initialize: 1_000,
            sleep: 1_000,
            park: 10_000,
            stop: 1_000,
            request: 60_000,
        })
    };
    world.deploy(0, Arc::new(policy));
    for number in 0..requests {
        world.arrive(0, 1, None, Call::default());
        // The first one starts the instance.
        world.run_until(world.now + if number == 0 { 2_000 } else { 1 });
    }
    world.cells[0].ends.left
}
