//! `kip task`: look at tasks, and stop, retry and forget them.

use std::fmt::Write as _;

use http::Method;
use kip_api::TaskQuery;
use kip_spec::{Millis, Problem, code};
use kip_tasks::config::{AsyncConfig, Destination, Destinations};
use kip_tasks::{Bulk, Summary};
use kip_wire::{StopResult, TaskEvent, TaskInfo, TaskList};
use serde_json::json;

use crate::arguments::tasks::{
    Config, ConfigArguments, List, Set, TaskArgument, TaskFilterArguments as Chosen, TaskSelector, Tasks,
};
use crate::client::{Client, segment};
use crate::output::{Output, clock, date, micros, millis, printable, table};
use crate::progress::interruptible;

pub(crate) async fn run(client: &Client, command: &Tasks, output: Output) -> anyhow::Result<()> {
    match command {
        Tasks::Stat => stat(client, output).await,
        Tasks::Ls(options) => list(client, options, output).await,
        Tasks::Show(one) => {
            let info: TaskInfo = client.get(&format!("{}&includePayload=true", path(one, ""))).await?;
            output.result(&info, shown)
        }
        Tasks::Payload(one) => raw(client, one, "payload", output).await,
        Tasks::Result(one) => raw(client, one, "result", output).await,
        Tasks::Watch(one) => watch(client, one, output).await,
        Tasks::Stop(some) => change(client, some, "stop", Method::PUT, output).await,
        Tasks::Retry(some) => change(client, some, "retry", Method::POST, output).await,
        Tasks::Purge(some) => change(client, some, "purge", Method::DELETE, output).await,
        Tasks::Config(command) => config(client, command, output).await,
    }
}

/// A path of a task, with its tenant as a query.
fn path(one: &TaskArgument, what: &str) -> String {
    let tenant = one.tenant.iter().fold(String::new(), |text, tenant| format!("{text}tenant={}", segment(tenant)));
    format!("/api/v1/functions/{}/tasks/{}{what}?{tenant}", segment(&one.function), segment(&one.id))
}

async fn stat(client: &Client, output: Output) -> anyhow::Result<()> {
    let summary: Summary = client.get("/api/v1/tasks/summary").await?;
    output.result(&summary, |summary| {
        let header = ["FUNCTION", "#READY", "#LATER", "#HELD", "#RUNNING", "OLDEST", "#SUCCEEDED", "#FAILED", "#STOPPED", "#EXPIRED", "MEAN"];
        let rows: Vec<Vec<String>> = summary.functions.iter().map(|of| {
            let counted = &of.counted;
            let oldest = of.oldest_ms.map_or_else(|| "-".to_owned(), millis);
            let mean = if counted.mean_ms > 0 { millis(counted.mean_ms) } else { "-".to_owned() };
            let number = |number: u64| number.to_string();
            vec![
                of.function.clone(), number(of.ready), number(of.later), number(of.held), number(of.running), oldest,
                number(counted.succeeded), number(counted.failed), number(counted.stopped), number(counted.expired), mean,
            ]
        }).collect();
        let mut text = table(&header, &rows);
        let sync = &summary.sync;
        let _ = writeln!(
            text,
            "{} tasks wait, {} deliveries are under way; a commit takes {} (a sync alone {}), {} changes in {} commits; the store is {}",
            summary.queued,
            summary.deliveries,
            micros(sync.recent_us),
            micros(sync.probe_us),
            sync.changes,
            sync.commits,
            summary.store
        );
        text
    })
}

fn query(which: &TaskSelector, function: Option<&String>) -> TaskQuery {
    TaskQuery {
        function: function.cloned(),
        status: which.status.clone(),
        prefix: which.prefix.clone(),
        tenant: which.tenant.clone(),
        kind: which.kind.clone(),
        ..TaskQuery::default()
    }
}

async fn list(client: &Client, options: &List, output: Output) -> anyhow::Result<()> {
    let query = TaskQuery {
        limit: Some(options.limit),
        next_token: options.next.clone(),
        sort_order_by_time: options.oldest.then(|| "asc".to_owned()),
        ..query(&options.which, options.function.as_ref())
    };
    let mut text = String::new();
    if let serde_json::Value::Object(all) = serde_json::to_value(&query)? {
        for (name, value) in all.into_iter().filter(|(_, value)| !value.is_null()) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = write!(text, "&{name}={}", segment(&value));
        }
    }
    let list: TaskList = client.get(&format!("/api/v1/tasks?{}", text.trim_start_matches('&'))).await?;
    output.result(&list, |list| {
        let header = ["FUNCTION", "TASK", "STATUS", "KIND", "CREATED", "TOOK", "#RUNS", "ERROR"];
        let rows: Vec<Vec<String>> = list.tasks.iter().map(row).collect();
        let mut text = table(&header, &rows);
        if let Some(next) = &list.next_token {
            let _ = writeln!(text, "there are more: --next {next}");
        }
        text
    })
}

fn row(task: &TaskInfo) -> Vec<String> {
    let took = task.duration_ms.map_or_else(|| "-".to_owned(), |took| millis(took.unsigned_abs()));
    vec![
        task.function_name.clone(),
        task.task_id.clone(),
        task.status.clone(),
        task.kind.clone(),
        date(task.created_time),
        took,
        task.epoch.to_string(),
        task.error_kind.clone().unwrap_or_default(),
    ]
}

fn shown(task: &TaskInfo) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line("task", &format!("{} of function {} ({})", task.task_id, task.function_name, task.kind));
    if task.tenant != "default" {
        line("tenant", &task.tenant);
    }
    let progress = task.progress.as_ref().map(|progress| format!(": {progress}")).unwrap_or_default();
    line("status", &format!("{}{progress}", task.status));
    line("created", &date(task.created_time));
    if let Some(due) = task.scheduled_time {
        line("scheduled", &date(due));
    }
    if let Some(started) = task.first_started_time {
        line("started", &date(started));
    }
    if let Some(again) = task.started_time.filter(|again| Some(*again) != task.first_started_time) {
        line("last run", &date(again));
    }
    if let Some(ended) = task.end_time {
        line("ended", &date(ended));
    }
    let counts = format!(
        "{}, {} errors, {} crashes, {} times without room",
        task.epoch, task.errors, task.crashes, task.refusals
    );
    line("runs", &counts);
    if let Some(ahead) = task.ahead {
        let wait = task.estimated_wait_ms.map(|wait| format!(", about {} to wait", millis(wait))).unwrap_or_default();
        line("queue", &format!("{ahead} before it{wait}"));
    }
    let waits = matches!(task.status.as_str(), "Enqueued" | "Retrying");
    if waits && task.run_at > kip_host::clock::wall_millis() {
        line("not before", &date(task.run_at));
    }
    if let Some(trouble) = &task.waits_for {
        line("waits for", trouble);
    }
    if task.qualifier != "LATEST" {
        line("qualifier", &task.qualifier);
    }
    for (name, value) in [
        ("version", &task.version),
        ("instance", &task.instance_id),
        ("error", &task.task_error_message),
        ("destinations", &task.destination_status),
        ("payload", &task.task_payload),
        ("result", &task.return_payload),
    ] {
        if let Some(value) = value {
            line(name, &printable(&short(value)));
        }
    }
    if task.result_cut {
        line("", "(the result was longer than tasks.result; its rest is not kept)");
    }
    for event in &task.events {
        text.push_str(&event_line(event));
        text.push('\n');
    }
    text
}

/// As much of a payload or result as a person looks at; `kip task payload` and `result` print all of it.
fn short(text: &str) -> String {
    const MOST: usize = 500;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

fn event_line(event: &TaskEvent) -> String {
    let detail = printable(&event.event_detail);
    format!("{}  {:<10}  {detail}", clock(event.timestamp), event.status).trim_end().to_owned()
}

async fn raw(client: &Client, one: &TaskArgument, what: &str, output: Output) -> anyhow::Result<()> {
    let (cut, bytes) = client.marked_bytes(&path(one, &format!("/{what}")), "x-kip-task-result-cut").await?;
    if cut {
        output.remark("the result was longer than tasks.result; its rest is not kept");
    }
    if bytes.is_empty() && what == "result" {
        let info: TaskInfo = client.get(&path(one, "")).await?;
        output.remark(&format!("the task has no result: its status is {}", info.status));
    }
    if output.is_json() {
        return output.result(&json!({ "taskId": one.id, what: kip_tasks::view::text_of(&bytes) }), |_| String::new());
    }
    output.data(&bytes)
}

async fn watch(client: &Client, one: &TaskArgument, output: Output) -> anyhow::Result<()> {
    let goes_on = || format!("the task goes on; `kip task stop {} {}` stops it", one.function, one.id);
    let path = path(one, "/events");
    let watching = client.lines(&path, |event: TaskEvent| output.line(&event, event_line));
    interruptible(output, goes_on, watching).await
}

async fn change(client: &Client, some: &Chosen, what: &str, method: Method, output: Output) -> anyhow::Result<()> {
    if some.all {
        return all(client, some, what, output).await;
    }
    let (Some(function), Some(id)) = (&some.function, &some.id) else {
        return Err(Problem::new(code::COMMAND_INPUT, "which task is meant is not said")
            .hint(format!("kip task {what} FUNCTION ID, or --all with --status, --prefix, --tenant or --kind"))
            .into());
    };
    let one = TaskArgument { function: function.clone(), id: id.clone(), tenant: some.which.tenant.clone() };
    let path = if what == "purge" { path(&one, "") } else { path(&one, &format!("/{what}")) };
    if what == "purge" {
        let bulk: Bulk = client.send(method, &path).await?;
        return output.result(&bulk, |_| format!("removed {id}\n"));
    }
    let standing: StopResult = client.send(method, &path).await?;
    output.result(&standing, |standing| format!("{id} is {}\n", standing.status))
}

async fn all(client: &Client, some: &Chosen, what: &str, output: Output) -> anyhow::Result<()> {
    let mut query = TaskQuery { count: Some(!some.yes), ..query(&some.which, some.function.as_ref()) };
    let path = format!("/api/v1/tasks/{what}");
    let mut bulk: Bulk = client.post(&path, &query).await?;
    // Very many are done in pieces, so that each is answered soon.
    while let Some(next) = bulk.next {
        output.remark(&format!("{what}: {} of {} tasks so far", bulk.changed, bulk.matched));
        query.next_token = Some(next.0.to_string());
        let more: Bulk = client.post(&path, &query).await?;
        bulk = Bulk { changed: bulk.changed + more.changed, next: more.next, ..bulk };
    }
    output.result(&bulk, |bulk| {
        if some.yes {
            format!("{what}: {} of {} tasks\n", bulk.changed, bulk.matched)
        } else {
            format!("{} tasks fit; `--yes` does it\n", bulk.matched)
        }
    })
}

fn config_path(of: &ConfigArguments) -> String {
    format!("/api/v1/functions/{}/async-invoke-config?qualifier={}", segment(&of.function), segment(&of.qualifier))
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Problem>().is_some_and(|problem| problem.code == code::TASK_CONFIG_MISSING)
}

async fn config(client: &Client, command: &Config, output: Output) -> anyhow::Result<()> {
    let shown: AsyncConfig = match command {
        Config::Show(of) => match client.get(&config_path(of)).await {
            Err(error) if is_missing(&error) => {
                output.remark("nothing is kept for it: these are the defaults");
                AsyncConfig::default()
            }
            other => other?,
        },
        Config::Set(set) => {
            let path = config_path(&set.of);
            let there: AsyncConfig = match client.get(&path).await {
                Err(error) if is_missing(&error) => AsyncConfig::default(),
                other => other?,
            };
            client.put(&path, &wanted(set, there)?).await?
        }
        Config::Rm(of) => {
            client.remove(&config_path(of)).await?;
            return output.result(&json!({ "removed": of.function }), |_| "the defaults hold again\n".to_owned());
        }
    };
    output.result(&shown, |config| {
        let seconds = |seconds: u64| millis(seconds * 1_000);
        let mut text = format!(
            "{}, {} retries, may wait {}, a run may take {}\n",
            if config.async_task { "stateful tasks" } else { "plain invocations" },
            config.max_async_retry_attempts,
            seconds(config.max_async_event_age_in_seconds),
            seconds(config.timeout_in_seconds),
        );
        let Destinations { on_success, on_failure } = &config.destination_config;
        for (name, destination) in [("success", on_success), ("failure", on_failure)] {
            if let Some(destination) = destination {
                let signed = if destination.secret.is_some() { " (signed)" } else { "" };
                let _ = writeln!(text, "{name}: {}{signed}", destination.destination);
            }
        }
        text
    })
}

/// What is given takes the place of what is there; the rest stays. A secret that is there is shown as a mask, by which the server keeps it.
fn wanted(set: &Set, there: AsyncConfig) -> anyhow::Result<AsyncConfig> {
    let secret = match &set.secret_file {
        None => None,
        Some(file) => Some(
            std::fs::read_to_string(file)
                .map_err(|error| {
                    Problem::new(code::COMMAND_INPUT, format!("{} cannot be read", file.display()))
                        .cause(error.to_string())
                })?
                .trim_end()
                .to_owned(),
        ),
    };
    let to = |given: &Option<String>, there: Option<Destination>| match given.as_deref() {
        Some("none") => None,
        Some(destination) => {
            let kept = there.filter(|there| there.destination == destination).and_then(|there| there.secret);
            Some(Destination { destination: destination.to_owned(), secret: secret.clone().or(kept) })
        }
        None => there.map(|there| Destination { secret: secret.clone().or(there.secret), ..there }),
    };
    let seconds = |time: Option<Millis>, usual: u64| time.map_or(usual, |time| time.0.div_ceil(1_000));
    let Destinations { on_success, on_failure } = there.destination_config;
    Ok(AsyncConfig {
        async_task: set.stateful || there.async_task,
        max_async_retry_attempts: set.retries.unwrap_or(there.max_async_retry_attempts),
        max_async_event_age_in_seconds: seconds(set.max_age, there.max_async_event_age_in_seconds),
        timeout_in_seconds: seconds(set.timeout, there.timeout_in_seconds),
        destination_config: Destinations {
            on_success: to(&set.on_success, on_success),
            on_failure: to(&set.on_failure, on_failure),
        },
    })
}
