//! What instances wrote: the last lines, those of one request, and on demand whatever follows, of instances to come too.

mod join;
mod reader;
mod request;
mod task;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use kip_spec::qualifier::QualifierName;
use kip_spec::{FunctionName, InstanceId, Problem, code};
use kip_wire::LogLine;
use serde::Deserialize;

use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::guard::Requester;
use crate::{Api, bad_request};
use reader::{Reader, Selection};
use request::LogSelection;

/// Between two looks for more.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(100);
/// Records of requests that are searched for one whose lines are asked for.
const SEARCHED: u32 = 100_000;
/// Output reaches the log a little later than the program wrote it.
const LATE: i64 = 50;

#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct LogQuery {
    #[serde(default)]
    follow: bool,
    tail: Option<usize>,
    instance: Option<String>,
    /// A version such as 3, a revision such as r12, an alias for the versions that it points at now, or LATEST.
    version: Option<String>,
    /// A duration before now, or milliseconds since 1970.
    since: Option<String>,
    request: Option<String>,
    /// A task: the lines of its runs.
    task: Option<String>,
    #[serde(default)]
    join: bool,
}

pub(crate) async fn logs(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    Query(which): Query<LogQuery>,
) -> ApiResult<Response> {
    let only = match &which.instance {
        Some(id) => Some(id.parse::<InstanceId>().map_err(|error| bad_request(error.to_string()))?),
        None => None,
    };
    // A removed function's logs stay readable while they are kept; a name that never was has none.
    let folder = api.control.log_folder(&name);
    if name.parse::<FunctionName>().is_err() || !folder.is_dir() {
        api.control.require(&name)?;
    }
    api.control.settle_logs(&name).await;
    if let Some(instance) = only.filter(|_| !which.follow) {
        let file = folder.join(format!("{instance}.log"));
        let logged = kip_host::tasks::blocking("look for a log", move || file.exists()).await.unwrap_or(true);
        let own = api.control.instance(instance).await.is_some_and(|found| found.function.as_str() == name);
        if !logged && !own {
            let message = format!("`{name}` has no instance {instance} and no log of one");
            let hint = format!("`kip ps` lists instances; `kip logs {name}` shows the output of all of them");
            return Err(Problem::new(code::INSTANCE_NOT_FOUND, message).hint(hint).into());
        }
    }
    if let Some(task) = which.task.clone() {
        let since = which.since.as_deref().map(crate::requests::since).transpose()?;
        return task::logs(api, who.tenant_scope(None), (name, task), folder, LogQuery { since: None, ..which }, since)
            .await;
    }
    let now = kip_host::clock::wall_millis();
    let since = which.since.as_deref().map(crate::requests::since).transpose()?;
    let tail = which.tail.unwrap_or(200);
    let versions = match &which.version {
        Some(version) => Some(api.control.versions_meant(&name, &asked_version(version)?).await?),
        None => None,
    };
    let (function, join, follow) = (api.control.cell(&name), which.join, which.follow);
    let select = |wanted| Selection { only, versions: versions.clone(), since, wanted, join, tail, follow };
    let wanted = which.request.clone().map_or(LogSelection::All, LogSelection::Request);
    let mut reader = Reader::new(folder.clone(), function.clone(), select(wanted));
    let mut lines;
    (reader, lines) = first(reader).await;
    if let (Some(id), true, false) = (&which.request, lines.is_empty(), which.follow) {
        // The program does not say which lines are whose: then by time.
        let (wanted, remark) = interval(&api, &who, &name, id).await;
        if let Some(wanted) = wanted {
            (reader, lines) = first(Reader::new(folder, function, select(wanted))).await;
        }
        lines.insert(0, LogLine::remark(now, remark));
    }
    let stream = futures_util::stream::unfold((Some(lines), reader), |(mut ready, mut reader)| async move {
        loop {
            if let Some(lines) = ready.take().filter(|lines| !lines.is_empty()) {
                return Some((Ok::<_, std::convert::Infallible>(text(&lines)), (None, reader)));
            }
            if !reader.follows() {
                return None;
            }
            let lines;
            (reader, lines) = kip_host::tasks::blocking("read logs", move || {
                let lines = reader.next();
                (reader, lines)
            })
            .await?;
            if lines.is_empty() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            ready = Some(lines);
        }
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response())
}

fn asked_version(text: &str) -> ApiResult<QualifierName> {
    text.parse().map_err(|error: kip_spec::qualifier::QualifierError| bad_request(error.to_string()))
}

async fn first(mut reader: Reader) -> (Reader, Vec<LogLine>) {
    let empty = Reader::empty();
    let read = kip_host::tasks::blocking("read logs", move || {
        let lines = reader.first();
        (reader, lines)
    });
    read.await.unwrap_or((empty, Vec::new()))
}

/// The time in which a request was with its instance, and what is to be said about it.
async fn interval(api: &Api, who: &Requester, function: &str, id: &str) -> (Option<LogSelection>, String) {
    api.control.recorder().flush().await;
    let records = api
        .control
        .records()
        .requests(kip_control::RequestFilter {
            function: Some(function.to_owned()),
            limit: SEARCHED,
            ..Default::default()
        })
        .await
        .unwrap_or_default();
    let scope = who.tenant_scope(None);
    let seen = |record: &kip_control::RequestRecord| scope.includes(record.tenant.as_deref().unwrap_or_default());
    let found = records.into_iter().find(|record| record.id == id && seen(record));
    let Some((record, instance)) =
        found.and_then(|record| Some((record.clone(), record.instance?.parse::<InstanceId>().ok()?)))
    else {
        return (None, format!("no line names request {id}, and no record says when it was served"));
    };
    let millis = |micros: u64| i64::try_from(micros / 1_000).unwrap_or(i64::MAX);
    let from = record.at.saturating_add(millis(record.queue_us));
    let to = record.at.saturating_add(millis(record.total_us)).saturating_add(LATE);
    let at_once = api.control.cell(function).map_or(1, |cell| cell.serving().policy().concurrency.hard);
    let exact = match at_once {
        1 => "its instance had no other request meanwhile".to_owned(),
        several => format!("up to {several} requests may have been with its instance at once, so some may be theirs"),
    };
    let wanted = LogSelection::Interval { instance, from, to };
    (Some(wanted), format!("no line names request {id}: these were written while it was served; {exact}"))
}

fn text(lines: &[LogLine]) -> Bytes {
    let json = lines.iter().filter_map(|line| serde_json::to_string(line).ok());
    json.fold(String::new(), |all, line| all + &line + "\n").into()
}
