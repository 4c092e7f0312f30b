//! One small HTTP/1.1 client for hooks, probes and our own API: a connection per call, bodies bounded.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::endpoint::Endpoint;
use crate::tasks;

/// Answers beyond this are an error, not memory.
pub const LARGEST_ANSWER: usize = 64 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not `http://host:port`.
    #[error("`{0}` is not an address of the form http://host:port")]
    Address(String),
    /// Nobody took the connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Whom we called.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The exchange broke off.
    #[error("the exchange with {address} broke off")]
    Exchange {
        /// Whom we called.
        address: String,
        /// Where it broke.
        source: hyper::Error,
    },
    /// The answer's body is too large or broke off.
    #[error("the answer's body could not be read: {0}")]
    Body(String),
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The host and port of `http://host:port`, with or without a trailing slash.
///
/// # Errors
/// [`Error::Address`].
pub fn authority(base: &str) -> Result<&str, Error> {
    let rest = base.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    rest.filter(|rest| rest.contains(':') && !rest.contains('/')).ok_or_else(|| Error::Address(base.to_owned()))
}

/// Sends a request and returns the answer's head with its body still streaming. The request's URI is the path; `Host` is set here.
///
/// # Errors
/// Any of [`Error`] but those about the body.
pub async fn open(authority: &str, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
    open_over(connect(authority).await?, authority, request).await
}

/// Sends a request whose answer may make the connection another protocol's: see [`hyper::upgrade::on`].
///
/// # Errors
/// Any of [`Error`] but those about the body.
pub async fn upgrade(authority: &str, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
    let exchange = |source| Error::Exchange { address: authority.to_owned(), source };
    let host = authority.parse().map_err(|_| Error::Address(authority.to_owned()))?;
    request.headers_mut().entry(http::header::HOST).or_insert(host);
    let stream = TokioIo::new(connect(authority).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(exchange)?;
    tasks::spawn("http client connection", connection.with_upgrades());
    sender.send_request(request).await.map_err(exchange)
}

async fn connect(authority: &str) -> Result<TcpStream, Error> {
    let connect = |source| Error::Connect { address: authority.to_owned(), source };
    let stream = TcpStream::connect(authority).await.map_err(connect)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn open_over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    authority: &str,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Error> {
    let exchange = |source| Error::Exchange { address: authority.to_owned(), source };
    let host = authority.parse().map_err(|_| Error::Address(authority.to_owned()))?;
    request.headers_mut().entry(http::header::HOST).or_insert(host);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(exchange)?;
    tasks::spawn("http client connection", connection);
    sender.send_request(request).await.map_err(exchange)
}

/// Sends a request and reads the whole answer within `limit`.
///
/// # Errors
/// Any of [`Error`].
pub async fn call(authority: &str, request: Request<Full<Bytes>>, limit: Duration) -> Result<Answer, Error> {
    let exchange = async { whole(open(authority, request).await?).await };
    tokio::time::timeout(limit, exchange).await.map_err(|_| Error::Timeout(limit))?
}

/// The same over a Unix socket.
///
/// # Errors
/// Any of [`Error`].
pub async fn call_socket(
    socket: &std::path::Path,
    request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Answer, Error> {
    let exchange = async {
        let connect = |source| Error::Connect { address: socket.display().to_string(), source };
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(connect)?;
        whole(open_over(stream, "localhost", request).await?).await
    };
    tokio::time::timeout(limit, exchange).await.map_err(|_| Error::Timeout(limit))?
}

/// As [`open`], over TLS, if whoever is at `authority` can be trusted to be that.
///
/// # Errors
/// Any of [`Error`] but those about the body.
#[cfg(feature = "tls")]
pub async fn open_tls(
    trust: &crate::tls::Trust,
    authority: &str,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Error> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let untrusted = |source| Error::Connect { address: format!("https://{authority}"), source };
    let stream = trust.connect(host, connect(authority).await?).await.map_err(untrusted)?;
    open_over(stream, authority, request).await
}

/// The same over TLS, if whoever is at `authority` can be trusted to be that.
///
/// # Errors
/// Any of [`Error`].
#[cfg(feature = "tls")]
pub async fn call_tls(
    trust: &crate::tls::Trust,
    authority: &str,
    request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Answer, Error> {
    let exchange = async { whole(open_tls(trust, authority, request).await?).await };
    tokio::time::timeout(limit, exchange).await.map_err(|_| Error::Timeout(limit))?
}

async fn whole(answer: Response<Incoming>) -> Result<Answer, Error> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| Error::Body(error.to_string()))?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
}

/// A call of a path on an instance; the status alone.
///
/// # Errors
/// Any of [`Error`].
pub async fn status_of(
    method: http::Method,
    endpoint: &Endpoint,
    path: &str,
    headers: &HeaderMap,
    limit: Duration,
) -> Result<u16, Error> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| Error::Address(path.to_owned()))?;
    *request.headers_mut() = headers.clone();
    Ok(call_endpoint(endpoint, request, limit).await?.status)
}

/// Sends a request to an instance and reads the whole answer within `limit`.
///
/// # Errors
/// Any of [`Error`].
pub async fn call_endpoint(
    endpoint: &Endpoint,
    request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Answer, Error> {
    let exchange = async { whole(open_endpoint(endpoint, request).await?).await };
    tokio::time::timeout(limit, exchange).await.map_err(|_| Error::Timeout(limit))?
}

/// Sends a request to an instance and returns the answer's head with its body still streaming.
///
/// # Errors
/// Any of [`Error`] but those about the body.
pub async fn open_endpoint(endpoint: &Endpoint, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
    let connect = |source| Error::Connect { address: endpoint.to_string(), source };
    let stream = endpoint.connect().await.map_err(connect)?;
    open_over(stream, &endpoint.authority(), request).await
}
