//! How long a million rows take, from text to the outcome, as `kip simulate` does it: one thread reads and computes the bounds, another
//! replays. Prints the median of five. Run it with optimisation: `cargo run --release -p kip-sim --example replay_speed`.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use kip_fleet::Policy;
use kip_fleet::policy::Limits;
use kip_sim::replay::trace::{ReadOptions, Reader};
use kip_sim::replay::{BoundsMeter, InstanceTimes, Replay, Setup};
use kip_spec::function::defaults;
use kip_spec::scaling::Scaling;

/// Requests of 0.3 s to 3.3 s, five a second in the mean, with clusters.
fn trace(rows: u64) -> String {
    let mut text = "t_s,service_s\n".to_owned();
    let (mut at, mut dice) = (0u64, 42u64);
    for _ in 0..rows {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = dice >> 33;
        at += if draw % 4 == 0 { draw % 1_400 } else { draw % 80 };
        let service = 300 + draw % 3_000;
        let _ = writeln!(text, "{}.{:03},{}.{:03}", at / 1_000, at % 1_000, service / 1_000, service % 1_000);
    }
    text
}

fn policy() -> Policy {
    const LONG: u64 = 366 * 86_400_000;
    Policy {
        max: 1_000,
        scaling: Scaling::Auto(Box::default()),
        idle: defaults::IDLE,
        ..Policy::plain(Limits::all(LONG))
    }
}

fn main() {
    let text = trace(std::env::args().nth(1).and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000));
    let times = InstanceTimes::constant(30_000, 3_000);
    let mut took = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        let mut reader = Reader::new(text.as_bytes(), &ReadOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let mut meter = BoundsMeter::new(&times, 0.238, 0);
        let (policy, times) = (Arc::new(policy()), times.clone());
        let mut replay = Replay::new(Setup { policy, times, from: 0, devices: None, seed: 1, explain: None });
        let mut next = || reader.by_ref().take(1 << 16).flatten().collect::<Vec<_>>();
        let mut chunk = next();
        while !chunk.is_empty() {
            chunk = thread::scope(|scope| {
                scope.spawn(|| chunk.iter().for_each(|request| replay.request(*request)));
                chunk.iter().for_each(|request| meter.request(*request));
                next()
            });
        }
        let outcome = replay.finish();
        took.push(begin.elapsed());
        println!(
            "{:?}: {} requests, {} at once at most, {} starts, p99 {} ms, hash {:016x}",
            begin.elapsed(),
            outcome.delays.count(),
            meter.bounds().peak,
            outcome.starts,
            outcome.delays.quantile(990),
            outcome.hash
        );
    }
    took.sort();
    println!("median {:?}", took[2]);
}
