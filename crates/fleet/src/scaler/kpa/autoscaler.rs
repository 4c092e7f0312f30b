//! How many instances Knative's autoscaler would want: its arithmetic, decision for decision.

use kip_spec::round;
use kip_spec::scaling::Kpa;
use serde::{Deserialize, Serialize};

use super::window::Peak;

/// What the averages are at a tick, and how many instances can serve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TickInput {
    /// Over the stable window.
    pub stable: f64,
    /// Over the panic window.
    pub panic: f64,
    /// Instances that can serve.
    pub ready: u32,
    /// Whether requests can reach the version at all.
    pub reachable: bool,
}

/// What is remembered from one decision to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Autoscaler {
    /// Since when it panics, or when its panic was last renewed, boot time.
    panic_since: Option<u64>,
    /// The most it wanted since.
    panic_peak: i32,
    /// The wishes of the last while, if falls are delayed.
    delay: Option<Peak>,
}

/// A wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DesiredScale {
    /// So many instances.
    pub desired: i32,
    /// Until when a panic lasts at least, boot time, if there is one.
    pub panic_until: Option<u64>,
    /// Room for requests beyond the burst that is to be taken; negative: too little.
    pub excess_burst_capacity: i32,
    /// What decided.
    pub because: ScaleReason,
}

/// What decided about a wish, the last that did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleReason {
    /// The average over the stable window.
    Stable,
    /// The average over the panic window.
    Panic,
    /// The count never falls in a panic.
    PanicHolds,
    /// A tick may not go further up.
    UpRate,
    /// A tick may not go further down.
    DownRate,
    /// What is not zero is at least so much.
    Activation,
    /// Falls are delayed.
    Delay,
}

impl Autoscaler {
    /// A new one, of a version that has so many ready instances already: more than one are kept by a panic, until there are
    /// enough observations to know better.
    pub(super) fn new(settings: &Kpa, now: u64, ready: u32) -> Self {
        let delay = (settings.scale_down_delay.0 > 0).then(|| Peak::new(settings.scale_down_delay.0, Kpa::TICK.0));
        let panic_peak = i32::try_from(ready).unwrap_or(i32::MAX);
        Self { panic_since: (ready > 1).then_some(now), panic_peak, delay }
    }

    /// Whether it panics.
    pub(super) fn panics(&self) -> bool {
        self.panic_since.is_some()
    }

    /// What is wanted now.
    pub(super) fn decide(&mut self, settings: &Kpa, now: u64, seen: TickInput) -> DesiredScale {
        let ready = f64::from(seen.ready.max(1));
        let up = (settings.max_scale_up_rate.get() * ready).ceil();
        let down = if seen.reachable { (ready / settings.max_scale_down_rate.get()).floor() } else { 0.0 };
        let (stable, stable_because) = bounded(settings, seen.stable, down, up);
        let (panic, panic_because) = bounded(settings, seen.panic, down, up);
        let over = (seen.panic / settings.target.get()).ceil() / ready >= settings.panic_threshold.get();
        if over {
            self.panic_since = Some(now);
        } else if self.panic_since.is_some_and(|since| since.saturating_add(settings.stable_window.0) < now) {
            (self.panic_since, self.panic_peak) = (None, 0);
        }
        let (mut desired, mut because) = (stable, stable_because.unwrap_or(ScaleReason::Stable));
        if self.panics() {
            if panic > desired {
                (desired, because) = (panic, panic_because.unwrap_or(ScaleReason::Panic));
            }
            if desired < self.panic_peak {
                because = ScaleReason::PanicHolds;
            }
            self.panic_peak = self.panic_peak.max(desired);
            desired = self.panic_peak;
        }
        if let Some(delay) = self.delay.as_mut().filter(|_| seen.reachable) {
            let delayed = delay.record(now, desired);
            if delayed != desired {
                (desired, because) = (delayed, ScaleReason::Delay);
            }
        }
        let panic_until = self.panic_since.map(|since| since.saturating_add(settings.stable_window.0));
        DesiredScale { desired, panic_until, excess_burst_capacity: excess(settings, seen), because }
    }
}

/// How many an average wants, within what one tick may change.
fn bounded(settings: &Kpa, average: f64, down: f64, up: f64) -> (i32, Option<ScaleReason>) {
    let wanted = (average / settings.target.get()).ceil();
    let within = wanted.max(down).min(up);
    let count = round::down(within);
    let activation = i32::try_from(settings.activation_scale).unwrap_or(i32::MAX);
    match () {
        () if activation > 1 && wanted > 0.0 && activation > count => (activation, Some(ScaleReason::Activation)),
        () if wanted > within => (count, Some(ScaleReason::UpRate)),
        () if wanted < within => (count, Some(ScaleReason::DownRate)),
        () => (count, None),
    }
}

fn excess(settings: &Kpa, seen: TickInput) -> i32 {
    let burst = settings.target_burst_capacity.get();
    match () {
        () if burst == 0.0 => 0,
        () if burst > 0.0 => round::down(f64::from(seen.ready) * settings.total.get() - burst - seen.panic),
        () => -1,
    }
}

/// What is assumed before anything was seen.
pub(super) fn assumed_excess(settings: &Kpa) -> i32 {
    let burst = settings.target_burst_capacity.get();
    if burst == 0.0 || burst == -1.0 {
        return round::down(burst);
    }
    // Toward zero here, unlike later.
    round::down((f64::from(settings.initial_scale) * settings.total.get() - burst).trunc())
}
