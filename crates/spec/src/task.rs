//! Tasks as the store, the queue and everybody who shows them know them: number, state, and what changes in their life.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where a task stands. The words are those of Function Compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// It waits for its first run.
    Enqueued,
    /// An instance works on it.
    Running,
    /// A run failed, and it waits for the next.
    Retrying,
    /// It was told to stop and the run goes on for now.
    Stopping,
    /// It is over: the function answered with success.
    Succeeded,
    /// It is over: the last run that it may have failed.
    Failed,
    /// It is over: it was told to stop.
    Stopped,
    /// It is over: it grew too old before it could run.
    Expired,
    /// It is over: its function is gone.
    Invalid,
}

impl TaskState {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Enqueued,
        Self::Running,
        Self::Retrying,
        Self::Stopping,
        Self::Succeeded,
        Self::Failed,
        Self::Stopped,
        Self::Expired,
        Self::Invalid,
    ];

    /// Whether nothing comes after it.
    pub fn is_terminal(self) -> bool {
        self.number() >= OPEN_BELOW
    }

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enqueued => "Enqueued",
            Self::Running => "Running",
            Self::Retrying => "Retrying",
            Self::Stopping => "Stopping",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Stopped => "Stopped",
            Self::Expired => "Expired",
            Self::Invalid => "Invalid",
        }
    }

    /// The state of this name, in any case of letters.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name().eq_ignore_ascii_case(name))
    }

    /// As it is stored. The numbers are part of the file's format.
    pub fn number(self) -> u8 {
        match self {
            Self::Enqueued => 0,
            Self::Running => 1,
            Self::Retrying => 2,
            Self::Stopping => 3,
            Self::Succeeded => 10,
            Self::Failed => 11,
            Self::Stopped => 12,
            Self::Expired => 13,
            Self::Invalid => 14,
        }
    }

    /// The state of this number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }
}

/// States with smaller numbers are open.
pub const OPEN_BELOW: u8 = 10;

/// A task's number: the order in which tasks were accepted. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct TaskNumber(pub u64);

/// What of a task changes in its life. Times are milliseconds since 1970 unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskProgress {
    /// Where it stands.
    pub state: TaskState,
    /// Counts claims; what belongs to an earlier one comes too late.
    pub epoch: u32,
    /// The server that claimed it. Empty: this one, whichever that is.
    pub server: Arc<str>,
    /// The start of that server.
    pub boot: u32,
    /// The revision that its latest run was on, 0 before the first.
    pub revision: u64,
    /// Until when the claim holds without being renewed, boot-time milliseconds of the host.
    pub lease_until: u64,
    /// Not to be run before.
    pub run_at: i64,
    /// Not to be begun after.
    pub expires_at: i64,
    /// When its latest run began; 0 before the first.
    pub started: i64,
    /// When it was over; 0 before.
    pub ended: i64,
    /// Runs that the function answered with an error.
    pub errors: u32,
    /// Runs that ended with the instance or with the server.
    pub crashes: u32,
    /// Times there was no room to run it.
    pub refusals: u32,
    /// The instance of its latest run.
    pub instance: Option<Arc<str>>,
    /// The status that the function answered with, 0 without an answer.
    pub status: u16,
    /// What kind of failure it was.
    pub error_kind: Option<String>,
    /// The failure in a sentence.
    pub error: Option<String>,
}
