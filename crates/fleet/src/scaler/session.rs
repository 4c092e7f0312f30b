//! A policy that is told what was seen and says what it would do, line by line: without instances, requests or clocks. The
//! server writes the same lines down of what it decides, so that its decisions can be repeated.

use kip_spec::scaling::provision::Metric;
use kip_spec::scaling::{Fc as FcSettings, Kpa as KpaSettings, zone};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::fc::{Tracker, utilization};
use super::kpa::{Averages, Kpa};

/// What is seen of a version that Knative's autoscaler scales: a report, a tick, or averages.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KpaLine {
    /// When, milliseconds on any clock that only goes forward.
    pub t_ms: u64,
    /// Instances that can serve; `null` where they cannot be counted; as before where it is left out.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    pub ready: Option<Option<u32>>,
    /// The average over the stable window, instead of reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<f64>,
    /// The average over the panic window, instead of reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<f64>,
    /// What was measured over the last second: requests in flight on average, or requests that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<f64>,
    /// A decision is due.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tick: bool,
    /// The report is of a request that found nothing: a version that is at zero decides at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub poke: bool,
    /// Whether requests can reach the version; as before where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
}

/// Tells `null` from nothing at all.
fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u32>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Whole numbers without a point, as they are usually written.
#[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
fn short<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => serializer.serialize_i64(*number as i64),
        Some(number) => serializer.serialize_f64(*number),
        None => serializer.serialize_none(),
    }
}

/// What Knative's autoscaler decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KpaDecision {
    /// When.
    pub t_ms: u64,
    /// What it wants; `null` where it cannot know.
    pub desired: Option<i32>,
    /// Whether it panics.
    pub panic: bool,
    /// The average over the stable window.
    #[serde(serialize_with = "short")]
    pub stable: Option<f64>,
    /// The average over the panic window.
    #[serde(serialize_with = "short")]
    pub panic_average: Option<f64>,
    /// Room for requests beyond the burst that is to be taken.
    pub excess_burst_capacity: i32,
    /// What is applied, after bounds and the steps to zero.
    pub applied: u32,
    /// Why.
    pub reason: String,
}

/// What is seen of provisioned instances over a period that ends.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FcLine {
    /// When the period ends.
    pub t: String,
    /// The metric of every policy for which none of the other fields says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<f64>,
    /// `ProvisionedConcurrencyUtilization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<f64>,
    /// Requests in flight on provisioned instances on average, instead of their utilisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<f64>,
    /// `CPUUtilization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// `GPUMemUtilization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<f64>,
    /// No period ends; the calendar alone is looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub calendar: bool,
    /// Provisioned instances; as many as were wanted last where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u32>,
}

/// What Function Compute's policies decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FcDecision {
    /// When.
    pub t: String,
    /// Provisioned instances that should be.
    pub target: u32,
    /// Why.
    pub reason: String,
}

/// Knative's autoscaler, told line by line.
#[derive(Debug, Clone)]
pub struct KpaSession {
    settings: KpaSettings,
    kpa: Kpa,
    ready: u32,
    reachable: bool,
}

/// Why a line is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A time that is not understood.
    #[error(transparent)]
    Time(#[from] zone::TimeError),
    /// A figure that cannot be.
    #[error("`{key}` is {value}: it cannot be below 0, nor above a thousand million")]
    Figure {
        /// Which.
        key: &'static str,
        /// What it is.
        value: String,
    },
    /// Half of what belongs together.
    #[error("`{0}` is missing: `stable` and `panic` come together")]
    Half(&'static str),
    /// Two that say the same.
    #[error("`{0}` and `{1}` cannot be in one line")]
    Both(&'static str, &'static str),
}

/// Figures above this are a mistake.
const MOST: f64 = 1e9;

/// A figure that can be.
fn figures<const N: usize>(all: [(&'static str, Option<f64>); N]) -> Result<(), LineError> {
    let wrong =
        all.into_iter().find_map(|(key, value)| Some((key, value.filter(|value| !(0.0..=MOST).contains(value))?)));
    wrong.map_or(Ok(()), |(key, value)| Err(LineError::Figure { key, value: format!("{value:e}") }))
}

impl KpaLine {
    /// What cannot be, or means two things.
    fn check(&self) -> Result<(), LineError> {
        figures([("stable", self.stable), ("panic", self.panic), ("report", self.report)])?;
        match (self.stable, self.panic) {
            (Some(_), None) => Err(LineError::Half("panic")),
            (None, Some(_)) => Err(LineError::Half("stable")),
            (Some(_), Some(_)) if self.report.is_some() => Err(LineError::Both("stable", "report")),
            _ => Ok(()),
        }
    }
}

impl FcLine {
    /// What cannot be, or means two things.
    fn check(&self) -> Result<(), LineError> {
        let Self { utilization, concurrency, in_flight, cpu, gpu_memory, .. } = *self;
        figures([
            ("utilization", utilization),
            ("concurrency", concurrency),
            ("in_flight", in_flight),
            ("cpu", cpu),
            ("gpu_memory", gpu_memory),
        ])?;
        match (in_flight, utilization, concurrency) {
            (Some(_), Some(_), _) => Err(LineError::Both("in_flight", "utilization")),
            (Some(_), _, Some(_)) => Err(LineError::Both("in_flight", "concurrency")),
            _ => Ok(()),
        }
    }
}

impl KpaSession {
    /// Of a version that has so many ready instances at a time. A fresh one was never up before.
    pub fn new(settings: KpaSettings, now: u64, ready: u32, reachable: bool, fresh: bool) -> Self {
        let kpa = match fresh {
            true => Kpa::new(&settings, now, ready, reachable),
            false => Kpa::again(&settings, now, ready),
        };
        Self { settings, kpa, ready, reachable }
    }

    /// Goes on from what was remembered.
    pub fn resume(settings: KpaSettings, kpa: Kpa, ready: u32, reachable: bool) -> Self {
        Self { settings, kpa, ready, reachable }
    }

    /// Takes a line. A report alone makes no decision, unless it is of a request that finds the version at zero.
    ///
    /// # Errors
    /// [`LineError`]; the line counts for nothing then.
    pub fn line(&mut self, line: &KpaLine) -> Result<Option<KpaDecision>, LineError> {
        line.check()?;
        self.reachable = line.reachable.unwrap_or(self.reachable);
        let ready = line.ready.unwrap_or(Some(self.ready));
        self.ready = ready.unwrap_or(self.ready);
        let now = line.t_ms;
        if let Some(report) = line.report {
            self.kpa.report(now, report);
            let wakes = line.poke && report != 0.0 && self.kpa.desired() == Some(0);
            if !line.tick && !wakes {
                return Ok(None);
            }
        }
        let told = line.stable.zip(line.panic).map(|(stable, panic)| Averages { stable, panic });
        let averages = told.or_else(|| self.kpa.averages(&self.settings, now));
        let decided = self.kpa.decide(&self.settings, now, averages, ready, self.reachable);
        Ok(Some(KpaDecision {
            t_ms: now,
            desired: decided.desired,
            panic: decided.panic,
            stable: decided.stable,
            panic_average: decided.panic_average,
            excess_burst_capacity: decided.excess_burst_capacity,
            applied: decided.applied,
            reason: decided.why.to_string(),
        }))
    }
}

/// Function Compute's policies, told line by line.
#[derive(Debug, Clone)]
pub struct FcSession {
    settings: FcSettings,
    concurrency: u32,
    tracker: Tracker,
}

impl FcSession {
    /// Of a function whose instances take so many requests at once.
    /// Its policies begin with `begin`, if that is known, or else with what there is.
    pub fn new(settings: FcSettings, concurrency: u32, begin: Option<u32>) -> Self {
        let mut tracker = Tracker::new(&settings.provision);
        tracker.begin(begin);
        Self { settings, concurrency, tracker }
    }

    /// Goes on from what was remembered.
    pub fn resume(settings: FcSettings, concurrency: u32, tracker: Tracker) -> Self {
        Self { settings, concurrency, tracker }
    }

    /// Takes a period.
    ///
    /// # Errors
    /// [`LineError`]; the line counts for nothing then.
    pub fn line(&mut self, line: &FcLine) -> Result<FcDecision, LineError> {
        line.check()?;
        let wall = zone::moment(&line.t, &zone::utc())?;
        let current = line.current.or_else(|| self.tracker.target()).unwrap_or(0);
        let measured = line
            .concurrency
            .or_else(|| line.in_flight.and_then(|in_flight| utilization(in_flight, current, self.concurrency)));
        let mut metrics = [line.utilization; 3];
        for (metric, value) in
            [(Metric::Concurrency, measured), (Metric::Cpu, line.cpu), (Metric::GpuMemory, line.gpu_memory)]
        {
            metrics[metric.index()] = value.or_else(|| metrics[metric.index()]);
        }
        let decided = match line.calendar {
            true => self.tracker.look(&self.settings, wall, metrics, current),
            false => self.tracker.period(&self.settings, wall, metrics, current),
        };
        Ok(FcDecision { t: line.t.clone(), target: decided.target, reason: decided.why.tell(&self.settings) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kpa(settings: &str) -> KpaSettings {
        serde_json::from_str(settings).expect("settings")
    }

    /// As it is resolved from a target of 13.33, three quarters of it, and a burst of 100.
    const SETTINGS: &str = r#"{"metric":"concurrency","target":10,"total":13.3333,"algorithm":"linear",
        "stable_window":"60s","panic_window":"6s","panic_threshold":2,"min_scale":0,"max_scale":0,"initial_scale":1,
        "activation_scale":0,"scale_down_delay":"0s","retention":"0s","grace":"30s","scale_to_zero":true,
        "target_burst_capacity":100,"activator_capacity":100,"max_scale_up_rate":1000,"max_scale_down_rate":2,
        "progress_deadline":"600s"}"#;

    #[test]
    fn averages_reports_ticks_and_pokes() {
        let mut session = KpaSession::new(kpa(SETTINGS), 0, 1, true, true);
        let mut tell = |line: &str| {
            let line: KpaLine = serde_json::from_str(line).expect(line);
            let decided = session.line(&line).expect("a line");
            decided.map(|decision| (decision.desired, decision.applied, decision.excess_burst_capacity))
        };
        assert_eq!(tell(r#"{"t_ms":0,"tick":true}"#), Some((None, 1, -86)));
        assert_eq!(tell(r#"{"t_ms":1000,"report":10.1}"#), None);
        assert_eq!(tell(r#"{"t_ms":2000,"tick":true,"ready":1}"#), Some((Some(2), 2, -97)));
        assert_eq!(tell(r#"{"t_ms":4000,"ready":1,"stable":50,"panic":50}"#), Some((Some(5), 5, -137)));
        assert_eq!(tell(r#"{"t_ms":6000,"ready":null,"stable":50,"panic":50}"#), Some((None, 5, -137)));
        assert_eq!(tell(r#"{"t_ms":90000,"ready":5,"stable":0,"panic":0}"#), Some((Some(2), 2, -34)));
        assert_eq!(tell(r#"{"t_ms":92000,"ready":1,"stable":0,"panic":0}"#), Some((Some(0), 2, -87)));
        assert_eq!(tell(r#"{"t_ms":93000,"report":1}"#), None);
        assert_eq!(tell(r#"{"t_ms":93500,"report":1,"poke":true,"ready":0}"#), Some((Some(1), 1, -102)));
    }

    #[test]
    fn a_session_goes_on_from_what_was_remembered() {
        let line = |second: u64| KpaLine {
            t_ms: second * 1_000,
            ready: Some(Some(if second < 20 { 1 } else { 3 })),
            stable: (second != 40).then_some(if second < 30 { 50.0 } else { 1.0 }),
            panic: (second != 40).then_some(if second < 30 { 90.0 } else { 1.0 }),
            ..KpaLine::default()
        };
        let settings = KpaSettings { scale_down_delay: kip_spec::Millis::from_secs(20), ..kpa(SETTINGS) };
        let mut whole = KpaSession::new(settings.clone(), 0, 1, true, true);
        let tell = |session: &mut KpaSession, from: u64, to: u64| -> Vec<KpaDecision> {
            (from..to).step_by(2).filter_map(|second| session.line(&line(second)).expect("a line")).collect()
        };
        tell(&mut whole, 0, 26);
        let state = serde_json::to_string(&whole.kpa).expect("JSON");
        let mut later = KpaSession::resume(settings, serde_json::from_str(&state).expect("a state"), 3, true);
        let decided = tell(&mut whole, 26, 140);
        assert_eq!(tell(&mut later, 26, 140), decided);
        assert!(decided.iter().any(|one| one.panic) && decided.iter().any(|one| one.applied == 1), "{decided:?}");
    }

    #[test]
    fn lines_that_cannot_be() {
        let mut session = KpaSession::new(kpa(SETTINGS), 0, 1, true, true);
        let rows = [
            (r#"{"t_ms":0,"stable":1}"#, "`panic` is missing"),
            (r#"{"t_ms":0,"stable":1,"panic":1,"report":3}"#, "`stable` and `report` cannot be in one line"),
            (r#"{"t_ms":0,"stable":-5,"panic":1}"#, "`stable` is -5e0"),
            (r#"{"t_ms":0,"report":1e308}"#, "`report` is 1e308"),
        ];
        for (line, message) in rows {
            let error = session.line(&serde_json::from_str(line).expect(line)).expect_err(line).to_string();
            assert!(error.contains(message), "{line}: {error}");
        }
        let mut session = FcSession::new(FcSettings::new(kip_spec::scaling::Provision::default()), 1, None);
        let rows = [
            (r#"{"t":"2024-07-01T00:00:00Z","utilization":-5}"#, "`utilization` is -5e0"),
            (r#"{"t":"2024-07-01T00:00:00Z","utilization":1,"in_flight":1}"#, "cannot be in one line"),
            (r#"{"t":"soon"}"#, "`soon` is not a time"),
        ];
        for (line, message) in rows {
            let error = session.line(&serde_json::from_str(line).expect(line)).expect_err(line).to_string();
            assert!(error.contains(message), "{line}: {error}");
        }
    }
}
