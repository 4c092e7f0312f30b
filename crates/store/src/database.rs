//! A SQLite file with threads that work on it. Callers hand in closures and await the answer, so no connection is ever held
//! across an await, and a full queue makes its caller wait without a thread.
//!
//! Reads and changes are told apart. One thread writes. Reads have threads and connections of their own: quick ones, wide ones
//! (lists), and one connection for each copy of the file, so that none waits behind another kind. A change that meets a full
//! disk is tried once more after the reserve was given up; one that meets a failed write or sync ends all changes until the server
//! is started again, because the kernel forgets what it could not write and would call the next sync a success.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use tokio::sync::{mpsc, oneshot};

use crate::health::{Condition, DiskHealth};
use crate::ids::{Object, Seq};

/// Why the store failed. `database` says which: the file, or the address of a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused.
    #[error("the database {database} failed: {detail}")]
    Database {
        /// Which.
        database: String,
        /// Its message.
        detail: String,
    },
    /// It was written by a newer version of Kipwake.
    #[error("{database} has schema {found}; this version knows up to {known}")]
    Newer {
        /// Which.
        database: String,
        /// The schema's number there.
        found: u32,
        /// The newest one we know.
        known: u32,
    },
    /// The database's thread has ended.
    #[error("the database {database} is closed")]
    Closed {
        /// Which.
        database: String,
    },
    /// The disk is full, the reserve is used up.
    #[error("there is no room on the disk for {database}")]
    Full {
        /// Which.
        database: String,
    },
    /// More changes wait than the disk keeps up with.
    #[error("more changes wait for {database} than its disk keeps up with")]
    Busy {
        /// Which.
        database: String,
    },
    /// A write or a sync failed earlier or now; nothing is written any more.
    #[error("{database} is not durable: {detail}")]
    NotDurable {
        /// Which.
        database: String,
        /// What failed.
        detail: String,
    },
    /// An object has changed since its caller read it.
    #[error("{object} has revision {found}, not {expected}")]
    Stale {
        /// The object.
        object: Object,
        /// The revision that the caller read.
        expected: Seq,
        /// The revision there is; 0 if the object does not exist.
        found: Seq,
    },
    /// The store is no file on this machine.
    #[error("this store is no file that could be copied or replaced")]
    NoFile,
}

/// How carefully writes reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Every commit is synced before it is acknowledged.
    Full,
    /// The last commits may be lost with the power, never the file.
    Normal,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle; clones share the threads, which end with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    readers: Readers,
    care: DiskHealth,
}

/// Jobs that may wait for a thread.
const JOBS: usize = 256;
/// A write-ahead log of this size, and each time it has grown by so much again, is moved into the database.
const LARGE_LOG: u64 = 4 << 20;
/// How long a statement waits for another connection's lock.
const BUSY: Duration = Duration::from_secs(5);

impl Database {
    /// Opens or makes the file and brings its schema to the newest: `migrations[n]` leads from schema n to n + 1.
    pub(crate) fn open(
        path: &Path,
        sync: Sync,
        care: DiskHealth,
        migrations: &'static [&'static str],
    ) -> Result<Self, Error> {
        let mut connection = connect_with_room(path, sync, &care, migrations)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(JOBS);
        start(path, "store", move || {
            while let Some(job) = queue.blocking_recv() {
                run(job, &mut connection);
            }
        })?;
        let readers = Readers::open(path, 1)?;
        Ok(Self { path: path.to_owned(), jobs, readers, care })
    }

    /// What is known of the disk below it.
    pub(crate) fn care(&self) -> &DiskHealth {
        &self.care
    }

    /// Runs a closure that reads a few rows.
    pub(crate) async fn read<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        self.readers.read(job).await
    }

    /// Runs a closure that may read very many rows.
    pub(crate) async fn read_wide<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        self.readers.read_wide(job).await
    }

    /// Runs a closure that changes something, in a transaction of its own. It may be run twice.
    pub(crate) async fn change<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let (path, care) = (self.path.clone(), self.care.clone());
        send(&self.path, &self.jobs, move |c| attempt(c, &path, &care, &job)).await
    }

    /// Writes a copy that is consistent in itself, on a connection of its own.
    pub(crate) async fn copy_to(&self, file: PathBuf) -> Result<(), Error> {
        copy(&self.path, file).await
    }
}

/// Threads that read, each with a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Readers {
    path: PathBuf,
    quick: mpsc::Sender<Job>,
    wide: mpsc::Sender<Job>,
}

impl Readers {
    /// On a file that is open already. So many threads are for quick reads, and one is for wide ones.
    pub(crate) fn open(path: &Path, quick: usize) -> Result<Self, Error> {
        Ok(Self { path: path.to_owned(), quick: read_from(path, quick)?, wide: read_from(path, 1)? })
    }

    pub(crate) async fn read<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let path = self.path.clone();
        send(&self.path, &self.quick, move |c| job(c).map_err(|error| plain(&path, &error))).await
    }

    pub(crate) async fn read_wide<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let path = self.path.clone();
        send(&self.path, &self.wide, move |c| job(c).map_err(|error| plain(&path, &error))).await
    }
}

fn read_from(path: &Path, threads: usize) -> Result<mpsc::Sender<Job>, Error> {
    let (jobs, queue) = mpsc::channel::<Job>(JOBS);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..threads {
        let mut connection = read_only(path)?;
        let queue = queue.clone();
        start(path, "store-reader", move || {
            loop {
                // The lock is held while one of the threads waits; the others wait for the lock.
                let Some(job) = queue.lock().blocking_recv() else { return };
                run(job, &mut connection);
            }
        })?;
    }
    Ok(jobs)
}

/// A connection that cannot write. Nor can it move the log when it is closed.
fn read_only(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|error| plain(path, &error))
}

/// Copies a database that others write to, on a connection and a thread of its own.
pub(crate) async fn copy(path: &Path, file: PathBuf) -> Result<(), Error> {
    let from = path.to_owned();
    let copied = kip_host::tasks::blocking("copy of a database", move || {
        let c = read_only(&from)?;
        c.execute("VACUUM INTO ?1", [file.to_string_lossy()]).map(drop).map_err(|error| plain(&from, &error))
    });
    copied.await.unwrap_or_else(|| Err(Error::Closed { database: name(path) }))
}

fn start(path: &Path, thread: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    kip_host::tasks::thread(thread, work).map(drop).map_err(|error| Error::Database {
        database: name(path),
        detail: format!("its thread cannot be started: {error}"),
    })
}

/// A panic ends the job and not the thread: its caller hears that there is no answer.
fn run(job: Job, connection: &mut Connection) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(connection))).is_err() {
        tracing::error!("a job of the store panicked");
    }
}

async fn send<T, F>(path: &Path, jobs: &mpsc::Sender<Job>, job: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    let closed = || Error::Closed { database: name(path) };
    let job: Job = Box::new(move |connection| {
        let _ = answer.send(job(connection));
    });
    jobs.send(job).await.map_err(|_| closed())?;
    answered.await.map_err(|_| closed())?
}

/// A database as it is named in messages.
pub(crate) fn name(path: &Path) -> String {
    path.display().to_string()
}

/// Checked in the database's thread: a change that waited behind the failed one must not be tried as if nothing had been.
fn attempt<T>(
    c: &mut Connection,
    path: &Path,
    care: &DiskHealth,
    job: &impl Fn(&mut Connection) -> Result<T, rusqlite::Error>,
) -> Result<T, Error> {
    match care.condition() {
        Condition::Writable => {}
        Condition::Full => return Err(Error::Full { database: name(path) }),
        Condition::NotDurable(detail) => return Err(Error::NotDurable { database: name(path), detail }),
    }
    let mut done = job(c);
    if done.as_ref().is_err_and(is_full) && care.make_room() {
        done = job(c);
    }
    match done {
        Ok(value) => {
            checkpoint(c, path, care);
            Ok(value)
        }
        Err(error) if is_full(&error) => {
            care.full();
            Err(Error::Full { database: name(path) })
        }
        Err(error) if is_lost(&error) => {
            poison(c, care, &error);
            Err(Error::NotDurable { database: name(path), detail: error.to_string() })
        }
        Err(error) => Err(plain(path, &error)),
    }
}

/// SQLite's own checkpoints keep their errors to themselves, and try again as if nothing had been.
fn checkpoint(c: &Connection, path: &Path, care: &DiskHealth) {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let length = std::fs::metadata(&log).map_or(0, |file| file.len());
    if length < LARGE_LOG.saturating_add(care.log_left()) {
        return;
    }
    // While a copy is read the log cannot end: what can be moved is, and the next commits do not wait for the reader.
    let done = c
        .busy_timeout(Duration::ZERO)
        .and_then(|()| c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)));
    let _ = c.busy_timeout(BUSY);
    match done {
        Ok(busy) => care.set_log_left(if busy == 0 { 0 } else { length }),
        Err(error) if is_lost(&error) => poison(c, care, &error),
        Err(_) => care.set_log_left(length),
    }
}

pub(crate) fn poison(c: &Connection, care: &DiskHealth, error: &rusqlite::Error) {
    care.not_durable(&error.to_string());
    // Closing must not try to sync it either.
    let _ = c.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

pub(crate) fn plain(path: &Path, error: &rusqlite::Error) -> Error {
    if is_full(error) {
        return Error::Full { database: name(path) };
    }
    Error::Database { database: name(path), detail: error.to_string() }
}

pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _)
        if failure.code == ErrorCode::DiskFull || failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE)
}

/// Whether something that was to be written may be lost.
pub(crate) fn is_lost(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _)
        if failure.code == ErrorCode::SystemIoFailure
            && failure.extended_code != ffi::SQLITE_IOERR_READ
            && failure.extended_code != ffi::SQLITE_IOERR_SHORT_READ)
}

/// Opens a database. Where there is no room for that, the reserve is given up: a server must be able to start on a full disk.
pub(crate) fn connect_with_room(
    path: &Path,
    sync: Sync,
    care: &DiskHealth,
    migrations: &[&str],
) -> Result<Connection, Error> {
    match connect(path, sync, migrations) {
        Err(Error::Full { .. }) if care.make_room() => connect(path, sync, migrations),
        other => other,
    }
}

fn connect(path: &Path, sync: Sync, migrations: &[&str]) -> Result<Connection, Error> {
    let failed = |error: rusqlite::Error| plain(path, &error);
    keep_private(path)?;
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection
        .pragma_update(None, "synchronous", if sync == Sync::Full { "FULL" } else { "NORMAL" })
        .map_err(failed)?;
    if sync == Sync::Full {
        // Where a sync does not reach the disk by itself: macOS.
        connection.pragma_update(None, "fullfsync", true).map_err(failed)?;
    }
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    migrate(&mut connection, path, migrations)?;
    Ok(connection)
}

/// Makes the file, if need be, and lets only its owner read it: declarations may hold secrets. SQLite gives the files
/// beside it the same mode.
pub(crate) fn keep_private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let private = || {
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        let file = kip_host::directory::open_regular(path, &mut options)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
    };
    private().map_err(|error| match error.kind() {
        std::io::ErrorKind::StorageFull => Error::Full { database: name(path) },
        _ => Error::Database { database: name(path), detail: error.to_string() },
    })
}

/// Brings a database to the newest schema, after a copy of it was made beside it.
pub(crate) fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), Error> {
    let failed = |error: rusqlite::Error| plain(path, &error);
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(Error::Newer { database: name(path), found, known });
    }
    if found > 0 && found < known {
        let copy = path.with_extension(format!("before-schema-{known}.db"));
        // A copy that a crash left half done must not stand in the way.
        let _ = std::fs::remove_file(&copy);
        keep_private(&copy)?;
        connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).map_err(failed)?;
    }
    for (number, script) in (1..=known).zip(migrations).skip(found as usize) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(script).map_err(failed)?;
        transaction.pragma_update(None, "user_version", number).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[&str] = &["CREATE TABLE a (x INTEGER)"];
    const TWO: &[&str] = &["CREATE TABLE a (x INTEGER)", "ALTER TABLE a ADD COLUMN y INTEGER"];

    #[tokio::test]
    async fn schemas_go_forward_after_a_copy_and_never_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let first = Database::open(&path, Sync::Full, DiskHealth::default(), ONE).unwrap();
        first.change(|c| c.execute("INSERT INTO a VALUES (7)", [])).await.unwrap();
        drop(first);
        let second = Database::open(&path, Sync::Full, DiskHealth::default(), TWO).unwrap();
        let kept: i64 =
            second.read(|c| c.query_row("SELECT x FROM a WHERE y IS NULL", [], |row| row.get(0))).await.unwrap();
        assert_eq!(kept, 7);
        assert!(folder.path().join("x.before-schema-2.db").exists());
        for file in ["x.db", "x.db-wal", "x.before-schema-2.db"] {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file} can be read by others");
        }
        assert!(matches!(
            Database::open(&path, Sync::Full, DiskHealth::default(), ONE),
            Err(Error::Newer { found: 2, known: 1, .. })
        ));
    }

    /// Holds a thread of the store until it is dropped.
    fn held() -> (std::sync::mpsc::SyncSender<()>, std::sync::mpsc::Receiver<()>) {
        std::sync::mpsc::sync_channel(0)
    }

    #[tokio::test]
    async fn a_full_queue_makes_its_callers_wait_and_not_their_runtime() {
        let folder = tempfile::tempdir().unwrap();
        let store = Database::open(&folder.path().join("x.db"), Sync::Full, DiskHealth::default(), ONE).unwrap();
        let (release, held) = held();
        let held = Mutex::new(Some(held));
        let first = store.change(move |_| {
            let _ = held.lock().take().map(|held| held.recv());
            Ok(0)
        });
        let many = (0..2 * JOBS).map(|_| store.change(|c| c.execute("INSERT INTO a VALUES (1)", [])));
        let changes = futures_util::future::join(first, futures_util::future::join_all(many));
        // All of this runs on one thread: a caller that blocked it would never let it go on.
        let others = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            drop(release);
        };
        let ((_, all), ()) = futures_util::future::join(changes, others).await;
        assert!(all.into_iter().all(|inserted| inserted.unwrap() == 1));
    }

    #[tokio::test]
    async fn quick_reads_wait_neither_for_changes_nor_for_wide_reads_nor_for_copies() {
        let folder = tempfile::tempdir().unwrap();
        let store = Database::open(&folder.path().join("x.db"), Sync::Full, DiskHealth::default(), ONE).unwrap();
        store.change(|c| c.execute("INSERT INTO a VALUES (7)", [])).await.unwrap();
        let ((writer, held), (wide, read)) = (held(), held());
        let (held, changing, reading) = (Mutex::new(Some(held)), store.clone(), store.clone());
        let change = kip_host::tasks::spawn("change", async move {
            changing
                .change(move |_| {
                    let _ = held.lock().take().map(|held| held.recv());
                    Ok(())
                })
                .await
        });
        let list =
            kip_host::tasks::spawn("list", async move { reading.read_wide(move |_| Ok(read.recv().is_err())).await });
        let found = |c: &mut Connection| c.query_row("SELECT x FROM a", [], |row| row.get::<_, i64>(0));
        assert_eq!(store.read(found).await.unwrap(), 7);
        store.copy_to(folder.path().join("copy.db")).await.unwrap();
        drop((writer, wide));
        change.await.unwrap().unwrap();
        assert!(list.await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn the_log_is_moved_again_when_a_copy_that_held_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let store = Database::open(&path, Sync::Normal, DiskHealth::default(), ONE).unwrap();
        let grow = async || {
            let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000) INSERT INTO a SELECT i FROM n";
            store.change(move |c| c.execute(fill, [])).await.unwrap();
            std::fs::metadata(folder.path().join("x.db-wal")).unwrap().len()
        };
        let reader = read_only(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM a;").unwrap();
        let (first, second) = (grow().await, grow().await);
        assert!(first > LARGE_LOG && second > first, "a reader holds the log: {first} {second}");
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(grow().await, 0);
    }
}
