//! The control plane over HTTP: the native API under `/api/v1`. Every path but `/healthz` and `/readyz` wants a key with the
//! role that its entry in [`routes`] names.
//!
//! Types of room `wire` become validated values once; errors are problems with stable codes. This room decides
//! nothing: it asks `control`.

mod audit;
mod backup;
mod callers;
mod costs;
mod deployed;
mod devices;
mod error;
mod exec;
mod extract;
mod functions;
mod guard;
mod images;
mod jobs;
mod keys;
mod logs;
mod metrics;
mod model_names;
mod models;
pub mod openapi;
mod pools;
mod provision;
mod requests;
mod roles;
mod routes;
mod secrets;
mod server;
mod shares;
mod tasks;
mod unchanged;
mod versions;

use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kip_auth::{Keys, Secrets};
use kip_control::Control;
use kip_events::Events;
use kip_host::connections::Connections;
use kip_host::sockets::Peers;
use kip_records::cost::PriceBook;
use kip_records::metrics::Metrics;
use kip_spec::origin::Names;
use kip_spec::{Problem, code};
use kip_tasks::Tasks;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use crate::models::ModelServices;
pub use crate::tasks::TaskQuery;

use crate::callers::Failures;
use crate::error::ApiError;
use crate::guard::Peer;

/// What the API's handlers share.
#[derive(Debug, Clone)]
pub struct Api {
    control: Control,
    keys: Keys,
    secrets: Secrets,
    about: Arc<kip_wire::ServerInfo>,
    metrics: Metrics,
    tasks: Tasks,
    events: Events,
    /// Metrics are shown without a key.
    metrics_open: bool,
    stop: watch::Sender<bool>,
    /// When a key was last refused something, by key, action and code: see [`guard`].
    refusals: Arc<Mutex<guard::Refusals>>,
    /// Wrong keys, by the address that sent them.
    failures: Arc<Failures>,
    /// Connections at once.
    connections: usize,
    /// Who may connect.
    peers: Peers,
    /// Names by which callers without a key may come.
    names: Names,
    /// What time costs.
    prices: Arc<PriceBook>,
    /// What serves models, where the server has a cache of them.
    models: Option<ModelServices>,
    /// Other interfaces on the same listener, each with paths, keys and errors of its own.
    facades: Vec<Router>,
    /// The same interfaces, to be told of a restore.
    told: Vec<Arc<dyn Facade>>,
}

/// Another interface, as far as this one has to tell it something.
pub trait Facade: std::fmt::Debug + Send + Sync {
    /// A backup was restored: takes up again what the interface keeps of functions.
    fn restored(&self) -> BoxFuture<'static, Result<(), Problem>>;
}

/// The largest body the API takes: a manifest of the largest size, escaped as JSON.
const LARGEST_BODY: usize = 8 << 20;
/// Connections at once.
const CONNECTIONS: usize = 2_000;
/// How long a caller may take to send a request's head; no key is asked for before.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

impl Api {
    /// An API over a control room. Setting `stop` asks the server to end.
    pub fn new(
        control: Control,
        (keys, secrets): (Keys, Secrets),
        about: kip_wire::ServerInfo,
        stop: watch::Sender<bool>,
        metrics: Metrics,
        tasks: Tasks,
        events: Events,
    ) -> Self {
        let about = Arc::new(about);
        Self {
            control,
            keys,
            secrets,
            about,
            metrics,
            tasks,
            events,
            metrics_open: false,
            stop,
            refusals: Arc::default(),
            failures: Arc::default(),
            connections: CONNECTIONS,
            peers: Peers::everybody(),
            names: Names::default(),
            prices: Arc::new(PriceBook::function_compute()),
            models: None,
            facades: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Takes connections of these only.
    #[must_use]
    pub fn with_peers(mut self, peers: Peers) -> Self {
        self.peers = peers;
        self
    }

    /// Lets callers without a key come by these names too.
    #[must_use]
    pub fn with_names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// Takes at most so many connections at once, and never more than usual.
    #[must_use]
    pub fn with_connections(mut self, most: usize) -> Self {
        self.connections = most.min(CONNECTIONS);
        self
    }

    /// Prices time by this book.
    #[must_use]
    pub fn with_prices(mut self, prices: PriceBook) -> Self {
        self.prices = Arc::new(prices);
        self
    }

    /// Serves another interface, with paths of its own, on this listener.
    #[must_use]
    pub fn with_facade(mut self, paths: Router, facade: Arc<dyn Facade>) -> Self {
        self.facades.push(paths);
        self.told.push(facade);
        self
    }

    /// Shows metrics without a key, where no other machine can reach it.
    #[must_use]
    pub fn with_open_metrics(mut self, open: bool) -> Self {
        self.metrics_open = open && self.about.api.ip().is_loopback();
        self
    }

    /// Serves until `closing` is set; requests under way end, callers that have not finished asking are left.
    pub async fn serve(self, listener: TcpListener, mut closing: watch::Receiver<bool>) {
        let (open, peers) = (Connections::new(self.connections), self.peers.clone());
        let router = self.router();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = closed(&mut closing) => break,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, peer)) if !peers.admits(peer.ip()) => {
                    tracing::debug!(%peer, "a connection to the API was refused: not of this machine, nor a named proxy");
                    drop(stream);
                }
                Ok((stream, peer)) => {
                    // Who is too many is turned away at once: a caller without a key must not keep out one that has one.
                    let Some(opened) = open.open(peer.ip()) else { continue };
                    let served = connection(router.clone(), stream, peer, closing.clone());
                    drop(connections.spawn(async move {
                        served.await;
                        drop(opened);
                    }))
                }
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
        let keyed = routes::router(&self)
            .method_not_allowed_fallback(server::wrong_method)
            .fallback(server::unknown_path)
            .layer(from_fn_with_state(self.clone(), guard::authenticate));
        let open =
            if self.metrics_open { Router::new().route(routes::METRICS, get(metrics::open)) } else { Router::new() };
        let facades = self.facades.clone();
        let own = keyed
            .merge(open)
            .merge(routes::open_router())
            .layer(axum::extract::DefaultBodyLimit::max(LARGEST_BODY))
            .layer(from_fn_with_state(self.clone(), guard::refuse_foreign_name))
            .with_state(self);
        // Beside ours: neither our keys nor our limits are in front of them. Their callers sign, whatever name they come by.
        facades.into_iter().fold(own, Router::merge).layer(from_fn(guard::refuse_foreign_page))
    }
}

/// Waits for the word to end, without keeping hold of it.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn connection(router: Router, stream: TcpStream, peer: SocketAddr, mut closing: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// A failure of keys, with the store's own failures told as everywhere.
fn key_problem(error: kip_auth::Error) -> ApiError {
    match error {
        kip_auth::Error::Store(error) => kip_control::Error::Store(error).into(),
        other => Problem::from(other).into(),
    }
}

fn bad_request(message: impl Into<String>) -> ApiError {
    Problem::new(code::API_BAD_REQUEST, message).into()
}
