//! The operator's configuration, `config-autoscaler`: keys, defaults, ranges and error texts.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::go::{self, Duration};

/// Least and most of a stable window.
pub(crate) const WINDOW: (Duration, Duration) = (Duration::seconds(6), Duration::seconds(3_600));
/// Least and most of the panic window, in percent of the stable one.
pub(crate) const PANIC_WINDOW: (f64, f64) = (1.0, 100.0);
/// The least target.
pub(crate) const TARGET: f64 = 0.01;

/// The configuration, read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) class: String,
    pub(crate) scale_to_zero: bool,
    pub(crate) allow_zero_initial_scale: bool,
    pub(crate) max_scale_up_rate: f64,
    pub(crate) max_scale_down_rate: f64,
    /// A fraction.
    pub(crate) utilization: f64,
    pub(crate) concurrency_target: f64,
    pub(crate) rps_target: f64,
    pub(crate) target_burst_capacity: f64,
    pub(crate) panic_window: f64,
    pub(crate) activator_capacity: f64,
    pub(crate) panic_threshold: f64,
    pub(crate) initial_scale: i32,
    pub(crate) min_scale: i32,
    pub(crate) max_scale: i32,
    pub(crate) max_scale_limit: i32,
    pub(crate) window: Duration,
    pub(crate) scale_down_delay: Duration,
    pub(crate) grace: Duration,
    pub(crate) retention: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            class: super::KPA.to_owned(),
            scale_to_zero: true,
            allow_zero_initial_scale: false,
            max_scale_up_rate: 1_000.0,
            max_scale_down_rate: 2.0,
            utilization: 0.7,
            concurrency_target: 100.0,
            rps_target: 200.0,
            target_burst_capacity: 211.0,
            panic_window: 10.0,
            activator_capacity: 100.0,
            panic_threshold: 200.0,
            initial_scale: 1,
            min_scale: 0,
            max_scale: 0,
            max_scale_limit: 0,
            window: Duration::seconds(60),
            scale_down_delay: Duration(0),
            grace: Duration::seconds(30),
            retention: Duration(0),
        }
    }
}

/// Keys that are read here.
pub(super) const KEYS: [&str; 21] = [
    "pod-autoscaler-class",
    "enable-scale-to-zero",
    "allow-zero-initial-scale",
    "max-scale-up-rate",
    "max-scale-down-rate",
    "container-concurrency-target-percentage",
    "container-concurrency-target-default",
    "requests-per-second-target-default",
    "target-burst-capacity",
    "panic-window-percentage",
    "activator-capacity",
    "panic-threshold-percentage",
    "initial-scale",
    "min-scale",
    "max-scale",
    "max-scale-limit",
    "stable-window",
    "scale-down-delay",
    "scale-to-zero-grace-period",
    "scale-to-zero-pod-retention-period",
    // Of older versions; ignored, as Knative does.
    "tick-interval",
];

type Data = BTreeMap<String, String>;

fn read<T>(data: &Data, key: &str, into: &mut T, parse: impl Fn(&str) -> Result<T, String>) -> Result<(), String> {
    if let Some(text) = data.get(key) {
        *into = parse(text).map_err(|error| format!("failed to parse data: failed to parse {key:?}: {error}"))?;
    }
    Ok(())
}

impl Config {
    /// Reads the configuration as far as it goes; the error is the first one, in Knative's words. A version that says its
    /// own `max-scale` does not care for the default, so that it is not held against the limit.
    pub(crate) fn read(data: &Data, says_max: bool) -> (Self, Result<(), String>) {
        let mut config = Self::default();
        let done = config.parse(data).and_then(|()| config.check(says_max));
        (config, done)
    }

    fn parse(&mut self, data: &Data) -> Result<(), String> {
        let class = |text: &str| String::from_str(text.trim()).map_err(|_| String::new());
        read(data, "pod-autoscaler-class", &mut self.class, class)?;
        read(data, "enable-scale-to-zero", &mut self.scale_to_zero, go::boolean)?;
        read(data, "allow-zero-initial-scale", &mut self.allow_zero_initial_scale, go::boolean)?;
        let floats = [
            ("max-scale-up-rate", &mut self.max_scale_up_rate),
            ("max-scale-down-rate", &mut self.max_scale_down_rate),
            ("container-concurrency-target-percentage", &mut self.utilization),
            ("container-concurrency-target-default", &mut self.concurrency_target),
            ("requests-per-second-target-default", &mut self.rps_target),
            ("target-burst-capacity", &mut self.target_burst_capacity),
            ("panic-window-percentage", &mut self.panic_window),
            ("activator-capacity", &mut self.activator_capacity),
            ("panic-threshold-percentage", &mut self.panic_threshold),
        ];
        floats.into_iter().try_for_each(|(key, into)| read(data, key, into, go::float))?;
        let ints = [
            ("initial-scale", &mut self.initial_scale),
            ("min-scale", &mut self.min_scale),
            ("max-scale", &mut self.max_scale),
            ("max-scale-limit", &mut self.max_scale_limit),
        ];
        ints.into_iter().try_for_each(|(key, into)| read(data, key, into, go::int_or_text))?;
        let durations = [
            ("stable-window", &mut self.window),
            ("scale-down-delay", &mut self.scale_down_delay),
            ("scale-to-zero-grace-period", &mut self.grace),
            ("scale-to-zero-pod-retention-period", &mut self.retention),
        ];
        durations.into_iter().try_for_each(|(key, into)| read(data, key, into, Duration::parse))?;
        // Above 1 it is a percentage.
        if self.utilization > 1.0 {
            self.utilization /= 100.0;
        }
        Ok(())
    }

    fn check(&self, says_max: bool) -> Result<(), String> {
        let fail = |wrong: bool, text: &dyn Fn() -> String| if wrong { Err(text()) } else { Ok(()) };
        let precision = "must be specified with at most second precision";
        let shown = go::shown;
        let least = self.utilization * self.concurrency_target;
        fail(self.grace.0 <= 0, &|| format!("scale-to-zero-grace-period must be positive, was: {}", self.grace))?;
        fail(self.scale_down_delay.0 < 0, &|| {
            format!("scale-down-delay cannot be negative, was: {}", self.scale_down_delay)
        })?;
        fail(!self.scale_down_delay.is_whole_seconds(), &|| {
            format!("scale-down-delay = {}, {precision}", self.scale_down_delay)
        })?;
        fail(self.retention.0 < 0, &|| {
            format!("scale-to-zero-pod-retention-period cannot be negative, was: {}", self.retention)
        })?;
        fail(self.target_burst_capacity < 0.0 && self.target_burst_capacity != -1.0, &|| {
            let was = self.target_burst_capacity;
            format!("target-burst-capacity must be either non-negative or -1 (for unlimited), was: {was:.6}")
        })?;
        fail(self.utilization <= 0.0 || self.utilization > 1.0, &|| {
            let is = self.utilization;
            format!("container-concurrency-target-percentage = {is:.6} is outside of valid range of (0, 100]")
        })?;
        fail(least < TARGET, &|| {
            let keys = "container-concurrency-target-percentage and container-concurrency-target-default";
            format!("{keys} yield target concurrency of {}, can't be less than {}", shown(least), shown(TARGET))
        })?;
        fail(self.rps_target < TARGET, &|| {
            format!(
                "requests-per-second-target-default must be at least {}, was: {}",
                shown(TARGET),
                shown(self.rps_target)
            )
        })?;
        fail(self.activator_capacity < 1.0, &|| {
            format!("activator-capacity = {}, must be at least 1", shown(self.activator_capacity))
        })?;
        fail(self.max_scale_up_rate <= 1.0, &|| {
            format!("max-scale-up-rate = {}, must be greater than 1.0", shown(self.max_scale_up_rate))
        })?;
        fail(self.max_scale_down_rate <= 1.0, &|| {
            format!("max-scale-down-rate = {}, must be greater than 1.0", shown(self.max_scale_down_rate))
        })?;
        fail(self.window < WINDOW.0 || self.window > WINDOW.1, &|| {
            format!("stable-window = {}, must be in [{}; {}] range", self.window, WINDOW.0, WINDOW.1)
        })?;
        fail(!self.window.is_whole_seconds(), &|| format!("stable-window = {}, {precision}", self.window))?;
        fail(self.panic_window < PANIC_WINDOW.0 || self.panic_window > PANIC_WINDOW.1, &|| {
            let (least, most) = (shown(PANIC_WINDOW.0), shown(PANIC_WINDOW.1));
            format!("panic-window-percentage = {}, must be in [{least}, {most}] interval", shown(self.panic_window))
        })?;
        fail(self.initial_scale < 0 || self.initial_scale == 0 && !self.allow_zero_initial_scale, &|| {
            let rule = "must be at least 0 (or at least 1 when allow-zero-initial-scale is false)";
            format!("initial-scale = {}, {rule}", self.initial_scale)
        })?;
        fail(self.min_scale < 0, &|| format!("min-scale = {}, must be at least 0", self.min_scale))?;
        let (limit, least) = (self.max_scale_limit, i32::from(self.max_scale_limit > 0));
        let default_matters = limit <= 0 || !says_max;
        fail(default_matters && (self.max_scale < least || limit > 0 && self.max_scale > limit), &|| {
            format!("max-scale = {}, must be in [{least}, max-scale-limit({limit})] range", self.max_scale)
        })?;
        fail(limit < 0, &|| format!("max-scale-limit = {limit}, must be at least 0"))?;
        fail(self.max_scale > 0 && self.min_scale > self.max_scale, &|| {
            format!("min-scale ({}) must be less than max-scale ({})", self.min_scale, self.max_scale)
        })
    }
}
