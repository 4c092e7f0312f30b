//! The lines of one task: what its instances wrote during its runs. Followed, they end with the task.

use std::convert::Infallible;
use std::path::PathBuf;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use kip_tasks::tenant::TenantScope;
use kip_tasks::{TaskFilter, TaskNumber};
use kip_wire::Attempt;
use kip_wire::LogLine;

use super::reader::{Reader, Selection};
use super::request::{LogSelection, Run, Runs};
use super::{LOOK_AGAIN, LogQuery, first, text};
use crate::Api;
use crate::error::ApiResult;

/// A task, and what is known of its runs.
struct Subject {
    api: Api,
    scope: TenantScope,
    function: String,
    id: String,
    number: TaskNumber,
    /// Its instances work on one task at a time.
    takes_one: bool,
    runs: Runs,
}

impl Subject {
    /// Looks at the task. True if it is over, or forgotten.
    async fn look(&self) -> bool {
        let Ok(info) = self.api.tasks.show(&self.scope, &self.function, &self.id, false).await else { return true };
        let mut runs: Vec<Run> = info.attempts.iter().filter_map(run_of).collect();
        for run in &mut runs {
            if let Some(end) = run.to {
                run.to = Some(self.next_on(run, end).await.unwrap_or(i64::MAX).min(end.saturating_add(LATEST)));
            }
        }
        *self.runs.lock() = runs;
        info.end_time.is_some()
    }

    /// The lines that are the task's. A run of another task may have begun on the same instance between the last look and the reading: a
    /// look after the reading knows of each run that can have written a line.
    async fn own(&self, mut lines: Vec<LogLine>) -> Vec<LogLine> {
        if !lines.is_empty() {
            self.look().await;
            let runs = self.runs.lock();
            lines.retain(|line| runs.iter().any(|run| run.has(line)));
        }
        lines
    }

    /// When the next task began on the instance of a run that is over.
    async fn next_on(&self, run: &Run, end: i64) -> Option<i64> {
        // The instance is free a moment before the end is written down, and the next task may begin in that moment.
        let begins = if self.takes_one { end.saturating_sub(NOTED).max(run.from.saturating_add(1)) } else { end };
        let filter = TaskFilter {
            function: Some(self.function.clone()),
            started_from: Some(begins),
            ascending: true,
            limit: NEXT,
            ..TaskFilter::default()
        };
        let (others, _) = self.api.tasks.list(&TenantScope::All, filter, false).await.ok()?;
        let attempts = others.iter().filter(|other| other.number != self.number.0).flat_map(|other| &other.attempts);
        let of_instance =
            attempts.filter_map(run_of).filter(|other| other.instance == run.instance && other.from >= begins);
        of_instance.map(|other| other.from).min()
    }
}

/// Output of a run reaches the log this much after its end at the latest, milliseconds: a busy host reads it late.
const LATEST: i64 = 5_000;
/// The end of a run is written down this much after its instance is free at the latest, milliseconds.
const NOTED: i64 = 1_000;
/// Tasks that are looked at for the one that came next on an instance.
const NEXT: u32 = 100;

fn run_of(attempt: &Attempt) -> Option<Run> {
    let instance = attempt.instance_id.as_deref()?.parse().ok()?;
    Some(Run { instance, from: attempt.started_time, to: attempt.end_time })
}

pub(super) async fn logs(
    api: Api,
    scope: TenantScope,
    (function, id): (String, String),
    folder: PathBuf,
    which: LogQuery,
    since: Option<i64>,
) -> ApiResult<Response> {
    // One that is not there is an error, not an empty log.
    let number = api.tasks.number(&scope, &function, &id).await?;
    let runs = Runs::default();
    let cell = api.control.cell(&function);
    let takes_one = cell.as_ref().is_none_or(|cell| cell.serving().spec.instances.concurrency.hard == 1);
    let subject = Subject { api, scope, function, id, number, takes_one, runs: runs.clone() };
    let over = subject.look().await;
    let selection = Selection {
        only: None,
        versions: None,
        since,
        wanted: LogSelection::Runs(runs),
        join: which.join,
        tail: which.tail.unwrap_or(200),
        follow: which.follow,
    };
    // What was written up to now is in the files.
    subject.api.control.settle_logs(&subject.function).await;
    let (reader, lines) = first(Reader::new(folder, cell, selection)).await;
    let ready = subject.own(lines).await;
    let stream = lines_of(Position { subject, reader, ready, over, ended: false });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response())
}

/// Where a stream of lines stands.
struct Position {
    subject: Subject,
    reader: Reader,
    ready: Vec<LogLine>,
    over: bool,
    ended: bool,
}

fn lines_of(position: Position) -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures_util::stream::unfold(position, |mut position| async move {
        loop {
            if !position.ready.is_empty() {
                let lines = text(&std::mem::take(&mut position.ready));
                return Some((Ok(lines), position));
            }
            if position.ended || !position.reader.follows() || position.subject.api.control.is_closing() {
                return None;
            }
            // A task that was over before this look has written all that it will.
            position.ended = position.over;
            position.over = position.subject.look().await;
            position.subject.api.control.settle_logs(&position.subject.function).await;
            let mut reader = position.reader;
            let lines;
            (reader, lines) = kip_host::tasks::blocking("read logs", move || {
                let lines = reader.next();
                (reader, lines)
            })
            .await?;
            position.reader = reader;
            position.ready = position.subject.own(lines).await;
            if position.ready.is_empty() && !position.ended {
                tokio::time::sleep(LOOK_AGAIN).await;
            } else if !position.ready.is_empty() {
                // There may be more of it.
                position.ended = false;
            }
        }
    })
}
