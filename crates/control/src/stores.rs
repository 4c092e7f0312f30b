//! The stores that the control room is opened with.

use std::sync::Arc;

use kip_store::{Changes, RecordStore, RecordsFile, SqliteFile};

/// The stores of a server.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Control objects.
    pub changes: Changes,
    /// Records.
    pub records: Arc<dyn RecordStore>,
    /// The stores as files, where they are some: for backups, restores and the watch over the disk.
    pub files: Option<Files>,
}

/// Stores in files on this machine, besides that of control objects.
#[derive(Debug, Clone)]
pub struct Files {
    /// Records.
    pub records: Arc<dyn RecordsFile>,
    /// Tasks.
    pub tasks: Arc<dyn SqliteFile>,
}
