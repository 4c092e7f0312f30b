//! What a connection's guard and the requests on it tell each other.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::Waker;

use kip_host::clock::boot_millis;
use parking_lot::Mutex;

use super::fault::Fault;

const NONE: u8 = u8::MAX;
const UNDECIDED: u8 = 0;
const REFUSED: u8 = 1;
const GRANTED: u8 = 2;

/// Shared by one connection's guard and its requests, which one thread serves: the atomics only satisfy types that ask for
/// more.
#[derive(Debug)]
pub(crate) struct State {
    fault: AtomicU8,
    busy: AtomicU32,
    upgrade: AtomicU8,
    /// When the last answer was over, boot time; 0 before the first.
    ended: AtomicU64,
    /// The connection is to end with a reset.
    reset: AtomicBool,
    /// What was wrong was a body.
    body: AtomicBool,
    /// Method and target of a request that was refused, as far as they can be told.
    line: Mutex<Option<(String, String)>>,
    /// Who waits for the decision about an upgrade.
    waits: Mutex<Option<Waker>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            fault: AtomicU8::new(NONE),
            busy: AtomicU32::new(0),
            upgrade: AtomicU8::new(UNDECIDED),
            ended: AtomicU64::new(0),
            reset: AtomicBool::new(false),
            body: AtomicBool::new(false),
            line: Mutex::default(),
            waits: Mutex::default(),
        }
    }
}

/// Whether a request that asked for another protocol got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Open,
    Refused,
    Granted,
}

impl State {
    /// What is wrong with the bytes of this connection. The last request on it is then about that.
    pub(crate) fn fault(&self) -> Option<Fault> {
        Fault::from_number(self.fault.load(Ordering::Relaxed))
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// The body of the request under way is not what it should be.
    pub(super) fn set_body_fault(&self, fault: Fault) {
        self.body.store(true, Ordering::Relaxed);
        self.set_fault(fault);
    }

    /// What is wrong with the body of the request under way. What is wrong with a later request is not its affair.
    pub(crate) fn body_fault(&self) -> Option<Fault> {
        self.fault().filter(|_| self.body.load(Ordering::Relaxed))
    }

    /// The connection is to end so that nobody takes it for the end of an answer.
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    pub(super) fn set_line(&self, head: &[u8]) {
        let line = head.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ').map(|word| String::from_utf8_lossy(word).into_owned());
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        *self.line.lock() = Some((method, target));
    }

    /// Method and target of the request that was refused, as they were sent.
    pub(crate) fn line(&self) -> Option<(String, String)> {
        self.line.lock().clone()
    }

    /// A request is under way: its caller owes nothing.
    pub(super) fn begin(&self) {
        self.upgrade.store(UNDECIDED, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer is over.
    pub(crate) fn end(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        self.ended.store(boot_millis(), Ordering::Relaxed);
    }

    /// When the last answer was over, boot time.
    pub(super) fn ended(&self) -> Option<u64> {
        Some(self.ended.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_under_way(&self) -> bool {
        self.is_busy()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// The function took, or did not take, an upgrade that was asked for.
    pub(crate) fn decide(&self, granted: bool) {
        self.upgrade.store(if granted { GRANTED } else { REFUSED }, Ordering::Relaxed);
        // The parser reads on only when its socket has something for it, and that was taken already.
        if let Some(waits) = self.waits.lock().take() {
            waits.wake();
        }
    }

    pub(super) fn wait(&self, waker: &Waker) {
        *self.waits.lock() = Some(waker.clone());
    }

    pub(super) fn decision(&self) -> Decision {
        match self.upgrade.load(Ordering::Relaxed) {
            GRANTED => Decision::Granted,
            REFUSED => Decision::Refused,
            _ => Decision::Open,
        }
    }
}

impl kip_relay::BodySource for State {
    fn code(&self) -> Option<kip_spec::Code> {
        self.body_fault().map(Fault::code)
    }
}
