//! Tasks of versions and aliases: which version ran, with which settings, and what becomes of those that wait while an alias moves.

use serde_json::{Value, json};

use crate::http::Answer;
use crate::support::{Server, call, function, manifest, until, until_true};

/// A declaration of `f` whose instances know which release they are.
fn release(number: u32, settings: &str) -> String {
    manifest(&[function("f", &[], &format!("env: {{RELEASE: \"{number}\"}}\n{settings}"))])
}

/// Two published versions of `f`, of which the second serves; the alias `prod` means the first.
fn two_versions(settings: &str) -> Server {
    let server = Server::start();
    for number in 1..=2 {
        server.deploy(&release(number, settings));
        server.kip(&["version", "publish", "f"]).ok();
    }
    server.kip(&["alias", "set", "f", "prod", "1"]).ok();
    server
}

fn api(server: &Server, method: &str, path: &str, body: &str) -> Answer {
    let headers = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", server.key);
    call(server.api, method, path, &headers, body.as_bytes())
}

/// Submits a task at the gateway; gives its id.
fn submit(server: &Server, name: &str, headers: &str) -> String {
    let headers = format!("x-fc-invocation-type: Async\r\n{headers}");
    let answer = call(server.gateway, "GET", &format!("/f/{name}/env"), &headers, b"");
    assert_eq!(answer.status(), 202, "{answer:?}");
    answer.header("x-fc-async-task-id").unwrap().to_owned()
}

fn show(server: &Server, id: &str) -> Value {
    api(server, "GET", &format!("/api/v1/functions/f/tasks/{id}"), "").json()
}

fn ended(server: &Server, id: &str) -> Value {
    until(&format!("task {id} is over"), || {
        let task = show(server, id);
        (task["status"] == "Succeeded" || task["status"] == "Failed").then_some(task)
    })
}

/// The release that a task ran on, by what its program saw; the task says the same.
fn release_of(server: &Server, id: &str) -> u32 {
    let task = ended(server, id);
    let seen: Value = serde_json::from_str(task["returnPayload"].as_str().unwrap()).unwrap();
    let release = seen["RELEASE"].as_str().unwrap();
    assert_eq!(task["version"], release, "{task}");
    release.parse().unwrap()
}

#[test]
fn a_task_runs_on_the_version_that_its_qualifier_means() {
    let server = two_versions("");
    for (name, release, asked) in [
        ("f@prod", 1, "prod"),
        ("f@1", 1, "1"),
        ("f@2", 2, "2"),
        ("f@r1", 1, "r1"),
        ("f", 2, "LATEST"),
        ("f@LATEST", 2, "LATEST"),
    ] {
        let id = submit(&server, name, "");
        assert_eq!(release_of(&server, &id), release, "{name}");
        assert_eq!(show(&server, &id)["qualifier"], asked);
    }
    // The same by the API, stateful: held runs know their version too.
    let answer = api(&server, "POST", "/api/v1/functions/f/tasks?qualifier=prod", "{}");
    assert_eq!(answer.status(), 202, "{answer:?}");
    let id = answer.header("x-fc-async-task-id").unwrap();
    until_true("it is over", || ended(&server, id)["version"] == "1");
    let shown = server.kip(&["task", "show", "f", id]).ok();
    assert!(shown.stdout.contains("prod") && shown.stdout.contains("version"), "{}", shown.stdout);
    let record = server.until_record("the task's", |line| line["qualifier"] == "prod" && line["label"] == "1");
    assert_eq!(record["function"], "f");
    // The instance is told which name it was called by.
    let listed = api(&server, "GET", "/api/v1/functions/f/tasks?qualifier=prod", "").json();
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 2, "{listed}");
    let unknown = api(&server, "POST", "/api/v1/functions/f/tasks?qualifier=blue", "{}");
    assert_eq!((unknown.status(), unknown.json()["error"]["code"].as_str()), (404, Some("KW-3007")));
    server.kip(&["invoke", "f@9", "--async"]).failed(&["KW-3007", "9"]);
}

#[test]
fn a_task_that_waits_follows_its_alias_and_outlives_a_restart() {
    let mut server = two_versions("");
    let moved = submit(&server, "f@prod", "x-kip-task-delay: 2s\r\n");
    let kept = submit(&server, "f@1", "x-kip-task-delay: 2s\r\n");
    server.kip(&["alias", "set", "f", "prod", "2"]).ok();
    server.crash();
    server.start_again();
    assert_eq!((release_of(&server, &moved), release_of(&server, &kept)), (2, 1));
    // What a task names is neither removed nor collected while it waits.
    let waits =
        [submit(&server, "f@prod", "x-kip-task-delay: 1h\r\n"), submit(&server, "f@1", "x-kip-task-delay: 1h\r\n")];
    server.kip(&["alias", "rm", "f", "prod"]).failed(&["KW-3021", "1 open tasks of f@prod", "kip task ls f"]);
    server.kip(&["version", "rm", "f", "1"]).failed(&["KW-3021", "1 open tasks of f@1", "kip task ls f"]);
    for id in &waits {
        server.kip(&["task", "stop", "f", id]).ok();
    }
    server.kip(&["alias", "rm", "f", "prod"]).ok();
    server.kip(&["version", "rm", "f", "1"]).ok();
}

#[test]
fn an_alias_with_weights_shares_its_tasks_out() {
    let server = two_versions("instances: {max: 1}");
    server.kip(&["alias", "set", "f", "prod", "1=75,2=25"]).ok();
    let ids: Vec<String> = (0..40).map(|_| submit(&server, "f@prod", "")).collect();
    let second = ids.iter().filter(|id| release_of(&server, id) == 2).count();
    assert!((7..=13).contains(&second), "{second} of 40");
    // One at a time, each version comes too.
    let one = (0..40).map(|_| submit(&server, "f@prod", "")).filter(|id| release_of(&server, id) == 2).count();
    assert!((7..=13).contains(&one), "{one} of 40");
}

#[test]
fn settings_of_a_qualifier_are_in_force_for_its_tasks() {
    let server = two_versions("");
    let put = |qualifier: &str, config: Value| {
        let path = format!("/2023-03-30/functions/f/async-invoke-config?qualifier={qualifier}");
        let answer = api(&server, "PUT", &path, &config.to_string());
        assert_eq!(answer.status(), 200, "{answer:?}");
    };
    server.deploy_without_wait(&manifest(&[function("f", &[], "env: {RELEASE: \"3\"}"), function("told", &[], "")]));
    put(
        "prod",
        json!({"maxAsyncRetryAttempts": 0, "asyncTask": true, "destinationConfig": {"onFailure": {"destination": "acs:fc:::functions/told"}}}),
    );
    put("LATEST", json!({"maxAsyncRetryAttempts": 1}));
    let fails = |name: &str| {
        let headers = "x-fc-invocation-type: Async\r\n";
        let answer = call(server.gateway, "POST", &format!("/f/{name}/status/500"), headers, b"");
        assert_eq!(answer.status(), 202, "{answer:?}");
        answer.header("x-fc-async-task-id").unwrap().to_owned()
    };
    let (prod, latest) = (ended(&server, &fails("f@prod")), ended(&server, &fails("f")));
    assert_eq!(
        (&prod["kind"], &prod["errors"], &prod["status"]),
        (&"task".into(), &1.into(), &"Failed".into()),
        "{prod}"
    );
    assert_eq!((&latest["kind"], &latest["errors"]), (&"invocation".into(), &2.into()), "{latest}");
    let told = until("the destination was told", || {
        let tasks = api(&server, "GET", "/api/v1/functions/told/tasks", "").json();
        tasks["tasks"].as_array()?.first().cloned()
    });
    assert_eq!(told["functionName"], "told");
    let shown = api(&server, "GET", "/api/v1/functions/f/async-invoke-config?qualifier=prod", "").json();
    assert_eq!(shown["maxAsyncRetryAttempts"], 0, "{shown}");
    let gone = api(&server, "DELETE", "/2023-03-30/functions/f/async-invoke-config?qualifier=prod", "");
    assert_eq!(gone.status(), 204);
    // What is not put for a qualifier is that of LATEST.
    let after = ended(&server, &fails("f@prod"));
    assert_eq!((&after["kind"], &after["errors"]), (&"invocation".into(), &2.into()), "{after}");
}
