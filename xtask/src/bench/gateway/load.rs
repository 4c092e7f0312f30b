//! Callers: so many connections, each sending its next request when it has its answer, or at set times.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use kip_host::clock::monotonic_micros;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::super::upstream::Local;

/// What callers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// GET, HTTP/1.1.
    Get,
    /// POST by gRPC's rules on one HTTP/2 connection; connections are streams then.
    Grpc,
    /// A message there and back.
    WebSocket,
}

/// A load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) kind: Kind,
    pub(super) connections: usize,
    pub(super) time: Duration,
    /// Requests a second of all connections together; as many as go through if none.
    pub(super) rate: Option<u64>,
}

/// What came of it: microseconds of each request.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) times: Vec<u64>,
    pub(super) elapsed: u64,
    pub(super) failed: usize,
}

impl Load {
    /// Runs it against an address.
    pub(super) fn run(self, to: SocketAddr, host: &str, target: &str) -> Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async move {
            let begin = monotonic_micros();
            let end = begin + u64::try_from(self.time.as_micros())?;
            let all = Rc::new(RefCell::new(Outcome::default()));
            let pace = self.rate.map(|rate| 1_000_000 * self.connections as u64 / rate);
            let shared = match self.kind {
                Kind::Grpc => Some(connect_http2(to).await?),
                Kind::Get | Kind::WebSocket => None,
            };
            let callers = (0..self.connections).map(|number| {
                let (all, shared) = (all.clone(), shared.clone());
                let (host, target) = (host.to_owned(), target.to_owned());
                // Spread over the first interval.
                let first = begin + pace.map_or(0, |pace| pace * number as u64 / self.connections as u64);
                async move {
                    let mut caller = Caller::connect(self.kind, to, &host, &target, shared).await?;
                    let mut due = first;
                    while monotonic_micros() < end {
                        let from = match pace {
                            None => monotonic_micros(),
                            Some(pace) => {
                                let now = monotonic_micros();
                                tokio::time::sleep(Duration::from_micros(due.saturating_sub(now))).await;
                                // From when it was due: a stall of the generator's own connection counts.
                                let this = due;
                                due += pace;
                                this
                            }
                        };
                        let sent = caller.once().await;
                        let mut all = all.borrow_mut();
                        match sent {
                            Ok(()) => all.times.push(monotonic_micros().saturating_sub(from)),
                            Err(_) => all.failed += 1,
                        }
                    }
                    anyhow::Ok(())
                }
            });
            futures_util::future::try_join_all(callers).await?;
            let mut all = all.take();
            all.elapsed = monotonic_micros() - begin;
            Ok(all)
        })
    }
}

async fn connect_http2(to: SocketAddr) -> Result<http2::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::handshake(Local, TokioIo::new(stream)).await?;
    drop(kip_host::tasks::spawn_local("load", async move { drop(connection.await) }));
    Ok(sender)
}

enum Caller {
    Http1 { sender: http1::SendRequest<Full<Bytes>>, request: Request<Full<Bytes>> },
    Http2 { sender: http2::SendRequest<Full<Bytes>>, request: Request<Full<Bytes>> },
    WebSocket { stream: TcpStream, piece: [u8; 64] },
}

impl Caller {
    async fn connect(
        kind: Kind,
        to: SocketAddr,
        host: &str,
        target: &str,
        shared: Option<http2::SendRequest<Full<Bytes>>>,
    ) -> Result<Self> {
        if let Some(sender) = shared {
            let body = Full::new(Bytes::from_static(b"\0\0\0\0\x04test"));
            let request = Request::post(format!("http://{host}{target}"))
                .version(hyper::Version::HTTP_2)
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(body)?;
            return Ok(Self::Http2 { sender, request });
        }
        let mut stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        if kind == Kind::WebSocket {
            let head = format!(
                "GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            if !head.starts_with(b"HTTP/1.1 101") {
                bail!("no WebSocket: {}", String::from_utf8_lossy(&head));
            }
            return Ok(Self::WebSocket { stream, piece: [b'm'; 64] });
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        drop(kip_host::tasks::spawn_local("load", async move { drop(connection.await) }));
        let request = Request::get(target).header("host", host).body(Full::default())?;
        Ok(Self::Http1 { sender, request })
    }

    /// One request and all of its answer.
    async fn once(&mut self) -> Result<()> {
        let answer = match self {
            Self::Http1 { sender, request } => {
                sender.ready().await?;
                sender.send_request(request.clone()).await?
            }
            Self::Http2 { sender, request } => {
                sender.ready().await?;
                sender.send_request(request.clone()).await?
            }
            Self::WebSocket { stream, piece } => {
                stream.write_all(piece).await?;
                stream.read_exact(piece).await?;
                return Ok(());
            }
        };
        if answer.status() != StatusCode::OK {
            bail!("{}", answer.status());
        }
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            frame.context("the answer broke off")?;
        }
        Ok(())
    }
}
