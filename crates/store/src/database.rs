//! A SQLite file with one thread that works on it. Callers hand in closures and await the answer, so no connection is
//! ever held across an await.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::Connection;
use tokio::sync::oneshot;

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
}

/// Jobs that may wait for the thread.
const JOBS: usize = 256;

impl Database {
    /// Opens or makes the file and brings its schema to the newest: `migrations[n]` leads from schema n to n + 1.
    pub(crate) fn open(path: &Path, sync: Sync, migrations: &'static [&'static str]) -> Result<Self, Error> {
        let failed = |error: rusqlite::Error| Error::Database { path: path.to_owned(), detail: error.to_string() };
        keep_private(path).map_err(|error| Error::Database { path: path.to_owned(), detail: error.to_string() })?;
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection
            .pragma_update(None, "synchronous", if sync == Sync::Full { "FULL" } else { "NORMAL" })
            .map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        migrate(&mut connection, path, migrations)?;
        let (jobs, queue) = sync_channel::<Job>(JOBS);
        kip_host::tasks::thread("store", move || work(connection, &queue)).map_err(|error| Error::Database {
            path: path.to_owned(),
            detail: format!("its thread cannot be started: {error}"),
        })?;
        Ok(Self { path: path.to_owned(), jobs })
    }

    /// Runs a closure on the connection.
    pub(crate) async fn call<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let closed = || Error::Closed { path: self.path.clone() };
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| drop(answer.send(job(connection))));
        // The queue is full only when the disk stalls; then a caller's thread waits with it rather than memory growing.
        self.jobs.send(job).map_err(|_| closed())?;
        let result = answered.await.map_err(|_| closed())?;
        result.map_err(|error| Error::Database { path: self.path.clone(), detail: error.to_string() })
    }
}

/// Makes the file, if need be, and lets only its owner read it: declarations may hold secrets. SQLite gives the files
/// beside it the same mode.
fn keep_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

fn work(mut connection: Connection, queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        job(&mut connection);
    }
}

fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), Error> {
    let failed = |error: rusqlite::Error| Error::Database { path: path.to_owned(), detail: error.to_string() };
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(Error::Newer { path: path.to_owned(), found, known });
    }
    if found > 0 && found < known {
        let copy = path.with_extension(format!("before-schema-{known}.db"));
        keep_private(&copy).map_err(|error| Error::Database { path: copy.clone(), detail: error.to_string() })?;
        let copy = copy.to_string_lossy().into_owned();
        connection.execute("VACUUM INTO ?1", [copy]).map_err(failed)?;
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
        let first = Database::open(&path, Sync::Full, ONE).unwrap();
        first.call(|c| c.execute("INSERT INTO a VALUES (7)", [])).await.unwrap();
        drop(first);
        let second = Database::open(&path, Sync::Full, TWO).unwrap();
        let kept: i64 =
            second.call(|c| c.query_row("SELECT x FROM a WHERE y IS NULL", [], |row| row.get(0))).await.unwrap();
        assert_eq!(kept, 7);
        assert!(folder.path().join("x.before-schema-2.db").exists());
        for file in ["x.db", "x.db-wal", "x.before-schema-2.db"] {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file} can be read by others");
        }
        assert!(matches!(Database::open(&path, Sync::Full, ONE), Err(Error::Newer { found: 2, known: 1, .. })));
    }
}
