//! The lines of one task: what its instances wrote during its runs. Followed, they end with the task.

use std::convert::Infallible;
use std::path::PathBuf;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use kip_tasks::tenant::TenantScope;
use kip_tasks::view::Attempt;

use super::reader::{Reader, Selection};
use super::request::{Run, Runs, Wanted};
use super::{LATE, LOOK_AGAIN, Which, first, text};
use crate::Api;
use crate::error::ApiResult;
use crate::wire::LogLine;

/// A task, and what is known of its runs.
struct Subject {
    api: Api,
    scope: TenantScope,
    function: String,
    id: String,
    runs: Runs,
}

impl Subject {
    /// Looks at the task. True if it is over, or forgotten.
    async fn look(&self) -> bool {
        let Ok(info) = self.api.tasks.show(&self.scope, &self.function, &self.id, false).await else { return true };
        *self.runs.lock() = info.attempts.iter().filter_map(run_of).collect();
        info.end_time.is_some()
    }
}

fn run_of(attempt: &Attempt) -> Option<Run> {
    let instance = attempt.instance_id.as_deref()?.parse().ok()?;
    // Output reaches the log a little later than the program wrote it.
    Some(Run { instance, from: attempt.started_time, to: attempt.end_time.map(|end| end.saturating_add(LATE)) })
}

pub(super) async fn logs(
    api: Api,
    scope: TenantScope,
    (function, id): (String, String),
    folder: PathBuf,
    which: Which,
    since: Option<i64>,
) -> ApiResult<Response> {
    // One that is not there is an error, not an empty log.
    api.tasks.number(&scope, &function, &id).await?;
    let runs = Runs::default();
    let subject = Subject { api, scope, function, id, runs: runs.clone() };
    let over = subject.look().await;
    let selection = Selection {
        only: None,
        since,
        wanted: Wanted::Runs(runs),
        join: which.join,
        tail: which.tail.unwrap_or(200),
        follow: which.follow,
    };
    // What was written up to now is in the files.
    subject.api.control.settle_logs(&subject.function).await;
    let (reader, lines) = first(Reader::new(folder, selection)).await;
    let stream = lines_of(Position { subject, reader, ready: lines, over, ended: false });
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
            (reader, position.ready) = kip_host::tasks::blocking("read logs", move || {
                let lines = reader.next();
                (reader, lines)
            })
            .await?;
            position.reader = reader;
            if position.ready.is_empty() && !position.ended {
                tokio::time::sleep(LOOK_AGAIN).await;
            } else if !position.ready.is_empty() {
                // There may be more of it.
                position.ended = false;
            }
        }
    })
}
