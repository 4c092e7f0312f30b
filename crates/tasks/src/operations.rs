//! What is asked of tasks by those who look after them: show, list, count, stop, retry, forget.

use std::time::Duration;

use bytes::Bytes;
use kip_host::clock::wall_millis;
use kip_spec::VersionId;
use kip_store::tasks::{Output, Step, SyncTimes, Task, TaskFilter, TaskNumber, TaskProgress, TaskState};
use kip_wire::{TaskCounts, TaskEvent, TaskInfo};
use serde::{Deserialize, Serialize};

use crate::envelope::Head;
use crate::error::Error;
use crate::event::Event;
use crate::rounds::{TaskEnd, end_all_waiting, step};
use crate::shared::{Tasks, entry_of};

use crate::tenant::{TenantScope, bound};
use crate::view::{SHOWN, events_of, head_of, info_of};
use kip_queue::book::{Entry, Wait};

/// Tasks that a bulk operation changes in one commit.
const BULK: u32 = 500;
/// Commits of one bulk operation: who asks has to be answered, and may go on.
const BULKS: u32 = 50;

/// How a function's tasks stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct FunctionTasks {
    /// The function.
    pub function: String,
    /// They wait for their turn.
    pub ready: u64,
    /// They wait for their time.
    pub later: u64,
    /// They wait for another one with their ordering key.
    pub held: u64,
    /// Of those that wait, they failed before.
    pub retrying: u64,
    /// They run.
    pub running: u64,
    /// How long the oldest that is ready has waited, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
    /// What was counted since the server started.
    #[serde(flatten)]
    pub counted: TaskCounts,
}

/// A task that is over, as it waits to be run once more.
fn again(task: &Task) -> (Entry, Step) {
    let now = wall_millis();
    let age = task.now.expires_at.saturating_sub(task.created).max(60_000);
    let mut entry = entry_of(task);
    entry.state = TaskState::Enqueued;
    (entry.run_at, entry.expires_at) = (now, now.saturating_add(age));
    (entry.errors, entry.crashes, entry.refusals) = (0, 0, 0);
    let step = Step {
        number: task.number,
        function: None,
        from: task.now.state,
        epoch: task.now.epoch,
        to: entry.progressed(),
        events: vec![Event::Enqueued { again: true }.at(now)],
        output: None,
        deliveries: Vec::new(),
    };
    (entry, step)
}

/// How tasks stand as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Summary {
    /// All that wait.
    pub queued: u64,
    /// Words on their way.
    pub deliveries: u64,
    /// How long syncs take.
    pub sync: SyncTimes,
    /// `writable`, `full` or what failed.
    pub store: String,
    /// By function.
    pub functions: Vec<FunctionTasks>,
}

/// What a bulk operation did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Bulk {
    /// Tasks that fit.
    pub matched: u64,
    /// Tasks that were changed.
    pub changed: u64,
    /// Behind which number to go on; none if all were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<TaskNumber>,
}

/// What a bulk operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkAction {
    /// Stop what is open.
    Stop,
    /// Run again what failed, expired or was stopped.
    Retry,
    /// Forget what is over.
    Purge,
}

impl BulkAction {
    /// The states that it is for.
    pub fn states(self) -> Vec<TaskState> {
        let all = TaskState::ALL.into_iter();
        match self {
            Self::Stop => all.filter(|state| !state.is_terminal() && *state != TaskState::Stopping).collect(),
            Self::Retry => {
                vec![TaskState::Failed, TaskState::Expired, TaskState::Stopped, TaskState::Invalid]
            }
            Self::Purge => all.filter(|state| state.is_terminal()).collect(),
        }
    }
}

impl Tasks {
    /// A task as it is shown, with its payload if asked for.
    ///
    /// # Errors
    /// [`Error::Unknown`] or what the store says.
    pub async fn show(&self, scope: &TenantScope, function: &str, id: &str, payload: bool) -> Result<TaskInfo, Error> {
        let task = self.stored(scope, function, id).await?;
        self.info(&task, payload).await
    }

    async fn info(&self, task: &Task, payload: bool) -> Result<TaskInfo, Error> {
        let store = self.shared.read();
        let output = if task.now.state.is_terminal() { store.output(task.number).await? } else { None };
        let given = if payload { store.payload(task.number).await? } else { None };
        let given = given.map(|given| given.slice(..given.len().min(SHOWN)));
        let mut info = info_of(task, output.as_ref(), given.as_deref(), wall_millis());
        self.add_version(task, &mut info);
        self.add_position(task.number, &mut info);
        Ok(info)
    }

    /// The version that its latest run was on.
    fn add_version(&self, task: &Task, info: &mut TaskInfo) {
        let ran = (task.now.revision > 0).then_some(VersionId(task.now.revision));
        let cell = self.shared.control.cell(&task.function);
        info.version = ran.and_then(|version| Some(cell?.version_label(version)));
    }

    /// Its place and how long that will take, as far as it can be said.
    fn add_position(&self, number: TaskNumber, info: &mut TaskInfo) {
        let now = wall_millis();
        let (ahead, running, wait) = {
            let book = self.shared.book();
            (book.ahead(number), book.counts(&info.function_name).running, book.wait(number))
        };
        info.ahead = ahead;
        let missing = || self.shared.missing_qualifier(&info.function_name, &info.qualifier);
        info.waits_for = match wait {
            Some(Wait::Turn) => missing().or_else(|| self.shared.trouble_of(&info.function_name)),
            Some(Wait::Order) => Some("another task with its ordering key goes first".to_owned()),
            Some(Wait::Time) | None => None,
        };
        // What runs already for longer than others took says more than those.
        let longest = if ahead.is_some() { self.longest_run(&info.function_name, now) } else { 0 };
        let mean = self.shared.stats.of(&info.function_name).mean_ms.max(longest);
        if let Some(ahead) = ahead
            && mean > 0
        {
            info.estimated_wait_ms = Some((ahead + 1).saturating_mul(mean) / running.max(1));
        }
    }

    /// How long the oldest of a function's runs under way has taken, milliseconds.
    fn longest_run(&self, function: &str, now: i64) -> u64 {
        let runs = self.shared.runs.lock();
        let runs: Vec<TaskNumber> = runs.keys().copied().collect();
        let book = self.shared.book();
        let entries = runs.into_iter().filter_map(|number| book.entry(number));
        let took = entries.filter(|entry| *entry.function == *function).map(|entry| now.saturating_sub(entry.started));
        took.max().and_then(|took| u64::try_from(took).ok()).unwrap_or(0)
    }

    /// The tasks that fit, and the number behind which to go on; none at the end.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list(
        &self,
        scope: &TenantScope,
        filter: TaskFilter,
        payload: bool,
    ) -> Result<(Vec<TaskInfo>, Option<TaskNumber>), Error> {
        let Some(filter) = bound(scope, filter) else { return Ok((Vec::new(), None)) };
        let limit = filter.limit.clamp(1, 1_000);
        let mut rows = self.shared.read().list(TaskFilter { limit: limit + 1, ..filter }).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = if more { rows.last().map(|task| task.number) } else { None };
        let mut infos = Vec::with_capacity(rows.len());
        for task in &rows {
            let info = if payload {
                self.info(task, true).await?
            } else {
                let mut info = info_of(task, None, None, wall_millis());
                self.add_version(task, &mut info);
                info.events.clear();
                self.add_position(task.number, &mut info);
                info
            };
            infos.push(info);
        }
        Ok((infos, next))
    }

    /// What a task was given.
    ///
    /// # Errors
    /// [`Error::Unknown`] or what the store says.
    pub async fn payload(&self, scope: &TenantScope, function: &str, id: &str) -> Result<Bytes, Error> {
        let number = self.number(scope, function, id).await?;
        Ok(self.shared.read().payload(number).await?.unwrap_or_default())
    }

    /// What a task's function answered; none if it did not.
    ///
    /// # Errors
    /// [`Error::State`] if it is not over; [`Error::Unknown`] or what the store says.
    pub async fn result(&self, scope: &TenantScope, function: &str, id: &str) -> Result<Option<(Head, Bytes)>, Error> {
        let task = self.stored(scope, function, id).await?;
        if !task.now.state.is_terminal() {
            let (wanted, what) = ("one that is over", "asked for its result");
            return Err(Error::State { id: id.to_owned(), state: task.now.state.name(), wanted, what });
        }
        let output = self.shared.read().output(task.number).await?;
        Ok(output.map(|output: Output| (head_of(&output), output.body)))
    }

    /// The steps of a task behind the given one, and whether it is over. Waits for news for so long if there are none.
    ///
    /// # Errors
    /// What the store says; a task that is forgotten is over.
    pub async fn events(
        &self,
        number: TaskNumber,
        behind: u64,
        wait: Duration,
    ) -> Result<(Vec<TaskEvent>, bool), Error> {
        let look = async || -> Result<(Vec<TaskEvent>, bool), Error> {
            let Some(task) = self.shared.read().task(number).await? else { return Ok((Vec::new(), true)) };
            let new = events_of(&task).into_iter().filter(|event| event.event_id > behind).collect();
            Ok((new, task.now.state.is_terminal()))
        };
        // Asked for first, so that news between the look and the wait is not missed for long.
        let (events, over) = look().await?;
        if !events.is_empty() || over || wait.is_zero() {
            return Ok((events, over));
        }
        // A look now and then covers news that came in between.
        let end = kip_host::clock::boot_millis() + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        loop {
            let left = end.saturating_sub(kip_host::clock::boot_millis());
            self.news(number, Duration::from_millis(left.min(500))).await;
            let (events, over) = look().await?;
            if !events.is_empty() || over || left <= 500 {
                return Ok((events, over));
            }
        }
    }

    /// Stops a task: one that waits at once, one that runs by way of its instance. One that is over stays as it is.
    ///
    /// # Errors
    /// [`Error::Unknown`] or what the store says.
    pub async fn stop(&self, scope: &TenantScope, function: &str, id: &str) -> Result<TaskState, Error> {
        let number = self.number(scope, function, id).await?;
        let tasks = self.clone();
        // The step and the end of the run belong together.
        kip_store::detached("stop task", async move { tasks.stop_number(number).await }).await
    }

    async fn stop_number(&self, number: TaskNumber) -> Result<TaskState, Error> {
        let shared = &self.shared;
        loop {
            if !end_all_waiting(shared, vec![(number, TaskEnd::STOPPED)]).await?.is_empty() {
                return Ok(TaskState::Stopped);
            }
            let Some(task) = shared.read().task(number).await? else { return Ok(TaskState::Stopped) };
            let state = task.now.state;
            if state.is_terminal() {
                return Ok(state);
            }
            if state == TaskState::Running {
                let now = wall_millis();
                let to = TaskProgress { state: TaskState::Stopping, ..task.now.clone() };
                let step = Step {
                    number,
                    function: None,
                    from: state,
                    epoch: task.now.epoch,
                    to,
                    events: vec![Event::Stopping.at(now)],
                    output: None,
                    deliveries: Vec::new(),
                };
                if !shared.advance(step).await? {
                    continue;
                }
                shared.halt(number);
                return Ok(TaskState::Stopping);
            }
            if state == TaskState::Stopping {
                shared.halt(number);
                return Ok(state);
            }
            // It is on its way from one state to the next.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Runs a task that is over once more, with all its retries.
    ///
    /// # Errors
    /// [`Error::State`] if it is not over or went well; [`Error::Unknown`] or what the store says.
    pub async fn retry(&self, scope: &TenantScope, function: &str, id: &str) -> Result<(), Error> {
        let task = self.stored(scope, function, id).await?;
        let state = task.now.state;
        if !BulkAction::Retry.states().contains(&state) || !self.retry_stored(&task).await? {
            let (wanted, what) = ("one that failed, expired or was stopped", "retried");
            return Err(Error::State { id: id.to_owned(), state: state.name(), wanted, what });
        }
        Ok(())
    }

    async fn retry_stored(&self, task: &Task) -> Result<bool, Error> {
        Ok(self.retry_all(std::slice::from_ref(task)).await? > 0)
    }

    /// Runs all of these once more, in one commit. How many.
    async fn retry_all(&self, tasks: &[Task]) -> Result<u64, Error> {
        let again: Vec<(Entry, Step)> = tasks.iter().map(again).collect();
        let shared = self.shared.clone();
        let unit = self.shared.commits.unit("retry tasks", move |store| async move {
            let steps = again.iter().map(|(_, step)| step.clone()).collect();
            let stepped = store.advance_all(steps).await?;
            let mut changed = 0;
            for ((entry, step), stepped) in again.into_iter().zip(stepped).filter(|(_, stepped)| stepped.applied) {
                shared.admitted_again(step.number, entry, stepped.order);
                changed += 1;
            }
            Ok(changed)
        });
        unit.await
    }

    /// Stops all of these: those that wait in one commit. How many were stopped or are about to be.
    async fn stop_all(&self, tasks: &[Task]) -> Result<u64, Error> {
        let mut steps = Vec::new();
        let mut others = Vec::new();
        for task in tasks {
            let book = self.shared.book();
            let waits = |entry: &&Entry| matches!(entry.state, TaskState::Enqueued | TaskState::Retrying);
            match book.entry(task.number).filter(waits) {
                Some(entry) => steps.push(step(task, entry, &TaskEnd::STOPPED)),
                None => others.push(task.number),
            }
        }
        let numbers: Vec<TaskNumber> = steps.iter().map(|step| step.number).collect();
        let stepped = if steps.is_empty() { Vec::new() } else { self.shared.advance_all(steps).await? };
        let late = numbers.into_iter().zip(&stepped).filter(|(_, in_time)| !**in_time);
        others.extend(late.map(|(number, _)| number));
        let mut changed = stepped.iter().filter(|in_time| **in_time).count() as u64;
        for number in others {
            let state = self.stop_number(number).await?;
            changed += u64::from(matches!(state, TaskState::Stopped | TaskState::Stopping));
        }
        Ok(changed)
    }

    /// Forgets a task that is over.
    ///
    /// # Errors
    /// [`Error::State`] if it is not over; [`Error::Unknown`] or what the store says.
    pub async fn purge(&self, scope: &TenantScope, function: &str, id: &str) -> Result<(), Error> {
        let task = self.stored(scope, function, id).await?;
        if self.forget(vec![task.number]).await? == 0 {
            let (wanted, what) = ("one that is over", "forgotten");
            return Err(Error::State { id: id.to_owned(), state: task.now.state.name(), wanted, what });
        }
        Ok(())
    }

    async fn forget(&self, numbers: Vec<TaskNumber>) -> Result<u64, Error> {
        let unit = self.shared.commits.unit("forget tasks", move |store| async move { store.forget(numbers).await });
        Ok(unit.await?)
    }

    /// Does the same to all tasks that fit, or only counts them. Of very many it does some and says behind which number to go on.
    ///
    /// # Errors
    /// What the store says; some may be changed by then.
    pub async fn bulk(
        &self,
        scope: &TenantScope,
        what: BulkAction,
        filter: TaskFilter,
        only_count: bool,
    ) -> Result<Bulk, Error> {
        let Some(filter) = bound(scope, filter) else { return Ok(Bulk::default()) };
        let mut states = what.states();
        if !filter.states.is_empty() {
            states.retain(|state| filter.states.contains(state));
        }
        if states.is_empty() {
            return Ok(Bulk::default());
        }
        let mut filter = TaskFilter { states, ascending: true, limit: BULK, ..filter };
        let matched = self.shared.read().count(filter.clone(), u64::from(u32::MAX)).await?;
        let mut bulk = Bulk { matched, ..Bulk::default() };
        if only_count {
            return Ok(bulk);
        }
        for _ in 0..BULKS {
            let page = self.shared.read().list(filter.clone()).await?;
            let Some(last) = page.last() else {
                bulk.next = None;
                return Ok(bulk);
            };
            (filter.after, bulk.next) = (Some(last.number), Some(last.number));
            match what {
                BulkAction::Purge => {
                    let numbers = page.iter().map(|task| task.number).collect();
                    bulk.changed += self.forget(numbers).await?;
                }
                BulkAction::Stop => bulk.changed += self.stop_all(&page).await?,
                BulkAction::Retry => bulk.changed += self.retry_all(&page).await?,
            }
        }
        Ok(bulk)
    }

    /// How the tasks stand that a caller sees.
    pub fn summary(&self, scope: &TenantScope) -> Summary {
        let shared = &self.shared;
        let now = wall_millis();
        let mut names = shared.stats.functions();
        let open: Vec<_> = shared.book().functions().cloned().collect();
        names.extend(open);
        names.sort();
        names.dedup();
        let functions = names.iter().map(|name| {
            let (counts, counted) = match scope {
                TenantScope::All => (shared.book().counts(name), shared.stats.of(name)),
                TenantScope::One(tenant) => {
                    (shared.book().counts_of(name, tenant), shared.stats.of_tenant(name, tenant))
                }
                TenantScope::None => Default::default(),
            };
            FunctionTasks {
                function: name.to_string(),
                ready: counts.ready,
                later: counts.later,
                held: counts.held,
                retrying: counts.retrying,
                running: counts.running,
                oldest_ms: counts.oldest.map(|oldest| now.saturating_sub(oldest).max(0).unsigned_abs()),
                counted,
            }
        });
        let store = match shared.read().condition() {
            kip_store::Condition::Writable => "writable".to_owned(),
            kip_store::Condition::Full => "full".to_owned(),
            kip_store::Condition::NotDurable(detail) => format!("not durable: {detail}"),
        };
        let mut functions: Vec<FunctionTasks> = functions.collect();
        if *scope != TenantScope::All {
            // That others have tasks of a function is not told either.
            functions
                .retain(|of| of.counted != TaskCounts::default() || of.ready + of.later + of.held + of.running > 0);
        }
        let queued = match scope {
            TenantScope::All => shared.book().queued(),
            _ => functions.iter().map(|of| of.ready + of.later + of.held).sum(),
        };
        Summary { queued, deliveries: shared.outbox.open(), sync: shared.read().sync_times(), store, functions }
    }
}
