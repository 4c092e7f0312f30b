//! From options to a running server, and to its end.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use kip_host::clock;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::http::{self, State};
use crate::options::Options;
use crate::served::LoadedModel;

/// A loaded model that listens but does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    state: Arc<State>,
}

impl Server {
    /// Loads the model and opens the port on 127.0.0.1, in this order: a port that is open means a model that is ready.
    ///
    /// # Errors
    /// When the model, its `model.json`, the runtime or the port cannot be used.
    pub async fn start(options: &Options) -> Result<Self, Error> {
        let started = clock::monotonic_micros();
        let served = LoadedModel::load(options)?;
        let port = options.port;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(|error| Error::Listen { port, reason: error.to_string() })?;
        let took_micros = clock::monotonic_micros().saturating_sub(started);
        tracing::info!(model = %served.name, runtime = served.runtime, took_micros, "the model is loaded");
        Ok(Self { listener, state: Arc::new(State::new(served, options)) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.listener.local_addr().map_err(|error| Error::Listen { port: 0, reason: error.to_string() })
    }

    /// Serves until `end` is done, then lets the requests under way finish.
    pub async fn serve(self, end: impl Future<Output = ()>) {
        http::serve(self.listener, self.state, end).await;
    }
}

/// Serves a model until SIGTERM or SIGINT. Blocks; brings its own runtime, which lives on the calling thread.
///
/// # Errors
/// When the model, its `model.json`, the runtime or the port cannot be used.
pub fn run(options: &Options) -> Result<(), Error> {
    let threads = |error: std::io::Error| Error::Threads { reason: error.to_string() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(threads)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(threads)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(threads)?;
        let server = Server::start(options).await?;
        let address = server.address()?;
        tracing::info!(%address, "serving");
        let end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("asked to end; finishing what is under way");
        };
        server.serve(end).await;
        Ok(())
    })
}
