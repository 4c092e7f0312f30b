//! Moves the write-ahead log into the database on a thread of its own, so that no commit waits for it.
//!
//! Under constant writing such a checkpoint never reaches the log's end, and the log would grow without end. So when it has
//! moved nearly everything and the log is large, the writer itself moves the rest between two commits, which is little; the
//! log then starts anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use rusqlite::Connection;

use crate::database::{Error, is_lost, plain, poison};
use crate::health::{Care, Condition};

/// A log of this size is worth moving, bytes.
const LARGE_LOG: u64 = 4 << 20;
/// A log of this size has to start anew, bytes.
const HUGE_LOG: u64 = 32 << 20;

#[derive(Debug)]
pub(super) struct Checkpointer {
    log: PathBuf,
    wake: SyncSender<()>,
    /// The writer is to move the rest.
    finish: Arc<AtomicBool>,
    commits: u32,
}

impl Checkpointer {
    /// Starts the thread with a connection of its own.
    pub(super) fn start(path: &Path, connection: Connection, care: Care) -> Result<Self, Error> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let log = PathBuf::from(log);
        let (wake, woken) = sync_channel::<()>(1);
        let finish = Arc::new(AtomicBool::new(false));
        let (own_log, own_finish, own_path) = (log.clone(), finish.clone(), path.to_owned());
        kip_host::tasks::thread("tasks-log", move || {
            while woken.recv().is_ok() {
                if care.condition() != Condition::Writable {
                    continue;
                }
                move_log(&connection, &care);
                own_finish.store(size(&own_log) >= HUGE_LOG, Ordering::Release);
            }
            drop(own_path);
        })
        .map_err(|error| Error::Database {
            path: path.to_owned(),
            detail: format!("the thread of its log cannot be started: {error}"),
        })?;
        Ok(Self { log, wake, finish, commits: 0 })
    }

    /// Looks at the log's size now and then. Called by the writer after a commit.
    pub(super) fn committed(&mut self, c: &Connection, care: &Care) {
        if self.finish.swap(false, Ordering::Acquire) {
            move_log(c, care);
        }
        // A look costs a call of the system.
        self.commits = self.commits.wrapping_add(1);
        if self.commits.is_multiple_of(16)
            && size(&self.log) >= LARGE_LOG
            && let Err(TrySendError::Disconnected(())) = self.wake.try_send(())
        {
            // Without the thread the writer does it.
            move_log(c, care);
        }
    }
}

fn size(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |file| file.len())
}

fn move_log(c: &Connection, care: &Care) {
    let done = c.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(error) = done
        && is_lost(&error)
    {
        poison(c, care, &error);
    }
}

/// A connection that moves the log and does nothing else.
pub(super) fn connect(path: &Path) -> Result<Connection, Error> {
    let failed = |error: rusqlite::Error| plain(path, &error);
    let c = Connection::open(path).map_err(failed)?;
    c.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    c.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
    Ok(c)
}
