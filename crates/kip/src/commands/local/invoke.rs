//! `kip local invoke`: one event for a function.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kip_spec::{Problem, code};
use serde_json::{Value, json};

use super::{Session, deploy};
use crate::client::segment;
use crate::commands::files::server;
use crate::output::Output;

/// The event of a command line.
pub(super) fn event(text: Option<&str>, file: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    match (text, file) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (None, Some(file)) => std::fs::read(file).map_err(|error| {
            Problem::new(code::COMMAND_INPUT, format!("{} cannot be read", file.display()))
                .cause(error.to_string())
                .into()
        }),
        (None, None) => Ok(Vec::new()),
    }
}

/// Deploys the function, calls it, and shows its output beside its answer.
pub(super) async fn run(session: &Session<'_>, event: Vec<u8>, output: Output) -> anyhow::Result<()> {
    let (file, functions) = deploy(session, output).await?;
    let function = match functions.as_slice() {
        [one] => one,
        several => {
            let names: Vec<&str> = several.iter().map(|function| function.key.as_str()).collect();
            let said = format!("{} has {} functions", file.file, several.len());
            return Err(Problem::new(code::COMMAND_INPUT, said)
                .hint(format!("name one: kip local invoke {}", names.join("|")))
                .into());
        }
    };
    let name = function.name.as_str();
    let headers = [("x-fc-invocation-type", "Sync"), ("x-fc-log-type", "Tail")];
    let answer = session.client.post_bytes(&server::path(name, "/invocations"), &headers, event).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            // Why it did not start is in its output.
            let path = format!("/api/v1/functions/{}/logs?follow=false&tail=50", segment(name));
            let show = |line: kip_wire::LogLine| {
                output.remark(&format!("{name} | {}", line.line));
                Ok(())
            };
            let _ = session.client.lines(&path, show).await;
            return Err(error);
        }
    };
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(log) = header("x-fc-log-result").and_then(|log| BASE64_STANDARD.decode(log).ok()) {
        output.raw_remark(&log)?;
    }
    let fault = header("x-fc-error-type");
    if output.is_json() {
        let body = String::from_utf8_lossy(&answer.body);
        let body = serde_json::from_str(&body).unwrap_or_else(|_| Value::from(body.as_ref()));
        let shown = json!({"status": answer.status, "error": fault, "body": body});
        output.result(&shown, |_| String::new())?;
    } else {
        output.data(&answer.body)?;
    }
    match fault {
        Some(_) => Err(crate::problem::Exit(1).into()),
        None => Ok(()),
    }
}
