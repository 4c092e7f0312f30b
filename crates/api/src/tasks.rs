//! Tasks: submitted, asked for, watched, stopped, run again, forgotten; and what functions want for theirs.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use kip_spec::{Code, Problem, RequestId, code};
use kip_tasks::config::{AsyncConfig, LATEST, Target};
use kip_tasks::tenant::TenantScope;
use kip_tasks::view;
use kip_tasks::{Bulk, BulkAction, Error, ReceiveError, Submission, Summary, TaskFilter, TaskNumber, TaskState};
use kip_wire::{AcceptedTask, StopResult, TaskInfo, TaskList};
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, Query};
use crate::guard::Requester;
use crate::{Api, bad_request};

/// Tasks given unless said otherwise, and at most.
const FEW: u32 = 20;
const MANY: u32 = 1_000;
/// A caller that waits for news is answered after this at the latest.
const LONGEST_WAIT: u64 = 60;
/// Bytes of a word about progress that are looked at.
const LONGEST_LINE: usize = 8 << 10;
/// How long nothing of a body may come.
const BODY_IDLE: Duration = Duration::from_secs(60);
/// A stream without news says so, so that nobody takes it for dead.
const QUIET: Duration = Duration::from_secs(15);

impl From<kip_events::Error> for ApiError {
    fn from(error: kip_events::Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

/// The filters of lists, as Function Compute writes them.
#[derive(Debug, Default, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TaskQuery {
    /// Of this version or alias.
    pub qualifier: Option<String>,
    /// Whose ids begin so.
    pub prefix: Option<String>,
    /// In this state; several are separated by commas.
    pub status: Option<String>,
    /// Begun at or after, milliseconds since 1970.
    pub started_time_begin: Option<i64>,
    /// Begun at or before, milliseconds since 1970.
    pub started_time_end: Option<i64>,
    /// `asc` or `desc`.
    pub sort_order_by_time: Option<String>,
    /// With what they were given.
    pub include_payload: Option<bool>,
    /// How many.
    pub limit: Option<u32>,
    /// Where to go on.
    pub next_token: Option<String>,
    /// Of this function.
    pub function: Option<String>,
    /// Of this tenant.
    pub tenant: Option<String>,
    /// `invocation`, `task` or `job`.
    pub kind: Option<String>,
    /// Count only.
    pub count: Option<bool>,
}

impl TaskQuery {
    fn limit(&self) -> Result<u32, ApiError> {
        match self.limit.unwrap_or(FEW) {
            limit @ 1..=MANY => Ok(limit),
            other => Err(bad_request(format!("`limit` is 1 to {MANY}, not {other}"))),
        }
    }

    fn parse(&self) -> Result<TaskFilter, ApiError> {
        let mut states = Vec::new();
        for name in self.status.iter().flat_map(|text| text.split(',')).filter(|name| !name.is_empty()) {
            // A task is claimed and sent in one step.
            let name = if name.eq_ignore_ascii_case("Dequeued") { "Running" } else { name };
            let names: Vec<&str> = TaskState::ALL.iter().map(|state| state.name()).collect();
            let state = TaskState::named(name)
                .ok_or_else(|| bad_request(format!("`status` is one of {}, not `{name}`", names.join(", "))))?;
            states.push(state);
        }
        let ascending = match self.sort_order_by_time.as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(other) => return Err(bad_request(format!("`sortOrderByTime` is asc or desc, not `{other}`"))),
        };
        let after =
            self.next_token.as_deref().filter(|token| !token.is_empty()).map(|token| {
                token.parse().map(TaskNumber).map_err(|_| bad_request("`nextToken` is one that a list gave"))
            });
        let kind = match self.kind.as_deref() {
            None => None,
            Some("invocation") => Some(view::INVOCATION),
            Some("task") => Some(view::TASK),
            Some("job") => Some(view::JOB),
            Some(other) => return Err(bad_request(format!("`kind` is invocation, task or job, not `{other}`"))),
        };
        Ok(TaskFilter {
            function: self.function.clone(),
            among: None,
            qualifier: self.qualifier.clone(),
            states,
            prefix: self.prefix.clone(),
            started_from: self.started_time_begin,
            started_to: self.started_time_end,
            tenant: self.tenant.clone(),
            kind,
            ascending,
            after: after.transpose()?,
            limit: self.limit()?,
        })
    }
}

pub(crate) async fn submit(
    State(api): State<Api>,
    who: Requester,
    Path(function): Path<String>,
    Query(of): Query<QualifierQuery>,
    headers: HeaderMap,
    mut body: Body,
) -> ApiResult<Response> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let received = match api.tasks.receive(declared, b"", &mut body, Some(BODY_IDLE)).await {
        Ok(received) => received,
        Err(ReceiveError::BrokeOff) => return Err(bad_request("the body of the request broke off")),
        Err(ReceiveError::Late) => return Err(bad_request("nothing of the request's body arrived for a minute")),
        Err(ReceiveError::Refused(error)) => {
            // Who asked first whether to send anything sends nothing now.
            if !headers.contains_key(EXPECT) {
                kip_tasks::drain(&mut body).await;
            }
            return Ok(refused(error));
        }
    };
    let request = RequestId::from_bits(kip_host::random::unique());
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let said = Submission::of_headers(&headers)?;
    let submission = Submission {
        function,
        qualifier: of.qualifier,
        tenant: Some(who.tenant().to_owned()),
        key: Some(who.name().to_owned()),
        stateful: of.stateful.unwrap_or(said.stateful),
        call: Some(kip_tasks::envelope::Call::event(content_type)),
        payload: received.payload.clone(),
        request: request.as_str().to_owned(),
        ..said
    };
    match api.tasks.submit(submission).await {
        Ok(receipt) => {
            let request_id = receipt.request;
            let headers = [("x-fc-request-id", request_id.clone()), ("x-fc-async-task-id", receipt.id.clone())];
            let taken = AcceptedTask { task_id: receipt.id, request_id, known: receipt.known };
            Ok((StatusCode::ACCEPTED, headers, Json(taken)).into_response())
        }
        Err(error) => Ok(refused(error)),
    }
}

/// The answer to a submission that is not taken.
fn refused(error: Error) -> Response {
    let retry_after = error.retry_after();
    let mut response = ApiError::from(error).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Which tenant's task is meant.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OfTenant {
    /// The tenant, where several have a task of the same id.
    tenant: Option<String>,
}

impl OfTenant {
    fn scope(&self, who: &Requester) -> TenantScope {
        who.tenant_scope(self.tenant.as_deref())
    }
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QualifierQuery {
    qualifier: Option<String>,
    stateful: Option<bool>,
}

pub(crate) async fn of_function(
    State(api): State<Api>,
    who: Requester,
    Path(function): Path<String>,
    Query(query): Query<TaskQuery>,
) -> ApiResult<Json<TaskList>> {
    let list = list(&api, TaskQuery { function: Some(function.clone()), ..query }, &who).await?;
    if list.0.tasks.is_empty() {
        // Tasks of one that was removed can be looked at still.
        api.control.require(&function)?;
    }
    Ok(list)
}

pub(crate) async fn all(
    State(api): State<Api>,
    who: Requester,
    Query(query): Query<TaskQuery>,
) -> ApiResult<Json<TaskList>> {
    list(&api, query, &who).await
}

async fn list(api: &Api, query: TaskQuery, who: &Requester) -> ApiResult<Json<TaskList>> {
    // Before they are counted into pages: where the next page begins would tell of the others.
    let filter = TaskFilter { among: who.only(), ..query.parse()? };
    let scope = who.tenant_scope(None);
    let (mut tasks, next) = api.tasks.list(&scope, filter, query.include_payload.unwrap_or(false)).await?;
    for task in &mut tasks {
        task.waits_for = task.waits_for.take().map(|text| who.without_foreign(api, &text));
    }
    Ok(Json(TaskList { tasks, next_token: next.map(|next| next.0.to_string()) }))
}

pub(crate) async fn summary(State(api): State<Api>, who: Requester) -> Json<Summary> {
    let mut summary = api.tasks.summary(&who.tenant_scope(None));
    summary.functions.retain(|of| who.sees(&of.function));
    if !who.sees_all() {
        summary.queued = summary.functions.iter().map(|of| of.ready + of.later + of.held).sum();
    }
    Json(summary)
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Show {
    include_payload: Option<bool>,
    /// Seconds to wait for its end.
    wait: Option<u64>,
    qualifier: Option<String>,
    /// The tenant, where several have a task of the same id.
    tenant: Option<String>,
}

pub(crate) async fn show(
    State(api): State<Api>,
    who: Requester,
    Path((function, id)): Path<(String, String)>,
    Query(show): Query<Show>,
) -> ApiResult<Json<TaskInfo>> {
    let _ = show.qualifier;
    let scope = who.tenant_scope(show.tenant.as_deref());
    if let Some(seconds) = show.wait {
        let number = api.tasks.number(&scope, &function, &id).await?;
        let end = kip_host::clock::boot_millis() + seconds.min(LONGEST_WAIT) * 1_000;
        let mut behind = 0;
        loop {
            let left = end.saturating_sub(kip_host::clock::boot_millis());
            let (events, over) = api.tasks.events(number, behind, Duration::from_millis(left)).await?;
            behind = events.last().map_or(behind, |event| event.event_id);
            if over || left == 0 {
                break;
            }
        }
    }
    let mut task = api.tasks.show(&scope, &function, &id, show.include_payload.unwrap_or(false)).await?;
    task.waits_for = task.waits_for.take().map(|text| who.without_foreign(&api, &text));
    Ok(Json(task))
}

pub(crate) async fn payload(
    State(api): State<Api>,
    who: Requester,
    Path((function, id)): Path<(String, String)>,
    Query(of): Query<OfTenant>,
) -> ApiResult<Response> {
    let bytes = api.tasks.payload(&of.scope(&who), &function, &id).await?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// What the function answered; 204 if it did not.
pub(crate) async fn result(
    State(api): State<Api>,
    who: Requester,
    Path((function, id)): Path<(String, String)>,
    Query(of): Query<OfTenant>,
) -> ApiResult<Response> {
    let Some((head, bytes)) = api.tasks.result(&of.scope(&who), &function, &id).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let kind = head.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    let kind = HeaderValue::from_str(&kind).unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
    let mut response = ([(CONTENT_TYPE, kind)], bytes).into_response();
    response.headers_mut().insert("x-kip-task-status", HeaderValue::from(head.status));
    if head.cut {
        response.headers_mut().insert("x-kip-task-result-cut", HeaderValue::from_static("1"));
    }
    Ok(response)
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Watch {
    /// Seconds to wait for news, and answer with what there is then; without it, the answer is a stream.
    wait: Option<u64>,
    /// The number of the last event that is known.
    after: Option<u64>,
    /// The tenant, where several have a task of the same id.
    tenant: Option<String>,
}

/// The steps of a task: as server-sent events for those who accept them, else as a line each, until it is over.
pub(crate) async fn events(
    State(api): State<Api>,
    who: Requester,
    Path((function, id)): Path<(String, String)>,
    Query(watch): Query<Watch>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let scope = who.tenant_scope(watch.tenant.as_deref());
    let number = api.tasks.number(&scope, &function, &id).await?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let last: Option<u64> = header("last-event-id").and_then(|id| id.parse().ok());
    let behind = last.or(watch.after).unwrap_or(0);
    if let Some(seconds) = watch.wait {
        let wait = Duration::from_secs(seconds.min(LONGEST_WAIT));
        let (events, _) = api.tasks.events(number, behind, wait).await?;
        return Ok(Json(events).into_response());
    }
    let sse = header(ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream"));
    let stream = futures_util::stream::unfold(Some((api, behind)), move |state| async move {
        let (api, behind) = state?;
        let (events, over) = api.tasks.events(number, behind, QUIET).await.ok()?;
        let mut text = String::new();
        for event in &events {
            let json = serde_json::to_string(event).unwrap_or_default();
            if sse {
                text.push_str(&format!("id: {}\nevent: {}\ndata: {json}\n\n", event.event_id, event.status));
            } else {
                text.push_str(&format!("{json}\n"));
            }
        }
        if sse && events.is_empty() {
            text.push_str(": nothing new\n\n");
        }
        let behind = events.last().map_or(behind, |event| event.event_id);
        let next = (!over && !api.control.is_closing()).then_some((api, behind));
        Some((Ok::<_, Infallible>(text), next))
    });
    let kind = if sse { "text/event-stream" } else { "application/x-ndjson" };
    Ok(([(CONTENT_TYPE, kind)], Body::from_stream(stream)).into_response())
}

pub(crate) async fn stop(
    State(api): State<Api>,
    who: Requester,
    Path((function, id)): Path<(String, String)>,
    Query(of): Query<OfTenant>,
) -> ApiResult<Json<StopResult>> {
    who.changes(format!("{function}/{id}"));
    let state = api.tasks.stop(&of.scope(&who), &function, &id).await?;
    Ok(Json(StopResult { status: state.name().to_owned() }))
}

pub(crate) async fn retry(
    State(api): State<Api>,
    who: Requester,
    Path((function, id)): Path<(String, String)>,
    Query(of): Query<OfTenant>,
) -> ApiResult<Json<StopResult>> {
    who.changes(format!("{function}/{id}"));
    api.tasks.retry(&of.scope(&who), &function, &id).await?;
    Ok(Json(StopResult { status: TaskState::Enqueued.name().to_owned() }))
}

pub(crate) async fn purge(
    State(api): State<Api>,
    who: Requester,
    Path((function, id)): Path<(String, String)>,
    Query(of): Query<OfTenant>,
) -> ApiResult<Json<Bulk>> {
    who.changes(format!("{function}/{id}"));
    api.tasks.purge(&of.scope(&who), &function, &id).await?;
    Ok(Json(Bulk { matched: 1, changed: 1, next: None }))
}

pub(crate) async fn stop_all(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<TaskQuery>, JsonRejection>,
) -> ApiResult<Json<Bulk>> {
    bulk(&api, &who, BulkAction::Stop, body).await
}

pub(crate) async fn retry_all(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<TaskQuery>, JsonRejection>,
) -> ApiResult<Json<Bulk>> {
    bulk(&api, &who, BulkAction::Retry, body).await
}

pub(crate) async fn purge_all(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<TaskQuery>, JsonRejection>,
) -> ApiResult<Json<Bulk>> {
    bulk(&api, &who, BulkAction::Purge, body).await
}

async fn bulk(
    api: &Api,
    who: &Requester,
    what: BulkAction,
    body: Result<Json<TaskQuery>, JsonRejection>,
) -> ApiResult<Json<Bulk>> {
    let Json(query) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(query.function.clone().unwrap_or_else(|| "*".to_owned()));
    match &query.function {
        Some(function) => who.require_function(function)?,
        None if !who.sees_all() => return Err(bad_request("this key is for some functions only: name one")),
        None => {}
    }
    let filter = query.parse()?;
    Ok(Json(api.tasks.bulk(&who.tenant_scope(None), what, filter, query.count.unwrap_or(false)).await?))
}

pub(crate) async fn config(
    State(api): State<Api>,
    who: Requester,
    Path(function): Path<String>,
    Query(of): Query<QualifierQuery>,
) -> ApiResult<Json<AsyncConfig>> {
    api.control.require(&function)?;
    let qualifier = of.qualifier.unwrap_or_else(|| LATEST.to_owned());
    let config = api.tasks.config(&function, &qualifier).ok_or_else(|| {
        Problem::new(code::TASK_CONFIG_MISSING, format!("nothing is kept for tasks of `{function}` and `{qualifier}`"))
            .hint("then the defaults hold: docs/tasks.md lists them")
    })?;
    let mut config = hidden(config);
    let both = &mut config.destination_config;
    for destination in [&mut both.on_success, &mut both.on_failure].into_iter().flatten() {
        if let Ok(Target::Function(told)) = destination.target()
            && !who.sees(&told)
        {
            destination.destination = "function:***".to_owned();
        }
    }
    Ok(Json(config))
}

/// What stands in the place of a secret.
const MASK: &str = "***";
/// Bytes of the shortest secret: with a shorter one, a signature could be found by trying.
const SHORTEST_SECRET: usize = 16;
/// Secrets that sign a notification: while receivers change from one to the other, both.
const MOST_SECRETS: usize = 2;

/// Whoever reads a configuration, changes a part and writes it back means the secret that is there by its mask.
fn keep_secrets(config: &mut AsyncConfig, there: Option<AsyncConfig>) -> Result<(), String> {
    let there = there.map(|there| there.destination_config).unwrap_or_default();
    let new = &mut config.destination_config;
    for (given, there) in [(&mut new.on_success, there.on_success), (&mut new.on_failure, there.on_failure)] {
        let Some(secret) = given.as_mut().and_then(|destination| destination.secret.as_mut()) else { continue };
        if secret == MASK {
            *secret =
                there.and_then(|there| there.secret).ok_or("`***` stands for a secret, and there is none to keep")?;
            continue;
        }
        *secret = secret.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
        if secret.is_empty() || secret.lines().any(|line| line.len() < SHORTEST_SECRET) {
            return Err(format!("a secret has at least {SHORTEST_SECRET} bytes, such as: openssl rand -hex 32"));
        }
        if secret.lines().count() > MOST_SECRETS {
            return Err(format!(
                "more than {MOST_SECRETS} secrets: write the new one into the first line, the one before into the second"
            ));
        }
    }
    Ok(())
}

/// A secret is written, never read.
fn hidden(mut config: AsyncConfig) -> AsyncConfig {
    let both = &mut config.destination_config;
    for destination in [&mut both.on_success, &mut both.on_failure].into_iter().flatten() {
        if destination.secret.is_some() {
            destination.secret = Some(MASK.to_owned());
        }
    }
    config
}

pub(crate) async fn put_config(
    State(api): State<Api>,
    who: Requester,
    Path(function): Path<String>,
    Query(of): Query<QualifierQuery>,
    body: Result<Json<serde_json::Value>, JsonRejection>,
) -> ApiResult<Json<AsyncConfig>> {
    let refused = |why: String| Problem::new(code::TASK_CONFIG_INVALID, "the configuration is not taken").cause(why);
    let Json(given) = body.map_err(|rejection| refused(rejection.body_text()))?;
    if has_list(&given) {
        // Such a list would be read as fields by their place.
        return Err(refused("it is an object of named fields, without lists".to_owned()).into());
    }
    let mut config: AsyncConfig = serde_json::from_value(given).map_err(|error| refused(error.to_string()))?;
    let qualifier = of.qualifier.unwrap_or_else(|| LATEST.to_owned());
    keep_secrets(&mut config, api.tasks.config(&function, &qualifier)).map_err(refused)?;
    // Who names a function to be told gives it work.
    config.destination_config.functions().try_for_each(|told| who.require_function(&told))?;
    let there = &config.destination_config;
    for target in [&there.on_success, &there.on_failure].into_iter().flatten().filter_map(|to| to.target().ok()) {
        api.tasks.destination_rules().check(&target, who.is_administrator()).map_err(|why| {
            Problem::new(code::DESTINATION_REFUSED, "notifications do not go there")
                .cause(why)
                .hint("an operator names it in kipwake.toml: tasks.destinations = \"HOST:PORT, /FOLDER\"")
        })?;
    }
    api.tasks.put_config(&function, &qualifier, Some(config.clone())).await?;
    Ok(Json(hidden(config)))
}

fn has_list(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Array(_) => true,
        serde_json::Value::Object(fields) => fields.values().any(has_list),
        _ => false,
    }
}

pub(crate) async fn remove_config(
    State(api): State<Api>,
    Path(function): Path<String>,
    Query(of): Query<QualifierQuery>,
) -> ApiResult<StatusCode> {
    let qualifier = of.qualifier.unwrap_or_else(|| LATEST.to_owned());
    api.tasks.put_config(&function, &qualifier, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a run says of its progress. The address is the key.
pub(crate) async fn progress(
    State(api): State<Api>,
    Path((number, epoch, token)): Path<(u64, u32, String)>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    // Whoever has no token is read nothing of.
    api.tasks.check_progress(TaskNumber(number), epoch, &token)?;
    // Only a line of it is kept.
    let (mut line, mut pieces) = (Vec::new(), body.into_data_stream());
    while line.len() < LONGEST_LINE {
        let piece = tokio::time::timeout(BODY_IDLE, pieces.next()).await;
        let piece = piece.map_err(|_| bad_request("nothing of the request's body arrived for a minute"))?;
        let Some(piece) = piece else { break };
        line.extend(piece.map_err(|_| bad_request("the body of the request broke off"))?);
    }
    line.truncate(LONGEST_LINE);
    let text = String::from_utf8_lossy(&line);
    let noted = api.tasks.note_progress(TaskNumber(number), epoch, &token, &text).await;
    noted.map(|()| StatusCode::NO_CONTENT).map_err(|error| {
        let code: Code = error.code();
        Problem { code, ..Problem::from(error) }.into()
    })
}
