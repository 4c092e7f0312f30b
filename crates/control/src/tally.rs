//! What has happened to a function's instances since the server was started.

use std::sync::atomic::{AtomicU64, Ordering};

use kip_fleet::{Change, Reason, State};

/// What has happened to a function's instances.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) starts: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) wakes: AtomicU64,
    pub(crate) evictions: AtomicU64,
}

impl Tally {
    pub(crate) fn note(&self, change: &Change) {
        let add = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match change.to {
            State::Starting => add(&self.starts),
            State::Waking => add(&self.wakes),
            _ => {}
        }
        // A reason goes along from one change to the next; the first is counted.
        match (change.from, change.why) {
            (Some(State::Requested | State::Starting | State::Initializing), Reason::StartFailed(_)) => {
                add(&self.failed)
            }
            (Some(State::Draining | State::Stopping), why) if why.is_eviction() => {}
            (_, why) if why.is_eviction() => add(&self.evictions),
            _ => {}
        }
    }
}
