//! A request's body on its way up: what was read while it waited, then the rest as it comes.
//!
//! While a request waits for an instance, its body is read up to a limit. That is what lets the server notice that the
//! caller has left (an unread body hides the end of a connection), and what lets a request be sent a second time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// How much of a waiting request's body is read.
const LIMIT: usize = 64 << 10;

/// A body toward an instance.
#[derive(Debug)]
pub(crate) struct Upload {
    read: Bytes,
    rest: Option<Incoming>,
    /// Bytes that were sent on, for the request's record.
    sent: Arc<AtomicU64>,
}

impl Upload {
    pub(crate) fn new(body: Incoming, sent: Arc<AtomicU64>) -> Self {
        let rest = (!body.is_end_stream()).then_some(body);
        Self { read: Bytes::new(), rest, sent }
    }

    /// Reads on, up to the limit. False if the body broke off: nobody is there any more to be answered.
    pub(crate) async fn read_ahead(&mut self) -> bool {
        while self.read.len() < LIMIT
            && let Some(body) = &mut self.rest
        {
            // Nothing is lost if this future is dropped here: what was read is in `self` already.
            match body.frame().await {
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
                Some(Err(_)) => return false,
                None => self.rest = None,
            }
        }
        true
    }

    /// A second copy, if all of it is here.
    pub(crate) fn copy(&self) -> Option<Self> {
        self.rest.is_none().then(|| Self { read: self.read.clone(), rest: None, sent: self.sent.clone() })
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.read.is_empty() {
            let read = std::mem::take(&mut self.read);
            // Nothing was sent before; a request that is sent again starts anew.
            self.sent.store(read.len() as u64, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        let Some(body) = &mut self.rest else { return Poll::Ready(None) };
        let piece = Pin::new(body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &piece
            && let Some(data) = frame.data_ref()
        {
            self.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        piece
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
