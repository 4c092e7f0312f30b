//! `kip logs`.

use crate::arguments::Logs;
use crate::client::{Client, segment};
use crate::output::{Output, clock, printable};
use kip_wire::LogLine;

pub(crate) async fn run(client: &Client, options: &Logs, output: Output) -> anyhow::Result<()> {
    let Logs { function, follow, tail, instance, since, request, task, join } = options;
    let mut path = format!("/api/v1/functions/{}/logs?follow={follow}&tail={tail}&join={join}", segment(function));
    let since = since.as_deref().map(crate::commands::requests::since).transpose()?;
    for (name, value) in [("instance", instance), ("request", request), ("task", task), ("since", &since)] {
        path.extend(value.iter().map(|value| format!("&{name}={}", segment(value))));
    }
    let text = |line: &LogLine| {
        let goes_on = if line.cut { " …" } else { "" };
        let shown = if output.is_terminal() { printable(&line.line) } else { line.line.as_str().into() };
        format!("{} {} {} | {shown}{goes_on}", clock(line.at), line.instance, line.stream)
    };
    let show = |line: LogLine| {
        // A remark about the lines is no line.
        if line.instance.is_empty() && !output.is_json() {
            output.remark(&format!("note: {}", line.line));
            return Ok(());
        }
        output.line(&line, text)
    };
    client.lines(&path, show).await
}
