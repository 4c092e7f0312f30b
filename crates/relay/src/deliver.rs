//! The exchange of work that nobody waits for: its place is there already, its body as a whole, and its limit is its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use kip_control::{Cell, Permit};
use kip_spec::{Code, RequestId, code};

use crate::answer::Answer;
use crate::body::in_future;
use crate::exchange::{Call, Guard, Relay, build};
use crate::prefix::Upload;
use crate::trace::{Caller, Outcome, Trace};

/// Work for an instance.
#[derive(Debug)]
pub struct Delivery {
    /// The function.
    pub cell: Arc<Cell>,
    /// What is sent, its target as the instance will see it.
    pub request: Request<Bytes>,
    /// Headers that only we may set, added last.
    pub ours: Vec<(HeaderName, HeaderValue)>,
    /// The request's id.
    pub id: RequestId,
    /// On whose behalf.
    pub caller: Option<Caller>,
    /// Who called.
    pub peer: Option<IpAddr>,
    /// Whether nobody could read along.
    pub secure: bool,
    /// What was taken off the path.
    pub prefix: Option<String>,
    /// How long it may take, from now to the end of the answer.
    pub limit: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum DeliveryError {
    /// The instance never got it.
    NotSent {
        /// What happened.
        detail: String,
    },
    /// The instance got it, and the connection broke.
    BrokeOff {
        /// What happened.
        detail: String,
    },
    /// It took longer than it may.
    TooLong,
}

impl Relay {
    /// Sends work to the place that was offered for it. The answer's body holds the place; dropping this future or that body
    /// gives it back, and closes the connection to the instance.
    ///
    /// # Errors
    /// [`DeliveryError`]; nothing is tried a second time.
    pub async fn deliver(&self, permit: Permit, delivery: Delivery) -> Result<Answer, DeliveryError> {
        let Delivery { cell, request, ours, id, caller, peer, secure, prefix, limit } = delivery;
        let limit = in_future(limit);
        let (head, body) = request.into_parts();
        let target = head.uri.clone();
        let path = target.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let mut trace = Trace::new(id.clone(), cell.clone(), (caller, peer), head.method.clone(), &path);
        let upload = Upload::whole(body, trace.bytes_in.clone());
        trace.link = Some(permit.link().clone());
        trace.start = Some(permit.start());
        trace.qualifier = permit.qualifier().cloned();
        let mut guard = Guard { tracer: self.tracer.clone(), trace: Some(trace) };
        let call = Call { peer, secure, prefix, ..call_of(cell, target, id) };
        let mut request = build(&call, head, upload, &permit, None);
        add(request.headers_mut(), ours);
        match self.send_until(&permit, request, (limit, limit), None).await {
            Ok((response, connection)) => {
                // Work may be silent for as long as it may take.
                Ok(self.answer(permit, response, connection, (Some(Duration::MAX), limit), &mut guard))
            }
            Err(failure) => {
                if let Some(trace) = &mut guard.trace {
                    trace.code = Some(failure.code);
                }
                guard.end(failure.code.status(), Outcome::Broken);
                Err(undelivered(failure.code, failure.detail))
            }
        }
    }
}

/// The head of work as its instance is to get it, for whoever sends it by other ways.
pub fn compose(permit: &Permit, delivery: &Delivery) -> http::request::Parts {
    let mut copy = Request::new(Bytes::new());
    *copy.method_mut() = delivery.request.method().clone();
    *copy.uri_mut() = delivery.request.uri().clone();
    *copy.headers_mut() = delivery.request.headers().clone();
    let (head, body) = copy.into_parts();
    let Delivery { peer, secure, .. } = *delivery;
    let call = call_of(delivery.cell.clone(), head.uri.clone(), delivery.id.clone());
    let call = Call { peer, secure, prefix: delivery.prefix.clone(), ..call };
    let upload = Upload::whole(body, Arc::default());
    let mut request = build(&call, head, upload, permit, None);
    add(request.headers_mut(), delivery.ours.clone());
    request.into_parts().0
}

fn call_of(cell: Arc<Cell>, target: http::Uri, request: RequestId) -> Call {
    Call {
        cell,
        qualifier: None,
        target,
        prefix: None,
        read: Bytes::new(),
        request,
        peer: None,
        secure: false,
        blame: None,
        largest_body: u64::MAX,
        body_idle: None,
        caller: None,
        exempt: false,
    }
}

fn add(headers: &mut HeaderMap, ours: Vec<(HeaderName, HeaderValue)>) {
    for (name, value) in ours {
        headers.insert(name, value);
    }
}

fn undelivered(code: Code, detail: String) -> DeliveryError {
    match code {
        code::FIRST_BYTE_TIMEOUT | code::TOTAL_TIMEOUT => DeliveryError::TooLong,
        code::INSTANCE_UNREACHABLE => DeliveryError::NotSent { detail },
        _ => DeliveryError::BrokeOff { detail },
    }
}
