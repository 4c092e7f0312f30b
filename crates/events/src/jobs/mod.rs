//! Jobs that run by a timer. A run that is due becomes a task whose id is made of its time, so that it is taken once whatever
//! happens between the task's commit and ours; behind which time all has been looked at is written down after that.

mod plan;
mod view;

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use kip_control::Cell;
use kip_host::clock::wall_millis;
use kip_host::failpoint::reached;
use kip_spec::RequestId;
use kip_spec::job::{Overlap, Timer};
use kip_spec::scaling::zone;
use kip_store::tasks::TaskState;
use kip_tasks::envelope::Call;
use kip_tasks::{BulkAction, Submission};

use crate::error::Error;
use crate::service::{Events, Shared};
use crate::timers::TimerState;
use kip_tasks::tenant::{SYSTEM, TenantScope};
use plan::SkipReason;

/// How often timers are looked at, at least: the wall clock may step, and jobs come and go.
const LOOK: Duration = Duration::from_secs(1);
/// Runs of a job by the same key follow one another.
const ORDER: &str = "timer";

/// The id of the run that is due at a time, milliseconds since 1970.
pub(crate) fn id_at(at: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(at).map(|time| time.strftime("%Y%m%dT%H%M%SZ").to_string());
    format!("at-{}", time.unwrap_or_else(|_| at.to_string()))
}

/// A time zone that was checked when it was declared.
fn zone_of(timer: &Timer) -> TimeZone {
    zone::find(&timer.zone).unwrap_or(TimeZone::UTC)
}

pub(crate) fn start(shared: &Arc<Shared>) {
    let (shared, supervisor) = (shared.clone(), shared.control.supervisor().clone());
    supervisor.critical("timers of jobs", async move {
        // Each with the time before which nothing of it is due.
        let mut timed: Vec<(Arc<Cell>, Option<i64>)> = Vec::new();
        let mut seen = None;
        loop {
            if shared.tasks.is_closing() {
                return;
            }
            let changes = shared.control.changes();
            if seen != Some(changes) {
                timed = shared.control.jobs().into_iter().map(|cell| (cell, None)).collect();
                seen = Some(changes);
                if let Err(error) = forget_gone(&shared).await {
                    tracing::warn!(%error, "what was kept of timers that are gone is not forgotten");
                    seen = None;
                }
            }
            let now = wall_millis();
            for (cell, next) in timed.iter_mut().filter(|(_, next)| next.is_none_or(|next| next <= now)) {
                match look(&shared, cell).await {
                    // One that never runs is looked at again when something is said about it.
                    Ok(at) => *next = Some(at.unwrap_or(i64::MAX)),
                    Err(error) => tracing::warn!(job = %cell.name(), %error, "a run that is due is not taken yet"),
                }
            }
            let next = timed.iter().filter_map(|(_, next)| *next).min();
            let until = next.map_or(LOOK, |next| {
                Duration::from_millis(next.saturating_sub(wall_millis()).max(1).unsigned_abs()).min(LOOK)
            });
            if tokio::time::timeout(until, shared.jobs.earlier.notified()).await.is_ok() {
                timed.iter_mut().for_each(|(_, next)| *next = None);
            }
        }
    });
}

/// Forgets timers of jobs that were removed.
async fn forget_gone(shared: &Arc<Shared>) -> Result<(), Error> {
    let names: Vec<String> = shared.jobs.lock().keys().cloned().collect();
    for name in names {
        let timer = shared.control.cell(&name).and_then(|cell| timer_of(&cell));
        if timer.is_none() {
            shared.forget(&name).await?;
        }
    }
    Ok(())
}

fn timer_of(cell: &Cell) -> Option<Timer> {
    cell.serving().spec.job.as_ref()?.timer.clone()
}

impl Shared {
    /// What is kept of a job's timer; a new timer, or one that was changed, begins now.
    fn kept(&self, name: &str, timer: &Timer, now: i64) -> (TimerState, bool) {
        match self.jobs.lock().get(name) {
            Some(kept) if kept.timer == *timer => (kept.clone(), false),
            _ => (TimerState::new(timer.clone(), now), true),
        }
    }

    /// Changes what is kept of a job's timer, as it is when the change's turn comes, and stores it.
    pub(crate) async fn change(
        self: &Arc<Self>,
        name: &str,
        timer: Timer,
        change: impl FnOnce(&mut TimerState) + Send + 'static,
    ) -> Result<(), Error> {
        let (shared, job) = (self.clone(), name.to_owned());
        let changed = move || {
            let (mut kept, _) = shared.kept(&job, &timer, wall_millis());
            change(&mut kept);
            (Some(serde_json::to_string(&kept).unwrap_or_default()), kept)
        };
        let (shared, job) = (self.clone(), name.to_owned());
        let apply = move |kept| drop(shared.jobs.lock().insert(job, kept));
        Ok(self.tasks.keep_timer(name.to_owned(), changed, apply).await?)
    }

    async fn forget(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        let (shared, job) = (self.clone(), name.to_owned());
        let apply = move |()| drop(shared.jobs.lock().remove(&job));
        Ok(self.tasks.keep_timer(name.to_owned(), || (None, ()), apply).await?)
    }
}

/// Takes what is due of a job, and says when to look next.
async fn look(shared: &Arc<Shared>, cell: &Arc<Cell>) -> Result<Option<i64>, Error> {
    let Some(timer) = timer_of(cell) else { return Ok(None) };
    let name = cell.name().as_str();
    let now = wall_millis();
    let zone = zone_of(&timer);
    let (kept, new) = shared.kept(name, &timer, now);
    if new {
        shared.change(name, timer.clone(), |_| {}).await?;
    }
    if kept.is_paused() {
        return Ok(None);
    }
    let due = plan::due(&timer, &zone, kept.behind, now);
    let mut skipped = due.left_out.map(|(at, why)| match why {
        SkipReason::Missed => (at, "no server ran at that time"),
        SkipReason::TooLate => (at, "it could not begin before its deadline"),
    });
    // Those to be run come behind it, or before it and are all of them late: it is stored with the first of them.
    if let Some((at, why)) = skipped.filter(|_| due.runs.is_empty()) {
        let skip = move |kept: &mut TimerState| {
            kept.leave_out(at, why);
            kept.looked_at(at);
        };
        shared.change(name, timer.clone(), skip).await?;
    }
    for at in due.runs {
        reached("job: due");
        let refused = fire(shared, cell, &timer, at, now).await?;
        reached("job: fired");
        let earlier = skipped.take();
        let fired = move |kept: &mut TimerState| {
            if let Some((at, why)) = earlier {
                kept.leave_out(at, why);
            }
            if let Some(why) = refused {
                kept.leave_out(at, why);
            }
            kept.looked_at(at);
        };
        shared.change(name, timer.clone(), fired).await?;
    }
    Ok(timer.cron.next(now, &zone))
}

/// Makes the task of a run, unless its overlap forbids it: then the answer says why.
async fn fire(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    timer: &Timer,
    at: i64,
    now: i64,
) -> Result<Option<&'static str>, Error> {
    let name = cell.name().as_str();
    let tasks = &shared.tasks;
    let id = id_at(at);
    // It may be there already, if the server ended between the two commits.
    let known = tasks.reader().find(name.to_owned(), Some(SYSTEM.to_owned()), id.clone()).await?;
    if !known.is_empty() {
        return Ok(None);
    }
    match timer.overlap {
        Overlap::Forbid if tasks.open_tasks(name) > 0 => return Ok(Some("a run before it was not over")),
        Overlap::Replace if tasks.open_tasks(name) > 0 => {
            let open = kip_store::tasks::TaskFilter {
                function: Some(name.to_owned()),
                states: TaskState::ALL.into_iter().filter(|state| !state.is_terminal()).collect(),
                ..Default::default()
            };
            // Of one job hardly anybody has more than one call takes; what is left waits behind this run.
            tasks.bulk(&TenantScope::All, BulkAction::Stop, open, false).await?;
        }
        Overlap::Forbid | Overlap::Queue | Overlap::Replace | Overlap::Allow => {}
    }
    let one_by_one = matches!(timer.overlap, Overlap::Queue | Overlap::Replace);
    let late = u64::try_from(now - at).unwrap_or(0);
    let left = timer.deadline.map(|deadline| Duration::from_millis(deadline.0.saturating_sub(late).max(1)));
    let submission = Submission {
        function: name.to_owned(),
        id: Some(id),
        tenant: Some(SYSTEM.to_owned()),
        order: one_by_one.then(|| ORDER.to_owned()),
        max_age: left,
        due: Some(at),
        call: Some(Call::event(Some("application/json".to_owned()))),
        request: RequestId::from_bits(kip_host::random::unique()).as_str().to_owned(),
        ..Submission::default()
    };
    match tasks.submit(submission).await {
        // A conflict: the job's input was another one when the run was made.
        Ok(_) | Err(kip_tasks::Error::Conflict { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Events {
    /// Functions were deployed: there may be new timers among them.
    pub fn jobs_changed(&self) {
        self.shared.jobs.earlier.notify_one();
    }

    /// Lets a job's timer rest, or go on with the next time that comes; what came meanwhile is not made up for.
    ///
    /// # Errors
    /// [`Error::NoTimer`], or what the store says.
    pub async fn pause_job(&self, name: &str, paused: bool) -> Result<(), Error> {
        let shared = &self.shared;
        let cell = shared.control.require(name)?;
        let timer = timer_of(&cell).ok_or_else(|| Error::NoTimer { name: name.to_owned() })?;
        let pause = move |kept: &mut TimerState| {
            if kept.is_paused() != paused {
                kept.paused = Some(paused);
                kept.behind = kept.behind.max(wall_millis());
            }
        };
        shared.change(name, timer, pause).await?;
        shared.jobs.earlier.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_id_is_its_time() {
        assert_eq!(id_at(1_719_806_400_000), "at-20240701T040000Z");
        assert!(kip_tasks::view::may_be_chosen(&id_at(1_719_806_400_000)));
    }
}
