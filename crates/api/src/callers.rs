//! What callers may try before they have shown a key that is known.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

/// Wrong keys of one address within a minute from which on each answer waits.
const FEW: u32 = 20;
const MINUTE: u64 = 60_000;
/// How long an answer to a wrong key waits then.
const PAUSE: Duration = Duration::from_millis(250);
/// Addresses that are remembered.
const MOST_PEERS: usize = 4_096;

/// Keys that were not known, by the address that sent them.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<IpAddr, (u64, u32)>>);

impl Failures {
    /// Counts a failure. Gives how many there were in this minute, `now` in milliseconds.
    fn count(&self, peer: IpAddr, now: u64) -> u32 {
        let mut all = self.0.lock();
        if all.len() >= MOST_PEERS {
            all.retain(|_, (since, _)| now.saturating_sub(*since) < MINUTE);
            // Addresses of a whole network: those that are not remembered are not slowed either.
            if all.len() >= MOST_PEERS {
                return 1;
            }
        }
        let (since, failures) = all.entry(peer).or_insert((now, 0));
        if now.saturating_sub(*since) >= MINUTE {
            (*since, *failures) = (now, 0);
        }
        *failures = failures.saturating_add(1);
        *failures
    }

    /// Notes a failure in the log, the first of a minute and then ever fewer of them, and says how long its answer is to wait.
    pub(crate) fn note(&self, peer: IpAddr) -> Duration {
        let failures = self.count(peer, kip_host::clock::boot_millis());
        if failures.is_power_of_two() {
            tracing::warn!(%peer, failures, "a caller of the API has sent keys that are not known or not taken, within a minute");
        }
        if failures > FEW { PAUSE } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn failures_are_counted_by_the_minute_and_by_address() {
        let failures = Failures::default();
        assert_eq!((0..30).map(|_| failures.count(peer(1), 1_000)).max(), Some(30));
        assert_eq!(failures.count(peer(2), 1_000), 1);
        assert_eq!(failures.count(peer(1), 1_000 + MINUTE), 1);
        for number in 0..u32::try_from(2 * MOST_PEERS).unwrap() {
            failures.count(IpAddr::from(number.to_be_bytes()), 2_000 + MINUTE);
        }
        assert!(failures.0.lock().len() <= MOST_PEERS);
        let slowed = Failures::default();
        let waits: Vec<bool> = (0..=FEW).map(|_| slowed.note(peer(9)) > Duration::ZERO).collect();
        assert_eq!(waits.iter().filter(|waits| **waits).count(), 1, "the one after the first few");
    }
}
