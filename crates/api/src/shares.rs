//! Shares: paths of NAS servers and buckets, and their folders on this machine.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use kip_spec::function::{FunctionSpec, Program};
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

/// Gives each mount of a declaration the folder that the name of its share means now; those below the storage root are made.
pub(crate) async fn resolve(api: &Api, spec: &mut FunctionSpec) -> ApiResult<()> {
    let in_container = matches!(spec.program, Program::Image(_));
    let (function, mounts) = (
        spec.name.clone(),
        match &mut spec.program {
            Program::Image(container) => &mut container.mounts,
            _ => &mut spec.folders,
        },
    );
    for mount in mounts.iter_mut().filter(|mount| !mount.source.starts_with('/')) {
        let folder = api.control.share_folder(&name_of(&mount.source)?).await?;
        if !in_container && !api.about.mounts {
            let message = format!(
                "`{function}`: {} cannot be mounted at {}: this host gives instances no mounts",
                mount.source, mount.target
            );
            return Err(Problem::new(code::MOUNT_IMPOSSIBLE, message)
                .hint("run the server as root, or allow user namespaces (`kip doctor` says why they are refused), or run the program in a container")
                .into());
        }
        mount.source = folder.display().to_string();
    }
    Ok(())
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
