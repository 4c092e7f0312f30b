//! Models of the cache: pulled, listed, checked, removed. Deployments of models and presets are beside.

mod deployment_table;
pub(crate) mod deployments;
mod planning;
pub(crate) mod presets;
mod services;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kip_models::{Error, Models};
use kip_spec::{Problem, code};
use kip_wire::{
    AdoptedModels, ModelAdoption, ModelInfo, ModelList, ModelPrefetch, ModelPull, ModelRequest, ModelTier, ModelUsage,
    RefusedModel,
};

pub use self::services::ModelServices;
use self::services::{failed, taken};

use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::guard::Requester;
use crate::{Api, bad_request};

/// What is shown of models beside what is known anyway.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelQuery {
    /// Bytes of each model that are in the page cache: all its pages are looked at.
    #[serde(default)]
    residency: bool,
}

pub(crate) async fn list(
    State(api): State<Api>,
    who: Requester,
    Query(query): Query<ModelQuery>,
) -> ApiResult<Json<ModelList>> {
    let models = &api.models()?.models;
    let mut list = api.with_users(&who, models.list()).await?;
    if query.residency {
        for info in &mut list {
            *info = with_residency(models, info.clone()).await;
        }
    }
    Ok(Json(ModelList { models: list, pulls: models.pulls() }))
}

async fn with_residency(models: &Models, info: ModelInfo) -> ModelInfo {
    let Ok(record) = models.find(&info.id) else { return info };
    let resident = models.resident(&record).await;
    let whole = resident.is_some_and(|resident| resident >= info.size) && info.size > 0;
    ModelInfo { resident, tier: if whole { ModelTier::Memory } else { info.tier }, ..info }
}

pub(crate) async fn show(
    State(api): State<Api>,
    who: Requester,
    Path(model): Path<String>,
) -> ApiResult<Json<ModelInfo>> {
    let models = &api.models()?.models;
    let record = models.find(&model).map_err(failed)?;
    let info = api.one_with_users(&who, models.info(&record)).await?;
    Ok(Json(with_residency(models, info).await))
}

pub(crate) async fn prefetch(
    State(api): State<Api>,
    who: Requester,
    Path(model): Path<String>,
) -> ApiResult<Json<ModelPrefetch>> {
    let models = &api.models()?.models;
    let record = models.find(&model).map_err(failed)?;
    who.changes(record.id());
    Ok(Json(models.prefetch(record).await.map_err(failed)?))
}

pub(crate) async fn evict(
    State(api): State<Api>,
    who: Requester,
    Path(model): Path<String>,
) -> ApiResult<Json<ModelInfo>> {
    let models = &api.models()?.models;
    let record = models.find(&model).map_err(failed)?;
    let info = models.info(&record);
    who.changes(info.id.clone());
    let functions: Vec<String> = api.control.live_users(std::path::Path::new(&info.folder)).into_iter().collect();
    if !functions.is_empty() {
        return Err(failed(Error::InUse { model: info.id, functions }));
    }
    if record.adopted.is_some() {
        return Err(failed(Error::Adopted(info.id)));
    }
    require_unpinned(&info)?;
    models.evict(record.clone()).await.map_err(failed)?;
    let record = models.find(&record.id()).map_err(failed)?;
    Ok(Json(api.one_with_users(&who, models.info(&record)).await?))
}

pub(crate) async fn adopt(
    State(api): State<Api>,
    who: Requester,
    Json(asked): Json<ModelAdoption>,
) -> ApiResult<Json<AdoptedModels>> {
    who.changes(asked.folder.clone());
    let folder = std::path::PathBuf::from(&asked.folder);
    if !folder.is_absolute() {
        return Err(bad_request(format!("`{}` is no absolute path of the server's host", asked.folder)));
    }
    let models = &api.models()?.models;
    let done = models.adopt(folder).await.map_err(failed)?;
    let adopted = done.adopted.iter().map(|record| models.info(record)).collect();
    let refused = done.refused.into_iter().map(|(place, why)| RefusedModel { place: place.display().to_string(), why });
    Ok(Json(AdoptedModels { adopted: api.with_users(&who, adopted).await?, refused: refused.collect() }))
}

fn require_unpinned(info: &ModelInfo) -> ApiResult<()> {
    match info.pinned {
        false => Ok(()),
        true => Err(Problem::new(code::MODEL_IN_USE, format!("the model `{}` is pinned", info.id))
            .hint(format!("take the pin away first: kip model unpin {}", info.source))
            .into()),
    }
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
    let folder = std::path::PathBuf::from(&info.folder);
    let users = api.control.model_users(std::slice::from_ref(&folder)).await?;
    if let Some(functions) = users.get(&folder) {
        let functions = functions.iter().cloned().collect();
        return Err(failed(Error::InUse { model: info.id, functions }));
    }
    require_unpinned(&info)?;
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
    Ok(Json(api.one_with_users(&who, models.verify(record).await.map_err(failed)?).await?))
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
    Ok(Json(api.one_with_users(who, models.pin(record, pinned).await.map_err(failed)?).await?))
}
