//! The server itself: status, instances, stop, and paths that are not there.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, Uri};
use kip_spec::{InstanceId, Problem, code};
use kip_wire::{InstanceInfo, Status};

use crate::error::{ApiError, ApiResult};
use crate::extract::Path;
use crate::guard::Requester;

use crate::{Api, bad_request};

/// Where functions are called: all that somebody who may only call them needs of the API.
pub(crate) async fn gateway(State(api): State<Api>) -> Json<kip_wire::Gateway> {
    Json(kip_wire::Gateway { gateway: api.about.gateway })
}

pub(crate) async fn status(State(api): State<Api>, who: Requester) -> Json<Status> {
    let functions = api.control.functions();
    let instances = api.control.instances();
    Json(Status {
        about: api.about.as_ref().clone(),
        host: api.control.host(),
        functions: functions.iter().filter(|info| who.sees(info.name.as_str())).count(),
        instances: instances.iter().filter(|info| who.sees(info.function.as_str())).count(),
        // What happened to the server may name any function.
        events: if who.sees_all() { api.control.events() } else { Vec::new() },
    })
}

pub(crate) async fn stop(State(api): State<Api>) -> Json<serde_json::Value> {
    tracing::info!("asked to stop through the API");
    api.stop.send_replace(true);
    Json(serde_json::json!({"stopping": true}))
}

pub(crate) async fn instances(State(api): State<Api>, who: Requester) -> Json<Vec<InstanceInfo>> {
    let mut instances = api.control.instances();
    instances.retain(|info| who.sees(info.function.as_str()));
    instances.iter_mut().for_each(|info| without_foreign(&api, &who, info));
    Json(instances)
}

pub(crate) async fn instance(
    State(api): State<Api>,
    who: Requester,
    Path(id): Path<String>,
) -> ApiResult<Json<InstanceInfo>> {
    let id: InstanceId = id.parse().map_err(|error: kip_spec::id::IdError| bad_request(error.to_string()))?;
    // One of a function that is not seen is as unknown as one that is not there.
    let found = api.control.instance(id).await.filter(|found| who.sees(found.function.as_str()));
    let mut found = found.ok_or_else(|| {
        Problem::new(code::INSTANCE_NOT_FOUND, format!("there is no instance {id}"))
            .hint("`kip ps` lists the instances there are")
    })?;
    without_foreign(&api, &who, &mut found);
    Ok(Json(found))
}

/// An instance that waits for room says who has it.
fn without_foreign(api: &Api, who: &Requester, info: &mut InstanceInfo) {
    info.waits_for = info.waits_for.take().map(|text| who.without_foreign(api, &text));
}

pub(crate) async fn unknown_path(uri: Uri) -> ApiError {
    Problem::new(code::API_UNKNOWN_PATH, format!("the API has nothing at {}", uri.path()))
        .hint("its paths begin with /api/v1/; functions are called through the gateway")
        .into()
}

pub(crate) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    Problem::new(code::API_METHOD, format!("the API does not take {method} at {}", uri.path())).into()
}
