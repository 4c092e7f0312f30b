//! A SQLite file with one thread that works on it. Callers hand in closures and await the answer, so no connection is
//! ever held across an await.
//!
//! Reads and changes are told apart. A change that meets a full disk is tried once more after the reserve was given up; one
//! that meets a failed write or sync ends all changes until the server is started again, because the kernel forgets what
//! it could not write and would call the next sync a success.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, ffi};
use tokio::sync::oneshot;

use crate::health::{Care, Condition};

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite said no.
    #[error("the database {} failed: {detail}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        detail: String,
    },
    /// The file was written by a newer version of Kipwake.
    #[error("{} has schema {found}; this version knows up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema's number in the file.
        found: u32,
        /// The newest one we know.
        known: u32,
    },
    /// The database's thread has ended.
    #[error("the database {} is closed", path.display())]
    Closed {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full, the reserve is used up.
    #[error("there is no room on the disk for {}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// More changes wait than the disk keeps up with.
    #[error("more changes wait for {} than its disk keeps up with", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A write or a sync failed earlier or now; nothing is written any more.
    #[error("{} is not durable: {detail}", path.display())]
    NotDurable {
        /// The file.
        path: PathBuf,
        /// What failed.
        detail: String,
    },
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

/// A handle; clones share the thread, which ends with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    path: PathBuf,
    jobs: SyncSender<Job>,
    care: Care,
}

/// Jobs that may wait for the thread.
const JOBS: usize = 256;
/// A write-ahead log of this size is moved into the database.
const LARGE_LOG: u64 = 4 << 20;

impl Database {
    /// Opens or makes the file and brings its schema to the newest: `migrations[n]` leads from schema n to n + 1.
    pub(crate) fn open(
        path: &Path,
        sync: Sync,
        care: Care,
        migrations: &'static [&'static str],
    ) -> Result<Self, Error> {
        Self::start(path, connect_with_room(path, sync, &care, migrations)?, care)
    }

    /// Another thread on a file that is open already, to read from it.
    pub(crate) fn attach(path: &Path, care: Care) -> Result<Self, Error> {
        let connection = Connection::open(path).map_err(|error| plain(path, &error))?;
        connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(|error| plain(path, &error))?;
        Self::start(path, connection, care)
    }

    fn start(path: &Path, connection: Connection, care: Care) -> Result<Self, Error> {
        let (jobs, queue) = sync_channel::<Job>(JOBS);
        kip_host::tasks::thread("store", move || work(connection, &queue)).map_err(|error| Error::Database {
            path: path.to_owned(),
            detail: format!("its thread cannot be started: {error}"),
        })?;
        Ok(Self { path: path.to_owned(), jobs, care })
    }

    /// What is known of the disk below it.
    pub(crate) fn care(&self) -> &Care {
        &self.care
    }

    /// Runs a closure that only reads on the connection.
    pub(crate) async fn read<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let path = self.path.clone();
        self.run(move |c| job(c).map_err(|error| plain(&path, &error))).await
    }

    /// Runs a closure that changes something, in a transaction of its own. It may be run twice.
    pub(crate) async fn change<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let (path, care) = (self.path.clone(), self.care.clone());
        self.run(move |c| attempt(c, &path, &care, &job)).await
    }

    async fn run<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let closed = || Error::Closed { path: self.path.clone() };
        let job: Job = Box::new(move |connection| {
            let _ = answer.send(job(connection));
        });
        // The channel is full only when the disk stalls; then a caller's thread waits with it rather than memory growing.
        self.jobs.send(job).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

/// Checked in the database's thread: a change that waited behind the failed one must not be tried as if nothing had been.
fn attempt<T>(
    c: &mut Connection,
    path: &Path,
    care: &Care,
    job: &impl Fn(&mut Connection) -> Result<T, rusqlite::Error>,
) -> Result<T, Error> {
    match care.condition() {
        Condition::Writable => {}
        Condition::Full => return Err(Error::Full { path: path.to_owned() }),
        Condition::NotDurable(detail) => return Err(Error::NotDurable { path: path.to_owned(), detail }),
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
            Err(Error::Full { path: path.to_owned() })
        }
        Err(error) if is_lost(&error) => {
            poison(c, care, &error);
            Err(Error::NotDurable { path: path.to_owned(), detail: error.to_string() })
        }
        Err(error) => Err(plain(path, &error)),
    }
}

/// SQLite's own checkpoints keep their errors to themselves, and try again as if nothing had been.
fn checkpoint(c: &Connection, path: &Path, care: &Care) {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if std::fs::metadata(log).map_or(0, |file| file.len()) < LARGE_LOG {
        return;
    }
    let done = c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = done
        && is_lost(&error)
    {
        poison(c, care, &error);
    }
}

pub(crate) fn poison(c: &Connection, care: &Care, error: &rusqlite::Error) {
    care.not_durable(&error.to_string());
    // Closing must not try to sync it either.
    let _ = c.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

pub(crate) fn plain(path: &Path, error: &rusqlite::Error) -> Error {
    if is_full(error) {
        return Error::Full { path: path.to_owned() };
    }
    Error::Database { path: path.to_owned(), detail: error.to_string() }
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
    care: &Care,
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
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
    };
    private().map_err(|error| match error.kind() {
        std::io::ErrorKind::StorageFull => Error::Full { path: path.to_owned() },
        _ => Error::Database { path: path.to_owned(), detail: error.to_string() },
    })
}

fn work(mut connection: Connection, queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        job(&mut connection);
    }
}

/// Brings a database to the newest schema, after a copy of it was made beside it.
pub(crate) fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), Error> {
    let failed = |error: rusqlite::Error| plain(path, &error);
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(Error::Newer { path: path.to_owned(), found, known });
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
        let first = Database::open(&path, Sync::Full, Care::default(), ONE).unwrap();
        first.change(|c| c.execute("INSERT INTO a VALUES (7)", [])).await.unwrap();
        drop(first);
        let second = Database::open(&path, Sync::Full, Care::default(), TWO).unwrap();
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
            Database::open(&path, Sync::Full, Care::default(), ONE),
            Err(Error::Newer { found: 2, known: 1, .. })
        ));
    }
}
