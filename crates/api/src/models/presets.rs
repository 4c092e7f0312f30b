//! Presets: what is known about engines, and engines in environments of our own.

use axum::Json;
use axum::extract::State;
use kip_models::engines::Engines;
use kip_models::preset::{Preset, Presets};
use kip_spec::{Problem, code};
use kip_wire::PresetInfo;

use crate::Api;
use crate::error::ApiResult;
use crate::extract::Path;
use crate::guard::Requester;

fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn info(preset: &Preset, presets: &Presets, engines: &Engines) -> PresetInfo {
    PresetInfo {
        name: preset.name.clone(),
        about: preset.about.clone(),
        evidence: word(preset.evidence),
        formats: preset.formats.iter().map(word).collect(),
        tasks: preset.tasks.clone(),
        engine: preset.engine.as_ref().map(|engine| engine.program.clone()),
        installed: engines.program(preset).map(|program| program.display().to_string()),
        install: preset.engine.as_ref().map(|engine| engine.install.clone()),
        own: presets.is_own(&preset.name),
        fields: serde_json::to_value(preset).unwrap_or_default(),
    }
}

fn find<'a>(presets: &'a Presets, name: &str) -> ApiResult<&'a Preset> {
    let missing = || {
        Problem::new(code::PRESET_UNKNOWN, format!("there is no preset `{name}`")).hint("`kip preset ls` lists them")
    };
    Ok(presets.find(name).ok_or_else(missing)?)
}

pub(crate) async fn list(State(api): State<Api>) -> ApiResult<Json<Vec<PresetInfo>>> {
    let services = api.models()?;
    let presets = services.presets().await?;
    Ok(Json(presets.all().iter().map(|preset| info(preset, &presets, &services.engines)).collect()))
}

pub(crate) async fn show(State(api): State<Api>, Path(name): Path<String>) -> ApiResult<Json<PresetInfo>> {
    let services = api.models()?;
    let presets = services.presets().await?;
    Ok(Json(info(find(&presets, &name)?, &presets, &services.engines)))
}

pub(crate) async fn install(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
) -> ApiResult<Json<PresetInfo>> {
    let services = api.models()?;
    let presets = services.presets().await?;
    let preset = find(&presets, &name)?.clone();
    who.changes(name);
    let (engines, wanted) = (services.engines.clone(), preset.clone());
    let installed = kip_host::tasks::blocking("engine", move || engines.install(&wanted)).await;
    installed.unwrap_or_else(|| Err(kip_control::Error::ShuttingDown.into()))?;
    Ok(Json(info(&preset, &presets, &services.engines)))
}
