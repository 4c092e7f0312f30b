//! What was counted since the start, by function.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_store::tasks::{TaskProgress, TaskState};
use kip_wire::TaskCounts;
use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Stats(Mutex<BTreeMap<Arc<str>, TaskCounts>>);

impl Stats {
    fn with<T>(&self, function: &Arc<str>, change: impl FnOnce(&mut TaskCounts) -> T) -> T {
        let mut all = self.0.lock();
        change(all.entry(function.clone()).or_default())
    }

    pub(crate) fn accepted(&self, function: &Arc<str>) {
        self.with(function, |counted| counted.accepted += 1);
    }

    pub(crate) fn note(&self, function: &Arc<str>, to: &TaskProgress, now: i64) {
        self.with(function, |counted| {
            let count = match to.state {
                TaskState::Running => &mut counted.runs,
                TaskState::Retrying => &mut counted.retried,
                TaskState::Succeeded => &mut counted.succeeded,
                TaskState::Failed => &mut counted.failed,
                TaskState::Stopped => &mut counted.stopped,
                TaskState::Expired => &mut counted.expired,
                TaskState::Invalid => &mut counted.invalid,
                TaskState::Enqueued | TaskState::Stopping => return,
            };
            *count += 1;
            if to.state == TaskState::Succeeded {
                let took = now.saturating_sub(to.started).max(0).unsigned_abs();
                counted.mean_ms = if counted.mean_ms == 0 { took } else { (counted.mean_ms * 7 + took) / 8 };
            }
        });
    }

    pub(crate) fn of(&self, function: &str) -> TaskCounts {
        self.0.lock().get(function).copied().unwrap_or_default()
    }

    /// Forgets what was counted of the others.
    pub(crate) fn keep(&self, stays: impl Fn(&Arc<str>) -> bool) {
        self.0.lock().retain(|function, _| stays(function));
    }

    pub(crate) fn functions(&self) -> Vec<Arc<str>> {
        self.0.lock().keys().cloned().collect()
    }
}
