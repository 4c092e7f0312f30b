//! The handle that everybody holds, and what is behind it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use kip_control::{Brake, Control, Link};
use kip_host::clock::{boot_millis, wall_millis};
use kip_host::failpoint::reached;
use kip_records::metrics::Metrics;
use kip_store::tasks::{
    NewTask, Step, SubmitOutcome, Task, TaskNumber, TaskProgress, TaskReader, TaskState, TaskStore,
};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::{Notify, oneshot};

use crate::commits::Commits;
use crate::config::{AsyncConfig, Configs, LATEST, LONGEST, Options};
use crate::envelope::{Call, Envelope};
use crate::error::Error;
use crate::fingerprint::{self, fingerprint};
use crate::outbox::{Outbox, TIMER};
use crate::receive::Memory;
use crate::room::{Room, RoomGuard};
use crate::stats::Stats;
use crate::tenant::{ANONYMOUS, TenantScope};
use crate::view::{self, generated, id_of, may_be_chosen};
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
struct RecentTasks {
    work: HashMap<TaskNumber, (Arc<Envelope>, Bytes)>,
    bytes: usize,
}

pub(crate) struct Shared {
    pub(crate) commits: Commits,
    pub(crate) control: Control,
    pub(crate) metrics: Metrics,
    pub(crate) options: Options,
    pub(crate) server: Arc<str>,
    pub(crate) boot: u32,
    book: Mutex<Book>,
    fresh: Mutex<RecentTasks>,
    pub(crate) runs: Mutex<HashMap<TaskNumber, Run>>,
    pub(crate) configs: RwLock<Configs>,
    pub(crate) stats: Stats,
    pub(crate) room: Room,
    pub(crate) receiving: Arc<Memory>,
    pub(crate) outbox: Outbox,
    /// Something may be due earlier than thought.
    pub(crate) earlier: Notify,
    /// Those who wait for news of a task.
    watchers: Mutex<HashMap<TaskNumber, Arc<Notify>>>,
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

    /// Tells the brain how many tasks of a function are ready.
    pub(crate) fn report(&self, function: &str) {
        let Some(cell) = self.control.cell(function) else { return };
        let counts = self.book().counts(function);
        let count = if self.is_closing() { 0 } else { u32::try_from(counts.ready).unwrap_or(u32::MAX) };
        let age = counts.oldest.map_or(0, |oldest| wall_millis().saturating_sub(oldest).max(0).unsigned_abs());
        cell.backlog(count, boot_millis().saturating_sub(age));
    }

    /// Whoever watches a task should look again.
    pub(crate) fn tell(&self, number: TaskNumber) {
        let watchers = self.watchers.lock();
        if let Some(notify) = watchers.get(&number) {
            notify.notify_waiters();
        }
    }

    fn keep_fresh(&self, number: TaskNumber, envelope: Arc<Envelope>, payload: Bytes) {
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
        let function = {
            let mut book = self.book();
            let function = book.entry(number).map(|entry| entry.function.clone());
            book.settle(number, |entry| follow(entry, to, order), now);
            function
        };
        if to.state.is_terminal() {
            let mut fresh = self.fresh.lock();
            if let Some((_, payload)) = fresh.work.remove(&number) {
                fresh.bytes -= payload.len() + 512;
            }
        }
        if let Some(function) = &function {
            self.stats.note(function, to, now);
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
        size: task.size,
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

impl Tasks {
    /// Opens the room on the current runtime: what an earlier server left is taken up, and work begins.
    ///
    /// # Errors
    /// What the store says.
    pub async fn open(
        store: Arc<dyn TaskStore>,
        control: Control,
        metrics: Metrics,
        options: Options,
    ) -> Result<Self, Error> {
        let boot = control.boot();
        let (configs, unreadable) = parse_configs(store.configs().await?);
        for object in unreadable {
            control.report(format!("{object} is stored in a form that this version cannot read, and does not hold"));
        }
        let book = Book::weighted(options.weights.clone());
        let receiving = Arc::new(Memory::for_payloads(options.payload));
        let shared = Arc::new(Shared {
            commits: Commits::new(store),
            control,
            metrics,
            server: Arc::from(options.server.as_str()),
            options,
            boot,
            book: Mutex::new(book),
            fresh: Mutex::default(),
            runs: Mutex::default(),
            configs: RwLock::new(configs),
            stats: Stats::default(),
            room: Room::default(),
            receiving,
            outbox: Outbox::default(),
            earlier: Notify::new(),
            watchers: Mutex::default(),
            address: OnceLock::new(),
            closing: tokio::sync::watch::Sender::new(false),
        });
        crate::recover::recover(&shared).await?;
        crate::rounds::start(&shared);
        crate::dispatch::start(&shared);
        Ok(Self { shared })
    }

    /// Where instances reach the API, as `http://HOST:PORT`.
    pub fn reached_at(&self, address: String) {
        let _ = self.shared.address.set(address);
    }

    /// Begins no more work. What runs goes on until its instance or the server ends; that costs it nothing.
    pub fn close(&self) {
        self.shared.closing.send_replace(true);
    }

    /// Cuts short what still runs, so that it is written down and not found as a crash, and waits a moment for that.
    pub async fn closed(&self) {
        for run in self.shared.runs.lock().values_mut() {
            if let Some(cancel) = run.cancel.take() {
                let _ = cancel.send(Cancel::Leave);
            }
        }
        const LIMIT: Duration = Duration::from_secs(3);
        let over = async {
            while !self.shared.runs.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(LIMIT, over).await;
    }

    /// Takes a task. When this returns it is on the disk and will be run.
    ///
    /// # Errors
    /// Any of [`Error`]; nothing is stored then, except after a failure of the disk, where it may be.
    pub async fn submit(&self, submission: Submission) -> Result<Receipt, Error> {
        self.submit_up_to(submission, self.shared.options.payload).await
    }

    /// The same with another limit for the payload, bytes.
    pub(crate) async fn submit_up_to(&self, submission: Submission, largest: usize) -> Result<Receipt, Error> {
        let (new, envelope, room) = self.shared.prepare(submission, largest)?;
        let shared = self.shared.clone();
        let unit = self.shared.commits.unit("accept task", move |store| async move {
            let accepted = shared.accept(store.as_ref(), new, envelope).await;
            // From here on the book counts it.
            drop(room);
            accepted
        });
        unit.await
    }

    /// Waits until there is news of a task, at most so long.
    pub async fn news(&self, number: TaskNumber, limit: Duration) {
        let notify = {
            let mut watchers = self.shared.watchers.lock();
            // Those that nobody waits for any more.
            watchers.retain(|_, notify| Arc::strong_count(notify) > 1);
            watchers.entry(number).or_default().clone()
        };
        let _ = tokio::time::timeout(limit, notify.notified()).await;
    }

    /// The number of a function's task by its id.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub async fn number(&self, scope: &TenantScope, function: &str, id: &str) -> Result<TaskNumber, Error> {
        Ok(self.stored(scope, function, id).await?.number)
    }

    /// A function's task by its id, as stored.
    pub(crate) async fn stored(&self, scope: &TenantScope, function: &str, id: &str) -> Result<Task, Error> {
        let unknown = || Error::Unknown { function: function.to_owned(), id: id.to_owned() };
        let store = self.shared.read();
        let tenant = match scope {
            TenantScope::All => None,
            TenantScope::One(tenant) => Some(tenant.to_string()),
            TenantScope::None => return Err(unknown()),
        };
        let number = match generated(id) {
            Some(number) => number,
            None => match &store.find(function.to_owned(), tenant, id.to_owned()).await?[..] {
                [] => return Err(unknown()),
                [(_, number)] => *number,
                several => {
                    let tenants = several.iter().map(|(tenant, _)| tenant.clone()).collect();
                    return Err(Error::Ambiguous { function: function.to_owned(), id: id.to_owned(), tenants });
                }
            },
        };
        let task = store.task(number).await?.filter(|task| &*task.function == function && scope.includes(&task.tenant));
        task.filter(|task| task.id.is_none() == generated(id).is_some()).ok_or_else(unknown)
    }
}

impl Shared {
    /// There are no versions or aliases to choose from yet.
    pub(crate) fn only_latest(&self, function: &str, qualifier: &str) -> Result<(), Error> {
        if qualifier == LATEST {
            return Ok(());
        }
        let (function, qualifier) = (function.to_owned(), qualifier.to_owned());
        Err(kip_control::Error::NoQualifier { function, qualifier }.into())
    }

    /// Settles how a submission is to be run.
    fn prepare(
        self: &Arc<Self>,
        submission: Submission,
        largest: usize,
    ) -> Result<(NewTask, Envelope, RoomGuard), Error> {
        let Submission { function, qualifier, id, idempotency, payload, .. } = submission;
        let cell = self.control.require(&function)?;
        if self.is_closing() || self.control.is_closing() {
            return Err(kip_control::Error::ShuttingDown.into());
        }
        let wrong = |text: String| Err(Error::Submission(text));
        if let Some(id) = id.as_deref().filter(|id| !may_be_chosen(id)) {
            let shown: String = id.chars().take(64).collect();
            return wrong(format!(
                "`{shown}` is no task id: a letter or `_`, then letters, digits, `_` and `-`, at most 128; `t` and a number is ours"
            ));
        }
        if idempotency.as_ref().is_some_and(|key| key.is_empty() || key.len() > 255) {
            return wrong("an idempotency key has 1 to 255 characters".to_owned());
        }
        if submission.order.as_ref().is_some_and(|key| key.is_empty() || key.len() > 255) {
            return wrong("an ordering key has 1 to 255 characters".to_owned());
        }
        if submission.priority.is_some_and(|priority| priority > 9) {
            return wrong("a priority is a number from 0 (first) to 9".to_owned());
        }
        if submission.retries.is_some_and(|retries| retries > crate::config::MOST_RETRIES) {
            return wrong(format!("retries are 0 to {}", crate::config::MOST_RETRIES));
        }
        let longest = Duration::from_secs(LONGEST);
        if submission.max_age.is_some_and(|age| age.is_zero()) {
            return wrong("its maximum age is more than nothing".to_owned());
        }
        if [submission.delay, submission.max_age].into_iter().flatten().any(|time| time > longest) {
            return wrong(format!("delay and maximum age are at most {} days", LONGEST / crate::config::DAY));
        }
        if payload.len() > largest {
            return Err(Error::TooLarge { bytes: Some(payload.len() as u64), limit: largest });
        }
        let qualifier = qualifier.unwrap_or_else(|| LATEST.to_owned());
        self.only_latest(cell.name().as_str(), &qualifier)?;
        let config = self.config(cell.name().as_str(), &qualifier);
        let version = cell.serving();
        if let Some(why) = self.control.never_fits(&version.spec) {
            return Err(Error::NeverFits { function, why });
        }
        let job = version.spec.job.as_ref();
        // However it was asked for, a job is given its input and nothing else.
        let call = submission.call.filter(|_| job.is_none()).unwrap_or_else(|| Call::event(None));
        let now = wall_millis();
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let age = submission.max_age.unwrap_or_else(|| Duration::from_secs(config.max_async_event_age_in_seconds));
        let run_at = now.saturating_add(submission.delay.map_or(0, millis));
        let earlier_fingerprint = fingerprint::earlier(&call, &payload);
        let fingerprint = fingerprint(&qualifier, &call, &payload);
        let kind = match job {
            Some(_) => view::JOB,
            None if config.async_task || submission.stateful => view::TASK,
            None => view::INVOCATION,
        };
        let retries = job.map_or(config.max_async_retry_attempts, |job| job.retries);
        let envelope = Envelope {
            request: submission.request,
            key: submission.key,
            call,
            retries: submission.retries.unwrap_or(retries),
            timeout: job.map_or_else(|| config.timeout_in_seconds.saturating_mul(1_000), |job| job.timeout.0),
            destinations: config.destination_config,
            exits: job.map(|job| job.exits.clone()),
            due: submission.due,
            depth: submission.depth,
        };
        let new = NewTask {
            function: Arc::from(cell.name().as_str()),
            function_id: version.function,
            qualifier: Arc::from(qualifier),
            tenant: Arc::from(submission.tenant.as_deref().unwrap_or(ANONYMOUS)),
            id,
            key: idempotency,
            fingerprint,
            earlier_fingerprint,
            kind,
            priority: submission.priority.unwrap_or(5),
            order: submission.order.map(Arc::from),
            created: now,
            run_at,
            // Its age counts from when it may run.
            expires_at: run_at.saturating_add(millis(age)),
            envelope: serde_json::to_string(&envelope).unwrap_or_default(),
            payload,
        };
        let (waiting, overall) = {
            let book = self.book();
            (book.counts(&new.function).queued(), book.queued())
        };
        let options = &self.options;
        let of_function = format!("for function `{function}`");
        for (waiting, limit, of_what) in
            [(waiting, options.per_function, of_function), (overall, options.overall, "in all".to_owned())]
        {
            if waiting >= limit {
                return Err(Error::Full { waiting, limit, of_what });
            }
        }
        let room = self.reserve(&new)?;
        Ok((new, envelope, room))
    }

    async fn accept(&self, store: &dyn TaskStore, new: NewTask, envelope: Envelope) -> Result<Receipt, Error> {
        let entry = Entry {
            id: new.id.as_deref().map(Arc::from),
            function: new.function.clone(),
            function_id: new.function_id.0,
            step: 0,
            qualifier: new.qualifier.clone(),
            tenant: new.tenant.clone(),
            priority: new.priority,
            kind: new.kind,
            order: new.order.clone(),
            size: new.payload.len() as u64,
            created: new.created,
            expires_at: new.expires_at,
            state: TaskState::Enqueued,
            epoch: 0,
            run_at: new.run_at,
            started: 0,
            errors: 0,
            crashes: 0,
            refusals: 0,
        };
        let (id, key, payload) = (new.id.clone(), new.key.clone(), new.payload.clone());
        reached("task: before accept");
        let accepted = store.accept(new).await?;
        reached("task: accepted");
        let number = accepted.number();
        match accepted {
            SubmitOutcome::New(_) => {}
            SubmitOutcome::Known(_) => {
                let known = store.task(number).await?;
                let first = known.as_ref().and_then(crate::notification::envelope).map(|envelope| envelope.request);
                let id = known.map_or_else(|| id_of(number, id.as_deref()), |task| id_of(number, task.id.as_deref()));
                return Ok(Receipt { number, id, request: first.unwrap_or(envelope.request), known: true });
            }
            SubmitOutcome::Conflict(_) => {
                let known = store.task(number).await?.and_then(|task| task.id);
                let id = id.or(key).unwrap_or_default();
                return Err(Error::Conflict { id, task: id_of(number, known.as_deref()) });
            }
        }
        let function = entry.function.clone();
        let request = envelope.request.clone();
        self.keep_fresh(number, Arc::new(envelope), payload);
        self.book().admit(number, entry, wall_millis());
        self.stats.accepted(&function);
        self.report(&function);
        self.earlier.notify_one();
        Ok(Receipt { number, id: id_of(number, id.as_deref()), request, known: false })
    }
}

/// Configurations from the disk, and the names of those that cannot be read.
pub(crate) fn parse_configs(rows: Vec<(String, String, String)>) -> (Configs, Vec<String>) {
    let (mut configs, mut unreadable) = (Configs::new(), Vec::new());
    for (function, qualifier, text) in rows.into_iter().filter(|(_, qualifier, _)| qualifier != TIMER) {
        match serde_json::from_str(&text) {
            Ok(config) => drop(configs.insert((function, qualifier), config)),
            Err(error) => unreadable.push(format!("the asynchronous configuration {function}/{qualifier} ({error})")),
        }
    }
    (configs, unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_that_cannot_be_read_are_named() {
        let row = |qualifier: &str, text: &str| ("f".to_owned(), qualifier.to_owned(), text.to_owned());
        let rows = vec![row("LATEST", "{}"), row("v1", r#"{"newer": 1}"#), row(TIMER, "spoilt")];
        let (configs, unreadable) = parse_configs(rows);
        assert_eq!(configs.len(), 1);
        assert_eq!(unreadable.len(), 1, "{unreadable:?}");
        assert!(unreadable[0].contains("f/v1"), "{unreadable:?}");
    }
}
