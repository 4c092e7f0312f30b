//! Requests by rate or by callers, each with its latency.
//!
//! By rate, a request has its time whether earlier answers are there or not, and its latency counts from that time: a server that stalls is
//! not spared the requests that came meanwhile. By callers, it counts from the moment when it is sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kip_host::clock::monotonic_micros;
use kip_host::tasks;
use kip_spec::Millis;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::arguments::{Load, Phase};

/// Requests in flight at most: beyond, a request is counted as not sent.
const MOST_IN_FLIGHT: usize = 20_000;

/// What is loaded.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) method: Method,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    pub(crate) timeout: Millis,
}

/// A request that is over.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When it was to be sent, microseconds since the phase began.
    pub(crate) at: u64,
    /// Microseconds.
    pub(crate) latency: u64,
    /// None without an answer.
    pub(crate) status: Option<u16>,
    /// warm, woken or cold, as a function's answer has it.
    pub(crate) start: Option<Start>,
    /// The instance that answered, where the answer names it.
    pub(crate) instance: Option<String>,
    /// Why there is no answer.
    pub(crate) fault: Option<String>,
}

/// What a request waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Warm,
    Woken,
    Cold,
}

impl Start {
    fn read(text: &str) -> Option<Self> {
        match text {
            "warm" => Some(Self::Warm),
            "woken" => Some(Self::Woken),
            "cold" => Some(Self::Cold),
            _ => None,
        }
    }
}

/// What the requests of a phase share.
struct Shared {
    target: Target,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    samples: Mutex<Vec<Sample>>,
    begun: u64,
}

/// Runs a phase to its end and waits for its last answers.
pub(crate) async fn run(target: &Target, phase: &Phase) -> Vec<Sample> {
    let shared = Arc::new(Shared {
        target: target.clone(),
        idle: Mutex::default(),
        samples: Mutex::default(),
        begun: monotonic_micros(),
    });
    let length = phase.duration.0.saturating_mul(1_000);
    let mut running = Vec::new();
    match phase.load {
        Load::Rate(rate) => by_rate(&shared, rate, length, &mut running).await,
        Load::Callers(count) => {
            for _ in 0..count {
                let shared = Arc::clone(&shared);
                running.push(tasks::spawn("bench caller", async move {
                    while elapsed(&shared) < length {
                        let at = elapsed(&shared);
                        one(&shared, at).await;
                    }
                }));
            }
        }
    }
    for task in running {
        let _ = task.await;
    }
    let mut samples = std::mem::take(&mut *shared.samples.lock());
    samples.sort_by_key(|sample| sample.at);
    samples
}

fn elapsed(shared: &Shared) -> u64 {
    monotonic_micros().saturating_sub(shared.begun)
}

async fn by_rate(shared: &Arc<Shared>, rate: u32, length: u64, running: &mut Vec<tokio::task::JoinHandle<()>>) {
    let total = length.saturating_mul(u64::from(rate)) / 1_000_000;
    for number in 0..total {
        let at = number.saturating_mul(1_000_000) / u64::from(rate);
        let early = at.saturating_sub(elapsed(shared));
        if early > 0 {
            tokio::time::sleep(Duration::from_micros(early)).await;
        }
        running.retain(|task| !task.is_finished());
        if running.len() >= MOST_IN_FLIGHT {
            let fault = Some(format!("{MOST_IN_FLIGHT} requests were in flight: it was not sent"));
            shared.samples.lock().push(Sample { at, latency: 0, status: None, start: None, instance: None, fault });
            continue;
        }
        let shared = Arc::clone(shared);
        running.push(tasks::spawn("bench request", async move { one(&shared, at).await }));
    }
}

/// One request, which was to be sent at `at`.
async fn one(shared: &Shared, at: u64) {
    let limit = Duration::from_millis(shared.target.timeout.0);
    let done = tokio::time::timeout(limit, exchange(shared)).await;
    let latency = elapsed(shared).saturating_sub(at);
    let sample = match done {
        Ok(Ok(AnswerSummary { status, start, instance })) => {
            Sample { at, latency, status: Some(status), start, instance, fault: None }
        }
        Ok(Err(fault)) => Sample { at, latency, status: None, start: None, instance: None, fault: Some(fault) },
        Err(_) => {
            let fault = format!("no answer within {}", shared.target.timeout);
            Sample { at, latency, status: None, start: None, instance: None, fault: Some(fault) }
        }
    };
    shared.samples.lock().push(sample);
}

/// What an answer says.
struct AnswerSummary {
    status: u16,
    start: Option<Start>,
    instance: Option<String>,
}

async fn exchange(shared: &Shared) -> Result<AnswerSummary, String> {
    let target = &shared.target;
    loop {
        let kept = shared.idle.lock().pop();
        let was_kept = kept.is_some();
        let mut sender = match kept {
            Some(sender) => sender,
            None => connect(&target.authority).await?,
        };
        let mut request = Request::builder()
            .method(target.method.clone())
            .uri(&target.path)
            .header(http::header::HOST, &target.authority)
            .body(Full::from(target.body.clone()))
            .map_err(|error| error.to_string())?;
        for (name, value) in &target.headers {
            request.headers_mut().append(name, value.clone());
        }
        if sender.ready().await.is_err() && was_kept {
            continue;
        }
        let answer = match sender.send_request(request).await {
            Ok(answer) => answer,
            // The server closed a connection that was idle; nothing of the request was taken.
            Err(error) if was_kept && error.is_canceled() => continue,
            Err(error) => return Err(error.to_string()),
        };
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let (start, instance) =
            (header("x-kip-start").and_then(Start::read), header("x-kip-instance").map(str::to_owned));
        let status = answer.status().as_u16();
        answer.into_body().collect().await.map_err(|error| error.to_string())?;
        if !sender.is_closed() {
            shared.idle.lock().push(sender);
        }
        return Ok(AnswerSummary { status, start, instance });
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(authority).await.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tasks::spawn("bench connection", async move { drop(connection.await) });
    Ok(sender)
}
