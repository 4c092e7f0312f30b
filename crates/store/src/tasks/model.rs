//! Tasks as values, and the traits of a store that keeps them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kip_spec::task::{TaskNumber, TaskProgress, TaskState};
use serde::{Deserialize, Serialize};

use crate::database::Error;
use crate::health::Condition;
use crate::ids::FunctionId;

/// A task as it comes in. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default)]
pub struct NewTask {
    /// Its function.
    pub function: Arc<str>,
    /// The function's id: a name that is made again is another function.
    pub function_id: FunctionId,
    /// Which version or alias of it.
    pub qualifier: Arc<str>,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// The id that its caller chose. Each tenant of a function can use an id once for as long as a record of the task exists.
    pub id: Option<String>,
    /// The caller's idempotency key, with the same promise.
    pub key: Option<String>,
    /// Tells whether a second submission is the same: a digest of what was asked.
    pub fingerprint: [u8; 32],
    /// The digest of the same submission as schema 3 stored it. A task of that time is recognised by it.
    pub earlier_fingerprint: [u8; 16],
    /// What kind it is; a word of those who use this store.
    pub kind: u8,
    /// Who goes first: lower numbers do.
    pub priority: u8,
    /// Tasks of a function with the same key run one after another.
    pub order: Option<Arc<str>>,
    /// When it was accepted.
    pub created: i64,
    /// Not to be run before.
    pub run_at: i64,
    /// Not to be begun after.
    pub expires_at: i64,
    /// How to run it, in words that this store does not read.
    pub envelope: String,
    /// What the function is given.
    pub payload: Bytes,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitOutcome {
    /// It is stored under this number.
    New(TaskNumber),
    /// Its id or key is known, for the same request.
    Known(TaskNumber),
    /// Its id or key is known, for another request.
    Conflict(TaskNumber),
}

impl SubmitOutcome {
    /// The number of the task that was made or found.
    pub fn number(self) -> TaskNumber {
        match self {
            Self::New(number) | Self::Known(number) | Self::Conflict(number) => number,
        }
    }
}

/// Something that happened to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// When, milliseconds since 1970.
    pub at: i64,
    /// What, as JSON that this store does not read.
    pub value: String,
}

/// An event as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Counts the events of its task; the first one, which is not stored, is that it was accepted.
    pub number: u64,
    /// When, milliseconds since 1970.
    pub at: i64,
    /// What, as JSON that this store does not read.
    pub value: String,
}

/// A change of one task: applied only if the task is still in that state and epoch.
#[derive(Debug, Clone)]
pub struct Step {
    /// Which task.
    pub number: TaskNumber,
    /// Only if the task is still of the function with this id.
    pub function: Option<FunctionId>,
    /// The state it must be in.
    pub from: TaskState,
    /// The epoch it must be in.
    pub epoch: u32,
    /// What it is from then on.
    pub to: TaskProgress,
    /// What happened to it.
    pub events: Vec<NewEvent>,
    /// What the function answered, where that is kept.
    pub output: Option<Output>,
    /// Words that this causes. They are stored with it or not at all.
    pub deliveries: Vec<NewDelivery>,
}

/// What became of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepOutcome {
    /// False: it came too late, and nothing was changed.
    pub applied: bool,
    /// Its place in the order of this store's steps since it was opened, from 1. Memory follows a task in this order.
    pub order: u64,
    /// The numbers of the words that it caused, in their order.
    pub deliveries: Vec<u64>,
}

/// What a function answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its head in words that this store does not read.
    pub head: String,
    /// Its body.
    pub body: Bytes,
}

/// A word that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Where to and what, in words that this store does not read.
    pub target: String,
    /// Not before.
    pub run_at: i64,
}

/// A word that is to be sent, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub id: u64,
    /// The task it tells of.
    pub task: TaskNumber,
    /// Where to and what.
    pub target: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Not to be tried before.
    pub run_at: i64,
}

/// What became of an attempt to send a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// It is over, well or not; the task keeps this line.
    Done {
        /// What its task says of it.
        outcome: String,
    },
    /// It is to be tried again.
    Again {
        /// Not before.
        run_at: i64,
        /// What its task says of it until then.
        outcome: String,
    },
}

/// A task without what it was given and what it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number.
    pub number: TaskNumber,
    /// Its function.
    pub function: Arc<str>,
    /// The function's id; 0 for a task from before functions had ids.
    pub function_id: FunctionId,
    /// Which version or alias of it.
    pub qualifier: Arc<str>,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// The id that its caller chose.
    pub id: Option<String>,
    /// What kind it is.
    pub kind: u8,
    /// Who goes first: lower numbers do.
    pub priority: u8,
    /// Tasks of a function with the same key run one after another.
    pub order: Option<Arc<str>>,
    /// When it was accepted.
    pub created: i64,
    /// Bytes of its payload.
    pub size: u64,
    /// What changes.
    pub now: TaskProgress,
    /// What happened to it, oldest first; of its reports of progress, the latest hundred.
    pub events: Vec<StoredEvent>,
    /// Lines about the words sent, by target.
    pub destinations: String,
    /// What the function said of its progress last.
    pub progress: Option<String>,
    /// How to run it.
    pub envelope: String,
}

/// Which tasks a list is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Of this function.
    pub function: Option<String>,
    /// Of one of these functions, where it matters; none of them finds nothing.
    pub among: Option<Vec<String>>,
    /// Of this version or alias.
    pub qualifier: Option<String>,
    /// In one of these states; all if there are none.
    pub states: Vec<TaskState>,
    /// Whose ids begin so. A generated id is `t` with the number.
    pub prefix: Option<String>,
    /// Begun at or after, milliseconds since 1970.
    pub started_from: Option<i64>,
    /// Begun at or before, milliseconds since 1970.
    pub started_to: Option<i64>,
    /// Whose tenant is this.
    pub tenant: Option<String>,
    /// Of this kind.
    pub kind: Option<u8>,
    /// Oldest first.
    pub ascending: bool,
    /// Go on behind this one.
    pub after: Option<TaskNumber>,
    /// At most so many.
    pub limit: u32,
}

/// How long a commit takes, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SyncTimes {
    /// Of a small write alone, measured when the store was opened.
    pub probe_us: u64,
    /// Of commits lately, on average.
    pub recent_us: u64,
    /// Of the slowest commit since the start.
    pub worst_us: u64,
    /// How many commits there were.
    pub commits: u64,
    /// How many changes they held.
    pub changes: u64,
}

/// Questions about tasks.
#[async_trait]
pub trait TaskReader: Send + Sync + std::fmt::Debug {
    /// All configurations: function, qualifier, text.
    async fn configs(&self) -> Result<Vec<(String, String, String)>, Error>;
    /// A task by its number.
    async fn task(&self, number: TaskNumber) -> Result<Option<Task>, Error>;
    /// The tasks of a function by the id that a caller chose, by tenant: of one tenant, or of all where none is given.
    async fn find(
        &self,
        function: String,
        tenant: Option<String>,
        id: String,
    ) -> Result<Vec<(String, TaskNumber)>, Error>;
    /// What a task was given. None if there is no such task.
    async fn payload(&self, number: TaskNumber) -> Result<Option<Bytes>, Error>;
    /// What a task's function answered, if it did and that was kept.
    async fn output(&self, number: TaskNumber) -> Result<Option<Output>, Error>;
    /// Bytes of the answers that are kept, by function and tenant.
    async fn kept_results(&self) -> Result<Vec<(String, String, u64)>, Error>;
    /// The tasks that fit.
    async fn list(&self, filter: TaskFilter) -> Result<Vec<Task>, Error>;
    /// How many fit, whatever the filter's limit, up to `most`.
    async fn count(&self, filter: TaskFilter, most: u64) -> Result<u64, Error>;
    /// The open tasks behind a number, in the order of numbers, without events and envelope.
    async fn open(&self, after: TaskNumber, most: u32) -> Result<Vec<Task>, Error>;
    /// All words that are still to be sent.
    async fn deliveries(&self) -> Result<Vec<Delivery>, Error>;
    /// How long syncs take.
    fn sync_times(&self) -> SyncTimes;
    /// Whether changes are taken.
    fn condition(&self) -> Condition;
}

/// Changes of tasks. Every method that returns `Ok` has the change on the disk.
#[async_trait]
pub trait TaskStore: TaskReader {
    /// Stores a task, or finds the one with its id or key.
    async fn accept(&self, task: NewTask) -> Result<SubmitOutcome, Error>;
    /// Applies a step, unless the task is not in its state and epoch any more.
    async fn advance(&self, step: Step) -> Result<StepOutcome, Error>;
    /// Applies steps in one commit, each for itself.
    async fn advance_all(&self, steps: Vec<Step>) -> Result<Vec<StepOutcome>, Error>;
    /// Notes that claims hold until then (boot-time milliseconds), each with its epoch. The answer says which still did.
    async fn renew(&self, claims: Vec<(TaskNumber, u32)>, until: u64) -> Result<Vec<bool>, Error>;
    /// Notes what the function said of its progress in a claim, at a time. False if it is not that claim's any more.
    async fn note_progress(&self, number: TaskNumber, epoch: u32, at: i64, text: String) -> Result<bool, Error>;
    /// Notes what became of an attempt to send a word.
    async fn delivered(&self, id: u64, result: DeliveryOutcome) -> Result<(), Error>;
    /// Keeps what a function and a version or alias of it want for their tasks, in words that this store does not read; none
    /// takes it away.
    async fn put_config(&self, function: String, qualifier: String, text: Option<String>) -> Result<(), Error>;
    /// Forgets tasks that are over, with what belongs to them. Open ones stay. Says how many went.
    async fn forget(&self, numbers: Vec<TaskNumber>) -> Result<u64, Error>;
    /// Looks at up to 5,000 tasks in the order of numbers, forgets up to 500 that were over before `ended_before`
    /// (milliseconds since 1970) and have nothing to send, and says behind which number to go on; none at the end.
    async fn prune(&self, after: TaskNumber, ended_before: i64) -> Result<Option<TaskNumber>, Error>;
}
