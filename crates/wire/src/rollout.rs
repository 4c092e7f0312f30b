//! Rollouts of aliases.

use kip_spec::FunctionName;
use serde::{Deserialize, Serialize};

/// How a rollout is to go. What is left out has the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutSettings {
    /// The new version, such as 4 or r12.
    pub to: String,
    /// Ascending shares of the new version in percent that end with 100; `10,30,60,100` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<String>,
    /// How long each step is observed, milliseconds; 300,000 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// How long instances of the old version sleep after the last step, milliseconds; 600,000 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_ms: Option<u64>,
    /// A version is judged by so many requests at least; 20 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_requests: Option<u64>,
    /// It is aborted when so many more of a thousand requests fail than with the old version; 20 if left out, 1,000 never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_errors_per_mille: Option<u32>,
    /// It is aborted when the 99th percentile exceeds that of the old version by so many percent; 100 if left out, 0 never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_slower_percent: Option<u32>,
    /// It is aborted when so many starts in a row fail; 3 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_starts: Option<u32>,
    /// Where the new version finds no room, the old version's instances sleep or end before it is ready, and requests wait for it.
    #[serde(default)]
    pub park_old: bool,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RolloutInfo {
    /// The function.
    pub function: FunctionName,
    /// The alias that moves.
    pub alias: String,
    /// The new version.
    pub to: String,
    /// Where the alias pointed, with shares in percent.
    pub before: String,
    /// The shares of the new version, in percent.
    pub steps: Vec<String>,
    /// How long each step is observed, milliseconds.
    pub every_ms: u64,
    /// `preparing`, `observing`, `completed` or `aborted`.
    pub stage: String,
    /// It stands still.
    pub paused: bool,
    /// Steps whose share the new version has.
    pub step: u32,
    /// The share that the new version has now, in percent.
    pub percent: String,
    /// When it began, milliseconds since 1970.
    pub started: i64,
    /// When its stage began, milliseconds since 1970.
    pub since: i64,
    /// The name of the key that started it; empty for the server.
    pub by: String,
    /// Instances of the new version that can serve.
    pub ready: u32,
    /// Another instance of the new version waits for room.
    pub waits_for_room: bool,
    /// Instances of the old version sleep or end, and requests wait for the new version.
    #[serde(default)]
    pub old_is_parked: bool,
    /// Requests of the new version since the step began.
    pub new: RolloutTraffic,
    /// Those of the old one.
    pub old: RolloutTraffic,
    /// Why it was aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Requests of a version since a step of a rollout began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RolloutTraffic {
    /// How many ended.
    pub requests: u64,
    /// Those that were answered with a status of 500 or more.
    pub failed: u64,
    /// The 99th percentile of their time, milliseconds.
    pub p99_ms: Option<u64>,
}

/// A command to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutOrder {
    /// What is to be done.
    pub action: RolloutAction,
}

/// What a rollout can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutAction {
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Give the new version everything now.
    Promote,
    /// Point the alias back.
    Abort,
}
