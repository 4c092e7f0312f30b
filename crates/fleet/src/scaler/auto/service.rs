//! How long requests are worked on.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Requests that are remembered.
const SAMPLES: usize = 64;
/// With fewer than this nothing is known of the next one.
const FEW: usize = 4;

/// The latest service times.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ServiceTimes {
    /// Milliseconds, the newest last.
    samples: VecDeque<u32>,
    sum: u64,
}

impl ServiceTimes {
    /// A request was worked on for so long, milliseconds.
    pub(super) fn add(&mut self, time: u64) {
        let time = u32::try_from(time).unwrap_or(u32::MAX);
        self.samples.push_back(time);
        self.sum += u64::from(time);
        if self.samples.len() > SAMPLES
            && let Some(oldest) = self.samples.pop_front()
        {
            self.sum -= u64::from(oldest);
        }
    }

    /// The mean in milliseconds, if anything is known.
    #[expect(clippy::cast_precision_loss, reason = "64 times of at most 49 days")]
    pub(super) fn mean(&self) -> Option<f64> {
        (!self.samples.is_empty()).then(|| (self.sum as f64 / self.samples.len() as f64).max(1.0))
    }

    /// By how much the rest of a request that is worked on exceeds `limit`, in the mean over all moments; milliseconds. Nothing where too
    /// little is known.
    pub(super) fn excess(&self, limit: u64) -> Option<f64> {
        if self.samples.len() < FEW {
            return None;
        }
        // A moment falls into a request in proportion to its length, and is equally likely anywhere in it.
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of at most 49 days")]
        let beyond = |time: &u32| {
            let beyond = u64::from(*time).saturating_sub(limit) as f64;
            beyond * beyond / 2.0
        };
        #[expect(clippy::cast_precision_loss, reason = "64 times of at most 49 days")]
        let sum = self.sum.max(1) as f64;
        Some(self.samples.iter().map(beyond).sum::<f64>() / sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_request_beyond_a_limit() {
        let mut times = ServiceTimes::default();
        assert!(times.mean().is_none() && times.excess(0).is_none());
        (0..100).for_each(|_| times.add(10_000));
        assert!((times.mean().unwrap() - 10_000.0).abs() < 1e-9);
        // From a moment within 10 s it takes another 5 s in the mean.
        assert!((times.excess(0).unwrap() - 5_000.0).abs() < 1e-9);
        assert!((times.excess(6_000).unwrap() - 800.0).abs() < 1e-9 && times.excess(10_000) == Some(0.0));
        times.add(40_000);
        assert!(times.excess(10_000).unwrap() > 600.0, "one that is long weighs much");
    }
}
