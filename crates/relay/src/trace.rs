//! What is remembered of a request: its phases while it runs, one record when it is over.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName};
use kip_control::{Control, Link};
use kip_fleet::StartKind;
use kip_host::clock::{monotonic_micros, wall_millis};
use kip_records::{KeyShard, RequestRecord, RequestSpans};
use kip_spec::qualifier::split_name;
use kip_spec::{Code, QualifierName, RequestId};

use kip_records::metrics::{Meter, Observation};
use kip_spec::limiter::Slot;

/// Warm and successful requests recorded each second by each thread; of more, some are left out and counted.
const WARM_RECORDS_PER_SECOND: u32 = 500;
/// What names a request's place in a trace (W3C, "Trace Context").
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Bytes of a path that are kept in a record.
const LONGEST_PATH: usize = 1_024;

/// A record as it is stored, and as a backup has it: without the query, which can hold secrets, and with a long path cut.
fn kept(mut record: RequestRecord) -> RequestRecord {
    let end = record.path.find('?').unwrap_or(record.path.len());
    record.path.truncate(record.path.floor_char_boundary(end.min(LONGEST_PATH)));
    record
}

/// A request this slow is always recorded, in microseconds.
const SLOW: u64 = 1_000_000;

/// Whose key a request was sent with, and its place among that key's requests in flight.
#[derive(Debug)]
pub struct Caller {
    /// The key's name.
    pub key: Arc<str>,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Whether it is told what a program wrote and who has its room, where it cannot answer.
    pub operates: bool,
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
    pub(crate) qualifier: Option<QualifierName>,
    pub(crate) start: Option<StartKind>,
    pub(crate) queue: u64,
    pub(crate) first_byte: u64,
    pub(crate) status: u16,
    pub(crate) code: Option<Code>,
    pub(crate) bytes: u64,
    /// Counted by the body on its way up, which the connection to the instance owns.
    pub(crate) bytes_in: Arc<AtomicU64>,
    caller: Option<Caller>,
    peer: Option<IpAddr>,
    /// Where a collector wants to hear of it.
    pub(crate) spans: Option<RequestSpans>,
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
        (caller, peer): (Option<Caller>, Option<IpAddr>),
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
            qualifier: None,
            start: None,
            queue: 0,
            first_byte: 0,
            status: 0,
            code: None,
            bytes: 0,
            bytes_in: Arc::default(),
            caller,
            peer,
            spans: None,
        }
    }

    /// Whether its caller may read what programs write.
    pub(crate) fn operates(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.operates)
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
        // Each answer has one: so not by the formatter.
        let mut text = String::with_capacity(64);
        text.push_str(waited);
        text.push_str(";dur=");
        push_millis(&mut text, self.queue);
        text.push_str(", first_byte;dur=");
        push_millis(&mut text, self.first_byte);
        text
    }
}

/// Microseconds as milliseconds with three places.
fn push_millis(text: &mut String, micros: u64) {
    let mut digits = itoa::Buffer::new();
    text.push_str(digits.format(micros / 1_000));
    text.push('.');
    // Its first digit only keeps the places.
    text.push_str(&digits.format(1_000 + micros % 1_000)[1..]);
}

/// A request that was answered before it came to a function.
#[derive(Debug)]
pub struct RefusedRequest<'a> {
    /// Its id.
    pub request: &'a RequestId,
    /// Who sent it.
    pub peer: Option<IpAddr>,
    /// Its method, as it was sent.
    pub method: &'a str,
    /// Its path and query, as they were sent.
    pub path: &'a str,
    /// The status it was answered with.
    pub status: u16,
    /// The error code, if it was one.
    pub code: Option<Code>,
}

/// Turns traces into counts and records, not more than the disk should see.
#[derive(Debug)]
pub(crate) struct Tracer {
    control: Control,
    meter: Arc<Meter>,
    keys: Arc<KeyShard>,
    sample: Sample,
}

/// How many plain records this second had.
#[derive(Debug, Default)]
struct Sample {
    second: Cell<i64>,
    warm: Cell<u32>,
}

impl Tracer {
    pub(crate) fn new(control: Control, meter: Arc<Meter>) -> Self {
        let keys = control.recorder().ledger().shard();
        Self { control, meter, keys, sample: Sample::default() }
    }

    /// Whether a collector wants to hear of a request that comes with these headers.
    pub(crate) fn spans(&self, headers: &HeaderMap) -> Option<RequestSpans> {
        let parent = |headers: &HeaderMap| headers.get(TRACEPARENT)?.to_str().ok().map(str::to_owned);
        self.control.recorder().traces()?.begin(parent(headers).as_deref())
    }

    pub(crate) fn end(&self, trace: &Trace, outcome: Outcome) {
        let total = trace.elapsed();
        self.count(trace, total);
        let recorder = self.control.recorder();
        let plain = is_plain(outcome, trace.status, trace.start, total);
        let records = !plain || self.sample.takes(trace.wall / 1_000);
        if !records {
            recorder.leave_out();
            if !recorder.logs() && trace.spans.is_none() {
                return;
            }
        }
        let record = RequestRecord {
            id: trace.request.as_str().to_owned(),
            at: trace.wall,
            function: trace.cell.name().to_string(),
            version: trace.link.as_ref().map(|link| link.version.id.0),
            label: trace.link.as_ref().map(|link| link.version.label()),
            qualifier: trace.qualifier.as_ref().map(ToString::to_string),
            instance: trace.link.as_ref().map(|link| link.instance.to_string()),
            method: trace.method.to_string(),
            path: trace.path.clone(),
            status: trace.status,
            code: trace.code.map(|code| code.to_string()),
            start: trace.start.map(|start| start.name().to_owned()),
            queue_us: trace.queue,
            first_byte_us: trace.first_byte,
            total_us: total,
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
        };
        if recorder.logs() {
            recorder.log(record.clone(), trace.peer);
        }
        if let (Some(traces), Some(spans)) = (recorder.traces(), trace.spans) {
            traces.end(spans, record.clone());
        }
        if records {
            recorder.request(kept(record));
        }
    }

    fn count(&self, trace: &Trace, total: u64) {
        let seen = Observation {
            version: trace.link.as_ref().map(|link| link.version.id.0),
            qualifier: trace.qualifier.as_ref(),
            status: trace.status,
            start: trace.start,
            code: trace.code,
            queue: trace.queue,
            first_byte: trace.first_byte,
            total,
            bytes_in: trace.bytes_in.load(Ordering::Relaxed),
            bytes_out: trace.bytes,
        };
        self.meter.observe(trace.cell.number(), trace.cell.name(), &seen);
        if let Some(link) = &trace.link {
            let key = trace.caller.as_ref().map(|caller| &caller.key);
            self.keys.add(link.version.id.0, trace.cell.name(), key, total.saturating_sub(trace.queue));
        }
    }

    /// A request that came to no function: it is counted, and logged where that is asked for.
    pub(crate) fn refused(&self, refused: RefusedRequest<'_>) {
        if let Some(code) = refused.code {
            self.meter.refused(code);
        }
        let recorder = self.control.recorder();
        let now = wall_millis();
        // Anybody can be refused as often as he likes: so many a second are written down, like plain requests.
        let records = refused.code.is_some() && self.sample.takes(now / 1_000);
        if !records {
            if refused.code.is_some() {
                recorder.leave_out();
            }
            if !recorder.logs() {
                return;
            }
        }
        let named = refused.path.strip_prefix("/f/").and_then(|rest| rest.split(['/', '?']).next());
        let named = named.map(|name| split_name(name).0);
        let function = named.filter(|name| self.control.cell(name).is_some()).unwrap_or_default();
        let record = RequestRecord {
            id: refused.request.as_str().to_owned(),
            at: now,
            function: function.to_owned(),
            version: None,
            label: None,
            qualifier: None,
            instance: None,
            method: refused.method.to_string(),
            path: refused.path.to_owned(),
            status: refused.status,
            code: refused.code.map(|code| code.to_string()),
            start: None,
            queue_us: 0,
            first_byte_us: 0,
            total_us: 0,
            bytes: 0,
            bytes_in: 0,
            kind: None,
            peak_memory: None,
            outcome: answered(refused.status).to_owned(),
            key: None,
            tenant: None,
        };
        if recorder.logs() {
            recorder.log(record.clone(), refused.peer);
        }
        if records {
            recorder.request(kept(record));
        }
    }
}

/// How a request ended that needed no function: a redirect or a list is no refusal.
fn answered(status: u16) -> &'static str {
    if status < 400 { "done" } else { "refused" }
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
    fn milliseconds_have_three_places() {
        let shown = |micros| {
            let mut text = String::new();
            push_millis(&mut text, micros);
            text
        };
        assert_eq!([0, 7, 1_000, 61_234_050].map(shown), ["0.000", "0.007", "1.000", "61234.050"]);
    }

    #[test]
    fn a_redirect_is_no_refusal() {
        assert_eq!([200, 308, 401, 429, 503].map(answered), ["done", "done", "refused", "refused", "refused"]);
    }

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
