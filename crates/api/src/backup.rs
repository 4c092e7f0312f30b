//! Backup and restore, and whether the server is well.

use std::path::{Path as FilePath, PathBuf};

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use kip_control::BackupManifest;
use kip_wire::{Backup, Health, Restore, RestoreReport};

use crate::error::ApiResult;
use crate::guard::Requester;

use crate::{Api, bad_request, key_problem};

fn absolute(file: &str) -> ApiResult<PathBuf> {
    if FilePath::new(file).is_absolute() {
        return Ok(file.into());
    }
    Err(bad_request(format!("`file` must be an absolute path on the server's machine, not `{file}`")))
}

pub(crate) async fn backup(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<Backup>, JsonRejection>,
) -> ApiResult<Json<BackupManifest>> {
    let Json(backup) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(backup.file.clone());
    Ok(Json(api.control.backup(&absolute(&backup.file)?, backup.force, true, !backup.no_code).await?))
}

pub(crate) async fn restore(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<Restore>, JsonRejection>,
) -> ApiResult<Json<RestoreReport>> {
    let Json(restore) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(restore.file.clone());
    let by = who.name().to_owned();
    // An administrator may name a link; what it leads to must be a file.
    let file = absolute(&restore.file)?;
    let file = std::fs::canonicalize(&file).unwrap_or(file);
    let mut restored = api.control.restore(&file, restore.force, (restore.records, restore.keys), by).await?;
    api.keys.reload().await.map_err(key_problem)?;
    api.secrets.reload().await.map_err(key_problem)?;
    for facade in &api.told {
        facade.restored().await?;
    }
    restored.unreadable_secrets = api.secrets.unreadable();
    Ok(Json(restored))
}

/// Ready means: takes requests and changes. Without changes it is 503, with what is wrong; functions may serve even so.
pub(crate) async fn ready(State(api): State<Api>) -> (StatusCode, Json<Health>) {
    let disk = api.control.host().disk;
    let ready = disk.takes_changes() && !api.control.is_closing();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let health = Health {
        ready,
        serving: !api.control.is_closing(),
        state: disk.state,
        disk: disk.level,
        detail: disk.state_detail,
    };
    (status, Json(health))
}
