//! Our own policy. It follows the load at once, keeps a few instances hot beyond it, keeps others asleep for as long as that is
//! worth its price, and starts no instance for requests that will be served sooner by those there are.
//!
//! * *Hot*: as many as work and requests ask for, and spare ones for what may come within the time of a wake. The load is the exact
//!   integral of requests over the last 6 s and 60 s, whichever is more (`load`).
//! * *Waiting requests* wake sleepers at once. Beyond the sleepers, so many instances start as the arrivals of late need, and as are
//!   needed to serve what waits within the time of a start: a burst that is over before an instance has started starts few (`service`).
//! * *Asleep*: each unused one for as long as the gaps of late at its depth say: an hour of sleep has a price, and so has the start
//!   that a caller waits for (`gaps`).
//! * *Timers*: requests at equal intervals are expected, and find an instance hot (`rhythm`).
//!
//! `docs/scaling-auto.md` has the figures that the numbers below were chosen by.

mod gaps;
mod load;
mod rhythm;
mod rises;
mod service;

use std::fmt;

use kip_spec::Millis;
use kip_spec::function::defaults;
use kip_spec::scaling::{Auto as Settings, Class, IdleLimit};
use serde::{Deserialize, Serialize};

use super::{Desired, Load, Observation, Scaler};
use crate::why::Reason;
use crate::{Kind, Now, Policy};

use gaps::{DepthGaps, Worth};
use load::{LONG, LoadWindow, PART, SHORT};
use rhythm::{ExpectedRound, Rhythm};
use rises::{MINUTE, Rises};
use service::ServiceTimes;

/// Below this mean load nothing is spare: requests are too seldom.
const LEAST: f64 = 0.3;
/// Before a request was measured, its work is taken for this part of a start.
const UNKNOWN: f64 = 4.0;
/// Callers do not notice a wake that is shorter, milliseconds.
const UNNOTICED: u64 = 100;

/// Up to so many instances, each waiting request may have one of its own: few are no base for a mean, and the one that is waited for may
/// be busy for longer than a start.
const FEW: u32 = 10;

/// What a class means.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Weights {
    /// Spare instances for each standard deviation of what the load may grow by within the time of a wake.
    spare: f64,
    /// Seconds of an active instance that a second of a caller's wait is worth.
    waiting: f64,
    /// The part of the sharpest rise of late that sleepers are kept for.
    pool: f64,
    /// Standard deviations that are taken off the arrivals of the short window: a chance cluster is no rise.
    doubt: f64,
}

const fn weights(class: Class) -> Weights {
    match class {
        Class::Economy => Weights { spare: 0.0, waiting: 10.0, pool: 0.85, doubt: 1.0 },
        Class::Balanced => Weights { spare: 0.79, waiting: 30.0, pool: 0.85, doubt: 1.0 },
        Class::Latency => Weights { spare: 1.69, waiting: 60.0, pool: 1.0, doubt: 0.0 },
    }
}

/// The scaler of `scaling: {mode: auto}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Auto {
    class: Class,
    soft: u32,
    pause: IdleLimit,
    stop: IdleLimit,
    /// The first instance, and those of whose use too little is known, stay for so long at least, milliseconds.
    #[serde(default)]
    keep: u64,
    /// Requests in flight and waiting.
    level: u32,
    arrivals: u32,
    window: LoadWindow,
    gaps: DepthGaps,
    rises: Rises,
    #[serde(default)]
    rhythm: Rhythm,
    service: ServiceTimes,
    /// What a wake took when it last decided.
    wake: u64,
    next_tick: Option<u64>,
    /// What it last took in, and when: once more, it would change nothing.
    #[serde(skip)]
    observed: Option<(u64, Load)>,
}

/// What a decision went by, and what it was. Times in milliseconds, loads in instances.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AutoFigures {
    /// The class that sets the weights.
    pub class: Class,
    /// The mean load of the last 6 s.
    pub load_short: f64,
    /// The mean load of the last 60 s.
    pub load_long: f64,
    /// Arrivals in a second, the larger of both windows.
    pub arrivals: f64,
    /// The mean service time.
    pub service: f64,
    /// Instances that the requests in flight and waiting need.
    pub demand: u32,
    /// Instances kept hot beyond the demand.
    pub spare: u32,
    /// Instances that are hot for requests that are expected, because they come at equal intervals.
    pub expected: u32,
    /// That interval; `None` where there is none.
    pub every: Option<u64>,
    /// Instances that are worth having for the arrivals and for what waits; starts go no further.
    pub enough: u32,
    /// Instances that are there or start.
    pub alive: u32,
    /// A request has waited for as long as a start takes, so that all may have their instance.
    pub overdue: bool,
    /// An idle instance is paused after this time; `None` is never.
    pub pause: Option<u64>,
    /// Instances that are worth keeping, asleep or not.
    pub kept: u32,
    /// What a start took lately.
    pub start: u64,
    /// What a wake took lately.
    pub wake: u64,
    /// Wanted hot.
    pub hot: u32,
    /// Wanted asleep.
    pub asleep: u32,
}

impl fmt::Display for AutoFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { demand, spare, enough, alive, kept, load_short, load_long, .. } = self;
        write!(
            f,
            "load {load_short:.2} over 6 s and {load_long:.2} over 60 s; {demand} for the requests and {spare} spare, at most {enough}; {alive} there or \
             starting, {kept} worth keeping"
        )?;
        match self.every {
            Some(every) => write!(f, "; requests come every {}, {} for the next", Millis(every), self.expected),
            None => Ok(()),
        }
    }
}

/// What it has learnt of its traffic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AutoHistory {
    gaps: DepthGaps,
    rises: Rises,
    #[serde(default)]
    rhythm: Rhythm,
    service: ServiceTimes,
}

impl AutoHistory {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.gaps.is_empty() && self.service.mean().is_none()
    }

    /// Counts its boot times by another clock.
    pub(crate) fn shift(&mut self, by: impl Fn(u64) -> u64) {
        self.gaps.shift(&by);
        self.rises.shift(&by);
        self.rhythm.shift(&by);
    }
}

impl Auto {
    /// What it has learnt so far, as if nothing were asked of it from now on.
    pub fn history(&self, now: u64) -> AutoHistory {
        let (rises, rhythm, service) = (self.rises.clone(), self.rhythm.clone(), self.service.clone());
        AutoHistory { gaps: self.gaps.at_rest(now), rises, rhythm, service }
    }

    /// Goes on from there. What is under way already is kept.
    pub fn learn(&mut self, history: &AutoHistory) {
        self.gaps = history.gaps.clone();
        (self.rises, self.service) = (history.rises.clone(), history.service.clone());
        self.rhythm = history.rhythm.clone();
        self.observed = None;
    }

    /// So many instances of an earlier server were found.
    pub fn found(&mut self, now: u64, instances: usize) {
        self.gaps.found(now, instances);
    }

    /// By a version's declaration.
    pub fn new(policy: &Policy, settings: Settings) -> Self {
        Self {
            class: settings.class,
            soft: policy.concurrency.soft.max(1),
            pause: settings.pause,
            stop: settings.stop,
            keep: settings.keep.0,
            level: 0,
            arrivals: 0,
            window: LoadWindow::new(),
            gaps: DepthGaps::default(),
            rises: Rises::default(),
            rhythm: Rhythm::default(),
            service: ServiceTimes::default(),
            wake: 0,
            next_tick: None,
            observed: None,
        }
    }

    /// A request was worked on for so long, milliseconds.
    pub fn served(&mut self, time: u64) {
        self.observed = None;
        self.service.add(time);
    }

    /// Requests that would be in flight now if none had to wait: those that came within the time that one takes.
    fn recent(&self) -> u32 {
        let work = whole32(self.service.mean().unwrap_or(0.0)) / 1_000;
        self.window.came(usize::try_from(work).unwrap_or(LONG).saturating_add(2))
    }

    /// The next round of requests at equal intervals, and from when on an instance is made ready for it. A written `idle.pause` is kept,
    /// and a wake that nobody notices needs no preparation.
    fn expected_round(&mut self, now: u64, seen: &Observation<'_>) -> Option<(ExpectedRound, u64)> {
        if !seen.on_demand || matches!(self.pause, IdleLimit::After(_)) {
            return None;
        }
        let round = self.rhythm.next(now)?;
        let is_there = !(seen.asleep_since.is_empty() && seen.idle_since.is_empty());
        let lead = if is_there { seen.wake } else { seen.start };
        (!is_there || lead >= UNNOTICED).then(|| (round, round.from.saturating_sub(lead)))
    }

    /// What a decision at this moment goes by.
    pub fn figures(&mut self, now: u64, seen: &Observation<'_>) -> AutoFigures {
        let weights = weights(self.class);
        if self.wake != seen.wake {
            (self.wake, self.observed) = (seen.wake, None);
        }
        let soft = f64::from(self.soft);
        let most = if seen.on_demand { seen.maximum } else { seen.minimum };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (load_short, load_long) = (self.window.mean(SHORT) / soft, self.window.mean(LONG) / soft);
        let load = load_short.max(load_long);

        let waiting = seen.in_flight.saturating_add(seen.queued);
        let demand = waiting.div_ceil(self.soft);
        // Those that are there, or will be, serve what waits before a start is over; only the rest is worth a start.
        let patience = float(seen.start.max(1));
        let work = self.service.mean().unwrap_or(patience / UNKNOWN);
        let rate = self.window.sure_rate(SHORT, weights.doubt).max(self.window.rate(LONG));
        // What waits is to be served in half of that time: the mean says little of the longest.
        let drained = 2.0 * f64::from(seen.queued) * work / patience;
        let needed = instances((rate * work + drained) / soft);
        // Within the time of a wake the load may grow: so many are spare.
        let changes = 2.0 * load * (1.0 - (-float(seen.wake) / work).exp());
        let spare = if load < LEAST { 0.0 } else { weights.spare * changes.sqrt() };
        // A quantile of whole numbers lies half an instance above that of the normal distribution.
        let spare = whole32(if spare < 1.0 { spare.round() } else { (spare + 0.5).ceil() });
        // Whoever has waited for as long as a start takes was promised too much: its instance works on something long.
        let overdue = seen.waiting_since.is_some_and(|since| now >= since.saturating_add(seen.start));
        let resting_ones = count(seen.idle_since.len().saturating_add(seen.asleep_since.len()));
        let alive = seen.busy.saturating_add(seen.starting).saturating_add(resting_ones);
        let few = demand.min(FEW);
        let round = self.expected_round(now, seen);
        let expected = round.filter(|(_, since)| now >= *since).map_or(0, |(round, _)| round.width.div_ceil(self.soft));
        let enough = alive.max(if overdue { demand } else { needed.max(few) }).max(expected).max(1);
        let hot = demand.saturating_add(spare).max(expected).min(enough);

        // An idle one stays hot for as long as waking it would take.
        let pause = match self.pause {
            // A wake that nobody notices is not worth a freeze between any two requests.
            IdleLimit::Chosen if seen.wake < UNNOTICED || self.keep > 0 => defaults::IDLE.pause.map(|pause| pause.0),
            IdleLimit::Chosen => Some(seen.wake),
            IdleLimit::After(time) => Some(time.0),
            IdleLimit::Never => None,
        };
        let rest = || seen.idle_since.iter().chain(seen.asleep_since).copied();
        let (kept, until) = match self.stop {
            IdleLimit::Chosen => {
                let worth = Worth { start: seen.start, wake: seen.wake, waiting: weights.waiting };
                let (kept, until) = self.gaps.kept(now, worth, (work, self.keep));
                // The first one stays, whatever its gaps were.
                let last = rest().max().map_or(0, |last| last.saturating_add(self.keep));
                let stays = kept == 0 && self.keep > 0 && last > now;
                let (kept, until) = if stays { (1, Some(last)) } else { (kept, until) };
                // As many are kept as the load lately rose above its mean.
                let rise = f64::from(self.rises.sharpest()) * weights.pool;
                let rise = if rise > 0.0 { instances((self.window.mean(LONG) + rise) / soft) } else { 0 };
                (kept.max(rise), until)
            }
            IdleLimit::After(limit) => {
                let ends = || rest().map(|since| since.saturating_add(limit.0)).filter(|end| *end > now);
                // One that wakes has left the sleepers, and must not cost another of them its life.
                (count(ends().count()).saturating_add(seen.busy).saturating_add(seen.starting), ends().min())
            }
            IdleLimit::Never => (alive, None),
        };
        // An idle one that is not worth keeping does not stay hot either.
        let (expires, dispensable) = match self.stop {
            // With a floor, one that starts is not there yet. Without, it counts: its price is paid already (economy on trace A: p99 1.6 s, else 3.7).
            IdleLimit::Chosen => {
                let there = if self.keep > 0 { alive - seen.starting } else { alive };
                (u64::MAX, there.saturating_sub(kept.max(seen.minimum)))
            }
            IdleLimit::After(limit) => (limit.0, 0),
            IdleLimit::Never => (u64::MAX, 0),
        };
        let pause_at = |since: u64| pause.map_or(u64::MAX, |pause| since.saturating_add(pause));
        let stays = |since: &&u64| pause_at(**since) > now && since.saturating_add(expires) > now;
        let fresh = count(seen.idle_since.iter().filter(stays).count());
        let fresh = fresh.min(count(seen.idle_since.len()).saturating_sub(dispensable));
        let kept_hot = if self.pause == IdleLimit::Never { seen.minimum } else { seen.kept_hot };
        let hot = hot.max(seen.busy.saturating_add(fresh)).max(kept_hot).min(most.max(seen.busy));
        let asleep = kept.min(alive).max(seen.minimum).saturating_sub(hot);

        let pauses = seen.idle_since.iter().map(|since| pause_at(*since)).filter(|at| *at > now);
        // Whom to keep is decided once a second at most: a dense load leaves its depths many times a second.
        let next = now - now % PART + PART;
        let until = until.map(|at| if self.stop == IdleLimit::Chosen { at.max(next) } else { at });
        // Without requests for a minute nothing changes but what has times of its own.
        let busy = (waiting > 0 || load_long > 0.0).then_some(next);
        let pool = (self.rises.sharpest() > 0).then(|| now - now % MINUTE + MINUTE);
        let rounds = round.map(|(round, since)| if since > now { since } else { round.until + 1 });
        self.next_tick = pauses.chain(until).chain(busy).chain(pool).chain(rounds).min();
        let (class, arrivals, service, start, wake) = (self.class, rate * 1_000.0, work, seen.start, seen.wake);
        AutoFigures {
            class,
            load_short,
            load_long,
            arrivals,
            service,
            demand,
            spare,
            expected,
            every: round.map(|(round, _)| round.every),
            enough,
            alive,
            overdue,
            pause,
            kept,
            start,
            wake,
            hot,
            asleep,
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "finite, and not negative")]
fn whole32(number: f64) -> u32 {
    number.clamp(0.0, f64::from(u32::MAX)) as u32
}

fn instances(number: f64) -> u32 {
    whole32(number.ceil())
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of days")]
fn float(number: u64) -> f64 {
    number as f64
}

impl Scaler for Auto {
    fn observe(&mut self, now: u64, load: Load) {
        if self.observed.replace((now, load)) == Some((now, load)) {
            return;
        }
        self.window.advance(now, self.level);
        self.window.arrived(load.arrivals.wrapping_sub(self.arrivals));
        match self.level == 0 && load.arrivals != self.arrivals {
            true => self.rhythm.arrived(now, load.requests),
            false => self.rhythm.widened(load.requests),
        }
        self.arrivals = load.arrivals;
        self.level = load.requests;
        // Requests that pile up while an instance starts are not needed at once.
        let wanted = load.in_flight.max(load.requests.min(self.recent()));
        // Only where requests come faster than instances wake: others are kept by their gaps.
        let dense = self.window.rate(SHORT) * float(self.wake) >= 1.0;
        let rise = if dense { instances((f64::from(wanted) - self.window.mean(LONG)).max(0.0)) } else { 0 };
        self.rises.note(now, rise);
        self.gaps.follow(now, usize::try_from(wanted.div_ceil(self.soft)).unwrap_or(usize::MAX));
    }

    fn decide(&mut self, now: Now, seen: &Observation<'_>) -> Desired {
        let figures = self.figures(now.boot, seen);
        let (kind, why) = match figures.every {
            Some(every) if seen.queued == 0 && figures.expected > seen.busy.max(seen.minimum) => {
                (Kind::OnDemand, Reason::RequestsExpected { every })
            }
            _ => seen.reason(figures.hot),
        };
        Desired { hot: figures.hot, asleep: figures.asleep, decided: false, kind, why }
    }

    fn next_tick(&self) -> Option<u64> {
        self.next_tick
    }

    fn is_at_rest(&self) -> bool {
        self.level == 0 && !self.rhythm.is_known()
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
            (0..10).for_each(|_| scaler.served(2_000));
        }
        1_000_000 + 60 * 2_000
    }

    #[test]
    fn spare_instances_follow_what_may_come_within_a_wake() {
        // In 3 s, 20 x (1 - e^-1.5) requests come or go: a standard deviation of 3.9.
        for (class, hot) in [(Class::Economy, 10), (Class::Balanced, 14), (Class::Latency, 18)] {
            let mut scaler = auto(class);
            let now = steady(&mut scaler);
            let decided = scaler.decide(at(now), &seen(10, 0, &[], &[now; 20]));
            assert_eq!(decided.hot, hot, "{class:?}");
        }
        // Where wakes are quick nothing is spare.
        let mut scaler = auto(Class::Balanced);
        let now = steady(&mut scaler);
        let quick = Observation { wake: 5, ..seen(10, 0, &[], &[0; 20]) };
        assert_eq!(scaler.decide(at(now), &quick).hot, 10);
    }

    #[test]
    fn the_first_request_starts_one_at_once_and_a_burst_wakes_all_sleepers_it_needs() {
        let mut scaler = auto(Class::Balanced);
        scaler.observe(5_000, load(1, 0, 1));
        assert_eq!(scaler.decide(at(5_000), &seen(0, 1, &[], &[])).hot, 1);
        let mut scaler = auto(Class::Economy);
        let now = steady(&mut scaler);
        assert_eq!(scaler.decide(at(now), &seen(10, 15, &[], &[now; 20])).hot, 25);
    }

    #[test]
    fn what_is_served_before_a_start_is_over_starts_nothing() {
        let mut scaler = auto(Class::Economy);
        let now = steady(&mut scaler);
        // Ten instances serve sixty requests of 2 s in 12 s; a start takes 30 s. Those that the arrivals need may start.
        let few = scaler.decide(at(now), &seen(10, 60, &[], &[])).hot;
        assert!((10..=22).contains(&few), "{few}");
        // A thousand take 200 s.
        let many = scaler.decide(at(now), &seen(10, 1_000, &[], &[])).hot;
        assert!((130..=160).contains(&many), "{many}");
        let figures = scaler.figures(now, &seen(10, 60, &[], &[]));
        assert!(figures.enough < figures.demand && figures.demand == 70, "{figures:?}");
    }

    #[test]
    fn few_requests_wait_for_no_other() {
        let mut scaler = auto(Class::Economy);
        scaler.observe(5_000, load(3, 1, 3));
        assert_eq!(scaler.decide(at(5_000), &seen(1, 2, &[], &[])).hot, 3);
    }

    #[test]
    fn requests_that_wait_for_long_get_instances_whatever_was_expected() {
        let mut scaler = auto(Class::Economy);
        let now = steady(&mut scaler);
        let hot = |scaler: &mut Auto, since: u64| {
            let seen = Observation { waiting_since: Some(since), ..seen(1, 29, &[], &[]) };
            scaler.decide(at(now + 140_000), &seen).hot
        };
        scaler.observe(now, load(0, 0, 600));
        scaler.observe(now + 140_000, load(30, 1, 604));
        assert!(hot(&mut scaler, now + 139_000) < 30);
        assert_eq!(hot(&mut scaler, now + 110_000), 30);
    }

    #[test]
    fn an_unused_sleeper_is_kept_by_the_gaps_of_late() {
        let mut scaler = auto(Class::Balanced);
        // One request of 1 s about every forty minutes.
        let (mut now, mut left) = (1_000_000, 0);
        for arrivals in 1..=10 {
            scaler.observe(now, load(1, 1, arrivals));
            scaler.observe(now + 1_000, load(0, 0, arrivals));
            left = now + 1_000;
            now += 2_340_000 + u64::from(arrivals % 2) * 120_000;
        }
        let kept = |scaler: &mut Auto, now: u64| scaler.decide(at(now), &seen(0, 0, &[], &[left])).asleep;
        assert_eq!(kept(&mut scaler, left + 2_390_000), 1, "the next one comes soon");
        assert_eq!(kept(&mut scaler, left + 2_800_000), 0, "it did not come");
    }

    /// A request of 1 s every five minutes, a wake of 3 s.
    #[test]
    fn an_instance_is_hot_when_a_timer_calls() {
        let mut scaler = auto(Class::Balanced);
        let mut now = 1_000_000;
        for arrivals in 1..=5 {
            scaler.observe(now, load(1, 1, arrivals));
            scaler.observe(now + 1_000, load(0, 0, arrivals));
            now += 300_000;
        }
        let left = now - 300_000 + 1_000;
        let mut hot = |now: u64, asleep: &[u64]| {
            let decided = scaler.decide(at(now), &seen(0, 0, &[], asleep));
            (decided.hot, scaler.next_tick(), decided.why)
        };
        // By its own ticks: it comes within 6 s of its time, a wake takes 3 s and a start 30 s.
        for (asleep, from) in [(&[left][..], now - 9_000), (&[], now - 36_000)] {
            let mut at = left + 10_000;
            let (mut decided, mut tick, mut why) = hot(at, asleep);
            while decided == 0 {
                at = tick.unwrap();
                (decided, tick, why) = hot(at, asleep);
            }
            assert_eq!((at, decided, why), (from, 1, Reason::RequestsExpected { every: 300_000 }));
        }
        assert_eq!(hot(now + 6_001, &[left]).0, 0, "it did not come");
        assert!(!scaler.is_at_rest(), "its next round is expected");
        // Written limits bound it.
        let written = Settings { pause: IdleLimit::After(kip_spec::Millis(1_000)), ..Settings::default() };
        let mut bound = Auto { pause: written.pause, ..scaler.clone() };
        assert_eq!(bound.decide(at(now), &seen(0, 0, &[], &[left])).hot, 0);
    }

    /// With written limits it keeps what `fixed` keeps.
    #[test]
    fn one_that_wakes_costs_no_sleeper_its_life() {
        let stop = IdleLimit::After(kip_spec::Millis(50_000));
        let mut scaler = Auto::new(&policy(), Settings { stop, ..Settings::default() });
        let mut decide = |asleep: &[u64], starting: u32| {
            let seen = Observation { starting, ..seen(0, 1, &[], asleep) };
            let desired = scaler.decide(at(100_000), &seen);
            (desired.hot, desired.asleep)
        };
        assert_eq!(decide(&[60_000, 70_000, 80_000], 0), (1, 2));
        assert_eq!(decide(&[60_000, 70_000], 1), (1, 2), "the third one wakes");
    }

    #[test]
    fn a_minimum_that_never_pauses_stays_hot() {
        let stop = IdleLimit::After(kip_spec::Millis(50_000));
        let mut scaler = Auto::new(&policy(), Settings { pause: IdleLimit::Never, stop, ..Settings::default() });
        let seen = Observation { minimum: 1, ..seen(0, 0, &[10_000], &[]) };
        let decided = scaler.decide(at(100_000), &seen);
        assert_eq!((decided.hot, decided.asleep), (1, 0));
    }

    #[test]
    fn a_wake_that_nobody_notices_is_paused_for_as_by_default() {
        let mut scaler = auto(Class::Balanced);
        let mut pause = |wake: u64| {
            scaler.figures(1_000_000, &Observation { wake, start: 300, ..seen(0, 0, &[1_000_000], &[]) }).pause
        };
        assert_eq!(pause(1), Some(30_000), "by a freeze of the CPU");
        assert_eq!(pause(2_000), Some(2_000), "by a wake that takes its time");
    }

    #[test]
    fn the_first_instance_and_what_too_little_is_known_of_are_kept() {
        let settings = Settings { keep: kip_spec::Millis(43_200_000), ..Settings::default() };
        let kept = |scaler: &mut Auto, asleep: &[u64], now: u64| {
            let seen = Observation { start: 300, wake: 1, ..seen(0, 0, &[], asleep) };
            scaler.decide(at(now), &seen).asleep
        };
        // Three were needed once.
        let mut scaler = Auto::new(&policy(), settings);
        scaler.observe(1_000_000, load(3, 3, 3));
        scaler.observe(1_001_000, load(0, 0, 3));
        let asleep = [1_001_000; 3];
        assert_eq!(kept(&mut scaler, &asleep, 1_001_000 + 43_100_000), 3);
        assert_eq!(kept(&mut scaler, &asleep, 1_001_000 + 43_300_000), 0);
        // One request a second, ten times: the next one is not expected after hours, and the first instance is there all the same.
        let mut scaler = Auto::new(&policy(), settings);
        for step in 0..10 {
            scaler.observe(2_000_000 + step * 1_000, load(1, 1, u32::try_from(step).unwrap() + 1));
            scaler.observe(2_000_500 + step * 1_000, load(0, 0, u32::try_from(step).unwrap() + 1));
        }
        assert_eq!(kept(&mut scaler, &[2_009_500], 2_009_500 + 40_000_000), 1);
        assert_eq!(kept(&mut scaler, &[2_009_500], 2_009_500 + 43_300_000), 0);
        let mut scaler = Auto::new(&policy(), Settings { keep: kip_spec::Millis(0), ..settings });
        scaler.observe(1_000_000, load(1, 1, 1));
        scaler.observe(1_001_000, load(0, 0, 1));
        assert_eq!(kept(&mut scaler, &[1_001_000], 1_001_000 + 600_000), 0, "without the floor its price decides");
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
        assert_eq!(scaler.next_tick(), Some(140_000), "when the next one ends");
    }
}
