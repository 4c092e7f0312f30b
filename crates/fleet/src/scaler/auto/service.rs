//! How long requests are worked on.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Requests that are remembered.
const SAMPLES: usize = 64;
/// The latest service times.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_that_of_the_latest() {
        let mut times = ServiceTimes::default();
        assert_eq!(times.mean(), None);
        times.add(1_000);
        times.add(4_000);
        assert_eq!(times.mean(), Some(2_500.0));
        (0..64).for_each(|_| times.add(10_000));
        assert_eq!(times.mean(), Some(10_000.0));
    }
}
