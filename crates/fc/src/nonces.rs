//! Nonces of signatures that were seen, so that nobody can send a request twice. In memory: what was signed before the server's start is refused.

use std::collections::{BTreeMap, HashSet};

/// Seconds by which a request's time may differ from ours, as the vendor has it.
pub(crate) const WINDOW: i64 = 15 * 60;
/// Nonces that are remembered. With more, the oldest seconds are refused early.
const MOST: usize = 1_000_000;

/// The nonces of the window.
#[derive(Debug)]
pub(crate) struct Nonces {
    /// By the second that the request says.
    by_second: BTreeMap<i64, HashSet<u128>>,
    count: usize,
    /// Requests of earlier seconds are refused.
    since: i64,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NonceRefusal {
    /// Its time is too far from ours.
    Skew,
    /// It is older than what is remembered: nobody knows whether it was sent before.
    BeforeStart,
    /// It was sent before.
    Replay,
}

impl Nonces {
    /// Remembers from this second on.
    pub(crate) fn new(since: i64) -> Self {
        Self { by_second: BTreeMap::new(), count: 0, since }
    }

    /// Takes a nonce of a key once. Times are seconds since 1970.
    ///
    /// # Errors
    /// [`NonceRefusal`].
    pub(crate) fn take(&mut self, nonce: u128, at: i64, now: i64) -> Result<(), NonceRefusal> {
        if (now - at).abs() > WINDOW {
            return Err(NonceRefusal::Skew);
        }
        if at < self.since {
            return Err(NonceRefusal::BeforeStart);
        }
        self.forget(now);
        if !self.by_second.entry(at).or_default().insert(nonce) {
            return Err(NonceRefusal::Replay);
        }
        self.count += 1;
        while self.count > MOST
            && let Some((second, nonces)) = self.by_second.pop_first()
        {
            self.count -= nonces.len();
            self.since = second + 1;
        }
        Ok(())
    }

    /// What is out of the window is refused for that already.
    fn forget(&mut self, now: i64) {
        while let Some(first) = self.by_second.first_entry().filter(|first| now - *first.key() > WINDOW) {
            self.count -= first.remove().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_taken_once_within_the_window() {
        let mut nonces = Nonces::new(1_000);
        assert_eq!(nonces.take(7, 1_000, 1_000), Ok(()));
        assert_eq!(nonces.take(7, 1_000, 1_001), Err(NonceRefusal::Replay));
        assert_eq!(nonces.take(8, 1_000, 1_000), Ok(()));
        assert_eq!(nonces.take(9, 999, 1_000), Err(NonceRefusal::BeforeStart));
        assert_eq!(nonces.take(9, 1_000 + WINDOW + 1, 1_000), Err(NonceRefusal::Skew));
        assert_eq!(nonces.take(9, 1_000, 1_001 + WINDOW), Err(NonceRefusal::Skew));
        assert_eq!(nonces.take(9, 3_000, 3_000), Ok(()));
        assert_eq!((nonces.count, nonces.by_second.len()), (1, 1), "what is out of the window is forgotten");
    }
}
