//! Our own policy. It follows the load at once, keeps a few instances hot beyond it, keeps others asleep for as long as that is
//! worth its price, and starts no instance for requests that will be served sooner by those there are.
//!
//! * *Hot*: as many as work and requests ask for, and spare ones by the square root of the mean load. The load is the exact
//!   integral of requests over the last 6 s and 60 s, whichever is more.
//! * *Waiting requests* wake sleepers at once. Beyond the sleepers, so many instances start as the arrivals of late need, and as are
//!   needed to serve what waits within the time of a start: a burst that is over before an instance has started starts few.
//! * *Asleep*: as many as the load lately rose above its mean, and each unused one for as long as the gaps of late say: an hour of
//!   sleep has a price, and so has the start that a caller waits for.
//!
//! `docs/scaling-auto.md` has the figures that the numbers below were chosen by.

use std::collections::VecDeque;

use kip_spec::scaling::{Auto as Settings, Class, IdleLimit};
use serde::{Deserialize, Serialize};

use super::{Desired, Load, Observation, Scaler};
use crate::{Now, Policy};

/// Milliseconds of a part of the window.
const PART: u64 = 1_000;
/// Parts of the long window.
const PARTS: usize = 60;
/// Parts of the short window.
const SHORT: usize = 6;
/// Below this mean load nothing is spare: requests are too seldom.
const LEAST: f64 = 0.3;
/// Minutes whose sharpest rises say how many sleep.
const MINUTES: usize = 30;
/// Gaps that are remembered.
const GAPS: usize = 200;
/// With fewer gaps than this nothing is known of the next one.
const FEW: usize = 4;
/// Before a request was measured, its work is taken for this part of a start.
const UNKNOWN: f64 = 4.0;
/// After so many requests the mean of their work is settled.
const SETTLED: u32 = 16;
const MINUTE: u64 = 60_000;
/// The price of an instance asleep as a share of an active one (Function Compute's idle GPU: 0.5 / 2.1).
const ASLEEP: f64 = 0.5 / 2.1;

/// What a class means.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Weights {
    /// Spare instances for each square root of the mean load.
    spare: f64,
    /// Seconds of an active instance that a second of a caller's wait is worth.
    waiting: f64,
    /// Starts for each that the waiting requests need to be served within the time of a start.
    starts: f64,
}

const fn weights(class: Class) -> Weights {
    match class {
        Class::Economy => Weights { spare: 0.0, waiting: 10.0, starts: 1.0 },
        Class::Balanced => Weights { spare: 1.0, waiting: 30.0, starts: 1.0 },
        Class::Latency => Weights { spare: 2.3, waiting: 100.0, starts: 1.5 },
    }
}

/// The scaler of `scaling: {mode: auto}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Auto {
    class: Class,
    soft: u32,
    pause: IdleLimit,
    stop: IdleLimit,
    /// Requests in flight and waiting since `at`.
    level: u32,
    /// Of those: in flight.
    in_flight: u32,
    at: u64,
    /// Request-milliseconds of the last parts, the present one last.
    parts: VecDeque<u64>,
    /// Arrivals of the last parts, likewise.
    came: VecDeque<u32>,
    /// The number of the present part.
    part: u64,
    /// By how much the requests at once exceeded their mean at most, by minute, the present one last.
    rises: VecDeque<u32>,
    minute: u64,
    /// How long the levels below the most were not reached: when each level was last left, by level.
    left: Vec<u64>,
    /// Gaps of instances, newest last, milliseconds.
    gaps: VecDeque<u64>,
    /// Work of one request, milliseconds: the mean of late.
    work: f64,
    arrivals: u32,
    /// Milliseconds of work and arrivals since the mean was last settled.
    pending: (u64, u32),
    /// What [`Auto::worth`] found, and in which part.
    worth: Option<(u64, u64)>,
    next_tick: Option<u64>,
}

impl Auto {
    /// By a version's declaration.
    pub fn new(policy: &Policy, settings: Settings) -> Self {
        Self {
            class: settings.class,
            soft: policy.concurrency.soft.max(1),
            pause: settings.pause,
            stop: settings.stop,
            level: 0,
            in_flight: 0,
            at: 0,
            parts: VecDeque::new(),
            came: VecDeque::new(),
            part: 0,
            rises: VecDeque::new(),
            minute: 0,
            left: Vec::new(),
            gaps: VecDeque::new(),
            work: 0.0,
            arrivals: 0,
            pending: (0, 0),
            worth: None,
            next_tick: None,
        }
    }

    /// Adds up what was until now.
    fn count(&mut self, now: u64) {
        if self.at == 0 {
            (self.at, self.part, self.minute) = (now, now / PART, now / MINUTE);
        }
        while self.at < now {
            let part = self.at / PART;
            self.turn(part);
            let end = ((part + 1) * PART).min(now);
            let worked = u64::from(self.level) * (end - self.at);
            if let Some(present) = self.parts.back_mut() {
                *present += worked;
            }
            self.pending.0 += u64::from(self.in_flight) * (end - self.at);
            // Nothing is to be added for long: all parts that pass are empty.
            self.at = if self.level == 0 { now } else { end };
        }
        self.turn(now / PART);
        let minute = now / MINUTE;
        let passed = usize::try_from(minute.saturating_sub(self.minute)).unwrap_or(usize::MAX);
        for _ in 0..passed.min(MINUTES) {
            self.rises.push_back(0);
        }
        self.minute = minute;
        if self.rises.is_empty() {
            self.rises.push_back(0);
        }
        while self.rises.len() > MINUTES {
            self.rises.pop_front();
        }
    }

    /// Begins the part of this number.
    fn turn(&mut self, part: u64) {
        let passed = usize::try_from(part.saturating_sub(self.part)).unwrap_or(usize::MAX);
        for _ in 0..passed.min(PARTS) {
            self.parts.push_back(0);
            self.came.push_back(0);
        }
        if self.parts.is_empty() {
            self.parts.push_back(0);
            self.came.push_back(0);
        }
        while self.parts.len() > PARTS {
            self.parts.pop_front();
            self.came.pop_front();
        }
        self.part = part;
    }

    /// The mean number of requests over the last parts.
    #[expect(clippy::cast_precision_loss, reason = "a mean of a minute")]
    fn mean(&self, parts: usize) -> f64 {
        let worked: u64 = self.parts.iter().rev().take(parts).sum();
        let span = (parts.min(self.parts.len()).saturating_sub(1)) as u64 * PART + self.at % PART;
        worked as f64 / span.max(PART) as f64
    }

    /// Arrivals in a millisecond over the last parts.
    #[expect(clippy::cast_precision_loss, reason = "a mean of a minute")]
    fn rate(&self, parts: usize) -> f64 {
        let came: u64 = self.came.iter().rev().take(parts).map(|came| u64::from(*came)).sum();
        let span = (parts.min(self.came.len()).saturating_sub(1)) as u64 * PART + self.at % PART;
        came as f64 / span.max(PART) as f64
    }

    /// The level rose or fell: an instance that fell idle at this depth is used again, or falls idle.
    fn follow(&mut self, now: u64, level: u32) {
        let depth = |level: u32| usize::try_from(level.div_ceil(self.soft)).unwrap_or(usize::MAX).min(10_000);
        let (before, after) = (depth(self.level), depth(level));
        for level in before..after {
            let left = self.left.get(level).copied().unwrap_or(0);
            if left > 0 {
                self.gaps.push_back(now - left);
                if self.gaps.len() > GAPS {
                    self.gaps.pop_front();
                }
            }
        }
        if after < before {
            self.left.resize(self.left.len().max(before), 0);
            for left in &mut self.left[after..before] {
                *left = now;
            }
        }
        self.level = level;
    }

    /// As [`Auto::worth`], computed once for each part.
    fn worth_now(&mut self, start: u64, wake: u64) -> u64 {
        match self.worth {
            Some((part, worth)) if part == self.part => worth,
            _ => {
                let worth = self.worth(start, wake);
                self.worth = Some((self.part, worth));
                worth
            }
        }
    }

    /// For how long an unused instance is worth keeping asleep, milliseconds: the time that costs least over the gaps of late, if a
    /// start costs its own time and the caller's wait.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of days")]
    fn worth(&self, start: u64, wake: u64) -> u64 {
        let waiting = weights(self.class).waiting;
        let (start, wake) = (start as f64, wake as f64);
        let begin = start * (1.0 + waiting);
        let resume = wake * (1.0 + waiting);
        // What a sleeper costs until a start would have cost the same.
        let rent = ((begin - resume).max(0.0) / ASLEEP).min(1e12);
        if self.gaps.len() < FEW {
            return whole(rent);
        }
        let mut gaps: Vec<u64> = self.gaps.iter().copied().collect();
        gaps.sort_unstable();
        let (mut best, mut least, mut slept) = (0, f64::INFINITY, 0.0);
        let count = gaps.len() as f64;
        for (covered, limit) in std::iter::once(0).chain(gaps.iter().copied()).enumerate() {
            slept += limit as f64;
            let covered = covered as f64;
            let cost = covered * resume + ASLEEP * slept + (count - covered) * (ASLEEP * limit as f64 + begin);
            if cost < least {
                (best, least) = (limit, cost);
            }
        }
        // A gap that is a little longer than the longest that paid is no surprise.
        best.saturating_add(best / 8)
    }

    /// Requests that would be in flight now if none had to wait: those that came within the time that one takes.
    fn recent(&self) -> u32 {
        let parts = usize::try_from(whole(self.work) / PART).unwrap_or(PARTS).saturating_add(2);
        self.came.iter().rev().take(parts).sum()
    }

    /// As many instances as the mean load needs, and as many asleep as it lately rose above its mean.
    fn pool(&self) -> u32 {
        let rise = self.rises.iter().copied().max().unwrap_or(0);
        instances(self.mean(PARTS)).saturating_add(rise).div_ceil(self.soft)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "finite, and not negative")]
fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

fn instances(number: f64) -> u32 {
    u32::try_from(whole(number.ceil())).unwrap_or(u32::MAX)
}

impl Scaler for Auto {
    fn observe(&mut self, now: u64, load: Load) {
        self.count(now);
        let came = load.arrivals.wrapping_sub(self.arrivals);
        if let Some(present) = self.came.back_mut() {
            *present = present.saturating_add(came);
        }
        self.pending.1 = self.pending.1.saturating_add(came);
        self.arrivals = load.arrivals;
        self.in_flight = load.in_flight;
        let wanted = load.in_flight.max(load.requests.min(self.recent()));
        let rise = instances((f64::from(wanted) - self.mean(PARTS)).max(0.0));
        if let Some(present) = self.rises.back_mut() {
            *present = (*present).max(rise);
        }
        if self.pending.1 >= SETTLED || load.requests == 0 && self.pending.1 > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a mean of a few requests")]
            let mean = self.pending.0 as f64 / f64::from(self.pending.1);
            self.work = if self.work == 0.0 { mean } else { self.work * 0.75 + mean * 0.25 };
            self.pending = (0, 0);
        }
        if self.level != load.requests {
            self.follow(now, load.requests);
        }
    }

    fn decide(&mut self, now: Now, seen: &Observation<'_>) -> Desired {
        let now = now.boot;
        let most = if seen.on_demand { seen.maximum } else { seen.minimum };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let load = self.mean(SHORT).max(self.mean(PARTS)) / f64::from(self.soft);
        let spare = if load < LEAST { 0.0 } else { weights(self.class).spare * load.sqrt() };

        let waiting = seen.in_flight.saturating_add(seen.queued);
        let demand = waiting.div_ceil(self.soft);
        // Those that are there, or will be, serve what waits before a start is over; only the rest is worth a start.
        let patience = f64::from(u32::try_from(seen.start.max(1)).unwrap_or(u32::MAX));
        let work = if self.work > 0.0 { self.work } else { patience / UNKNOWN };
        let offered = self.rate(SHORT).max(self.rate(PARTS)) * work;
        let drained = f64::from(seen.queued) * work / patience;
        let needed = instances(weights(self.class).starts * (offered + drained) / f64::from(self.soft));
        // Whoever has waited for as long as a start takes was promised too much: its instance works on something long.
        let overdue = seen.waiting_since.is_some_and(|since| now >= since.saturating_add(seen.start));
        let resting_ones = count(seen.idle_since.len().saturating_add(seen.asleep_since.len()));
        let alive = seen.busy.saturating_add(seen.starting).saturating_add(resting_ones);
        let enough = alive.max(if overdue { demand } else { needed }).max(1);
        let hot = demand.saturating_add(instances(spare)).min(enough);

        // An idle one stays hot for as long as waking it would take.
        let pause = match self.pause {
            IdleLimit::Chosen => seen.wake,
            IdleLimit::After(time) => time.0,
            IdleLimit::Never => u64::MAX,
        };
        let worth = match self.stop {
            IdleLimit::Chosen => self.worth_now(seen.start, seen.wake),
            IdleLimit::After(time) => time.0,
            IdleLimit::Never => u64::MAX,
        };
        let resting = |since: u64, limit: u64| now >= since.saturating_add(limit);
        let fresh = |since: &&u64| !resting(**since, pause) && !resting(**since, worth);
        let fresh = count(seen.idle_since.iter().filter(fresh).count());
        let hot = hot.max(seen.busy.saturating_add(fresh)).max(seen.kept_hot).min(most.max(seen.busy));

        let rest = || seen.idle_since.iter().chain(seen.asleep_since).copied();
        let kept = count(rest().filter(|since| !resting(*since, worth)).count()).saturating_add(seen.busy);
        let asleep = kept.max(self.pool().min(alive)).max(seen.minimum).saturating_sub(hot);

        let pause_at = seen.idle_since.iter().map(|since| since.saturating_add(pause));
        let stop_at = rest().map(|since| since.saturating_add(worth));
        let busy = (hot > 0 || waiting > 0).then(|| now - now % PART + PART);
        let pool = (self.pool() > 0).then(|| now - now % MINUTE + MINUTE);
        self.next_tick = pause_at.chain(stop_at).chain(busy).chain(pool).filter(|at| *at > now).min();
        let (kind, why) = seen.reason(hot);
        Desired { hot, asleep, decided: false, kind, why }
    }

    fn next_tick(&self) -> Option<u64> {
        self.next_tick
    }

    fn is_at_rest(&self) -> bool {
        self.level == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::tests::policy;

    fn auto(class: Class) -> Auto {
        Auto::new(&policy(), Settings { class, ..Settings::default() })
    }

    fn seen<'a>(in_flight: u32, queued: u32, idle_since: &'a [u64], asleep_since: &'a [u64]) -> Observation<'a> {
        Observation {
            in_flight,
            queued,
            busy: in_flight,
            idle_since,
            asleep_since,
            minimum: 0,
            maximum: 1_000,
            kept_hot: 0,
            on_demand: true,
            provisioned: 0,
            starting: 0,
            waiting_since: None,
            start: 30_000,
            wake: 3_000,
        }
    }

    fn load(requests: u32, in_flight: u32, arrivals: u32) -> Load {
        Load { requests, in_flight, arrivals, ready: 0 }
    }

    fn at(boot: u64) -> Now {
        Now { boot, wall: 0 }
    }

    /// Requests of 2 s, ten at a time, for two minutes from 1,000 s on.
    fn steady(scaler: &mut Auto) -> u64 {
        let mut arrivals = 0;
        for step in 0..60 {
            let now = 1_000_000 + step * 2_000;
            arrivals += 10;
            scaler.observe(now, load(10, 10, arrivals));
            let _ = scaler.decide(at(now), &seen(10, 0, &[], &[]));
        }
        1_000_000 + 60 * 2_000
    }

    #[test]
    fn spare_instances_follow_the_square_root_of_the_load() {
        for (class, hot) in [(Class::Economy, 10), (Class::Balanced, 14), (Class::Latency, 18)] {
            let mut scaler = auto(class);
            let now = steady(&mut scaler);
            let decided = scaler.decide(at(now), &seen(10, 0, &[], &[now; 20]));
            assert_eq!(decided.hot, hot, "{class:?}");
        }
    }

    #[test]
    fn the_first_request_starts_one_at_once_and_a_burst_wakes_all_sleepers_it_needs() {
        let mut scaler = auto(Class::Balanced);
        scaler.observe(5_000, load(1, 0, 1));
        assert_eq!(scaler.decide(at(5_000), &seen(0, 1, &[], &[])).hot, 1);
        let mut scaler = auto(Class::Economy);
        let now = steady(&mut scaler);
        let decided = scaler.decide(at(now), &seen(10, 15, &[], &[now; 20]));
        assert_eq!((decided.hot, decided.asleep), (25, 5));
    }

    #[test]
    fn what_is_served_before_a_start_is_over_starts_nothing() {
        let mut scaler = auto(Class::Economy);
        let now = steady(&mut scaler);
        // Ten instances serve sixty requests of 2 s in 12 s; a start takes 30 s. Those that the arrivals need may start.
        let few = scaler.decide(at(now), &seen(10, 60, &[], &[])).hot;
        assert!((10..=18).contains(&few), "{few}");
        // A thousand take 200 s.
        let many = scaler.decide(at(now), &seen(10, 1_000, &[], &[])).hot;
        assert!((70..=90).contains(&many), "{many}");
    }

    #[test]
    fn who_waits_for_long_gets_an_instance_whatever_was_expected() {
        let mut scaler = auto(Class::Economy);
        let now = steady(&mut scaler);
        let hot = |scaler: &mut Auto, since: u64| {
            let seen = Observation { waiting_since: Some(since), ..seen(1, 3, &[], &[]) };
            scaler.decide(at(now + 140_000), &seen).hot
        };
        scaler.observe(now, load(0, 0, 600));
        scaler.observe(now + 140_000, load(4, 1, 604));
        assert!(hot(&mut scaler, now + 139_000) < 4);
        assert_eq!(hot(&mut scaler, now + 110_000), 4);
    }

    #[test]
    fn an_unused_sleeper_is_kept_by_the_gaps_of_late() {
        let mut scaler = auto(Class::Balanced);
        // One request of 1 s every forty minutes.
        let mut now = 1_000_000;
        for arrivals in 1..=10 {
            scaler.observe(now, load(1, 1, arrivals));
            scaler.observe(now + 1_000, load(0, 0, arrivals));
            now += 2_400_000;
        }
        scaler.observe(now, load(0, 0, 10));
        let kept = |scaler: &mut Auto, unused: u64| scaler.decide(at(now), &seen(0, 0, &[], &[now - unused])).asleep;
        assert_eq!(kept(&mut scaler, 2_390_000), 1, "the next one comes soon");
        scaler.worth = None;
        assert_eq!(kept(&mut scaler, 2_800_000), 0, "it did not come");
    }

    #[test]
    fn written_limits_hold() {
        let settings = Settings {
            pause: IdleLimit::Never,
            stop: IdleLimit::After(kip_spec::Millis(50_000)),
            ..Settings::default()
        };
        let mut scaler = Auto::new(&policy(), settings);
        let decided = scaler.decide(at(100_000), &seen(0, 0, &[10_000, 90_000], &[10_000, 90_000]));
        assert_eq!((decided.hot, decided.asleep), (1, 1), "idle ones never sleep; those unused for 50 s end");
        assert_eq!(scaler.next_tick(), Some(101_000));
    }
}
