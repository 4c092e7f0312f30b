//! Tasks in a SQLite file.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::Connection;

use super::apply;
use super::blobs::{BlobRetention, Blobs, Pin, parent, sync_folder};
use super::checkpoint::{self, Checkpointer};
use super::model::{
    Delivery, DeliveryOutcome, NewTask, Output, Step, StepOutcome, SubmitOutcome, SyncTimes, Task, TaskFilter,
    TaskReader, TaskStore,
};
use super::read::{self, StoredBytes};
use super::writer::Writer;
use crate::database::{self, Error, Readers, Sync, name, plain};
use crate::health::{Condition, DiskHealth};
use crate::sqlite::SqliteFile;
use kip_spec::task::TaskNumber;

/// The writer's pages in memory; SQLite takes a negative number for KiB, and looks through all of them at each commit.
const CACHE: i64 = -8_192;

/// How a store is run. The default is what a server uses; the rest is for measurements and for tests that must see a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Whether a commit is synced before it is answered.
    pub synced: bool,
    /// Changes of one commit.
    pub batch: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { synced: true, batch: usize::MAX }
    }
}

/// The task store in a SQLite file, with a folder beside it for what is large.
#[derive(Debug, Clone)]
pub struct SqliteTasks {
    path: PathBuf,
    care: DiskHealth,
    writer: Writer,
    readers: Readers,
    blobs: Blobs,
    probe_us: u64,
}

impl SqliteTasks {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`Error::Newer`] for a file of a newer version, [`Error::Full`] without room, [`Error::Database`] otherwise.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, DiskHealth::default(), Tuning::default())
    }

    /// Opens or makes the file, with room that is kept for it, to be run in a certain way.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: &Path, care: DiskHealth, tuning: Tuning) -> Result<Self, Error> {
        let sync = if tuning.synced { Sync::Full } else { Sync::Normal };
        let mut connection = database::connect_with_room(path, sync, &care, apply::MIGRATIONS)?;
        // What was accepted lately is what is claimed and ended next.
        connection.pragma_update(None, "cache_size", CACHE).map_err(|error| plain(path, &error))?;
        let io = |error: std::io::Error| io_error(path, &error);
        // SQLite syncs its files, not that they are there.
        let folder = parent(path);
        sync_folder(folder).map_err(io)?;
        let blobs = Blobs::open(&path.with_extension("blobs")).map_err(io)?;
        let known = read::blobs(&connection).map_err(|error| plain(path, &error))?;
        blobs.sweep(|name| known.contains(name)).map_err(io)?;
        let checkpointer = Checkpointer::start(path, &mut connection, checkpoint::connect(path)?, care.clone())?;
        let writer = Writer::start(path, connection, care.clone(), blobs.clone(), checkpointer, tuning.batch)?;
        let readers = Readers::open(path, 2)?;
        // A server must start on a full disk too, where there is nothing to be measured.
        let probe_us = probe(folder).unwrap_or_default();
        Ok(Self { path: path.to_owned(), care, writer, readers, blobs, probe_us })
    }

    /// Writes what is large into a file, on a thread that may wait for the disk.
    async fn put_aside(&self, bytes: &Bytes) -> Result<Option<Pin>, Error> {
        if !apply::is_large(bytes) {
            return Ok(None);
        }
        match self.care.condition() {
            Condition::Writable => {}
            Condition::Full => return Err(Error::Full { database: name(&self.path) }),
            Condition::NotDurable(detail) => return Err(Error::NotDurable { database: name(&self.path), detail }),
        }
        let (blobs, bytes, care) = (self.blobs.clone(), bytes.clone(), self.care.clone());
        let put = kip_host::tasks::blocking("blob", move || match blobs.put(&bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull && care.make_room() => blobs.put(&bytes),
            other => other,
        });
        let put = put.await.ok_or_else(|| Error::Closed { database: name(&self.path) })?;
        put.map(Some).map_err(|error| {
            if error.kind() == std::io::ErrorKind::StorageFull {
                self.care.full();
            } else {
                self.care.not_durable(&error.to_string());
            }
            match self.care.condition() {
                Condition::NotDurable(detail) => Error::NotDurable { database: name(&self.path), detail },
                _ => io_error(&self.path, &error),
            }
        })
    }

    async fn fetch(&self, stored: StoredBytes) -> Result<Bytes, Error> {
        match stored {
            StoredBytes::Inline(bytes) => Ok(bytes),
            StoredBytes::Blob(hash) => {
                let (blobs, path) = (self.blobs.clone(), self.path.clone());
                let read = kip_host::tasks::blocking("blob", move || blobs.get(&hash));
                let read = read.await.ok_or_else(|| Error::Closed { database: name(&path) })?;
                read.map_err(|error| io_error(&self.path, &error))
            }
        }
    }
}

fn io_error(path: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull => Error::Full { database: name(path) },
        _ => Error::Database { database: name(path), detail: error.to_string() },
    }
}

/// How long a sync of a small write takes here, in microseconds: the median of a few. What is slow later is this number
/// more often than anything else.
fn probe(folder: &Path) -> std::io::Result<u64> {
    use std::io::{Seek, Write};
    const LIMIT: u64 = 200_000;
    let mut file = tempfile_in(folder)?;
    let begun = kip_host::clock::monotonic_micros();
    let mut times = Vec::new();
    while times.len() < 21 && kip_host::clock::monotonic_micros() < begun + LIMIT {
        let before = kip_host::clock::monotonic_micros();
        file.rewind()?;
        file.write_all(&[0x5A; 4096])?;
        file.sync_data()?;
        times.push(kip_host::clock::monotonic_micros() - before);
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

/// A file that is gone from its folder at once.
fn tempfile_in(folder: &Path) -> std::io::Result<std::fs::File> {
    let path = folder.join(format!("sync-probe-{:032x}", kip_host::random::unique()));
    let file = std::fs::OpenOptions::new().create_new(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[async_trait]
impl TaskReader for SqliteTasks {
    async fn configs(&self) -> Result<Vec<(String, String, String)>, Error> {
        self.readers.read_wide(|c| read::configs(c)).await
    }

    async fn task(&self, number: TaskNumber) -> Result<Option<Task>, Error> {
        self.readers.read(move |c| read::task(c, number)).await
    }

    async fn find(
        &self,
        function: String,
        tenant: Option<String>,
        id: String,
    ) -> Result<Vec<(String, TaskNumber)>, Error> {
        self.readers.read(move |c| read::find(c, &function, tenant.as_deref(), &id)).await
    }

    async fn payload(&self, number: TaskNumber) -> Result<Option<Bytes>, Error> {
        match self.readers.read(move |c| read::payload(c, number)).await? {
            Some(stored) => self.fetch(stored).await.map(Some),
            None => Ok(None),
        }
    }

    async fn output(&self, number: TaskNumber) -> Result<Option<Output>, Error> {
        match self.readers.read(move |c| read::output(c, number)).await? {
            Some((head, stored)) => Ok(Some(Output { head, body: self.fetch(stored).await? })),
            None => Ok(None),
        }
    }

    async fn kept_results(&self) -> Result<Vec<(String, String, u64)>, Error> {
        let blobs = self.blobs.clone();
        self.readers.read_wide(move |c| read::kept_results(c, |hash| blobs.bytes_of(hash))).await
    }

    async fn list(&self, filter: TaskFilter) -> Result<Vec<Task>, Error> {
        self.readers.read_wide(move |c| read::list(c, &filter)).await
    }

    async fn count(&self, filter: TaskFilter, most: u64) -> Result<u64, Error> {
        self.readers.read_wide(move |c| read::count(c, &filter, most)).await
    }

    async fn open(&self, after: TaskNumber, most: u32) -> Result<Vec<Task>, Error> {
        self.readers.read_wide(move |c| read::open(c, after, most)).await
    }

    async fn deliveries(&self) -> Result<Vec<Delivery>, Error> {
        self.readers.read_wide(|c| read::deliveries(c)).await
    }

    fn sync_times(&self) -> SyncTimes {
        let times = *self.writer.times().lock();
        SyncTimes { probe_us: self.probe_us, ..times }
    }

    fn condition(&self) -> Condition {
        self.care.condition()
    }
}

#[async_trait]
impl TaskStore for SqliteTasks {
    async fn accept(&self, task: NewTask) -> Result<SubmitOutcome, Error> {
        let pin = self.put_aside(&task.payload).await?;
        let bytes = if pin.is_some() { 0 } else { task.payload.len() } + task.envelope.len();
        self.writer.change(bytes, move |c, scratch| apply::accept(c, &task, pin.as_ref(), &mut scratch.next)).await
    }

    async fn advance(&self, step: Step) -> Result<StepOutcome, Error> {
        Ok(self.advance_all(vec![step]).await?.pop().unwrap_or_default())
    }

    async fn advance_all(&self, steps: Vec<Step>) -> Result<Vec<StepOutcome>, Error> {
        let mut pinned = Vec::with_capacity(steps.len());
        let mut bytes = 0;
        for step in steps {
            let pin = match &step.output {
                Some(output) => self.put_aside(&output.body).await?,
                None => None,
            };
            bytes += step.output.as_ref().filter(|_| pin.is_none()).map_or(0, |output| output.body.len());
            pinned.push((step, pin));
        }
        self.writer
            .change(bytes, move |c, scratch| {
                pinned.iter().map(|(step, pin)| apply::advance(c, step, pin.as_ref(), scratch)).collect()
            })
            .await
    }

    async fn renew(&self, claims: Vec<(TaskNumber, u32)>, until: u64) -> Result<Vec<bool>, Error> {
        self.writer.change(claims.len() * 16, move |c, _| apply::renew(c, &claims, until)).await
    }

    async fn note_progress(&self, number: TaskNumber, epoch: u32, at: i64, text: String) -> Result<bool, Error> {
        self.writer.change(text.len(), move |c, _| apply::note_progress(c, number, epoch, at, &text)).await
    }

    async fn delivered(&self, id: u64, result: DeliveryOutcome) -> Result<(), Error> {
        self.writer.change(64, move |c, _| apply::delivered(c, id, &result)).await
    }

    async fn put_config(&self, function: String, qualifier: String, text: Option<String>) -> Result<(), Error> {
        self.writer.change(256, move |c, _| apply::put_config(c, &function, &qualifier, text.as_deref())).await
    }

    async fn forget(&self, numbers: Vec<TaskNumber>) -> Result<u64, Error> {
        self.writer
            .clear(numbers.len() * 64, move |c: &Connection, scratch| {
                let mut gone = 0;
                for number in &numbers {
                    gone += u64::from(apply::forget(c, *number, scratch.next, &mut scratch.loose)?);
                }
                Ok(gone)
            })
            .await
    }

    async fn prune(&self, after: TaskNumber, ended_before: i64) -> Result<Option<TaskNumber>, Error> {
        self.writer
            .clear(0, move |c, scratch| apply::prune(c, after, ended_before, scratch.next, &mut scratch.loose))
            .await
    }
}

#[async_trait]
impl SqliteFile for SqliteTasks {
    async fn copy_to(&self, file: PathBuf) -> Result<Option<BlobRetention>, Error> {
        let hold = self.blobs.hold();
        database::copy(&self.path, file).await?;
        Ok(Some(hold))
    }

    fn room_again(&self) {
        self.care.room_again();
    }
}
