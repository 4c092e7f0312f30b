//! The download of one file: parallel ranges into a partial file, resumed to the byte, hashed while it grows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use kip_host::tasks;
use tokio::sync::{Notify, Semaphore};

use crate::client::{Backoff, Client, Endpoint, TryFailure, settled, shown};
use crate::digest::{Digest, Hasher, Sums};
use crate::error::Error;
use crate::partial::Partial;

/// Without a byte for so long, a connection is given up and another one goes on.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes that are written at once.
const WRITE: usize = 1 << 20;
/// Bytes that are hashed at once.
const HASH: u64 = 8 << 20;

/// How downloads behave.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Ranges of one large file at once.
    pub ranges: u64,
    /// Connections at once, all downloads together.
    pub connections: usize,
    /// How long nothing may go well, waits that a hub asks for included.
    pub patience: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { ranges: 4, connections: 8, patience: Duration::from_secs(600) }
    }
}

/// What is downloaded, and where from.
#[derive(Debug, Clone)]
pub(crate) struct FileTarget {
    /// For messages.
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) size: u64,
    pub(crate) digest: Option<Digest>,
    /// What the source calls the content: parts of another tag do not belong to it.
    pub(crate) tag: String,
}

/// What downloads share.
#[derive(Debug)]
pub(crate) struct Downloader {
    pub(crate) client: Client,
    pub(crate) behaviour: Behaviour,
    connections: Semaphore,
}

/// What ends a try of a range.
enum End {
    Complete,
    /// The server sends the whole file, whatever is asked for.
    WithoutRanges,
}

impl Downloader {
    pub(crate) fn new(client: Client, behaviour: Behaviour) -> Self {
        let connections = Semaphore::new(behaviour.connections.max(1));
        Self { client, behaviour, connections }
    }

    /// Downloads a file to `part` and gives it the name that its SHA-256 makes. `progress` counts bytes.
    ///
    /// Dropped at any await, the bytes that are written stay, and the next call goes on with them.
    pub(crate) async fn file(
        &self,
        wanted: &FileTarget,
        endpoint: &Endpoint,
        part: &Path,
        name: impl FnOnce(&Sums) -> std::path::PathBuf,
        progress: &AtomicU64,
    ) -> Result<Sums, Error> {
        let cache = |error: std::io::Error| Error::cache(part, &error);
        let most = self.behaviour.ranges;
        let open = {
            let (path, size, tag) = (part.to_owned(), wanted.size, wanted.tag.clone());
            blocking(move || Partial::open(&path, size, &tag, most)).await
        };
        let partial = Arc::new(open.map_err(cache)?);
        progress.fetch_add(partial.received(), Ordering::Relaxed);
        // A wrong digest may come of parts that a loss of power damaged: the whole file is asked for once more.
        let mut again = true;
        loop {
            let sums = self.content(wanted, endpoint, &partial, progress).await?;
            let fault = wanted
                .digest
                .as_ref()
                .filter(|digest| !sums.fits(digest))
                .map(|digest| format!("its content is {}, and the hub lists {}", sums.sha256, digest.file_name()));
            let Some(reason) = fault else {
                let (target, whole) = (name(&sums), Arc::into_inner(partial));
                let whole = whole.ok_or_else(|| cache(std::io::Error::other("the partial file is still in use")))?;
                blocking(move || whole.complete(&target)).await.map_err(cache)?;
                return Ok(sums);
            };
            progress.fetch_sub(wanted.size, Ordering::Relaxed);
            if !again {
                if let Some(partial) = Arc::into_inner(partial) {
                    partial.discard();
                }
                return Err(Error::Damaged { path: wanted.name.clone(), reason });
            }
            again = false;
            let anew = partial.clone();
            blocking(move || anew.begin(most)).await.map_err(cache)?;
        }
    }

    /// Fills the partial file and hashes it meanwhile.
    async fn content(
        &self,
        wanted: &FileTarget,
        endpoint: &Endpoint,
        partial: &Arc<Partial>,
        progress: &AtomicU64,
    ) -> Result<Sums, Error> {
        let grown = Notify::new();
        let filling = async {
            loop {
                let numbers = 0..partial.ranges().len();
                let ranges = numbers.map(|number| self.range(wanted, endpoint, (partial, number), (progress, &grown)));
                if try_join_all(ranges).await?.iter().all(|end| matches!(end, End::Complete)) {
                    return Ok::<(), Error>(());
                }
                // One range from the first byte on is what such a server can do.
                progress.fetch_sub(partial.received(), Ordering::Relaxed);
                let anew = partial.clone();
                blocking(move || anew.begin(1)).await.map_err(|error| Error::cache(Path::new(&wanted.name), &error))?;
            }
        };
        let hashing = async {
            'anew: loop {
                let mut hasher = Hasher::new(wanted.size);
                let (mut at, begun) = (0, partial.begun());
                while at < wanted.size {
                    let there = partial.prefix();
                    if partial.begun() != begun {
                        continue 'anew;
                    }
                    if there == at {
                        grown.notified().await;
                        continue;
                    }
                    let end = there.min(at + HASH);
                    let reading = partial.clone();
                    let hashed = blocking(move || {
                        let mut buffer = vec![0; usize::try_from(end - at).unwrap_or(0)];
                        reading.read(&mut buffer, at)?;
                        hasher.update(&buffer);
                        Ok(hasher)
                    });
                    hasher = hashed.await.map_err(|error| Error::cache(Path::new(&wanted.name), &error))?;
                    at = end;
                }
                return Ok(hasher.finish());
            }
        };
        let ((), sums) = tokio::try_join!(filling, hashing)?;
        Ok(sums)
    }

    /// Downloads one range, with as many tries as it takes.
    async fn range(
        &self,
        wanted: &FileTarget,
        endpoint: &Endpoint,
        (partial, number): (&Arc<Partial>, usize),
        (progress, grown): (&AtomicU64, &Notify),
    ) -> Result<End, Error> {
        let mut waits = Backoff::new(self.behaviour.patience);
        loop {
            let Some(range) = partial.range(number).filter(|range| !range.is_complete()) else {
                grown.notify_one();
                return Ok(End::Complete);
            };
            let permit = self.connections.acquire().await;
            let tried = self.try_range(wanted, endpoint, (partial, number), (progress, grown)).await;
            drop(permit);
            match tried {
                Ok(end) => return Ok(end),
                Err(TryFailure::Never(error)) => return Err(error),
                Err(TryFailure::Later { reason, wait }) => {
                    if partial.range(number).is_some_and(|now| now.at > range.at) {
                        waits.reset();
                    }
                    waits.pause(&wanted.address, reason, wait).await?;
                }
            }
        }
    }

    async fn try_range(
        &self,
        wanted: &FileTarget,
        endpoint: &Endpoint,
        (partial, number): (&Arc<Partial>, usize),
        (progress, grown): (&AtomicU64, &Notify),
    ) -> Result<End, TryFailure> {
        let range = partial.range(number).ok_or_else(|| TryFailure::later("the ranges changed"))?;
        let is_whole = range.at == 0 && range.end == wanted.size;
        let headers = match is_whole {
            true => Vec::new(),
            false => {
                let value = HeaderValue::from_str(&format!("bytes={}-{}", range.at, range.end - 1));
                vec![(RANGE, value.map_err(TryFailure::later)?)]
            }
        };
        let answer = settled(self.client.send(Method::GET, &wanted.address, endpoint, &headers).await?)?;
        let damaged = |reason: String| TryFailure::Never(Error::Damaged { path: wanted.name.clone(), reason });
        match answer.status().as_u16() {
            200 if !is_whole => return Ok(End::WithoutRanges),
            200 => {
                let length = length_of(&answer);
                if length.is_some_and(|length| length != wanted.size) {
                    return Err(damaged(format!(
                        "it has {} bytes, and the hub lists {}",
                        length.unwrap_or(0),
                        wanted.size
                    )));
                }
            }
            206 => check_range(&answer, range.at, wanted.size).map_err(damaged)?,
            416 => return Err(damaged(format!("it is shorter than the {} bytes that the hub lists", wanted.size))),
            status => return Err(TryFailure::Never(refusal(status, wanted, endpoint))),
        }
        let mut body = answer.into_body();
        let mut buffer = BytesMut::new();
        loop {
            let frame = tokio::time::timeout(IDLE, body.frame()).await;
            let (data, end) = match frame {
                Err(_) => (Bytes::new(), Some(format!("nothing came for {IDLE:?}"))),
                Ok(None) => (Bytes::new(), Some("the connection was cut".to_owned())),
                Ok(Some(Err(error))) => (Bytes::new(), Some(error.to_string())),
                Ok(Some(Ok(frame))) => (frame.into_data().unwrap_or_default(), None),
            };
            buffer.extend_from_slice(&data);
            let now = partial.range(number).unwrap_or(range);
            let left = now.end - now.at;
            if buffer.len() as u64 > left {
                return Err(damaged(format!("more than its {} bytes came", wanted.size)));
            }
            let complete = buffer.len() as u64 == left;
            if !buffer.is_empty() && (buffer.len() >= WRITE || complete || end.is_some()) {
                let (bytes, writing) = (buffer.split().freeze(), partial.clone());
                let length = bytes.len() as u64;
                let written = blocking(move || writing.write(number, &bytes)).await;
                written.map_err(|error| TryFailure::Never(Error::cache(Path::new(&wanted.name), &error)))?;
                progress.fetch_add(length, Ordering::Relaxed);
                grown.notify_one();
            }
            match end {
                _ if complete && !is_whole => return Ok(End::Complete),
                // More bytes behind the whole file are a fault too.
                Some(_) if complete => return Ok(End::Complete),
                Some(reason) => return Err(TryFailure::later(reason)),
                None => {}
            }
        }
    }
}

fn length_of(answer: &Response<Incoming>) -> Option<u64> {
    answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether an answer begins where it was asked to, in a file of this size.
fn check_range(answer: &Response<Incoming>, at: u64, size: u64) -> Result<(), String> {
    let value = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let numbers = || -> Option<(u64, u64)> {
        let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
    };
    match numbers() {
        Some((start, total)) if start == at && total == size => Ok(()),
        _ => Err(format!("its range is `{value}`, and byte {at} of {size} was asked for")),
    }
}

fn refusal(status: u16, wanted: &FileTarget, endpoint: &Endpoint) -> Error {
    let (hub, repository) = (endpoint.base.clone(), wanted.name.clone());
    match status {
        401 | 403 => Error::Gated { hub, repository, token: endpoint.token.is_some() },
        _ => Error::Answer { address: shown(&wanted.address), reason: format!("it answers {status}") },
    }
}

/// Work that blocks, away from the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tasks::blocking("model files", work).await.unwrap_or_else(|| Err(std::io::Error::other("the server ends")))
}
