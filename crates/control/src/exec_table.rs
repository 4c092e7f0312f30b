//! The sessions of people in instances that are open: how many there may be, and how each learns that it must end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kip_spec::InstanceId;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// How long whoever ends an instance waits for its sessions.
const END_LIMIT: Duration = Duration::from_secs(8);

/// What bounds sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecOptions {
    /// At once in an instance.
    pub of_instance: usize,
    /// At once in all.
    pub sessions: usize,
    /// A session ends after this long without a byte in either direction.
    pub idle: Duration,
}

impl Default for ExecOptions {
    fn default() -> Self {
        Self { of_instance: 8, sessions: 64, idle: Duration::from_secs(600) }
    }
}

/// Why a session must end that neither its program nor its person has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecEnd {
    /// Its instance ends.
    Instance,
    /// Its instance gives its room back and sleeps.
    Sleep,
    /// The server ends.
    Server,
}

/// The sessions there are.
#[derive(Debug, Default)]
pub(crate) struct ExecTable {
    pub(crate) open: Mutex<BTreeMap<u64, OpenSession>>,
    pub(crate) next: AtomicU64,
    pub(crate) closed: AtomicBool,
    /// One has ended.
    pub(crate) ended: Notify,
}

/// A session.
#[derive(Debug)]
pub(crate) struct OpenSession {
    pub(crate) instance: Option<InstanceId>,
    pub(crate) end: watch::Sender<Option<ExecEnd>>,
}

impl ExecTable {
    /// Ends the sessions of an instance and waits until they have ended.
    pub(crate) async fn end_of(&self, instance: InstanceId, why: ExecEnd) {
        self.end(|session| session.instance == Some(instance), why).await;
    }

    /// Ends all sessions; none can be opened any more.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.end(|_| true, ExecEnd::Server).await;
    }

    async fn end(&self, which: impl Fn(&OpenSession) -> bool, why: ExecEnd) {
        let over = async {
            loop {
                // Made before the look, so that no end in between is missed.
                let ended = self.ended.notified();
                let left = {
                    let open = self.open.lock();
                    let mut left = 0;
                    for session in open.values().filter(|session| which(session)) {
                        session.end.send_replace(Some(why));
                        left += 1;
                    }
                    left
                };
                if left == 0 {
                    return;
                }
                ended.await;
            }
        };
        if tokio::time::timeout(END_LIMIT, over).await.is_err() {
            tracing::warn!(?why, "an exec session has not ended in time");
        }
    }
}
