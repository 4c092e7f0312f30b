//! Knative's autoscaler in a function's core: counts requests by the second, decides every two, and is silent at rest.

use kip_spec::scaling::Kpa as Settings;
use kip_spec::scaling::kpa::Metric;
use serde::{Deserialize, Serialize};

use super::kpa::{Averages, Decision, Kpa};
use super::{Desired, Load, Observation, Scaler};
use crate::why::Reason;
use crate::{Kind, Now};

/// The scaler of `scaling: {mode: kpa}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Knative {
    settings: Settings,
    /// Made when it decides first: it matters how many instances there are then.
    kpa: Option<Kpa>,
    /// The version was never up before, so that its first scale counts.
    fresh: bool,
    load: Load,
    /// Up to when the load was counted, boot time.
    counted: u64,
    /// Requests times milliseconds, and requests that came, in the second under way.
    integral: u64,
    arrivals: u32,
    /// One request of this second was reported already.
    reported: bool,
    /// The report of a request that found nothing is still to be decided on.
    poked: bool,
    next: Option<u64>,
    last: Option<(DecisionInput, Decision)>,
    began: Option<ScalerStart>,
}

/// What a decision was made of, as `kip scaler decide` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DecisionInput {
    /// When, boot time.
    pub at: u64,
    /// Averages, if anything was reported.
    pub averages: Option<Averages>,
    /// Instances that could serve.
    pub ready: u32,
    /// With how many the scaler began, and when, if this is its first decision.
    pub began: Option<ScalerStart>,
}

/// How a scaler began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalerStart {
    /// When, boot time.
    pub at: u64,
    /// Instances that could serve.
    pub ready: u32,
    /// The version was never up before.
    pub fresh: bool,
}

impl Knative {
    /// By a version's settings. A fresh one begins with its first scale.
    pub fn new(settings: Settings, fresh: bool) -> Self {
        Self {
            settings,
            kpa: None,
            fresh,
            load: Load::default(),
            counted: 0,
            integral: 0,
            arrivals: 0,
            reported: false,
            poked: false,
            next: None,
            last: None,
            began: None,
        }
    }

    /// How many it wants.
    pub fn applied(&self) -> u32 {
        self.kpa.as_ref().map_or(0, Kpa::applied)
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is remembered from one decision to the next.
    pub fn state(&self) -> Option<&Kpa> {
        self.kpa.as_ref()
    }

    /// The last decision, and what it was made of.
    pub fn last(&self) -> Option<&(DecisionInput, Decision)> {
        self.last.as_ref()
    }

    /// When it was made and with how many ready instances it began is what the first line of a repetition needs.
    fn made(&mut self, now: u64, ready: u32) -> &mut Kpa {
        let (settings, fresh) = (&self.settings, self.fresh);
        if self.kpa.is_none() {
            self.counted = now;
            self.began = Some(ScalerStart { at: now, ready, fresh });
            let rests = !fresh && ready == 0 && settings.min_scale == 0 && settings.scale_to_zero;
            self.next = (!rests).then(|| now.saturating_add(Settings::TICK.0));
        }
        self.kpa.get_or_insert_with(|| match fresh {
            true => Kpa::new(settings, now, ready, true),
            false => Kpa::again(settings, now, ready),
        })
    }

    /// Counts the time since it was last told; every full second becomes a report.
    fn count(&mut self, now: u64) {
        let Some(kpa) = self.kpa.as_mut() else { return };
        let longest = self.settings.stable_window.0.saturating_add(1_000);
        if now.saturating_sub(self.counted) > longest {
            // What is older than the window counts for nothing.
            (self.counted, self.integral, self.arrivals) = ((now - longest) / 1_000 * 1_000, 0, 0);
        }
        while now / 1_000 > self.counted / 1_000 {
            let end = (self.counted / 1_000 + 1) * 1_000;
            self.integral += u64::from(self.load.requests) * (end - self.counted);
            let value = match self.settings.metric {
                Metric::Concurrency => self.integral as f64 / 1_000.0,
                Metric::Rps => f64::from(self.arrivals),
            };
            let value = if self.reported { (value - 1.0).max(0.0) } else { value };
            // Where nothing is, nothing reports.
            if value > 0.0 || self.load.ready > 0 {
                kpa.report(end, value);
            }
            (self.counted, self.integral, self.arrivals, self.reported) = (end, 0, 0, false);
        }
        self.integral += u64::from(self.load.requests) * now.saturating_sub(self.counted);
        self.counted = now.max(self.counted);
    }
}

impl Scaler for Knative {
    fn observe(&mut self, now: u64, load: Load) {
        self.count(now);
        let came = load.arrivals.wrapping_sub(self.load.arrivals);
        self.arrivals = self.arrivals.saturating_add(came);
        self.load = load;
        let (at_zero, Some(kpa)) = (self.at_zero(), self.kpa.as_mut()) else { return };
        if came > 0 && load.requests > 0 && at_zero && !self.reported {
            kpa.report(now, 1.0);
            (self.reported, self.poked) = (true, true);
            // The core decides in the same step, or by a tick that is due at once.
            self.next = Some(self.next.unwrap_or(now).min(now));
        }
    }

    fn decide(&mut self, now: Now, seen: &Observation<'_>) -> Desired {
        let now = now.boot;
        let ready = self.load.ready;
        self.made(now, ready);
        self.count(now);
        let due = self.poked || self.next.is_some_and(|next| next <= now);
        let Some(kpa) = self.kpa.as_mut().filter(|_| due) else { return self.desired(seen) };
        let averages = kpa.averages(&self.settings, now);
        let decision = kpa.decide(&self.settings, now, averages, Some(ready), true);
        let began = self.began.take();
        self.last = Some((DecisionInput { at: now, averages, ready, began }, decision));
        let rests = kpa.applied() == 0 && self.load.requests == 0 && kpa.is_silent(now);
        self.poked = false;
        self.next = (!rests).then(|| now.saturating_add(Settings::TICK.0));
        Desired { decided: true, ..self.desired(seen) }
    }

    fn next_tick(&self) -> Option<u64> {
        self.next
    }

    fn is_at_rest(&self) -> bool {
        self.kpa.is_some() && self.next.is_none()
    }
}

impl Knative {
    fn at_zero(&self) -> bool {
        self.kpa.as_ref().is_some_and(|kpa| kpa.applied() == 0 || kpa.desired() == Some(0))
    }

    fn desired(&self, seen: &Observation<'_>) -> Desired {
        let hot = self.applied().min(seen.maximum).max(seen.minimum);
        let kind = if seen.queued > 0 { Kind::OnDemand } else { Kind::Provisioned };
        Desired { hot, asleep: 0, decided: false, kind, why: Reason::Autoscaled { to: hot } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        super::super::kpa::tests::settings()
    }

    fn seen(minimum: u32) -> Observation<'static> {
        Observation {
            in_flight: 0,
            queued: 0,
            busy: 0,
            idle_since: &[],
            asleep_since: &[],
            minimum,
            maximum: 100,
            kept_hot: 0,
            on_demand: true,
            provisioned: 0,
            starting: 0,
            waiting_since: None,
            start: 0,
            wake: 0,
        }
    }

    fn at(boot: u64) -> Now {
        Now { boot, wall: 0 }
    }

    #[test]
    fn at_rest_it_has_no_timer_until_a_request_pokes_it() {
        let mut scaler = Knative::new(settings(), false);
        assert_eq!(scaler.decide(at(5_000), &seen(0)).hot, 0);
        assert_eq!((scaler.next_tick(), scaler.is_at_rest()), (None, true));
        scaler.observe(9_300, Load { requests: 1, in_flight: 1, arrivals: 1, ready: 0 });
        assert_eq!(scaler.next_tick(), Some(9_300));
        let desired = scaler.decide(at(9_300), &seen(0));
        assert_eq!((desired.hot, desired.decided, scaler.next_tick()), (1, true, Some(11_300)));
        let (taken, _) = scaler.last().expect("it decided");
        assert_eq!(taken.averages, Some(Averages { stable: 1.0, panic: 1.0 }));
    }

    #[test]
    fn requests_are_counted_by_the_second() {
        let mut scaler = Knative::new(settings(), true);
        assert_eq!(scaler.decide(at(0), &seen(0)).hot, 1, "the first scale");
        scaler.observe(500, Load { requests: 0, in_flight: 0, arrivals: 0, ready: 1 });
        // Two requests for half a second each, in the second second.
        scaler.observe(1_000, Load { requests: 1, in_flight: 1, arrivals: 1, ready: 1 });
        scaler.observe(1_500, Load { requests: 1, in_flight: 1, arrivals: 2, ready: 1 });
        scaler.observe(2_000, Load { requests: 0, in_flight: 0, arrivals: 2, ready: 1 });
        scaler.decide(at(2_000), &seen(0));
        let (taken, decision) = *scaler.last().expect("it decided");
        assert_eq!(taken.averages, Some(Averages { stable: 0.5, panic: 0.5 }));
        assert_eq!((decision.desired, scaler.next_tick()), (Some(1), Some(4_000)));
    }

    #[test]
    fn the_way_to_rest_ends() {
        let quick = Settings { grace: kip_spec::Millis(1_000), ..settings() };
        let mut scaler = Knative::new(quick, true);
        scaler.decide(at(0), &seen(0));
        scaler.observe(10, Load { requests: 0, in_flight: 0, arrivals: 0, ready: 1 });
        let mut now = 0;
        while let Some(next) = scaler.next_tick() {
            assert!(next > now && next < 300_000, "it never rests");
            now = next;
            let hot = scaler.decide(at(now), &seen(0)).hot;
            scaler.observe(now, Load { requests: 0, in_flight: 0, arrivals: 0, ready: hot });
        }
        assert!(scaler.is_at_rest() && now > 120_000, "{now}");
    }
}
