//! Deliveries that wait, by receiver: a slow receiver takes nobody else's slots.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kip_host::tls::Trust;
use kip_store::tasks::Delivery;
use kip_tasks::config::Target;
use kip_tasks::notification::Notification;
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};

/// Words on their way at once, and to one receiver.
const AT_ONCE: usize = 512;
const BY_RECEIVER: usize = 8;

/// Words that are still to be sent.
#[derive(Debug, Default)]
pub(crate) struct DeliveryQueue {
    pub(crate) waiting: Mutex<ReceiverQueues>,
    pub(crate) more: Notify,
    /// Who is trusted over TLS, once somebody was to be told so.
    trust: OnceCell<Trust>,
}

/// By receiver, each with a queue and slots of its own: a slow receiver takes nobody else's.
#[derive(Debug, Default)]
pub(crate) struct ReceiverQueues {
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
    pub(crate) fn next(&mut self, now: i64) -> Result<(Arc<str>, Delivery), Option<i64>> {
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

    pub(crate) fn free(&mut self, name: &str) {
        let Some(receiver) = self.receivers.get_mut(name) else { return };
        receiver.busy -= 1;
        self.busy -= 1;
        if receiver.busy == 0 && receiver.by_time.is_empty() {
            self.receivers.remove(name);
        }
    }
}

impl DeliveryQueue {
    pub(crate) fn put_back(&self, word: Delivery) {
        self.waiting.lock().put(word);
        self.more.notify_one();
    }

    /// Whom to trust, by the certificates of this file or of the system. What failed is tried again.
    pub(crate) async fn trust(&self, file: Option<PathBuf>) -> Result<Trust, String> {
        let read = || async move {
            let read = kip_host::tasks::blocking("trusted certificates", move || Trust::of(file.as_deref())).await;
            read.ok_or("the server ends")?.map_err(|error| error.to_string())
        };
        self.trust.get_or_try_init(read).await.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_store::tasks::TaskNumber;
    use kip_tasks::config::Destination;

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
