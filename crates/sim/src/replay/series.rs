//! What there was over time, in intervals of equal length. The number of intervals is bounded: a longer trace has longer ones.

use kip_fleet::{Class, State};

/// More intervals than this are merged in pairs.
const MOST: usize = 2_880;
/// The shortest interval, milliseconds.
pub(super) const SHORTEST: u64 = 60_000;

/// Integrals over an interval, in milliseconds times what there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interval {
    /// Requests that came.
    pub arrivals: u64,
    /// Hot or busy instances.
    pub hot: u64,
    /// Starting or waking ones.
    pub starting: u64,
    /// Those asleep.
    pub asleep: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests that wait.
    pub waiting: u64,
}

/// What there is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Level {
    /// Hot or busy instances.
    pub hot: u32,
    /// Starting or waking ones.
    pub starting: u32,
    /// Those asleep.
    pub asleep: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that wait.
    pub waiting: u32,
}

impl Level {
    /// The count that instances in a state belong to.
    pub(super) fn count(&mut self, state: State) -> Option<&mut u32> {
        match state {
            State::Requested => None,
            _ => match state.class() {
                Class::Hot => Some(&mut self.hot),
                Class::Starting => Some(&mut self.starting),
                Class::Asleep => Some(&mut self.asleep),
                Class::Leaving | Class::Gone => None,
            },
        }
    }
}

/// The intervals from the first counted moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// How long each is, milliseconds.
    pub length: u64,
    /// In their order.
    pub intervals: Vec<Interval>,
    from: u64,
    at: u64,
}

impl Series {
    pub(super) fn new(from: u64) -> Self {
        Self { length: SHORTEST, intervals: Vec::new(), from, at: from }
    }

    fn index(&self, at: u64) -> usize {
        usize::try_from((at - self.from) / self.length).unwrap_or(usize::MAX)
    }

    fn interval(&mut self, at: u64) -> &mut Interval {
        while self.index(at) >= MOST {
            self.merge();
        }
        let index = self.index(at);
        if self.intervals.len() <= index {
            self.intervals.resize(index + 1, Interval::default());
        }
        &mut self.intervals[index]
    }

    fn merge(&mut self) {
        let pairs = self.intervals.chunks(2).map(|pair| {
            pair.iter().fold(Interval::default(), |sum, one| Interval {
                arrivals: sum.arrivals + one.arrivals,
                hot: sum.hot + one.hot,
                starting: sum.starting + one.starting,
                asleep: sum.asleep + one.asleep,
                in_flight: sum.in_flight + one.in_flight,
                waiting: sum.waiting + one.waiting,
            })
        });
        self.intervals = pairs.collect();
        self.length *= 2;
    }

    /// Up to `now` there was so much.
    pub(super) fn advance(&mut self, now: u64, level: Level) {
        while self.at < now {
            let at = self.at;
            self.interval(at);
            let index = self.index(at);
            let end = (self.from + (index as u64 + 1) * self.length).min(now);
            let time = end - at;
            let interval = &mut self.intervals[index];
            interval.hot += time * u64::from(level.hot);
            interval.starting += time * u64::from(level.starting);
            interval.asleep += time * u64::from(level.asleep);
            interval.in_flight += time * u64::from(level.in_flight);
            interval.waiting += time * u64::from(level.waiting);
            self.at = end;
        }
    }

    pub(super) fn arrived(&mut self, at: u64) {
        self.interval(at).arrivals += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integrals_are_exact_and_intervals_bounded() {
        let mut series = Series::new(1_000);
        let level = Level { hot: 2, waiting: 1, ..Level::default() };
        series.arrived(1_500);
        series.advance(91_000, level);
        assert_eq!((series.intervals.len(), series.length), (2, SHORTEST));
        assert_eq!((series.intervals[0].hot, series.intervals[1].hot), (120_000, 60_000));
        let year = 365 * 86_400_000;
        series.advance(year, level);
        assert!(series.intervals.len() <= MOST, "{}", series.intervals.len());
        let hot: u64 = series.intervals.iter().map(|interval| interval.hot).sum();
        let waiting: u64 = series.intervals.iter().map(|interval| interval.waiting).sum();
        assert_eq!((hot, waiting), (2 * (year - 1_000), year - 1_000));
        assert_eq!(series.intervals[0].arrivals, 1);
    }
}
