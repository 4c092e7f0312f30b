//! A job as it is shown.

use std::collections::BTreeSet;
use std::sync::Arc;

use kip_control::Cell;
use kip_host::clock::wall_millis;
use kip_spec::job::Job;
use kip_store::tasks::{Task, TaskFilter};
use serde::{Deserialize, Serialize};

use super::{SkippedRun, zone_of};
use crate::error::Error;
use crate::notification;
use crate::service::Tasks;
use crate::view::{TaskInfo, info_of};

/// A job as it is shown. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobInfo {
    /// Its name, which is its function's.
    pub name: String,
    /// The version that runs.
    pub version: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it starts.
    pub directory: String,
    /// Runs that may fail and be followed by another.
    pub retries: u32,
    /// Only after these exit codes; none is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_only: Option<BTreeSet<u8>>,
    /// Never after these.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub retry_never: BTreeSet<u8>,
    /// How long a run may take, milliseconds.
    pub timeout_ms: u64,
    /// Runs at once.
    pub parallel: u32,
    /// When it runs by itself; none is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleInfo>,
    /// Runs that are not over.
    pub open: u64,
    /// Its latest run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<JobRun>,
    /// Its latest runs, the newest first, where one job is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<JobRun>,
}

/// A job's timer as it is shown. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduleInfo {
    /// The times: second, minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// The time zone in which they are meant; empty is UTC.
    pub zone: String,
    /// `forbid`, `queue`, `replace` or `allow`.
    pub overlap: String,
    /// `skip`, `once` or `each`.
    pub missed: String,
    /// A run that could not begin so long after its time does not begin, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// It rests.
    pub paused: bool,
    /// When it runs next; none while it rests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
    /// Times at which it did not run.
    pub left_out: u64,
    /// The latest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_left_out: Option<SkippedRun>,
}

/// A run of a job. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JobRun {
    /// Its task.
    pub task_id: String,
    /// Where that stands.
    pub status: String,
    /// For which time of the timer; none for one that was made by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<i64>,
    /// When it was made.
    pub created_time: i64,
    /// When its first run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_started_time: Option<i64>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<i64>,
    /// How often it was begun.
    pub runs: u32,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl JobRun {
    fn of(task: &Task) -> Self {
        let info: TaskInfo = info_of(task, None, None, wall_millis());
        Self {
            task_id: info.task_id,
            status: info.status,
            scheduled_time: notification::envelope(task).and_then(|envelope| envelope.due),
            created_time: info.created_time,
            first_started_time: info.first_started_time,
            end_time: info.end_time,
            runs: info.epoch,
            error: info.task_error_message,
        }
    }
}

impl Tasks {
    /// All jobs, by name, without their runs but the latest.
    ///
    /// # Errors
    /// What the store says.
    pub async fn jobs(&self) -> Result<Vec<JobInfo>, Error> {
        let mut infos = Vec::new();
        for cell in self.shared.control.jobs() {
            infos.extend(self.job_info(&cell, 1).await?);
        }
        Ok(infos)
    }

    /// A job with its latest runs.
    ///
    /// # Errors
    /// [`Error::NoJob`], or what the store says.
    pub async fn job(&self, name: &str, runs: u32) -> Result<JobInfo, Error> {
        let cell = self.shared.control.require(name)?;
        let info = self.job_info(&cell, runs.max(1)).await?;
        info.ok_or_else(|| Error::NoJob { name: name.to_owned() })
    }

    async fn job_info(&self, cell: &Arc<Cell>, runs: u32) -> Result<Option<JobInfo>, Error> {
        let version = cell.serving();
        let spec = &version.spec;
        let Some(job) = &spec.job else { return Ok(None) };
        let name = cell.name().to_string();
        let filter = TaskFilter { function: Some(name.clone()), limit: runs, ..TaskFilter::default() };
        let tasks = self.shared.read().list(filter).await?;
        let mut runs: Vec<JobRun> = tasks.iter().map(JobRun::of).collect();
        let last = runs.first().cloned();
        if runs.len() == 1 {
            runs.clear();
        }
        let command = match &spec.program {
            kip_spec::function::Program::Command { argv, .. } => argv.clone(),
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
            open: self.shared.open_of(&name),
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
