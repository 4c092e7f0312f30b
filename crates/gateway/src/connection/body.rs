//! An answer's body with what must be told when it is over.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Version;
use http_body::{Frame, SizeHint};
use kip_relay::{Body, StreamError};

use super::{ActiveStream, State};

/// An answer on its way to a caller.
#[derive(Debug)]
pub(crate) struct GuardedBody {
    body: Body,
    /// The end of the connection is the end of the answer (HTTP/1.0): one that breaks off must not end like a whole one.
    by_end: bool,
    /// Held for its drop.
    over: AnswerEnd,
    _stream: Option<ActiveStream>,
}

/// Tells the connection's guard that an answer is over.
#[derive(Debug, Default)]
struct AnswerEnd(Option<Arc<State>>);

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            state.end();
        }
    }
}

impl GuardedBody {
    pub(crate) fn new(body: Body, state: Option<Arc<State>>, version: Version) -> Self {
        Self { body, by_end: version == Version::HTTP_10, over: AnswerEnd(state), _stream: None }
    }

    pub(super) fn counted(mut self, one: ActiveStream) -> Self {
        self._stream = Some(one);
        self
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let this = self.get_mut();
        let piece = Pin::new(&mut this.body).poll_frame(context);
        if let (Poll::Ready(Some(Err(_))), true, Some(state)) = (&piece, this.by_end, &this.over.0) {
            state.reset();
        }
        piece
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
