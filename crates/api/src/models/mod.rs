//! Models of the cache: pulled, listed, checked, removed. Deployments of models and presets are beside.

mod deployment_table;
pub(crate) mod deployments;
mod planning;
pub(crate) mod presets;
mod services;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kip_models::Error;
use kip_spec::{Problem, code};
use kip_wire::{ModelInfo, ModelList, ModelPull, ModelRequest, ModelUsage};

pub use self::services::ModelServices;
use self::services::{failed, taken};

use crate::Api;
use crate::error::ApiResult;
use crate::extract::Path;
use crate::guard::Requester;

pub(crate) async fn list(State(api): State<Api>, who: Requester) -> ApiResult<Json<ModelList>> {
    let models = &api.models()?.models;
    let list = models.list().into_iter().map(|info| api.with_users(&who, info)).collect();
    Ok(Json(ModelList { models: list, pulls: models.pulls() }))
}

pub(crate) async fn show(
    State(api): State<Api>,
    who: Requester,
    Path(model): Path<String>,
) -> ApiResult<Json<ModelInfo>> {
    let models = &api.models()?.models;
    let record = models.find(&model).map_err(failed)?;
    Ok(Json(api.with_users(&who, models.info(&record))))
}

pub(crate) async fn usage(State(api): State<Api>) -> ApiResult<Json<ModelUsage>> {
    Ok(Json(api.models()?.models.usage().await.map_err(failed)?))
}

pub(crate) async fn pull(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<ModelRequest>, JsonRejection>,
) -> ApiResult<Json<ModelPull>> {
    let request = api.model_request(&who, &taken(body)?)?;
    who.changes(request.source.to_string());
    Ok(Json(api.models()?.models.pull(request)))
}

pub(crate) async fn show_pull(State(api): State<Api>, Path(id): Path<u64>) -> ApiResult<Json<ModelPull>> {
    Ok(Json(api.models()?.models.pull_info(id).map_err(failed)?))
}

pub(crate) async fn cancel(State(api): State<Api>, who: Requester, Path(id): Path<u64>) -> ApiResult<Json<ModelPull>> {
    let pull = api.models()?.models.cancel(id).map_err(failed)?;
    who.changes(pull.source.clone());
    Ok(Json(pull))
}

pub(crate) async fn remove(
    State(api): State<Api>,
    who: Requester,
    Path(model): Path<String>,
) -> ApiResult<Json<ModelInfo>> {
    let models = &api.models()?.models;
    let record = models.find(&model).map_err(failed)?;
    let info = models.info(&record);
    who.changes(info.id.clone());
    let functions = api.users_of(&info.folder);
    if !functions.is_empty() {
        return Err(failed(Error::InUse { model: info.id, functions }));
    }
    if info.pinned {
        return Err(Problem::new(code::MODEL_IN_USE, format!("the model `{}` is pinned", info.id))
            .hint(format!("take the pin away first: kip model unpin {}", info.source))
            .into());
    }
    models.remove(record).await.map_err(failed)?;
    Ok(Json(info))
}

pub(crate) async fn verify(
    State(api): State<Api>,
    who: Requester,
    Path(model): Path<String>,
) -> ApiResult<Json<ModelInfo>> {
    let models = &api.models()?.models;
    let record = models.find(&model).map_err(failed)?;
    who.changes(record.id());
    Ok(Json(api.with_users(&who, models.verify(record).await.map_err(failed)?)))
}

pub(crate) async fn pin(
    State(api): State<Api>,
    who: Requester,
    Path(model): Path<String>,
) -> ApiResult<Json<ModelInfo>> {
    set_pin(&api, &who, &model, true).await
}

pub(crate) async fn unpin(
    State(api): State<Api>,
    who: Requester,
    Path(model): Path<String>,
) -> ApiResult<Json<ModelInfo>> {
    set_pin(&api, &who, &model, false).await
}

async fn set_pin(api: &Api, who: &Requester, model: &str, pinned: bool) -> ApiResult<Json<ModelInfo>> {
    let models = &api.models()?.models;
    let record = models.find(model).map_err(failed)?;
    who.changes(record.id());
    Ok(Json(api.with_users(who, models.pin(record, pinned).await.map_err(failed)?)))
}
