//! A store whose commits wait after they are on the disk, until a test lets them go on: a caller can leave in between.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use kip_spec::{FunctionName, VersionId};
use tokio::sync::Semaphore;

use crate::backup::Staged;
use crate::change::{
    Committed, ControlReader, ControlStore, Object, Proposal, Seq, StoredProvision, StoredRevision, Unreadable,
};
use crate::database::Error;
use crate::health::Condition;
use crate::keys::{AuditFilter, AuditRecord, StoredKey};
use crate::sqlite::{ControlFile, SqliteFile};
use crate::tasks::BlobHold;
use crate::{Identity, SqliteControl, VersionSource};

/// Where commits wait. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    shut: Arc<AtomicBool>,
    waiting: Arc<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    reached: Semaphore,
    open: Semaphore,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { reached: Semaphore::const_new(0), open: Semaphore::const_new(0) }
    }
}

impl Gate {
    /// The next commit waits.
    pub fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    /// Returns when a commit is on the disk and waits.
    pub async fn reached(&self) {
        if let Ok(permit) = self.waiting.reached.acquire().await {
            permit.forget();
        }
    }

    /// Lets the commit that waits go on.
    pub fn open(&self) {
        self.waiting.open.add_permits(1);
    }

    /// Called behind each commit.
    pub async fn pass(&self) {
        if self.shut.swap(false, Ordering::SeqCst) {
            self.waiting.reached.add_permits(1);
            if let Ok(permit) = self.waiting.open.acquire().await {
                permit.forget();
            }
        }
    }
}

impl SqliteControl {
    /// Makes all settings unreadable, as a newer or broken version might.
    ///
    /// # Errors
    /// What the store says.
    pub async fn spoil_settings(&self) -> Result<(), Error> {
        self.database.change(|c| c.execute("UPDATE settings SET config = 'spoilt'", [])).await.map(drop)
    }
}

/// A control store behind a gate.
#[derive(Debug)]
pub struct GatedControl {
    /// The store.
    pub store: SqliteControl,
    /// The gate.
    pub gate: Gate,
}

#[async_trait]
impl ControlReader for GatedControl {
    async fn current_revisions(&self) -> Result<Vec<StoredRevision>, Error> {
        self.store.current_revisions().await
    }

    async fn revision(&self, revision: VersionId) -> Result<Option<StoredRevision>, Error> {
        self.store.revision(revision).await
    }

    async fn revisions(&self, function: FunctionName) -> Result<Vec<VersionSource>, Error> {
        self.store.revisions(function).await
    }

    async fn rev(&self, object: Object) -> Result<Seq, Error> {
        self.store.rev(object).await
    }

    async fn provisions(&self) -> Result<(Vec<StoredProvision>, Vec<Unreadable>), Error> {
        self.store.provisions().await
    }

    async fn keys(&self) -> Result<Vec<StoredKey>, Error> {
        self.store.keys().await
    }

    async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRecord>, Error> {
        self.store.audit(filter).await
    }

    async fn identity(&self) -> Result<Option<Identity>, Error> {
        self.store.identity().await
    }

    fn condition(&self) -> Condition {
        self.store.condition()
    }
}

#[async_trait]
impl ControlStore for GatedControl {
    async fn begin_boot(&self) -> Result<Identity, Error> {
        self.store.begin_boot().await
    }

    async fn commit(&self, proposal: Proposal) -> Result<Committed, Error> {
        let done = self.store.commit(proposal).await;
        self.gate.pass().await;
        done
    }

    async fn keys_used(&self, uses: Vec<(u64, i64)>) -> Result<(), Error> {
        let done = self.store.keys_used(uses).await;
        self.gate.pass().await;
        done
    }

    async fn audit_begin(&self, record: AuditRecord) -> Result<i64, Error> {
        self.store.audit_begin(record).await
    }

    async fn audit_end(&self, record: i64, object: String, result: String) -> Result<(), Error> {
        // Before the record is ended: a caller that leaves here must not take the end with it.
        self.gate.pass().await;
        self.store.audit_end(record, object, result).await
    }
}

#[async_trait]
impl SqliteFile for GatedControl {
    async fn copy_to(&self, file: PathBuf) -> Result<Option<BlobHold>, Error> {
        self.store.copy_to(file).await
    }

    fn room_again(&self) {
        self.store.room_again();
    }
}

#[async_trait]
impl ControlFile for GatedControl {
    async fn replace(&self, by: String, staged: &Staged, renew: Vec<FunctionName>) -> Result<Committed, Error> {
        let done = self.store.replace(by, staged, renew).await;
        self.gate.pass().await;
        done
    }
}
