//! Requests that come at equal intervals, as those of a timer do: the next ones are expected.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Intervals that have to agree.
const INTERVALS: usize = 4;
/// What comes sooner after the beginning of a round belongs to it, milliseconds.
const SHORTEST: u64 = 4_000;
/// A round may come earlier or later by this part of its interval, within the two bounds, milliseconds.
const PART: u64 = 50;
const LEAST: u64 = 500;
const MOST: u64 = 10_000;
/// So many rounds may be left out.
const LEFT_OUT: u64 = 1;

/// Rounds of requests at equal intervals.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Rhythm {
    /// When the last round began, boot time.
    began: Option<u64>,
    /// From the beginning of each of the last rounds to that of the next, milliseconds, the newest last.
    intervals: VecDeque<u64>,
    /// Requests at once at most, in the last round that is over and in the present one.
    widths: (u32, u32),
}

/// The next round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpectedRound {
    /// Its requests may come from here on, boot time.
    pub(super) from: u64,
    /// After this it is left out.
    pub(super) until: u64,
    /// Requests at once.
    pub(super) width: u32,
    /// Between two rounds, milliseconds.
    pub(super) every: u64,
}

fn tolerance(interval: u64) -> u64 {
    (interval / PART).clamp(LEAST, MOST)
}

impl Rhythm {
    /// Requests came while there were none. So many are there now.
    pub(super) fn arrived(&mut self, now: u64, requests: u32) {
        let Some(began) = self.began else {
            (self.began, self.widths) = (Some(now), (0, requests));
            return;
        };
        let interval = now.saturating_sub(began);
        if interval < SHORTEST {
            return self.widened(requests);
        }
        let known = self.interval();
        let rounds = known.map_or(1, |known| (interval + known / 2) / known).clamp(1, 1 + LEFT_OUT);
        self.intervals.push_back(interval / rounds);
        if self.intervals.len() > INTERVALS {
            self.intervals.pop_front();
        }
        (self.began, self.widths) = (Some(now), (self.widths.1, requests));
    }

    /// So many requests are there at once.
    pub(super) fn widened(&mut self, requests: u32) {
        self.widths.1 = self.widths.1.max(requests);
    }

    /// The interval at which requests come, milliseconds.
    fn interval(&self) -> Option<u64> {
        let (least, most) = (self.intervals.iter().min()?, self.intervals.iter().max()?);
        let mean = self.intervals.iter().sum::<u64>() / u64::try_from(self.intervals.len()).ok()?;
        (self.intervals.len() == INTERVALS && most - least <= 2 * tolerance(mean)).then_some(mean)
    }

    /// The round that is expected next, or now. After too many that did not come, none is.
    pub(super) fn next(&mut self, now: u64) -> Option<ExpectedRound> {
        let (began, every) = (self.began?, self.interval()?);
        let tolerance = tolerance(every);
        let width = self.widths.0.max(self.widths.1);
        let rounds = (1..=1 + LEFT_OUT).map(|round| began.saturating_add(every * round));
        let next = rounds
            .map(|at| ExpectedRound { from: at.saturating_sub(tolerance), until: at + tolerance, width, every })
            .find(|round| now <= round.until);
        if next.is_none() {
            self.intervals.clear();
        }
        next
    }

    /// Whether a round is expected, as far as is known.
    pub(super) fn is_known(&self) -> bool {
        self.interval().is_some()
    }

    /// Counts its boot times by another clock.
    pub(super) fn shift(&mut self, by: &impl Fn(u64) -> u64) {
        self.began = self.began.map(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(rhythm: &mut Rhythm, times: &[u64]) {
        times.iter().for_each(|at| rhythm.arrived(*at, 1));
    }

    #[test]
    fn equal_intervals_are_a_rhythm() {
        let mut rhythm = Rhythm::default();
        rounds(&mut rhythm, &[10_000, 70_100, 130_050, 190_000]);
        assert_eq!(rhythm.next(190_000), None, "three intervals say little");
        rounds(&mut rhythm, &[250_000]);
        rhythm.widened(3);
        let next = rhythm.next(251_000).unwrap();
        assert_eq!((next.every, next.width), (60_000, 3));
        assert!(next.from <= 309_000 && next.until >= 311_000, "{next:?}");
    }

    #[test]
    fn requests_of_a_round_are_one_beginning() {
        let mut rhythm = Rhythm::default();
        for round in 0..6 {
            rounds(&mut rhythm, &[round * 30_000, round * 30_000 + 1_000, round * 30_000 + 2_500]);
        }
        assert_eq!(rhythm.interval(), Some(30_000));
    }

    #[test]
    fn a_round_that_is_left_out_is_forgiven_once() {
        let mut rhythm = Rhythm::default();
        rounds(&mut rhythm, &[0, 60_000, 120_000, 180_000, 240_000]);
        let second = rhythm.next(302_000).unwrap();
        assert!(second.from > 302_000 && second.until < 365_000, "{second:?}");
        rounds(&mut rhythm, &[360_000]);
        assert_eq!(rhythm.interval(), Some(60_000));
        assert_eq!(rhythm.next(482_000), None);
        assert!(!rhythm.is_known(), "two that did not come end it");
    }

    #[test]
    fn chance_is_no_rhythm() {
        let mut rhythm = Rhythm::default();
        rounds(&mut rhythm, &[0, 60_000, 97_000, 160_000, 240_000, 251_000, 320_000]);
        assert_eq!(rhythm.next(320_000), None);
    }
}
