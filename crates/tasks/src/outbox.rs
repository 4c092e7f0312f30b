//! Deliveries that are committed and wait for room `events`.

use std::sync::atomic::{AtomicU64, Ordering};

use kip_store::tasks::{Delivery, NewDelivery, TaskNumber};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Where what is kept of a timer stands among what is kept for functions. No version or alias has such a name.
pub(crate) const TIMER: &str = "@timer";

/// Deliveries that are committed and that nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) committed: Mutex<Vec<Delivery>>,
    pub(crate) more: Notify,
    /// Those whose outcome is not known yet, taken or not.
    pub(crate) open: AtomicU64,
}

impl Outbox {
    /// Deliveries that were stored under these numbers.
    pub(crate) fn add(&self, task: TaskNumber, new: Vec<NewDelivery>, ids: &[u64]) {
        let stored = new.into_iter().zip(ids);
        self.extend(stored.map(|(NewDelivery { target, run_at }, id)| Delivery {
            id: *id,
            task,
            target,
            attempts: 0,
            run_at,
        }));
    }

    pub(crate) fn extend(&self, deliveries: impl Iterator<Item = Delivery>) {
        let mut committed = self.committed.lock();
        let before = committed.len();
        committed.extend(deliveries);
        let added = committed.len() - before;
        drop(committed);
        if added > 0 {
            self.open.fetch_add(added as u64, Ordering::Relaxed);
            self.more.notify_one();
        }
    }

    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}
