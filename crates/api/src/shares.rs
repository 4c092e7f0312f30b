//! Shares: paths of NAS servers and buckets, and their folders on this machine.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use kip_spec::share::ShareName;
use kip_spec::{Problem, code};
use kip_wire::{ShareInfo, ShareSettings};

use crate::error::ApiResult;
use crate::extract::Path;
use crate::guard::Requester;
use crate::{Api, bad_request};

fn name_of(text: &str) -> ApiResult<ShareName> {
    text.parse().map_err(|error: kip_spec::share::ShareNameError| {
        Problem::new(code::SHARE_INVALID, error.to_string()).hint("write SERVER:/PATH or oss://BUCKET/PATH").into()
    })
}

pub(crate) async fn list(State(api): State<Api>) -> ApiResult<Json<Vec<ShareInfo>>> {
    Ok(Json(api.control.shares().await?))
}

pub(crate) async fn show(State(api): State<Api>, Path(name): Path<String>) -> ApiResult<Json<ShareInfo>> {
    Ok(Json(api.control.share(&name_of(&name)?).await?))
}

pub(crate) async fn set(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    body: Result<Json<ShareSettings>, JsonRejection>,
) -> ApiResult<Json<ShareInfo>> {
    let Json(settings) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(name.clone());
    Ok(Json(api.control.set_share(&name_of(&name)?, &settings.folder, who.author()).await?))
}

pub(crate) async fn remove(State(api): State<Api>, who: Requester, Path(name): Path<String>) -> ApiResult<StatusCode> {
    who.changes(name.clone());
    if !api.control.forget_share(&name_of(&name)?, who.author()).await? {
        let problem = Problem::new(code::SHARE_UNKNOWN, format!("no folder is set for the share `{name}`"));
        return Err(problem.hint("`kip nas info` shows the shares of a project").into());
    }
    Ok(StatusCode::NO_CONTENT)
}
