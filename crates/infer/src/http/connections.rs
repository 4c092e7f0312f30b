//! Taking connections, and ending well.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kip_host::tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{State, handle};

/// How long requests under way may go on once the end was asked for.
const LAST_REQUESTS: Duration = Duration::from_secs(20);

/// Serves until `end` is done, then lets the requests under way finish.
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, end: impl Future<Output = ()>) {
    let (ending, watcher) = watch::channel(false);
    let mut end = pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tasks::spawn("model server connection", connection(stream, Arc::clone(&state), watcher.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, mostly: others will end soon.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    drop(watcher);
    ending.send_replace(true);
    // Every connection holds a watcher until it is closed.
    if tokio::time::timeout(LAST_REQUESTS, ending.closed()).await.is_err() {
        tracing::warn!("requests were still under way and are broken off");
    }
}

async fn connection(stream: TcpStream, state: Arc<State>, mut ending: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(handle(state, request).await) }
    });
    // No timeouts: callers are on this machine and keep connections for long, and a process that was frozen for hours
    // would find every timer due the moment it wakes, and close the connection its next request comes on.
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = ending.wait_for(|ending| *ending) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
