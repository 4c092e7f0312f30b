//! Roles of Function Compute whose credentials are secrets of this server.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use kip_spec::{Problem, code};
use kip_wire::{RoleInfo, RoleSettings};

use crate::error::ApiResult;
use crate::extract::Path;
use crate::guard::Requester;
use crate::{Api, bad_request};

pub(crate) async fn list(State(api): State<Api>) -> ApiResult<Json<Vec<RoleInfo>>> {
    Ok(Json(api.control.roles().await?))
}

pub(crate) async fn set(
    State(api): State<Api>,
    who: Requester,
    Path(role): Path<String>,
    body: Result<Json<RoleSettings>, JsonRejection>,
) -> ApiResult<Json<RoleInfo>> {
    let Json(settings) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(role.clone());
    Ok(Json(api.control.set_role(&role, &settings.secret, who.author()).await?))
}

pub(crate) async fn remove(State(api): State<Api>, who: Requester, Path(role): Path<String>) -> ApiResult<StatusCode> {
    who.changes(role.clone());
    if !api.control.forget_role(&role, who.author()).await? {
        let problem = Problem::new(code::ROLE_UNMAPPED, format!("the role `{role}` is not mapped"));
        return Err(problem.hint("kip deploy --role-map ROLE=SECRET maps one").into());
    }
    Ok(StatusCode::NO_CONTENT)
}
