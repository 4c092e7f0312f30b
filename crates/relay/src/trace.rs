//! What is remembered of a request: its phases while it runs, one record when it is over.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kip_control::{Control, Link};
use kip_fleet::StartKind;
use kip_host::clock::{monotonic_micros, wall_millis};
use kip_spec::{Code, RequestId};

use crate::limits::Slot;

/// Warm and successful requests recorded each second by each thread; of more, some are left out and counted.
const WARM_RECORDS_PER_SECOND: u32 = 500;
/// A request this slow is always recorded, in microseconds.
const SLOW: u64 = 1_000_000;

/// Whose key a request was sent with, and its place among that key's requests in flight.
#[derive(Debug)]
pub struct Caller {
    /// The key's name.
    pub key: Arc<str>,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Given back when the request is over, however it ends.
    pub slot: Option<Slot>,
}

/// One request's memory.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) request: RequestId,
    pub(crate) arrived: u64,
    wall: i64,
    cell: Arc<kip_control::Cell>,
    method: http::Method,
    path: String,
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) start: Option<StartKind>,
    pub(crate) queue: u64,
    pub(crate) first_byte: u64,
    pub(crate) status: u16,
    pub(crate) code: Option<Code>,
    pub(crate) bytes: u64,
    /// Counted by the body on its way up, which the connection to the instance owns.
    pub(crate) bytes_in: Arc<AtomicU64>,
    caller: Option<Caller>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused,
    Broken,
    Left,
}

impl Trace {
    pub(crate) fn new(
        request: RequestId,
        cell: Arc<kip_control::Cell>,
        caller: Option<Caller>,
        method: http::Method,
        path: &str,
    ) -> Self {
        Self {
            request,
            arrived: monotonic_micros(),
            wall: wall_millis(),
            cell,
            method,
            path: path.to_owned(),
            link: None,
            start: None,
            queue: 0,
            first_byte: 0,
            status: 0,
            code: None,
            bytes: 0,
            bytes_in: Arc::default(),
            caller,
        }
    }

    /// Whether policy keeps the instance, or requests started it. Asked for when a record is written only: it costs a lock.
    fn kind(&self) -> Option<&'static str> {
        self.cell.kind_of(self.link.as_ref()?.instance).map(kip_fleet::Kind::name)
    }

    /// The most memory the instance was seen to use by now.
    fn peak_memory(&self) -> Option<u64> {
        self.link.as_ref()?.peak_memory()
    }

    /// Microseconds since the request arrived.
    pub(crate) fn elapsed(&self) -> u64 {
        monotonic_micros().saturating_sub(self.arrived)
    }

    /// The phases as a `Server-Timing` header.
    pub(crate) fn server_timing(&self) -> String {
        let waited = match self.start {
            Some(StartKind::Cold) => "start",
            Some(StartKind::Woken) => "wake",
            _ => "queue",
        };
        format!("{waited};dur={}, first_byte;dur={}", millis(self.queue), millis(self.first_byte))
    }
}

/// Microseconds as milliseconds with three places.
pub(crate) fn millis(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

/// Turns traces into records, not more than the disk should see.
#[derive(Debug)]
pub(crate) struct Tracer {
    control: Control,
    sample: Sample,
}

/// How many plain records this second had.
#[derive(Debug, Default)]
struct Sample {
    second: Cell<i64>,
    warm: Cell<u32>,
}

impl Tracer {
    pub(crate) fn new(control: Control) -> Self {
        Self { control, sample: Sample::default() }
    }

    pub(crate) fn end(&self, trace: &Trace, outcome: Outcome) {
        let plain = is_plain(outcome, trace.status, trace.start, trace.elapsed());
        if plain && !self.sample.takes(trace.wall / 1_000) {
            self.control.recorder().leave_out();
            return;
        }
        self.control.recorder().request(kip_control::RequestRecord {
            id: trace.request.as_str().to_owned(),
            at: trace.wall,
            function: trace.cell.name().to_string(),
            version: trace.link.as_ref().map(|link| link.version.id.0),
            instance: trace.link.as_ref().map(|link| link.instance.to_string()),
            method: trace.method.to_string(),
            path: trace.path.clone(),
            status: trace.status,
            code: trace.code.map(|code| code.to_string()),
            start: trace.start.map(|start| start.name().to_owned()),
            queue_us: trace.queue,
            first_byte_us: trace.first_byte,
            total_us: trace.elapsed(),
            bytes: trace.bytes,
            bytes_in: trace.bytes_in.load(Ordering::Relaxed),
            kind: trace.kind().map(str::to_owned),
            peak_memory: trace.peak_memory(),
            outcome: match outcome {
                Outcome::Done => "done",
                Outcome::Refused => "refused",
                Outcome::Broken => "broken",
                Outcome::Left => "left",
            }
            .to_owned(),
            key: trace.caller.as_ref().map(|caller| caller.key.to_string()),
            tenant: trace.caller.as_ref().map(|caller| caller.tenant.to_string()),
        });
    }
}

/// Whether nothing about a request is remarkable: not cold, not woken, not slow, not failed.
fn is_plain(outcome: Outcome, status: u16, start: Option<StartKind>, total: u64) -> bool {
    outcome == Outcome::Done && status < 500 && start == Some(StartKind::Warm) && total < SLOW
}

impl Sample {
    fn takes(&self, second: i64) -> bool {
        if self.second.replace(second) != second {
            self.warm.set(0);
        }
        self.warm.set(self.warm.get().saturating_add(1));
        self.warm.get() <= WARM_RECORDS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_plain_may_be_left_out() {
        assert!(is_plain(Outcome::Done, 404, Some(StartKind::Warm), 900));
        assert!(!is_plain(Outcome::Done, 200, Some(StartKind::Cold), 900));
        assert!(!is_plain(Outcome::Done, 200, Some(StartKind::Woken), 900));
        assert!(!is_plain(Outcome::Done, 200, None, 900));
        assert!(!is_plain(Outcome::Done, 500, Some(StartKind::Warm), 900));
        assert!(!is_plain(Outcome::Done, 200, Some(StartKind::Warm), 1_000_000));
        assert!(!is_plain(Outcome::Left, 200, Some(StartKind::Warm), 900));
        let sample = Sample::default();
        assert_eq!((0..2_000).filter(|_| sample.takes(7)).count(), 500);
        assert!(sample.takes(8), "each second begins anew");
    }
}
