//! A store whose commits wait after they are on the disk, until a test lets them go on: a caller can leave in between.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use kip_spec::function::FunctionSpec;
use kip_spec::{FunctionName, VersionId};
use tokio::sync::Semaphore;

use crate::change::{
    CommittedChange, ControlReader, ControlStore, Proposal, StoredProvision, StoredRevision, UnreadableRow,
};
use crate::database::Error;
use crate::facade::{RevisionExtra, StoredResource, StoredSetting, StoredTrigger};
use crate::health::Condition;
use crate::ids::{Object, Seq};
use crate::keys::{AuditFilter, AuditRecord, StoredKey};
use crate::secrets::StoredSecret;
use crate::sqlite::{ControlFile, SqliteFile};
use crate::staged::StagedBackup;
use crate::tasks::{
    BlobHold, Delivery, DeliveryOutcome, NewTask, Output, SqliteTasks, Step, StepOutcome, SubmitOutcome, SyncTimes,
    Task, TaskFilter, TaskNumber, TaskReader, TaskStore,
};
use crate::version::{StoredAlias, StoredTraffic, StoredVersion};
use crate::{Identity, SqliteControl, VersionSource};

/// Where commits wait. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct CommitGate {
    shut: Arc<AtomicBool>,
    lost: Arc<AtomicBool>,
    waiting: Arc<GateQueue>,
}

#[derive(Debug)]
struct GateQueue {
    reached: Semaphore,
    open: Semaphore,
}

impl Default for GateQueue {
    fn default() -> Self {
        Self { reached: Semaphore::const_new(0), open: Semaphore::const_new(0) }
    }
}

impl CommitGate {
    /// Begins a change, drops it when its commit is on the disk, and lets the commit go on: its caller has left.
    ///
    /// # Panics
    /// If the change ends without a commit.
    pub async fn leave<F: Future>(&self, change: F) {
        self.shut();
        tokio::select! {
            _ = change => panic!("the gate is shut"),
            () = self.reached() => {}
        }
        self.open();
    }

    /// The next commit waits.
    pub fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    /// The next commit of tasks is on the disk, but its caller is told that it failed.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
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

/// Waits for the disk in real time: while this runs, a test's paused time does not go on by itself.
async fn in_real_time<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let done = kip_host::tasks::blocking("commit", move || tokio::runtime::Handle::current().block_on(work)).await;
    done.unwrap_or_else(|| Err(Error::Closed { database: "the runtime".to_owned() }))
}

/// A control store behind a gate.
#[derive(Debug)]
pub struct GatedControl {
    /// The store.
    pub store: SqliteControl,
    /// The gate.
    pub gate: CommitGate,
}

#[async_trait]
impl ControlReader for GatedControl {
    async fn current_revisions(&self) -> Result<Vec<StoredRevision>, Error> {
        self.store.current_revisions().await
    }

    async fn revision(&self, revision: VersionId) -> Result<Option<StoredRevision>, Error> {
        self.store.revision(revision).await
    }

    async fn revision_at(&self, function: FunctionName, ordinal: u64) -> Result<Option<StoredRevision>, Error> {
        self.store.revision_at(function, ordinal).await
    }

    async fn versions(&self) -> Result<Vec<StoredVersion>, Error> {
        self.store.versions().await
    }

    async fn aliases(&self) -> Result<(Vec<StoredAlias>, Vec<UnreadableRow>), Error> {
        self.store.aliases().await
    }

    async fn traffic(&self) -> Result<(Vec<StoredTraffic>, Vec<UnreadableRow>), Error> {
        self.store.traffic().await
    }

    async fn revisions(&self, function: FunctionName) -> Result<Vec<VersionSource>, Error> {
        self.store.revisions(function).await
    }

    async fn rev(&self, object: Object) -> Result<Seq, Error> {
        self.store.rev(object).await
    }

    async fn provisions(&self) -> Result<(Vec<StoredProvision>, Vec<UnreadableRow>), Error> {
        self.store.provisions().await
    }

    async fn secrets(&self) -> Result<Vec<StoredSecret>, Error> {
        self.store.secrets().await
    }

    async fn triggers(&self, function: Option<FunctionName>) -> Result<Vec<StoredTrigger>, Error> {
        self.store.triggers(function).await
    }

    async fn settings(&self, kind: &'static str, function: Option<FunctionName>) -> Result<Vec<StoredSetting>, Error> {
        self.store.settings(kind, function).await
    }

    async fn resources(&self, kind: &'static str) -> Result<Vec<StoredResource>, Error> {
        self.store.resources(kind).await
    }

    async fn extra(&self, revision: VersionId) -> Result<Option<RevisionExtra>, Error> {
        self.store.extra(revision).await
    }

    async fn codes(&self) -> Result<Vec<String>, Error> {
        self.store.codes().await
    }

    async fn images(&self) -> Result<Vec<String>, Error> {
        self.store.images().await
    }

    async fn revisions_with(&self, texts: Vec<String>) -> Result<Vec<FunctionSpec>, Error> {
        self.store.revisions_with(texts).await
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

    async fn commit(&self, proposal: Proposal) -> Result<CommittedChange, Error> {
        let store = self.store.clone();
        let done = in_real_time(async move { store.commit(proposal).await }).await;
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
    async fn replace(
        &self,
        by: String,
        staged: &StagedBackup,
        renew: Vec<FunctionName>,
    ) -> Result<CommittedChange, Error> {
        let done = self.store.replace(by, staged, renew).await;
        self.gate.pass().await;
        done
    }
}

/// A store of tasks behind a gate.
#[derive(Debug)]
pub struct GatedTasks {
    /// The store.
    pub store: SqliteTasks,
    /// The gate.
    pub gate: CommitGate,
}

impl GatedTasks {
    async fn pass<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        self.gate.pass().await;
        if self.gate.lost.swap(false, Ordering::SeqCst) {
            return Err(Error::Busy { database: "its answer was lost".to_owned() });
        }
        done
    }
}

#[async_trait]
impl TaskReader for GatedTasks {
    async fn configs(&self) -> Result<Vec<(String, String, String)>, Error> {
        self.store.configs().await
    }

    async fn task(&self, number: TaskNumber) -> Result<Option<Task>, Error> {
        self.store.task(number).await
    }

    async fn find(
        &self,
        function: String,
        tenant: Option<String>,
        id: String,
    ) -> Result<Vec<(String, TaskNumber)>, Error> {
        self.store.find(function, tenant, id).await
    }

    async fn payload(&self, number: TaskNumber) -> Result<Option<Bytes>, Error> {
        self.store.payload(number).await
    }

    async fn output(&self, number: TaskNumber) -> Result<Option<Output>, Error> {
        self.store.output(number).await
    }

    async fn kept_results(&self) -> Result<Vec<(String, String, u64)>, Error> {
        self.store.kept_results().await
    }

    async fn list(&self, filter: TaskFilter) -> Result<Vec<Task>, Error> {
        self.store.list(filter).await
    }

    async fn count(&self, filter: TaskFilter, most: u64) -> Result<u64, Error> {
        self.store.count(filter, most).await
    }

    async fn open(&self, after: TaskNumber, most: u32) -> Result<Vec<Task>, Error> {
        self.store.open(after, most).await
    }

    async fn deliveries(&self) -> Result<Vec<Delivery>, Error> {
        self.store.deliveries().await
    }

    fn sync_times(&self) -> SyncTimes {
        self.store.sync_times()
    }

    fn condition(&self) -> Condition {
        TaskReader::condition(&self.store)
    }
}

#[async_trait]
impl TaskStore for GatedTasks {
    async fn accept(&self, task: NewTask) -> Result<SubmitOutcome, Error> {
        self.pass(self.store.accept(task).await).await
    }

    async fn advance(&self, step: Step) -> Result<StepOutcome, Error> {
        self.pass(self.store.advance(step).await).await
    }

    async fn advance_all(&self, steps: Vec<Step>) -> Result<Vec<StepOutcome>, Error> {
        self.pass(self.store.advance_all(steps).await).await
    }

    async fn renew(&self, claims: Vec<(TaskNumber, u32)>, until: u64) -> Result<Vec<bool>, Error> {
        self.store.renew(claims, until).await
    }

    async fn note_progress(&self, number: TaskNumber, epoch: u32, at: i64, text: String) -> Result<bool, Error> {
        self.pass(self.store.note_progress(number, epoch, at, text).await).await
    }

    async fn delivered(&self, id: u64, result: DeliveryOutcome) -> Result<(), Error> {
        self.pass(self.store.delivered(id, result).await).await
    }

    async fn put_config(&self, function: String, qualifier: String, text: Option<String>) -> Result<(), Error> {
        self.pass(self.store.put_config(function, qualifier, text).await).await
    }

    async fn forget(&self, numbers: Vec<TaskNumber>) -> Result<u64, Error> {
        self.pass(self.store.forget(numbers).await).await
    }

    async fn prune(&self, after: TaskNumber, ended_before: i64) -> Result<Option<TaskNumber>, Error> {
        self.store.prune(after, ended_before).await
    }
}
