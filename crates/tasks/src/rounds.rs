//! What is due by the clock: delays, retries, expiry, leases, retention, functions that are gone.

use std::sync::Arc;
use std::time::Duration;

use kip_host::clock::{boot_millis, wall_millis};
use kip_store::Author;
use kip_store::tasks::{Step, Task, TaskFilter, TaskNumber, TaskState};

use crate::error::Error;
use crate::event::Event;
use crate::notification;
use crate::shared::{LEASE, Shared};
use kip_queue::book::Entry;

/// How often everything is looked at even if nothing is known to be due.
const LOOK: Duration = Duration::from_secs(1);
/// How often leases are renewed.
const RENEW: Duration = Duration::from_secs(5);
/// How often what is old enough is forgotten, at least where it is kept for longer.
const FORGET: Duration = Duration::from_secs(600);
/// Tasks that expire in one go.
const EXPIRE: usize = 256;

pub(crate) fn start(shared: &Arc<Shared>) {
    let due = shared.clone();
    let supervisor = shared.control.supervisor();
    supervisor.critical("tasks due", async move { work(&due).await });
    let leases = shared.clone();
    supervisor.critical("task leases", async move {
        loop {
            tokio::time::sleep(RENEW).await;
            if let Err(error) = renew(&leases).await {
                tracing::warn!(%error, "leases of tasks are not renewed");
            }
        }
    });
    let old = shared.clone();
    supervisor.critical("old tasks", async move {
        loop {
            if let Err(error) = forget(&old).await {
                tracing::warn!(%error, "old tasks are not forgotten");
            }
            tokio::time::sleep(old.options.retention.clamp(Duration::from_secs(1), FORGET)).await;
        }
    });
}

async fn work(shared: &Arc<Shared>) {
    let (mut looked, mut seen) = (0, None);
    loop {
        let now = wall_millis();
        let touched = shared.book().due(now);
        for function in &touched {
            shared.load_named_versions(function).await;
            shared.report(function);
        }
        if let Err(error) = expire(shared, now).await {
            tracing::warn!(%error, "tasks that are too old are not ended");
            tokio::time::sleep(LOOK).await;
        }
        if boot_millis() >= looked + 1_000 {
            looked = boot_millis();
            forget_counts(shared, &mut seen);
            remove_finished(shared).await;
            if let Err(error) = look_at_functions(shared).await {
                tracing::warn!(%error, "tasks of functions that are gone are not ended");
            }
        }
        let next = shared.book().next_due();
        let pause = next.map_or(LOOK, |next| {
            let pause = next.saturating_sub(wall_millis()).max(0).unsigned_abs();
            // The wall clock may step.
            Duration::from_millis(pause).min(LOOK)
        });
        // Many notices make one look.
        let quiet = pause.max(Duration::from_millis(2));
        tokio::select! {
            () = tokio::time::sleep(quiet) => {}
            () = shared.earlier.notified() => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// Ends what is too old, in one commit.
pub(crate) async fn expire(shared: &Arc<Shared>, now: i64) -> Result<(), Error> {
    let too_old = shared.book().expired(now, EXPIRE);
    let end = |number| {
        let function = shared.book().entry(number).map(|entry| entry.function.clone());
        let trouble = function.and_then(|function| shared.trouble_of(&function));
        let why = match &trouble {
            Some(trouble) => format!("it waited longer than its maximum age: {trouble}"),
            None => "it waited longer than its maximum age".to_owned(),
        };
        TaskEnd { state: TaskState::Expired, kind: Some(kip_queue::rules::AGE_EXCEEDED), why: Some(why) }
    };
    let ends = too_old.into_iter().map(|number| (number, end(number))).collect();
    end_all_waiting(shared, ends).await.map(drop)
}

/// How a task ends that waits.
#[derive(Debug, Clone)]
pub(crate) struct TaskEnd {
    pub(crate) state: TaskState,
    /// What kind of failure it is.
    pub(crate) kind: Option<&'static str>,
    /// In a sentence.
    pub(crate) why: Option<String>,
}

impl TaskEnd {
    /// Somebody stopped it.
    pub(crate) const STOPPED: Self = Self { state: TaskState::Stopped, kind: None, why: None };

    /// Its function is gone.
    pub(crate) fn orphan() -> Self {
        let why = Some("its function is gone".to_owned());
        Self { state: TaskState::Invalid, kind: Some("FunctionNotFound"), why }
    }
}

/// Ends tasks that wait, in one commit. Which of them did and were in time.
pub(crate) async fn end_all_waiting(
    shared: &Arc<Shared>,
    ends: Vec<(TaskNumber, TaskEnd)>,
) -> Result<Vec<TaskNumber>, Error> {
    let mut steps = Vec::with_capacity(ends.len());
    for (number, end) in ends {
        let waits = |entry: &&Entry| matches!(entry.state, TaskState::Enqueued | TaskState::Retrying);
        let entry = shared.book().entry(number).filter(waits).cloned();
        let Some(entry) = entry else { continue };
        let Some(task) = shared.read().task(number).await? else { continue };
        steps.push(step(&task, &entry, &end));
    }
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<TaskNumber> = steps.iter().map(|step| step.number).collect();
    let applied = shared.advance_all(steps).await?;
    Ok(numbers.into_iter().zip(applied).filter(|(_, applied)| *applied).map(|(number, _)| number).collect())
}

/// The step of a task that ends while it waits.
pub(crate) fn step(task: &Task, entry: &Entry, end: &TaskEnd) -> Step {
    let now = wall_millis();
    let mut to = entry.progressed();
    (to.state, to.ended) = (end.state, now);
    (to.error_kind, to.error) = (end.kind.map(str::to_owned), end.why.clone());
    Step {
        number: task.number,
        function: None,
        from: entry.state,
        epoch: entry.epoch,
        events: vec![Event::became(&to).at(now)],
        output: None,
        deliveries: notification::envelope(task).map_or_else(Vec::new, |envelope| notification::caused(&envelope, &to)),
        to,
    }
}

/// Tells the brain again how many wait, in case a new version serves by now, and ends tasks of functions that are gone.
pub(crate) async fn look_at_functions(shared: &Arc<Shared>) -> Result<(), Error> {
    let functions: Vec<Arc<str>> = shared.book().functions().cloned().collect();
    for function in functions {
        // A name that was made again is another function; tasks from before functions had ids belong to their name.
        let id = shared.control.cell(&function).map(|cell| cell.serving().function.0);
        if id.is_some() {
            shared.load_named_versions(&function).await;
            shared.report(&function);
        }
        let gone: Vec<TaskNumber> = {
            let book = shared.book();
            let of = book.of_function(&function);
            let gone = of.filter(|number| match (id, book.entry(*number).map_or(0, |entry| entry.function_id)) {
                (None, _) => true,
                (Some(_), 0) => false,
                (Some(id), own) => own != id,
            });
            gone.take(EXPIRE).collect()
        };
        let ends = gone.into_iter().map(|number| (number, TaskEnd::orphan())).collect();
        end_all_waiting(shared, ends).await?;
    }
    Ok(())
}

/// Removes one-off jobs whose tasks are over. One without a task yet is left alone for a while: its task is on its way.
pub(crate) async fn remove_finished(shared: &Shared) {
    /// From the deployment of a one-off job to its task, milliseconds.
    const LATEST_TASK: i64 = 600_000;
    for cell in shared.control.jobs() {
        let version = cell.serving();
        if !version.spec.job.as_ref().is_some_and(|job| job.once) {
            continue;
        }
        let name = cell.name().as_str();
        let is_open = |shared: &Shared| shared.book().of_function(name).next().is_some();
        if is_open(shared) {
            continue;
        }
        let filter = TaskFilter { function: Some(name.to_owned()), limit: 1, ..TaskFilter::default() };
        let Ok(last) = shared.read().list(filter).await else { continue };
        let Some(deployed) = shared.control.deployed_at(name).await else { continue };
        // Deployed again after its last task, it waits for another one.
        let of_this = last.first().filter(|task| task.function_id == version.function && task.created >= deployed);
        let is_over = of_this.is_some_and(|task| task.now.state.is_terminal());
        let is_stale = of_this.is_none() && wall_millis() > deployed.saturating_add(LATEST_TASK);
        // A task may have been accepted since.
        if !(is_over || is_stale) || is_open(shared) {
            continue;
        }
        let author = Author { by: "kip run".to_owned(), if_match: None };
        if let Err(error) = shared.control.remove(name, author).await {
            tracing::warn!(job = name, %error, "a one-off job that is over is not removed");
        }
    }
}

/// Forgets what was counted of functions that are gone, when functions have come or gone.
pub(crate) fn forget_counts(shared: &Shared, seen: &mut Option<u64>) {
    let changes = shared.control.changes();
    if *seen != Some(changes) {
        *seen = Some(changes);
        let open: std::collections::BTreeSet<Arc<str>> = shared.book().functions().cloned().collect();
        shared.stats.keep(|function| open.contains(function) || shared.control.cell(function).is_some());
    }
}

async fn renew(shared: &Arc<Shared>) -> Result<(), Error> {
    let claims: Vec<(TaskNumber, u32)> = shared.book().running().map(|(number, entry)| (number, entry.epoch)).collect();
    if !claims.is_empty() {
        let until = boot_millis() + LEASE;
        shared.commits.unit("leases", move |store| async move { store.renew(claims, until).await }).await?;
    }
    Ok(())
}

async fn forget(shared: &Arc<Shared>) -> Result<(), Error> {
    let retention = i64::try_from(shared.options.retention.as_millis()).unwrap_or(i64::MAX);
    let before = wall_millis().saturating_sub(retention);
    let mut behind = TaskNumber(0);
    loop {
        let prune = shared.commits.unit("prune tasks", move |store| async move { store.prune(behind, before).await });
        let Some(next) = prune.await? else { break };
        behind = next;
        // Others come first.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shared.results.count_again(shared.read().kept_results().await?);
    Ok(())
}
