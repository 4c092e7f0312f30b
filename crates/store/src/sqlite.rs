//! The verbs that only a store in a SQLite file has: a copy of the file, and a copy put in its place.

use std::path::PathBuf;

use async_trait::async_trait;
use kip_spec::FunctionName;

use crate::change::CommittedChange;
use crate::database::Error;
use crate::staged::StagedBackup;
use crate::tasks::blobs::BlobRetention as BlobHold;

/// A store in a SQLite file.
#[async_trait]
pub trait SqliteFile: Send + Sync + std::fmt::Debug {
    /// Writes a copy that is consistent in itself into a file that must not exist or be empty. Files that the copy refers to
    /// stay for as long as the answer is held.
    async fn copy_to(&self, file: PathBuf) -> Result<Option<BlobHold>, Error>;
    /// The disk has room again.
    fn room_again(&self);
}

/// The file of control objects.
#[async_trait]
pub trait ControlFile: SqliteFile {
    /// Puts a backup's functions, revisions and settings in the place of ours, as one commit. Keys are added, and the
    /// server's identity stays. The functions of `renew` get a new revision with the backup's current declaration.
    async fn replace(
        &self,
        by: String,
        staged: &StagedBackup,
        renew: Vec<FunctionName>,
    ) -> Result<CommittedChange, Error>;
}

/// The file of records.
#[async_trait]
pub trait RecordsFile: SqliteFile {
    /// Puts a backup's records in the place of ours, all or nothing.
    async fn replace(&self, staged: &StagedBackup) -> Result<(), Error>;
}
