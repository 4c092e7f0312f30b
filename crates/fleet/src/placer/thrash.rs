//! How much of its time a place spends on changing hands, and how much of that was in vain.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What is looked back at, milliseconds.
const WINDOW: u64 = 600_000;
/// Changes of hands that are remembered.
const REMEMBERED: usize = 256;
/// So many in vain are thrash; fewer say nothing.
const FEWEST: u32 = 3;

/// The changes of hands of one place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Thrash {
    switches: VecDeque<Switch>,
}

/// One change of hands.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Switch {
    /// When it ended, boot time.
    ended: u64,
    /// How long it took, milliseconds.
    took: u64,
    /// The function that lost its room wanted it back before the other one served.
    in_vain: bool,
}

impl Thrash {
    /// One has ended after so many milliseconds.
    pub(super) fn switched(&mut self, now: u64, took: u64, in_vain: bool) {
        self.switches.push_back(Switch { ended: now, took, in_vain });
        if self.switches.len() > REMEMBERED {
            self.switches.pop_front();
        }
    }

    /// The share of the window spent on them, in a thousand. One change alone says nothing.
    pub(super) fn per_mille(&self, now: u64) -> u32 {
        self.share(now, |_| true)
    }

    /// The share of the window spent on those in vain, in a thousand.
    pub(super) fn in_vain(&self, now: u64) -> u32 {
        self.share(now, |switch| switch.in_vain)
    }

    fn share(&self, now: u64, counts: impl Fn(&Switch) -> bool) -> u32 {
        let recent = self.switches.iter().filter(|switch| switch.ended.saturating_add(WINDOW) >= now && counts(switch));
        let (count, took, first) = recent.fold((0u32, 0u64, now), |(count, sum, first), switch| {
            let began = switch.ended.saturating_sub(switch.took);
            (count + 1, sum.saturating_add(switch.took), first.min(began))
        });
        let span = now.saturating_sub(first).clamp(1, WINDOW);
        if count < FEWEST {
            return 0;
        }
        u32::try_from(took.saturating_mul(1_000) / span).unwrap_or(u32::MAX).min(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_time_that_goes_into_changing_hands() {
        let mut thrash = Thrash::default();
        for at in [10_000, 20_000, 30_000, 40_000] {
            thrash.switched(at, 4_000, at > 20_000);
        }
        assert_eq!(thrash.per_mille(46_000), 16_000 * 1_000 / 40_000);
        assert_eq!(thrash.in_vain(46_000), 0, "two in vain say nothing yet");
        thrash.switched(50_000, 4_000, true);
        assert_eq!(thrash.in_vain(56_000), 12_000 * 1_000 / 30_000);
        assert_eq!(thrash.per_mille(900_000), 0);
        let mut once = Thrash::default();
        once.switched(10, 10, true);
        assert_eq!(once.per_mille(10), 0);
    }
}
