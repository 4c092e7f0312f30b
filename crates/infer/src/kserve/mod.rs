//! The open inference protocol (KServe v2) over HTTP, with the binary tensor and statistics extensions.

mod request;
mod response;

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::error::Error;
use crate::http::State;
use crate::http::answer;
use crate::served::{LoadedModel, VERSION};
use request::Request;

/// The header that says how many bytes of a body are JSON; the rest is binary tensors.
const HEADER_LENGTH: &str = "inference-header-content-length";

/// JSON beyond this is read outside the loop that serves connections.
const LARGE: usize = 64 << 10;

/// A model, and a version if the path has one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModelPath {
    name: String,
    version: Option<String>,
}

/// What a path below `/v2` leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Server,
    Live,
    Ready,
    Metadata(ModelPath),
    ModelReady(ModelPath),
    Statistics(ModelPath),
    Infer(ModelPath),
}

/// Reads the path below `/v2`.
pub(crate) fn target(parts: &[&str]) -> Option<Target> {
    let (name, version, rest) = match parts {
        [] => return Some(Target::Server),
        ["health", "live"] => return Some(Target::Live),
        ["health", "ready"] => return Some(Target::Ready),
        ["models", name, "versions", version, rest @ ..] => (*name, Some((*version).to_owned()), rest),
        ["models", name, rest @ ..] => (*name, None, rest),
        _ => return None,
    };
    let model = ModelPath { name: name.to_owned(), version };
    match rest {
        [] => Some(Target::Metadata(model)),
        ["ready"] => Some(Target::ModelReady(model)),
        ["stats"] => Some(Target::Statistics(model)),
        ["infer"] => Some(Target::Infer(model)),
        _ => None,
    }
}

/// Whether the path means the model that is served.
pub(crate) fn check_model(served: &LoadedModel, path: &ModelPath) -> Result<(), Error> {
    let right_version = path.version.as_deref().is_none_or(|version| version == VERSION);
    if path.name == served.name && right_version {
        return Ok(());
    }
    let wanted = match &path.version {
        Some(version) => format!("{} version {version}", path.name),
        None => path.name.clone(),
    };
    Err(Error::UnknownModel { wanted, served: format!("{} version {VERSION}", served.name) })
}

/// Answers everything but inference.
pub(crate) fn describe(served: &LoadedModel, target: &Target) -> Result<Response<Full<Bytes>>, Error> {
    let ok = |value: &serde_json::Value| answer::json(StatusCode::OK, value);
    Ok(match target {
        Target::Server => ok(&json!({
            "name": "kipwake",
            "version": env!("CARGO_PKG_VERSION"),
            "extensions": ["binary_tensor_data", "statistics"],
        })),
        // The model is loaded before the port is opened, so a server that answers is ready.
        Target::Live => ok(&json!({ "live": true })),
        Target::Ready => ok(&json!({ "ready": true })),
        Target::ModelReady(model) => {
            check_model(served, model)?;
            ok(&json!({ "name": served.name, "ready": true }))
        }
        Target::Metadata(model) => {
            check_model(served, model)?;
            answer::json(StatusCode::OK, &response::metadata(served))
        }
        Target::Statistics(model) => {
            check_model(served, model)?;
            answer::json(StatusCode::OK, &response::statistics(served))
        }
        Target::Infer(model) => {
            check_model(served, model)?;
            ok(&json!({}))
        }
    })
}

/// Answers an inference request.
pub(crate) async fn infer(state: &Arc<State>, head: &Parts, body: Bytes) -> Result<Response<Full<Bytes>>, Error> {
    let header_length = match head.headers.get(HEADER_LENGTH) {
        None => None,
        Some(value) => {
            Some(value.to_str().ok().and_then(|text| text.trim().parse::<usize>().ok()).ok_or_else(|| {
                Error::unreadable("the header Inference-Header-Content-Length is not a number of bytes")
            })?)
        }
    };
    let json_length = header_length.unwrap_or(body.len());
    if json_length > body.len() {
        let (claimed, given) = (json_length, body.len());
        let text = format!("Inference-Header-Content-Length is {claimed}, but the body has only {given} bytes");
        return Err(Error::unreadable(text));
    }
    let shared = Arc::clone(state);
    let read = move || Request::read(&shared.served.description, &body, header_length);
    let request = if json_length > LARGE { state.aside(read).await? } else { read()? };
    let outputs = state.served.run(request.inputs).await?;
    response::infer(&state.served, request.id.as_deref(), &request.outputs, &outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_and_without_versions() {
        let model = |version: Option<&str>| ModelPath { name: "m".to_owned(), version: version.map(str::to_owned) };
        assert_eq!(target(&[]), Some(Target::Server));
        assert_eq!(target(&["models", "m"]), Some(Target::Metadata(model(None))));
        assert_eq!(target(&["models", "m", "versions", "1", "infer"]), Some(Target::Infer(model(Some("1")))));
        assert_eq!(target(&["models", "m", "ready"]), Some(Target::ModelReady(model(None))));
        assert_eq!(target(&["models", "m", "unload"]), None);
        assert_eq!(target(&["health"]), None);
    }
}
