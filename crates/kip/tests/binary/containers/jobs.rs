//! Jobs with an image: each run is a container of its own, and its exit code is that of the run.

use serde_json::{Value, json};

use crate::bodies::{Engine, IMAGE, engine};
use crate::support::{Server, until, until_true};

super::each_engine!(
    a_run_is_a_container_with_its_exit_code,
    a_run_is_stopped_and_leaves_nothing,
    a_run_goes_on_while_the_server_is_killed,
    what_is_wrong_with_a_job_is_said,
);

/// The containers of jobs of any server that run a job of this name.
fn containers(engine: Engine, job: &str) -> Vec<Value> {
    let filters = format!("%7B%22label%22%3A%5B%22dev.kipwake.job-function%3D{job}%22%5D%7D");
    let (status, body) = engine.ask("GET", &format!("/v1.41/containers/json?all=true&filters={filters}"), Vec::new());
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

/// A name of its own for each test and engine: they share the engines.
fn named(what: &str) -> String {
    format!("{what}-{:?}-{}", engine().unwrap(), std::process::id()).to_lowercase()
}

fn job(name: &str, script: &str, more: &str) -> String {
    format!("api: kip/v1\njobs:\n  {name}:\n    image: {IMAGE}\n    run: [/bin/sh, -c, '{script}']\n    {more}\n")
}

fn run(server: &Server, name: &str) -> String {
    let said = server.ask(&["job", "run", name, "--detach"]);
    said["taskId"].as_str().unwrap_or_else(|| panic!("no task: {said}")).to_owned()
}

/// How a task ended.
fn ended(server: &Server, name: &str, task: &str) -> Value {
    until("the run is over", || {
        let task = server.ask(&["task", "show", name, task]);
        let open = ["Enqueued", "Dequeued", "Running", "Retrying", "Stopping"];
        (!open.contains(&task["status"].as_str().unwrap_or_default())).then_some(task)
    })
}

/// What its program answered.
fn result(task: &Value) -> Value {
    let text = task["returnPayload"].as_str().unwrap_or_else(|| panic!("no result: {task}"));
    serde_json::from_str(text).unwrap()
}

fn a_run_is_a_container_with_its_exit_code() {
    let (server, name) = (Server::start(), named("codes"));
    let script = "echo hello $WHO from $KIPWAKE_TASK_ID; echo kept > $KIPWAKE_OUT/file; exit $CODE";
    server.deploy(&job(&name, script, "env: {WHO: 'a $ b', CODE: '0'}"));
    let task = run(&server, &name);
    let over = ended(&server, &name, &task);
    assert_eq!(over["status"], "Succeeded", "{over}");
    let result_of = result(&over);
    assert_eq!((&result_of["exitCode"], &result_of["files"]), (&json!(0), &json!(["file"])), "{result_of}");
    let log = server.kip(&["logs", &name, "--task", &task]).ok().stdout;
    assert!(log.contains(&format!("hello a $ b from {task}")), "{log}");
    server.deploy(&job(&name, script, "env: {WHO: me, CODE: '7'}\n    retries: 1"));
    let over = ended(&server, &name, &run(&server, &name));
    assert_eq!((&over["status"], &result(&over)["exitCode"]), (&json!("Failed"), &json!(7)), "{over}");
    assert_eq!(over["attempts"].as_array().map_or(2, Vec::len), 2, "{over}");
    until_true("no container is left", || containers(engine().unwrap(), &name).is_empty());
}

fn a_run_is_stopped_and_leaves_nothing() {
    let (server, name) = (Server::start(), named("stops"));
    let engine = engine().unwrap();
    for (script, grace) in [
        ("trap \"echo asked; exit 3\" TERM; while true; do sleep 0.1; done", "20s"),
        ("trap \"\" TERM; while true; do sleep 0.1; done", "1s"),
        ("while true; do sleep 0.1; done", "600s"),
    ] {
        server.deploy(&job(&name, script, &format!("grace: {grace}")));
        let task = run(&server, &name);
        until_true("its container runs", || containers(engine, &name).iter().any(|one| one["State"] == "running"));
        server.kip(&["task", "stop", &name, &task]).ok();
        let over = ended(&server, &name, &task);
        assert_eq!(over["status"], "Stopped", "{script}: {over}");
        until_true("no container is left", || containers(engine, &name).is_empty());
    }
    server.deploy(&job(&name, "while true; do sleep 0.1; done", "timeout: 1s\n    grace: 1s"));
    let over = ended(&server, &name, &run(&server, &name));
    assert!(["Expired", "Failed", "TimedOut"].contains(&over["status"].as_str().unwrap()), "{over}");
    until_true("no container is left", || containers(engine, &name).is_empty());
}

fn a_run_goes_on_while_the_server_is_killed() {
    let (mut server, name) = (Server::start(), named("lives"));
    let engine = engine().unwrap();
    let folder = server.folder().display().to_string();
    let script = format!("echo begun; while [ ! -e {folder}/gate ]; do sleep 0.1; done; echo over; exit 0");
    server.deploy(&job(&name, &script, &format!("container: {{mounts: [\"{folder}:{folder}\"]}}")));
    let task = run(&server, &name);
    until_true("its container runs", || containers(engine, &name).iter().any(|one| one["State"] == "running"));
    let id = containers(engine, &name)[0]["Id"].clone();
    server.crash();
    server.start_again();
    assert_eq!(containers(engine, &name)[0]["Id"], id, "the same container");
    std::fs::write(server.folder().join("gate"), "").unwrap();
    let over = ended(&server, &name, &task);
    assert_eq!((&over["status"], &result(&over)["exitCode"]), (&json!("Succeeded"), &json!(0)), "{over}");
    until_true("no container is left", || containers(engine, &name).is_empty());
    let log = server.kip(&["logs", &name, "--task", &task]).ok().stdout;
    assert!(log.contains("begun") && log.contains("over"), "{log}");
    // A process of a job that is killed leaves no container to its successor.
    std::fs::remove_file(server.folder().join("gate")).unwrap();
    let _ = run(&server, &name);
    until_true("its container runs", || containers(engine, &name).iter().any(|one| one["State"] == "running"));
    let process = until("its process", || server.known().first().copied());
    server.crash();
    crate::support::kill(process, rustix::process::Signal::KILL);
    server.start_again();
    std::fs::write(server.folder().join("gate"), "").unwrap();
    until_true("none is left", || containers(engine, &name).is_empty());
}

fn what_is_wrong_with_a_job_is_said() {
    let (server, name) = (Server::start(), named("wrong"));
    let text = format!("api: kip/v1\njobs:\n  {name}: {{image: kip-none:test, pull: never, run: [/bin/sh]}}\n");
    server.try_deploy(&text).failed(&["KW-4022", "kip-none:test"]);
    let text = format!("api: kip/v1\njobs:\n  {name}: {{run: [/bin/sh], pull: never}}\n");
    server.try_deploy(&text).failed(&["KW-1009", "has no effect without `image`"]);
    let text = format!("api: kip/v1\njobs:\n  {name}:\n    image: {IMAGE}\n    run: [/no/such/program]\n");
    server.deploy(&text);
    let over = ended(&server, &name, &run(&server, &name));
    assert_eq!(over["status"], "Failed", "{over}");
    let said = result(&over);
    assert!(said["exitCode"] == 126 && said["error"].as_str().unwrap().contains("/no/such/program"), "{said}");
    if engine() == Some(Engine::Docker) {
        // Podman 4.3 does not report it where cgroups have version 1.
        let script = "x=0123456789abcdef; while true; do x=$x$x; done";
        server.deploy(&job(&name, script, "resources: {memory: 32MiB}"));
        let over = ended(&server, &name, &run(&server, &name));
        assert!(result(&over)["error"].as_str().is_some_and(|text| text.contains("resources.memory")), "{over}");
    }
}
