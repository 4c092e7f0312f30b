//! How much of its time a place spends on changing hands instead of serving.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What is looked back at, milliseconds.
const WINDOW: u64 = 600_000;
/// Changes of hands that are remembered.
const REMEMBERED: usize = 256;

/// The changes of hands of one place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Thrash {
    /// When each ended, boot time, and how long it took.
    switches: VecDeque<(u64, u64)>,
}

impl Thrash {
    /// One has ended after so many milliseconds.
    pub(super) fn switched(&mut self, now: u64, took: u64) {
        self.switches.push_back((now, took));
        if self.switches.len() > REMEMBERED {
            self.switches.pop_front();
        }
    }

    /// The share of the window spent on them, in a thousand. One change alone says nothing.
    pub(super) fn per_mille(&self, now: u64) -> u32 {
        let recent = self.switches.iter().filter(|(at, _)| at.saturating_add(WINDOW) >= now);
        let (count, took, first) = recent.fold((0u32, 0u64, now), |(count, sum, first), (at, took)| {
            (count + 1, sum.saturating_add(*took), first.min(at.saturating_sub(*took)))
        });
        let span = now.saturating_sub(first).clamp(1, WINDOW);
        if count < 3 { 0 } else { u32::try_from(took.saturating_mul(1_000) / span).unwrap_or(u32::MAX).min(1_000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_time_that_goes_into_changing_hands() {
        let mut thrash = Thrash::default();
        for at in [10_000, 20_000, 30_000, 40_000] {
            thrash.switched(at, 4_000);
        }
        assert_eq!(thrash.per_mille(46_000), 16_000 * 1_000 / 40_000);
        assert_eq!(thrash.per_mille(900_000), 0);
        let mut once = Thrash::default();
        once.switched(10, 10);
        assert_eq!(once.per_mille(10), 0);
    }
}
