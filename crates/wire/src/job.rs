//! Jobs and their schedules.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A job as it is shown. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobInfo {
    /// Its name, which is its function's.
    pub name: String,
    /// The version that runs.
    pub version: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it starts.
    pub directory: String,
    /// Runs that may fail and be followed by another.
    pub retries: u32,
    /// Only after these exit codes; none is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_only: Option<BTreeSet<u8>>,
    /// Never after these.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub retry_never: BTreeSet<u8>,
    /// How long a run may take, milliseconds.
    pub timeout_ms: u64,
    /// Runs at once.
    pub parallel: u32,
    /// When it runs by itself; none is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleInfo>,
    /// Runs that are not over.
    pub open: u64,
    /// Its latest run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<JobRun>,
    /// Its latest runs, the newest first, where one job is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<JobRun>,
}

/// A job's timer as it is shown. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduleInfo {
    /// The times: second, minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// The time zone in which they are meant; empty is UTC.
    pub zone: String,
    /// `forbid`, `queue`, `replace` or `allow`.
    pub overlap: String,
    /// `skip`, `once` or `each`.
    pub missed: String,
    /// A run that could not begin so long after its time does not begin, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// It rests.
    pub paused: bool,
    /// When it runs next; none while it rests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
    /// Times at which it did not run.
    pub left_out: u64,
    /// The latest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_left_out: Option<SkippedRun>,
}

/// A run of a job. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobRun {
    /// Its task.
    pub task_id: String,
    /// Where that stands.
    pub status: String,
    /// For which time of the timer; none for one that was made by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<i64>,
    /// When it was made.
    pub created_time: i64,
    /// When its first run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_started_time: Option<i64>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<i64>,
    /// How often it was begun.
    pub runs: u32,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A time at which a job did not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkippedRun {
    /// Which, milliseconds since 1970.
    pub at: i64,
    /// Why.
    pub why: String,
}
