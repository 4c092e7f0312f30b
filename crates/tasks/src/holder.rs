//! The small process that holds the exchange of one long run, so that the server can be killed, restarted or replaced in the
//! midst of it: it sends the request to the instance, waits, and leaves the answer in its folder, synced.
//!
//! It is told all by two files of that folder and knows nothing else. As long as it lives it has a lock on the file `lock`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use kip_host::endpoint::Endpoint;
use serde::{Deserialize, Serialize};

/// What a holder is to do: the file `order`. The body is in the file `body`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Where the instance is reached: host and port, or a Unix socket.
    pub(crate) address: String,
    /// The method.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// All headers.
    pub(crate) headers: Vec<(String, String)>,
    /// How long it may take, milliseconds.
    pub(crate) limit: u64,
}

/// What came of it: the file `outcome`. The body is in the file `answer`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The instance answered.
    Answered {
        /// The status.
        status: u16,
        /// The headers that can be read.
        headers: Vec<(String, String)>,
        /// The body was longer than what is kept of one, which is its beginning.
        #[serde(default)]
        cut: bool,
    },
    /// The instance never got it.
    NotSent(String),
    /// The connection broke.
    BrokeOff(String),
    /// It took too long.
    TooLong,
}

/// Does what its folder says. For a process of its own.
///
/// # Errors
/// What the operating system says; there is no outcome then.
pub fn serve(folder: &Path) -> io::Result<()> {
    let mut lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    write!(lock, "{}", std::process::id())?;
    let order: Order = serde_json::from_slice(&fs::read(folder.join("order"))?)?;
    let body = Bytes::from(fs::read(folder.join("body"))?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (outcome, answer) = runtime.block_on(exchange(&order, body));
    kip_host::directory::write_whole(&folder.join("answer"), &answer)?;
    // Last: who sees it sees all.
    kip_host::directory::write_whole(&folder.join("outcome"), &serde_json::to_vec(&outcome)?)?;
    File::open(folder)?.sync_all()
}

async fn exchange(order: &Order, body: Bytes) -> (Outcome, Bytes) {
    use kip_host::http_client::{Error, LARGEST_ANSWER};
    let mut request = Request::builder().method(order.method.as_str()).uri(&order.path);
    for (name, value) in &order.headers {
        request = request.header(name, value);
    }
    let request = match request.body(Full::new(body)) {
        Ok(request) => request,
        Err(error) => return (Outcome::NotSent(error.to_string()), Bytes::new()),
    };
    let limit = Duration::from_millis(order.limit);
    let endpoint = order.address.parse::<Endpoint>().map_err(|_| Error::Address(order.address.clone()));
    let exchange = async {
        let (head, mut body) = kip_host::http_client::open_endpoint(&endpoint?, request).await?.into_parts();
        let (mut kept, mut cut) = (BytesMut::new(), false);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| Error::Body(error.to_string()))?.into_data() else { continue };
            let room = LARGEST_ANSWER - kept.len();
            cut |= data.len() > room;
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
        Ok((head, kept.freeze(), cut))
    };
    match tokio::time::timeout(limit, exchange).await.unwrap_or(Err(Error::Timeout(limit))) {
        Ok((head, body, cut)) => {
            let headers = head
                .headers
                .iter()
                .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
            (Outcome::Answered { status: head.status.as_u16(), headers: headers.collect(), cut }, body)
        }
        Err(Error::Timeout(_)) => (Outcome::TooLong, Bytes::new()),
        Err(error @ (Error::Address(_) | Error::Connect { .. })) => (Outcome::NotSent(error.to_string()), Bytes::new()),
        Err(error) => (Outcome::BrokeOff(error.to_string()), Bytes::new()),
    }
}

/// The holder of a folder, if it lives.
pub(crate) fn living(folder: &Path) -> Option<u32> {
    let path = folder.join("lock");
    let lock = File::open(&path).ok()?;
    if lock.try_lock().is_ok() {
        return None;
    }
    fs::read_to_string(path).ok()?.parse().ok()
}
