//! Traces of requests for a collector: OTLP over HTTP as JSON (opentelemetry.io, "OTLP specification", 1.5), contexts as W3C writes them
//! ("Trace Context", level 1). Spans go out in batches from a task of its own; the data plane hands them in and never waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use kip_store::RequestRecord;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::recorder::without_secrets;

/// Requests whose spans may wait; more are dropped and counted.
const WAITING: usize = 8_192;
/// Requests in one call of the collector.
const BATCH: usize = 512;
/// How long spans may wait for company.
const GATHER: Duration = Duration::from_secs(1);
/// How long the collector may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How often a batch is offered to a collector that cannot take it now; the wait doubles from a second on.
const TRIES: u32 = 5;
/// Parts that a share is counted in.
const WHOLE: u64 = 1_000_000;

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceOptions {
    /// The collector, `http://host:port`.
    pub endpoint: String,
    /// Of a million requests that come without a trace, how many get one.
    pub share: u32,
}

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Context {
    trace: u128,
    span: u64,
    sampled: bool,
}

impl Context {
    /// Reads `traceparent`; one that is not understood is as good as none.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !(hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2)) || version == "ff" {
            return None;
        }
        // Later versions may add parts, this one has none.
        if version == "00" && parts.next().is_some() {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace, span, sampled })
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// The spans of one request: the whole of it, and the instance's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestSpans {
    trace: u128,
    parent: Option<u64>,
    whole: u64,
    instance: u64,
}

impl RequestSpans {
    /// What the instance is told, as `traceparent`.
    pub fn toward_instance(&self) -> String {
        Context { trace: self.trace, span: self.instance, sampled: true }.to_string()
    }
}

/// Where requests' spans are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces {
    spans: mpsc::Sender<(RequestSpans, Box<RequestRecord>)>,
    dropped: Arc<AtomicU64>,
    share: u32,
}

impl Traces {
    /// Starts the exporter on the current runtime.
    pub fn start(options: &TraceOptions) -> Self {
        let (spans, queue) = mpsc::channel(WAITING);
        let dropped: Arc<AtomicU64> = Arc::default();
        let exporter = Exporter { endpoint: options.endpoint.clone(), dropped: dropped.clone(), failing: false };
        kip_host::tasks::spawn("trace exporter", exporter.run(queue));
        Self { spans, dropped, share: options.share }
    }

    /// Whether a request is traced: one that comes with a trace as its caller says, others by the share.
    pub fn begin(&self, traceparent: Option<&str>) -> Option<RequestSpans> {
        let (whole, instance) = (id(), id());
        match traceparent.and_then(Context::parse) {
            Some(Context { sampled: false, .. }) => None,
            Some(Context { trace, span, .. }) => Some(RequestSpans { trace, parent: Some(span), whole, instance }),
            None => {
                let trace = kip_host::random::unique() | 1;
                (((trace >> 64) as u64) % WHOLE < u64::from(self.share)).then_some(RequestSpans {
                    trace,
                    parent: None,
                    whole,
                    instance,
                })
            }
        }
    }

    /// Hands in a request that is over.
    pub fn end(&self, spans: RequestSpans, record: RequestRecord) {
        if self.spans.try_send((spans, Box::new(without_secrets(record)))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests whose spans did not reach the collector.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The other end of the channel.
struct Exporter {
    endpoint: String,
    dropped: Arc<AtomicU64>,
    failing: bool,
}

impl Exporter {
    async fn run(mut self, mut queue: mpsc::Receiver<(RequestSpans, Box<RequestRecord>)>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            if batch.len() < BATCH {
                tokio::time::sleep(GATHER).await;
                while batch.len() < BATCH
                    && let Ok(more) = queue.try_recv()
                {
                    batch.push(more);
                }
            }
            let count = batch.len() as u64;
            let spans: Vec<Value> = batch.drain(..).flat_map(|(spans, record)| spans_of(spans, &record)).collect();
            self.send(count, &spans).await;
        }
    }

    async fn send(&mut self, count: u64, spans: &[Value]) {
        let resource = json!({"attributes": [
            text("service.name", "kipwake"),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ]});
        let scope = json!({"name": "kipwake.gateway"});
        let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]});
        let body = Bytes::from(body.to_string());
        let mut wait = Duration::from_secs(1);
        for again in 1..=TRIES {
            let problem = match self.post(body.clone()).await {
                Ok(200..=299) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(collector = self.endpoint, "the collector takes traces again");
                    }
                    return;
                }
                // Those that may be sent again, by the specification.
                Ok(status @ (429 | 502 | 503 | 504)) => (format!("it answered {status}"), true),
                Ok(status) => (format!("it answered {status}"), false),
                Err(problem) => (problem, true),
            };
            if !std::mem::replace(&mut self.failing, true) {
                tracing::warn!(collector = self.endpoint, problem = problem.0, "the collector does not take traces");
            }
            if !problem.1 || again == TRIES {
                break;
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    async fn post(&self, body: Bytes) -> Result<u16, String> {
        let request = Request::post("/v1/traces").header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let authority = kip_host::http_client::authority(&self.endpoint).map_err(|error| error.to_string())?;
        let answer = kip_host::http_client::call(authority, request, LIMIT).await;
        answer.map(|answer| answer.status).map_err(|error| error.to_string())
    }
}

/// The request as a whole, what it waited for, and its time with the instance. Names follow the conventions for HTTP and FaaS.
fn spans_of(spans: RequestSpans, record: &RequestRecord) -> Vec<Value> {
    let at = |micros: u64| u128::from(record.at.unsigned_abs()) * 1_000_000 + u128::from(micros) * 1_000;
    let span = |id: u64, parent: Option<u64>, name: &str, kind: u8, (from, to): (u64, u64)| {
        json!({
            "traceId": format!("{:032x}", spans.trace),
            "spanId": format!("{id:016x}"),
            "parentSpanId": parent.map(|parent| format!("{parent:016x}")).unwrap_or_default(),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": at(from).to_string(),
            "endTimeUnixNano": at(to.max(from)).to_string(),
        })
    };
    let path = record.path.split_once('?').map_or(record.path.as_str(), |(path, _)| path);
    let mut attributes = vec![
        text("http.request.method", &record.method),
        text("url.path", path),
        text("faas.invoked_name", &record.function),
        text("kip.request_id", &record.id),
        text("kip.outcome", &record.outcome),
    ];
    if record.status > 0 {
        attributes.push(number("http.response.status_code", u64::from(record.status)));
    }
    let optional = [
        ("faas.instance", &record.instance),
        ("kip.start", &record.start),
        ("error.type", &record.code),
        ("kip.tenant", &record.tenant),
    ];
    attributes.extend(optional.into_iter().filter_map(|(key, value)| Some(text(key, value.as_deref()?))));
    if let Some(version) = record.version {
        attributes.push(text("faas.version", &version.to_string()));
    }
    if let Some(start) = &record.start {
        attributes.push(json!({"key": "faas.coldstart", "value": {"boolValue": start == "cold"}}));
    }
    let mut whole = span(
        spans.whole,
        spans.parent,
        &format!("{} {}", record.method, record.function),
        SERVER,
        (0, record.total_us),
    );
    whole["attributes"] = attributes.into();
    if record.status >= 500 || record.outcome == "broken" {
        whole["status"] = json!({"code": ERROR, "message": record.code.as_deref().unwrap_or_default()});
    }
    let mut all = vec![whole];
    if record.queue_us > 0 {
        let name = match record.start.as_deref() {
            Some("cold") => "start",
            Some("woken") => "wake",
            _ => "queue",
        };
        all.push(span(id(), Some(spans.whole), name, INTERNAL, (0, record.queue_us)));
    }
    if record.instance.is_some() {
        all.push(span(spans.instance, Some(spans.whole), "instance", CLIENT, (record.queue_us, record.total_us)));
    }
    all
}

/// Kinds of spans and codes of their status, as the protocol numbers them.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const ERROR: u8 = 2;

/// An id of a span, never 0.
fn id() -> u64 {
    ((kip_host::random::unique() >> 64) as u64) | 1
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_read_as_they_are_specified() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = Context::parse(good).unwrap();
        assert_eq!(context.to_string(), good);
        assert!(context.sampled && !Context::parse(&good.replace("-01", "-00")).unwrap().sampled);
        assert!(Context::parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more").unwrap().sampled);
        for bad in [
            "",
            "00",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn callers_decide_and_others_by_share() {
        let traces = |share| Traces::start(&TraceOptions { endpoint: "http://127.0.0.1:1".to_owned(), share });
        let sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let spans = traces(0).begin(Some(sampled)).unwrap();
        assert_eq!((spans.trace, spans.parent), (0x0af7651916cd43dd8448eb211c80319c, Some(0xb7ad6b7169203331)));
        assert!(spans.toward_instance().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert_eq!(traces(1_000_000).begin(Some(&sampled.replace("-01", "-00"))), None);
        assert_eq!((traces(0).begin(None), traces(1_000_000).begin(None).is_some()), (None, true));
        let tenth = traces(100_000);
        let traced = (0..10_000).filter(|_| tenth.begin(Some("not one")).is_some()).count();
        assert!((800..1_200).contains(&traced), "{traced} of 10,000");
    }
}
