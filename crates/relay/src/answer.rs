//! Answers of our own: problems as JSON.

use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use kip_control::RequestRefusal;
use kip_fleet::{Refusal, State};
use kip_spec::problem::Envelope;
use kip_spec::{Millis, Problem, RequestId, code};

use crate::body::Body;
use crate::exchange::Call;

/// What goes back to a caller.
pub type Answer = Response<Body>;

/// A problem as an answer, with the status of its code. Its body is rendered where the caller's dialect is known.
pub fn problem(mut problem: Problem, request: &RequestId) -> Answer {
    problem.request_id = Some(request.as_str().to_owned());
    let code = problem.code;
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let retry_after = problem.retry_after;
    let mut answer = Response::new(Body::Problem(Box::new(problem)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&code.to_string()) {
        headers.insert("x-kip-error", value);
    }
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    set_request_id(headers, request);
    answer
}

/// What we say in place of a function without an instance that could, for a path that wakes nobody: how it is. Readers of metrics get
/// a text without any.
pub(crate) fn state(call: &Call, state: Option<State>, headers: &HeaderMap) -> Answer {
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (name, state) = (call.cell.name().as_str(), state.map_or("none", State::name));
    let (kind, text) = if accepts.contains("application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", "# EOF\n".to_owned())
    } else if accepts.contains("text/plain") {
        ("text/plain; version=0.0.4; charset=utf-8", format!("# function {name}, instance {state}\n"))
    } else {
        ("application/json", serde_json::json!({"function": name, "instance": state}).to_string() + "\n")
    };
    let mut answer = Response::new(Body::text(text));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert("x-kip-state", HeaderValue::from_static(state));
    set_request_id(answer.headers_mut(), &call.request);
    answer
}

/// What a connection gets that is one too many, as it goes over the wire.
pub fn refused_connection() -> String {
    let problem = Problem::new(code::TOO_MANY_CONNECTIONS, "the gateway has as many connections as it takes")
        .hint("try again later, or raise limits.connections in kipwake.toml");
    on_the_wire("503 Service Unavailable", "retry-after: 1\r\n", problem)
}

/// What a connection gets that comes from an address that may not connect, as it goes over the wire.
pub fn foreign_peer() -> String {
    let problem =
        Problem::new(code::ADDRESS_NOT_LOOPBACK, "this port takes connections of this machine and of named proxies")
            .hint("use the port with TLS; if this address is a proxy's, add it to server.proxies in kipwake.toml");
    on_the_wire("403 Forbidden", "", problem)
}

/// What a caller gets that does not speak TLS where it is spoken, as it goes over the wire.
pub fn in_the_clear() -> String {
    let problem = Problem::new(code::BAD_REQUEST, "the request is in the clear, and this port speaks TLS")
        .hint("write https:// in place of http://");
    on_the_wire("400 Bad Request", "", problem)
}

fn on_the_wire(status: &str, headers: &str, mut problem: Problem) -> String {
    let id = RequestId::from_bits(kip_host::random::unique());
    problem.request_id = Some(id.as_str().to_owned());
    let code = problem.code;
    let text = serde_json::to_string(&Envelope { error: problem }).unwrap_or_default() + "\n";
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-kip-error: {code}\r\n\
         x-kip-request-id: {id}\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{text}",
        text.len(),
        id = id.as_str(),
    )
}

/// A refusal as an answer, with `Retry-After` where that can help. `operates` is whether its caller may read what programs write; others are
/// told the first line of the detail, which is ours.
pub fn refusal(function: &str, refused: &RequestRefusal, operates: bool, request: &RequestId) -> Answer {
    problem(refusal_problem(function, refused, operates), request)
}

/// The same as a value.
pub(crate) fn refusal_problem(function: &str, refused: &RequestRefusal, operates: bool) -> Problem {
    let reason = refused.refusal;
    let mut said = Problem::new(reason.code(), format!("function `{function}` cannot answer: {reason}"))
        .hint(hint(function, reason));
    let detail = refused.detail.as_deref().unwrap_or_default();
    let detail = if operates { detail.trim_start_matches('\n') } else { detail.split('\n').next().unwrap_or_default() };
    if !detail.is_empty() {
        said = said.cause(detail);
    }
    said.retry_after = reason.retry_after_seconds();
    said
}

fn hint(function: &str, refusal: Refusal) -> String {
    match refusal {
        Refusal::QueueFull { .. } => {
            format!(
                "try again later, or raise queue.depth or instances.max; `kip why {function}` shows what holds it back"
            )
        }
        Refusal::QueueTimeout { .. } => {
            format!("`kip why {function}` shows what its instances do; timeouts.queue sets the limit")
        }
        Refusal::StartFailed(_) => {
            format!(
                "`kip why {function}` shows what was tried, `kip logs {function}` what the program wrote, if it ran"
            )
        }
        Refusal::Backoff { retry_in, .. } => {
            format!(
                "fix the cause and deploy again, or wait {}; `kip logs {function}` shows what the program wrote",
                Millis(retry_in)
            )
        }
        Refusal::NoCapacity => "make room, or ask for less below `resources`; `kip ps` shows who holds what".to_owned(),
        Refusal::NeverFits { .. } => {
            "ask for less below `resources`, or give the host more in kipwake.toml; `kip ps` shows what it has"
                .to_owned()
        }
        Refusal::DeviceYielded { .. } => {
            "wait, or put the device into use again with `kip device use`; `kip device ls -v` shows until when"
                .to_owned()
        }
        Refusal::NoVersion => format!("`kip inspect {function}` lists the versions there are"),
        Refusal::InstanceGone => "`kip ps` lists the instances there are".to_owned(),
        Refusal::Removed => "`kip ls` lists the functions there are".to_owned(),
        Refusal::Disabled => {
            "EnableFunctionInvocation takes it back into service; `kip audit` says who disabled it".to_owned()
        }
        Refusal::ShuttingDown => "try again when the server is back".to_owned(),
        Refusal::CoreFailed => "try again; server.log has the fault, which is worth a report".to_owned(),
        Refusal::Quarantined => {
            format!(
                "deploy {function} again to take it back into service; server.log has the faults, which are worth a report"
            )
        }
    }
}

const REQUEST_ID: http::HeaderName = http::HeaderName::from_static("x-kip-request-id");

pub(crate) fn set_request_id(headers: &mut http::HeaderMap, request: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(request.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
}
