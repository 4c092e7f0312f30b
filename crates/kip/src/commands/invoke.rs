//! `kip invoke`: a request through the gateway.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use kip_host::clock::monotonic_micros;
use kip_host::http_client;
use kip_spec::problem::Envelope;
use kip_spec::{Problem, code};
use kip_wire::{FunctionInfo, TaskInfo};
use serde::Serialize;

use crate::arguments::Invoke;
use crate::arguments::tasks::AsyncArguments;
use crate::client::{Client, segment};
use crate::output::{Output, micros};
use crate::problem::Exit;
use crate::progress::{Progress, interruptible};

/// No call of a function may take longer than timeouts.total, which the gateway keeps; this is only a last resort.
const LIMIT: Duration = Duration::from_secs(25 * 3_600);

/// An answer with what the gateway says about it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct InvokeAnswer {
    pub(crate) status: u16,
    pub(crate) instance: Option<String>,
    pub(crate) start: Option<String>,
    pub(crate) request_id: Option<String>,
    /// The task that it became, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<String>,
    /// The code, where the answer is Kipwake's and not the program's.
    pub(crate) error: Option<String>,
    pub(crate) wait_us: u64,
    pub(crate) first_byte_us: u64,
    pub(crate) total_us: u64,
    #[serde(skip)]
    pub(crate) body: Bytes,
}

pub(crate) async fn run(client: &Client, options: &Invoke, output: Output) -> anyhow::Result<()> {
    let body = match (&options.data, &options.file) {
        (Some(text), _) => match text.strip_prefix('@') {
            Some("-") => Some(read_stdin()?),
            Some(file) => Some(read_file(Path::new(file))?),
            None => Some(text.clone().into_bytes()),
        },
        (None, Some(file)) if file == Path::new("-") => Some(read_stdin()?),
        (None, Some(file)) => Some(read_file(file)?),
        (None, None) => None,
    };
    let method = options.method.clone().unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.to_owned());
    let mut headers = Vec::new();
    for header in &options.headers {
        let parts = header.split_once(':').and_then(|(name, value)| {
            Some((name.trim().parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
        });
        headers.push(parts.ok_or_else(|| unusable(format!("`{header}` is not a header")).hint("write `Name: value`"))?);
    }
    // The caller's own word first, which may be for the function and none of ours.
    if !headers.iter().any(|(name, _)| matches!(name.as_str(), "authorization" | "x-api-key" | "api-key")) {
        headers.push((http::header::AUTHORIZATION, HeaderValue::from_str(&client.bearer())?));
    }
    let later = &options.later;
    if later.later {
        headers.extend(later_headers(later)?);
    }
    let gateway = client.gateway().await?;
    let path = format!("/f/{}/{}", segment(&options.function), options.path.strip_prefix('/').unwrap_or(&options.path));
    let calling = call(&gateway, &method, &path, headers, body.unwrap_or_default().into());
    let function = options.function.clone();
    let goes_on = || match later.later {
        true => format!("the task may be stored: `kip task ls {function}`"),
        false => format!("the request is cancelled; an instance that was started for it goes on: `kip why {function}`"),
    };
    let called = interruptible(output, goes_on, with_progress(client, &function, calling, output)).await?;
    if let (true, 202, Some(id)) = (later.later, called.status, &called.task) {
        return taken(client, options, id, &called, output).await;
    }
    output.remark(&format!(
        "{} {} on {}: wait {}, first byte {}, total {}",
        called.status,
        called.start.as_deref().unwrap_or("-"),
        called.instance.as_deref().unwrap_or("no instance"),
        micros(called.wait_us),
        micros(called.first_byte_us),
        micros(called.total_us)
    ));
    // The program's own errors are its answer, whatever they look like.
    if called.error.is_some()
        && let Ok(envelope) = serde_json::from_slice::<Envelope>(&called.body)
    {
        return Err(envelope.error.into());
    }
    if output.is_json() {
        let body = String::from_utf8_lossy(&called.body);
        let body = serde_json::from_str(&body).unwrap_or_else(|_| serde_json::Value::from(body.as_ref()));
        let mut value = serde_json::to_value(&called)?;
        value["body"] = body;
        output.result(&value, |_| String::new())?;
    } else {
        output.data(&called.body)?;
    }
    match called.status {
        400..500 if options.fail => Err(Exit(4).into()),
        500.. if options.fail => Err(Exit(5).into()),
        _ => Ok(()),
    }
}

/// Waits for an answer, and says meanwhile what it waits for.
async fn with_progress(
    client: &Client,
    function: &str,
    calling: impl Future<Output = anyhow::Result<InvokeAnswer>>,
    output: Output,
) -> anyhow::Result<InvokeAnswer> {
    const LOOK: Duration = Duration::from_millis(500);
    let (mut progress, mut may_look) = (Progress::new(output), !output.is_json());
    tokio::pin!(calling);
    loop {
        tokio::select! {
            called = &mut calling => return called,
            () = tokio::time::sleep(LOOK) => {}
        }
        let mut what = None;
        if may_look {
            let info = client.get::<FunctionInfo>(&format!("/api/v1/functions/{}", segment(function))).await;
            // A key that may only call is refused, and not asked again.
            may_look = info.is_ok();
            what = info.ok().and_then(|info| Some(info.waits.first()?.why.clone()));
        }
        progress.say(&format!("{function}: {}", what.unwrap_or_else(|| "waiting for the answer".to_owned())));
    }
}

fn read_file(file: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(std::fs::read(file)
        .map_err(|error| unusable(format!("{} cannot be read", file.display())).cause(error.to_string()))?)
}

/// Calls a function and reads the phases from the answer's headers.
pub(crate) async fn call(
    gateway: &str,
    method: &str,
    path: &str,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
) -> anyhow::Result<InvokeAnswer> {
    let built = Request::builder().method(method).uri(path).body(Full::from(body));
    let mut request = built.map_err(|error| {
        Problem::new(code::BAD_REQUEST, format!("`{method} {path}` is not a request"))
            .cause(error.to_string())
            .hint("write the path as in a URL: a space is %20")
    })?;
    for (name, value) in headers {
        request.headers_mut().append(name, value);
    }
    let begun = monotonic_micros();
    let answer = http_client::call(gateway, request, LIMIT).await.map_err(|error| {
        let problem = match &error {
            http_client::Error::Body(_) => Problem::new(code::INSTANCE_BROKE_OFF, "the answer broke off in the middle"),
            _ => Problem::new(code::SERVER_UNREACHABLE, format!("the gateway at {gateway} did not answer")),
        };
        problem.cause(error.to_string())
    })?;
    let total_us = monotonic_micros().saturating_sub(begun);
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let timing = header("server-timing").unwrap_or_default();
    Ok(InvokeAnswer {
        status: answer.status,
        instance: header("x-kip-instance"),
        start: header("x-kip-start"),
        request_id: header("x-kip-request-id"),
        task: header("x-fc-async-task-id"),
        error: header("x-kip-error"),
        wait_us: duration(&timing, &["queue", "start", "wake"]),
        first_byte_us: duration(&timing, &["first_byte"]),
        total_us,
        body: answer.body,
    })
}

/// What is said of a call that nobody waits for.
fn later_headers(later: &AsyncArguments) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let all = [
        ("x-fc-invocation-type", Some("Async".to_owned())),
        ("x-fc-async-task-id", later.task_id.clone()),
        ("idempotency-key", later.idempotency_key.clone()),
        ("x-kip-task-delay", later.delay.map(|time| time.to_string())),
        ("x-kip-task-priority", number(later.priority.map(u32::from))),
        ("x-kip-task-order", later.order.clone()),
        ("x-kip-task-max-age", later.max_age.map(|time| time.to_string())),
        ("x-kip-task-retries", number(later.retries)),
        ("x-kip-task-stateful", later.stateful.then(|| "1".to_owned())),
    ];
    let mut headers = Vec::new();
    for (name, value) in all {
        if let Some(value) = value {
            headers.push((HeaderName::from_static(name), HeaderValue::try_from(value)?));
        }
    }
    Ok(headers)
}

/// The call is a task now.
async fn taken(
    client: &Client,
    options: &Invoke,
    id: &str,
    called: &InvokeAnswer,
    output: Output,
) -> anyhow::Result<()> {
    let function = &options.function;
    if !options.later.wait {
        return output.result(called, |_| {
            format!("task {id}; `kip task watch {function} {id}` follows it, `kip task result {function} {id}` is its answer\n")
        });
    }
    let path = format!("/api/v1/functions/{}/tasks/{}", segment(function), segment(id));
    let goes_on = || {
        format!(
            "the task goes on; `kip task watch {function} {id}` follows it, `kip task stop {function} {id}` stops it"
        )
    };
    let wait = async {
        loop {
            let task: TaskInfo = client.get(&format!("{path}?wait=20")).await?;
            if task.end_time.is_some() {
                return anyhow::Ok(task);
            }
        }
    };
    let task = interruptible(output, goes_on, wait).await?;
    if task.status != "Succeeded" {
        let why = task.task_error_message.clone().unwrap_or_default();
        return Err(Problem::new(code::TASK_STATE, format!("task {id} is {}", task.status))
            .cause(why)
            .hint(format!("`kip task show {function} {id}` shows its steps"))
            .into());
    }
    if output.is_json() {
        return output.result(&task, |_| String::new());
    }
    output.data(&client.bytes(&format!("{path}/result")).await?)
}

/// The duration of the first of these entries of a `Server-Timing` header, in microseconds.
fn duration(timing: &str, names: &[&str]) -> u64 {
    let entry =
        timing.split(',').map(str::trim).find(|entry| names.iter().any(|name| entry.starts_with(&format!("{name};"))));
    let Some((whole, thousandths)) = entry.and_then(|entry| entry.split_once("dur=")?.1.split_once('.')) else {
        return 0;
    };
    whole.parse::<u64>().unwrap_or(0) * 1_000 + thousandths.parse::<u64>().unwrap_or(0)
}

fn unusable(message: String) -> Problem {
    Problem::new(code::COMMAND_INPUT, message)
}

fn read_stdin() -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let mut all = Vec::new();
    std::io::stdin().read_to_end(&mut all)?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_from_the_header() {
        let timing = "wake;dur=1.250, first_byte;dur=12.003";
        assert_eq!(duration(timing, &["queue", "start", "wake"]), 1_250);
        assert_eq!(duration(timing, &["first_byte"]), 12_003);
        assert_eq!(duration("", &["queue"]), 0);
    }
}
