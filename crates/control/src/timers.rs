//! One timer for each core that wants one, all in one task: ten thousand sleeping functions cost ten thousand entries, not tasks.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use kip_fleet::CoreNumber;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The wakes that cores asked for.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    entries: Mutex<Entries>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    by_time: BTreeSet<(u64, CoreNumber)>,
    by_core: HashMap<CoreNumber, u64>,
}

impl Timers {
    /// Sets a core's wake, boot time. Of two settings the earlier stays: they may arrive in another order than they were
    /// made, and a wake too many costs nothing.
    pub(crate) fn set(&self, core: CoreNumber, at: u64) {
        let mut entries = self.entries.lock();
        match entries.by_core.get(&core).copied() {
            Some(before) if before <= at => return,
            Some(before) => drop(entries.by_time.remove(&(before, core))),
            None => {}
        }
        entries.by_core.insert(core, at);
        let first = entries.by_time.first().is_none_or(|(first, _)| at < *first);
        entries.by_time.insert((at, core));
        if first {
            self.changed.notify_one();
        }
    }

    /// Waits for the next core that is due.
    pub(crate) async fn next(&self) -> CoreNumber {
        loop {
            let wait = {
                let mut entries = self.entries.lock();
                let now = kip_host::clock::boot_millis();
                match entries.by_time.first().copied() {
                    Some((at, core)) if at <= now => {
                        entries.by_time.remove(&(at, core));
                        entries.by_core.remove(&core);
                        return core;
                    }
                    Some((at, _)) => Some(Duration::from_millis(at - now)),
                    None => None,
                }
            };
            let pause = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pause => {}
                () = self.changed.notified() => {}
            }
        }
    }
}
