//! How it is measured: callers who begin the next round when one is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::subjects::{CallerLoop, Subject};

/// Rounds a second, and how long half of them and 99 of 100 took at most, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figure {
    pub(crate) rate: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

/// Lets so many callers work for so many seconds, after half a second that does not count; for longer, up to five times, where
/// rounds take so long that not even one for each caller was over by then.
pub(crate) async fn measure(subject: Arc<dyn Subject>, round: CallerLoop, callers: usize, seconds: u64) -> Figure {
    let over = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(AtomicBool::new(false));
    let counted = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (subject, over, counts, counted) = (subject.clone(), over.clone(), counts.clone(), counted.clone());
            kip_host::tasks::spawn("caller", async move {
                let mut times = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let before = kip_host::clock::monotonic_micros();
                    let own = subject.round(round).await;
                    if counts.load(Ordering::Relaxed) {
                        counted.fetch_add(1, Ordering::Relaxed);
                        times.push(own.unwrap_or_else(|| kip_host::clock::monotonic_micros() - before));
                    }
                }
                times
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    counts.store(true, Ordering::Relaxed);
    let begun = kip_host::clock::monotonic_micros();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        if counted.load(Ordering::Relaxed) >= callers {
            break;
        }
    }
    counts.store(false, Ordering::Relaxed);
    let took = kip_host::clock::monotonic_micros() - begun;
    over.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times.sort_unstable();
    let part = |percent: usize| times.get((times.len().max(1) - 1) * percent / 100).copied().unwrap_or_default();
    Figure { rate: times.len() as u64 * 1_000_000 / took, p50: part(50), p99: part(99) }
}

/// Microseconds as milliseconds.
pub(crate) fn millis(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}
