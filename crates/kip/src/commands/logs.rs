//! `kip logs`.

use kip_api::wire::LogLine;

use crate::arguments::Logs;
use crate::client::{Client, segment};
use crate::output::Output;

pub(crate) async fn run(client: &Client, options: &Logs, output: Output) -> anyhow::Result<()> {
    let Logs { function, follow, tail, instance } = options;
    let only = instance.as_ref().map(|id| format!("&instance={}", segment(id))).unwrap_or_default();
    let function = segment(function);
    let path = format!("/api/v1/functions/{function}/logs?follow={follow}&tail={tail}{only}");
    let text = |line: &LogLine| format!("{} {} | {}", line.instance, line.stream, line.line);
    client.lines(&path, |line: LogLine| output.line(&line, text)).await
}
