//! HTTP: which path does what, and how errors look on it.

pub(crate) mod answer;
mod body;
mod connections;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

pub(crate) use connections::serve;

use crate::embeddings::EmbeddingRequest;
use crate::error::Error;
use crate::kserve::{self, Target};
use crate::options::Options;
use crate::served::LoadedModel;
use crate::{embeddings, page, predict};
use answer::json;

/// What every connection shares.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) served: LoadedModel,
    pub(crate) max_body: u64,
    pub(crate) max_pixels: u64,
    /// Leave to work outside the loop that serves connections.
    pub(crate) heavy: tokio::sync::Semaphore,
}

impl State {
    pub(crate) fn new(served: LoadedModel, options: &Options) -> Self {
        let heavy = tokio::sync::Semaphore::new(options.thread_count().get());
        Self { served, max_body: options.max_body.0, max_pixels: options.max_pixels, heavy }
    }

    /// Runs something that takes long on a thread of its own, so that health checks are answered meanwhile.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let closed = |_| Error::Inference("the server is shutting down".to_owned());
        let _leave = self.heavy.acquire().await.map_err(closed)?;
        let failed = |_| Error::Inference("reading the input panicked; the log has the place".to_owned());
        tokio::task::spawn_blocking(work).await.map_err(failed)?
    }
}

/// What a path leads to.
#[derive(Debug)]
enum Route {
    Page,
    About,
    Predict,
    Embeddings,
    KServe(Target),
}

/// Answers a request; errors become answers here.
pub(crate) async fn handle(state: Arc<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let head_only = request.method() == Method::HEAD;
    let speaks_kserve = path == "/v2" || path.starts_with("/v2/");
    let mut response = match respond(&state, request, &path).await {
        Ok(response) => response,
        Err(error) => {
            let problem = error.problem();
            tracing::info!(%path, code = %problem.code, message = %problem, "refused");
            match () {
                () if speaks_kserve => answer::text_error(&problem),
                () if path.starts_with("/v1/") => answer::openai_error(&problem),
                () => answer::error(problem),
            }
        }
    };
    if head_only {
        *response.body_mut() = Full::default();
    }
    response
}

async fn respond(state: &Arc<State>, request: Request<Incoming>, path: &str) -> Result<Response<Full<Bytes>>, Error> {
    let route = route(path).ok_or_else(|| Error::Path { path: path.to_owned() })?;
    let takes_body = matches!(route, Route::Predict | Route::Embeddings | Route::KServe(Target::Infer(_)));
    let allowed = if takes_body { "POST" } else { "GET and HEAD" };
    let is_allowed = match *request.method() {
        Method::POST => takes_body,
        Method::GET | Method::HEAD => !takes_body,
        _ => false,
    };
    if !is_allowed {
        return Err(Error::Method { path: path.to_owned(), method: request.method().to_string(), allowed });
    }
    match route {
        Route::Page => Ok(page::page()),
        Route::About => Ok(json(StatusCode::OK, &state.served.about())),
        Route::Predict => {
            let (head, body) = body::read(request, state.max_body).await?;
            predict::predict(state, &head, body).await
        }
        Route::Embeddings => {
            let (_, body) = body::read(request, state.max_body).await?;
            embed(state, &body).await
        }
        Route::KServe(Target::Infer(model)) => {
            kserve::check_model(&state.served, &model)?;
            let (head, body) = body::read(request, state.max_body).await?;
            kserve::infer(state, &head, body).await
        }
        Route::KServe(target) => kserve::describe(&state.served, &target),
    }
}

async fn embed(state: &Arc<State>, body: &Bytes) -> Result<Response<Full<Bytes>>, Error> {
    let request = EmbeddingRequest::read(&state.served, body)?;
    let (request, tokens) = if body.len() > embeddings::LARGE {
        let shared = Arc::clone(state);
        state.aside(move || request.tokenize(&shared.served).map(|tokens| (request, tokens))).await?
    } else {
        let tokens = request.tokenize(&state.served)?;
        (request, tokens)
    };
    let output = state.served.run_texts(tokens).await?;
    Ok(json(StatusCode::OK, &request.answer(&state.served, output)))
}

fn route(path: &str) -> Option<Route> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => Some(Route::Page),
        ["model"] => Some(Route::About),
        ["predict"] => Some(Route::Predict),
        ["v1", "embeddings"] => Some(Route::Embeddings),
        ["v2", rest @ ..] => kserve::target(rest).map(Route::KServe),
        _ => None,
    }
}
