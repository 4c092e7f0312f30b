//! The threads of the data plane.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use http::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kip_auth::Keys;
use kip_control::Control;
use kip_relay::Relay;
use kip_relay::metrics::Metrics;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::admission::Door;
use crate::authorise::Authority;

/// What the gateway needs.
#[derive(Debug)]
pub struct Options {
    /// Where requests come in.
    pub listener: TcpListener,
    /// How many threads serve them.
    pub threads: usize,
    /// Whether every function asks for a key, whatever it declares.
    pub require_everywhere: bool,
    /// Where requests are counted.
    pub metrics: Metrics,
}

/// The running gateway.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    closing: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// How long a caller may take to send a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

impl Gateway {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has no room for them.
    pub fn start(options: Options, control: &Control, keys: &Keys) -> std::io::Result<Self> {
        let address = options.listener.local_addr()?;
        let closing = watch::Sender::new(false);
        let mut threads = Vec::with_capacity(options.threads);
        let authority = Authority::new(keys.clone(), options.require_everywhere, options.metrics.clone());
        for number in 0..options.threads.max(1) {
            let listener = options.listener.try_clone()?;
            let (control, authority, closed) = (control.clone(), authority.clone(), closing.subscribe());
            let metrics = options.metrics.clone();
            let body = move || {
                if let Err(error) = run(listener, control, authority, &metrics, closed) {
                    tracing::error!(%error, "a gateway thread ended");
                }
            };
            threads.push(kip_host::tasks::thread(&format!("gateway-{number}"), body)?);
        }
        Ok(Self { address, closing, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connections; requests under way go on.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits for the threads, which end when their last connection has.
    pub fn join(self) {
        self.close();
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn run(
    listener: TcpListener,
    control: Control,
    authority: Authority,
    metrics: &Metrics,
    mut closing: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let relay = Relay::new(control.clone(), metrics);
    let door = Door { control, authority, relay };
    local.block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closing.wait_for(|closing| *closing) => break,
                // Ended connections are collected as they end.
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, peer)) => {
                    connections.spawn_local(connection(door.clone(), stream, peer, closing.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: those under way end and make room.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    })
}

async fn connection(door: Door, stream: TcpStream, peer: SocketAddr, mut closing: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<Response<kip_relay::Body>, Infallible>(door.answer(peer.ip(), request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).keep_alive(true);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = closing.wait_for(|closing| *closing) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
