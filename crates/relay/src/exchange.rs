//! One request from admission to the head of the answer.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts as Head;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use kip_control::{Admission, Cell, Control, Permit, Refused};
use kip_fleet::StartKind;
use kip_spec::{Code, Problem, RequestId, code};
use tokio::time::Instant;

use crate::answer::{self, Answer};
use crate::body::{Parts, Stream, in_future};
use crate::headers::{self, Forwarding};
use crate::metrics::Metrics;
use crate::pool::{Pool, Sender};
use crate::prefix::Upload;
use crate::trace::{Caller, Outcome, Trace, Tracer};

/// A call of a function, with its route resolved.
#[derive(Debug)]
pub struct Call {
    /// The function.
    pub cell: Arc<Cell>,
    /// Path and query as the instance will see them.
    pub target: Uri,
    /// What was taken off the path to get there.
    pub prefix: Option<String>,
    /// The request's id.
    pub request: RequestId,
    /// Who called.
    pub peer: Option<IpAddr>,
    /// With which key, where one was sent.
    pub caller: Option<Caller>,
}

/// The exchange, of one thread.
#[derive(Debug, Clone)]
pub struct Relay {
    pool: Rc<Pool>,
    tracer: Rc<Tracer>,
}

/// How an attempt failed, and whether another one is safe.
struct Failure {
    code: Code,
    detail: String,
    /// The request again, if it can be sent a second time.
    again: Option<Request<Upload>>,
}

impl Relay {
    /// A relay for the current thread.
    pub fn new(control: Control, metrics: &Metrics) -> Self {
        Self { pool: Rc::default(), tracer: Rc::new(Tracer::new(control, metrics.meter())) }
    }

    /// Notes a request that was answered before it came to a function.
    pub fn refused(&self, refused: crate::trace::Refused<'_>) {
        self.tracer.refused(refused);
    }

    /// Calls a function and gives its answer, or a problem in its place. The exchange goes on in the answer's body;
    /// dropping this future or that body at any time frees the place.
    pub async fn exchange(&self, mut call: Call, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let caller = (call.caller.take(), call.peer);
        let path = call.target.path_and_query().map_or("/", |path| path.as_str());
        let trace = Trace::new(call.request.clone(), call.cell.clone(), caller, head.method.clone(), path);
        let upload = Upload::new(body, trace.bytes_in.clone());
        // Until the answer's head is there, a caller that leaves drops this.
        let mut guard = Guard { tracer: self.tracer.clone(), trace: Some(trace) };
        match self.attempt(&call, head, upload, &mut guard).await {
            Ok(answer) => answer,
            Err(answer) => {
                let outcome = if answer.status().as_u16() == 502 { Outcome::Broken } else { Outcome::Refused };
                guard.end(answer.status().as_u16(), outcome);
                *answer
            }
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        head: Head,
        mut upload: Upload,
        guard: &mut Guard,
    ) -> Result<Answer, Box<Answer>> {
        let total = call.cell.serving().spec.timeouts.total.to_std();
        let limit = in_future(total);
        let mut permit = self.permit(call, &mut upload, limit, guard).await?;
        let mut request = build(call, head, upload, &permit);
        let mut retried = false;
        loop {
            if let Some(trace) = &mut guard.trace {
                trace.link = Some(permit.link().clone());
                trace.queue = trace.elapsed();
                trace.start = match (trace.start, permit.start()) {
                    (Some(earlier), StartKind::Warm) => Some(earlier),
                    (_, start) => Some(start),
                };
            }
            request.body_mut().follow(permit.link());
            let failure = match self.send(&permit, request, limit).await {
                Ok((response, connection)) => return Ok(self.answer(permit, response, connection, limit, guard)),
                Err(failure) => failure,
            };
            match failure.again {
                // Once: the core then gives another instance, or this one if it lives.
                Some(again) if !retried => {
                    permit.instance_ended().await;
                    drop(permit);
                    retried = true;
                    request = again;
                    permit = self.permit(call, request.body_mut(), limit, guard).await?;
                }
                _ if failure.code == code::BAD_REQUEST => return Err(body_broke_off(call, guard)),
                _ => return Err(self.failed(call, guard, failure.code, failure.detail)),
            }
        }
    }

    /// Asks the core, and waits while it says so. A waiting request's body is read ahead, see [`crate::prefix`].
    async fn permit(
        &self,
        call: &Call,
        upload: &mut Upload,
        limit: Instant,
        guard: &mut Guard,
    ) -> Result<Permit, Box<Answer>> {
        let refused = |refused: Refused, guard: &mut Guard| {
            if let Some(trace) = &mut guard.trace {
                trace.code = Some(refused.refusal.code());
                trace.queue = trace.elapsed();
            }
            Err(Box::new(answer::refusal(call.cell.name().as_str(), &refused, &call.request)))
        };
        match call.cell.admit() {
            Admission::Granted(permit) => Ok(permit),
            Admission::Refused(reason) => refused(reason, guard),
            Admission::Waiting(waiting) => {
                let verdict = async {
                    tokio::pin!(waiting);
                    tokio::select! {
                        verdict = &mut waiting => return Some(verdict),
                        whole = upload.read_ahead() => if !whole { return None },
                    }
                    Some(waiting.await)
                };
                match tokio::time::timeout_at(limit, verdict).await {
                    Ok(Some(Ok(permit))) => Ok(permit),
                    Ok(Some(Err(reason))) => refused(reason, guard),
                    Ok(None) => Err(body_broke_off(call, guard)),
                    Err(_) => {
                        Err(self.failed(call, guard, code::TOTAL_TIMEOUT, "it waited for an instance".to_owned()))
                    }
                }
            }
        }
    }

    /// Sends on a pooled connection or a new one.
    async fn send(
        &self,
        permit: &Permit,
        mut request: Request<Upload>,
        limit: Instant,
    ) -> Result<(Response<Incoming>, Sender), Failure> {
        let link = permit.link();
        let timeouts = &link.version.spec.timeouts;
        let first_byte = in_future(timeouts.first_byte.to_std());
        let late = || {
            let (code, what) = if first_byte <= limit {
                (code::FIRST_BYTE_TIMEOUT, format!("no answer within timeouts.first_byte, {}", timeouts.first_byte))
            } else {
                (code::TOTAL_TIMEOUT, format!("no answer within timeouts.total, {}", timeouts.total))
            };
            Failure { code, detail: what, again: None }
        };
        let exchange = async {
            loop {
                let pooled = self.pool.take(link.instance);
                let fresh = pooled.is_none();
                let mut connection = match pooled {
                    Some(connection) => connection,
                    None => match self.pool.connect(link).await {
                        Ok(connection) => connection,
                        Err(error) => {
                            let detail = format!("instance {} on {}: {error}", link.instance, link.address);
                            return Err(Failure { code: code::INSTANCE_UNREACHABLE, detail, again: Some(request) });
                        }
                    },
                };
                let copy = copy_of(&request);
                match connection.try_send_request(request).await {
                    Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                        let detail = format!("instance {} switched protocols, which nobody asked for", link.instance);
                        return Err(Failure { code: code::INSTANCE_BROKE_OFF, detail, again: None });
                    }
                    Ok(response) => {
                        link.sign();
                        return Ok((response, connection));
                    }
                    Err(mut error) => match error.take_message() {
                        // Never delivered: the idle connection had been closed. Another one, to the same instance.
                        Some(back) if !fresh => request = back,
                        // The body from the caller failed, not the instance.
                        None if is_of_the_body(error.error()) => {
                            return Err(Failure { code: code::BAD_REQUEST, detail: String::new(), again: None });
                        }
                        back => {
                            let detail = match link.end() {
                                Some(why) => format!("instance {} was ended: {why}", link.instance),
                                None => format!("instance {}: {}", link.instance, error.error()),
                            };
                            let again = back.or(copy);
                            return Err(Failure { code: code::INSTANCE_BROKE_OFF, detail, again });
                        }
                    },
                }
            }
        };
        match tokio::time::timeout_at(first_byte.min(limit), exchange).await {
            Ok(result) => result,
            Err(_) => Err(late()),
        }
    }

    fn answer(
        &self,
        permit: Permit,
        response: Response<Incoming>,
        connection: Sender,
        limit: Instant,
        guard: &mut Guard,
    ) -> Answer {
        let (mut head, body) = response.into_parts();
        headers::strip_hop_by_hop(&mut head.headers);
        headers::strip_ours(&mut head.headers, "x-kip-");
        head.version = http::Version::HTTP_11;
        head.extensions.clear();
        let idle = permit.link().version.spec.timeouts.idle.to_std();
        let Some(mut trace) = guard.trace.take() else { return Response::from_parts(head, crate::Body::Text(None)) };
        trace.status = head.status.as_u16();
        trace.first_byte = trace.elapsed().saturating_sub(trace.queue);
        answer::set_request_id(&mut head.headers, &trace.request);
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                head.headers.insert(name, value);
            }
        };
        set("server-timing", &trace.server_timing());
        set("x-kip-instance", &permit.link().instance.to_string());
        set("x-kip-start", trace.start.unwrap_or(StartKind::Warm).name());
        let (pool, tracer) = (self.pool.clone(), self.tracer.clone());
        let parts = Parts { body, permit, connection, pool, tracer, trace, idle, limit };
        Response::from_parts(head, Stream::start(parts))
    }

    fn failed(&self, call: &Call, guard: &mut Guard, code: Code, detail: String) -> Box<Answer> {
        let name = call.cell.name();
        if let Some(trace) = &mut guard.trace {
            trace.code = Some(code);
        }
        let title = code.entry().map_or("the call failed", |entry| entry.title);
        let problem = Problem::new(code, format!("function `{name}` did not answer: {title}")).cause(detail).hint(
            format!("`kip logs {name}` shows what the program wrote, `kip why {name}` what became of its instances"),
        );
        Box::new(answer::problem(problem, &call.request))
    }
}

/// Whether sending failed because the caller's body did: that error is then the cause of this one.
fn is_of_the_body(error: &hyper::Error) -> bool {
    error.is_user() && std::error::Error::source(error).is_some_and(|cause| cause.is::<hyper::Error>())
}

/// The caller left in the midst of its body, or its body is not HTTP; hardly anybody reads this answer.
fn body_broke_off(call: &Call, guard: &mut Guard) -> Box<Answer> {
    guard.end(0, Outcome::Left);
    let problem = Problem::new(code::BAD_REQUEST, "the request is not acceptable: its body broke off");
    Box::new(answer::problem(problem, &call.request))
}

/// Writes the record of a request that ends before its answer has a head.
struct Guard {
    tracer: Rc<Tracer>,
    trace: Option<Trace>,
}

impl Guard {
    fn end(&mut self, status: u16, outcome: Outcome) {
        if let Some(mut trace) = self.trace.take() {
            trace.status = status;
            self.tracer.end(&trace, outcome);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(0, Outcome::Left);
    }
}

/// The request as the instance gets it.
fn build(call: &Call, mut head: Head, upload: Upload, permit: &Permit) -> Request<Upload> {
    let version = &permit.link().version;
    let prefix = call.prefix.as_deref();
    headers::toward_instance(
        &mut head.headers,
        &Forwarding { version, request: &call.request, peer: call.peer, prefix },
    );
    head.uri = call.target.clone();
    head.version = http::Version::HTTP_11;
    head.extensions.clear();
    Request::from_parts(head, upload)
}

/// A copy to send again after the request may have reached the instance: only where that is safe by its method
/// (RFC 9110, section 9.2.2) and all of its body is here.
fn copy_of(request: &Request<Upload>) -> Option<Request<Upload>> {
    let idempotent =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    let body = idempotent.then(|| request.body().copy())??;
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
