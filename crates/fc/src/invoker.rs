//! The thread that carries invocations to instances: connections of the relay belong to one thread.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use kip_control::{Control, Permit};
use kip_records::metrics::Metrics;
use kip_relay::{Delivery, DeliveryError, Relay};
use tokio::sync::{mpsc, oneshot};

/// Invocations on their way to the thread.
const WAITING: usize = 1_024;
/// Pieces of an answer on their way to its caller.
const PIECES: usize = 4;

/// Carries invocations. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Invoker {
    jobs: mpsc::Sender<Invocation>,
}

/// An invocation that has its place.
#[derive(Debug)]
struct Invocation {
    permit: Permit,
    delivery: Delivery,
    reply: oneshot::Sender<Result<InstanceAnswer, DeliveryError>>,
}

/// The answer of an instance. Dropping it ends the exchange.
#[derive(Debug)]
pub(crate) struct InstanceAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Ends early, with a sentence, if the instance breaks off.
    pub(crate) body: mpsc::Receiver<Result<Bytes, String>>,
}

impl Invoker {
    /// Starts the thread.
    pub(crate) fn start(control: &Control, metrics: &Metrics) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let (room, metrics) = (control.clone(), metrics.clone());
        control.supervisor().vital_thread("fc invocations", move || {
            let runtime = match kip_host::tasks::local_runtime() {
                Ok(runtime) => runtime,
                Err(error) => return tracing::error!(%error, "the thread of invocations has no runtime"),
            };
            let relay = Relay::new(room, &metrics);
            runtime.block_on(work(relay, waiting));
        })?;
        Ok(Self { jobs })
    }

    /// Sends an invocation to the instance that its permit is for. Dropping this ends it.
    pub(crate) async fn carry(&self, permit: Permit, delivery: Delivery) -> Result<InstanceAnswer, DeliveryError> {
        let ended = || DeliveryError::NotSent { detail: "the server is about to end".to_owned() };
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Invocation { permit, delivery, reply }).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn work(relay: Relay, mut waiting: mpsc::Receiver<Invocation>) {
    while let Some(invocation) = waiting.recv().await {
        let relay = relay.clone();
        drop(kip_host::tasks::spawn_local("invocation", carry(relay, invocation)));
    }
}

async fn carry(relay: Relay, Invocation { permit, delivery, mut reply }: Invocation) {
    let answer = tokio::select! {
        biased;
        () = reply.closed() => return,
        answer = relay.deliver(permit, delivery) => answer,
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return drop(reply.send(Err(error))),
    };
    let (head, mut body) = answer.into_parts();
    let (pieces, received) = mpsc::channel(PIECES);
    let begun = InstanceAnswer { status: head.status, headers: head.headers, body: received };
    if reply.send(Ok(begun)).is_err() {
        return;
    }
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => Ok(data),
                Err(_) => continue,
            },
            Err(error) => Err(error.to_string()),
        };
        let is_over = piece.is_err();
        if pieces.send(piece).await.is_err() || is_over {
            return;
        }
    }
}
