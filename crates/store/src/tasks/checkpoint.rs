//! Moves the write-ahead log into the database on a thread of its own, so that no commit waits for it.
//!
//! Under constant writing such a checkpoint never reaches the log's end, and the log would grow without end. So when it has
//! moved nearly everything and the log is long, the writer itself moves the rest between two commits, which is little; the
//! log then starts anew, in the same file: what is written over costs less than what is appended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use rusqlite::Connection;

use crate::database::{Error, is_lost, name, plain, poison};
use crate::health::{Condition, DiskHealth};

/// So many pages of 4 KiB, and so many more, are worth moving.
const MANY: u32 = 4_096;
/// A log of so many pages has to start anew.
const TOO_MANY: u32 = 16_384;

#[derive(Debug)]
pub(super) struct Checkpointer {
    wake: SyncSender<()>,
    /// Pages in the log.
    pages: Arc<AtomicU32>,
    /// The writer is to move the rest.
    finish: Arc<AtomicBool>,
    /// How many pages there were when the thread was last woken, or none if the log has begun anew since.
    seen: u32,
}

impl Checkpointer {
    /// Starts the thread with a connection of its own, and counts what the writer's adds to the log.
    pub(super) fn start(
        path: &Path,
        writer: &mut Connection,
        own: Connection,
        care: DiskHealth,
    ) -> Result<Self, Error> {
        let (wake, woken) = sync_channel::<()>(1);
        let (finish, pages) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let counted = pages.clone();
        let hook = move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            counted.store(pages.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        };
        writer.wal_hook(Some(hook)).map_err(|error| plain(path, &error))?;
        let (too_long, length) = (finish.clone(), pages.clone());
        kip_host::tasks::thread("tasks-log", move || {
            while woken.recv().is_ok() {
                if care.condition() != Condition::Writable {
                    continue;
                }
                move_log(&own, &care);
                too_long.store(length.load(Ordering::Relaxed) >= TOO_MANY, Ordering::Release);
            }
        })
        .map_err(|error| Error::Database {
            database: name(path),
            detail: format!("the thread of its log cannot be started: {error}"),
        })?;
        Ok(Self { wake, pages, finish, seen: 0 })
    }

    /// Looks at the log's length. Called by the writer after a commit.
    pub(super) fn committed(&mut self, c: &Connection, care: &DiskHealth) {
        if self.finish.swap(false, Ordering::Acquire) {
            move_log(c, care);
        }
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.seen {
            self.seen = 0;
        }
        if pages >= self.seen + MANY {
            self.seen = pages;
            if let Err(TrySendError::Disconnected(())) = self.wake.try_send(()) {
                // Without the thread the writer does it.
                move_log(c, care);
            }
        }
    }
}

fn move_log(c: &Connection, care: &DiskHealth) {
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
