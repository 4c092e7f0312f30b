//! Devices of the host, and the quota over all functions.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use kip_control::QuotaChange;
use kip_wire::{DeviceStatus, DeviceYield, FitReport, QuotaSettings};

use crate::error::ApiResult;
use crate::guard::Requester;
use crate::{Api, bad_request};

pub(crate) async fn list(State(api): State<Api>, who: Requester) -> ApiResult<Json<Vec<DeviceStatus>>> {
    let mut devices = api.control.device_statuses().await;
    for device in &mut devices {
        device.instances.retain(|user| who.sees(user.function.as_str()));
    }
    Ok(Json(devices))
}

pub(crate) async fn yield_device(
    State(api): State<Api>,
    who: Requester,
    Path(device): Path<String>,
    body: Result<Json<DeviceYield>, JsonRejection>,
) -> ApiResult<StatusCode> {
    let Json(order) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(device.clone());
    let until = order
        .for_ms
        .map(|millis| kip_host::clock::wall_millis().saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)));
    api.control.yield_device(&device, until)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn regain(
    State(api): State<Api>,
    who: Requester,
    Path(device): Path<String>,
) -> ApiResult<StatusCode> {
    who.changes(device.clone());
    api.control.regain_device(&device)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn quota(State(api): State<Api>) -> Json<QuotaSettings> {
    let QuotaChange { cards, instances } = api.control.quota_change();
    Json(QuotaSettings { cards, instances })
}

pub(crate) async fn set_quota(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<QuotaSettings>, JsonRejection>,
) -> ApiResult<Json<QuotaSettings>> {
    let Json(settings) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes("quota".to_owned());
    api.control.set_quota(QuotaChange { cards: settings.cards, instances: settings.instances })?;
    Ok(Json(settings))
}

pub(crate) async fn fit(State(api): State<Api>, who: Requester) -> ApiResult<Json<FitReport>> {
    let mut names = api.control.function_names();
    names.retain(|name| who.sees(name.as_str()));
    Ok(Json(api.control.fit(&names).await?))
}
