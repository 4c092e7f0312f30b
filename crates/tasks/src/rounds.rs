//! What is due by the clock: delays, retries, expiry, leases, retention, functions that are gone.

use std::sync::Arc;
use std::time::Duration;

use kip_host::clock::{boot_millis, wall_millis};
use kip_store::tasks::{Step, Task, TaskNumber, TaskState};
use serde_json::{Value, json};

use crate::error::Error;
use crate::service::{LEASE, Shared};
use crate::view::line;
use crate::words;
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
    kip_host::tasks::spawn("tasks due", async move { work(&due).await });
    let leases = shared.clone();
    kip_host::tasks::spawn("task leases", async move {
        loop {
            tokio::time::sleep(RENEW).await;
            if let Err(error) = renew(&leases).await {
                tracing::warn!(%error, "leases of tasks are not renewed");
            }
        }
    });
    let old = shared.clone();
    kip_host::tasks::spawn("old tasks", async move {
        loop {
            if let Err(error) = forget(&old).await {
                tracing::warn!(%error, "old tasks are not forgotten");
            }
            tokio::time::sleep(old.options.retention.clamp(Duration::from_secs(1), FORGET)).await;
        }
    });
}

async fn work(shared: &Arc<Shared>) {
    let mut looked = 0;
    loop {
        let now = wall_millis();
        let touched = shared.book().due(now);
        touched.iter().for_each(|function| shared.report(function));
        if let Err(error) = expire(shared, now).await {
            tracing::warn!(%error, "tasks that are too old are not ended");
            tokio::time::sleep(LOOK).await;
        }
        if boot_millis() >= looked + 1_000 {
            looked = boot_millis();
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

async fn expire(shared: &Arc<Shared>, now: i64) -> Result<(), Error> {
    let too_old = shared.book().expired(now, EXPIRE);
    for number in too_old {
        let function = shared.book().entry(number).map(|entry| entry.function.clone());
        let trouble = function.and_then(|function| shared.trouble_of(&function));
        let why = match &trouble {
            Some(trouble) => format!("it waited longer than its maximum age: {trouble}"),
            None => "it waited longer than its maximum age".to_owned(),
        };
        let detail = json!({ "Error": "EventAgeExceeded", "message": why });
        end_waiting(shared, number, TaskState::Expired, &why, &detail).await?;
    }
    Ok(())
}

/// Ends a task that waits. False if it does not wait any more.
pub(crate) async fn end_waiting(
    shared: &Shared,
    number: TaskNumber,
    state: TaskState,
    why: &str,
    detail: &Value,
) -> Result<bool, Error> {
    let entry = {
        let book = shared.book();
        book.entry(number).filter(|entry| matches!(entry.state, TaskState::Enqueued | TaskState::Retrying)).cloned()
    };
    let Some(entry) = entry else { return Ok(false) };
    let Some(task) = shared.store.task(number).await? else { return Ok(false) };
    shared.advance(ends(&task, &entry, state, why, detail)).await
}

/// The step of a task that ends while it waits.
pub(crate) fn ends(task: &Task, entry: &Entry, state: TaskState, why: &str, detail: &Value) -> Step {
    let now = wall_millis();
    let mut to = entry.progressed();
    (to.state, to.ended) = (state, now);
    to.error_kind = detail["Error"].as_str().map(str::to_owned);
    to.error = (!why.is_empty()).then(|| why.to_owned());
    Step {
        number: task.number,
        from: entry.state,
        epoch: entry.epoch,
        events: line(now, state.name(), detail),
        output: None,
        deliveries: words::envelope(task).map_or_else(Vec::new, |envelope| words::caused(&envelope, &to)),
        to,
    }
}

/// Tells the brain again how many wait, in case a new version serves by now, and ends tasks of functions that are gone.
async fn look_at_functions(shared: &Arc<Shared>) -> Result<(), Error> {
    if shared.control.host().disk.level != "full" {
        shared.store.room_again();
    }
    let functions: Vec<Arc<str>> = shared.book().functions().cloned().collect();
    for function in functions {
        if shared.control.cell(&function).is_some() {
            shared.report(&function);
            continue;
        }
        let waiting: Vec<TaskNumber> = shared.book().of_function(&function).take(EXPIRE).collect();
        for number in waiting {
            let detail = json!({ "Error": "FunctionNotFound" });
            end_waiting(shared, number, TaskState::Invalid, "its function is gone", &detail).await?;
        }
    }
    Ok(())
}

async fn renew(shared: &Arc<Shared>) -> Result<(), Error> {
    let claims: Vec<(TaskNumber, u32)> = shared.book().running().map(|(number, entry)| (number, entry.epoch)).collect();
    if !claims.is_empty() {
        shared.store.renew(claims, boot_millis() + LEASE).await?;
    }
    Ok(())
}

async fn forget(shared: &Arc<Shared>) -> Result<(), Error> {
    let retention = i64::try_from(shared.options.retention.as_millis()).unwrap_or(i64::MAX);
    let before = wall_millis().saturating_sub(retention);
    let mut behind = TaskNumber(0);
    while let Some(next) = shared.store.prune(behind, before).await? {
        behind = next;
        // Others come first.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
