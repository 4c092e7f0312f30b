//! Jobs: shown with their schedule and runs, let rest, let go on. They are declared with functions, and each run is a task.

use axum::Json;
use axum::extract::State;
use kip_wire::JobInfo;
use serde::Deserialize;

use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::guard::Requester;
use crate::{Api, bad_request};

/// Runs that are shown with a job unless said otherwise, and at most.
const FEW: u32 = 10;
const MANY: u32 = 1_000;

/// How many runs to show.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunsQuery {
    runs: Option<u32>,
}

pub(crate) async fn list(State(api): State<Api>, who: Requester) -> ApiResult<Json<Vec<JobInfo>>> {
    let mut jobs = api.events.jobs(&who.tenant_scope(None)).await?;
    jobs.retain(|job| who.sees(&job.name));
    Ok(Json(jobs))
}

pub(crate) async fn show(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    Query(shown): Query<RunsQuery>,
) -> ApiResult<Json<JobInfo>> {
    let runs = shown.runs.unwrap_or(FEW);
    if !(1..=MANY).contains(&runs) {
        return Err(bad_request(format!("`runs` is 1 to {MANY}, not {runs}")));
    }
    Ok(Json(api.events.job(&who.tenant_scope(None), &name, runs).await?))
}

pub(crate) async fn pause(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
) -> ApiResult<Json<JobInfo>> {
    who.changes(name.clone());
    api.events.pause_job(&name, true).await?;
    Ok(Json(api.events.job(&who.tenant_scope(None), &name, 1).await?))
}

pub(crate) async fn resume(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
) -> ApiResult<Json<JobInfo>> {
    who.changes(name.clone());
    api.events.pause_job(&name, false).await?;
    Ok(Json(api.events.job(&who.tenant_scope(None), &name, 1).await?))
}
