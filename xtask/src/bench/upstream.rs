//! The program behind every proxy of a comparison: as little as it can be, on one thread, HTTP/1.1 and HTTP/2 on one port.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::LocalSet;

/// Events of one stream.
pub(super) const EVENTS: u64 = 1_000;

type Body = BoxBody<Bytes, Infallible>;

/// Serves on the port in `PORT` until it is ended.
pub(crate) fn serve() -> Result<()> {
    let port: u16 = kip_host::environment::read("PORT").unwrap_or_default().parse()?;
    // A model that takes its time to load.
    if let Some(millis) = kip_host::environment::read("UPSTREAM_READY_AFTER_MS") {
        std::thread::sleep(Duration::from_millis(millis.parse()?));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        let busy = Rc::new(Busy::default());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (large, busy) = (large.clone(), busy.clone());
            let service = service_fn(move |request| answer(request, large.clone(), busy.clone()));
            drop(kip_host::tasks::spawn_local("connection", async move {
                let mut server = hyper_util::server::conn::auto::Builder::new(Local);
                server.http1().timer(TokioTimer::new());
                let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            }));
        }
    })
}

/// How long requests were worked on, for the balance of load.
#[derive(Debug, Default)]
struct Busy {
    micros: Cell<u64>,
    requests: Cell<u64>,
    /// Held by the one request that `/serial` works on.
    one: tokio::sync::Mutex<()>,
}

async fn answer(mut request: Request<Incoming>, large: Bytes, busy: Rc<Busy>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let (verb, number) = match path[1..].find('/') {
        Some(at) => (&path[..=at], &path[at + 2..]),
        None => (path.as_str(), ""),
    };
    let small = large.slice(..1_024);
    let whole = |bytes: Bytes| Response::new(Full::new(bytes).boxed());
    Ok(match verb {
        "/large" => whole(large),
        "/delay" | "/serial" => {
            // A model that takes one request at a time, whoever sends more.
            let _one = if verb == "/serial" { Some(busy.one.lock().await) } else { None };
            let begin = kip_host::clock::monotonic_micros();
            tokio::time::sleep(Duration::from_micros(number.parse().unwrap_or(1_000))).await;
            busy.micros.set(busy.micros.get() + kip_host::clock::monotonic_micros() - begin);
            busy.requests.set(busy.requests.get() + 1);
            whole(small)
        }
        "/busy" => whole(format!("{} {}", busy.micros.get(), busy.requests.get()).into()),
        "/events" => {
            let pieces = futures_util::stream::iter(0..EVENTS).then(|number| async move {
                // Each is a piece of its own on the wire.
                tokio::task::yield_now().await;
                Ok(Frame::data(Bytes::from(format!("data: {number}\n\n"))))
            });
            let mut answer = Response::new(BodyExt::boxed(StreamBody::new(Box::pin(pieces))));
            answer.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("text/event-stream"));
            answer
        }
        "/websocket" => {
            let upgrade = hyper::upgrade::on(&mut request);
            drop(kip_host::tasks::spawn_local("websocket", async move {
                let Ok(upgraded) = upgrade.await else { return };
                let mut io = TokioIo::new(upgraded);
                let mut piece = [0u8; 4_096];
                while let Ok(read) = io.read(&mut piece).await {
                    if read == 0 || io.write_all(&piece[..read]).await.is_err() {
                        return;
                    }
                }
            }));
            let mut answer = whole(Bytes::new());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            for (name, value) in [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")] {
                answer.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
            }
            answer
        }
        "/grpc" => {
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let mut trailers = hyper::HeaderMap::new();
            trailers.insert("grpc-status", hyper::header::HeaderValue::from_static("0"));
            let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
            let mut answer = Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))));
            answer.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/grpc"));
            answer
        }
        _ => whole(small),
    })
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        drop(kip_host::tasks::spawn_local("http2 stream", future));
    }
}
