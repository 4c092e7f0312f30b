//! Deliveries on their way: a durable queue of its own. A receiver that is down, slow or wrong holds up nobody but itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use kip_host::clock::wall_millis;
use kip_host::failpoint::reached;
use kip_host::http_client;
use kip_store::tasks::{Delivery, DeliveryOutcome};
use kip_tasks::config::Target;
use kip_tasks::envelope::Call;
use kip_tasks::notification::{Notification, envelope};
use kip_tasks::sign::hmac;
use kip_tasks::{Error, Submission};

use crate::notification;
use crate::service::Shared;

/// Tasks in a row, each the destination of the one before; configurations may be changed into a circle while words are on their way.
const LONGEST_CHAIN: u8 = 16;
/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause after a failure, milliseconds; each further one may be twice as long, up to five minutes.
const BASE: u64 = 1_000;
const LONGEST: u64 = 300_000;

/// A receiver's slot, taken until it is dropped.
pub(crate) struct Slot {
    shared: Arc<Shared>,
    receiver: Arc<str>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.queue.waiting.lock().free(&self.receiver);
        self.shared.queue.more.notify_one();
    }
}

pub(crate) fn start(shared: &Arc<Shared>) {
    let supervisor = shared.control.supervisor().clone();
    let taking = shared.clone();
    supervisor.critical("committed deliveries", async move {
        loop {
            for delivery in taking.tasks.deliveries().await {
                taking.queue.put_back(delivery);
            }
        }
    });
    let shared = shared.clone();
    supervisor.critical("deliveries", async move {
        loop {
            let next = shared.queue.waiting.lock().next(wall_millis());
            match next {
                Ok((receiver, delivery)) => {
                    let (shared, slot) = (shared.clone(), Slot { shared: shared.clone(), receiver });
                    kip_host::tasks::spawn("delivery", async move {
                        send(&shared, delivery).await;
                        drop(slot);
                    });
                }
                Err(at) => {
                    let pause = at.map_or(1_000, |at| at.saturating_sub(wall_millis()).clamp(1, 1_000).unsigned_abs());
                    let _ = tokio::time::timeout(Duration::from_millis(pause), shared.queue.more.notified()).await;
                }
            }
        }
    });
}

/// Tries once, and writes down what came of it.
async fn send(shared: &Arc<Shared>, mut word: Delivery) {
    let now = wall_millis();
    reached("task: before word");
    let result = attempt(shared, &word).await;
    reached("task: word sent");
    let (result, again) = match result {
        Ok(outcome) => (DeliveryOutcome::Done { outcome }, None),
        Err(trouble) => {
            let age = now.saturating_sub(first_time(shared, &word).await);
            let limit = i64::try_from(shared.options.delivery.as_millis()).unwrap_or(i64::MAX);
            if age >= limit || !trouble.may_pass {
                (DeliveryOutcome::Done { outcome: format!("given up: {}", trouble.what) }, None)
            } else {
                let window = (BASE << word.attempts.min(20)).min(LONGEST);
                let dice = u64::try_from(kip_host::random::unique() >> 64).unwrap_or_default();
                let pause = window / 2 + dice % (window / 2 + 1);
                let run_at = wall_millis().saturating_add(i64::try_from(pause).unwrap_or(i64::MAX));
                let outcome = format!("tried {} times: {}", word.attempts + 1, trouble.what);
                (DeliveryOutcome::Again { run_at, outcome }, Some(run_at))
            }
        }
    };
    if let Err(error) = shared.tasks.delivered(word.task, word.id, result).await {
        // It may be sent twice for that, never too seldom.
        tracing::warn!(%error, "the outcome of a delivery is not stored; it may be sent twice");
        word.run_at = wall_millis().saturating_add(5_000);
        shared.queue.put_back(word);
    } else if let Some(run_at) = again {
        (word.attempts, word.run_at) = (word.attempts + 1, run_at);
        shared.queue.put_back(word);
    }
}

/// An error with what is behind it: of TLS, that says what is wrong.
fn chain(error: &http_client::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Since when it is tried. A task that runs again, or cannot be read now, says nothing of that: then it is as young as can be, for a
/// delivery may come too often and never too seldom.
async fn first_time(shared: &Shared, word: &Delivery) -> i64 {
    let task = shared.tasks.reader().task(word.task).await.ok().flatten();
    task.map(|task| task.now.ended).filter(|ended| *ended > 0).unwrap_or_else(wall_millis)
}

/// Why an attempt failed.
struct DeliveryFailure {
    what: String,
    may_pass: bool,
}

fn passing(what: impl std::fmt::Display) -> DeliveryFailure {
    DeliveryFailure { what: what.to_string(), may_pass: true }
}

fn for_good(what: impl std::fmt::Display) -> DeliveryFailure {
    DeliveryFailure { what: what.to_string(), may_pass: false }
}

/// The signatures of a notification, one for each secret: the specification lets a receiver take any of them, so that secrets can change.
fn webhook_signatures(secrets: &str, id: &str, at: i64, body: &str) -> String {
    secrets.lines().map(|secret| webhook_signature(secret, id, at, body)).collect::<Vec<_>>().join(" ")
}

/// An address of a receiver to which a notification may go. Of a name that leads to several, all must be so: which one is taken is not ours to say.
async fn resolved(shared: &Shared, authority: &str) -> Result<SocketAddr, DeliveryFailure> {
    let failed = |error: std::io::Error| passing(format!("{authority}: {error}"));
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(authority).await.map_err(failed)?.collect();
    for address in &addresses {
        shared.tasks.destination_rules().check_address(authority, address.ip()).map_err(for_good)?;
    }
    addresses.first().copied().ok_or_else(|| passing(format!("{authority} has no address")))
}

/// The signature of a notification by the specification Standard Webhooks, version 1: HMAC-SHA256 of id, time and body. A secret of the
/// form `whsec_BASE64` stands for the bytes it encodes, another one for itself.
fn webhook_signature(secret: &str, id: &str, at: i64, body: &str) -> String {
    let encoded = secret.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
    let key = encoded.as_deref().unwrap_or(secret.as_bytes());
    format!("v1,{}", STANDARD.encode(hmac(key, format!("{id}.{at}.{body}").as_bytes())))
}

async fn attempt(shared: &Arc<Shared>, word: &Delivery) -> Result<String, DeliveryFailure> {
    let Notification { condition, to } = serde_json::from_str(&word.target).map_err(for_good)?;
    let store = shared.tasks.reader();
    let task = store.task(word.task).await.map_err(passing)?.ok_or_else(|| for_good("its task is forgotten"))?;
    let payload = store.payload(word.task).await.map_err(passing)?.unwrap_or_default();
    let output = store.output(word.task).await.map_err(passing)?;
    let text = notification::text(&task, &condition, &payload, output.as_ref()).to_string();
    let name = to.destination.clone();
    match to.target().map_err(for_good)? {
        Target::Function(function) => {
            let depth = envelope(&task).map_or(0, |envelope| envelope.depth).saturating_add(1);
            if depth > LONGEST_CHAIN {
                return Err(for_good(format!(
                    "{name}: {LONGEST_CHAIN} tasks, each the destination of another, led here"
                )));
            }
            let submission = Submission {
                function,
                // The same word is the same task, however often it is sent.
                idempotency: Some(format!("kip-word-{}-{}", word.task.0, word.id)),
                tenant: Some(task.tenant.to_string()),
                call: Some(Call::event(Some("application/json".to_owned()))),
                payload: Bytes::from(text),
                request: format!("word-{}", word.id),
                depth,
                ..Submission::default()
            };
            match shared.tasks.submit_notification(submission).await {
                Ok(receipt) => Ok(format!("{name}: task {}", receipt.id)),
                Err(error @ (Error::Full { .. } | Error::FullOfBytes { .. } | Error::Busy | Error::Control(_))) => {
                    Err(passing(format!("{name}: {error}")))
                }
                Err(error) => Err(for_good(format!("{name}: {error}"))),
            }
        }
        Target::Webhook { secure, authority, path } => {
            // The same notification has the same id, however often it is sent.
            let (id, at) = (format!("kip-word-{}-{}", word.task.0, word.id), wall_millis() / 1_000);
            let mut request = Request::post(path)
                .header("content-type", "application/json")
                .header("user-agent", "kipwake")
                .header("webhook-id", &id)
                .header("webhook-timestamp", at)
                .header("x-kip-delivery-attempt", word.attempts + 1);
            if let Some(secret) = &to.secret {
                request = request.header("webhook-signature", webhook_signatures(secret, &id, at, &text));
            }
            let request = request.body(Full::new(Bytes::from(text))).map_err(for_good)?;
            resolved(shared, &authority).await?;
            let answer = if secure {
                let trust = shared.queue.trust(shared.options.ca.clone()).await.map_err(passing)?;
                http_client::call_tls(&trust, &authority, request, PATIENCE).await
            } else {
                http_client::call(&authority, request, PATIENCE).await
            };
            let answer = answer.map_err(|error| passing(format!("{name}: {}", chain(&error))))?;
            match answer.status {
                200..300 => Ok(format!("{name}: {}", answer.status)),
                status => Err(passing(format!("{name} answered {status}"))),
            }
        }
        Target::Folder(folder) => {
            let id = kip_tasks::view::id_of(task.number, task.id.as_deref());
            let file = folder.join(format!("{}-{id}.json", task.function));
            let written = kip_host::tasks::blocking("word into a file", move || {
                std::fs::create_dir_all(&folder)?;
                kip_host::directory::write_whole(&file, text.as_bytes())
            });
            match written.await {
                Some(Ok(())) => Ok(name),
                Some(Err(error)) => Err(passing(format!("{name}: {error}"))),
                None => Err(passing("the server ends")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let signature =
            webhook_signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        // While secrets change, each signs.
        let both = format!("another-secret-of-16\n{secret}");
        let signatures =
            webhook_signatures(&both, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signatures.split(' ').collect::<Vec<_>>()[1], signature);
        assert_eq!(signatures.split(' ').count(), 2);
    }
}
