//! Images of the container engine on this host.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kip_control::engine_problem;
use kip_spec::function::Program;
use kip_wire::{ImageInfo, ImageList, ImageName, PullInfo};

use crate::error::ApiResult;
use crate::guard::Requester;
use crate::{Api, bad_request};

pub(crate) async fn list(State(api): State<Api>, who: Requester) -> ApiResult<Json<ImageList>> {
    let engine = api.control.engine()?;
    let images = engine.images().await.map_err(|error| engine_problem(&error))?;
    let users = |id: &str| -> Vec<String> {
        let uses = |cell: &kip_control::Cell| match &cell.serving().spec.program {
            Program::Image(container) => container.id.as_deref() == Some(id),
            Program::Command { .. } | Program::Model { .. } => false,
        };
        let functions = api.control.functions();
        let named = functions.iter().filter(|info| who.sees(info.name.as_str()));
        let using = named.filter(|info| api.control.cell(info.name.as_str()).is_some_and(|cell| uses(&cell)));
        using.map(|info| info.name.to_string()).collect()
    };
    let uses = api.control.image_uses(&images).await;
    let image = |(found, known): (kip_control::ImageInfo, kip_control::ImageUse)| ImageInfo {
        needed: known.needed,
        kept: known.kept,
        pulled: known.pulled,
        functions: users(&found.id),
        id: found.id,
        tags: found.tags,
        size: found.size,
        created: found.created,
    };
    Ok(Json(ImageList { images: images.into_iter().zip(uses).map(image).collect(), pulls: pulls(engine) }))
}

pub(crate) async fn under_way(State(api): State<Api>) -> ApiResult<Json<Vec<PullInfo>>> {
    Ok(Json(pulls(api.control.engine()?)))
}

fn pulls(engine: &dyn kip_control::ContainerEngine) -> Vec<PullInfo> {
    let pull = |(image, progress): (String, kip_control::PullProgress)| PullInfo {
        image,
        received: progress.received,
        total: progress.total,
    };
    engine.pulls().into_iter().map(pull).collect()
}

pub(crate) async fn pull(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<ImageName>, JsonRejection>,
) -> ApiResult<Json<ImageName>> {
    let Json(name) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(name.image.clone());
    let engine = api.control.engine()?;
    engine.pull(checked(&name)?).await.map_err(|error| engine_problem(&error))?;
    api.control.images_changed();
    Ok(Json(name))
}

pub(crate) async fn remove(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<ImageName>, JsonRejection>,
) -> ApiResult<Json<ImageName>> {
    let Json(name) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(name.image.clone());
    api.control.remove_image(checked(&name)?).await?;
    Ok(Json(name))
}

/// A name becomes a part of a path of the engine's API.
fn checked(name: &ImageName) -> ApiResult<&str> {
    let image = name.image.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    if image.is_empty() || image.len() > 512 || !image.bytes().all(plain) || image.contains("..") {
        return Err(bad_request(format!("`{image}` is not the name of an image")));
    }
    Ok(image)
}
