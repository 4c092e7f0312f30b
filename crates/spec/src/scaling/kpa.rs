//! Knative's autoscaler as one version uses it: annotations over the operator's configuration, resolved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Finite, Millis};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Requests in flight, averaged over time.
    #[default]
    Concurrency,
    /// Requests that arrive in a second.
    Rps,
}

impl Metric {
    /// Its name as users read and write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Rps => "rps",
        }
    }
}

/// How seconds are averaged into a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// All count the same.
    #[default]
    Linear,
    /// The newer, the more.
    WeightedExponential,
}

/// Everything that decides, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kpa {
    /// What is counted.
    pub metric: Metric,
    /// What one instance is meant to have of it.
    pub target: Finite,
    /// What one instance can have of it; `target` is a share of this.
    pub total: Finite,
    /// How the windows average.
    pub algorithm: Algorithm,
    /// The calm window, whole seconds; also how long a panic lasts after its last cause.
    pub stable_window: Millis,
    /// The alert window, whole seconds.
    pub panic_window: Millis,
    /// A panic begins when the panic window wants this many times the ready instances.
    pub panic_threshold: Finite,
    /// Never fewer, while reachable.
    pub min_scale: u32,
    /// Never more; 0 is no limit.
    pub max_scale: u32,
    /// What a version starts with, once.
    pub initial_scale: u32,
    /// The smallest count above zero; 0 is none.
    pub activation_scale: u32,
    /// The count falls only to the largest of this long.
    pub scale_down_delay: Millis,
    /// The last instance stays at least this long after the version became inactive.
    pub retention: Millis,
    /// How long the way to the buffering proxy may take before the last instance goes.
    pub grace: Millis,
    /// Whether the last instance ever goes.
    pub scale_to_zero: bool,
    /// How many requests at once the instances should take without being buffered; -1 buffers always, 0 only at zero.
    pub target_burst_capacity: Finite,
    /// What one buffering proxy is counted for.
    pub activator_capacity: Finite,
    /// Times the ready instances that one tick may reach.
    pub max_scale_up_rate: Finite,
    /// The part of the ready instances that one tick must keep is one over this.
    pub max_scale_down_rate: Finite,
    /// A version that is not up after this, and half a minute more, may go to zero.
    pub progress_deadline: Millis,
    /// What it was resolved from, for showing.
    #[serde(default)]
    pub declared: KpaDeclaration,
}

/// Knative's own keys and values, as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KpaDeclaration {
    /// Of the version.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Of the operator.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

impl Kpa {
    /// A decision is made this often.
    pub const TICK: Millis = Millis::from_secs(2);
    /// A target below this is raised to it.
    pub const LEAST_TARGET: f64 = 0.01;
    /// Beyond `progress_deadline`, before a version that never was up may go to zero.
    pub const ACTIVATION_BUFFER: Millis = Millis::from_secs(30);
    /// `progress_deadline` where nothing is set.
    pub const PROGRESS_DEADLINE: Millis = Millis::from_secs(600);

    /// How many buffering proxies Knative would give so many ready instances.
    pub fn activators(&self, ready: u32) -> u32 {
        const LEAST: f64 = 2.0;
        let burst = self.target_burst_capacity.get();
        if burst == 0.0 {
            return 2;
        }
        let cover = f64::from(ready) * self.total.get() + burst.max(0.0);
        crate::round::up(LEAST.max(cover / self.activator_capacity.get()))
    }
}
