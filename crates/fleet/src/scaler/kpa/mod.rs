//! Knative's autoscaler. What it sees comes once a second, what it decides once in two; both are reported by whoever has a
//! clock: the core of a function, a simulator, or `kip scaler decide`.

mod apply;
mod autoscaler;
#[cfg(test)]
pub(crate) mod tests;
mod window;

use std::fmt;

use apply::Applier;
pub use apply::Change;
pub use autoscaler::ScaleReason;
use autoscaler::{Autoscaler, TickInput};
use kip_spec::Millis;
use kip_spec::scaling::Kpa as Settings;
use kip_spec::scaling::kpa::Metric;
use serde::{Deserialize, Serialize};
use window::Window;

/// The scaler of one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kpa {
    stable: Window,
    panic: Window,
    autoscaler: Autoscaler,
    applier: Applier,
    /// The last wish, and the last excess of burst capacity.
    desired: Option<i32>,
    excess_burst_capacity: i32,
}

/// What a decision is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Averages {
    /// Over the stable window.
    pub stable: f64,
    /// Over the panic window.
    pub panic: f64,
}

/// A decision, with its reason inside.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What the autoscaler wants; `None` where it cannot know.
    pub desired: Option<i32>,
    /// Whether it panics.
    pub panic: bool,
    /// The average over the stable window.
    pub stable: Option<f64>,
    /// The average over the panic window.
    pub panic_average: Option<f64>,
    /// Room for requests beyond the burst that is to be taken.
    pub excess_burst_capacity: i32,
    /// What remains after bounds and the steps to zero.
    pub applied: u32,
    /// Why.
    pub why: KpaReason,
}

/// Why a decision is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KpaReason {
    metric: Metric,
    /// The average that counted.
    average: f64,
    target: f64,
    ready: u32,
    desired: Option<i32>,
    because: Option<ScaleReason>,
    /// How long a panic lasts still, at least.
    panic_left: Option<Millis>,
    change: Option<Change>,
    applied: u32,
    countable: bool,
}

impl KpaReason {
    /// Whether more is asked of the ready instances than the target allows.
    pub fn is_above(&self) -> bool {
        self.countable && self.average > self.target * f64::from(self.ready)
    }
}

impl Kpa {
    /// Of a version that has so many ready instances.
    pub fn new(settings: &Settings, now: u64, ready: u32, reachable: bool) -> Self {
        let window = |length: Millis| Window::new(length.0 / 1_000, settings.algorithm);
        Self {
            stable: window(settings.stable_window),
            panic: window(settings.panic_window),
            autoscaler: Autoscaler::new(settings, now, ready),
            applier: Applier::new(settings, now, ready, reachable),
            desired: None,
            excess_burst_capacity: autoscaler::assumed_excess(settings),
        }
    }

    /// Of a version that was up before: it has reached its first scale, and rests if it has no instance.
    pub fn again(settings: &Settings, now: u64, ready: u32) -> Self {
        let mut kpa = Self::new(settings, now, ready, true);
        kpa.applier.was_up(settings, now, ready);
        kpa.desired = (ready == 0).then_some(0);
        kpa
    }

    /// Whether nothing was reported for a stable window.
    pub fn is_silent(&self, now: u64) -> bool {
        self.stable.is_empty(now)
    }

    /// Takes what was measured over the last second, or a part of it: requests in flight on average, or requests that came.
    pub fn report(&mut self, now: u64, value: f64) {
        self.stable.record(now, value);
        self.panic.record(now, value);
    }

    /// Other settings from now on; what was seen stays.
    pub fn resettle(&mut self, settings: &Settings, now: u64) {
        self.stable.resize(now, settings.stable_window.0 / 1_000, settings.algorithm);
        self.panic.resize(now, settings.panic_window.0 / 1_000, settings.algorithm);
    }

    /// The averages now; `None` if nothing was reported for a stable window. Where everything is buffered, nothing is asked
    /// of instances, and silence means that nothing came.
    pub fn averages(&self, settings: &Settings, now: u64) -> Option<Averages> {
        let buffers_always = settings.target_burst_capacity.get() == -1.0;
        if self.stable.is_empty(now) && !buffers_always {
            return None;
        }
        Some(Averages { stable: self.stable.average(now), panic: self.panic.average(now) })
    }

    /// What was wanted last.
    pub fn desired(&self) -> Option<i32> {
        self.desired
    }

    /// What is applied.
    pub fn applied(&self) -> u32 {
        self.applier.applied()
    }

    /// Decides, from averages and how many instances can serve; `None` where either is not known.
    pub fn decide(
        &mut self,
        settings: &Settings,
        now: u64,
        averages: Option<Averages>,
        ready: Option<u32>,
        reachable: bool,
    ) -> Decision {
        let known = averages.zip(ready);
        let wish = known.map(|(averages, ready)| {
            let seen = TickInput { stable: averages.stable, panic: averages.panic, ready, reachable };
            self.autoscaler.decide(settings, now, seen)
        });
        if let Some(wish) = wish {
            self.excess_burst_capacity = wish.excess_burst_capacity;
            self.desired = Some(wish.desired);
        }
        // Without a new wish the last one stands.
        let ready_count = ready.unwrap_or_else(|| self.applier.applied());
        let excess = self.excess_burst_capacity;
        // What cannot be counted changes nothing.
        let change = match ready {
            Some(ready) => self.applier.apply(settings, now, self.desired, excess, ready, reachable),
            None => Some(Change::Unchanged),
        };
        let by_panic = matches!(wish.map(|wish| wish.because), Some(ScaleReason::Panic | ScaleReason::PanicHolds));
        let average = known.map_or(0.0, |(averages, _)| if by_panic { averages.panic } else { averages.stable });
        let applied = self.applier.applied();
        let desired = wish.map(|wish| wish.desired);
        let why = KpaReason {
            metric: settings.metric,
            average,
            target: settings.target.get(),
            ready: ready_count,
            desired,
            because: wish.map(|wish| wish.because),
            panic_left: wish.and_then(|wish| Some(Millis(wish.panic_until?.saturating_sub(now)))),
            change,
            applied,
            countable: ready.is_some(),
        };
        Decision {
            desired,
            panic: self.autoscaler.panics(),
            stable: averages.map(|averages| averages.stable),
            panic_average: averages.map(|averages| averages.panic),
            excess_burst_capacity: excess,
            applied,
            why,
        }
    }
}

impl KpaReason {
    /// What changed the wish on its way, if anything.
    pub fn change(&self) -> Option<Change> {
        self.change
    }

    fn wish(&self, f: &mut fmt::Formatter<'_>, desired: i32, because: ScaleReason) -> fmt::Result {
        let Self { metric, average, target, ready, .. } = self;
        let metric = metric.name();
        match because {
            ScaleReason::Stable => write!(f, "stable {metric} {average} at a target of {target} wants {desired}"),
            ScaleReason::Panic => write!(f, "panic {metric} {average} at a target of {target} wants {desired}"),
            ScaleReason::PanicHolds => {
                write!(f, "{desired} were wanted in this panic, and in a panic the count never falls")
            }
            ScaleReason::UpRate => {
                write!(
                    f,
                    "{metric} {average} at a target of {target} wants more; max-scale-up-rate lets {ready} grow to {desired}"
                )
            }
            ScaleReason::DownRate => {
                write!(
                    f,
                    "{metric} {average} at a target of {target} wants fewer; max-scale-down-rate lets {ready} shrink to {desired}"
                )
            }
            ScaleReason::Activation => write!(f, "activation-scale makes it at least {desired}"),
            ScaleReason::Delay => write!(f, "scale-down-delay holds {desired}, the most of that time"),
        }
    }
}

impl fmt::Display for KpaReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.desired.zip(self.because) {
            Some((desired, because)) => self.wish(f, desired, because)?,
            None if !self.countable => f.write_str("no decision: the ready instances cannot be counted")?,
            None => f.write_str("no decision: nothing was reported within the stable window")?,
        }
        if let Some(left) = self.panic_left {
            write!(f, "; panic for {left} more at least")?;
        }
        let applied = self.applied;
        match self.change {
            None => Ok(()),
            Some(Change::MinScale) => write!(f, "; min-scale raises it to {applied}"),
            Some(Change::InitialScale) => write!(f, "; initial-scale was not reached yet and raises it to {applied}"),
            Some(Change::MaxScale) => write!(f, "; max-scale limits it to {applied}"),
            Some(Change::ScaleToZeroDisabled) => f.write_str("; enable-scale-to-zero is off, so one stays"),
            Some(Change::ActiveTooShort { left }) => {
                write!(f, "; active for less than the stable window, so one stays for {left} more")
            }
            Some(Change::BecameInactive) => write!(f, "; inactive from now on, {applied} for now"),
            Some(Change::Retention { left }) => {
                write!(f, "; scale-to-zero-pod-retention-period keeps {applied} for {left} more")
            }
            Some(Change::Grace { left }) => write!(f, "; scale-to-zero-grace-period keeps {applied} for {left} more"),
            Some(Change::Activating { left }) => write!(f, "; not up yet, {applied} for {left} more at most"),
            Some(Change::GivenUp) => f.write_str("; initial scale was never achieved, given up"),
            Some(Change::Unchanged) => write!(f, "; {applied} as before"),
        }
    }
}
