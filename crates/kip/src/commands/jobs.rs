//! `kip job`: what runs by a timer, or when it is told to.

use std::fmt::Write as _;
use std::time::Duration;

use http::Method;

use kip_spec::{Problem, code, people};
use kip_wire::{AcceptedTask, JobInfo, JobRun, LogLine, TaskInfo};

use parking_lot::Mutex;
use serde_json::Value;

use crate::arguments::tasks::{Job, Jobs};
use crate::client::{Client, segment};
use crate::output::{Output, clock, date, millis, table};
use crate::problem::Exit;
use crate::progress::interruptible;

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

/// Makes a run and, unless it is to be left alone, writes what its program writes and ends as it does.
pub(crate) async fn follow(client: &Client, name: &str, detach: bool, output: Output) -> anyhow::Result<()> {
    let base = format!("/api/v1/functions/{}", segment(name));
    let taken: AcceptedTask = client.send(Method::POST, &format!("{base}/tasks")).await?;
    let id = taken.task_id.clone();
    if detach {
        return output.result(&taken, |_| {
            format!("task {id} of job {name}; `kip task watch {name} {id}` follows it, `kip logs {name} --task {id} -f` shows its output\n")
        });
    }
    let goes_on = || {
        format!(
            "the run goes on; `kip logs {name} --task {id} -f` shows its output, `kip task stop {name} {id}` stops it"
        )
    };
    let work = Box::pin(stream_and_wait(client, name, &id, output));
    let task = interruptible(output, goes_on, work).await?;
    ended(name, &task, output)
}

/// Writes the output of a run until it is over, and gives its task.
async fn stream_and_wait(client: &Client, name: &str, id: &str, output: Output) -> anyhow::Result<TaskInfo> {
    let wait = wait_for_end(client, name, id, output);
    if output.is_json() {
        return wait.await;
    }
    // The stream ends with the task. One that breaks off with the server is taken up where it ended.
    let shown = Mutex::new(OutputProgress::default());
    let streaming = async {
        loop {
            let path =
                format!("/api/v1/functions/{}/logs?task={}&follow=true&tail=1000000", segment(name), segment(id));
            let again = shown.lock().begin_again();
            let ended = client.lines(&path, |line: LogLine| shown.lock().show(&line, again, output)).await;
            if ended.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::pin!(wait, streaming);
    tokio::select! {
        task = &mut wait => {
            // What is on its way still comes; a log that does not end is not waited for.
            let _ = tokio::time::timeout(Duration::from_secs(5), &mut streaming).await;
            task
        }
        () = &mut streaming => wait.await,
    }
}

/// What was shown of a run's output: as many lines as a stream that begins again has to leave out.
#[derive(Debug, Default)]
struct OutputProgress {
    lines: u64,
    seen: u64,
}

impl OutputProgress {
    fn begin_again(&mut self) -> u64 {
        self.seen = 0;
        self.lines
    }

    fn show(&mut self, line: &LogLine, skip: u64, output: Output) -> anyhow::Result<()> {
        self.seen += 1;
        if self.seen <= skip {
            return Ok(());
        }
        self.lines = self.seen;
        let end = if line.cut { "" } else { "\n" };
        let text = format!("{}{end}", line.line);
        match line.stream.as_str() {
            "out" => output.data(text.as_bytes()),
            _ => output.raw_remark(text.as_bytes()),
        }
    }
}

async fn wait_for_end(client: &Client, name: &str, id: &str, output: Output) -> anyhow::Result<TaskInfo> {
    let base = format!("/api/v1/functions/{}", segment(name));
    let (mut told, mut away, mut failed) = (None, 0, 0);
    // Soon at first, for what keeps it waiting should be known soon.
    let mut wait = 1;
    loop {
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
            return Ok(task);
        }
        if task.status == "Retrying" && task.errors + task.crashes > failed {
            failed = task.errors + task.crashes;
            let why = task.task_error_message.as_deref().unwrap_or_default();
            output.remark(&format!(
                "run {} of {name} failed: {why}; it runs again at {}",
                task.epoch,
                clock(task.run_at)
            ));
        }
        if task.waits_for.is_some() && task.waits_for != told {
            output.remark(&format!("{name} waits: {}", task.waits_for.as_deref().unwrap_or_default()));
            told = task.waits_for;
        }
        wait = 5;
    }
}

/// Ends as the program did. What was no end of the program is an error of ours.
fn ended(name: &str, task: &TaskInfo, output: Output) -> anyhow::Result<()> {
    let result = task.return_payload.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let number = |key: &str| result.as_ref().and_then(|result| result[key].as_u64()?.try_into().ok());
    let by_signal = number("signal").map(|signal: u8| signal.saturating_add(128));
    if output.is_json() {
        output.result(task, |_| String::new())?;
    }
    match (task.status.as_str(), number("exitCode").or(by_signal)) {
        ("Succeeded", _) => {
            let out = result.as_ref().and_then(|result| result["out"].as_str());
            let files = result.as_ref().and_then(|result| Some(result["files"].as_array()?.len())).unwrap_or_default();
            if let Some(out) = out.filter(|_| files > 0 && !output.is_json()) {
                output.remark(&format!("{files} files in {out}"));
            }
            Ok(())
        }
        (status, Some(code)) if code > 0 => {
            if !output.is_json() {
                let why = task.task_error_message.clone().unwrap_or_else(|| status.to_owned());
                let problem = Problem::new(code::TASK_STATE, format!("job {name} is {status}: {why}"));
                let problem = match result.as_ref().and_then(|result| result["error"].as_str()) {
                    Some(error) => problem.cause(error),
                    None => problem,
                };
                output.remark(&crate::problem::render(
                    &problem.hint(format!("`kip task show {name} {}` shows its steps", task.task_id)),
                ));
            }
            Err(Exit(code).into())
        }
        (status, _) => {
            let why = task.task_error_message.clone().unwrap_or_default();
            let hint = format!(
                "`kip logs {name} --task {0}` shows its output, `kip task show {name} {0}` its steps",
                task.task_id
            );
            if output.is_json() {
                return Err(crate::problem::AlreadyPrinted.into());
            }
            Err(Problem::new(code::TASK_STATE, format!("job {name} is {status}")).cause(why).hint(hint).into())
        }
    }
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
    line(
        "run",
        &format!("may take {}; {} at once, {} not over", people::duration(job.timeout_ms), job.parallel, job.open),
    );
    if let Some(schedule) = &job.schedule {
        line("schedule", &format!("{} in {}", schedule.cron, zone(&schedule.zone)));
        let deadline =
            schedule.deadline_ms.map(|time| format!(", deadline {}", people::duration(time))).unwrap_or_default();
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
