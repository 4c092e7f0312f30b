//! A job as it is shown.

use std::sync::Arc;

use kip_control::Cell;
use kip_host::clock::wall_millis;
use kip_spec::job::Job;
use kip_spec::secret::masked_words;
use kip_store::tasks::{Task, TaskFilter};
use kip_tasks::tenant::{SYSTEM, TenantScope};
use kip_wire::{JobInfo, JobRun, ScheduleInfo, TaskInfo};

use super::zone_of;
use crate::error::Error;
use crate::service::Events;
use kip_tasks::notification::envelope;
use kip_tasks::view::info_of;

fn run_of(task: &Task) -> JobRun {
    let info: TaskInfo = info_of(task, None, None, wall_millis());
    JobRun {
        task_id: info.task_id,
        status: info.status,
        scheduled_time: envelope(task).and_then(|envelope| envelope.due),
        created_time: info.created_time,
        first_started_time: info.first_started_time,
        end_time: info.end_time,
        runs: info.epoch,
        error: info.task_error_message,
    }
}

impl Events {
    /// All jobs, by name, without their runs but the latest.
    ///
    /// # Errors
    /// What the store says.
    pub async fn jobs(&self, scope: &TenantScope) -> Result<Vec<JobInfo>, Error> {
        let mut infos = Vec::new();
        for cell in self.shared.control.jobs() {
            infos.extend(self.job_info(scope, &cell, 1).await?);
        }
        Ok(infos)
    }

    /// A job with its latest runs.
    ///
    /// # Errors
    /// [`Error::NoJob`], or what the store says.
    pub async fn job(&self, scope: &TenantScope, name: &str, runs: u32) -> Result<JobInfo, Error> {
        let cell = self.shared.control.require(name)?;
        let info = self.job_info(scope, &cell, runs.max(1)).await?;
        info.ok_or_else(|| Error::NoJob { name: name.to_owned() })
    }

    async fn job_info(&self, scope: &TenantScope, cell: &Arc<Cell>, runs: u32) -> Result<Option<JobInfo>, Error> {
        let version = cell.serving();
        let spec = &version.spec;
        let Some(job) = &spec.job else { return Ok(None) };
        let name = cell.name().to_string();
        let filter = TaskFilter { function: Some(name.clone()), limit: runs, ..TaskFilter::default() };
        let tasks = self.shared.tasks.reader().list(filter).await?;
        // The runs of the schedule are everybody's; a run that another tenant made is its own.
        let is_seen = |task: &&Task| *task.tenant == *SYSTEM || scope.includes(&task.tenant);
        let mut runs: Vec<JobRun> = tasks.iter().filter(is_seen).map(run_of).collect();
        let last = runs.first().cloned();
        if runs.len() == 1 {
            runs.clear();
        }
        // A word that looks like a secret is shown to nobody.
        let command = match &spec.program {
            kip_spec::function::Program::Command { argv, .. } => masked_words(argv),
            kip_spec::function::Program::Image(container) => masked_words(&container.argv),
            kip_spec::function::Program::Model { .. } => Vec::new(),
        };
        let Job { retries, exits, timeout, .. } = job;
        Ok(Some(JobInfo {
            version: version.id.to_string(),
            command,
            directory: spec.program.working_directory().display().to_string(),
            retries: *retries,
            retry_only: exits.only.clone(),
            retry_never: exits.never.clone(),
            timeout_ms: timeout.0,
            parallel: spec.instances.max,
            schedule: self.schedule_of(&name, job),
            open: self.shared.tasks.open_tasks(&name),
            last,
            runs,
            name,
        }))
    }

    fn schedule_of(&self, name: &str, job: &Job) -> Option<ScheduleInfo> {
        let timer = job.timer.as_ref()?;
        let now = wall_millis();
        let (kept, _) = self.shared.kept(name, timer, now);
        let paused = kept.is_paused();
        let next = (!paused).then(|| timer.cron.next(now.max(kept.behind), &zone_of(timer))).flatten();
        Some(ScheduleInfo {
            cron: timer.cron.to_string(),
            zone: timer.zone.clone(),
            overlap: timer.overlap.name().to_owned(),
            missed: timer.missed.name().to_owned(),
            deadline_ms: timer.deadline.map(|deadline| deadline.0),
            paused,
            next,
            left_out: kept.left_out,
            last_left_out: kept.last_left_out,
        })
    }
}
