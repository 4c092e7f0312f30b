//! By how much the load rises above its mean, by the minute.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Minutes that are remembered.
const MINUTES: usize = 10;
/// Milliseconds.
pub(super) const MINUTE: u64 = 60_000;

/// The sharpest rise of each of the last minutes, the present one last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Rises {
    sharpest: VecDeque<u32>,
    minute: u64,
}

impl Rises {
    /// The load is by so much above its mean now.
    pub(super) fn note(&mut self, now: u64, rise: u32) {
        let minute = now / MINUTE;
        let passed = usize::try_from(minute.saturating_sub(self.minute)).unwrap_or(MINUTES).min(MINUTES);
        self.sharpest.extend(std::iter::repeat_n(0, passed));
        self.minute = minute;
        while self.sharpest.len() > MINUTES {
            self.sharpest.pop_front();
        }
        match self.sharpest.back_mut() {
            Some(present) => *present = (*present).max(rise),
            None => self.sharpest.push_back(rise),
        }
    }

    /// Counts the present minute by another clock.
    pub(super) fn shift(&mut self, by: &impl Fn(u64) -> u64) {
        self.minute = by(self.minute.saturating_mul(MINUTE)) / MINUTE;
    }

    /// The sharpest of all.
    pub(super) fn sharpest(&self) -> u32 {
        self.sharpest.iter().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_is_remembered_for_ten_minutes() {
        let mut rises = Rises::default();
        rises.note(1_000_000, 7);
        rises.note(1_060_000, 3);
        assert_eq!(rises.sharpest(), 7);
        rises.note(1_000_000 + 10 * MINUTE, 1);
        assert_eq!(rises.sharpest(), 3);
        rises.note(1_000_000 + 300 * MINUTE, 0);
        assert_eq!(rises.sharpest(), 0);
    }
}
