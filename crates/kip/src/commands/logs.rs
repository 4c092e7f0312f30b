//! `kip logs`.

use std::collections::VecDeque;

use kip_spec::qualifier::split_name;
use kip_spec::{Millis, Problem};

use super::requests;
use crate::arguments::Logs;
use crate::client::{Client, segment};
use crate::output::{Output, clock, printable};
use kip_wire::LogLine;

/// Lines that are searched at most.
const MOST_SEARCHED: usize = 1_000_000;

pub(crate) async fn run(client: &Client, options: &Logs, output: Output) -> anyhow::Result<()> {
    let Logs { function: wanted, follow, tail, instance, since, until, search, request, task, join } = options;
    let (function, version) = split_name(wanted);
    let until = until.as_deref().map(end).transpose()?;
    // The last lines are counted behind what is searched for.
    let is_filtered = until.is_some() || search.is_some();
    let asked = if is_filtered && !follow { MOST_SEARCHED } else { *tail };
    let mut path = format!("/api/v1/functions/{}/logs?follow={follow}&tail={asked}&join={join}", segment(function));
    let since = since.as_deref().map(crate::commands::requests::since).transpose()?;
    let version = version.map(str::to_owned);
    for (name, value) in
        [("version", &version), ("instance", instance), ("request", request), ("task", task), ("since", &since)]
    {
        path.extend(value.iter().map(|value| format!("&{name}={}", segment(value))));
    }
    let text = |line: &LogLine| {
        let goes_on = if line.cut { " …" } else { "" };
        let shown = if output.is_terminal() { printable(&line.line) } else { line.line.as_str().into() };
        let version = line.version.as_deref().unwrap_or_default();
        format!("{} {} {version:<3} {} | {shown}{goes_on}", clock(line.at), line.instance, line.stream)
    };
    let show = |line: LogLine| {
        // A remark about the lines is no line.
        if line.instance.is_empty() && !output.is_json() {
            output.remark(&format!("note: {}", line.line));
            return Ok(());
        }
        output.line(&line, text)
    };
    if !is_filtered {
        return client.lines(&path, show).await;
    }
    let fits = |line: &LogLine| {
        until.is_none_or(|until| line.at <= until) && search.as_deref().is_none_or(|text| line.line.contains(text))
    };
    if *follow {
        return client.lines(&path, |line| if fits(&line) { show(line) } else { Ok(()) }).await;
    }
    let mut last = VecDeque::new();
    let keep = |line: LogLine| {
        if fits(&line) {
            last.push_back(line);
            if last.len() > *tail {
                last.pop_front();
            }
        }
        Ok(())
    };
    client.lines(&path, keep).await?;
    last.into_iter().try_for_each(show)
}

/// The end of a time span, milliseconds since 1970; a duration counts back from now.
fn end(text: &str) -> anyhow::Result<i64> {
    let said = requests::since(text)
        .map_err(|problem| Problem { message: problem.message.replace("--since", "--until"), ..problem })?;
    let back = text.parse::<Millis>().ok().map(|back| i64::try_from(back.0).unwrap_or(i64::MAX));
    Ok(match back {
        Some(back) => kip_host::clock::wall_millis().saturating_sub(back),
        None => said.parse()?,
    })
}
