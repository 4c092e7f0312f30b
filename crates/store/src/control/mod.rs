//! Control objects in a SQLite file.

mod commit;
#[cfg(test)]
pub(crate) mod contract;
mod facade;
mod numbers;
mod read;
mod restore;
mod schema;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kip_spec::function::FunctionSpec;
use kip_spec::{FunctionName, VersionId};
use rusqlite::Connection;

use crate::change::{
    CommittedChange, ControlReader, ControlStore, Effect, Proposal, StoredProvision, StoredRevision, UnreadableRow,
};
use crate::database::{Database, Error, Sync};
use crate::facade::{RevisionExtra, StoredResource, StoredSetting, StoredTrigger};
use crate::health::{Condition, DiskHealth};
use crate::ids::{Object, Seq};
use crate::keys::{self, AuditFilter, AuditRecord, StoredKey};
use crate::secrets::{self, StoredSecret};
use crate::sqlite::{ControlFile, SqliteFile};
use crate::staged::StagedBackup;
use crate::tasks::BlobHold;
use crate::time_limit::TimeLimit;
use crate::version::{StoredAlias, StoredTraffic, StoredVersion};
use crate::{Identity, VersionSource};

pub(crate) use schema::MIGRATIONS;

/// The control store in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteControl {
    pub(crate) database: Database,
}

impl SqliteControl {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`Error::Newer`] for a file of a newer version, [`Error::Database`] otherwise.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, DiskHealth::default())
    }

    /// Opens or makes the file, with room that is kept for it.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Full`] if there is no room even so.
    pub fn open_with(path: &Path, care: DiskHealth) -> Result<Self, Error> {
        Ok(Self { database: Database::open(path, Sync::Full, care, MIGRATIONS)? })
    }
}

#[async_trait]
impl ControlReader for SqliteControl {
    async fn current_revisions(&self) -> Result<Vec<StoredRevision>, Error> {
        self.database.read(|c| read::current_revisions(c)).await
    }

    async fn revision(&self, revision: VersionId) -> Result<Option<StoredRevision>, Error> {
        self.database.read(move |c| read::revision(c, revision)).await
    }

    async fn revision_at(&self, function: FunctionName, ordinal: u64) -> Result<Option<StoredRevision>, Error> {
        self.database.read(move |c| read::revision_at(c, &function, ordinal)).await
    }

    async fn versions(&self) -> Result<Vec<StoredVersion>, Error> {
        self.database.read(|c| read::versions(c)).await
    }

    async fn aliases(&self) -> Result<(Vec<StoredAlias>, Vec<UnreadableRow>), Error> {
        self.database.read(|c| read::aliases(c)).await
    }

    async fn traffic(&self) -> Result<(Vec<StoredTraffic>, Vec<UnreadableRow>), Error> {
        self.database.read(|c| read::traffic(c)).await
    }

    async fn revisions(&self, function: FunctionName) -> Result<Vec<VersionSource>, Error> {
        self.database.read(move |c| read::revisions(c, &function)).await
    }

    async fn rev(&self, object: Object) -> Result<Seq, Error> {
        self.database.read(move |c| commit::rev(c, &object)).await
    }

    async fn provisions(&self) -> Result<(Vec<StoredProvision>, Vec<UnreadableRow>), Error> {
        self.database.read(|c| read::provisions(c)).await
    }

    async fn secrets(&self) -> Result<Vec<StoredSecret>, Error> {
        self.database.read(|c| secrets::all(c)).await
    }

    async fn triggers(&self, function: Option<FunctionName>) -> Result<Vec<StoredTrigger>, Error> {
        self.database.read(move |c| facade::triggers(c, function.as_ref())).await
    }

    async fn settings(&self, kind: &'static str, function: Option<FunctionName>) -> Result<Vec<StoredSetting>, Error> {
        self.database.read(move |c| facade::settings(c, kind, function.as_ref())).await
    }

    async fn resources(&self, kind: &'static str) -> Result<Vec<StoredResource>, Error> {
        self.database.read(move |c| facade::resources(c, kind)).await
    }

    async fn extra(&self, revision: VersionId) -> Result<Option<RevisionExtra>, Error> {
        self.database.read(move |c| facade::extra(c, revision.0)).await
    }

    async fn codes(&self) -> Result<Vec<String>, Error> {
        self.database.read(|c| facade::codes(c)).await
    }

    async fn images(&self) -> Result<Vec<String>, Error> {
        self.database.read(|c| facade::images(c)).await
    }

    async fn revisions_with(&self, texts: Vec<String>) -> Result<Vec<FunctionSpec>, Error> {
        self.database.read(move |c| facade::revisions_with(c, &texts)).await
    }

    async fn keys(&self) -> Result<Vec<StoredKey>, Error> {
        self.database.read(|c| keys::all(c)).await
    }

    async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRecord>, Error> {
        self.database.read(move |c| keys::audit(c, &filter)).await
    }

    async fn identity(&self) -> Result<Option<Identity>, Error> {
        self.database.read(|c| read::identity(c)).await
    }

    fn condition(&self) -> Condition {
        self.database.care().condition()
    }
}

#[async_trait]
impl ControlStore for SqliteControl {
    async fn begin_boot(&self) -> Result<Identity, Error> {
        let fresh = format!("{:016x}", kip_host::random::bits() >> 64);
        self.database
            .change(move |c| {
                // A transaction of its own: a statement that returns rows would keep an error of its commit to itself.
                let transaction = c.transaction()?;
                let identity = transaction.query_row(
                    "INSERT INTO server VALUES (1, ?1, 1) ON CONFLICT (one) DO UPDATE SET boot = boot + 1 RETURNING id, boot",
                    [fresh.as_str()],
                    |row| Ok(Identity { server: row.get(0)?, boot: row.get(1)? }),
                )?;
                transaction.commit()?;
                Ok(identity)
            })
            .await
    }

    async fn commit(&self, proposal: Proposal) -> Result<CommittedChange, Error> {
        let at = kip_host::clock::wall_millis();
        let done = self.database.change(move |c| commit::commit(c, &proposal, at)).await?;
        done.map_err(|commit::Mismatch { object, expected, found }| Error::Stale { object, expected, found })
    }

    async fn keys_used(&self, uses: Vec<(u64, i64)>) -> Result<(), Error> {
        self.database.change(move |c| keys::used(c, &uses)).await
    }

    async fn audit_begin(&self, record: AuditRecord) -> Result<i64, Error> {
        self.database.change(move |c| keys::audit_begin(c, &record)).await
    }

    async fn audit_end(&self, record: i64, object: String, result: String) -> Result<(), Error> {
        self.database.change(move |c| keys::audit_end(c, record, &object, &result)).await
    }
}

#[async_trait]
impl SqliteFile for SqliteControl {
    async fn copy_to(&self, file: PathBuf) -> Result<Option<BlobHold>, Error> {
        self.database.copy_to(file).await.map(|()| None)
    }

    fn room_again(&self) {
        self.database.care().room_again();
    }
}

#[async_trait]
impl ControlFile for SqliteControl {
    async fn replace(
        &self,
        by: String,
        staged: &StagedBackup,
        renew: Vec<FunctionName>,
    ) -> Result<CommittedChange, Error> {
        let file = staged.control.to_string_lossy().into_owned();
        let at = kip_host::clock::wall_millis();
        let (seq, revisions) = self
            .database
            .change(move |c: &mut Connection| {
                // Attaching is not possible inside a transaction.
                c.execute("ATTACH ?1 AS backup", [file.as_str()])?;
                let limit = TimeLimit::of(c, Path::new(&file));
                let replaced = restore::replace(c, &by, at, &renew);
                drop(limit);
                let detached = c.execute_batch("DETACH backup");
                let seq = replaced?;
                detached?;
                Ok((seq, read::current_revisions(c)?))
            })
            .await?;
        Ok(CommittedChange { seq, effect: Effect::Replaced(revisions) })
    }
}
