//! Commit and apply: the one way to change control objects while a server runs.
//!
//! A change is two steps: the commit, then memory. Both run as one unit in a task of its own, which goes on when its caller
//! leaves, and one unit runs at a time, so that memory applies the commits in their order. The store's handle is private to this
//! module: nobody can commit without a [`CommitTurn`], and a turn is only given inside such a unit.

use std::future::Future;
use std::sync::Arc;

use kip_spec::FunctionName;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::change::{CommittedChange, ControlReader, ControlStore, Proposal};
use crate::database::Error;
use crate::keys::AuditRecord;
use crate::sqlite::{ControlFile, SqliteFile};
use crate::staged::StagedBackup;

/// The control store of a running server. Clones share it.
#[derive(Debug, Clone)]
pub struct Changes {
    store: Arc<dyn ControlStore>,
    /// The same, where it is a file.
    file: Option<Arc<dyn ControlFile>>,
    order: Arc<Mutex<()>>,
}

/// The right to commit, for as long as it is held.
#[derive(Debug)]
pub struct CommitTurn {
    changes: Changes,
    _order: OwnedMutexGuard<()>,
}

impl Changes {
    /// Over any store.
    pub fn new(store: Arc<dyn ControlStore>) -> Self {
        Self { store, file: None, order: Arc::default() }
    }

    /// Over a store in a file, which can be copied and restored.
    pub fn of_file<S: ControlStore + ControlFile + 'static>(store: Arc<S>) -> Self {
        Self { file: Some(store.clone()), ..Self::new(store) }
    }

    /// Questions.
    pub fn read(&self) -> &dyn ControlReader {
        self.store.as_ref()
    }

    /// The file, where the store is one.
    pub fn file(&self) -> Option<&dyn SqliteFile> {
        self.file.as_deref().map(|file| file as &dyn SqliteFile)
    }

    /// Runs a unit: checks, one commit, and memory. It runs to its end even if the caller leaves; dropping the returned future
    /// only gives up the answer.
    pub async fn unit<T, F, W>(&self, work: W) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        W: FnOnce(CommitTurn) -> F + Send + 'static,
    {
        let changes = self.clone();
        detached("change", async move {
            let order = changes.order.clone().lock_owned().await;
            work(CommitTurn { changes, _order: order }).await
        })
        .await
    }

    /// Begins an audit record.
    ///
    /// # Errors
    /// What the store says.
    pub async fn audit_begin(&self, record: AuditRecord) -> Result<i64, Error> {
        let store = self.store.clone();
        detached("audit", async move { store.audit_begin(record).await }).await
    }

    /// Ends an audit record.
    ///
    /// # Errors
    /// What the store says.
    pub async fn audit_end(&self, record: i64, object: String, result: String) -> Result<(), Error> {
        let store = self.store.clone();
        detached("audit", async move { store.audit_end(record, object, result).await }).await
    }
}

impl CommitTurn {
    /// Makes a change.
    ///
    /// # Errors
    /// What the store says; nothing is changed then, except after a failure of the disk, where it may be.
    pub async fn commit(&self, proposal: Proposal) -> Result<CommittedChange, Error> {
        self.changes.store.commit(proposal).await
    }

    /// Puts a backup in the place of what there is.
    ///
    /// # Errors
    /// What the store says; a store that is no file cannot.
    pub async fn replace(
        &self,
        by: String,
        staged: &StagedBackup,
        renew: Vec<FunctionName>,
    ) -> Result<CommittedChange, Error> {
        match &self.changes.file {
            Some(file) => file.replace(by, staged, renew).await,
            None => Err(Error::NoFile),
        }
    }

    /// Notes when keys were last used.
    ///
    /// # Errors
    /// What the store says.
    pub async fn keys_used(&self, uses: Vec<(u64, i64)>) -> Result<(), Error> {
        self.changes.store.keys_used(uses).await
    }

    /// Questions.
    pub fn read(&self) -> &dyn ControlReader {
        self.changes.read()
    }
}

/// Runs a future as a task of its own, which goes on when the caller leaves. A panic in it goes on in the caller.
pub async fn detached<T, F>(name: &'static str, work: F) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    match kip_host::tasks::spawn(name, work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests;
