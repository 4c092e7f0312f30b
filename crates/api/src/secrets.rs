//! Secrets: set, listed without their values, removed.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use kip_spec::named_secret::SecretText;
use kip_store::Seq;
use kip_wire::{SecretInfo, SecretValue};

use crate::error::ApiResult;
use crate::extract::Path;
use crate::guard::{Requester, tagged};
use crate::{Api, bad_request, key_problem};

pub(crate) async fn list(State(api): State<Api>, who: Requester) -> Json<Vec<SecretInfo>> {
    let mut users = users(&api, &who);
    let mut secrets = api.secrets.list();
    secrets.iter_mut().for_each(|secret| secret.used_by = users.remove(&secret.name).unwrap_or_default());
    Json(secrets)
}

pub(crate) async fn show(State(api): State<Api>, who: Requester, Path(name): Path<String>) -> ApiResult<Response> {
    let secret = with_users(&api, &who, api.secrets.show(&name).map_err(key_problem)?);
    Ok(tagged(Seq(secret.rev), secret))
}

pub(crate) async fn set(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    body: Result<Json<SecretValue>, JsonRejection>,
) -> ApiResult<Json<SecretInfo>> {
    // The text of a rejection may hold a part of the body.
    let Json(given) = body.map_err(|_| bad_request("the body is {\"value\": \"…\"}, and nothing else"))?;
    let set = api.secrets.set(&name, SecretText::new(given.value), who.author()).await.map_err(key_problem)?;
    Ok(Json(with_users(&api, &who, set)))
}

pub(crate) async fn remove(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
) -> ApiResult<Json<SecretInfo>> {
    let removed = with_users(&api, &who, api.secrets.show(&name).map_err(key_problem)?);
    api.secrets.remove(&name, who.author()).await.map_err(key_problem)?;
    Ok(Json(removed))
}

fn with_users(api: &Api, who: &Requester, secret: SecretInfo) -> SecretInfo {
    let used_by = users(api, who).remove(&secret.name).unwrap_or_default();
    SecretInfo { used_by, ..secret }
}

/// The functions that name each secret, as far as the caller sees them.
fn users(api: &Api, who: &Requester) -> BTreeMap<String, Vec<String>> {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (function, secret) in api.control.secret_uses() {
        if who.sees(function.as_str()) {
            users.entry(secret.to_string()).or_default().push(function.to_string());
        }
    }
    users
}
