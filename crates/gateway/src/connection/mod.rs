//! One connection of a caller: which protocol it speaks, and how its requests become calls.

mod body;
mod chunks;
pub(crate) mod fault;
mod frames;
mod guard;
mod head;
mod state;
mod stream;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use http::Response;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kip_host::connections::Connections;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use crate::admission::{Inbound, RequestHandler};

pub(crate) use self::body::GuardedBody;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::guard::Socket;
pub(crate) use self::guard::{Bounds, Guard, REFUSED};
pub(crate) use self::head::{Limits, is_host};
pub(crate) use self::state::State;
pub(crate) use self::stream::Stream;

/// What a connection that speaks HTTP/2 without TLS begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is read at once to find out what a caller speaks: most first requests are whole then.
const FIRST_READ: usize = 4 << 10;
/// Headers that hyper keeps on its stack.
const HYPERS_HEADERS: usize = 100;
/// Streams at once on one connection.
const STREAMS: u32 = 256;
/// What a caller may send before it is taken: of one stream, and of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// The same for connections beyond those that may have so much at once: the smallest that the protocol knows, because
/// callers without a key can fill it.
const SMALL_WINDOW: u32 = 65_535;
/// Connections that have the larger windows, and how many of them one address can have.
const WIDE: usize = 32;
const WIDE_OF_ONE_PEER: usize = WIDE / 4;
/// A caller that does not answer for this long is gone.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);
/// How long a connection without streams may take to end once it was told to.
const FAREWELL: Duration = Duration::from_secs(1);
/// Streams that a caller may begin and reset before they were looked at; one more ends the connection (rapid reset).
const RESETS: usize = 20;

/// Serves a connection to its end.
pub(crate) async fn serve(
    door: Rc<RequestHandler>,
    mut stream: Stream,
    peer: SocketAddr,
    keyed: bool,
    mut closing: watch::Receiver<bool>,
) {
    let bounds = door.bounds;
    let secure = stream.is_secure();
    let mut read = BytesMut::with_capacity(FIRST_READ);
    let speaks = async {
        match stream.negotiated() {
            Some(protocol) => Ok(protocol == b"h2"),
            None => has_preface(&mut stream, &mut read).await,
        }
    };
    let http2 = tokio::select! {
        speaks = tokio::time::timeout(bounds.idle.max(bounds.head_time), speaks) => match speaks {
            Ok(Ok(http2)) => http2,
            // It left, or sends nothing.
            Ok(Err(_)) | Err(_) => return,
        },
        _ = closing.wait_for(|closing| *closing) => return,
    };
    if http2 {
        let io = TokioIo::new(Guard::http2(stream, read, bounds));
        serve_http2(door, bounds, io, Inbound { peer: peer.ip(), secure, keyed, state: None }, closing).await;
    } else {
        let state = Arc::new(State::default());
        let io = TokioIo::new(Guard::new(stream, read, bounds, state.clone()));
        serve_http1(door, io, Inbound { peer: peer.ip(), secure, keyed, state: Some(state) }, closing).await;
    }
}

/// Whether the connection begins with the preface of HTTP/2. What was read to find out is kept.
async fn has_preface(stream: &mut Stream, read: &mut BytesMut) -> io::Result<bool> {
    loop {
        if !PREFACE.starts_with(&read[..read.len().min(PREFACE.len())]) {
            return Ok(false);
        }
        if read.len() >= PREFACE.len() {
            return Ok(true);
        }
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn serve_http1(
    door: Rc<RequestHandler>,
    io: TokioIo<Guard<Stream>>,
    inbound: Inbound,
    mut closing: watch::Receiver<bool>,
) {
    let headers = door.bounds.head.headers;
    let service = service_fn(move |request| {
        let (door, inbound) = (door.clone(), inbound.clone());
        async move { Ok::<Response<GuardedBody>, Infallible>(door.answer(inbound, request).await) }
    });
    let mut server = http1::Builder::new();
    // Times and sizes are the guard's; these only must not be smaller than what it lets through. Up to hyper's own number of
    // headers it needs no memory for them.
    server.header_read_timeout(None).keep_alive(true).half_close(false);
    if headers > HYPERS_HEADERS {
        server.max_headers(headers);
    }
    let connection = server.serve_connection(io, service).with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = closing.wait_for(|closing| *closing) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn serve_http2(
    door: Rc<RequestHandler>,
    bounds: Bounds,
    io: TokioIo<Guard<Stream>>,
    inbound: Inbound,
    mut closing: watch::Receiver<bool>,
) {
    let (load, peer) = (Rc::new(Load::default()), inbound.peer);
    let counted = load.clone();
    let service = service_fn(move |request| {
        let (door, inbound, one) = (door.clone(), inbound.clone(), ActiveStream::new(counted.clone()));
        async move {
            let answer = door.answer(inbound, request).await;
            Ok::<Response<GuardedBody>, Infallible>(answer.map(|body| body.counted(one)))
        }
    });
    let wide = wide_connections().open(peer);
    let (stream_window, connection_window) = match &wide {
        Some(_) => (STREAM_WINDOW, CONNECTION_WINDOW),
        None => (SMALL_WINDOW, SMALL_WINDOW),
    };
    let mut server = http2::Builder::new(Local);
    server
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .max_pending_accept_reset_streams(RESETS)
        .max_header_list_size(u32::try_from(bounds.head.head).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .enable_connect_protocol();
    let connection = server.serve_connection(io, service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closing.wait_for(|closing| *closing) => {}
        () = load.idle(bounds.idle) => {}
    }
    connection.as_mut().graceful_shutdown();
    // A caller that does not follow, or never said a word, must not hold its place for that.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = load.idle(FAREWELL) => {}
    }
}

/// The HTTP/2 connections of all threads that may have much on their way.
fn wide_connections() -> &'static Arc<Connections> {
    static WIDE_CONNECTIONS: OnceLock<Arc<Connections>> = OnceLock::new();
    WIDE_CONNECTIONS.get_or_init(|| Connections::with_share(WIDE, WIDE_OF_ONE_PEER))
}

/// Streams of one HTTP/2 connection.
#[derive(Debug, Default)]
struct Load {
    streams: Cell<u32>,
    /// When the last one ended or began, boot time.
    moved: Cell<u64>,
}

impl Load {
    /// Ends once there was no stream for so long.
    async fn idle(&self, limit: Duration) {
        self.moved.set(kip_host::clock::boot_millis());
        loop {
            let quiet = match self.streams.get() {
                0 => kip_host::clock::boot_millis().saturating_sub(self.moved.get()),
                _ => 0,
            };
            let quiet = Duration::from_millis(quiet);
            if quiet >= limit {
                return;
            }
            tokio::time::sleep(limit - quiet).await;
        }
    }
}

/// One stream, for as long as its answer lasts.
#[derive(Debug)]
pub(crate) struct ActiveStream(Rc<Load>);

impl ActiveStream {
    fn new(load: Rc<Load>) -> Self {
        load.streams.set(load.streams.get() + 1);
        Self(load)
    }
}

impl Drop for ActiveStream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.moved.set(kip_host::clock::boot_millis());
    }
}

/// Streams are tasks of the thread that their connection is on.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        drop(kip_host::tasks::spawn_local("http2 stream", future));
    }
}
