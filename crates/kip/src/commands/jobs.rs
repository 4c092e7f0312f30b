//! `kip jobs`: what runs by a timer, or when it is told to.

use std::fmt::Write as _;
use std::time::Duration;

use http::Method;
use kip_spec::{Millis, Problem, code};
use kip_wire::{AcceptedTask, JobInfo, JobRun, TaskInfo};

use crate::arguments::tasks::{Job, Jobs};
use crate::client::{Client, segment};
use crate::output::{Output, date, millis, table};

pub(crate) async fn run(client: &Client, command: &Jobs, output: Output) -> anyhow::Result<()> {
    match command {
        Jobs::Ls => list(client, output).await,
        Jobs::Show(job) => output.result(&get(client, &job.name).await?, shown),
        Jobs::Run { job, detach } => {
            // Whether it is one at all: another function would be sent an event.
            let info = get(client, &job.name).await?;
            follow(client, &info.name, *detach, output).await
        }
        Jobs::Pause(job) => change(client, job, "pause", output).await,
        Jobs::Resume(job) => change(client, job, "resume", output).await,
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/functions/{}/job", segment(name))
}

async fn get(client: &Client, name: &str) -> anyhow::Result<JobInfo> {
    client.get(&path(name)).await
}

async fn change(client: &Client, job: &Job, what: &str, output: Output) -> anyhow::Result<()> {
    let info: JobInfo = client.send(Method::PUT, &format!("{}/{what}", path(&job.name))).await?;
    output.result(&info, |info| format!("{}: {}\n", info.name, next(info)))
}

/// Makes a run and, unless it is to be left alone, waits for its end.
pub(crate) async fn follow(client: &Client, name: &str, detach: bool, output: Output) -> anyhow::Result<()> {
    let base = format!("/api/v1/functions/{}", segment(name));
    let taken: AcceptedTask = client.send(Method::POST, &format!("{base}/tasks")).await?;
    let id = &taken.task_id;
    if detach {
        return output.result(&taken, |_| {
            format!("task {id} of job {name}; `kip tasks watch {name} {id}` follows it, `kip logs {name} -f` shows what it writes\n")
        });
    }
    output.remark(&format!("task {id} of job {name}; it goes on if this is ended: kip tasks watch {name} {id}"));
    let (mut told, mut away) = (None, 0);
    // Soon at first, for what keeps it waiting should be known soon.
    let mut wait = 1;
    let task = loop {
        let task = match client.get::<TaskInfo>(&format!("{base}/tasks/{id}?wait={wait}")).await {
            // The run goes on while the server is started anew.
            Err(error) if away < PATIENCE && is_away(&error) => {
                if away == 0 {
                    output.remark("the server does not answer; the run goes on");
                }
                away += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            other => other?,
        };
        away = 0;
        if task.end_time.is_some() {
            break task;
        }
        if task.waits_for.is_some() && task.waits_for != told {
            output.remark(&format!("it waits: {}", task.waits_for.as_deref().unwrap_or_default()));
            told = task.waits_for;
        }
        wait = 5;
    };
    if task.status != "Succeeded" {
        let mut why = task.task_error_message.clone().unwrap_or_default();
        if let Some(result) = &task.return_payload {
            why = format!("{why}\n{result}").trim().to_owned();
        }
        return Err(Problem::new(code::TASK_STATE, format!("job {name} is {}", task.status))
            .cause(why)
            .hint(format!("`kip logs {name}` shows what it wrote, `kip tasks show {name} {id}` its steps"))
            .into());
    }
    output.result(&task, |task| task.return_payload.clone().unwrap_or_default())
}

/// Seconds for which a server may be away.
const PATIENCE: u32 = 120;

fn is_away(error: &anyhow::Error) -> bool {
    let problem = error.downcast_ref::<Problem>().map(|problem| problem.code);
    matches!(problem, Some(code::SERVER_UNREACHABLE | code::SHUTTING_DOWN))
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let jobs: Vec<JobInfo> = client.get("/api/v1/jobs").await?;
    output.result(&jobs, |jobs| {
        let header = ["JOB", "SCHEDULE", "ZONE", "NEXT", "LAST", "STATUS", "#OPEN"];
        let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
        table(&header, &rows)
    })
}

fn row(job: &JobInfo) -> Vec<String> {
    let none = || "-".to_owned();
    let schedule = job.schedule.as_ref();
    vec![
        job.name.clone(),
        schedule.map_or_else(none, |schedule| schedule.cron.clone()),
        schedule.map_or_else(none, |schedule| zone(&schedule.zone).to_owned()),
        next(job),
        job.last.as_ref().map_or_else(none, |last| date(last.first_started_time.unwrap_or(last.created_time))),
        job.last.as_ref().map_or_else(none, |last| last.status.clone()),
        job.open.to_string(),
    ]
}

fn zone(name: &str) -> &str {
    if name.is_empty() { "UTC" } else { name }
}

/// When it runs next, in the time zone of whoever asks.
fn next(job: &JobInfo) -> String {
    match &job.schedule {
        None => "-".to_owned(),
        Some(schedule) if schedule.paused => "paused".to_owned(),
        Some(schedule) => schedule.next.map_or_else(|| "never".to_owned(), date),
    }
}

fn shown(job: &JobInfo) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("job", &format!("{} (version {})", job.name, job.version));
    line("command", &format!("{} in {}", job.command.join(" "), job.directory));
    let codes = |codes: &std::collections::BTreeSet<u8>| codes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let mut retries = job.retries.to_string();
    if let Some(only) = &job.retry_only {
        let _ = write!(retries, ", only after exit code {}", codes(only));
    }
    if !job.retry_never.is_empty() {
        let _ = write!(retries, ", never after exit code {}", codes(&job.retry_never));
    }
    line("retries", &retries);
    line("run", &format!("may take {}; {} at once, {} not over", Millis(job.timeout_ms), job.parallel, job.open));
    if let Some(schedule) = &job.schedule {
        line("schedule", &format!("{} in {}", schedule.cron, zone(&schedule.zone)));
        let deadline = schedule.deadline_ms.map(|time| format!(", deadline {}", Millis(time))).unwrap_or_default();
        line("", &format!("overlap {}, missed {}{deadline}", schedule.overlap, schedule.missed));
        line("next", &next(job));
        if let Some(last) = &schedule.last_left_out {
            line("left out", &format!("{} times, last {}: {}", schedule.left_out, date(last.at), last.why));
        }
    }
    let runs: Vec<&JobRun> = if job.runs.is_empty() { job.last.iter().collect() } else { job.runs.iter().collect() };
    if !runs.is_empty() {
        let header = ["TASK", "STATUS", "SCHEDULED", "STARTED", "TOOK", "#RUNS", "ERROR"];
        let rows: Vec<Vec<String>> = runs.into_iter().map(run_row).collect();
        text.push_str(&table(&header, &rows));
    }
    text
}

fn run_row(run: &JobRun) -> Vec<String> {
    let none = || "-".to_owned();
    let took = run.first_started_time.zip(run.end_time).map(|(from, to)| to.saturating_sub(from).unsigned_abs());
    vec![
        run.task_id.clone(),
        run.status.clone(),
        run.scheduled_time.map_or_else(|| "by hand".to_owned(), date),
        run.first_started_time.map_or_else(none, date),
        took.map_or_else(none, millis),
        run.runs.to_string(),
        run.error.clone().unwrap_or_default(),
    ]
}
