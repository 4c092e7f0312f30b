//! What was counted since the start, by function.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_store::tasks::{TaskProgress, TaskState};
use kip_wire::TaskCounts;
use parking_lot::Mutex;

/// What was counted of a function, in all and by tenant. Tenants are those of keys, so they are few.
#[derive(Debug, Default)]
struct FunctionStats {
    all: TaskCounts,
    by_tenant: BTreeMap<Arc<str>, TaskCounts>,
}

#[derive(Debug, Default)]
pub(crate) struct Stats(Mutex<BTreeMap<Arc<str>, FunctionStats>>);

impl Stats {
    fn with(&self, function: &Arc<str>, tenant: &Arc<str>, change: impl Fn(&mut TaskCounts)) {
        let mut functions = self.0.lock();
        let of = functions.entry(function.clone()).or_default();
        change(&mut of.all);
        change(of.by_tenant.entry(tenant.clone()).or_default());
    }

    pub(crate) fn accepted(&self, function: &Arc<str>, tenant: &Arc<str>) {
        self.with(function, tenant, |counted| counted.accepted += 1);
    }

    pub(crate) fn note(&self, function: &Arc<str>, tenant: &Arc<str>, to: &TaskProgress, now: i64) {
        self.with(function, tenant, |counted| {
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
        self.0.lock().get(function).map(|of| of.all).unwrap_or_default()
    }

    pub(crate) fn of_tenant(&self, function: &str, tenant: &str) -> TaskCounts {
        self.0.lock().get(function).and_then(|of| of.by_tenant.get(tenant)).copied().unwrap_or_default()
    }

    /// Forgets what was counted of the others.
    pub(crate) fn keep(&self, stays: impl Fn(&Arc<str>) -> bool) {
        self.0.lock().retain(|function, _| stays(function));
    }

    pub(crate) fn functions(&self) -> Vec<Arc<str>> {
        self.0.lock().keys().cloned().collect()
    }
}
