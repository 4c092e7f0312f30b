//! What one message costs the placer where many wait for room: `cargo run --release -p kip-sim --example placer`.
//!
//! 10,000 functions with an instance each, of which 1,000 more wait for room that nobody gives up: they hold memory on one
//! host, and those that wait want what is taken.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use kip_fleet::placer::Urgency;
use kip_fleet::{CoreNumber, Inventory, Now, OperationNumber, Place, Placer, RoomNeed, ToPlacer};
use kip_host::clock::monotonic_micros;
use kip_spec::{InstanceId, VersionId};

const FUNCTIONS: u32 = 10_000;
const WAITING: u32 = 1_000;
const ROUNDS: u64 = 200;

fn id(core: u32, sequence: u32) -> InstanceId {
    InstanceId { boot: 1, core, sequence }
}

fn ask(core: u32, sequence: u32) -> ToPlacer {
    let (function, instance, version) = (CoreNumber(core), id(core, sequence), VersionId(1));
    let (need, number) = (RoomNeed { memory: 1, ..RoomNeed::default() }, OperationNumber(u64::from(sequence)));
    ToPlacer::Ask { function, instance, version, need, urgency: Urgency::Demand, number }
}

/// Microseconds for each of many messages.
fn each(placer: &mut Placer, now: &mut u64, rounds: u64, message: impl Fn(u64) -> ToPlacer) -> f64 {
    let mut answers = Vec::new();
    let began = monotonic_micros();
    for round in 0..rounds {
        *now += 1;
        placer.step(Now { boot: *now, wall: 0 }, message(round), &mut answers);
        answers.clear();
    }
    (monotonic_micros() - began) as f64 / rounds as f64
}

fn main() {
    let mut placer = Placer::new(Inventory::of_memory(u64::from(FUNCTIONS)));
    let mut now = 1;
    let mut answers = Vec::new();
    for core in 0..FUNCTIONS {
        let (function, instance, version) = (CoreNumber(core), id(core, 1), VersionId(1));
        let (need, place) = (RoomNeed { memory: 1, ..RoomNeed::default() }, Place::default());
        let hold = ToPlacer::Hold { function, instance, version, need, place, rung: None };
        placer.step(Now { boot: now, wall: 0 }, hold, &mut answers);
    }
    let began = monotonic_micros();
    for core in 0..WAITING {
        placer.step(Now { boot: now, wall: 0 }, ask(core, 2), &mut answers);
    }
    let asks = (monotonic_micros() - began) as f64 / f64::from(WAITING);
    println!("{FUNCTIONS} functions, {WAITING} of them wait for room; microseconds for one message");
    println!("ask, from the first to the last that waits   {asks:>10.1}");
    let observed = |_| ToPlacer::Observed { instance: id(9_000, 1), memory: Some(1), gpu: None };
    println!("news of memory that changes nothing          {:>10.1}", each(&mut placer, &mut now, ROUNDS, observed));
    let withdrawn = |round: u64| ToPlacer::Withdraw { instance: id(u32::try_from(5_000 + round).unwrap_or(0), 1) };
    println!("withdraw of what was never offered           {:>10.1}", each(&mut placer, &mut now, ROUNDS, withdrawn));
    let serving = |round: u64| ToPlacer::Serving { instance: id(u32::try_from(5_000 + round).unwrap_or(0), 1) };
    println!("serving                                      {:>10.1}", each(&mut placer, &mut now, ROUNDS, serving));
    let released = |round: u64| ToPlacer::Release { instance: id(u32::try_from(8_000 + round).unwrap_or(0), 1) };
    println!("release, which lets one of them in           {:>10.1}", each(&mut placer, &mut now, ROUNDS, released));
    println!("wait still: {}", placer.ledger().2);
}
