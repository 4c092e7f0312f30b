//! What handlers of models share: the cache, engines, presets, and how a request becomes one of the cache.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use kip_models::engines::Engines;
use kip_models::preset::Presets;
use kip_models::{Error, Models, Request, Source};
use kip_spec::named_secret::{SecretName, SecretSource as _, SecretText};
use kip_spec::{Problem, code};
use kip_wire::{ModelInfo, ModelRequest};

use super::deployment_table::Deployments;
use crate::error::{ApiError, ApiResult};
use crate::guard::Requester;
use crate::{Api, bad_request};

/// What the API needs of a server that serves models. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ModelServices {
    pub(crate) models: Models,
    pub(super) engines: Engines,
    /// The folder of the user's presets.
    presets: PathBuf,
    pub(super) deployments: Arc<Deployments>,
}

impl ModelServices {
    /// A cache, engines, and the folder of the user's presets.
    pub fn new(models: Models, engines: Engines, presets: PathBuf) -> Self {
        Self { models, engines, presets, deployments: Arc::default() }
    }

    pub(super) async fn presets(&self) -> ApiResult<Presets> {
        let folder = self.presets.clone();
        let read = kip_host::tasks::blocking("presets", move || Presets::with_folder(&folder)).await;
        Ok(read.unwrap_or_else(|| Ok(Presets::shipped()))?)
    }
}

pub(super) fn failed(error: Error) -> ApiError {
    Problem::from(error).into()
}

impl Api {
    /// Serves models.
    #[must_use]
    pub fn with_models(mut self, models: ModelServices) -> Self {
        self.models = Some(models);
        self
    }

    pub(crate) fn models(&self) -> ApiResult<&ModelServices> {
        self.models.as_ref().ok_or_else(|| bad_request("this server has no models"))
    }

    /// What the cache is asked for. A path of the host is read with the rights of the server, so it takes an administrator.
    pub(super) fn model_request(&self, who: &Requester, asked: &ModelRequest) -> ApiResult<Request> {
        let ModelRequest { source, revision, endpoint, token, token_secret, include } = asked;
        let parsed = source.parse::<Source>().and_then(|source| source.at(revision.as_deref()));
        let source = parsed.map_err(|error| failed(error.into()))?;
        if matches!(source, Source::Path(_)) && !who.is_administrator() {
            let message =
                "a folder of the host is pulled by administrators only: it is read with the rights of the server";
            return Err(Problem::new(code::ROLE_TOO_LOW, message).into());
        }
        let is_address = |text: &String| text.starts_with("http://") || text.starts_with("https://");
        if let Some(endpoint) = endpoint.as_ref().filter(|endpoint| !is_address(endpoint)) {
            return Err(bad_request(format!(
                "`{endpoint}` is no address of a hub: it begins with http:// or https://"
            )));
        }
        let token = match (token, token_secret) {
            (Some(_), Some(_)) => return Err(bad_request("`token` and `token_secret` are both given")),
            (Some(token), None) => Some(SecretText::new(token.clone())),
            (None, Some(name)) => Some(self.token(name)?),
            (None, None) => None,
        };
        let (endpoint, token_secret, include) = (endpoint.clone(), token_secret.clone(), include.clone());
        Ok(Request { source, endpoint, token, token_secret, include, commit: None })
    }

    fn token(&self, name: &str) -> ApiResult<SecretText> {
        let missing = || Problem::new(code::SECRET_NOT_FOUND, format!("there is no secret `{name}` that can be read"));
        let name: SecretName = name.parse().map_err(|_| missing())?;
        Ok(self.secrets.reveal(&name).map_err(|_| missing().hint("`kip secret set NAME` sets it"))?)
    }

    /// Models with the functions that need them, as far as the caller sees those.
    pub(super) async fn with_users(&self, who: &Requester, mut infos: Vec<ModelInfo>) -> ApiResult<Vec<ModelInfo>> {
        let folders: Vec<PathBuf> = infos.iter().map(|info| PathBuf::from(&info.folder)).collect();
        let mut users = self.control.model_users(&folders).await?;
        for (info, folder) in infos.iter_mut().zip(&folders) {
            let functions = users.remove(folder).unwrap_or_default();
            info.used_by = functions.into_iter().filter(|function| who.sees(function)).collect();
        }
        Ok(infos)
    }

    pub(super) async fn one_with_users(&self, who: &Requester, info: ModelInfo) -> ApiResult<ModelInfo> {
        let mut infos = self.with_users(who, vec![info]).await?;
        infos.pop().ok_or_else(|| bad_request("there is no model"))
    }
}

/// A body whose rejection is not told: its text may hold a token.
pub(super) fn taken<T>(body: Result<Json<T>, JsonRejection>) -> ApiResult<T> {
    let Json(given) = body.map_err(|rejection| match rejection {
        JsonRejection::JsonDataError(_) => {
            bad_request("the body has a wrong field; `kip model pull --help` and docs/models.md name them")
        }
        _ => bad_request("the body is no JSON"),
    })?;
    Ok(given)
}
