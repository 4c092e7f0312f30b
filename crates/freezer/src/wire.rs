//! What is said between the server and its helper: one JSON value a line, each with the number of its request.

use serde::{Deserialize, Serialize};

use crate::driver::{Call, CallFailure, State};
use crate::report::Report;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Its number; the answer bears it.
    pub(crate) id: u64,
    /// When nobody waits any more. The helper ends itself then, if its server is gone.
    pub(crate) deadline_ms: u64,
    pub(crate) ask: Ask,
}

/// What a helper can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Driver, devices, holders.
    Report,
    /// How far a process is.
    State {
        /// The process.
        pid: u32,
    },
    /// Whether a process uses CUDA.
    RestoreThread {
        /// The process.
        pid: u32,
    },
    /// Lock, checkpoint, restore or unlock.
    Act {
        /// Which of them.
        call: Call,
        /// The process.
        pid: u32,
        /// For a lock: when the driver itself gives up.
        timeout_ms: u32,
    },
}

/// The first line of a helper: CUDA is initialised, or will never be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HelperReady {
    /// The helper's process id.
    pub(crate) hello: u32,
    /// How long the initialisation took.
    pub(crate) took_us: u64,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    /// How long the calls took, without the way here and back.
    pub(crate) took_us: u64,
    pub(crate) answer: Answer,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was done.
    Done,
    /// How far the process is.
    State(State),
    /// The thread that would do the work.
    RestoreThread(i32),
    /// What there is.
    Report(Box<Report>),
    /// The driver refused.
    Failed(CallFailure),
    /// There is no driver.
    NoDriver(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let ask = Ask::Act { call: Call::Lock, pid: 7, timeout_ms: 2_000 };
        let request = Request { id: 3, deadline_ms: 5, ask };
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(line, r#"{"id":3,"deadline_ms":5,"ask":{"act":{"call":"lock","pid":7,"timeout_ms":2000}}}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        let reply = Reply { id: 3, took_us: 9, answer: Answer::Failed(CallFailure::cuda("cuX", 304)) };
        let line = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
    }
}
