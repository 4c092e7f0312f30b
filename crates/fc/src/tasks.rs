//! Asynchronous tasks: one, many, stopped. Their names and fields are the vendor's in the product already.

use axum::response::Response;
use kip_spec::FunctionName;
use kip_tasks::{TaskFilter, TaskNumber, TaskState};
use kip_wire::TaskInfo;
use serde_json::Value;

use crate::Fc;
use crate::arn;
use crate::error::{FcError, FcResult};
use crate::query::listed;
use crate::request::{Request, empty, json};

fn shown(function: &FunctionName, task: &TaskInfo) -> Value {
    let mut shown = serde_json::to_value(task).unwrap_or_default();
    shown["functionArn"] = arn::function(function.as_str(), Some(&task.qualifier)).into();
    shown
}

pub(crate) async fn get(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = fc.control.require(request.function())?.name().clone();
    let scope = request.key.tenants(None);
    let task = fc.tasks.show(&scope, function.as_str(), request.parameter(1), true).await?;
    Ok(json(shown(&function, &task)))
}

pub(crate) async fn list(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = fc.control.require(request.function())?.name().clone();
    let query = &request.query;
    let mut states = Vec::new();
    for name in query.get("status").into_iter().flat_map(|text| text.split(',')) {
        // A task is claimed and sent in one step.
        let known = if name == "Dequeued" { "Running" } else { name };
        let state = TaskState::named(known);
        states.push(state.ok_or_else(|| FcError::invalid(format!("status is set to an invalid value `{name}`")))?);
    }
    let ascending = match query.get("sortOrderByTime") {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(other) => return Err(FcError::invalid(format!("sortOrderByTime is asc or desc, not `{other}`"))),
    };
    let after = query.number("nextToken")?.map(|token| TaskNumber(token.unsigned_abs()));
    let filter = TaskFilter {
        function: Some(function.to_string()),
        among: request.key.only(),
        qualifier: query.get("qualifier").map(str::to_owned),
        states,
        prefix: query.get("prefix").map(str::to_owned),
        started_from: query.number("startedTimeBegin")?,
        started_to: query.number("startedTimeEnd")?,
        tenant: None,
        kind: None,
        ascending,
        after,
        limit: u32::try_from(query.limit()?).unwrap_or(u32::MAX),
    };
    let (tasks, next) = fc.tasks.list(&request.key.tenants(None), filter, query.flag("includePayload")).await?;
    let rows = tasks.iter().map(|task| shown(&function, task)).collect();
    Ok(json(listed("tasks", rows, next.map(|next| next.0.to_string()))))
}

pub(crate) async fn stop(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = fc.control.require(request.function())?.name().clone();
    fc.tasks.stop(&request.key.tenants(None), function.as_str(), request.parameter(1)).await?;
    Ok(empty())
}
