//! The one thread that changes tasks. It takes everything that is waiting, applies it in one transaction, commits with a
//! sync, and answers all: there is no timer, for while one commit syncs the next batch gathers.
//!
//! A batch that finds no room is tried once more after the reserve was given up. A write or sync that fails ends all changes
//! until the next start. A change that fails for another reason is told from its neighbours by applying each alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::apply;
use super::blobs::Blobs;
use super::checkpoint::Checkpointer;
use super::model::SyncTimes;
use crate::database::{Error, is_full, is_lost, name, plain, poison};
use crate::health::{Condition, DiskHealth};

/// Changes of one commit.
const BATCH: usize = 4_096;
/// Bytes of one commit, as far as the changes know.
const BATCH_BYTES: usize = 8 << 20;
/// Changes that may wait for the thread. More are refused: whoever sends them should hear of it.
const WAITING: usize = 16_384;

/// What changes see besides the connection.
#[derive(Debug)]
pub(super) struct Scratch {
    /// The number of the next task.
    pub(super) next: u64,
    /// Files that lost their last reference in this transaction.
    pub(super) loose: Vec<String>,
    /// Steps that were applied since the start.
    pub(super) steps: u64,
}

trait Work: Send {
    fn apply(&mut self, c: &Connection, scratch: &mut Scratch) -> Result<(), rusqlite::Error>;
    fn answer(self: Box<Self>, failed: Option<Error>);
    fn bytes(&self) -> usize;
    /// Whether it makes room, and so is worth a try on a full disk.
    fn frees(&self) -> bool;
}

struct Job<T, F> {
    bytes: usize,
    frees: bool,
    work: F,
    done: Option<T>,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Work for Job<T, F>
where
    T: Send,
    F: Fn(&Connection, &mut Scratch) -> Result<T, rusqlite::Error> + Send,
{
    fn apply(&mut self, c: &Connection, scratch: &mut Scratch) -> Result<(), rusqlite::Error> {
        self.done = Some((self.work)(c, scratch)?);
        Ok(())
    }

    fn answer(self: Box<Self>, failed: Option<Error>) {
        let result = match (failed, self.done) {
            (Some(error), _) => Err(error),
            (None, Some(done)) => Ok(done),
            // Answered without having been applied, which does not happen.
            (None, None) => return,
        };
        let _ = self.answer.send(result);
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn frees(&self) -> bool {
        self.frees
    }
}

/// A handle; clones share the thread, which ends with the last of them.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    path: PathBuf,
    jobs: SyncSender<Box<dyn Work>>,
    times: Arc<Mutex<SyncTimes>>,
}

impl std::fmt::Debug for dyn Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

impl Writer {
    /// Starts the thread on an open connection.
    pub(super) fn start(
        path: &Path,
        connection: Connection,
        care: DiskHealth,
        blobs: Blobs,
        checkpointer: Checkpointer,
        batch: usize,
    ) -> Result<Self, Error> {
        let next = apply::next_number(&connection).map_err(|error| plain(path, &error))?;
        let (jobs, queue) = sync_channel(WAITING);
        let times = Arc::new(Mutex::new(SyncTimes::default()));
        let scratch = Scratch { next, loose: Vec::new(), steps: 0 };
        let batch = batch.clamp(1, BATCH);
        let mut desk = WriterInbox {
            path: path.to_owned(),
            connection,
            care,
            blobs,
            checkpointer,
            scratch,
            times: times.clone(),
            batch,
        };
        kip_host::tasks::thread("tasks-store", move || desk.work(&queue)).map_err(|error| Error::Database {
            database: name(path),
            detail: format!("its thread cannot be started: {error}"),
        })?;
        Ok(Self { path: path.to_owned(), jobs, times })
    }

    pub(super) fn times(&self) -> &Mutex<SyncTimes> {
        &self.times
    }

    /// Applies a change and answers when it is on disk. It may be applied more than once, and counts once. `bytes` is about
    /// what it writes.
    pub(super) async fn change<T, F>(&self, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Connection, &mut Scratch) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        self.send(bytes, false, work).await
    }

    /// The same for a change that takes things away: it is tried on a full disk too.
    pub(super) async fn clear<T, F>(&self, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Connection, &mut Scratch) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        self.send(bytes, true, work).await
    }

    async fn send<T, F>(&self, bytes: usize, frees: bool, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Connection, &mut Scratch) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(Job { bytes, frees, work, done: None, answer });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy { database: name(&self.path) },
            TrySendError::Disconnected(_) => Error::Closed { database: name(&self.path) },
        })?;
        answered.await.map_err(|_| Error::Closed { database: name(&self.path) })?
    }
}

struct WriterInbox {
    path: PathBuf,
    connection: Connection,
    care: DiskHealth,
    blobs: Blobs,
    checkpointer: Checkpointer,
    scratch: Scratch,
    times: Arc<Mutex<SyncTimes>>,
    batch: usize,
}

impl WriterInbox {
    fn work(&mut self, queue: &Receiver<Box<dyn Work>>) {
        while let Ok(first) = queue.recv() {
            let mut bytes = first.bytes();
            let mut batch = vec![first];
            while batch.len() < self.batch && bytes < BATCH_BYTES {
                let Ok(next) = queue.try_recv() else { break };
                bytes += next.bytes();
                batch.push(next);
            }
            self.commit(batch);
        }
    }

    fn commit(&mut self, mut batch: Vec<Box<dyn Work>>) {
        if let Some(refused) = self.refusal() {
            let full = self.care.condition() == Condition::Full;
            let (free, others) = batch.into_iter().partition::<Vec<_>, _>(|job| full && job.frees());
            others.into_iter().for_each(|job| job.answer(Some(refused())));
            if free.is_empty() {
                return;
            }
            // What is in the log goes where it belongs, which takes no room, and the log's room is there for this.
            let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            batch = free;
        }
        let mut done = self.attempt(&mut batch);
        if done.as_ref().is_err_and(is_full) && self.care.make_room() {
            done = self.attempt(&mut batch);
        }
        match done {
            Ok(()) => batch.into_iter().for_each(|job| job.answer(None)),
            Err(error) if is_full(&error) => {
                self.care.full();
                batch.into_iter().for_each(|job| job.answer(Some(Error::Full { database: name(&self.path) })));
                return;
            }
            Err(error) if is_lost(&error) => {
                poison(&self.connection, &self.care, &error);
                let detail = error.to_string();
                let lost = || Error::NotDurable { database: name(&self.path), detail: detail.clone() };
                batch.into_iter().for_each(|job| job.answer(Some(lost())));
                return;
            }
            Err(error) if batch.len() == 1 => {
                batch.into_iter().for_each(|job| job.answer(Some(plain(&self.path, &error))));
                return;
            }
            Err(_) => {
                // One of them cannot be applied. Each alone, so that it fails alone.
                batch.into_iter().for_each(|job| self.commit(vec![job]));
                return;
            }
        }
        let loose = std::mem::take(&mut self.scratch.loose);
        self.blobs.remove(loose, |hash| apply::is_referred_to(&self.connection, hash));
        self.checkpointer.committed(&self.connection, &self.care);
    }

    /// Why no change is taken, if none is.
    fn refusal(&self) -> Option<Box<dyn Fn() -> Error>> {
        let path = self.path.clone();
        match self.care.condition() {
            Condition::Writable => None,
            Condition::Full => Some(Box::new(move || Error::Full { database: name(&path) })),
            Condition::NotDurable(detail) => {
                Some(Box::new(move || Error::NotDurable { database: name(&path), detail: detail.clone() }))
            }
        }
    }

    /// All of a batch or nothing of it.
    fn attempt(&mut self, batch: &mut [Box<dyn Work>]) -> Result<(), rusqlite::Error> {
        let next = self.scratch.next;
        let done = self.transact(batch);
        if done.is_err() {
            self.scratch.next = next;
            self.scratch.loose.clear();
        }
        done
    }

    fn transact(&mut self, batch: &mut [Box<dyn Work>]) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in batch.iter_mut() {
            job.apply(&transaction, &mut self.scratch)?;
        }
        let before = kip_host::clock::monotonic_micros();
        transaction.commit()?;
        let took = kip_host::clock::monotonic_micros().saturating_sub(before);
        let mut times = self.times.lock();
        times.recent_us = if times.commits == 0 { took } else { (times.recent_us * 15 + took) / 16 };
        times.worst_us = times.worst_us.max(took);
        times.commits += 1;
        times.changes += batch.len() as u64;
        Ok(())
    }
}
