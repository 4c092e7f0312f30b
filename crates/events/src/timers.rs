//! What is kept of jobs' timers.

use std::collections::BTreeMap;

use kip_spec::job::Timer;
use kip_wire::SkippedRun;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// Timers as they stand.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    pub(crate) kept: Mutex<BTreeMap<String, TimerState>>,
    pub(crate) earlier: Notify,
}

/// What is kept of a job's timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TimerState {
    /// What the rest is about: another timer begins anew.
    pub(crate) timer: Timer,
    /// All times up to this one have been looked at, milliseconds since 1970.
    pub(crate) behind: i64,
    /// What was said about pausing it since it was deployed.
    #[serde(default)]
    pub(crate) paused: Option<bool>,
    /// Times that were left out, and the latest of them.
    #[serde(default)]
    pub(crate) left_out: u64,
    #[serde(default)]
    pub(crate) last_left_out: Option<SkippedRun>,
}

impl TimerState {
    pub(crate) fn new(timer: Timer, now: i64) -> Self {
        Self { timer, behind: now, paused: None, left_out: 0, last_left_out: None }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.unwrap_or(self.timer.paused)
    }

    /// A time was looked at. A pause that came meanwhile has looked at all times up to its own.
    pub(crate) fn looked_at(&mut self, at: i64) {
        self.behind = if self.is_paused() { self.behind.max(at) } else { at };
    }

    pub(crate) fn leave_out(&mut self, at: i64, why: impl Into<String>) {
        self.left_out += 1;
        self.last_left_out = Some(SkippedRun { at, why: why.into() });
    }
}

impl Jobs {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, TimerState>> {
        self.kept.lock()
    }

    /// Timers from the store, and the names of those that cannot be read.
    pub(crate) fn read(stored: BTreeMap<String, String>) -> (Self, Vec<String>) {
        let (mut kept, mut unreadable) = (BTreeMap::new(), Vec::new());
        for (job, text) in stored {
            match serde_json::from_str(&text) {
                Ok(timer) => drop(kept.insert(job, timer)),
                Err(error) => unreadable.push(format!("the timer of {job} ({error})")),
            }
        }
        (Self { kept: Mutex::new(kept), earlier: Notify::new() }, unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_that_cannot_be_read_are_named() {
        let stored = BTreeMap::from([("f".to_owned(), "spoilt".to_owned())]);
        let (jobs, unreadable) = Jobs::read(stored);
        assert!(jobs.lock().is_empty() && unreadable[0].contains("timer of f"), "{unreadable:?}");
    }
}
