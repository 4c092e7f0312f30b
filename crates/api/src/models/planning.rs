//! What a deployment of a model would do, found out before a byte of it is downloaded.

use kip_models::preset::{Choice, Preference, Preset, choose};
use kip_models::{Listing, Request, Source};
use kip_spec::{FunctionName, ModelName, Problem, code};
use kip_wire::{ModelDeployment, ModelFile, ModelPlan};

use super::services::failed;
use crate::error::ApiResult;
use crate::guard::Requester;
use crate::{Api, bad_request};

/// A deployment that can be carried out.
#[derive(Debug)]
pub(super) struct DeploymentDraft {
    pub(super) request: Request,
    pub(super) listing: Listing,
    pub(super) choice: Choice,
    pub(super) function: FunctionName,
    pub(super) names: Vec<ModelName>,
}

impl DeploymentDraft {
    /// As it is shown.
    pub(super) fn plan(&self, api: &Api) -> ModelPlan {
        let Self { request, listing, choice, function, names } = self;
        let needed = listing.files.iter().filter(|file| choice.files.contains(&file.path));
        let file =
            |file: &kip_models::ListedFile| ModelFile { path: file.path.to_string(), size: file.size, sha256: None };
        ModelPlan {
            source: request.source.to_string(),
            commit: listing.commit.clone(),
            licence: listing.licence.clone(),
            task: listing.task.clone(),
            files: needed.map(file).collect(),
            size: choice.size,
            other_files: (listing.files.len() - choice.files.len()) as u64,
            preset: choice.preset.name.clone(),
            why: choice.why.clone(),
            memory: choice.preset.memory.of(choice.size),
            host_memory: api.control.host().memory,
            function: function.to_string(),
            names: names.iter().map(ModelName::to_string).collect(),
        }
    }
}

pub(super) async fn drafted(api: &Api, who: &Requester, asked: &ModelDeployment) -> ApiResult<DeploymentDraft> {
    if !asked.model.include.is_empty() {
        return Err(bad_request("a deployment takes no `include`: its preset says which files it needs"));
    }
    let mut request = api.model_request(who, &asked.model)?;
    let services = api.models()?;
    let presets = services.presets().await?;
    let function = match &asked.function {
        Some(name) => name.parse().map_err(|error| bad_request(format!("`function`: {error}")))?,
        None => name_of(&request.source)?,
    };
    who.require_function(function.as_str())?;
    let listing = services.models.describe(&request).await.map_err(failed)?;
    let wish = Preference { preset: asked.preset.as_deref(), file: asked.file.as_deref() };
    if asked.install_engine && !who.is_administrator() {
        let message = "an engine is installed by administrators only: its installer runs with the rights of the server";
        return Err(Problem::new(code::ROLE_TOO_LOW, message).into());
    }
    let installable = |preset: &Preset| preset.engine.as_ref().is_some_and(|engine| !engine.packages.is_empty());
    let is_there = |preset: &Preset| services.engines.serves(preset) || (asked.install_engine && installable(preset));
    let choice = choose(&listing, presets.all(), wish, is_there)?;
    request.include = choice.files.iter().map(|file| file.to_string()).collect();
    let names = free_names(api, &request.source, &function);
    if asked.function.is_none() {
        require_own(api, &function, &names, &request.source)?;
    }
    Ok(DeploymentDraft { request, listing, choice, function, names })
}

/// A function's name made of the model's.
fn name_of(source: &Source) -> ApiResult<FunctionName> {
    let name = source.name();
    let last = name.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let stem = last
        .rsplit_once('.')
        .filter(|(_, end)| matches!(*end, "onnx" | "gguf" | "py" | "mar"))
        .map_or(last, |(stem, _)| stem);
    let plain = |character: char| if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' };
    let mut text: String = stem.chars().take(63).map(plain).collect();
    text = text.trim_matches('-').to_owned();
    if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
        text = format!("m{text}");
    }
    text.parse().map_err(|error| bad_request(format!("{error}; name the function: --name NAME")))
}

/// The repository's name, as a name of the function, unless another function has it.
fn free_names(api: &Api, source: &Source, function: &FunctionName) -> Vec<ModelName> {
    let Source::Hub { repository, .. } = source else { return Vec::new() };
    let Ok(name) = repository.parse::<ModelName>() else { return Vec::new() };
    let taken =
        api.control.functions().iter().any(|info| {
            info.name != *function && (info.name.as_str() == name.as_str() || info.spec.names.contains(&name))
        });
    if taken || name.as_str() == function.as_str() { Vec::new() } else { vec![name] }
}

/// A name that nobody chose must not replace a function that is something else.
fn require_own(api: &Api, function: &FunctionName, names: &[ModelName], source: &Source) -> ApiResult<()> {
    let Some(cell) = api.control.cell(function.as_str()) else { return Ok(()) };
    let Source::Hub { .. } = source else {
        // A path or an address has no name by which its function would be known.
        return Err(exists(function));
    };
    let known = &cell.serving().spec.names;
    if names.iter().any(|name| known.contains(name)) { Ok(()) } else { Err(exists(function)) }
}

fn exists(function: &FunctionName) -> crate::error::ApiError {
    Problem::new(code::FUNCTION_EXISTS, format!("there is a function `{function}` already"))
        .hint(format!("name the new one: --name NAME; or give it a new version: --name {function}"))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_after_its_model() {
        for (source, name) in [
            ("hf:Qwen/Qwen2.5-7B-Instruct", "qwen2-5-7b-instruct"),
            ("https://example.com/files/tiny.Q4.gguf", "tiny-q4"),
            ("/srv/models/digits/", "digits"),
            ("/srv/7b.onnx", "m7b"),
            ("hf:org/___", "m"),
        ] {
            assert_eq!(name_of(&source.parse().unwrap()).unwrap().as_str(), name, "{source}");
        }
    }
}
