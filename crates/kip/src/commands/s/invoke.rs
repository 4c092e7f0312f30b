//! `kip s invoke`: an event to a function.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kip_serverless::DeclaredFunction;
use kip_spec::{Problem, code};
use serde_json::{Value, json};

use super::line::CommandLine;
use crate::client::{Client, segment};
use crate::output::Output;

pub(crate) async fn run(
    client: &Client,
    line: &CommandLine,
    function: &DeclaredFunction,
    output: Output,
) -> anyhow::Result<()> {
    let event = match (line.flag("event"), line.flag("event-file")) {
        (Some(event), _) => event.as_bytes().to_vec(),
        (None, Some(file)) => std::fs::read(file).map_err(|error| {
            Problem::new(code::COMMAND_INPUT, format!("{file} cannot be read")).cause(error.to_string())
        })?,
        (None, None) => Vec::new(),
    };
    let kind = line.flag("invocation-type").unwrap_or("Sync");
    if !["Sync", "Async"].contains(&kind) {
        let message = format!("--invocation-type is Sync or Async, not `{kind}`");
        return Err(Problem::new(code::COMMAND_INPUT, message).hint("write --invocation-type Async").into());
    }
    let mut headers =
        vec![("x-fc-invocation-type", kind), ("x-fc-log-type", if kind == "Sync" { "Tail" } else { "None" })];
    if let Some(id) = line.flag("async-task-id") {
        headers.push(("x-fc-async-task-id", id));
    }
    let qualifier = segment(line.flag("qualifier").unwrap_or("LATEST"));
    let path = format!("/2023-03-30/functions/{}/invocations?qualifier={qualifier}", segment(function.name.as_str()));
    let answer = client.post_bytes(&path, &headers, event).await?;
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let log = header("x-fc-log-result").and_then(|log| BASE64_STANDARD.decode(log).ok());
    if output.is_json() {
        let body = String::from_utf8_lossy(&answer.body);
        let body = serde_json::from_str(&body).unwrap_or_else(|_| Value::from(body.as_ref()));
        let shown = json!({
            "status": answer.status,
            "request_id": header("x-fc-request-id"),
            "instance": header("x-fc-instance-id"),
            "task": header("x-fc-async-task-id"),
            "error": header("x-fc-error-type"),
            "body": body,
        });
        return output.result(&shown, |_| String::new());
    }
    if let Some(log) = log.filter(|log| !log.is_empty()) {
        output.raw_remark(&log)?;
    }
    for (label, name) in [
        ("request", "x-fc-request-id"),
        ("instance", "x-fc-instance-id"),
        ("task", "x-fc-async-task-id"),
        ("error", "x-fc-error-type"),
    ] {
        if let Some(value) = header(name) {
            output.remark(&format!("{label:<10}{value}"));
        }
    }
    output.data(&answer.body)?;
    if header("x-fc-error-type").is_some() {
        return Err(crate::problem::Exit(1).into());
    }
    Ok(())
}
