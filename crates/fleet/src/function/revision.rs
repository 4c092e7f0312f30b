//! A version within its function's core: its role, its queue, its scaler, its failures.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Policy;
use crate::queue::Queue;
use crate::scaler::{Fixed, Scalers};
use crate::why::StartFailure;

/// What a version is to its function at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Proves itself with one instance; takes no requests yet.
    Candidate,
    /// Takes all new requests.
    Serving,
    /// Serves the requests it has and then ends.
    Retiring,
}

/// A version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revision {
    /// What it is at present.
    pub role: Role,
    /// How it wants to be treated.
    pub policy: Arc<Policy>,
    /// Requests that wait for it.
    pub queue: Queue,
    /// Who decides how many instances it has.
    pub scaler: Scalers,
    /// What its failed starts forbid.
    pub backoff: Backoff,
}

impl Revision {
    /// A version with nothing waiting.
    pub fn new(role: Role, policy: Arc<Policy>) -> Self {
        let scaler = Scalers::Fixed(Fixed::new(&policy));
        Self { role, policy, queue: Queue::default(), scaler, backoff: Backoff::default() }
    }
}

/// Starts that failed in a row, and when the next one may be tried.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Backoff {
    failures: u32,
    retry_at: Option<u64>,
    last: Option<StartFailure>,
}

/// The pause after the second failure; doubled with each further one.
const FIRST_PAUSE: u64 = 1_000;
/// No pause is longer.
const LONGEST_PAUSE: u64 = 60_000;

impl Backoff {
    /// Notes a failure. The first one costs no pause, so that a passing trouble heals with the next request.
    pub fn failed(&mut self, now: u64, failure: StartFailure) {
        let pause = match self.failures {
            0 => 0,
            earlier => (FIRST_PAUSE << (earlier - 1).min(10)).min(LONGEST_PAUSE),
        };
        self.failures = self.failures.saturating_add(1);
        self.retry_at = (pause > 0).then(|| now.saturating_add(pause));
        self.last = Some(failure);
    }

    /// An instance served or became ready: all is forgiven.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether there is nothing to remember.
    pub fn is_clear(&self) -> bool {
        self.failures == 0
    }

    /// How many starts failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The last failure, if any.
    pub fn last(&self) -> Option<StartFailure> {
        self.last
    }

    /// When the next start may be tried, boot time.
    pub fn retry_at(&self) -> Option<u64> {
        self.retry_at
    }

    /// Whether a start is forbidden now: for how long, and since which failure.
    pub fn blocks(&self, now: u64) -> Option<(u64, StartFailure)> {
        let remaining = self.retry_at?.checked_sub(now).filter(|remaining| *remaining > 0)?;
        Some((remaining, self.last?))
    }

    /// Lets the pause end; the count of failures stays.
    pub fn expire(&mut self, now: u64) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_the_first_is_free() {
        let mut backoff = Backoff::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            backoff.failed(0, StartFailure::NeverReady);
            pauses.push(backoff.blocks(0).map_or(0, |(pause, _)| pause));
        }
        assert_eq!(pauses, [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        backoff.expire(60_000);
        assert_eq!((backoff.blocks(60_000), backoff.failures()), (None, 9));
    }
}
