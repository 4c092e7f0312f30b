//! The instances of a body, and the order of a start and an end that meet: an end waits for a start that has nothing to end yet, and
//! a start that was ended before it began does not begin.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kip_spec::InstanceId;
use parking_lot::Mutex;

use crate::body::Error;

/// The instances there are, each with what its body knows of it.
#[derive(Debug)]
pub(crate) struct Roster<T> {
    table: Mutex<Table<T>>,
    /// Something has left [`Table::starting`].
    settled: tokio::sync::Notify,
}

#[derive(Debug)]
struct Table<T> {
    running: HashMap<InstanceId, Arc<T>>,
    /// Their start has neither made anything yet nor failed. Whoever is to end one waits for that.
    starting: HashSet<InstanceId>,
    /// Told to end before their start began.
    cancelled: HashSet<InstanceId>,
    /// Their start failed and left nothing; the end that follows has nothing to do.
    failed: HashSet<InstanceId>,
}

/// A start that has made nothing yet; while it lasts, whoever is to end the instance waits.
#[derive(Debug)]
pub(crate) struct StartGuard<'roster, T> {
    roster: &'roster Roster<T>,
    id: InstanceId,
}

impl<T> Drop for StartGuard<'_, T> {
    fn drop(&mut self) {
        self.roster.table.lock().starting.remove(&self.id);
        self.roster.settled.notify_waiters();
    }
}

impl<T> Default for Roster<T> {
    fn default() -> Self {
        let table = Table {
            running: HashMap::new(),
            starting: HashSet::new(),
            cancelled: HashSet::new(),
            failed: HashSet::new(),
        };
        Self { table: Mutex::new(table), settled: tokio::sync::Notify::new() }
    }
}

impl<T> Roster<T> {
    /// An instance that was added.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub(crate) fn known(&self, id: InstanceId) -> Result<Arc<T>, Error> {
        self.table.lock().running.get(&id).cloned().ok_or(Error::Unknown(id))
    }

    /// All that were added.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.table.lock().running.values().cloned().collect()
    }

    /// Those of these that were added.
    pub(crate) fn of(&self, ids: &[InstanceId]) -> Vec<Arc<T>> {
        let table = self.table.lock();
        ids.iter().filter_map(|id| table.running.get(id).cloned()).collect()
    }

    /// Adds one.
    pub(crate) fn add(&self, id: InstanceId, instance: Arc<T>) {
        self.table.lock().running.insert(id, instance);
    }

    /// Nothing of it is left.
    pub(crate) fn forget(&self, id: InstanceId) {
        self.table.lock().running.remove(&id);
    }

    /// Its start failed and left nothing.
    pub(crate) fn fail(&self, id: InstanceId) {
        self.table.lock().failed.insert(id);
    }

    /// Whether it was added, or its start is under way or has failed.
    #[cfg(feature = "docker")]
    pub(crate) fn has(&self, id: InstanceId) -> bool {
        let table = self.table.lock();
        table.running.contains_key(&id) || table.starting.contains(&id) || table.failed.contains(&id)
    }

    /// Begins a start, unless it was cancelled.
    pub(crate) fn begin(&self, id: InstanceId) -> Option<StartGuard<'_, T>> {
        let mut table = self.table.lock();
        if table.cancelled.remove(&id) {
            return None;
        }
        table.starting.insert(id);
        Some(StartGuard { roster: self, id })
    }

    /// The instance, once its start is settled; one that is not there yet will not be started.
    pub(crate) async fn find_or_cancel(&self, id: InstanceId) -> Option<Arc<T>> {
        loop {
            // Made before the look, so that no change in between is missed.
            let settled = self.settled.notified();
            {
                let mut table = self.table.lock();
                if !table.starting.contains(&id) {
                    let found = table.running.get(&id).cloned();
                    if found.is_none() && !table.failed.remove(&id) {
                        table.cancelled.insert(id);
                    }
                    return found;
                }
            }
            settled.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_waits_for_a_start_that_has_made_nothing_yet() {
        let roster: Roster<()> = Roster::default();
        let id = InstanceId { boot: 1, core: 1, sequence: 1 };
        let starting = roster.begin(id).expect("not cancelled");
        let mut end = Box::pin(roster.find_or_cancel(id));
        // Asked twice: it is still waiting after it has looked.
        for _ in 0..2 {
            let asked = std::future::poll_fn(|context| std::task::Poll::Ready(end.as_mut().poll(context))).await;
            assert!(asked.is_pending());
        }
        // As a start does that failed.
        roster.fail(id);
        drop(starting);
        assert!(end.await.is_none(), "nothing to end");
        let other = InstanceId { sequence: 2, ..id };
        assert!(roster.find_or_cancel(other).await.is_none());
        assert!(roster.begin(other).is_none(), "it was cancelled before it began");
        assert!(roster.begin(id).is_some(), "the failed one left nothing behind");
    }
}
