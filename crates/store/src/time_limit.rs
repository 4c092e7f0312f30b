//! A limit of the time that statements over somebody else's database may take: what is in it can make one last for ever.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::Connection;

/// What any database may take.
const LEAST: Duration = Duration::from_secs(30);
/// Bytes that are read in a second at least.
const BYTES_A_SECOND: u64 = 4 << 20;

/// Until this is dropped, statements of a connection are interrupted when their time is over.
pub(crate) struct TimeLimit {
    _over: Option<SyncSender<()>>,
}

impl TimeLimit {
    /// For work over a file.
    pub(crate) fn of(c: &Connection, file: &Path) -> Self {
        let bytes = std::fs::metadata(file).map_or(0, |about| about.len());
        Self::new(c, LEAST + Duration::from_secs(bytes / BYTES_A_SECOND))
    }

    pub(crate) fn new(c: &Connection, limit: Duration) -> Self {
        let (over, waits) = sync_channel::<()>(1);
        let handle = c.get_interrupt_handle();
        let watch = move || {
            if waits.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                handle.interrupt();
            }
        };
        match kip_host::tasks::thread("time-limit", watch) {
            Ok(_) => Self { _over: Some(over) },
            Err(error) => {
                tracing::warn!(%error, "statements over a backup have no time limit");
                Self { _over: None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDLESS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";

    #[test]
    fn a_statement_without_end_is_interrupted() {
        let c = Connection::open_in_memory().unwrap();
        let limit = TimeLimit::new(&c, Duration::from_millis(50));
        let error = c.query_row(ENDLESS, [], |row| row.get::<_, i64>(0)).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::OperationInterrupted));
        drop(limit);
        assert_eq!(c.query_row("SELECT 7", [], |row| row.get::<_, i64>(0)).unwrap(), 7, "later ones are not");
    }
}
