//! A body toward the caller: our own text, or an instance's stream with the permit inside.

use std::cell::RefCell;
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use kip_control::{DirectionGuard, Permit};
use kip_spec::{Problem, code};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use crate::pool::{Pool, Sender};
use crate::trace::{Outcome, Trace, Tracer};

/// Why a stream broke off. The connection to the caller is then closed without a clean end.
#[derive(Debug)]
pub struct StreamError(&'static str);

impl std::fmt::Display for StreamError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for StreamError {}

/// What goes back to a caller.
#[derive(Debug)]
pub enum Body {
    /// All of it at once.
    Text(Option<Bytes>),
    /// As the instance sends it.
    Stream(Pin<Box<Stream>>),
    /// An error of ours. It has no bytes until a renderer has given it those of the caller's dialect.
    Problem(Box<Problem>),
}

impl Body {
    /// The error, if this is one of ours.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Text(_) | Self::Stream(_) => None,
        }
    }

    /// A text of ours.
    pub fn text(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self::Text((!text.is_empty()).then_some(text))
    }
}

/// An instance's answer on its way. When it ends or is dropped, the permit goes back and the record is written.
#[derive(Debug)]
pub struct Stream {
    /// Gone once the answer is over. Shared with the watch, which ends it while nobody polls us.
    live: Shared,
    /// It ended as it should.
    done: bool,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    /// When the whole request must be over.
    limit: Instant,
    /// When the last piece came; the timer is moved only when it fires, not with each piece.
    last_piece: u64,
    watch: Option<JoinHandle<()>>,
}

type Shared = Rc<RefCell<Option<Live>>>;

#[derive(Debug)]
struct Live {
    body: Incoming,
    hold: AnswerGuard,
}

/// An answer of at most this many bytes is taken from its instance whole, even if its caller reads nothing of it. Only
/// a larger one can be held back, and needs a watch.
const HELD_WHOLE: u64 = 64 << 10;

const TOO_LONG: &str = "the request took longer than timeouts.total";

/// What an answer keeps until it is over.
#[derive(Debug)]
struct AnswerGuard {
    /// The answer's: given back before the place is.
    turn: DirectionGuard,
    permit: Permit,
    connection: Sender,
    pool: Rc<Pool>,
    tracer: Rc<Tracer>,
    trace: Trace,
}

pub(crate) struct AnswerParts {
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
    pub(crate) fn start(parts: AnswerParts) -> Body {
        let AnswerParts { body, permit, connection, pool, tracer, trace, idle, limit } = parts;
        let turn = DirectionGuard::new(permit.link().clone());
        let hold = AnswerGuard { turn, permit, connection, pool, tracer, trace };
        if body.is_end_stream() {
            hold.end(Outcome::Done);
            return Body::Text(None);
        }
        let may_be_held_back = body.size_hint().upper().is_none_or(|most| most > HELD_WHOLE);
        let live: Shared = Rc::new(RefCell::new(Some(Live { body, hold })));
        let watch = may_be_held_back.then(|| {
            let live = live.clone();
            kip_host::tasks::spawn_local("total limit", async move {
                tokio::time::sleep_until(limit).await;
                fail(&live, code::TOTAL_TIMEOUT);
            })
        });
        Body::Stream(Box::pin(Self {
            live,
            done: false,
            idle,
            timer: Box::pin(tokio::time::sleep_until(limit.min(in_future(idle)))),
            limit,
            last_piece: kip_host::clock::monotonic_micros(),
            watch,
        }))
    }

    fn end(&mut self) {
        self.done = true;
        if let Some(live) = self.live.take() {
            live.hold.end(Outcome::Done);
        }
    }

    fn overdue(&mut self, context: &mut Context<'_>) -> Option<&'static str> {
        while self.timer.as_mut().poll(context).is_ready() {
            let deadline = self.timer.deadline();
            if deadline >= self.limit {
                return Some(TOO_LONG);
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
        if let Some(watch) = &self.watch {
            watch.abort();
        }
        if let Some(live) = self.live.take() {
            live.hold.end(Outcome::Left);
        }
    }
}

impl AnswerGuard {
    fn end(self, outcome: Outcome) {
        let Self { turn, permit, connection, pool, tracer, trace } = self;
        drop(turn);
        tracer.end(&trace, outcome);
        let link = permit.link().clone();
        drop(permit);
        if outcome == Outcome::Done {
            pool.put(&link, connection);
        }
    }
}

/// Ends an answer that went wrong; the connection to its instance closes.
fn fail(live: &Shared, code: kip_spec::Code) {
    if let Some(Live { mut hold, .. }) = live.take() {
        hold.trace.code = Some(code);
        hold.end(Outcome::Broken);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Stream(stream) => stream.as_mut().get_mut().poll_piece(context),
            Self::Problem(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Stream(stream) => stream.done,
            Self::Problem(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Stream(stream) => {
                stream.live.borrow().as_ref().map_or_else(SizeHint::new, |live| live.body.size_hint())
            }
            Self::Problem(_) => SizeHint::with_exact(0),
        }
    }
}

impl Stream {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let (piece, ended) = {
            let mut live = self.live.borrow_mut();
            // The watch ended it.
            let Some(Live { body, hold }) = live.as_mut() else { return Poll::Ready(Some(Err(StreamError(TOO_LONG)))) };
            hold.turn.of_instance();
            let piece = Pin::new(&mut *body).poll_frame(context);
            if let Poll::Ready(Some(Ok(frame))) = &piece {
                hold.turn.of_caller();
                if let Some(data) = frame.data_ref() {
                    hold.trace.bytes += data.len() as u64;
                }
            }
            (piece, body.is_end_stream())
        };
        match piece {
            Poll::Pending => {
                let Some(reason) = self.overdue(context) else { return Poll::Pending };
                fail(&self.live, if reason == TOO_LONG { code::TOTAL_TIMEOUT } else { code::BODY_IDLE_TIMEOUT });
                Poll::Ready(Some(Err(StreamError(reason))))
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.last_piece = kip_host::clock::monotonic_micros();
                if ended {
                    self.end();
                }
                Poll::Ready(Some(Ok(crate::headers::trailers_toward_caller(frame))))
            }
            Poll::Ready(Some(Err(_))) => {
                fail(&self.live, code::INSTANCE_BROKE_OFF);
                Poll::Ready(Some(Err(StreamError("the instance broke off its answer"))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tokio's timers take tokio's instants; nothing else is read from them")]
pub(crate) fn in_future(after: Duration) -> Instant {
    let now = Instant::now();
    // A timeout of years is none; adding it must not overflow.
    now.checked_add(after).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365))
}
