//! Jobs by the clock: declared in kip.yaml, run at their times and at no other, once for each, whatever happens to the server.

use std::fs;
use std::path::Path;

use kip_host::environment::FAIL_POINT;
use serde_json::{Value, json};

use crate::support::{Server, until, until_true};

/// Starts the server anew and lets it believe that it is this time; it may be told where to kill itself.
fn start_at(server: &mut Server, time: &str, fail: &str) {
    let mut command = server.serve_command();
    command.env("KIPWAKE_CLOCK", time);
    if !fail.is_empty() {
        command.env(FAIL_POINT, fail);
    }
    server.start_by(command);
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A job's line of `kip job ls`.
fn job(server: &Server, name: &str) -> Value {
    let all = server.ask(&["jobs", "ls"]);
    let found = all.as_array().unwrap().iter().find(|job| job["name"] == name);
    found.unwrap_or_else(|| panic!("no job {name}: {all}")).clone()
}

/// What ran is told by a file that each run writes a line into: for which time it was.
#[test]
fn a_job_runs_once_for_each_time_of_its_schedule_over_kills_and_restarts() {
    let mut server = Server::start();
    let ledger = server.folder().join("ledger");
    server.crash();
    start_at(&mut server, "2024-07-01T00:59:57Z", "");
    server.deploy(&format!(
        "api: kip/v1
jobs:
  nightly:
    run: [sh, -c, 'echo $KIPWAKE_TASK_DUE $WHO >> {}; echo kept > $KIPWAKE_OUT/file']
    env: {{WHO: me}}
    schedule: {{cron: 0 3 * * *, zone: Europe/Berlin, deadline: 2d}}
  never: {{run: 'true'}}
",
        ledger.display()
    ));
    let shown = server.kip(&["jobs", "show", "nightly"]).ok().stdout;
    assert!(shown.contains("0 0 3 * * * in Europe/Berlin") && shown.contains("overlap forbid, missed once"), "{shown}");
    let ran = |count: usize| until("it ran", || Some(lines(&ledger)).filter(|lines| lines.len() >= count));
    assert_eq!(ran(1), ["2024-07-01T01:00:00Z me"]);
    let task = until("the run is over", || {
        let job = job(&server, "nightly");
        (job["last"]["status"] == "Succeeded").then_some(job)
    });
    assert_eq!(task["last"]["taskId"], "at-20240701T010000Z");
    assert_eq!(task["schedule"]["next"], json!(1_719_882_000_000i64), "a day later: {task}");
    let run = server.ask(&["tasks", "show", "nightly", "at-20240701T010000Z"]);
    assert_eq!((&run["kind"], &run["scheduledTime"]), (&json!("job"), &json!(1_719_795_600_000i64)), "{run}");
    assert!(run["returnPayload"].as_str().unwrap().contains("\"files\":[\"file\"]"), "{run}");
    assert_eq!(job(&server, "never")["schedule"], Value::Null);

    // Two times while no server runs: the last is made up for, and it is said that another was not.
    server.crash();
    start_at(&mut server, "2024-07-03T12:00:00Z", "");
    assert_eq!(ran(2)[1], "2024-07-03T01:00:00Z me");
    let left = job(&server, "nightly")["schedule"]["lastLeftOut"].clone();
    assert_eq!(left["at"], json!(1_719_882_000_000i64), "{left}");

    // Killed when a time has come, before and after its task is on the disk: neither lost nor doubled.
    for (day, point) in [(4, "job: due"), (5, "job: fired")] {
        server.crash();
        start_at(&mut server, &format!("2024-07-0{day}T00:59:56Z"), point);
        assert!(!server.wait().success(), "it killed itself at `{point}`");
        start_at(&mut server, &format!("2024-07-0{day}T01:00:20Z"), "");
        let expected = format!("2024-07-0{day}T01:00:00Z me");
        assert_eq!(*ran(day - 1).last().unwrap(), expected, "{point}");
        until_true("it is known to have run", || job(&server, "nightly")["schedule"]["next"].as_i64() > Some(0));
    }
    // A look at the clock later, still once each; a clock that is put back repeats nothing.
    server.crash();
    start_at(&mut server, "2024-07-05T00:59:58Z", "");
    let then = kip_host::clock::boot_millis() + 4_000;
    until_true("that time came again", || kip_host::clock::boot_millis() > then);
    assert_eq!(lines(&ledger).len(), 4, "{:?}", lines(&ledger));

    // A time that is too late for its deadline is none.
    server.crash();
    start_at(&mut server, "2024-07-10T00:00:00Z", "");
    assert_eq!(ran(5)[4], "2024-07-09T01:00:00Z me");
    server
        .deploy("api: kip/v1\njobs:\n  late: {run: 'true', schedule: {cron: '@daily', deadline: 1h, missed: each}}\n");
    until_true("it is known", || job(&server, "late")["schedule"]["next"] == json!(1_720_656_000_000i64));
    server.crash();
    start_at(&mut server, "2024-07-12T12:00:00Z", "");
    until_true("it is left out", || {
        let left = job(&server, "late")["schedule"]["lastLeftOut"].clone();
        left["why"].as_str().is_some_and(|why| why.contains("deadline"))
    });
    assert_eq!(job(&server, "late")["last"], Value::Null);
    // A run by hand; and what is no job says so.
    server.kip(&["jobs", "run", "late"]).ok();
    server.kip(&["jobs", "pause", "never"]).failed(&["KW-8022", "never"]);
    server.kip(&["run", "--name", "late", "--", "true"]).failed(&["KW-7007", "schedule"]);
    server.deploy_subject(&[], "");
    server.kip(&["jobs", "run", "f"]).failed(&["KW-8021"]);
}

#[test]
fn a_run_that_meets_another_is_left_out_waits_replaces_it_or_runs_beside_it() {
    let server = Server::start();
    let gate = server.folder().join("gate");
    let job_of = |overlap: &str| {
        format!(
            "  {overlap}:
    run: [sh, -c, 'while [ ! -e {} ]; do sleep 0.05; done']
    grace: 1s
    parallel: {}
    schedule: {{cron: '* * * * * *', overlap: {overlap}}}
",
            gate.display(),
            if overlap == "allow" { 3 } else { 1 }
        )
    };
    let words = ["forbid", "queue", "replace", "allow"];
    server.deploy(&format!("api: kip/v1\njobs:\n{}", words.map(job_of).concat()));
    let list = |name: &str, status: &str| {
        let list = server.ask(&["tasks", "ls", name, "--status", status]);
        list["tasks"].as_array().unwrap().len()
    };
    until_true("one is left out", || job(&server, "forbid")["schedule"]["leftOut"].as_u64() > Some(1));
    assert_eq!(job(&server, "forbid")["open"], json!(1));
    until_true("three run at once", || list("allow", "Running") == 3);
    until_true("some wait and one runs", || list("queue", "Running") == 1 && list("queue", "Enqueued") >= 2);
    until_true("one was stopped and the next runs", || {
        list("replace", "Stopped") >= 1 && list("replace", "Running") == 1
    });
    for name in words {
        let paused = server.ask(&["jobs", "pause", name]);
        assert_eq!((&paused["schedule"]["paused"], &paused["schedule"]["next"]), (&json!(true), &Value::Null));
    }
    let count = || server.ask(&["jobs", "show", "allow"])["open"].as_u64().unwrap();
    let open = count();
    let then = kip_host::clock::boot_millis() + 2_500;
    until_true("two times have passed", || kip_host::clock::boot_millis() > then);
    assert_eq!(count(), open, "it rests");
    fs::write(&gate, "").unwrap();
    until_true("all are over", || words.iter().all(|name| job(&server, name)["open"] == json!(0)));
    assert!(server.ask(&["jobs", "resume", "forbid"])["schedule"]["next"].is_number());
    until_true("it runs again", || list("forbid", "Succeeded") >= 2);
    // What is deployed anew begins anew.
    server.deploy("api: kip/v1\njobs:\n  forbid: {run: 'true', schedule: {cron: '@yearly', paused: true}}\n");
    assert_eq!(job(&server, "forbid")["schedule"]["paused"], json!(true));
    server.kip(&["rm", "queue", "replace", "allow", "forbid"]).ok();
    assert_eq!(server.ask(&["jobs", "ls"]), json!([]));
}

#[test]
fn a_run_that_the_end_of_the_server_interrupts_is_not_done() {
    let mut server = Server::start();
    let done = server.folder().join("begun");
    // It saves what it has on SIGTERM and exits with 0, as training programs do.
    let script = "[ -e $DONE ] && exit 0; trap 'exit 0' TERM; touch $DONE; while :; do sleep 0.05; done";
    server.deploy(&format!(
        "api: kip/v1\njobs:\n  j: {{run: [sh, -c, \"{script}\"], env: {{DONE: {}}}}}\n",
        done.display()
    ));
    let task = server.ask(&["invoke", "j", "--async", "-X", "POST", "-d", "x"]);
    let id = task["task"].as_str().unwrap_or_else(|| panic!("{task}")).to_owned();
    until_true("it has begun", || done.exists());
    server.kip(&["stop"]).ok();
    server.wait();
    server.start_again();
    let over = until("it is over", || {
        let shown = server.ask(&["task", "show", "j", &id]);
        shown["endTime"].is_i64().then_some(shown)
    });
    assert_eq!(over["status"], "Succeeded", "{over}");
    assert!(over["epoch"].as_u64() >= Some(2), "the interrupted run counted as done: {over}");
}
