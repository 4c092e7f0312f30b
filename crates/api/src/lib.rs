//! The control plane over HTTP: the native API under `/api/v1`. Every path but `/healthz` and `/readyz` wants a bearer key.
//!
//! Wire types live here and become validated values once; errors are problems with stable codes. This room decides
//! nothing: it asks `control`.

mod backup;
mod error;
mod extract;
mod functions;
mod logs;
mod requests;
mod server;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kip_auth::Keys;
use kip_control::Control;
use kip_spec::{Problem, code};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::{ApiError, ApiResult};

/// What the API's handlers share.
#[derive(Debug, Clone)]
pub struct Api {
    control: Control,
    keys: Keys,
    about: Arc<wire::About>,
    stop: watch::Sender<bool>,
}

/// The largest body the API takes: a manifest of the largest size, escaped as JSON.
const LARGEST_BODY: usize = 8 << 20;
/// How long a caller may take to send a request's head; no key is asked for before.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

impl Api {
    /// An API over a control room. Setting `stop` asks the server to end.
    pub fn new(control: Control, keys: Keys, about: wire::About, stop: watch::Sender<bool>) -> Self {
        Self { control, keys, about: Arc::new(about), stop }
    }

    /// Serves until `closing` is set; requests under way end, callers that have not finished asking are left.
    pub async fn serve(self, listener: TcpListener, mut closing: watch::Receiver<bool>) {
        let router = self.router();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = closed(&mut closing) => break,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(router.clone(), stream, closing.clone()))),
                Err(error) => {
                    // Out of file descriptors, most likely: those under way end and make room.
                    tracing::warn!(%error, "a connection to the API could not be taken");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    fn router(self) -> Router {
        let keyed = Router::new()
            .route("/api/v1/status", get(server::status))
            .route("/api/v1/stop", post(server::stop))
            .route("/api/v1/backup", post(backup::backup))
            .route("/api/v1/restore", post(backup::restore))
            .route("/api/v1/deployments", post(functions::deploy))
            .route("/api/v1/functions", get(functions::list))
            .route("/api/v1/functions/{name}", get(functions::show).delete(functions::remove))
            .route("/api/v1/functions/{name}/versions", get(functions::versions))
            .route("/api/v1/functions/{name}/decisions", get(functions::decisions))
            .route("/api/v1/functions/{name}/requests", get(requests::of_function))
            .route("/api/v1/functions/{name}/logs", get(logs::logs))
            .route("/api/v1/requests", get(requests::all))
            .route("/api/v1/instances", get(server::instances))
            .route("/api/v1/instances/{id}", get(server::instance))
            .method_not_allowed_fallback(server::wrong_method)
            .fallback(server::unknown_path)
            .layer(from_fn_with_state(self.clone(), authorise));
        keyed
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(backup::ready))
            .layer(axum::extract::DefaultBodyLimit::max(LARGEST_BODY))
            .with_state(self)
    }
}

/// Waits for the word to end, without keeping hold of it.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn connection(router: Router, stream: TcpStream, mut closing: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn authorise(State(api): State<Api>, request: Request, next: Next) -> ApiResult<Response> {
    let sent = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    api.keys.check(sent)?;
    Ok(next.run(request).await)
}

fn bad_request(message: impl Into<String>) -> ApiError {
    Problem::new(code::API_BAD_REQUEST, message).into()
}
