//! A request's body on its way up: what was read while it waited, then the rest as it comes.
//!
//! While a request waits for an instance, its body is read up to a limit. That is what lets the server notice that the
//! caller has left (an unread body hides the end of a connection), and what lets a request be sent a second time.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use kip_control::{DirectionGuard, Link};
use kip_spec::{Code, code};
use tokio::time::Sleep;

use crate::headers;

/// How much of a waiting request's body is read.
const LIMIT: usize = 64 << 10;

/// Why a body cannot be passed on.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The caller left, or what it sent is not HTTP.
    Caller(hyper::Error),
    /// It is larger than the gateway takes.
    TooLarge,
    /// Nothing of it came for too long.
    Late,
}

impl Fault {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Caller(_) => code::BAD_REQUEST,
            Self::TooLarge => code::BODY_TOO_LARGE,
            Self::Late => code::REQUEST_LATE,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Caller(error) => write!(f, "the caller's body: {error}"),
            Self::TooLarge => f.write_str("the caller's body is too large"),
            Self::Late => f.write_str("the caller sends nothing of its body"),
        }
    }
}

impl std::error::Error for Fault {}

/// A body toward an instance.
#[derive(Debug)]
pub(crate) struct Upload {
    read: Bytes,
    rest: Option<Incoming>,
    /// Bytes that were sent on, for the request's record.
    sent: Arc<AtomicU64>,
    /// Whose turn it is, once it is on its way to an instance.
    turn: Option<DirectionGuard>,
    /// Bytes that are taken.
    most: u64,
    /// How long nothing may come, and the time of the present wait.
    idle: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    /// A body of which some was read already.
    pub(crate) fn new(
        read: Bytes,
        body: Incoming,
        sent: Arc<AtomicU64>,
        (most, idle): (u64, Option<Duration>),
    ) -> Self {
        let rest = (!body.is_end_stream()).then_some(body);
        Self { read, rest, sent, turn: None, most, idle, timer: None }
    }

    /// A body that is here as a whole.
    pub(crate) fn whole(read: Bytes, sent: Arc<AtomicU64>) -> Self {
        Self { read, rest: None, sent, turn: None, most: u64::MAX, idle: None, timer: None }
    }

    /// Whether its length is known.
    pub(crate) fn is_measured(&self) -> bool {
        self.size_hint().exact().is_some()
    }

    /// Reads on, up to the limit or to its end.
    ///
    /// # Errors
    /// [`code::BAD_REQUEST`] if it broke off, when nobody is there any more to be answered; [`code::REQUEST_LATE`] if nothing of it
    /// came for too long.
    pub(crate) async fn read_ahead(&mut self) -> Result<(), Code> {
        while self.read.len() < LIMIT
            && let Some(body) = &mut self.rest
        {
            // Nothing is lost if this future is dropped here: what was read is in `self` already.
            let frame = match self.idle {
                Some(idle) => tokio::time::timeout(idle, body.frame()).await.map_err(|_| code::REQUEST_LATE)?,
                None => body.frame().await,
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.read.is_empty() => self.read = data,
                    Ok(data) => {
                        let mut joined = BytesMut::from(std::mem::take(&mut self.read));
                        joined.extend_from_slice(&data);
                        self.read = joined.freeze();
                    }
                    // Trailers after a body read ahead have nobody to go to over HTTP/1.1.
                    Err(_) => self.rest = None,
                },
                Some(Err(_)) => return Err(code::BAD_REQUEST),
                None => self.rest = None,
            }
        }
        Ok(())
    }

    /// A second copy, if all of it is here.
    pub(crate) fn copy(&self) -> Option<Self> {
        let again = || Self {
            read: self.read.clone(),
            rest: None,
            sent: self.sent.clone(),
            turn: None,
            most: self.most,
            idle: None,
            timer: None,
        };
        self.rest.is_none().then(again)
    }

    /// It goes to this instance from now on.
    pub(crate) fn follow(&mut self, link: &Arc<Link>) {
        self.turn = self.rest.is_some().then(|| DirectionGuard::new(link.clone()));
    }
}

/// Takes what still comes of a body that nobody wants, for a while: a connection or a stream that is closed with bytes on their
/// way takes the answer back.
pub async fn take_rest(body: &mut Incoming) {
    const LONGEST: Duration = Duration::from_millis(500);
    const MOST: u64 = 8 << 20;
    let all = async {
        let mut taken = 0;
        while taken < MOST
            && let Some(Ok(frame)) = body.frame().await
        {
            taken += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    };
    let _ = tokio::time::timeout(LONGEST, all).await;
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = self.get_mut();
        if !this.read.is_empty() {
            let read = std::mem::take(&mut this.read);
            // Nothing was sent before; a request that is sent again starts anew.
            this.sent.store(read.len() as u64, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        let Some(body) = &mut this.rest else { return Poll::Ready(None) };
        let piece = Pin::new(&mut *body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &piece
            && let Some(data) = frame.data_ref()
        {
            let sent = this.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
            if sent + data.len() as u64 > this.most {
                this.turn = None;
                if let Some(mut rest) = this.rest.take() {
                    drop(kip_host::tasks::spawn_local("rest of a body", async move { take_rest(&mut rest).await }));
                }
                return Poll::Ready(Some(Err(Fault::TooLarge)));
            }
        }
        if let (true, Some(idle)) = (piece.is_pending(), this.idle) {
            let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
            if timer.as_mut().poll(context).is_ready() {
                this.turn = None;
                this.rest = None;
                return Poll::Ready(Some(Err(Fault::Late)));
            }
        } else {
            this.timer = None;
        }
        let over = matches!(piece, Poll::Ready(None | Some(Err(_)))) || body.is_end_stream();
        if over {
            this.turn = None;
        } else if let Some(turn) = &mut this.turn {
            // More is asked for once the instance has taken what there was before.
            if piece.is_pending() { turn.of_caller() } else { turn.moved() }
        }
        piece.map(|piece| piece.map(|piece| piece.map(headers::trailers_toward_instance).map_err(Fault::Caller)))
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read);
        }
        hint
    }
}
