//! Tasks. The names are Function Compute's; fields that it does not have come after its own.

use serde::{Deserialize, Serialize};

/// A task as it is shown. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskInfo {
    /// Its id.
    pub task_id: String,
    /// Where it stands.
    pub status: String,
    /// The id of the request that brought it.
    pub request_id: String,
    /// The instance of its latest run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Which version or alias of the function.
    pub qualifier: String,
    /// The version that its latest run was on: its number, else `r` and its ordinal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The function.
    pub function_name: String,
    /// When its latest run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_time: Option<i64>,
    /// When its first run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_started_time: Option<i64>,
    /// Its runs, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<i64>,
    /// From the one to the other, or to now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// How often it was run again after an error.
    pub already_retried_times: u32,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_error_message: Option<String>,
    /// What it was given, if that was asked for: text, or base64 after `base64:`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_payload: Option<String>,
    /// What the function answered, up to 1 MiB: text, or base64 after `base64:`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_payload: Option<String>,
    /// The answer was longer than `tasks.result`, and only its beginning is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub result_cut: bool,
    /// What became of the words about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_status: Option<String>,
    /// Its steps, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<TaskEvent>,
    /// `task`, `invocation` or `job`.
    pub kind: String,
    /// Its number.
    pub number: u64,
    /// Whose it is.
    pub tenant: String,
    /// Who goes first: lower numbers do.
    pub priority: u8,
    /// One at a time of those with the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<String>,
    /// When it was accepted.
    pub created_time: i64,
    /// Not before.
    pub run_at: i64,
    /// Not to be begun after.
    pub expires_at: i64,
    /// Of a job: for which time of its schedule it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<i64>,
    /// Counts its runs: the function sees it too.
    pub epoch: u32,
    /// Runs that ended with an error.
    pub errors: u32,
    /// Runs that ended with the instance or the server.
    pub crashes: u32,
    /// Times without room.
    pub refusals: u32,
    /// What kind of failure it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<String>,
    /// The status that the function answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// What the function said of its progress last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// How many of the function's tasks go before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
    /// Why its function has no room for it now, where it waits and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// How long it will wait, by what the last tasks took and how many run at once; none where nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_wait_ms: Option<u64>,
}

/// A run of a task. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Attempt {
    /// Which: the function sees it too.
    pub epoch: u32,
    /// On which instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// When it began.
    pub started_time: i64,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<i64>,
    /// What its task became by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// A step of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskEvent {
    /// Counts them, from 1.
    pub event_id: u64,
    /// What it became, or `Progress`.
    pub status: String,
    /// When.
    pub timestamp: i64,
    /// More about it, as JSON.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event_detail: String,
}

/// What was counted of a function's tasks since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct TaskCounts {
    /// Taken.
    pub accepted: u64,
    /// Begun runs.
    pub runs: u64,
    /// Over, by how.
    pub succeeded: u64,
    /// See above.
    pub failed: u64,
    /// See above.
    pub stopped: u64,
    /// See above.
    pub expired: u64,
    /// See above.
    pub invalid: u64,
    /// Runs that failed and are tried again.
    pub retried: u64,
    /// What a run takes, milliseconds: the mean, the latest counting most.
    pub mean_ms: u64,
}

/// An answer about a task that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedTask {
    /// The id that it is known by.
    pub task_id: String,
    /// The id of the request that brought it.
    pub request_id: String,
    /// The same request was taken before.
    pub known: bool,
}

/// Some tasks, and where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskList {
    /// The tasks.
    pub tasks: Vec<TaskInfo>,
    /// What to ask for next; none at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Where a task stands after it was told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "TaskStanding")]
pub struct StopResult {
    /// Its state.
    pub status: String,
}
