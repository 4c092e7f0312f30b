//! What the parts of this room share: the store and memory of tasks, and the handle.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use kip_control::{Brake, Control, Link};
use kip_host::clock::wall_millis;
use kip_records::metrics::Metrics;
use kip_store::tasks::{Step, Task, TaskNumber, TaskProgress, TaskReader, TaskState};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::{Notify, oneshot};

use crate::commits::Commits;
use crate::config::{AsyncConfig, Configs, LATEST, Options};
use crate::envelope::{Call, Envelope};
use crate::error::Error;
use crate::outbox::Outbox;
use crate::receive::Memory;
use crate::results::KeptResults;
use crate::room::Room;
use crate::stats::Stats;
use kip_queue::book::{Book, Entry};

/// A lease that is not renewed for this long is void, milliseconds of boot time.
pub const LEASE: u64 = 15_000;
/// Bytes of payloads that are kept in memory until they are run.
const FRESH: usize = 64 << 20;

/// A task as it is submitted.
#[derive(Debug, Clone, Default)]
pub struct Submission {
    /// Its function.
    pub function: String,
    /// Which version or alias; none is the one that serves.
    pub qualifier: Option<String>,
    /// Whose it is; none is a caller without a key.
    pub tenant: Option<String>,
    /// The name of the key that it came with.
    pub key: Option<String>,
    /// The id that the caller chose.
    pub id: Option<String>,
    /// The caller's idempotency key.
    pub idempotency: Option<String>,
    /// Not before this has passed.
    pub delay: Option<Duration>,
    /// Who goes first: 0 to 9, lower numbers do; 5 where none is said.
    pub priority: Option<u8>,
    /// One at a time of those with the same.
    pub order: Option<String>,
    /// How long it may wait to be run, where that is not for the function to say.
    pub max_age: Option<Duration>,
    /// How often it may be run again, where that is not for the function to say.
    pub retries: Option<u32>,
    /// It is a stateful task, whatever the function says.
    pub stateful: bool,
    /// What the function is called with; none is an event.
    pub call: Option<Call>,
    /// What it is given.
    pub payload: Bytes,
    /// The id of the request that brings it.
    pub request: String,
    /// Of a job: for which time of its timer it is, milliseconds since 1970.
    pub due: Option<i64>,
    /// How many tasks before it led to it.
    pub depth: u8,
}

/// What a submission got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its number.
    pub number: TaskNumber,
    /// The id that it is known by.
    pub id: String,
    /// The id of the request that brought it: of the first one, if it was known.
    pub request: String,
    /// It was known already: the same id or key, the same request.
    pub known: bool,
}

/// A run that is under way.
pub(crate) struct Run {
    pub(crate) epoch: u32,
    /// None for a run that an earlier server began.
    pub(crate) brake: Option<Brake>,
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) cancel: Option<oneshot::Sender<Cancel>>,
}

/// Why a run is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancel {
    /// The task was told to stop.
    Stop,
    /// The server ends in order: the task is run again by the next one, and that is no fault of it.
    Leave,
}

/// What was accepted lately and not run yet.
#[derive(Default)]
pub(crate) struct RecentTasks {
    pub(crate) work: HashMap<TaskNumber, (Arc<Envelope>, Bytes)>,
    pub(crate) bytes: usize,
}

pub(crate) struct Shared {
    pub(crate) commits: Commits,
    pub(crate) control: Control,
    pub(crate) metrics: Metrics,
    pub(crate) options: Options,
    pub(crate) server: Arc<str>,
    pub(crate) boot: u32,
    pub(crate) book: Mutex<Book>,
    pub(crate) fresh: Mutex<RecentTasks>,
    pub(crate) runs: Mutex<HashMap<TaskNumber, Run>>,
    pub(crate) configs: RwLock<Configs>,
    pub(crate) stats: Stats,
    pub(crate) room: Arc<Room>,
    pub(crate) results: KeptResults,
    pub(crate) receiving: Arc<Memory>,
    pub(crate) outbox: Outbox,
    /// Something may be due earlier than thought.
    pub(crate) earlier: Notify,
    /// Those who wait for news of a task.
    pub(crate) watchers: Mutex<HashMap<TaskNumber, Arc<Notify>>>,
    /// Where instances reach us.
    pub(crate) address: OnceLock<String>,
    pub(crate) closing: tokio::sync::watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").field("boot", &self.boot).finish_non_exhaustive()
    }
}

/// Tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks {
    pub(crate) shared: Arc<Shared>,
}

impl Shared {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock()
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// What keeps a function from taking up work, if it is known: that it does not start, or what it waits for.
    pub(crate) fn trouble_of(&self, function: &str) -> Option<String> {
        let info = self.control.cell(function)?.info();
        let failure = info.last_failure.filter(|_| info.failed_starts > 0);
        let failure = failure.map(|text| format!("it does not start: {}", text.lines().next().unwrap_or_default()));
        failure.or_else(|| info.waits.into_iter().next().map(|wait| wait.why))
    }

    /// Whoever watches a task should look again.
    pub(crate) fn tell(&self, number: TaskNumber) {
        let watchers = self.watchers.lock();
        if let Some(notify) = watchers.get(&number) {
            notify.notify_waiters();
        }
    }

    pub(crate) fn keep_fresh(&self, number: TaskNumber, envelope: Arc<Envelope>, payload: Bytes) {
        let mut fresh = self.fresh.lock();
        let bytes = payload.len() + 512;
        if fresh.bytes + bytes <= FRESH {
            fresh.bytes += bytes;
            fresh.work.insert(number, (envelope, payload));
        }
    }

    /// What is to be run, from memory or from the disk.
    pub(crate) async fn work_of(&self, number: TaskNumber) -> Result<Option<(Arc<Envelope>, Bytes)>, Error> {
        let kept = {
            let mut fresh = self.fresh.lock();
            let kept = fresh.work.remove(&number);
            fresh.bytes -= kept.as_ref().map_or(0, |(_, payload)| payload.len() + 512);
            kept
        };
        if kept.is_some() {
            return Ok(kept);
        }
        let Some(task) = self.read().task(number).await? else { return Ok(None) };
        let Ok(envelope) = serde_json::from_str::<Envelope>(&task.envelope) else { return Ok(None) };
        Ok(self.read().payload(number).await?.map(|payload| (Arc::new(envelope), payload)))
    }

    pub(crate) fn config(&self, function: &str, qualifier: &str) -> AsyncConfig {
        let configs = self.configs.read();
        let of = |qualifier: &str| configs.get(&(function.to_owned(), qualifier.to_owned())).cloned();
        of(qualifier).or_else(|| of(LATEST)).unwrap_or_default()
    }

    /// Questions to the store.
    pub(crate) fn read(&self) -> &dyn TaskReader {
        self.commits.read()
    }

    /// Applies a step and, if it was in time, what follows from it: the book, the words, the watchers. False if it was too late.
    pub(crate) async fn advance(self: &Arc<Self>, step: Step) -> Result<bool, Error> {
        Ok(self.advance_all(vec![step]).await?.first().copied().unwrap_or_default())
    }

    /// The same for many in one commit; which of them were in time.
    pub(crate) async fn advance_all(self: &Arc<Self>, steps: Vec<Step>) -> Result<Vec<bool>, Error> {
        let shared = self.clone();
        let unit = self.commits.unit("step of tasks", move |store| async move {
            let stepped = store.advance_all(steps.clone()).await?;
            let each = steps.into_iter().zip(stepped).map(|(step, stepped)| {
                if stepped.applied {
                    shared.applied(step.number, &step.to, stepped.order);
                    shared.outbox.add(step.number, step.deliveries, &stepped.deliveries);
                }
                stepped.applied
            });
            Ok(each.collect())
        });
        unit.await
    }

    /// A step of a task is on the disk, at this place in the order of commits.
    pub(crate) fn applied(&self, number: TaskNumber, to: &TaskProgress, order: u64) {
        let now = wall_millis();
        let whose = {
            let mut book = self.book();
            let whose = book.entry(number).map(|entry| (entry.function.clone(), entry.tenant.clone()));
            book.settle(number, |entry| follow(entry, to, order), now);
            whose
        };
        if to.state.is_terminal() {
            let mut fresh = self.fresh.lock();
            if let Some((_, payload)) = fresh.work.remove(&number) {
                fresh.bytes -= payload.len() + 512;
            }
        }
        if let Some((function, tenant)) = &whose {
            self.stats.note(function, tenant, to, now);
            self.report(function);
        }
        self.tell(number);
        self.earlier.notify_one();
    }

    /// A task that was over waits again, by a step at this place in the order of commits.
    pub(crate) fn admitted_again(&self, number: TaskNumber, entry: Entry, order: u64) {
        let now = wall_millis();
        let function = entry.function.clone();
        {
            let mut book = self.book();
            // The news of its end may still be on its way; it comes too late then.
            if book.entry(number).is_some_and(|known| known.step < order) {
                book.settle(number, |known| known.state = TaskState::Failed, now);
            }
            book.admit(number, Entry { step: order, ..entry }, now);
        }
        self.report(&function);
        self.tell(number);
        self.earlier.notify_one();
    }
}

/// Makes an entry of the book what was stored, unless the book is further already.
fn follow(entry: &mut Entry, to: &TaskProgress, order: u64) {
    if entry.step > order {
        return;
    }
    entry.step = order;
    entry.state = to.state;
    entry.epoch = to.epoch;
    (entry.run_at, entry.expires_at) = (to.run_at, to.expires_at);
    entry.started = to.started;
    (entry.errors, entry.crashes, entry.refusals) = (to.errors, to.crashes, to.refusals);
}

/// Bytes that a waiting task counts for: its payload, and what else its caller sent.
pub(crate) fn weight(payload: u64, envelope: &str) -> u64 {
    payload.saturating_add(envelope.len() as u64)
}

/// What the book keeps of a stored task.
pub(crate) fn entry_of(task: &Task) -> Entry {
    Entry {
        function: task.function.clone(),
        function_id: task.function_id.0,
        step: 0,
        qualifier: task.qualifier.clone(),
        tenant: task.tenant.clone(),
        priority: task.priority,
        kind: task.kind,
        order: task.order.clone(),
        size: weight(task.size, &task.envelope),
        created: task.created,
        id: task.id.as_deref().map(Arc::from),
        expires_at: task.now.expires_at,
        state: task.now.state,
        epoch: task.now.epoch,
        run_at: task.now.run_at,
        started: task.now.started,
        errors: task.now.errors,
        crashes: task.now.crashes,
        refusals: task.now.refusals,
    }
}
