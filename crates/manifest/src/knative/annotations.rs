//! What a version may say of its own scaling: annotations, each with its range and error text.

use std::collections::BTreeMap;

use super::config::{Config, PANIC_WINDOW, TARGET, WINDOW};
use super::field::Errors;
use super::go::{self, Duration, IntError};
use super::{GROUP, HPA, KPA, PROGRESS};

const DOMAIN: &str = ".knative.dev";
const PANIC_THRESHOLD: (f64, f64) = (110.0, 1000.0);
const PRECISION: &str = "must be specified with at most second precision";
const MOST: i32 = i32::MAX;

/// A name after the group, and how it was written before.
pub(super) type Name = (&'static str, &'static str);

pub(super) const CLASS: Name = ("class", "");
pub(super) const METRIC: Name = ("metric", "");
pub(super) const TARGET_NAME: Name = ("target", "");
pub(super) const UTILIZATION: Name = ("target-utilization-percentage", "targetUtilizationPercentage");
pub(super) const WINDOW_NAME: Name = ("window", "");
pub(super) const PANIC_WINDOW_NAME: Name = ("panic-window-percentage", "panicWindowPercentage");
pub(super) const PANIC_THRESHOLD_NAME: Name = ("panic-threshold-percentage", "panicThresholdPercentage");
pub(super) const ALGORITHM: Name = ("metric-aggregation-algorithm", "metricAggregationAlgorithm");
pub(super) const MIN: Name = ("min-scale", "minScale");
pub(super) const MAX: Name = ("max-scale", "maxScale");
pub(super) const INITIAL: Name = ("initial-scale", "initialScale");
pub(super) const ACTIVATION: Name = ("activation-scale", "");
pub(super) const DELAY: Name = ("scale-down-delay", "scaleDownDelay");
pub(super) const RETENTION: Name = ("scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod");
pub(super) const BURST: Name = ("target-burst-capacity", "targetBurstCapacity");

pub(super) const NAMES: [Name; 15] = [
    CLASS,
    METRIC,
    TARGET_NAME,
    UTILIZATION,
    WINDOW_NAME,
    PANIC_WINDOW_NAME,
    PANIC_THRESHOLD_NAME,
    ALGORITHM,
    MIN,
    MAX,
    INITIAL,
    ACTIVATION,
    DELAY,
    RETENTION,
    BURST,
];

/// The annotations of a version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Annotations<'a>(pub(super) &'a BTreeMap<String, String>);

impl<'a> Annotations<'a> {
    /// The key as it was written, and its value; the dashed spelling wins.
    pub(super) fn get(self, name: Name) -> Option<(String, &'a str)> {
        let find = |name: &str| {
            let key = format!("{GROUP}/{name}");
            self.0.get(&key).map(|value| (key, value.as_str()))
        };
        find(name.0).or_else(|| if name.1.is_empty() { None } else { find(name.1) })
    }

    pub(super) fn float(self, name: Name) -> Option<f64> {
        self.get(name).and_then(|(_, value)| go::float(value).ok())
    }

    pub(super) fn int(self, name: Name) -> Option<i32> {
        self.get(name).and_then(|(_, value)| go::int(value).ok())
    }

    pub(super) fn duration(self, name: Name) -> Option<Duration> {
        self.get(name).and_then(|(_, value)| Duration::parse(value).ok())
    }

    /// Keys that mean nothing here: those of the group that are not known.
    pub(super) fn unknown(self) -> Vec<String> {
        let known =
            |key: &str| NAMES.iter().any(|(dashed, camel)| key == *dashed || !camel.is_empty() && key == *camel);
        let ours = |key: &&String| match key.split_once('/') {
            Some((GROUP, name)) => !known(name),
            _ => !PROGRESS.contains(&key.as_str()),
        };
        self.0.keys().filter(ours).cloned().collect()
    }

    /// What is wrong.
    pub(super) fn check(self, config: &Config) -> Errors {
        let mut errors = Errors::default();
        if let Some((key, class)) = self.get(CLASS).filter(|(_, v)| v.ends_with(DOMAIN) && *v != KPA && *v != HPA) {
            errors.invalid(class, &key);
        }
        self.scales(config, &mut errors);
        errors.append(self.floats());
        self.durations(&mut errors);
        self.metric(config, &mut errors);
        self.initial(config, &mut errors);
        let of_kpa = self.get(CLASS).is_some_and(|(_, class)| class == KPA);
        let known = ["", "linear", "weighted-exponential", "weightedExponential"];
        if let Some((key, value)) = self.get(ALGORITHM).filter(|(_, value)| of_kpa && !known.contains(value)) {
            errors.invalid(value, &key);
        }
        errors
    }

    fn scale(self, name: Name, errors: &mut Errors) -> i32 {
        let Some((key, value)) = self.get(name) else { return 0 };
        match go::int(value) {
            Ok(number) if number >= 0 => return number,
            Ok(_) | Err(IntError::Range) => errors.outside(0, value, MOST, &key),
            Err(IntError::Syntax) => errors.invalid(value, &key),
        }
        0
    }

    fn scales(self, config: &Config, errors: &mut Errors) {
        let (min, max) = (self.scale(MIN, errors), self.scale(MAX, errors));
        if max != 0 && max < min {
            let keys = [format!("{GROUP}/{}", MAX.0), format!("{GROUP}/{}", MIN.0)];
            errors.add(format!("max-scale={max} is less than min-scale={min}"), &[&keys[0], &keys[1]]);
        }
        let limit = config.max_scale_limit;
        if let Some((key, _)) = self.get(MAX).filter(|_| limit != 0) {
            if max > limit {
                errors.outside(1, max, limit, &key);
            }
            if max == 0 {
                errors.add(format!("max-scale=0 (unlimited), must be less than {limit}"), &[&key]);
            }
        }
        let Some((key, value)) = self.get(ACTIVATION) else { return };
        match go::int(value) {
            Err(_) => errors.invalid(value, &key),
            Ok(least) if min > least => {
                errors.add(format!("min-scale={min} is greater than activation-scale={least}"), &[&key]);
            }
            Ok(least) if max < least && max != 0 => {
                errors.add(format!("max-scale={max} is less than activation-scale={least}"), &[&key]);
            }
            Ok(least) if least < 2 => {
                errors.add(format!("activation-scale={least} must be greater than 1"), &[&key]);
            }
            Ok(_) => {}
        }
    }

    fn floats(self) -> Errors {
        let mut errors = Errors::default();
        let within = |name: Name, (least, most): (f64, f64), errors: &mut Errors, forgets: bool| {
            let Some((key, value)) = self.get(name) else { return };
            match go::float(value) {
                Err(_) => errors.invalid(value, &key),
                Ok(number) if number < least || number > most => {
                    // Knative's own slip: this one replaces what was found before.
                    if forgets {
                        errors.clear();
                    }
                    errors.outside(go::shown(least), value, go::shown(most), &key);
                }
                Ok(_) => {}
            }
        };
        within(PANIC_WINDOW_NAME, PANIC_WINDOW, &mut errors, true);
        within(PANIC_THRESHOLD_NAME, PANIC_THRESHOLD, &mut errors, false);
        if let Some((key, value)) = self.get(TARGET_NAME) {
            match go::float(value) {
                Err(_) => errors.invalid(value, &key),
                Ok(number) if number < TARGET => {
                    errors.add(format!("target {value} should be at least {}", go::shown(TARGET)), &[&key]);
                }
                Ok(_) => {}
            }
        }
        within(UTILIZATION, (1.0, 100.0), &mut errors, false);
        if let Some((key, value)) = self.get(BURST)
            && go::float(value).map_or(true, |number| number < 0.0 && number != -1.0)
        {
            errors.invalid(value, &key);
        }
        errors
    }

    fn durations(self, errors: &mut Errors) {
        let none = Duration(0);
        for (name, least, whole_seconds) in
            [(WINDOW_NAME, WINDOW.0, true), (RETENTION, none, false), (DELAY, none, true)]
        {
            let Some((key, value)) = self.get(name) else { continue };
            match Duration::parse(value) {
                Err(_) => errors.invalid(value, &key),
                Ok(duration) if duration < least || duration > WINDOW.1 => errors.outside(least, value, WINDOW.1, &key),
                Ok(duration) if whole_seconds && !duration.is_whole_seconds() => errors.add(PRECISION, &[&key]),
                Ok(_) => {}
            }
        }
        let Some((key, value)) = self.progress_deadline().filter(|(_, value)| !value.is_empty()) else { return };
        let name = "progress-deadline";
        match Duration::parse(value) {
            Err(_) => errors.invalid(value, key),
            Ok(duration) if !duration.is_whole_seconds() => {
                errors.add(format!("{name}={value} is not at second precision"), &[key]);
            }
            Ok(duration) if duration.0 < 0 => errors.add(format!("{name}={value} must be positive"), &[key]),
            Ok(_) => {}
        }
    }

    /// The one key of another group.
    pub(super) fn progress_deadline(self) -> Option<(&'static str, &'a str)> {
        PROGRESS.into_iter().find_map(|key| Some((key, self.0.get(key)?.as_str())))
    }

    fn metric(self, config: &Config, errors: &mut Errors) {
        let Some((key, metric)) = self.get(METRIC) else { return };
        let class = self.get(CLASS).map_or(config.class.as_str(), |(_, class)| class);
        let wrong = match class {
            KPA => !matches!(metric, "concurrency" | "rps"),
            HPA => metric.is_empty(),
            _ => false,
        };
        if wrong {
            errors.invalid(metric, &key);
        }
    }

    fn initial(self, config: &Config, errors: &mut Errors) {
        let Some((key, value)) = self.get(INITIAL) else { return };
        match value.parse::<i64>() {
            Err(_) => errors.invalid(value, &key),
            Ok(number) if number < 0 => errors.invalid(value, &format!("{key} must be greater than 0")),
            Ok(0) if !config.allow_zero_initial_scale => {
                errors.invalid(value, &format!("{key}=0 not allowed by cluster"));
            }
            Ok(_) => {}
        }
    }
}
