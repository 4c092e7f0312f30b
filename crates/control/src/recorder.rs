//! From the hot path to the record store: a bounded channel, a batch writer, and a count of what had to be dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kip_store::{Record, RecordStore, RequestRecord};
use tokio::sync::{mpsc, oneshot};

/// Records that may wait; more are dropped and counted.
const WAITING: usize = 16_384;
/// Records in one transaction.
const BATCH: usize = 1_024;
/// How long a record may wait for company.
const GATHER: Duration = Duration::from_millis(100);
/// Records of each kind that are kept.
const KEPT: u32 = 100_000;
/// Records between two prunings.
const PRUNE_EVERY: usize = 10_000;

enum Item {
    Record(Box<Record>),
    Flush(oneshot::Sender<()>),
}

/// Where records are handed in. Cheap to clone; never waits.
#[derive(Debug, Clone)]
pub struct Recorder {
    items: mpsc::Sender<Item>,
    dropped: Arc<AtomicU64>,
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
    pub(crate) fn start(store: Arc<dyn RecordStore>) -> Self {
        let (items, queue) = mpsc::channel(WAITING);
        kip_host::tasks::spawn("record writer", write(store, queue));
        Self { items, dropped: Arc::default() }
    }

    /// Hands in a record, or drops and counts it when the disk does not keep up.
    pub(crate) fn record(&self, record: Record) {
        if self.items.try_send(Item::Record(Box::new(record))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands in a request's record.
    pub fn request(&self, record: RequestRecord) {
        self.record(Record::Request(record));
    }

    /// Counts a record that was left out on purpose, because there were enough of its kind.
    pub fn leave_out(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until everything handed in before is in the store.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.items.send(Item::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Records left out or dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

async fn write(store: Arc<dyn RecordStore>, mut queue: mpsc::Receiver<Item>) {
    let mut since_prune = 0;
    let mut items = Vec::with_capacity(BATCH);
    loop {
        let mut flushes = Vec::new();
        if queue.recv_many(&mut items, BATCH).await == 0 {
            return;
        }
        if !items.iter().any(|item| matches!(item, Item::Flush(_))) && items.len() < BATCH {
            let more = async {
                while items.len() < BATCH && !matches!(items.last(), Some(Item::Flush(_))) {
                    match queue.recv().await {
                        Some(item) => items.push(item),
                        None => return,
                    }
                }
            };
            let _ = tokio::time::timeout(GATHER, more).await;
        }
        let mut batch = Vec::with_capacity(items.len());
        for item in items.drain(..) {
            match item {
                Item::Record(record) => batch.push(*record),
                Item::Flush(done) => flushes.push(done),
            }
        }
        since_prune += batch.len();
        if !batch.is_empty()
            && let Err(error) = store.append(batch).await
        {
            tracing::error!(%error, "records are lost");
        }
        if since_prune >= PRUNE_EVERY {
            since_prune = 0;
            if let Err(error) = store.prune(KEPT).await {
                tracing::error!(%error, "old records stay");
            }
        }
        for done in flushes {
            let _ = done.send(());
        }
    }
}
