//! What an earlier server left: what waited waits again, what ran crashed, what was told to stop is stopped. Claims of earlier
//! starts are void at once; nobody waits for a lease to end.

use std::sync::Arc;

use kip_host::clock::wall_millis;
use kip_store::tasks::{Step, Task, TaskNumber, TaskState};

use crate::error::Error;
use crate::event::Event;
use crate::hold::{self, HeldRun};
use crate::notification;
use crate::shared::{Shared, entry_of};
use kip_queue::rules::{Allowance, RunOutcome, after};

/// Rows that are read at once.
const PAGE: u32 = 10_000;

pub(crate) async fn recover(shared: &Arc<Shared>) -> Result<(), Error> {
    let (mut waiting, mut others) = (0u64, 0u64);
    let mut left = Vec::new();
    // The next rows are read while these are taken in.
    let read = |behind: TaskNumber| {
        let store = shared.commits.reader();
        kip_host::tasks::spawn("open tasks", async move { store.open(behind, PAGE).await })
    };
    let mut reading = read(TaskNumber(0));
    loop {
        let page = reading.await.map_err(|_| Error::Control(kip_control::Error::ShuttingDown))??;
        let Some(last) = page.last() else { break };
        reading = read(last.number);
        let now = wall_millis();
        let mut book = shared.book();
        for task in page {
            match task.now.state {
                // Claims of another server are its own: it renews them, ends them or voids them.
                TaskState::Running | TaskState::Stopping if shared.is_others(&task) => {
                    others += 1;
                    book.admit(task.number, entry_of(&task), now);
                }
                TaskState::Running | TaskState::Stopping => left.push(task.number),
                _ => {
                    waiting += 1;
                    book.admit(task.number, entry_of(&task), now);
                }
            }
        }
    }
    let mut crashed = 0;
    for some in left.chunks(256) {
        crashed += interrupted(shared, some).await?;
    }
    let held = left.len() - crashed;
    shared.control.release_held();
    if let Some(holders) = &shared.options.holders {
        let book = shared.book();
        let runs = |number: u64, epoch: u32| {
            let entry = book.entry(TaskNumber(number));
            entry.is_some_and(|entry| entry.epoch == epoch && entry.state == TaskState::Running)
        };
        hold::sweep(holders, runs);
    }
    shared.outbox.extend(shared.read().deliveries().await?.into_iter());
    if waiting > 0 || others > 0 || !left.is_empty() {
        tracing::info!(waiting, crashed, held, others, "tasks of an earlier server");
    }
    Ok(())
}

impl Shared {
    /// Whether a task was claimed by another server. An empty name is of whoever opens the store.
    fn is_others(&self, task: &Task) -> bool {
        !task.now.server.is_empty() && task.now.server != self.server
    }
}

/// Ends runs of an earlier server, in one commit, but for those that are held. How many ended.
async fn interrupted(shared: &Arc<Shared>, numbers: &[TaskNumber]) -> Result<usize, Error> {
    let mut steps = Vec::new();
    for number in numbers {
        let Some(task) = shared.read().task(*number).await? else { continue };
        shared.book().admit(task.number, entry_of(&task), wall_millis());
        let running = task.now.state == TaskState::Running;
        let holders = shared.options.holders.as_ref().filter(|_| running);
        if let Some(held) = holders.and_then(|holders| HeldRun::of_task(holders, &task)) {
            hold::resume(shared, task, held);
            continue;
        }
        if let Some(permit) = task.now.instance.as_deref().and_then(|instance| shared.control.take_held(instance)) {
            // It was told to stop: its program has to end before its place is another's.
            permit.brake().pull();
        }
        steps.push(crash_of(&task));
    }
    let count = steps.len();
    shared.advance_all(steps).await?;
    Ok(count)
}

/// The step of a task whose run ended with the server.
fn crash_of(task: &Task) -> Step {
    let now = wall_millis();
    let ended = RunOutcome::Crashed { detail: "the server ended while the task was running".to_owned() };
    let envelope = notification::envelope(task);
    let allowed = Allowance { retries: envelope.as_ref().map_or(0, |envelope| envelope.retries), expires_at: i64::MAX };
    let mut to = after(&task.now, &ended, allowed, now, 0, 0);
    // At once: nobody else had a part in this.
    to.run_at = now;
    Step {
        number: task.number,
        function: None,
        from: task.now.state,
        epoch: task.now.epoch,
        events: vec![Event::became(&to).at(now)],
        deliveries: envelope.map_or_else(Vec::new, |envelope| notification::caused(&envelope, &to)),
        to,
        output: None,
    }
}
