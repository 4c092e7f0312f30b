//! What fuzz targets call. Each takes any bytes, and panics if something that must hold does not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::connection::{Bounds, Guard, Limits, REFUSED, Socket, State};
use crate::route::{Route, route};

const BOUNDS: Bounds = Bounds {
    head: Limits { head: 4_096, headers: 20, target: 1_000 },
    body: 10_000,
    model: 1_000,
    head_time: Duration::from_secs(1),
    body_idle: Duration::from_secs(1),
    idle: Duration::from_secs(1),
    write_idle: Duration::from_secs(1),
};

/// A connection whose bytes come in pieces of these lengths, again and again.
struct PiecewiseConnection<'a> {
    bytes: &'a [u8],
    lengths: &'a [u8],
    next: usize,
}

impl AsyncRead for PiecewiseConnection<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let length =
            this.lengths.get(this.next % this.lengths.len().max(1)).map_or(usize::MAX, |n| usize::from(*n) + 1);
        this.next += 1;
        let length = length.min(this.bytes.len()).min(buffer.remaining());
        let (piece, rest) = this.bytes.split_at(length);
        buffer.put_slice(piece);
        this.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

impl Socket for PiecewiseConnection<'_> {
    fn reset(&self) {}

    fn is_left(&self) -> bool {
        false
    }
}

impl AsyncWrite for PiecewiseConnection<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What the guard lets through of these bytes. Stops where it would wait.
async fn let_through(bytes: &[u8], lengths: &[u8]) -> Vec<u8> {
    let state = Arc::new(State::default());
    let mut guard = Guard::new(PiecewiseConnection { bytes, lengths, next: 0 }, BytesMut::new(), BOUNDS, state.clone());
    let mut all = Vec::new();
    let mut buffer = [0; 8_192];
    // Every answer is over at once, and nobody gets another protocol.
    while let Ok(Ok(1..)) = tokio::time::timeout(Duration::ZERO, guard.read(&mut buffer))
        .await
        .map(|read| read.inspect(|length| all.extend_from_slice(&buffer[..*length])))
    {
        while state.is_under_way() {
            state.end();
        }
        state.decide(false);
    }
    all
}

/// The guard: what passes does not depend on how the bytes come, and nothing comes behind a refusal.
pub fn guard(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let (lengths, bytes) = rest.split_at(usize::from(count % 8).min(rest.len()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let whole = let_through(bytes, &[]).await;
        let cut = let_through(bytes, lengths).await;
        assert_eq!(whole, cut, "{:?} in pieces of {lengths:?}", String::from_utf8_lossy(bytes));
        let refusal = memchr::memmem::find(&whole, REFUSED.as_bytes());
        if let Some(at) = refusal.filter(|at| whole[*at..].starts_with(b"KIP-REFUSED / HTTP/1.1\r\nhost: refused")) {
            assert!(whole[at..].ends_with(b"connection: close\r\n\r\n") && whole.len() - at < 100);
        }
    });
}

/// The router: targets keep their bytes, and names come from where they stand.
pub fn router(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (target, host) = text.split_once('\n').unwrap_or((&text, "a.localhost"));
    let (Ok(uri), Ok(host)) = (target.parse::<Uri>(), HeaderValue::from_str(host)) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(HOST, host);
    match route(&uri, &headers) {
        Route::Path { function, target, prefix } => {
            assert_eq!(prefix, format!("/f/{function}"));
            assert!(!function.is_empty() && !function.contains('/'), "{function}");
            let whole = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            assert_eq!(format!("{prefix}{target}"), whole);
        }
        Route::Proxy { service, function, target, prefix } => {
            assert_eq!(prefix, format!("/2016-08-15/proxy/{service}/{function}"));
            assert!(target.path().starts_with('/') && !service.contains('/') && !function.contains('/'));
        }
        Route::Host { label, target } => {
            assert!(!label.is_empty() && !label.contains('.'));
            assert_eq!(Some(target.to_string()), uri.path_and_query().map(ToString::to_string));
        }
        Route::Model { rest } => assert!(!rest.is_empty() && uri.path().ends_with(&rest)),
        Route::AddSlash { location } => assert!(location.starts_with("/f/") && location.contains('/')),
        Route::Named | Route::Server | Route::Unknown | Route::Bad(_) => {}
    }
}

/// The search for a model: what is found does not depend on how the bytes come, and is what a JSON reader finds.
pub fn model(data: &[u8]) {
    let Some((cut, body)) = data.split_first() else { return };
    let found = crate::model::scan(body, &[]);
    assert_eq!(found, crate::model::scan(body, &[usize::from(*cut) + 1]));
    let read: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(body).ok();
    if let (Some(read), Some(found)) = (read, found) {
        // A key that comes twice is taken where it comes first; a reader of JSON keeps the last.
        if memchr::memmem::find_iter(body, b"odel").count() + memchr::memmem::find_iter(body, b"\\u").count() <= 1 {
            assert_eq!(read.get("model").and_then(serde_json::Value::as_str), found.as_deref());
        }
    }
}

/// Seeds, which are also what coverage fuzzing begins with, and each beginning of each.
#[cfg(test)]
mod tests {
    #[test]
    fn seeds_and_their_beginnings_pass() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds");
        let mut tried = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let seed = std::fs::read(entry.unwrap().path()).unwrap();
            let Some((target, rest)) = seed.split_first() else { continue };
            for end in 0..=rest.len() {
                let input = &rest[..end];
                match target {
                    b'g' => super::guard(input),
                    b'r' => super::router(input),
                    b'm' => super::model(input),
                    // The relay's.
                    _ => continue,
                }
                tried += 1;
            }
        }
        assert!(tried > 500, "{tried} inputs: the seeds are not there");
    }
}
