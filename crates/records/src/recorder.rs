//! From the hot path to the record store: a bounded channel, a batch writer, and a count of what had to be dropped.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kip_host::disk::Pressure;
use kip_host::failpoint::reached;
use kip_host::tasks::Supervisor;
use kip_spec::secret::masked_path;
use kip_store::{Condition, Record, RecordStore, RequestRecord, Retention};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::access_log::{AccessLog, Entry};
use crate::ledger::KeyLedger;
use crate::traces::Traces;

/// Records that may wait; more are dropped and counted.
const WAITING: usize = 16_384;
/// Records in one transaction.
const BATCH: usize = 1_024;
/// How long a record may wait for company: what a loss of power may take. Each writing costs a transaction and a dozen pages, so few
/// large ones are cheap; who asks for records has them written first.
const GATHER: Duration = Duration::from_secs(1);
/// Records between two prunings.
const PRUNE_EVERY: usize = 10_000;
/// Old ones go at least so often, even if none come.
const PRUNE_PAUSE: Duration = Duration::from_secs(3_600);

enum Item {
    Record(Box<Record>),
    Flush(oneshot::Sender<()>),
}

/// Where records are handed in. Cheap to clone; never waits.
#[derive(Debug, Clone)]
pub struct Recorder {
    items: mpsc::Sender<Item>,
    dropped: Arc<AtomicU64>,
    shed: Arc<AtomicU64>,
    pressure: Pressure,
    access_log: Option<AccessLog>,
    traces: Option<Traces>,
    ledger: KeyLedger,
    /// Somebody waits for what was handed in.
    urgent: Arc<Notify>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Record(_) => "record",
            Self::Flush(_) => "flush",
        })
    }
}

impl Recorder {
    /// Starts the writer on the current runtime.
    pub fn start(
        store: Arc<dyn RecordStore>,
        pressure: Pressure,
        retention: Retention,
        access_log: Option<AccessLog>,
        traces: Option<Traces>,
        supervisor: &Supervisor,
    ) -> Self {
        let (items, queue) = mpsc::channel(WAITING);
        let shed = Arc::default();
        let urgent = Arc::<Notify>::default();
        let writer =
            Writer { store, shed: Arc::clone(&shed), pressure: pressure.clone(), retention, urgent: urgent.clone() };
        supervisor.vital("record writer", writer.run(queue));
        let ledger = KeyLedger::default();
        Self { items, dropped: Arc::default(), shed, pressure, access_log, traces, ledger, urgent }
    }

    /// Hands in a record, or drops and counts it when the disk does not keep up.
    pub fn record(&self, record: Record) {
        if self.pressure.sheds() {
            self.shed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.items.try_send(Item::Record(Box::new(record))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        // At most: several threads hand records in, and one value can be stepped over.
        if self.items.capacity() <= WAITING / 2 {
            self.urgent.notify_one();
        }
    }

    /// Hands in a request's record.
    pub fn request(&self, record: RequestRecord) {
        self.record(Record::Request(without_secrets(record)));
    }

    /// Counts a record that was left out on purpose, because there were enough of its kind.
    pub fn leave_out(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether each request is to be handed to [`log`](Self::log), also those that are not recorded.
    pub fn logs(&self) -> bool {
        self.access_log.is_some()
    }

    /// Hands in a line of the access log, if there is one.
    pub fn log(&self, record: RequestRecord, peer: Option<IpAddr>) {
        if let Some(access_log) = &self.access_log {
            access_log.hand_in(Entry { record: without_secrets(record), peer });
        }
    }

    /// Where traces of requests go, if anywhere.
    pub fn traces(&self) -> Option<&Traces> {
        self.traces.as_ref()
    }

    /// What was worked on for each key.
    pub fn ledger(&self) -> &KeyLedger {
        &self.ledger
    }

    /// Lines of the access log that were not written.
    pub fn lines_dropped(&self) -> u64 {
        self.access_log.as_ref().map_or(0, AccessLog::dropped)
    }

    /// Waits until everything handed in before is in the store, and in the access log.
    pub async fn flush(&self) {
        if let Some(access_log) = &self.access_log {
            access_log.flush().await;
        }
        let (done, flushed) = oneshot::channel();
        if self.items.send(Item::Flush(done)).await.is_ok() {
            self.urgent.notify_one();
            let _ = flushed.await;
        }
    }

    /// Records left out or dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed) + self.shed()
    }

    /// Of these, records left out because the disk is nearly full or does not take them.
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }
}

/// A path may have a key of ours or of others in it: a caller that took it for a place to write it.
pub(crate) fn without_secrets(mut record: RequestRecord) -> RequestRecord {
    if let Cow::Owned(masked) = masked_path(&record.path) {
        record.path = masked;
    }
    record
}

/// The other end of the channel.
struct Writer {
    store: Arc<dyn RecordStore>,
    shed: Arc<AtomicU64>,
    pressure: Pressure,
    retention: Retention,
    urgent: Arc<Notify>,
}

impl Writer {
    async fn run(self, mut queue: mpsc::Receiver<Item>) {
        let mut since_prune = 0;
        let mut items = Vec::with_capacity(BATCH);
        self.prune().await;
        loop {
            match tokio::time::timeout(PRUNE_PAUSE, queue.recv_many(&mut items, BATCH)).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => {
                    self.prune().await;
                    continue;
                }
            }
            if !items.iter().any(|item| matches!(item, Item::Flush(_))) && items.len() < BATCH {
                // Asleep, and not waiting for the next one: a record that comes then wakes nobody.
                let _ = tokio::time::timeout(GATHER, self.urgent.notified()).await;
                while items.len() < BATCH
                    && let Ok(item) = queue.try_recv()
                {
                    items.push(item);
                }
            }
            let mut flushes = Vec::new();
            let mut batch = Vec::with_capacity(items.len());
            for item in items.drain(..) {
                match item {
                    Item::Record(record) => batch.push(*record),
                    Item::Flush(done) => flushes.push(done),
                }
            }
            since_prune += batch.len();
            self.append(batch).await;
            if since_prune >= PRUNE_EVERY {
                since_prune = 0;
                self.prune().await;
            }
            for done in flushes {
                let _ = done.send(());
            }
        }
    }

    async fn append(&self, batch: Vec<Record>) {
        reached("record writer: batch");
        let count = batch.len() as u64;
        if count == 0 {
            return;
        }
        // What was handed in before the disk got full.
        let lost = self.pressure.sheds() || self.store.condition() != Condition::Writable || {
            let appended = self.store.append(batch).await;
            if let Err(error) = &appended {
                tracing::error!(%error, "records are lost");
            }
            appended.is_err()
        };
        if lost {
            self.shed.fetch_add(count, Ordering::Relaxed);
        }
    }

    async fn prune(&self) {
        if let Err(error) = self.store.prune(self.retention, kip_host::clock::wall_millis()).await {
            tracing::error!(%error, "old records stay");
        }
    }
}
