//! One request from admission to the head of the answer.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts as Head;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use kip_control::{Admission, Cell, Control, Permit, RequestRefusal};
use kip_fleet::{Refusal, StartKind};
use kip_spec::function::{FunctionSpec, Protocol, RequestBody};
use kip_spec::sticky::Sticky;
use kip_spec::{Code, Millis, Problem, QualifierName, RequestId, code};
use tokio::time::Instant;

use crate::answer::{self, Answer};
use crate::body::{AnswerParts, Stream, in_future};
use crate::headers::{self, ForwardedHeaders};
use crate::pool::{Pool, Sender};
use crate::prefix::{Fault, Upload};
use crate::sticky;
use crate::trace::{Caller, Outcome, TRACEPARENT, Trace, Tracer};
use crate::tunnel::{Tunnel, Tunnels};
use crate::upgrade::{self, WebSocketRequest};
use kip_records::metrics::Metrics;

/// A call of a function, with its route resolved.
#[derive(Debug)]
pub struct Call {
    /// The function.
    pub cell: Arc<Cell>,
    /// Which of its versions; none for where its traffic goes.
    pub qualifier: Option<QualifierName>,
    /// Path and query as the instance will see them.
    pub target: Uri,
    /// What was taken off the path to get there.
    pub prefix: Option<String>,
    /// What was read of the request's body already.
    pub read: Bytes,
    /// The request's id.
    pub request: RequestId,
    /// Who called.
    pub peer: Option<IpAddr>,
    /// Whether nobody could read along.
    pub secure: bool,
    /// Knows what was wrong with how the request came in, if anything was.
    pub blame: Option<Arc<dyn BodySource>>,
    /// Bytes of a body that are taken, where nobody else counts them.
    pub largest_body: u64,
    /// How long the caller may send nothing of a body that is waited for, where nobody else keeps the time.
    pub body_idle: Option<Duration>,
    /// With which key, where one was sent.
    pub caller: Option<Caller>,
    /// It wakes nobody, keeps nobody awake and takes no place.
    pub exempt: bool,
}

/// Whoever reads a caller's bytes, and so knows best why a body broke off.
pub trait BodySource: std::fmt::Debug + Send + Sync {
    /// The code of what is wrong.
    fn code(&self) -> Option<Code>;
}

/// The exchange, of one thread.
#[derive(Debug, Clone)]
pub struct Relay {
    pub(crate) pool: Rc<Pool>,
    pub(crate) tracer: Rc<Tracer>,
    control: Control,
    tunnels: Rc<Tunnels>,
}

/// How often a request goes on to another instance because one refuses connections.
const MOST_REFUSALS: u8 = 3;

/// How an attempt failed, and whether another one is safe.
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) detail: String,
    /// The request again, if it can be sent a second time.
    pub(crate) again: Option<Request<Upload>>,
}

impl Relay {
    /// A relay for the current thread.
    pub fn new(control: Control, metrics: &Metrics) -> Self {
        let tracer = Rc::new(Tracer::new(control.clone(), metrics.meter()));
        Self { pool: Rc::default(), tracer, control, tunnels: Rc::default() }
    }

    /// Notes a request that was answered before it came to a function.
    pub fn refused(&self, refused: crate::trace::RefusedRequest<'_>) {
        self.tracer.refused(refused);
    }

    /// Waits until no connection is left that became another protocol's.
    pub async fn tunnels_over(&self) {
        self.tunnels.over().await;
    }

    /// Calls a function and gives its answer, or a problem in its place. The exchange goes on in the answer's body;
    /// dropping this future or that body at any time frees the place. A WebSocket goes on in a task of its own.
    ///
    /// What a request to a hot instance does not await is boxed: it takes no part of this future.
    pub async fn exchange(&self, mut call: Call, mut request: Request<Incoming>) -> Answer {
        let beside = call.exempt.then(|| call.cell.beside(call.qualifier.as_ref())).transpose();
        let beside = match beside {
            Ok(beside) => beside,
            Err(state) => return answer::state(&call, state, request.headers()),
        };
        let asker = upgrade::asked(&request).map(|asked| (asked, hyper::upgrade::on(&mut request)));
        let (head, body) = request.into_parts();
        let asked_beside = beside.is_some().then(|| head.headers.clone());
        let caller = (call.caller.take(), call.peer);
        let path = call.target.path_and_query().map_or("/", |path| path.as_str());
        let mut trace = Trace::new(call.request.clone(), call.cell.clone(), caller, head.method.clone(), path);
        trace.qualifier = call.qualifier.clone();
        trace.spans = self.tracer.spans(&head.headers);
        let upload = Upload::new(call.read.clone(), body, trace.bytes_in.clone(), (call.largest_body, call.body_idle));
        // Until the answer's head is there, a caller that leaves drops this.
        let mut guard = Guard { tracer: self.tracer.clone(), trace: Some(trace) };
        match self.attempt(&call, beside, head, upload, asker, &mut guard).await {
            Ok(answer) => answer,
            Err(answer) => {
                // It fell asleep in this moment.
                if let (Some(headers), Err(state)) = (&asked_beside, call.cell.beside(call.qualifier.as_ref())) {
                    guard.trace = None;
                    return answer::state(&call, state, headers);
                }
                let mut answer = *answer;
                if let Some(version) = guard.version_of(&call) {
                    answer.headers_mut().insert(VERSION, version);
                }
                let outcome = if answer.status().as_u16() == 502 { Outcome::Broken } else { Outcome::Refused };
                guard.end(answer.status().as_u16(), outcome);
                answer
            }
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        beside: Option<Permit>,
        head: Head,
        mut upload: Upload,
        mut caller: Option<(WebSocketRequest, OnUpgrade)>,
        guard: &mut Guard,
    ) -> Result<Answer, Box<Answer>> {
        let asked = caller.as_ref().map(|(asked, _)| *asked);
        // Until it is known which version serves it, the limit of the one that serves holds.
        let limit = in_future(call.cell.serving().spec.timeouts.total.to_std());
        if measures(call, &head) && !upload.is_measured() && asked.is_none() {
            // Before a place is taken: a caller that sends slowly must hold none.
            if let Err(code) = Box::pin(upload.read_ahead()).await {
                return Err(body_failed(call, guard, code));
            }
        }
        let known = std::cell::Cell::new(None);
        let key = call.caller.as_ref().map(|caller| &*caller.key);
        let caller_of = |sticky: &Sticky| {
            known.set(sticky::caller(sticky, &head.headers, key));
            known.get()
        };
        let mut permit = match beside {
            Some(permit) => permit,
            None => self.permit(call, &caller_of, &mut upload, limit, guard).await?,
        };
        let waited = Duration::from_micros(guard.trace.as_ref().map_or(0, |trace| trace.elapsed()));
        let limit = in_future(permit.link().version.spec.timeouts.total.to_std().saturating_sub(waited));
        let mut request = build(call, head, upload, &permit, asked);
        if let Some(spans) = guard.trace.as_ref().and_then(|trace| trace.spans)
            && let Ok(value) = HeaderValue::try_from(spans.toward_instance())
        {
            request.headers_mut().insert(TRACEPARENT, value);
        }
        let (mut retried, mut refusals) = (false, 0);
        loop {
            if let Some(trace) = &mut guard.trace {
                trace.link = Some(permit.link().clone());
                trace.qualifier = permit.qualifier().cloned();
                trace.queue = trace.elapsed();
                trace.start = match (trace.start, permit.start()) {
                    (Some(earlier), StartKind::Warm) => Some(earlier),
                    (_, start) => Some(start),
                };
            }
            request.body_mut().follow(permit.link());
            let failure = match (self.send(&permit, request, limit, asked).await, caller) {
                (Ok((response, _)), Some((asked, caller))) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Ok(self.switch(permit, response, asked, caller, guard));
                }
                (Ok((response, connection)), _) => {
                    return Ok(self.answer(permit, response, connection, (None, limit), guard));
                }
                (Err(failure), unused) => {
                    caller = unused;
                    failure
                }
            };
            // It came to no instance: that this one was tried is no second time.
            let unreached = failure.code == code::INSTANCE_UNREACHABLE && refusals < MOST_REFUSALS;
            match failure.again {
                // Once: the core then gives another instance, or this one if it lives.
                Some(again) if (!retried || unreached) && !call.exempt => {
                    Box::pin(permit.instance_ended()).await;
                    drop(permit);
                    refusals += u8::from(unreached);
                    retried = true;
                    request = again;
                    let same = |_: &Sticky| known.get();
                    permit = Box::pin(self.permit(call, &same, request.body_mut(), limit, guard)).await?;
                }
                _ if failure.code == code::BAD_REQUEST => return Err(body_broke_off(call, guard)),
                _ if matches!(failure.code, code::BODY_TOO_LARGE | code::REQUEST_LATE) => {
                    return Err(body_refused(call, guard, failure.code));
                }
                _ => return Err(self.failed(call, guard, failure.code, failure.detail)),
            }
        }
    }

    /// Asks the core, and waits while it says so. A waiting request's body is read ahead, see [`crate::prefix`].
    async fn permit(
        &self,
        call: &Call,
        caller: &impl Fn(&Sticky) -> Option<u64>,
        upload: &mut Upload,
        limit: Instant,
        guard: &mut Guard,
    ) -> Result<Permit, Box<Answer>> {
        let refused = |refused: RequestRefusal, guard: &mut Guard| {
            if let Some(trace) = &mut guard.trace {
                trace.code = Some(refused.refusal.code());
                trace.queue = trace.elapsed();
            }
            Err(Box::new({
                let operates = guard.trace.as_ref().is_some_and(Trace::operates);
                answer::refusal(call.cell.name().as_str(), &refused, operates, &call.request)
            }))
        };
        let qualifier = call.qualifier.as_ref();
        let mut admission = call.cell.admit(qualifier, caller);
        if let (Admission::Unloaded, Some(qualifier)) = (&admission, qualifier) {
            // Once for each version: the cell knows it from then on.
            match Box::pin(self.control.load_version(&call.cell, qualifier)).await {
                Ok(true) => admission = call.cell.admit(Some(qualifier), caller),
                Ok(false) => {}
                Err(error) => return Err(Box::new(answer::problem(error.into(), &call.request))),
            }
        }
        match admission {
            Admission::Unloaded => refused(RequestRefusal { refusal: Refusal::NoVersion, detail: None }, guard),
            Admission::Granted(permit) => Ok(permit),
            Admission::Refused(reason) => refused(reason, guard),
            Admission::Waiting(waiting) => {
                let verdict = async {
                    tokio::pin!(waiting);
                    tokio::select! {
                        verdict = &mut waiting => return Ok(verdict),
                        whole = upload.read_ahead() => whole?,
                    }
                    Ok(waiting.await)
                };
                match tokio::time::timeout_at(limit, Box::pin(verdict)).await {
                    Ok(Ok(Ok(permit))) => Ok(permit),
                    Ok(Ok(Err(reason))) => refused(reason, guard),
                    Ok(Err(code)) => Err(body_failed(call, guard, code)),
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
        request: Request<Upload>,
        limit: Instant,
        asked: Option<WebSocketRequest>,
    ) -> Result<(Response<Incoming>, Sender), Failure> {
        let first_byte = in_future(permit.link().version.spec.timeouts.first_byte.to_std());
        self.send_until(permit, request, (first_byte, limit), asked).await
    }

    /// The same with other limits for the answer's head and for all of it.
    pub(crate) async fn send_until(
        &self,
        permit: &Permit,
        mut request: Request<Upload>,
        (first_byte, limit): (Instant, Instant),
        asked: Option<WebSocketRequest>,
    ) -> Result<(Response<Incoming>, Sender), Failure> {
        let link = permit.link();
        let protocol = protocol_of(&link.version.spec, request.headers(), asked);
        let once = !is_idempotent(request.method());
        let timeouts = &link.version.spec.timeouts;
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
                let pooled = self.pool.take(link.instance, protocol, once);
                let fresh = pooled.is_none();
                let mut connection = match pooled {
                    Some(connection) => connection,
                    None => match Box::pin(self.pool.connect(link, protocol)).await {
                        Ok(connection) => connection,
                        Err(error) => {
                            if error.kind() == std::io::ErrorKind::ConnectionRefused {
                                Box::pin(permit.connection_refused()).await;
                            }
                            let detail = format!("instance {} on {}: {error}", link.instance, link.endpoint);
                            return Err(Failure { code: code::INSTANCE_UNREACHABLE, detail, again: Some(request) });
                        }
                    },
                };
                let copy = copy_of(&request);
                match connection.send(request).await {
                    Ok(response) if is_stray_switch(&response, asked) => {
                        let detail = format!("instance {} switched to a protocol nobody asked for", link.instance);
                        return Err(Failure { code: code::INSTANCE_BROKE_OFF, detail, again: None });
                    }
                    Ok(response) if let_down(&response, asked).is_some() => {
                        let why = let_down(&response, asked).unwrap_or_default();
                        let detail = format!("instance {} answered with {why}", link.instance);
                        return Err(Failure { code: code::INSTANCE_BROKE_OFF, detail, again: None });
                    }
                    Ok(response) => {
                        link.sign();
                        return Ok((response, connection));
                    }
                    Err(mut error) => match (error.take_message(), of_the_body(error.error())) {
                        // Never delivered: the idle connection had been closed. Another one, to the same instance.
                        (Some(back), _) if !fresh => request = back,
                        // The body from the caller failed, not the instance.
                        (None, Some(fault)) => {
                            let code = fault.code();
                            return Err(Failure { code, detail: String::new(), again: None });
                        }
                        (back, _) => {
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

    pub(crate) fn answer(
        &self,
        permit: Permit,
        response: Response<Incoming>,
        connection: Sender,
        (idle, limit): (Option<Duration>, Instant),
        guard: &mut Guard,
    ) -> Answer {
        let (mut head, body) = response.into_parts();
        headers::strip_hop_by_hop(&mut head.headers);
        let idle = idle.unwrap_or_else(|| permit.link().version.spec.timeouts.idle.to_std());
        let Some(trace) = finish_head(&mut head, &permit, guard) else {
            return Response::from_parts(head, crate::Body::Text(None));
        };
        let (pool, tracer) = (self.pool.clone(), self.tracer.clone());
        let parts = AnswerParts { body, permit, connection, pool, tracer, trace, idle, limit };
        Response::from_parts(head, Stream::start(parts))
    }

    /// The instance took a WebSocket: the bytes go both ways from here on, in a task of their own.
    fn switch(
        &self,
        permit: Permit,
        mut response: Response<Incoming>,
        asked: WebSocketRequest,
        caller: OnUpgrade,
        guard: &mut Guard,
    ) -> Answer {
        let instance = hyper::upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
        upgrade::accepted(&mut head, asked);
        if let Some(trace) = finish_head(&mut head, &permit, guard) {
            let tunnel = Tunnel { caller, instance, permit, tracer: self.tracer.clone(), trace };
            self.tunnels.open(tunnel);
        }
        Response::from_parts(head, crate::Body::Text(None))
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

/// Headers that every answer gets from us.
const OURS: usize = 5;
const VERSION: HeaderName = HeaderName::from_static("x-kip-version");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const INSTANCE: HeaderName = HeaderName::from_static("x-kip-instance");
/// An instance asks not to be paused for so long, though no request is in flight.
const KEEP_AWAKE: HeaderName = HeaderName::from_static("x-kip-keep-awake");
const START: HeaderName = HeaderName::from_static("x-kip-start");

/// What an answer's head says about the exchange, and what only we may say.
fn finish_head(head: &mut http::response::Parts, permit: &Permit, guard: &mut Guard) -> Option<Trace> {
    // What it asks of us is not for the caller.
    let asked = head.headers.get(KEEP_AWAKE).and_then(|value| value.to_str().ok()?.parse::<Millis>().ok());
    if let Some(length) = asked {
        permit.link().keep_awake(length);
    }
    headers::strip_ours(&mut head.headers, headers::OURS_TO_CALLERS);
    head.version = http::Version::HTTP_11;
    head.extensions.clear();
    let mut trace = guard.trace.take()?;
    trace.status = head.status.as_u16();
    trace.first_byte = trace.elapsed().saturating_sub(trace.queue);
    head.headers.reserve(OURS);
    answer::set_request_id(&mut head.headers, &trace.request);
    if let Ok(timing) = HeaderValue::try_from(trace.server_timing()) {
        head.headers.insert(SERVER_TIMING, timing);
    }
    if let Some(label) = &permit.link().label {
        head.headers.insert(INSTANCE, label.clone());
    }
    if let Some(version) = permit.link().version.header() {
        head.headers.insert(VERSION, version);
    }
    head.headers.insert(START, HeaderValue::from_static(trace.start.unwrap_or(StartKind::Warm).name()));
    Some(trace)
}

/// How an instance is spoken to: as its function says, else HTTP/1.1, and HTTP/2 for gRPC, which needs it.
fn protocol_of(spec: &FunctionSpec, headers: &http::HeaderMap, asked: Option<WebSocketRequest>) -> Protocol {
    let usual = || if upgrade::is_grpc(headers) { Protocol::Http2 } else { Protocol::Http1 };
    // Servers take WebSockets by HTTP/1.1, hardly any by HTTP/2.
    if asked.is_some() { Protocol::Http1 } else { spec.protocol.unwrap_or_else(usual) }
}

/// What of an answer's head nobody can be given: two servers could read it in two ways.
fn let_down(response: &Response<Incoming>, asked: Option<WebSocketRequest>) -> Option<&'static str> {
    let headers = response.headers();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        if lengths.next().is_some() || headers.contains_key(TRANSFER_ENCODING) {
            return Some("two lengths");
        }
        if !length.as_bytes().iter().all(u8::is_ascii_digit) {
            return Some("a length that is not one number");
        }
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if codings.next().is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.next().is_some()
    {
        return Some("a transfer coding other than chunked");
    }
    // To the caller that would mean consent (RFC 8441, section 5).
    (asked == Some(WebSocketRequest::Http2) && response.status().is_success())
        .then_some("success to a WebSocket that it did not take")
}

/// Whether an instance switched to what it was not asked for.
fn is_stray_switch(response: &Response<Incoming>, asked: Option<WebSocketRequest>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        && !(asked.is_some() && upgrade::names_websocket(response.headers()))
}

/// What was wrong with the caller's body, if sending failed because of it: that error is then the cause of this one.
fn of_the_body(error: &hyper::Error) -> Option<&Fault> {
    std::error::Error::source(error).filter(|_| error.is_user())?.downcast_ref()
}

/// The caller left in the midst of its body, or its body is not as it should be.
fn body_broke_off(call: &Call, guard: &mut Guard) -> Box<Answer> {
    if let Some(code) = call.blame.as_ref().and_then(|blame| blame.code()) {
        return body_refused(call, guard, code);
    }
    guard.end(0, Outcome::Left);
    // Hardly anybody reads this.
    let problem = Problem::new(code::BAD_REQUEST, "the request is not acceptable: its body broke off");
    Box::new(answer::problem(problem, &call.request))
}

/// A body that was read ahead could not be read.
fn body_failed(call: &Call, guard: &mut Guard, code: Code) -> Box<Answer> {
    if code == code::BAD_REQUEST { body_broke_off(call, guard) } else { body_refused(call, guard, code) }
}

/// Whether a body of unknown length is read as far as it may have to be, so that the instance is told its length: many programs read no
/// others. The form does not depend on whether the instance was awake.
fn measures(call: &Call, head: &Head) -> bool {
    let spec = &call.cell.serving().spec;
    spec.request_body == RequestBody::Measured && protocol_of(spec, &head.headers, None) == Protocol::Http1
}

fn body_refused(call: &Call, guard: &mut Guard, code: Code) -> Box<Answer> {
    if let Some(trace) = &mut guard.trace {
        trace.code = Some(code);
    }
    guard.end(code.status(), Outcome::Refused);
    let title = code.entry().map_or("its body is not acceptable", |entry| entry.title);
    Box::new(answer::problem(Problem::new(code, title), &call.request))
}

/// Writes the record of a request that ends before its answer has a head.
pub(crate) struct Guard {
    pub(crate) tracer: Rc<Tracer>,
    pub(crate) trace: Option<Trace>,
}

impl Guard {
    pub(crate) fn end(&mut self, status: u16, outcome: Outcome) {
        if let Some(mut trace) = self.trace.take() {
            trace.status = status;
            self.tracer.end(&trace, outcome);
        }
    }

    /// The version that a refusal is about: the one whose instance had the request, else the one that serves, if it was asked for.
    fn version_of(&self, call: &Call) -> Option<HeaderValue> {
        let link = self.trace.as_ref().and_then(|trace| trace.link.as_ref());
        let serving = || matches!(call.qualifier, None | Some(QualifierName::Latest)).then(|| call.cell.serving());
        link.map(|link| link.version.clone()).or_else(serving)?.header()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(0, Outcome::Left);
    }
}

/// The request as the instance gets it.
pub(crate) fn build(
    call: &Call,
    mut head: Head,
    upload: Upload,
    permit: &Permit,
    asked: Option<WebSocketRequest>,
) -> Request<Upload> {
    let version = &permit.link().version;
    let prefix = call.prefix.as_deref();
    headers::toward_instance(
        &mut head.headers,
        &ForwardedHeaders {
            version,
            token: permit.link().token.as_ref(),
            qualifier: permit.qualifier().or(call.qualifier.as_ref()),
            request: &call.request,
            peer: call.peer,
            secure: call.secure,
            prefix,
        },
    );
    head.uri = call.target.clone();
    head.version = http::Version::HTTP_11;
    head.extensions.clear();
    if let Some(asked) = asked {
        upgrade::ask(&mut head, asked);
    }
    let mut request = Request::from_parts(head, upload);
    // Or hyper would leave out a body that a GET has.
    let open_end = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    if open_end && protocol_of(&version.spec, request.headers(), asked) == Protocol::Http1 {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if protocol_of(&version.spec, request.headers(), asked) == Protocol::Http2 {
        headers::for_http2(&mut request);
    }
    request
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// A copy to send again after the request may have reached the instance: only where that is safe by its method
/// (RFC 9110, section 9.2.2) and all of its body is here.
fn copy_of(request: &Request<Upload>) -> Option<Request<Upload>> {
    let body = is_idempotent(request.method()).then(|| request.body().copy())??;
    let mut copy = Request::new(body);
    *copy.version_mut() = request.version();
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
