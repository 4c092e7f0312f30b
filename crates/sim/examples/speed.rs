//! What the brain and its simulator cost on this machine: `cargo run --release -p kip-sim --example speed`.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::hint::black_box;
use std::sync::Arc;

use kip_fleet::policy::Limits;
use kip_fleet::{
    Call, CoreNumber, Effect, Event, FromPlacer, FunctionCore, Now, OperationOutcome, Place, Policy, Ticket, ToPlacer,
};
use kip_host::clock::monotonic_micros;
use kip_spec::VersionId;
use kip_spec::function::{Concurrency, Idle};

const REQUESTS: u64 = 1_000_000;

fn policy() -> Arc<Policy> {
    Arc::new(Policy {
        max: 10,
        concurrency: Concurrency { hard: 8, soft: 8 },
        queue_depth: 1_000,
        queue_timeout: 60_000,
        idle: Idle { pause: Some(kip_spec::Millis::from_secs(30)), stop: None, ..kip_spec::function::defaults::IDLE },
        ..Policy::plain(Limits {
            start: 5_000,
            initialize: 1_000,
            sleep: 1_000,
            park: 10_000,
            stop: 1_000,
            request: 60_000,
        })
    })
}

/// A core with this many hot instances.
fn hot(instances: u64) -> FunctionCore {
    let mut core = FunctionCore::new(1, CoreNumber(0), 0);
    let mut effects = Vec::new();
    let now = Now { boot: 1, wall: 0 };
    core.step(now, Event::Deploy { version: VersionId(1), policy: policy() }, &mut effects);
    for ticket in 0..instances * 8 {
        core.step(now, Event::Arrive { ticket: Ticket(ticket), call: Call::default() }, &mut effects);
    }
    while let Some(effect) = effects.pop() {
        let event = match effect {
            Effect::Tell(ToPlacer::Ask { instance, number, .. }) => {
                Event::Placer(FromPlacer::Grant { instance, place: Place::default(), number, from: None })
            }
            Effect::Operate { instance, operation, .. } => {
                Event::Observed { instance, operation, seen: OperationOutcome::Started }
            }
            _ => continue,
        };
        core.step(now, event, &mut effects);
    }
    for ticket in 0..instances * 8 {
        core.step(now, Event::Leave { ticket: Ticket(ticket) }, &mut effects);
    }
    core
}

/// Nanoseconds for one arrive and one leave.
fn pair(instances: u64) -> u64 {
    let mut core = hot(instances);
    let mut effects = Vec::with_capacity(16);
    let start = monotonic_micros();
    for number in 0..REQUESTS {
        let (now, ticket) = (Now { boot: 1 + number / 1_000, wall: 0 }, Ticket(1_000 + number));
        core.step(now, Event::Arrive { ticket, call: Call::default() }, &mut effects);
        core.step(now, Event::Leave { ticket }, &mut effects);
        black_box(&effects);
        effects.clear();
    }
    (monotonic_micros() - start) * 1_000 / REQUESTS
}

fn main() {
    let start = monotonic_micros();
    let served = kip_sim::steady(REQUESTS);
    let took = monotonic_micros() - start;
    println!("simulated requests, one function, no faults  {served} in {} ms", took / 1_000);
    for instances in [1, 4, 10] {
        println!("arrive and leave, {instances:>2} hot instances           {} ns", pair(instances));
    }
    let fixed = size_of::<FunctionCore>();
    println!("memory of a core, no version                 {fixed} B");
    // A map's node of the standard library has room for eleven entries; a core in use has at least one of each map.
    let node = |key: usize, value: usize| 11 * (key + value) + 16;
    let instance = size_of::<kip_fleet::instance::Instance>();
    let revision = size_of::<kip_fleet::function::Revision>();
    let pointer = size_of::<usize>();
    let asleep = fixed + node(8, pointer) + revision + node(12, pointer) + instance + 2 * 16 + size_of::<Policy>() + 16;
    println!(
        "memory of a core, one instance asleep        about {asleep} B ({revision} a version, {instance} an instance)"
    );
    println!("memory of a core, one request in flight      about {} B", asleep + node(8, 24));
    println!("memory of a function without a core          0 B (the core is dropped)");
}
