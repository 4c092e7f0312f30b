//! Averages and maxima over the latest seconds, in memory of a fixed size.

use std::collections::VecDeque;

use kip_spec::scaling::kpa::Algorithm;
use serde::{Deserialize, Serialize};

/// Sums by the second over a window, and their average.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Window {
    /// By second modulo the length.
    buckets: Vec<f64>,
    /// The seconds of the first and last report since the window was last empty.
    written: Option<(u64, u64)>,
    total: f64,
    /// The weight of the newest second, where newer ones count more.
    weight: Option<f64>,
}

/// The weights of a weighted window add up to this at least.
const PRECISION: f64 = 0.9999;
/// However long the window is, its newest second weighs this much.
const LEAST_WEIGHT: f64 = 0.2;

impl Window {
    /// An empty window of so many seconds, at least one.
    pub(super) fn new(seconds: u64, algorithm: Algorithm) -> Self {
        let length = usize::try_from(seconds.max(1)).unwrap_or(usize::MAX);
        let weight = || (1.0 - (1.0 - PRECISION).powf(1.0 / length as f64)).max(LEAST_WEIGHT);
        let weight = (algorithm == Algorithm::WeightedExponential).then(weight);
        Self { buckets: vec![0.0; length], written: None, total: 0.0, weight }
    }

    fn length(&self) -> u64 {
        self.buckets.len() as u64
    }

    fn slot(&self, second: u64) -> usize {
        usize::try_from(second % self.length()).unwrap_or_default()
    }

    /// Adds what was reported for the second of `now`, in milliseconds. What is older than the window is dropped.
    pub(super) fn record(&mut self, now: u64, value: f64) {
        let second = now / 1_000;
        match self.written {
            Some((first, last)) if second <= last => {
                if second + self.length() <= last {
                    return;
                }
                self.written = Some((first.min(second), last));
            }
            Some((first, last)) if second - last < self.length() => {
                for passed in last + 1..=second {
                    let slot = self.slot(passed);
                    self.total -= std::mem::take(&mut self.buckets[slot]);
                }
                self.written = Some((first, second));
            }
            _ => {
                self.buckets.fill(0.0);
                self.total = 0.0;
                self.written = Some((second, second));
            }
        }
        let slot = self.slot(second);
        self.buckets[slot] += value;
        self.total += value;
    }

    /// Whether nothing was reported for longer than the window.
    pub(super) fn is_empty(&self, now: u64) -> bool {
        self.written.is_none_or(|(_, last)| (now / 1_000).saturating_sub(last) > self.length())
    }

    /// The average now. A linear one is over the seconds from the first to the last report, within the window.
    pub(super) fn average(&self, now: u64) -> f64 {
        let Some((first, last)) = self.written.filter(|_| !self.is_empty(now)) else { return 0.0 };
        let silent = (now / 1_000).saturating_sub(last);
        match self.weight {
            Some(weight) => self.weighted(weight, last, silent),
            None if silent >= self.length() => 0.0,
            None => {
                let passed = |ago: u64| self.buckets[self.slot(last + ago)];
                let total = (1..=silent).fold(self.total, |total, ago| total - passed(ago));
                let count = (last - first + 1).min(self.length() - silent);
                six_digits(total / count as f64)
            }
        }
    }

    fn weighted(&self, weight: f64, last: u64, silent: u64) -> f64 {
        let mut share = weight;
        if silent > 0 {
            share *= (1.0 - weight).powf(silent as f64);
        }
        let mut sum = 0.0;
        for ago in 0..self.length().saturating_sub(silent) {
            // Before the beginning of time there was nothing.
            let Some(second) = last.checked_sub(ago) else { break };
            sum += self.buckets[self.slot(second)] * share;
            share *= 1.0 - weight;
        }
        sum
    }

    /// Becomes longer or shorter and keeps its newest seconds; what it was long counts as written.
    pub(super) fn resize(&mut self, now: u64, seconds: u64, algorithm: Algorithm) {
        let mut other = Self::new(seconds, algorithm);
        if other.buckets.len() == self.buckets.len() {
            self.weight = other.weight;
            return;
        }
        if let Some((_, last)) = self.written.filter(|_| !self.is_empty(now)) {
            let first = (last + 1).saturating_sub(self.length());
            for second in first.max((last + 1).saturating_sub(other.length()))..=last {
                let slot = other.slot(second);
                other.buckets[slot] = self.buckets[self.slot(second)];
                other.total += other.buckets[slot];
            }
            other.written = Some((first, last));
        }
        *self = other;
    }
}

fn six_digits(number: f64) -> f64 {
    const DIGITS: f64 = 1e6;
    // What rounds to nothing from below is nothing, not minus nothing.
    (number * DIGITS).round() / DIGITS + 0.0
}

/// The largest of the values of the latest slots of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Peak {
    slots: u64,
    slot_length: u64,
    /// Slot and value; values fall, slots rise.
    falling: VecDeque<(u64, i32)>,
}

impl Peak {
    /// Over so long, in slots of so long, milliseconds.
    pub(super) fn new(length: u64, slot_length: u64) -> Self {
        Self { slots: length.div_ceil(slot_length).max(1), slot_length, falling: VecDeque::new() }
    }

    /// Takes a value and says what is the largest now.
    pub(super) fn record(&mut self, now: u64, value: i32) -> i32 {
        let slot = now / self.slot_length;
        let mut value = value;
        while self.falling.back().is_some_and(|(_, other)| *other <= value) {
            self.falling.pop_back();
        }
        while self.falling.front().is_some_and(|(other, _)| slot.saturating_sub(*other) >= self.slots) {
            self.falling.pop_front();
        }
        if let Some((_, larger)) = self.falling.back().copied().filter(|(other, _)| *other == slot) {
            self.falling.pop_back();
            value = larger;
        }
        self.falling.push_back((slot, value));
        self.falling.front().map_or(value, |(_, largest)| *largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(algorithm: Algorithm, seconds: u64, reports: &[(u64, f64)]) -> Window {
        let mut window = Window::new(seconds, algorithm);
        reports.iter().for_each(|(at, value)| window.record(*at, *value));
        window
    }

    #[test]
    fn linear_averages() {
        type Row<'a> = (&'a str, u64, &'a [(u64, f64)], u64, f64);
        let rows: [Row<'_>; 13] = [
            ("nothing yet", 5, &[], 7_000, 0.0),
            ("the part that was written", 60, &[(1_000, 10.0), (2_000, 20.0)], 2_000, 15.0),
            ("a second sums up", 60, &[(1_000, 10.0), (1_900, 5.0)], 1_999, 15.0),
            ("a gap inside counts as nothing", 60, &[(1_000, 12.0), (4_000, 12.0)], 4_000, 6.0),
            ("silence at the end shortens", 60, &[(1_000, 12.0), (2_000, 12.0)], 9_000, 12.0),
            ("only the window", 2, &[(1_000, 99.0), (2_000, 10.0), (3_000, 20.0)], 3_000, 15.0),
            ("old ones drop out", 3, &[(1_000, 9.0), (2_000, 6.0), (3_000, 3.0)], 4_000, 4.5),
            ("two seconds of silence", 3, &[(1_000, 9.0), (2_000, 6.0), (3_000, 3.0)], 5_000, 3.0),
            ("a silent window is nothing", 3, &[(1_000, 9.0), (2_000, 6.0), (3_000, 3.0)], 6_000, 0.0),
            ("a late report counts", 5, &[(1_000, 4.0), (4_000, 8.0), (2_000, 8.0)], 4_000, 5.0),
            ("one older than the window does not", 2, &[(10_000, 4.0), (8_000, 50.0)], 10_000, 4.0),
            ("never minus nothing", 3, &[(1_000, 0.1), (2_000, 0.2), (3_000, -0.3)], 3_000, 0.0),
            ("six digits", 3, &[(1_000, 1.0), (2_000, 0.0), (3_000, 0.0)], 3_000, 0.333_333),
        ];
        for (name, seconds, reports, now, average) in rows {
            assert_eq!(filled(Algorithm::Linear, seconds, reports).average(now), average, "{name}");
        }
        let mut window = filled(Algorithm::Linear, 3, &[(1_000, 9.0)]);
        assert!(!window.is_empty(4_000) && window.is_empty(5_000));
        window.record(20_000, 6.0);
        assert_eq!(window.average(20_000), 6.0, "after a silent window it begins anew");
    }

    #[test]
    fn weighted_averages() {
        // 1 - 0.0001^(1/2) = 0.99, and 0.99 * 20 + 0.99 * 0.01 * 10.
        let window = filled(Algorithm::WeightedExponential, 2, &[(1_000, 10.0), (2_000, 20.0)]);
        assert!((window.average(2_000) - 19.899).abs() < 1e-9);
        assert!((window.average(3_000) - 0.198).abs() < 1e-9, "silence takes weight");
        assert_eq!(window.average(4_000), 0.0);
        // A long window weighs by a fifth.
        let window = filled(Algorithm::WeightedExponential, 60, &[(1_000, 10.0), (2_000, 20.0)]);
        assert!((window.average(2_000) - (0.2 * 20.0 + 0.2 * 0.8 * 10.0)).abs() < 1e-9);
    }

    #[test]
    fn a_window_that_is_resized_keeps_its_newest_seconds() {
        let mut window = filled(Algorithm::Linear, 4, &[(1_000, 1.0), (2_000, 2.0), (3_000, 3.0), (4_000, 4.0)]);
        window.resize(4_000, 2, Algorithm::Linear);
        assert_eq!(window.average(4_000), 3.5);
        window.resize(4_000, 8, Algorithm::Linear);
        window.record(5_000, 5.0);
        assert!(window.average(5_000) > 2.0);
    }

    #[test]
    fn the_largest_of_the_latest_slots() {
        let mut peak = Peak::new(5_000, 2_000);
        let rows =
            [(0, 3, 3), (2_000, 7, 7), (4_000, 5, 7), (6_000, 1, 7), (8_000, 1, 5), (10_000, 1, 1), (10_500, 0, 1)];
        for (now, value, largest) in rows {
            assert_eq!(peak.record(now, value), largest, "at {now}");
        }
    }
}
