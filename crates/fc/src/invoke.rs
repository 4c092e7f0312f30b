//! `InvokeFunction`: synchronous by way of an instance, asynchronous by way of a task.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use kip_control::{Admission, Cell, Link, LogFile, LogRecord, Permit};
use kip_host::clock::{monotonic_micros, wall_millis};
use kip_relay::{Caller, Delivery, DeliveryError};
use kip_spec::account::{ACCOUNT, REGION};
use kip_spec::sticky::Sticky;
use kip_spec::{InstanceId, Problem, QualifierName, code};
use kip_tasks::Submission;
use kip_tasks::envelope::Call;
use kip_wire::Role;
use serde_json::json;
use tokio::sync::mpsc;

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::invoker::InstanceAnswer;
use crate::request::{Request, qualifier};

/// Where event functions are called.
const PATH: &str = "/invoke";
/// Bytes of the log that an answer brings.
const TAIL: usize = 4 << 10;
/// Bytes of an answer that is held for its log.
const LARGEST_HELD: usize = 32 << 20;
/// The function failed.
const UNHANDLED: &str = "UnhandledInvocationError";
/// The error types that a function may name.
const ERROR_TYPES: [&str; 3] = [UNHANDLED, "HandledInvocationError", "InitializationError"];

pub(crate) async fn invoke(fc: &Fc, request: &Request) -> FcResult<Response> {
    let cell = fc.control.require(request.function())?;
    cell.require_enabled()?;
    let slot = request.key.admit(|| monotonic_micros().saturating_mul(1_000)).map_err(|refusal| {
        fc.metrics.key_refused(request.key.name(), refusal.limit);
        FcError::from(refusal.problem)
    })?;
    match request.header("x-fc-invocation-type") {
        None | Some("Sync") => {
            let key = &request.key;
            let operates = key.role() >= Role::Operate;
            let caller = Caller { key: key.name().clone(), tenant: key.tenant().clone(), operates, slot };
            synchronous(fc, request, &cell, caller).await
        }
        Some("Async") => asynchronous(fc, request).await,
        Some(other) => Err(FcError::invalid(format!("x-fc-invocation-type is Sync or Async, not `{other}`"))),
    }
}

async fn asynchronous(fc: &Fc, request: &Request) -> FcResult<Response> {
    let id = request.header("x-fc-async-task-id").map(str::to_owned);
    let submission = Submission {
        function: request.function().to_owned(),
        qualifier: request.query.get("qualifier").map(str::to_owned),
        tenant: Some(request.key.tenant().to_string()),
        key: Some(request.key.name().to_string()),
        id,
        call: Some(Call::event(Some("application/octet-stream".to_owned()))),
        payload: request.body.clone(),
        request: request.id.as_str().to_owned(),
        ..Submission::default()
    };
    let receipt = fc.tasks.submit(submission).await?;
    let headers = [("x-fc-async-task-id", receipt.id), ("x-fc-request-id", receipt.request)];
    Ok((StatusCode::ACCEPTED, headers).into_response())
}

async fn synchronous(fc: &Fc, request: &Request, cell: &Arc<Cell>, caller: Caller) -> FcResult<Response> {
    if cell.serving().spec.job.is_some() {
        let what =
            format!("`{}` is a job, and answers no calls: invoke it with x-fc-invocation-type Async", cell.name());
        return Err(Problem::new(code::JOB_NOT_CALLED, what).into());
    }
    let asked = request.query.get("qualifier").map(qualifier).transpose()?;
    let mut caller = Some(caller);
    // Once more, if the instance never got it.
    for last in [false, true] {
        let permit = match place(fc, request, cell, asked.as_ref()).await? {
            Place::Granted(permit) => *permit,
            Place::Failed(response) => return Ok(*response),
        };
        let link = permit.link().clone();
        let (instance, version) = (link.instance, link.version.clone());
        let timeout = timeout_of(&permit);
        let delivery = delivery(request, cell, caller.take(), timeout)?;
        let (began, wall) = (monotonic_micros(), wall_millis());
        let failed = match fc.invoker.carry(permit, delivery).await {
            Ok(answer) => {
                let mut response = answered(fc, request, answer, (instance, wall)).await;
                let took = (monotonic_micros() - began) / 1_000;
                let checksum = fc.checksum_of(version.id).await;
                let headers = response.headers_mut();
                put(headers, "x-fc-invocation-duration", &took.to_string());
                put(headers, "x-fc-instance-id", &instance.to_string());
                put(headers, "x-fc-date", &now());
                if let Some(bytes) = memory_of(fc, &link).await {
                    put(headers, "x-fc-max-memory-usage", &format!("{:.2}", megabytes(bytes)));
                }
                put(headers, "x-fc-invocation-code-version", &version_id(&version.label()));
                checksum.iter().for_each(|checksum| put(headers, "x-fc-code-checksum", checksum));
                return Ok(response);
            }
            Err(DeliveryError::NotSent { detail }) if last => {
                Problem::new(code::INSTANCE_UNREACHABLE, "the instance could not be reached").cause(detail).into()
            }
            Err(DeliveryError::NotSent { .. }) => continue,
            Err(DeliveryError::TooLong) => {
                let seconds = timeout.as_secs();
                let said = format!("Function timed out after {seconds} seconds");
                return Ok(function_error(UNHANDLED, &said, code::FIRST_BYTE_TIMEOUT));
            }
            Err(DeliveryError::BrokeOff { detail }) => {
                let said = format!("Process exited unexpectedly before completing request: {detail}");
                return Ok(function_error(UNHANDLED, &said, code::INSTANCE_BROKE_OFF));
            }
        };
        return Err(failed);
    }
    Err(Problem::new(code::INSTANCE_UNREACHABLE, "the instance could not be reached").into())
}

/// What became of the wait for an instance.
enum Place {
    Granted(Box<Permit>),
    /// The function itself is at fault, which its answer says.
    Failed(Box<Response>),
}

/// A place on an instance. The brain keeps the time that a request may wait.
async fn place(fc: &Fc, request: &Request, cell: &Arc<Cell>, asked: Option<&QualifierName>) -> FcResult<Place> {
    let caller = |by: &Sticky| kip_relay::caller(by, &request.headers, Some(&request.author().by));
    let mut admission = cell.admit(asked, caller);
    if let (Admission::Unloaded, Some(asked)) = (&admission, asked)
        && fc.control.load_version(cell, asked).await?
    {
        admission = cell.admit(Some(asked), caller);
    }
    let refused = match admission {
        Admission::Granted(permit) => return Ok(Place::Granted(Box::new(permit))),
        Admission::Waiting(waiting) => match waiting.await {
            Ok(permit) => return Ok(Place::Granted(Box::new(permit))),
            Err(refused) => refused,
        },
        Admission::Refused(refused) => refused,
        Admission::Unloaded => {
            let error = kip_control::Error::NoQualifier {
                function: cell.name().to_string(),
                qualifier: asked.map(ToString::to_string).unwrap_or_default(),
            };
            return Err(error.into());
        }
    };
    let operates = request.key.role() >= Role::Operate;
    let answer = kip_relay::refusal(cell.name().as_str(), &refused, operates, &request.id);
    let problem = answer.body().problem().cloned();
    let problem = problem.unwrap_or_else(|| Problem::new(refused.refusal.code(), "the function cannot answer"));
    let own = problem.code;
    let said = [Some(problem.message.as_str()), problem.cause.as_deref()].into_iter().flatten();
    let said = said.collect::<Vec<_>>().join(": ");
    match own {
        code::INITIALIZE_FAILED => Ok(Place::Failed(Box::new(function_error("InitializationError", &said, own)))),
        // The program could not be started: clients are to see that as the function's fault.
        own if own.0 / 1_000 == 4 => Ok(Place::Failed(Box::new(function_error("FunctionNotStarted", &said, own)))),
        _ => Err(problem.into()),
    }
}

/// The vendor's limit of a run. A function of kip.yaml has another one for the whole of a request.
fn timeout_of(permit: &Permit) -> Duration {
    let timeouts = &permit.link().version.spec.timeouts;
    let is_ours = timeouts.total.0 == timeouts.first_byte.0 + timeouts.queue.0;
    if is_ours { timeouts.first_byte.to_std() } else { timeouts.total.to_std() }
}

fn delivery(request: &Request, cell: &Arc<Cell>, caller: Option<Caller>, timeout: Duration) -> FcResult<Delivery> {
    let body = request.body.clone();
    let length = body.len();
    let mut sent = http::Request::new(body);
    *sent.method_mut() = http::Method::POST;
    *sent.uri_mut() = http::Uri::from_static(PATH);
    let headers = sent.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    let mut ours = Vec::new();
    let mut add = |name: &'static str, value: &str| {
        ours.extend(HeaderValue::from_str(value).map(|value| (HeaderName::from_static(name), value)));
    };
    add("x-fc-control-path", PATH);
    add("x-fc-date", &now());
    add("x-fc-region", REGION);
    add("x-fc-account-id", ACCOUNT);
    add("x-fc-function-timeout", &timeout.as_secs().to_string());
    if let Some(memory) = cell.serving().spec.resources.memory {
        add("x-fc-function-memory", &(memory.0 >> 20).to_string());
    }
    Ok(Delivery {
        cell: cell.clone(),
        request: sent,
        ours,
        id: request.id.clone(),
        caller,
        peer: request.peer,
        secure: false,
        prefix: None,
        limit: timeout,
    })
}

/// The answer of an instance as clients of the vendor read it: a failure of the function is a 200 with its type in a header.
async fn answered(
    fc: &Fc,
    request: &Request,
    answer: InstanceAnswer,
    (instance, since): (InstanceId, i64),
) -> Response {
    let InstanceAnswer { status, headers, body } = answer;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let failed = match text("x-fc-status") {
        Some(said) => !said.starts_with('2'),
        None => status.as_u16() >= 400,
    };
    let named = text("x-fc-error-type").and_then(|named| ERROR_TYPES.into_iter().find(|known| *known == named));
    let kind = headers.get(CONTENT_TYPE).cloned();
    let wants_log = request.header("x-fc-log-type") == Some("Tail");
    let mut response = if wants_log {
        let held = hold(body).await;
        let log = tail(fc, request, instance, since).await;
        let mut response = match held {
            Ok(bytes) => Body::from(bytes).into_response(),
            Err(said) => function_error(UNHANDLED, &said, code::INSTANCE_BROKE_OFF),
        };
        put(response.headers_mut(), "x-fc-log-result", &BASE64_STANDARD.encode(log));
        response
    } else {
        let stream = futures_util::stream::unfold(body, |mut body| async move {
            let piece = body.recv().await?;
            Some((piece.map_err(std::io::Error::other), body))
        });
        Body::from_stream(stream).into_response()
    };
    let out = response.headers_mut();
    if let Some(kind) = kind {
        out.insert(CONTENT_TYPE, kind);
    }
    if failed {
        put(out, "x-fc-error-type", named.unwrap_or(UNHANDLED));
    }
    response
}

/// The time as headers have it.
fn now() -> String {
    let at = jiff::Timestamp::from_millisecond(wall_millis()).unwrap_or_default();
    format!("{at:.0}")
}

/// The most memory that an instance was seen to use. One that nobody has looked at yet is looked at now.
async fn memory_of(fc: &Fc, link: &Link) -> Option<u64> {
    match link.peak_memory() {
        Some(bytes) => Some(bytes).filter(|bytes| *bytes > 1),
        None => fc.control.measure_memory(link).await,
    }
}

#[expect(clippy::cast_precision_loss, reason = "two places are shown")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// All of an answer, for one that brings its log.
async fn hold(mut body: mpsc::Receiver<Result<Bytes, String>>) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(piece) = body.recv().await {
        all.extend_from_slice(&piece?);
        if all.len() > LARGEST_HELD {
            return Err(format!("the answer has more than {LARGEST_HELD} bytes"));
        }
    }
    Ok(all)
}

/// What an instance wrote since then, the last of it. Where it frames its requests, what belongs to this one; else requests at the same time
/// are in it too.
async fn tail(fc: &Fc, request: &Request, instance: InstanceId, since: i64) -> String {
    let (function, id) = (request.function(), request.id.clone());
    fc.control.settle_logs(function).await;
    let Some(logs) = fc.control.log_folder(function).parent().map(std::path::Path::to_owned) else {
        return String::new();
    };
    let log = LogFile::of(&logs, function, instance);
    let read = kip_host::tasks::blocking("log of an invocation", move || {
        let file = log.files().pop()?;
        let bytes = std::fs::read(file).ok()?;
        let records = bytes.split(|byte| *byte == b'\n').filter_map(LogRecord::parse);
        let records = records.filter(|record| record.at >= since && record.stream != "kip");
        let lines = records.map(|record| {
            let end = if record.cut { "" } else { "\n" };
            (record.stream.to_string(), format!("{}{end}", record.text))
        });
        let mut text = framed(&lines.collect::<Vec<_>>(), id.as_str());
        let mut begin = text.len().saturating_sub(TAIL);
        while !text.is_char_boundary(begin) {
            begin += 1;
        }
        Some(text.split_off(begin))
    });
    read.await.flatten().unwrap_or_default()
}

/// The lines of one request, by the frame that runtimes write around it; all lines where there is none. Lines of the other stream are of
/// nobody: they stay.
fn framed(lines: &[(String, String)], id: &str) -> String {
    let [start, end] = ["Start", "End"].map(|word| format!("FC Invoke {word} RequestId: {id}"));
    let own = lines.iter().find(|(_, text)| text.contains(&start)).map(|(stream, _)| stream);
    let mut inside = false;
    let mut kept = String::new();
    for (stream, text) in lines {
        let is_own = own.is_none_or(|own| own == stream);
        inside |= is_own && text.contains(&start);
        if own.is_none() || !is_own || inside {
            kept.push_str(text);
        }
        inside &= !(is_own && text.contains(&end));
    }
    kept
}

/// A failure of the function, in the vendor's form.
fn function_error(kind: &'static str, said: &str, own: kip_spec::Code) -> Response {
    let body = json!({"errorMessage": said, "errorType": kind});
    let mut response = axum::Json(body).into_response();
    put(response.headers_mut(), "x-fc-error-type", kind);
    put(response.headers_mut(), "x-kip-error", &own.to_string());
    response
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // A text of several lines is no header.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// A version as the vendor names it: its number, or LATEST.
pub(crate) fn version_id(label: &str) -> String {
    match label.bytes().all(|byte| byte.is_ascii_digit()) {
        true => label.to_owned(),
        false => kip_control::LATEST.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_divides_the_lines_of_requests() {
        let line = |stream: &str, text: &str| (stream.to_owned(), format!("{text}\n"));
        let start = |id: &str| line("out", &format!("FC Invoke Start RequestId: {id}"));
        let end = |id: &str| line("out", &format!("FC Invoke End RequestId: {id}"));
        let all = [
            line("out", "old"),
            start("a"),
            line("out", "one"),
            line("err", "trace"),
            start("b"),
            line("out", "two"),
            end("a"),
            line("out", "three"),
            end("b"),
            line("out", "last"),
        ];
        let words = |id: &str| {
            framed(&all, id).lines().filter(|line| !line.contains("FC Invoke")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words("a"), "one trace two");
        assert_eq!(words("b"), "trace two three");
        assert_eq!(words("c"), "old one trace two three last", "a program that writes no frames");
        assert_eq!(framed(&all[1..3], "a"), "FC Invoke Start RequestId: a\none\n", "it has not ended yet");
    }
}
