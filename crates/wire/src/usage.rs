//! Usage, and advice about settings.

use std::collections::BTreeMap;

use kip_spec::{FunctionName, VersionId};
use serde::{Deserialize, Serialize};

/// What the instances of a function spent their time on, as far back as records are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FunctionUsage {
    /// The function.
    pub function: FunctionName,
    /// When the oldest instance that is counted was made, milliseconds since 1970.
    pub since: Option<i64>,
    /// By version, oldest first.
    pub versions: Vec<VersionUsage>,
}

/// What the instances of a version spent their time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VersionUsage {
    /// Which.
    pub version: VersionId,
    /// How it is shown.
    #[serde(default)]
    pub label: String,
    /// Instances there were, those that live included.
    pub instances: u64,
    /// Those that live.
    pub living: u64,
    /// Requests they were given.
    pub served: u64,
    /// Milliseconds of all their lives; `times` adds up to it.
    pub total_ms: u64,
    /// Milliseconds by kind and state.
    pub times: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What was measured of a function.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Measurements {
    /// Milliseconds from the beginning of a start to readiness, the median, by how many were under way at once: 1, 4 and 16
    /// stand for one, up to four, and more.
    pub start_ms: BTreeMap<u32, u64>,
    /// Starts that were counted.
    pub starts: usize,
    /// Milliseconds from the beginning of a wake to readiness, the median, by the state that was left: paused, parked or spilled.
    #[serde(default)]
    pub wake_ms: BTreeMap<String, u64>,
    /// The median of what a request takes once it is with an instance, milliseconds.
    pub service_ms: Option<u64>,
    /// The longest request, milliseconds.
    pub longest_ms: Option<u64>,
    /// The longest time that a request was with an instance, milliseconds.
    #[serde(default)]
    pub longest_service_ms: Option<u64>,
    /// Requests that were counted.
    pub requests: usize,
    /// The most memory that an instance used, bytes.
    pub peak_memory: Option<u64>,
    /// The most requests that were with instances at once.
    pub peak_in_flight: u32,
    /// The most device memory that a living instance holds, bytes, where the driver tells.
    #[serde(default)]
    pub device_memory: Option<u64>,
}

/// A piece of advice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Advice {
    /// Which setting.
    pub setting: String,
    /// What it is.
    pub now: String,
    /// What would be better.
    pub better: String,
    /// Why, with the figures.
    pub why: String,
}

/// What is advised, and by which figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Recommendation {
    /// The figures.
    pub measured: Measurements,
    /// The advice; none if all is well, or nothing is known yet.
    pub advice: Vec<Advice>,
}

/// What is known of a revision since the server was started, from counters and histograms; requests are never sampled for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RevisionEvidence {
    /// The revision.
    pub version: VersionId,
    /// How it is shown.
    #[serde(default)]
    pub label: String,
    /// Requests that it served.
    pub requests: u64,
    /// Those that were answered with a status of 500 or more.
    pub failed: u64,
    /// Those whose caller left before there was a status.
    pub abandoned: u64,
    /// How long requests waited.
    pub queue: LatencySummary,
    /// From sending a request on to the answer's head.
    pub first_byte: LatencySummary,
    /// From arrival to the end.
    pub total: LatencySummary,
}

/// Durations, from a histogram: a percentile is the upper bound of its bucket, absent beyond the last bound (5 minutes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LatencySummary {
    /// How many.
    pub count: u64,
    /// The mean.
    pub mean_us: Option<u64>,
    /// The median.
    pub p50_us: Option<u64>,
    /// Of ten, nine took no longer.
    pub p90_us: Option<u64>,
    /// Of a hundred, 99 took no longer.
    pub p99_us: Option<u64>,
}
