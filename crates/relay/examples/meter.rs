//! What counting a request costs, in nanoseconds: one thread, several at once, and with somebody scraping all the time.
//!
//! `cargo run --release -p kip-relay --example meter`
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kip_fleet::StartKind;
use kip_host::clock::monotonic_micros;
use kip_records::metrics::{Meter, Metrics, Observation};
use kip_spec::FunctionName;

const REQUESTS: u64 = 5_000_000;
/// Functions that requests go to in turn.
const FUNCTIONS: u32 = 100;

fn observe(meter: &Meter, names: &[FunctionName]) -> u64 {
    let begun = monotonic_micros();
    for request in 0..REQUESTS {
        let number = u32::try_from(request % u64::from(FUNCTIONS)).unwrap_or_default();
        let seen = Observation {
            version: Some(7),
            qualifier: None,
            status: 200,
            start: Some(StartKind::Warm),
            code: None,
            queue: 12,
            first_byte: 400 + request % 1_000,
            total: 900 + request % 5_000,
            bytes_in: 1_024,
            bytes_out: 1_024,
        };
        meter.observe(number, &names[number as usize], &seen);
    }
    (monotonic_micros() - begun) * 1_000 / REQUESTS
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let names: Result<Vec<FunctionName>, _> = (0..FUNCTIONS).map(|number| format!("f{number}").parse()).collect();
    let names = Arc::new(names?);
    let metrics = Metrics::new(1_000);
    println!("one thread: {} ns a request", observe(&metrics.meter(), &names));
    for threads in [2, 4] {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                let (meter, names) = (metrics.meter(), names.clone());
                kip_host::tasks::thread("meter", move || observe(&meter, &names))
            })
            .collect::<Result<_, _>>()?;
        let slowest = running.into_iter().filter_map(|thread| thread.join().ok()).max();
        println!("{threads} threads at once: {} ns a request in the slowest", slowest.unwrap_or_default());
    }
    let done = Arc::new(AtomicBool::new(false));
    let (scraped, ended) = (metrics.clone(), done.clone());
    let scraper = kip_host::tasks::thread("scraper", move || {
        let mut scrapes = 0u64;
        while !ended.load(Ordering::Relaxed) {
            scraped.counted(|_| true, |_| true);
            scrapes += 1;
        }
        scrapes
    })?;
    let cost = observe(&metrics.meter(), &names);
    done.store(true, Ordering::Relaxed);
    println!("one thread, scraped {} times meanwhile: {cost} ns a request", scraper.join().unwrap_or_default());
    Ok(())
}
