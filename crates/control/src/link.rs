//! What the data plane needs of an instance, and how it learns that its connections must go.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use kip_engine::Liveness;
use kip_fleet::Reason;
use kip_freezer::journal::Entry;
use kip_host::endpoint::Endpoint;
use kip_spec::{InstanceId, Millis};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Version;
use crate::memo::MemoryState;

/// Nobody can ask to stay awake for longer by one answer.
const LONGEST_AWAKE: Millis = Millis::from_secs(24 * 3_600);

/// How far an instance has been seen to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Presence {
    /// Not at all.
    Here,
    /// No request is given to it any more, and it is being ended.
    Leaving,
    /// Nothing of it is left.
    Gone,
}

/// An instance that can be reached. Shared by everything that talks to it.
#[derive(Debug)]
pub struct Link {
    /// Its id.
    pub instance: InstanceId,
    /// Its version.
    pub version: Arc<Version>,
    /// Where it is reached.
    pub endpoint: Endpoint,
    /// Whether it lives, as its body says.
    life: watch::Receiver<Liveness>,
    /// How far its function has seen it end.
    presence: watch::Sender<Presence>,
    /// Its id as a header's value: every answer carries it.
    pub label: Option<HeaderValue>,
    /// What is said with each request to it, so that its program can refuse whoever does not know it.
    pub token: Option<HeaderValue>,
    /// Counts its sleeps. Connections of an earlier count are closed: a paused instance must have none that look alive.
    epoch: watch::Sender<u64>,
    /// Who alone keeps idle connections to it; 0 is nobody. See [`keep`](Self::keep).
    keeper: watch::Sender<u64>,
    /// When a byte last went either way or a request was last given to it, boot time.
    sign: AtomicU64,
    /// Streams that go on only when their caller reads or writes.
    with_callers: AtomicU32,
    /// The most memory it was seen to use, in bytes; 0 while nobody has looked.
    peak_memory: AtomicU64,
    /// What it was last seen to hold of its device, in bytes; 0 while nobody has looked.
    device_memory: AtomicU64,
    /// It was seen to find the files of its version where they are shown to it.
    sees_code: AtomicBool,
    /// Why it is being ended, once it is.
    end: OnceLock<Reason>,
    /// It asked not to be paused before this boot time.
    awake_until: AtomicU64,
    /// Where its memory is, and the processes that the driver froze or restored.
    memory: Mutex<(MemoryState, Option<Box<Entry>>)>,
}

impl Link {
    pub(crate) fn new(
        instance: InstanceId,
        version: Arc<Version>,
        endpoint: Endpoint,
        life: watch::Receiver<Liveness>,
        token: Option<HeaderValue>,
    ) -> Self {
        let sign = AtomicU64::new(kip_host::clock::boot_millis());
        let (epoch, with_callers) = (watch::Sender::new(0), AtomicU32::new(0));
        Self {
            label: HeaderValue::from_str(&instance.to_string()).ok(),
            instance,
            version,
            endpoint,
            token,
            life,
            presence: watch::Sender::new(Presence::Here),
            epoch,
            keeper: watch::Sender::new(0),
            sign,
            with_callers,
            peak_memory: AtomicU64::new(0),
            device_memory: AtomicU64::new(0),
            sees_code: AtomicBool::new(false),
            end: OnceLock::new(),
            awake_until: AtomicU64::new(0),
            memory: Mutex::default(),
        }
    }

    /// The present epoch, and a way to wait for its end. Idle connections close when it ends.
    pub fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Ends the epoch: the instance is about to sleep or to end.
    pub(crate) fn end_epoch(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// From here on `keeper` alone keeps idle connections to this instance; others close theirs. A program that serves one connection
    /// after the other would otherwise wait for the next request on one that is idle, and never take the one that has it.
    pub fn keep(&self, keeper: u64) {
        self.keeper.send_if_modified(|now| std::mem::replace(now, keeper) != keeper);
    }

    /// Whether this one may keep idle connections.
    pub fn is_kept_by(&self, keeper: u64) -> bool {
        *self.keeper.borrow() == keeper
    }

    /// Who may keep idle connections now, and a way to wait for another one.
    pub fn keeper(&self) -> watch::Receiver<u64> {
        self.keeper.subscribe()
    }

    /// Whether it works on one request at a time, so that one idle connection can be in the way of another.
    pub fn takes_one(&self) -> bool {
        self.version.spec.instances.concurrency.hard == 1
    }

    /// Whether it finds the files of its version. True if it did before and does not any more.
    pub(crate) fn loses_code(&self, sees: bool) -> bool {
        self.sees_code.fetch_or(sees, Ordering::Relaxed) && !sees
    }

    /// It asked not to be paused for so long from now on; a later request for less takes nothing back.
    pub fn keep_awake(&self, length: Millis) {
        let length = length.min(LONGEST_AWAKE);
        self.awake_until.fetch_max(kip_host::clock::boot_millis().saturating_add(length.0), Ordering::Relaxed);
    }

    /// Until when it asked not to be paused, boot time.
    pub(crate) fn awake_until(&self) -> u64 {
        self.awake_until.load(Ordering::Relaxed)
    }

    /// Where its memory is, and the processes that the driver froze or restored.
    pub(crate) fn memory(&self) -> (MemoryState, Option<Box<Entry>>) {
        self.memory.lock().clone()
    }

    pub(crate) fn memory_is(&self, memory: MemoryState, tree: Option<Box<Entry>>) {
        *self.memory.lock() = (memory, tree);
    }

    /// It is being ended.
    pub(crate) fn ends(&self, why: Reason) {
        let _ = self.end.set(why);
    }

    /// Its function has seen it end so far.
    pub(crate) fn ends_as(&self, presence: Presence) {
        self.presence.send_if_modified(|now| *now < presence && std::mem::replace(now, presence) != presence);
    }

    /// Waits until nothing of it is left, if it is being ended.
    pub async fn gone(&self) {
        let mut presence = self.presence.subscribe();
        if *presence.borrow() != Presence::Here {
            let _ = presence.wait_for(|presence| *presence == Presence::Gone).await;
        }
    }

    /// Waits until its end is known, if it is ending: first to its body, then to its function. False if it lives.
    pub(crate) async fn ended(&self) -> bool {
        /// A program's sockets close a moment before its end is reported.
        const REPORT: Duration = Duration::from_millis(25);
        /// Only a server that hangs takes this long to notice.
        const NOTICE: Duration = Duration::from_secs(5);
        let (mut life, mut presence) = (self.life.clone(), self.presence.subscribe());
        if *presence.borrow() != Presence::Here {
            return true;
        }
        let reported = tokio::time::timeout(REPORT, life.wait_for(|life| *life == Liveness::Ended)).await;
        if reported.is_ok() {
            let _ = tokio::time::timeout(NOTICE, presence.wait_for(|presence| *presence != Presence::Here)).await;
        }
        reported.is_ok()
    }

    /// Why it is being ended, where that was decided here.
    pub fn end(&self) -> Option<&Reason> {
        self.end.get()
    }

    /// It was seen to use so many bytes.
    pub(crate) fn uses(&self, memory: u64) {
        self.peak_memory.fetch_max(memory, Ordering::Relaxed);
    }

    /// It was seen to hold so many bytes of its device. Gives what it held before.
    pub(crate) fn holds_of_device(&self, memory: u64) -> u64 {
        self.device_memory.swap(memory, Ordering::Relaxed)
    }

    /// What it was last seen to hold of its device, in bytes, where that is looked at.
    pub fn device_memory(&self) -> Option<u64> {
        Some(self.device_memory.load(Ordering::Relaxed)).filter(|memory| *memory > 0)
    }

    /// The most memory it was seen to use so far, in bytes, where that is looked at.
    pub fn peak_memory(&self) -> Option<u64> {
        Some(self.peak_memory.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// The instance gave a sign of life: a byte came from it, it took one, or a request was given to it.
    pub fn sign(&self) {
        self.sign.store(kip_host::clock::boot_millis(), Ordering::Relaxed);
    }

    /// When it last did, boot time. While the next step of all its exchanges is a caller's, the instance is not to blame for
    /// silence; one slow caller does not speak for the others.
    pub(crate) fn last_sign(&self, exchanges: u32) -> u64 {
        if self.with_callers.load(Ordering::Relaxed) >= exchanges.max(1) {
            return kip_host::clock::boot_millis();
        }
        self.sign.load(Ordering::Relaxed)
    }
}

/// Whose turn it is in one direction of an exchange. Dropping it takes the caller's part out of the count.
#[derive(Debug)]
pub struct DirectionGuard {
    link: Arc<Link>,
    with_caller: bool,
}

impl DirectionGuard {
    /// It is the instance's.
    pub fn new(link: Arc<Link>) -> Self {
        Self { link, with_caller: false }
    }

    /// A piece went through, or the caller has none: it goes on when the caller does.
    pub fn of_caller(&mut self) {
        if !self.with_caller {
            self.with_caller = true;
            self.link.with_callers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The instance took a piece and has the next one.
    pub fn moved(&mut self) {
        self.of_instance();
        self.link.sign();
    }

    /// The caller did its part; the instance's time counts from now.
    pub fn of_instance(&mut self) {
        if self.with_caller {
            self.link.sign();
            self.with_caller = false;
            self.link.with_callers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for DirectionGuard {
    fn drop(&mut self) {
        self.of_instance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_spec::VersionId;

    #[test]
    fn silence_is_the_callers_while_it_is_its_turn() {
        let spec = crate::rounds::tests_spec();
        let version = Arc::new(Version::new(VersionId(1), spec, Default::default()));
        let id = InstanceId { boot: 1, core: 1, sequence: 1 };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let link = Arc::new(Link::new(id, version, address.into(), watch::channel(Liveness::Alive).1, None));
        link.sign.store(5, Ordering::Relaxed);
        assert_eq!(link.last_sign(1), 5);
        let mut turn = DirectionGuard::new(link.clone());
        turn.of_caller();
        turn.of_caller();
        assert!(link.last_sign(1) > 5);
        assert_eq!(link.last_sign(2), 5, "the other exchange waits for the instance");
        assert_eq!(link.sign.load(Ordering::Relaxed), 5);
        drop(turn);
        assert_eq!(link.with_callers.load(Ordering::Relaxed), 0);
        // Its time counts from the end of the caller's.
        assert!(link.sign.load(Ordering::Relaxed) > 5);
    }
}
