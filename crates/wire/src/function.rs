//! Functions, their versions and instances.

use std::collections::BTreeMap;

use kip_spec::function::FunctionSpec;
use kip_spec::{Code, FunctionName, InstanceId, VersionId};
use serde::{Deserialize, Serialize};

/// What became of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum VersionStatus {
    /// It is proving itself.
    Candidate,
    /// It serves, or has served.
    Serving,
    /// A newer one was deployed before it served.
    Replaced {
        /// Which.
        by: VersionId,
    },
    /// It did not become ready; what served before goes on serving.
    Failed {
        /// The stable code.
        code: Code,
        /// In a sentence.
        why: String,
        /// The detail and the program's last lines.
        detail: String,
    },
}

/// A function as users see it.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FunctionInfo {
    /// Its name.
    pub name: FunctionName,
    /// The version that serves, by the number of its revision in the store.
    pub version: VersionId,
    /// How that is shown: the number of the version, or `r` and the ordinal of the revision.
    #[serde(default)]
    pub label: String,
    /// Where requests without a qualifier go, with shares in percent; empty if the version that serves gets them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<(String, String)>,
    /// Instances that can serve now.
    pub hot: u32,
    /// Instances on the way there.
    pub starting: u32,
    /// Instances that sleep.
    pub asleep: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that wait.
    pub queued: u32,
    /// How long the oldest of them has waited, in milliseconds.
    pub oldest_waiting_ms: Option<u64>,
    /// What requests wait for, by version; only versions for which some do.
    #[serde(default)]
    pub waits: Vec<WaitInfo>,
    /// What scaling policies want, and why.
    #[serde(default)]
    pub scaling: Vec<ScalingInfo>,
    /// That nobody has used its provisioned instances for hours, and what releases them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminder: Option<String>,
    /// Starts that failed in a row.
    pub failed_starts: u32,
    /// What an instance lacks that waits for room, and who has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// A version of which starts fail, or instances end, again and again.
    #[serde(default)]
    pub crash_loop: Option<VersionId>,
    /// What is known of the last failed start.
    pub last_failure: Option<String>,
    /// The stable code of the last failed start.
    #[serde(default)]
    pub last_failure_code: Option<Code>,
    /// What became of the latest versions.
    pub outcomes: Vec<(VersionId, VersionStatus)>,
    /// How these versions are shown, by the numbers of their revisions in the store.
    #[serde(default)]
    pub labels: BTreeMap<u64, String>,
    /// The declaration, every default filled in.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub spec: FunctionSpec,
}

impl FunctionInfo {
    /// How a version of it is shown.
    pub fn label_of(&self, version: VersionId) -> String {
        match self.labels.get(&version.0) {
            Some(label) => label.clone(),
            None if version == self.version => self.label.clone(),
            None => version.to_string(),
        }
    }
}

/// Requests of a version that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WaitInfo {
    /// The version.
    pub version: VersionId,
    /// How it is shown.
    #[serde(default)]
    pub label: String,
    /// How many.
    pub queued: u32,
    /// How long the oldest has waited, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// For what, in a sentence.
    pub why: String,
}

/// An instance as users see it.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InstanceInfo {
    /// Its id.
    pub id: InstanceId,
    /// Its function.
    pub function: FunctionName,
    /// Its version, by the number of its revision in the store.
    pub version: VersionId,
    /// How that is shown.
    #[serde(default)]
    pub label: String,
    /// provisioned or on-demand.
    #[serde(default)]
    pub kind: String,
    /// Where it is in its life.
    pub state: String,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// The names of its devices.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Its pool, where there is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Its engine does not answer: it gets no requests, and may live.
    #[serde(default)]
    pub lost: bool,
    /// Its ready probe fails: it gets no requests.
    #[serde(default)]
    pub unready: bool,
    /// Why it is to be replaced, if it is.
    #[serde(default)]
    pub replace: Option<String>,
    /// What it waits for, if it waits for room.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// Requests it has now.
    pub in_flight: u32,
    /// Requests it was given in all.
    pub served: u64,
    /// Its main process, once it runs.
    pub process: Option<u32>,
    /// Where it listens, once it is ready.
    pub address: Option<String>,
    /// The most memory that it ever used, in bytes; only where one instance is asked for and where it is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

/// What was handed to what decides for a function, and what it decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DecisionRecording {
    /// The function.
    pub function: FunctionName,
    /// The first step, milliseconds since 1970.
    pub from: Option<i64>,
    /// The last step.
    pub to: Option<i64>,
    /// Steps.
    pub steps: usize,
    /// Snapshots and steps, for `kip simulate --replay`.
    pub recording: serde_json::Value,
}

/// A scaling policy as users see it: what it wants, what there is, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ScalingInfo {
    /// The version it decides about, or for whom it provisions.
    pub whom: String,
    /// `kpa` or `fc`.
    pub mode: String,
    /// What it wants before bounds.
    pub desired: Option<i64>,
    /// What it wants in the end.
    pub target: u32,
    /// Instances there are for it.
    pub current: u32,
    /// The averages it goes by: over the stable and the panic window, or of the period.
    pub averages: BTreeMap<String, f64>,
    /// Whether it panics.
    pub panic: bool,
    /// When it looked last, milliseconds since 1970.
    pub at: Option<i64>,
    /// Why.
    pub why: String,
}
