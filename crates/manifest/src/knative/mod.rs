//! Knative's autoscaling keys into what decides: a version's annotations over the operator's configuration, with Knative's
//! defaults, ranges and error texts.

mod annotations;
mod config;
mod field;
mod go;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use annotations::Annotations;
use config::Config;
use field::Errors;
use go::Duration;
use kip_spec::scaling::Kpa;
use kip_spec::scaling::kpa::{self, Algorithm, Metric};
use kip_spec::{Finite, Millis};
use serde::{Deserialize, Serialize};

/// The prefix of annotations.
pub const GROUP: &str = "autoscaling.knative.dev";
const PROGRESS: [&str; 2] = ["serving.knative.dev/progress-deadline", "serving.knative.dev/progressDeadline"];
/// The class that is decided here.
pub const KPA: &str = "kpa.autoscaling.knative.dev";
const HPA: &str = "hpa.autoscaling.knative.dev";
/// The most requests at once that Knative lets one instance declare.
pub const MOST_CONCURRENCY: u32 = 1_000;

/// What scaling is declared by. Keys and values as in Knative, values as strings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// Of the version.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Of the operator: the data of `config-autoscaler`.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// The hard limit of requests at once in one instance; 0 is none.
    #[serde(default)]
    pub container_concurrency: i64,
}

/// Settings, resolved, with what is not part of a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedSettings {
    /// The scaler's class.
    pub class: String,
    /// What decides.
    pub kpa: Kpa,
    /// The largest `max-scale` that a version may ask for; 0 is any.
    pub max_scale_limit: u32,
    /// Keys that mean nothing.
    pub unknown: Vec<String>,
}

impl Declaration {
    /// Whether a bound or target is written, for the version or for all.
    pub fn says(&self, key: &str) -> bool {
        let names = annotations::NAMES.iter().filter(|(dashed, _)| *dashed == key);
        let camel = |name: &&(&str, &'static str)| {
            !name.1.is_empty() && self.annotations.contains_key(&format!("{GROUP}/{}", name.1))
        };
        self.annotations.contains_key(&format!("{GROUP}/{key}"))
            || names.clone().any(|name| camel(&name))
            || self.config.contains_key(key)
    }

    /// Checks everything and fills in what is left out; an error is a list of Knative's own error lines.
    pub fn resolve(&self) -> Result<ResolvedSettings, Vec<String>> {
        let full = self.full();
        let annotations = Annotations(&full);
        let (config, read) = Config::read(&self.config, annotations.get(annotations::MAX).is_some());
        let mut errors: Errors = annotations.check(&config);
        if !(0..=i64::from(MOST_CONCURRENCY)).contains(&self.container_concurrency) {
            errors.outside(0, self.container_concurrency, MOST_CONCURRENCY, "containerConcurrency");
        }
        let lines: Vec<String> = read.err().into_iter().chain(errors.lines()).collect();
        if !lines.is_empty() {
            return Err(lines);
        }
        let mut unknown = annotations.unknown();
        unknown.extend(self.config.keys().filter(|key| !config::KEYS.contains(&key.as_str())).cloned());
        let class = annotations.get(annotations::CLASS).map_or(config.class.as_str(), |(_, class)| class).to_owned();
        let max_scale_limit = count(config.max_scale_limit);
        let kpa = self.kpa(annotations, &config);
        Ok(ResolvedSettings { class, kpa, max_scale_limit, unknown })
    }

    /// Annotations with their prefix, which may be left out.
    fn full(&self) -> BTreeMap<String, String> {
        let full = |(key, value): (&String, &String)| {
            let key = if key.contains('/') { key.clone() } else { format!("{GROUP}/{key}") };
            (key, value.clone())
        };
        self.annotations.iter().map(full).collect()
    }

    fn kpa(&self, of: Annotations<'_>, config: &Config) -> Kpa {
        let rps = of.get(annotations::METRIC).is_some_and(|(_, metric)| metric == "rps");
        let limit = f64::from(u32::try_from(self.container_concurrency).unwrap_or(0));
        let (mut total, mut utilization) = match rps {
            // It cannot be set for all but by the annotation.
            true => (config.rps_target, 0.7),
            false if limit == 0.0 => (config.concurrency_target, config.utilization),
            false => (limit, config.utilization),
        };
        if let Some(target) = of.float(annotations::TARGET_NAME) {
            total = if !rps && limit > 0.0 { target.min(limit) } else { target };
        }
        if let Some(percent) = of.float(annotations::UTILIZATION) {
            utilization = percent / 100.0;
        }
        let window = of.duration(annotations::WINDOW_NAME).unwrap_or(config.window);
        let panic_percent = of.float(annotations::PANIC_WINDOW_NAME).unwrap_or(config.panic_window);
        let threshold = of.float(annotations::PANIC_THRESHOLD_NAME).unwrap_or(config.panic_threshold);
        let weighted = of.get(annotations::ALGORITHM).is_some_and(|(_, value)| value.starts_with("weighted"));
        let initial = of.int(annotations::INITIAL).filter(|scale| *scale != 0 || config.allow_zero_initial_scale);
        let deadline = of.progress_deadline().and_then(|(_, value)| Duration::parse(value).ok());
        let scale = |name, default| count(of.int(name).unwrap_or(default));
        let length = |name, default: Duration| of.duration(name).unwrap_or(default).millis();
        let burst = of.float(annotations::BURST).unwrap_or(config.target_burst_capacity);
        Kpa {
            metric: if rps { Metric::Rps } else { Metric::Concurrency },
            target: Finite::constant((total * utilization).max(Kpa::LEAST_TARGET)),
            total: Finite::constant(total),
            algorithm: if weighted { Algorithm::WeightedExponential } else { Algorithm::Linear },
            stable_window: window.millis(),
            panic_window: panic_window(window.millis(), panic_percent),
            panic_threshold: Finite::constant(threshold / 100.0),
            min_scale: scale(annotations::MIN, config.min_scale),
            max_scale: scale(annotations::MAX, config.max_scale),
            initial_scale: count(initial.unwrap_or(config.initial_scale)),
            activation_scale: scale(annotations::ACTIVATION, 0),
            scale_down_delay: length(annotations::DELAY, config.scale_down_delay),
            retention: length(annotations::RETENTION, config.retention),
            grace: config.grace.millis(),
            scale_to_zero: config.scale_to_zero,
            target_burst_capacity: Finite::constant(burst),
            activator_capacity: Finite::constant(config.activator_capacity),
            max_scale_up_rate: Finite::constant(config.max_scale_up_rate),
            max_scale_down_rate: Finite::constant(config.max_scale_down_rate),
            progress_deadline: deadline.map_or(Kpa::PROGRESS_DEADLINE, Duration::millis),
            declared: kpa::KpaDeclaration { annotations: self.annotations.clone(), config: self.config.clone() },
        }
    }
}

/// The key that is nearly this one, in its newer spelling.
pub fn nearest(key: &str) -> Option<&'static str> {
    let name = key.strip_prefix(GROUP).map_or(key, |rest| rest.trim_start_matches('/'));
    let known = annotations::NAMES.iter().map(|(dashed, _)| *dashed).chain(config::KEYS);
    let scored = known.map(|known| (strsim::damerau_levenshtein(name, known), known));
    scored.min().filter(|(distance, _)| *distance <= 2).map(|(_, known)| known)
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// A share of the stable window in whole seconds, one at least.
fn panic_window(window: Millis, percent: f64) -> Millis {
    let seconds = (window.0 as f64 * percent / 100.0 / 1_000.0).round();
    Millis::from_secs(u64::from(kip_spec::round::up(seconds.max(1.0))))
}

/// What was resolved, by Knative's names: values as Knative prints them.
pub fn shown(resolved: &ResolvedSettings) -> serde_json::Value {
    let Kpa { metric, algorithm, .. } = resolved.kpa;
    let kpa = &resolved.kpa;
    let long = |millis: Millis| Duration::from(millis).to_string();
    let mut shown = serde_json::json!({
        "class": resolved.class,
        "metric": metric,
        "target": kpa.target,
        "total": kpa.total,
        "metric-aggregation-algorithm": algorithm,
        "window": long(kpa.stable_window),
        "panic-window": long(kpa.panic_window),
        "panic-threshold-percentage": kpa.panic_threshold.get() * 100.0,
        "min-scale": kpa.min_scale,
        "max-scale": kpa.max_scale,
        "max-scale-limit": resolved.max_scale_limit,
        "initial-scale": kpa.initial_scale,
        "activation-scale": kpa.activation_scale,
        "scale-down-delay": long(kpa.scale_down_delay),
        "scale-to-zero-pod-retention-period": long(kpa.retention),
        "scale-to-zero-grace-period": long(kpa.grace),
        "enable-scale-to-zero": kpa.scale_to_zero,
        "target-burst-capacity": kpa.target_burst_capacity,
        "activator-capacity": kpa.activator_capacity,
        "max-scale-up-rate": kpa.max_scale_up_rate,
        "max-scale-down-rate": kpa.max_scale_down_rate,
        "progress-deadline": long(kpa.progress_deadline),
    });
    // Another class has metrics of its own.
    let asked = kpa
        .declared
        .annotations
        .iter()
        .find(|(key, _)| key.trim_start_matches(GROUP).trim_start_matches('/') == "metric");
    if let Some((_, asked)) = asked.filter(|_| resolved.class != KPA) {
        shown["metric"] = asked.as_str().into();
    }
    if !resolved.unknown.is_empty() {
        let of =
            |key: &String| nearest(key).map_or_else(|| key.clone(), |near| format!("{key} (did you mean {near}?)"));
        shown["unknown"] = resolved.unknown.iter().map(of).collect::<Vec<_>>().into();
    }
    shown
}
