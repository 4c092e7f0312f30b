//! Words on their way: a durable queue of its own. A receiver that is down, slow or wrong holds up nobody but itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use kip_host::clock::wall_millis;
use kip_host::failpoint::reached;
use kip_host::http_client;
use kip_host::tls::Trust;
use kip_store::tasks::{Delivery, DeliveryOutcome, NewDelivery, TaskNumber};
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};

use crate::config::Target;
use crate::envelope::Call;
use crate::error::Error;
use crate::notification::{self, Notification};
use crate::service::{Shared, Submission, Tasks};
use crate::sign::{hexadecimal, hmac};

/// Tasks in a row, each the destination of the one before; configurations may be changed into a circle while words are on their way.
const LONGEST_CHAIN: u8 = 16;
/// Words on their way at once, and to one receiver.
const AT_ONCE: usize = 512;
const BY_RECEIVER: usize = 8;
/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause after a failure, milliseconds; each further one may be twice as long, up to five minutes.
const BASE: u64 = 1_000;
const LONGEST: u64 = 300_000;

/// Words that are still to be sent.
#[derive(Debug, Default)]
pub(crate) struct DeliveryQueue {
    waiting: Mutex<ReceiverQueues>,
    more: Notify,
    /// Who is trusted over TLS, once somebody was to be told so.
    trust: OnceCell<Trust>,
}

/// By receiver, each with a queue and slots of its own: a slow receiver takes nobody else's.
#[derive(Debug, Default)]
struct ReceiverQueues {
    receivers: BTreeMap<Arc<str>, Receiver>,
    /// The receiver that was served last: the next one's turn comes behind it.
    last: Option<Arc<str>>,
    busy: usize,
}

#[derive(Debug, Default)]
struct Receiver {
    by_time: BTreeMap<(i64, u64), Delivery>,
    busy: usize,
}

/// A receiver's slot, taken until it is dropped.
pub(crate) struct Slot {
    shared: Arc<Shared>,
    receiver: Arc<str>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.post.waiting.lock().free(&self.receiver);
        self.shared.post.more.notify_one();
    }
}

/// Who a delivery is for, as far as slots go: a host, a function, a folder.
fn receiver_of(delivery: &Delivery) -> Arc<str> {
    let target = serde_json::from_str::<Notification>(&delivery.target).map_err(|error| error.to_string());
    match target.and_then(|word| word.to.target()) {
        Ok(Target::Webhook { authority, .. }) => Arc::from(authority),
        Ok(Target::Function(function)) => Arc::from(format!("function:{function}")),
        Ok(Target::Folder(folder)) => Arc::from(format!("file:{}", folder.display())),
        Err(_) => Arc::from(""),
    }
}

impl ReceiverQueues {
    fn put(&mut self, delivery: Delivery) {
        let receiver = self.receivers.entry(receiver_of(&delivery)).or_default();
        receiver.by_time.insert((delivery.run_at, delivery.id), delivery);
    }

    /// One whose time has come, of the next receiver that has a free slot; else when to look again, where that is known.
    fn next(&mut self, now: i64) -> Result<(Arc<str>, Delivery), Option<i64>> {
        if self.busy >= AT_ONCE {
            return Err(None);
        }
        let is_due = |receiver: &Receiver| {
            receiver.busy < BY_RECEIVER && receiver.by_time.first_key_value().is_some_and(|((at, _), _)| *at <= now)
        };
        let behind = |name: &Arc<str>| self.last.as_ref().is_none_or(|last| name > last);
        let found = self.receivers.iter().find(|(name, receiver)| behind(name) && is_due(receiver));
        let found = found.or_else(|| self.receivers.iter().find(|(_, receiver)| is_due(receiver)));
        let Some(name) = found.map(|(name, _)| name.clone()) else {
            let free = self.receivers.values().filter(|receiver| receiver.busy < BY_RECEIVER);
            return Err(free.filter_map(|receiver| Some(receiver.by_time.first_key_value()?.0.0)).min());
        };
        self.last = Some(name.clone());
        let first = self.receivers.get_mut(&name).and_then(|receiver| {
            let (_, delivery) = receiver.by_time.pop_first()?;
            receiver.busy += 1;
            Some(delivery)
        });
        let Some(delivery) = first else { return Err(None) };
        self.busy += 1;
        Ok((name, delivery))
    }

    fn free(&mut self, name: &str) {
        let Some(receiver) = self.receivers.get_mut(name) else { return };
        receiver.busy -= 1;
        self.busy -= 1;
        if receiver.busy == 0 && receiver.by_time.is_empty() {
            self.receivers.remove(name);
        }
    }
}

impl DeliveryQueue {
    /// Words that were stored under these numbers.
    pub(crate) fn add(&self, task: TaskNumber, words: Vec<NewDelivery>, ids: &[u64]) {
        for (NewDelivery { target, run_at }, id) in words.into_iter().zip(ids) {
            self.put_back(Delivery { id: *id, task, target, attempts: 0, run_at });
        }
    }

    pub(crate) fn put_back(&self, word: Delivery) {
        self.waiting.lock().put(word);
        self.more.notify_one();
    }

    /// Whom to trust, by the certificates of this file or of the system. What failed is tried again.
    async fn trust(&self, file: Option<PathBuf>) -> Result<Trust, String> {
        let read = || async move {
            let read = kip_host::tasks::blocking("trusted certificates", move || Trust::of(file.as_deref())).await;
            read.ok_or("the server ends")?.map_err(|error| error.to_string())
        };
        self.trust.get_or_try_init(read).await.cloned()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().receivers.values().map(|receiver| receiver.by_time.len()).sum()
    }
}

pub(crate) fn start(shared: &Arc<Shared>) {
    let (shared, supervisor) = (shared.clone(), shared.control.supervisor().clone());
    supervisor.critical("deliveries", async move {
        loop {
            let next = shared.post.waiting.lock().next(wall_millis());
            match next {
                Ok((receiver, word)) => {
                    let (shared, slot) = (shared.clone(), Slot { shared: shared.clone(), receiver });
                    kip_host::tasks::spawn("delivery", async move {
                        send(&shared, word).await;
                        drop(slot);
                    });
                }
                Err(at) => {
                    let pause = at.map_or(1_000, |at| at.saturating_sub(wall_millis()).clamp(1, 1_000).unsigned_abs());
                    let _ = tokio::time::timeout(Duration::from_millis(pause), shared.post.more.notified()).await;
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
    let task = word.task;
    let id = word.id;
    let noted =
        shared.commits.unit("outcome of a delivery", move |store| async move { store.delivered(id, result).await });
    if let Err(error) = noted.await {
        // It may be sent twice for that, never too seldom.
        tracing::warn!(%error, "the outcome of a delivery is not stored; it may be sent twice");
        word.run_at = wall_millis().saturating_add(5_000);
        shared.post.put_back(word);
    } else if let Some(run_at) = again {
        (word.attempts, word.run_at) = (word.attempts + 1, run_at);
        shared.post.put_back(word);
    }
    shared.tell(task);
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
    let task = shared.read().task(word.task).await.ok().flatten();
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

async fn attempt(shared: &Arc<Shared>, word: &Delivery) -> Result<String, DeliveryFailure> {
    let Notification { condition, to } = serde_json::from_str(&word.target).map_err(for_good)?;
    let store = shared.read();
    let task = store.task(word.task).await.map_err(passing)?.ok_or_else(|| for_good("its task is forgotten"))?;
    let payload = store.payload(word.task).await.map_err(passing)?.unwrap_or_default();
    let output = store.output(word.task).await.map_err(passing)?;
    let text = notification::text(&task, &condition, &payload, output.as_ref()).to_string();
    let name = to.destination.clone();
    match to.target().map_err(for_good)? {
        Target::Function(function) => {
            let depth = notification::envelope(&task).map_or(0, |envelope| envelope.depth).saturating_add(1);
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
            match (Tasks { shared: shared.clone() }).submit_up_to(submission, usize::MAX).await {
                Ok(receipt) => Ok(format!("{name}: task {}", receipt.id)),
                Err(error @ (Error::Full { .. } | Error::Busy | Error::Control(_))) => {
                    Err(passing(format!("{name}: {error}")))
                }
                Err(error) => Err(for_good(format!("{name}: {error}"))),
            }
        }
        Target::Webhook { secure, authority, path } => {
            let mut request = Request::post(path)
                .header("content-type", "application/json")
                .header("user-agent", "kipwake")
                .header("x-kip-delivery", word.id)
                .header("x-kip-delivery-attempt", word.attempts + 1);
            if let Some(secret) = &to.secret {
                let at = wall_millis() / 1_000;
                let signed = format!("{at}.{text}");
                let signature = hexadecimal(&hmac(secret.as_bytes(), signed.as_bytes()));
                request = request.header("x-kip-signature", format!("t={at},v1={signature}"));
            }
            let request = request.body(Full::new(Bytes::from(text))).map_err(for_good)?;
            let answer = if secure {
                let trust = shared.post.trust(shared.options.ca.clone()).await.map_err(passing)?;
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
            let id = crate::view::id_of(task.number, task.id.as_deref());
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
    use crate::config::Destination;

    fn delivery(id: u64, host: &str, run_at: i64) -> Delivery {
        let to = Destination { destination: format!("http://{host}/hook"), secret: None };
        let target = serde_json::to_string(&Notification { condition: "Success".to_owned(), to }).unwrap();
        Delivery { id, task: TaskNumber(id), target, attempts: 0, run_at }
    }

    #[test]
    fn a_slow_receiver_takes_nobody_elses_slots() {
        let mut waiting = ReceiverQueues::default();
        (0..1_000).for_each(|id| waiting.put(delivery(id, "slow", 0)));
        waiting.put(delivery(5_000, "quick", 5));
        let mut taken = Vec::new();
        while let Ok((receiver, delivery)) = waiting.next(10) {
            taken.push((receiver.to_string(), delivery.id));
        }
        assert_eq!(taken.len(), BY_RECEIVER + 1, "{taken:?}");
        assert!(taken.contains(&("quick:80".to_owned(), 5_000)));
        assert_eq!(waiting.next(10), Err(None), "a slot has to become free");
        waiting.free("slow:80");
        assert_eq!(waiting.next(10).unwrap().1.id, BY_RECEIVER as u64, "the oldest of its receiver goes first");
    }

    #[test]
    fn receivers_take_turns_and_nothing_is_kept_of_those_that_are_done() {
        let mut waiting = ReceiverQueues::default();
        for id in 0..3 {
            waiting.put(delivery(id, "a", 0));
            waiting.put(delivery(10 + id, "b", 0));
        }
        waiting.put(delivery(20, "c", 99));
        let order: Vec<u64> = std::iter::from_fn(|| Some(waiting.next(10).ok()?.1.id)).collect();
        assert_eq!(order, [0, 10, 1, 11, 2, 12]);
        assert_eq!(waiting.next(10), Err(Some(99)));
        (0..3).for_each(|_| waiting.free("a:80"));
        assert_eq!(waiting.receivers.len(), 2);
    }
}
