//! A body toward the caller: our own text, or an instance's stream with the permit inside.

use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use kip_control::Permit;
use kip_spec::code;
use tokio::time::{Instant, Sleep};

use crate::pool::{Pool, Sender};
use crate::trace::{Outcome, Trace, Tracer};

/// Why a stream broke off. The connection to the caller is then closed without a clean end.
#[derive(Debug)]
pub struct BrokenOff(&'static str);

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BrokenOff {}

/// What goes back to a caller.
#[derive(Debug)]
pub enum Body {
    /// All of it at once.
    Text(Option<Bytes>),
    /// As the instance sends it.
    Stream(Pin<Box<Stream>>),
}

impl Body {
    /// A text of ours.
    pub fn text(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self::Text((!text.is_empty()).then_some(text))
    }
}

/// An instance's answer on its way. When it ends or is dropped, the permit goes back and the record is written.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
    hold: Option<Hold>,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    /// When the whole request must be over.
    limit: Instant,
    /// When the last piece came; the timer is moved only when it fires, not with each piece.
    last_piece: u64,
}

/// What an answer keeps until it is over.
#[derive(Debug)]
struct Hold {
    permit: Permit,
    connection: Sender,
    pool: Rc<Pool>,
    tracer: Rc<Tracer>,
    trace: Trace,
}

pub(crate) struct Parts {
    pub(crate) body: Incoming,
    pub(crate) permit: Permit,
    pub(crate) connection: Sender,
    pub(crate) pool: Rc<Pool>,
    pub(crate) tracer: Rc<Tracer>,
    pub(crate) trace: Trace,
    pub(crate) idle: Duration,
    pub(crate) limit: Instant,
}

impl Stream {
    pub(crate) fn start(parts: Parts) -> Body {
        let Parts { body, permit, connection, pool, tracer, trace, idle, limit } = parts;
        let ended = body.is_end_stream();
        let first = limit.min(in_future(idle));
        let mut stream = Self {
            body,
            hold: Some(Hold { permit, connection, pool, tracer, trace }),
            idle,
            timer: Box::pin(tokio::time::sleep_until(first)),
            limit,
            last_piece: kip_host::clock::monotonic_micros(),
        };
        if ended {
            stream.end(Outcome::Done);
            return Body::Text(None);
        }
        Body::Stream(Box::pin(stream))
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(Hold { permit, connection, pool, tracer, trace }) = self.hold.take() else { return };
        tracer.end(&trace, outcome);
        let instance = permit.link().instance;
        drop(permit);
        if outcome == Outcome::Done {
            pool.put(instance, connection);
        }
    }

    fn overdue(&mut self, context: &mut Context<'_>) -> Option<&'static str> {
        while self.timer.as_mut().poll(context).is_ready() {
            let deadline = self.timer.deadline();
            if deadline >= self.limit {
                return Some("the request took longer than timeouts.total");
            }
            let silent = Duration::from_micros(kip_host::clock::monotonic_micros().saturating_sub(self.last_piece));
            if silent >= self.idle {
                return Some("the instance sent nothing for timeouts.idle");
            }
            let next = self.limit.min(in_future(self.idle - silent));
            self.timer.as_mut().reset(next);
        }
        None
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end(Outcome::Left);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Stream(stream) => stream.as_mut().get_mut().poll_piece(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Stream(stream) => stream.hold.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Stream(stream) => stream.body.size_hint(),
        }
    }
}

impl Stream {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let piece = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(piece) => piece,
            Poll::Pending => {
                let Some(reason) = self.overdue(context) else { return Poll::Pending };
                let idle = reason.contains("idle");
                self.fail(if idle { code::BODY_IDLE_TIMEOUT } else { code::TOTAL_TIMEOUT });
                return Poll::Ready(Some(Err(BrokenOff(reason))));
            }
        };
        match piece {
            Some(Ok(frame)) => {
                self.last_piece = kip_host::clock::monotonic_micros();
                if let (Some(hold), Some(data)) = (&mut self.hold, frame.data_ref()) {
                    hold.trace.bytes += data.len() as u64;
                }
                if self.body.is_end_stream() {
                    self.end(Outcome::Done);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => {
                self.fail(code::INSTANCE_BROKE_OFF);
                Poll::Ready(Some(Err(BrokenOff("the instance broke off its answer"))))
            }
            None => {
                self.end(Outcome::Done);
                Poll::Ready(None)
            }
        }
    }

    fn fail(&mut self, code: kip_spec::Code) {
        if let Some(hold) = &mut self.hold {
            hold.trace.code = Some(code);
        }
        self.end(Outcome::Broken);
    }
}

#[expect(clippy::disallowed_methods, reason = "tokio's timers take tokio's instants; nothing else is read from them")]
pub(crate) fn in_future(after: Duration) -> Instant {
    let now = Instant::now();
    // A timeout of years is none; adding it must not overflow.
    now.checked_add(after).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365))
}
