//! What one key may send: a rate with bursts, and a number in flight. Integer arithmetic on a time that is handed in; the
//! state is two atomics, so that all threads of the data plane share a limit without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// How long one request stands for, in nanoseconds, and how many may come at once.
    pub rate: Option<(u64, u32)>,
    /// How many may be in flight.
    pub concurrency: Option<u32>,
}

/// Why a request goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitExceeded {
    /// Too many in too short a time; after so many nanoseconds the next may come.
    Rate {
        /// How long to wait.
        wait: u64,
    },
    /// As many as may be are in flight.
    Concurrency,
}

/// The state of one key.
#[derive(Debug, Default)]
pub struct Limiter {
    /// When the bucket will be full again, in nanoseconds: each request moves it one interval on.
    full: AtomicU64,
    in_flight: AtomicU32,
}

/// A place in flight. Dropping it gives it back.
#[derive(Debug)]
pub struct Slot(Arc<Limiter>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// When a bucket is full again after a request at `now`, or how long the request is too early. A bucket holds `burst`
/// requests and gains one in each `interval`; all of that is in the one time at which it is full.
fn take(full: u64, now: u64, interval: u64, burst: u32) -> Result<u64, u64> {
    let after = full.max(now).saturating_add(interval);
    let most = now.saturating_add(interval.saturating_mul(u64::from(burst.max(1))));
    if after > most { Err(after - most) } else { Ok(after) }
}

impl Limiter {
    /// Lets a request through, or says why not. What is refused costs the key nothing.
    ///
    /// # Errors
    /// [`LimitExceeded`].
    pub fn admit(self: &Arc<Self>, allowance: Allowance, now: u64) -> Result<Slot, LimitExceeded> {
        // Counted in any case, so that a limit that is set later knows what is in flight.
        let most = allowance.concurrency.unwrap_or(u32::MAX);
        let count = |in_flight: u32| (in_flight < most).then(|| in_flight + 1);
        self.in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .map_err(|_| LimitExceeded::Concurrency)?;
        let slot = Slot(self.clone());
        if let Some((interval, burst)) = allowance.rate {
            let mut full = self.full.load(Ordering::Relaxed);
            loop {
                let after = take(full, now, interval, burst).map_err(|wait| LimitExceeded::Rate { wait })?;
                match self.full.compare_exchange_weak(full, after, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(other) => full = other,
                }
            }
        }
        Ok(slot)
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_the_rate() {
        let limiter = Arc::new(Limiter::default());
        let allowance = Allowance { rate: Some((SECOND / 10, 5)), concurrency: None };
        let at = |now| limiter.admit(allowance, now).map(drop);
        let start = 7 * SECOND;
        assert!((0..5).all(|_| at(start).is_ok()));
        assert_eq!(at(start), Err(LimitExceeded::Rate { wait: SECOND / 10 }));
        assert_eq!(at(start + SECOND / 10 - 1), Err(LimitExceeded::Rate { wait: 1 }));
        assert_eq!(at(start + SECOND / 10), Ok(()));
        assert!(at(start + SECOND / 10).is_err());
        // It never holds more than the burst, however long nobody comes.
        assert_eq!((0..100).filter(|_| at(start + 1_000 * SECOND).is_ok()).count(), 5);
        assert_eq!(limiter.in_flight(), 0, "what was refused holds no place");
    }

    #[test]
    fn over_a_long_time_the_rate_is_exact() {
        for (interval, burst) in [(SECOND / 3, 1), (1_000, 1), (17, 100), (3_600 * SECOND, 2)] {
            let limiter = Arc::new(Limiter::default());
            let allowance = Allowance { rate: Some((interval, burst)), concurrency: None };
            let end = interval * 1_000;
            let step = (interval / 7).max(1);
            let let_through = (0..=end / step).filter(|n| limiter.admit(allowance, SECOND + n * step).is_ok()).count();
            let most = 1_000 + burst as usize;
            // Steps do not hit every interval exactly, and a bucket that is full gains nothing.
            assert!(let_through <= most && let_through >= 850, "{interval} {burst}: {let_through}");
        }
    }

    #[test]
    fn a_place_in_flight_comes_back() {
        let limiter = Arc::new(Limiter::default());
        let allowance = Allowance { rate: None, concurrency: Some(2) };
        let first = limiter.admit(allowance, 0).unwrap();
        let _second = limiter.admit(allowance, 0).unwrap();
        assert_eq!(limiter.admit(allowance, 0).err(), Some(LimitExceeded::Concurrency));
        drop(first);
        assert!(limiter.admit(allowance, 0).is_ok());
        // A limit that is lowered meanwhile waits for those in flight.
        let lower = Allowance { rate: None, concurrency: Some(1) };
        assert_eq!(limiter.admit(lower, 0).err(), Some(LimitExceeded::Concurrency));
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(take(0, u64::MAX, u64::MAX, u32::MAX), Ok(u64::MAX));
        assert_eq!(take(u64::MAX, 0, 1, 1), Err(u64::MAX - 1));
        assert_eq!(take(0, 0, 5, 0), Ok(5), "a burst of nothing counts as one");
    }
}
