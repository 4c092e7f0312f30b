//! Tasks, counted by an outside ledger: the program under test writes down and syncs what it begins and ends, so that nothing
//! the server believes is needed to know how often a task was run.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::http::{Answer, Caller};
use crate::support::{Server, apart, call, function, is_alive, manifest, until, until_true};

/// A server with a function `f` whose runs are in a ledger.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) ledger: PathBuf,
}

/// A line of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct LedgerLine {
    pub(crate) what: String,
    pub(crate) id: String,
    pub(crate) epoch: u64,
    pub(crate) pid: u32,
}

/// The ledger's lines, the last perhaps half written.
pub(crate) fn noted(ledger: &Path) -> Vec<LedgerLine> {
    let text = fs::read_to_string(ledger).unwrap_or_default();
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, id, _, epoch, pid] = words[..] else { return None };
        let epoch = epoch.parse().unwrap_or_default();
        Some(LedgerLine { what: what.to_owned(), id: id.to_owned(), epoch, pid: pid.parse().ok()? })
    };
    text.lines().filter_map(line).collect()
}

impl Bench {
    pub(crate) fn start(settings: &str) -> Self {
        Self::with("", settings)
    }

    /// With settings of the server and of the function.
    pub(crate) fn with(server: &str, settings: &str) -> Self {
        let server = Server::with(server);
        let ledger = server.folder().join("ledger");
        let bench = Self { server, ledger };
        bench.server.deploy(&manifest(&[bench.function("f", settings)]));
        bench
    }

    pub(crate) fn function(&self, name: &str, settings: &str) -> String {
        function(name, &[], &format!("env: {{LEDGER: {}}}\n{settings}", self.ledger.display()))
    }

    /// Submits work through the gateway; headers end with a line break each.
    pub(crate) fn submit(&self, headers: &str, script: &str) -> Answer {
        submit(self.server.gateway, headers, script)
    }

    /// Submits work that must be taken, and gives its id.
    pub(crate) fn task(&self, headers: &str, script: &str) -> String {
        let answer = self.submit(headers, script);
        assert_eq!((answer.status(), answer.body.len()), (202, 0), "{answer:?}");
        assert!(answer.header("x-fc-request-id").is_some());
        answer.header("x-fc-async-task-id").unwrap().to_owned()
    }

    pub(crate) fn show(&self, id: &str) -> Value {
        self.server.api_get(&format!("/api/v1/functions/f/tasks/{id}")).json()
    }

    pub(crate) fn until(&self, id: &str, status: &str) -> Value {
        until(&format!("task {id} is {status}: {}", self.show(id)), || {
            let task = self.show(id);
            (task["status"] == status).then_some(task)
        })
    }

    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> Answer {
        let headers = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", self.server.key);
        call(self.server.api, method, path, &headers, body.as_bytes())
    }

    pub(crate) fn configure(&self, config: &Value) {
        let answer = self.api("PUT", "/api/v1/functions/f/async-invoke-config", &config.to_string());
        assert_eq!(answer.status(), 200, "{answer:?}");
    }

    /// How often a task was begun.
    pub(crate) fn runs(&self, id: &str) -> usize {
        noted(&self.ledger).iter().filter(|line| line.what == "begin" && line.id == id).count()
    }

    pub(crate) fn until_begun(&self, id: &str) -> u32 {
        until(&format!("{id} runs"), || {
            noted(&self.ledger).iter().find(|line| line.what == "begin" && line.id == id).map(|line| line.pid)
        })
    }

    pub(crate) fn stop(&self, id: &str) -> String {
        let answer = self.api("PUT", &format!("/api/v1/functions/f/tasks/{id}/stop"), "");
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()["status"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn submit(gateway: SocketAddr, headers: &str, script: &str) -> Answer {
    let headers = format!("x-fc-invocation-type: Async\r\n{headers}");
    call(gateway, "POST", "/f/f/task", &headers, script.as_bytes())
}

/// The code of a problem that the API answers with.
fn refused(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

fn steps(task: &Value) -> Vec<String> {
    let events = task["events"].as_array().expect("events");
    events.iter().map(|event| event["status"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn what_is_accepted_is_run_once_and_shown() {
    let bench = Bench::start("");
    let id = bench.task("x-fc-async-task-id: first\r\nx-own: 1\r\n", "answer hello");
    assert_eq!(id, "first");
    let task = bench.until("first", "Succeeded");
    assert_eq!(steps(&task), ["Enqueued", "Dequeued", "Running", "Succeeded"]);
    assert_eq!((&task["returnPayload"], &task["statusCode"]), (&json!("hello"), &json!(200)));
    assert_eq!((&task["alreadyRetriedTimes"], &task["qualifier"]), (&json!(0), &json!("LATEST")));
    assert!(task["instanceId"].is_string() && task["durationMs"].is_number(), "{task}");
    assert_eq!(bench.runs("first"), 1);
    let result = bench.server.api_get("/api/v1/functions/f/tasks/first/result");
    assert_eq!((result.text().as_str(), result.header("x-kip-task-status")), ("hello", Some("200")));
    assert_eq!(bench.server.api_get("/api/v1/functions/f/tasks/first/payload").text(), "answer hello");
    // The function is told of the caller what it would be told in a call that somebody waits for.
    let told = |answer: &Value| -> Vec<Value> {
        let tells = |header: &&Value| {
            let name = header[0].as_str().unwrap();
            name == "host" || name.starts_with("x-forwarded-")
        };
        let mut told: Vec<Value> = answer["headers"].as_array().unwrap().iter().filter(tells).cloned().collect();
        told.sort_by_key(Value::to_string);
        told
    };
    let now = told(&call(bench.server.gateway, "POST", "/f/f/echo", "", b"x").json());
    let later = call(bench.server.gateway, "POST", "/f/f/echo", "x-fc-invocation-type: Async\r\n", b"x");
    let later = bench.until(later.header("x-fc-async-task-id").unwrap(), "Succeeded");
    assert_eq!((told(&serde_json::from_str(later["returnPayload"].as_str().unwrap()).unwrap()), now.len()), (now, 5));
    bench.server.kip(&["tasks", "purge", "f", later["taskId"].as_str().unwrap()]).ok();
    // The native way, an event.
    let taken = bench.api("POST", "/api/v1/functions/f/tasks", "answer 2");
    assert_eq!(taken.status(), 202, "{taken:?}");
    let second = taken.json()["taskId"].as_str().unwrap().to_owned();
    bench.until(&second, "Succeeded");
    // From the command line.
    let said = bench.server.kip(&["invoke", "f", "/task", "-d", "answer three", "--async", "--wait"]).ok();
    assert_eq!(said.stdout, "three");
    let list = bench.server.ask(&["tasks", "ls", "f"]);
    assert_eq!(list["tasks"].as_array().unwrap().len(), 3);
    let list = bench.server.ask(&["tasks", "ls", "f", "--prefix", "fir", "--status", "Succeeded"]);
    assert_eq!(list["tasks"][0]["taskId"], "first", "{list}");
    let page = bench.server.ask(&["tasks", "ls", "-n", "2"]);
    let rest = bench.server.ask(&["tasks", "ls", "-n", "2", "--next", page["nextToken"].as_str().unwrap()]);
    assert_eq!((rest["tasks"].as_array().unwrap().len(), &rest["nextToken"]), (1, &Value::Null), "{rest}");
    let stat = bench.server.ask(&["tasks", "stat"]);
    assert_eq!((&stat["functions"][0]["succeeded"], &stat["queued"]), (&json!(4), &json!(0)), "{stat}");
    let steps = bench.server.ask_lines(&["tasks", "watch", "f", "first"]);
    assert_eq!(steps.len(), 4);
    bench.server.kip(&["tasks", "show", "f", "nothing"]).failed(&["KW-5001", "nothing"]);
    bench.server.kip(&["tasks", "purge", "f", "first"]).ok();
    bench.server.kip(&["tasks", "show", "f", "first"]).failed(&["KW-5001"]);
    assert_eq!(bench.server.ask(&["tasks", "purge", "--all"])["matched"], 2, "counted only");
    assert_eq!(bench.server.ask(&["tasks", "purge", "--all", "--yes"])["changed"], 2);
    let metrics = bench.server.api_get("/metrics").text();
    assert!(metrics.contains("kip_tasks_ended_total{function=\"f\",status=\"Succeeded\"} 4"), "{metrics}");
}

#[test]
fn what_is_not_acceptable_is_refused_with_a_code() {
    let bench = Bench::with("[tasks]\npayload = \"1KiB\"\nper_function = 2", "instances: {max: 1}");
    let code = |headers: &str, script: &str| {
        let answer = bench.submit(headers, script);
        (answer.status(), answer.code())
    };
    assert_eq!(code("x-fc-async-task-id: 1a\r\n", ""), (400, "KW-5005".to_owned()));
    assert_eq!(code("x-fc-async-task-id: t17\r\n", ""), (400, "KW-5005".to_owned()));
    assert_eq!(code("x-kip-task-delay: soon\r\n", ""), (400, "KW-5005".to_owned()));
    for headers in [
        "x-kip-task-priority: 10\r\n",
        "x-kip-task-max-age: 0s\r\n",
        "x-kip-task-bogus: 1\r\n",
        "x-fc-async-task-id: a\r\nx-fc-async-task-id: b\r\n",
        "x-fc-async-task-id: \r\n",
    ] {
        assert_eq!(code(headers, ""), (400, "KW-5005".to_owned()), "{headers}");
    }
    // A gRPC call is told in gRPC's way.
    let grpc = bench.submit("content-type: application/grpc\r\n", "");
    assert_eq!((grpc.header("x-kip-error"), grpc.header("grpc-status")), (Some("KW-5005"), Some("3")));
    // Another word than the two is not taken for a call that somebody waits for.
    let word = call(bench.server.gateway, "POST", "/f/f/task", "x-fc-invocation-type: later\r\n", b"");
    assert_eq!((word.status(), word.code().as_str()), (400, "KW-5005"));
    assert!(noted(&bench.ledger).is_empty(), "nothing was run");
    assert_eq!(code("", &"x".repeat(2_000)), (413, "KW-5004".to_owned()));
    let config = bench.api("PUT", "/api/v1/functions/f/async-invoke-config", r#"{"maxAsyncRetryAttempts": 9}"#);
    assert_eq!((config.status(), refused(&config).as_str()), (400, "KW-5006"));
    let unknown = bench.api("PUT", "/api/v1/functions/f/async-invoke-config", r#"{"retries": 1}"#);
    assert_eq!(refused(&unknown), "KW-5006");
    for list in ["[]", "[true, 1, 5, 6, {}]", r#"{"destinationConfig": [null, null]}"#] {
        let answer = bench.api("PUT", "/api/v1/functions/f/async-invoke-config", list);
        assert_eq!((answer.status(), refused(&answer).as_str()), (400, "KW-5006"), "{list}");
    }
    assert_eq!(bench.api("GET", "/api/v1/functions/g/tasks", "").status(), 404);
    assert_eq!(refused(&bench.api("GET", "/api/v1/functions/f/async-invoke-config", "")), "KW-5009");
    let usual = bench.server.ask(&["tasks", "config", "show", "f"]);
    assert_eq!(usual["maxAsyncRetryAttempts"], 3, "the defaults: {usual}");
    // What the function does not have.
    for path in ["async-invoke-config?qualifier=blue", "tasks?qualifier=1"] {
        let method = if path.starts_with("tasks") { "POST" } else { "PUT" };
        let answer = bench.api(method, &format!("/api/v1/functions/f/{path}"), "{}");
        assert_eq!((answer.status(), refused(&answer).as_str()), (404, "KW-3007"), "{path}");
    }
    // A destination that is not there, and those that would lead back.
    let to = |function: &str, to: &str| {
        let text = json!({"destinationConfig": {"onSuccess": {"destination": to}}}).to_string();
        let answer = bench.api("PUT", &format!("/api/v1/functions/{function}/async-invoke-config"), &text);
        (answer.status(), answer.text())
    };
    assert!(matches!(to("f", "function:nobody"), (400, text) if text.contains("KW-5006") && text.contains("nobody")));
    assert!(
        matches!(to("f", "function:f"), (400, text) if text.contains("KW-5006") && text.contains("without an end"))
    );
    bench.server.deploy(&manifest(&[bench.function("f", "instances: {max: 1}"), bench.function("h", "")]));
    assert_eq!(to("f", "function:h").0, 200);
    assert!(matches!(to("h", "function:f"), (400, text) if text.contains("by way of f")), "a circle");
    assert_eq!(bench.api("DELETE", "/api/v1/functions/f/async-invoke-config", "").status(), 204);
    assert_eq!(bench.api("GET", "/api/v1/functions/f/tasks?limit=0", "").status(), 400);
    assert_eq!(bench.api("POST", "/api/v1/functions/g/tasks", "").status(), 404);
    for _ in 0..2 {
        bench.task("x-kip-task-delay: 1h\r\n", "");
    }
    let full = bench.submit("x-kip-task-delay: 1h\r\n", "");
    assert_eq!((full.status(), full.code().as_str(), full.header("retry-after")), (429, "KW-5003", Some("5")));
    assert_eq!(bench.server.ask(&["tasks", "stop", "f", "--all", "--yes"])["changed"], 2);
    bench.task("x-kip-task-delay: 1h\r\n", "");
    let list = bench.server.ask(&["tasks", "ls", "f", "--status", "Enqueued"]);
    assert_eq!(list["tasks"].as_array().unwrap().len(), 1);
}

#[test]
fn a_backlog_wakes_a_function_from_zero_and_takes_all_it_may_in_one_step() {
    let bench = Bench::start("instances: {max: 3}\nidle: {pause: 50ms, stop: 1h}");
    let gate = bench.server.folder().join("gate");
    let ids: Vec<String> = (0..6).map(|_| bench.task("", &format!("wait {}", gate.display()))).collect();
    until_true("three of them run at once", || noted(&bench.ledger).len() == 3);
    assert_eq!(bench.server.instances().len(), 3);
    let stat = bench.server.ask(&["tasks", "stat"]);
    assert_eq!((&stat["functions"][0]["running"], &stat["functions"][0]["ready"]), (&json!(3), &json!(3)), "{stat}");
    assert!(bench.show(&ids[5])["ahead"].is_number());
    fs::write(&gate, "").unwrap();
    ids.iter().for_each(|id| drop(bench.until(id, "Succeeded")));
    assert!(ids.iter().all(|id| bench.runs(id) == 1));
    until_true("they sleep when nothing is left", || {
        bench.server.instances().iter().all(|instance| instance["state"] == "paused")
    });
    let woken = bench.task("", "");
    bench.until(&woken, "Succeeded");
}

#[test]
fn one_id_is_one_task_for_a_hundred_callers_and_over_a_crash() {
    let mut bench = Bench::start("");
    let gateway = bench.server.gateway;
    let callers: Vec<_> = (0..100)
        .map(|n| {
            let headers = if n % 2 == 0 { "x-fc-async-task-id: one\r\n" } else { "idempotency-key: two\r\n" };
            apart(move || {
                let answer = submit(gateway, headers, "answer once");
                assert_eq!(answer.status(), 202, "{answer:?}");
                answer.header("x-fc-async-task-id").unwrap().to_owned()
            })
        })
        .collect();
    let ids: Vec<String> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    let mut different: Vec<&String> = ids.iter().collect();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 2, "{different:?}");
    for id in &different {
        bench.until(id, "Succeeded");
    }
    bench.server.crash();
    bench.server.start_again();
    let again = bench.submit("x-fc-async-task-id: one\r\n", "answer once");
    assert_eq!((again.status(), again.header("x-fc-async-task-id")), (202, Some("one")));
    let first = bench.show("one")["requestId"].as_str().unwrap().to_owned();
    assert_eq!(again.header("x-fc-request-id"), Some(first.as_str()), "the request that brought it");
    let other = bench.submit("x-fc-async-task-id: one\r\n", "answer twice");
    assert_eq!((other.status(), other.code().as_str()), (409, "KW-5002"));
    let other = bench.submit("idempotency-key: two\r\n", "answer twice");
    assert_eq!(other.code(), "KW-5002");
    let fresh = bench.task("", "");
    bench.until(&fresh, "Succeeded");
    for id in different {
        assert_eq!(bench.runs(id), 1, "{id}");
    }
}

#[test]
fn errors_are_retried_as_often_as_allowed_and_as_late_as_asked() {
    let bench = Bench::start("");
    let healed = bench.task("", "fail-until 2\nanswer well");
    let task = bench.until(&healed, "Succeeded");
    assert_eq!((&task["alreadyRetriedTimes"], &task["crashes"], bench.runs(&healed)), (&json!(2), &json!(0), 3));
    assert_eq!(steps(&task).iter().filter(|step| *step == "Retrying").count(), 2);
    let failed = bench.task("x-kip-task-retries: 1\r\n", "fail 500");
    let task = bench.until(&failed, "Failed");
    assert_eq!((&task["alreadyRetriedTimes"], bench.runs(&failed)), (&json!(1), 2), "{task}");
    assert_eq!((&task["errorKind"], &task["statusCode"]), (&json!("UnhandledInvocationError"), &json!(500)));
    let none = bench.task("x-kip-task-retries: 0\r\n", "fail 404");
    bench.until(&none, "Failed");
    assert_eq!(bench.runs(&none), 1);
    let later = bench.task("", "later 3600");
    let task = bench.until(&later, "Retrying");
    let (run_at, started) = (task["runAt"].as_i64().unwrap(), task["startedTime"].as_i64().unwrap());
    assert!(run_at - started >= 3_600_000, "{task}");
    // Waiting for its next run it holds no place: others go on.
    let next = bench.task("", "");
    bench.until(&next, "Succeeded");
    assert_eq!(bench.server.ask(&["tasks", "retry", "f", &failed])["status"], "Enqueued");
    bench.until(&failed, "Failed");
    assert_eq!(bench.runs(&failed), 4, "once more with all its retries");
    bench.server.kip(&["tasks", "retry", "f", &healed]).failed(&["KW-5007"]);
}

#[test]
fn one_that_takes_its_instance_down_ends_at_the_cap_and_others_do_not_suffer() {
    let bench = Bench::start("instances: {max: 2}");
    let out = bench.server.folder().join("words");
    bench.configure(&json!({"destinationConfig": {"onFailure": {"destination": format!("file:{}", out.display())}}}));
    let poison = bench.task("x-fc-async-task-id: poison\r\n", "die");
    let well: Vec<String> = (0..10).map(|_| bench.task("", "sleep 20")).collect();
    let task = bench.until(&poison, "Failed");
    assert_eq!((bench.runs("poison"), &task["crashes"], &task["errors"]), (3, &json!(3), &json!(0)), "{task}");
    assert_eq!(task["errorKind"], "InstanceCrashed");
    for id in well {
        bench.until(&id, "Succeeded");
        assert_eq!(bench.runs(&id), 1);
    }
    let word = until("the word is there", || fs::read_to_string(out.join("f-poison.json")).ok());
    let word: Value = serde_json::from_str(&word).unwrap();
    assert_eq!(word["requestContext"]["condition"], "RetriesExhausted", "{word}");
    assert_eq!((&word["requestContext"]["taskId"], &word["requestPayload"]), (&json!("poison"), &json!("die")));
}

#[test]
fn stop_ends_a_task_in_every_state() {
    let mut bench = Bench::start("instances: {max: 1}\ntimeouts: {grace: 1s}");
    let delayed = bench.task("x-kip-task-delay: 1h\r\n", "");
    assert_eq!(bench.stop(&delayed), "Stopped");
    let running = bench.task("", "hang");
    let process = bench.until_begun(&running);
    let queued = bench.task("", "");
    assert_eq!(bench.stop(&queued), "Stopped");
    assert_eq!(bench.stop(&running), "Stopping");
    let task = bench.until(&running, "Stopped");
    assert_eq!(steps(&task), ["Enqueued", "Dequeued", "Running", "Stopping", "Stopped"]);
    until_true("its instance has ended", || !is_alive(process));
    assert_eq!(bench.stop(&running), "Stopped", "once is enough");
    let retrying = bench.task("", "later 3600");
    bench.until(&retrying, "Retrying");
    assert_eq!(bench.stop(&retrying), "Stopped");
    let over = bench.task("", "");
    bench.until(&over, "Succeeded");
    assert_eq!(bench.stop(&over), "Succeeded", "what is over stays as it is");
    assert_eq!((bench.runs(&delayed), bench.runs(&queued)), (0, 0));
    // The word to stop is on the disk before anything else: a server that dies at that moment does not run it again.
    let last = bench.task("", "hang");
    bench.until_begun(&last);
    bench.stop(&last);
    bench.server.crash();
    bench.server.start_again();
    bench.until(&last, "Stopped");
    assert_eq!(bench.runs(&last), 1);
}

/// The word to stop may come between a claim that is on the disk and the run that it is for.
#[test]
fn a_stop_that_meets_a_claim_is_not_lost() {
    let bench = Bench::start("instances: {max: 4}\ntimeouts: {grace: 1s}");
    for _ in 0..25 {
        let id = bench.task("", "hang");
        bench.stop(&id);
        bench.until(&id, "Stopped");
    }
}

#[test]
fn a_task_that_finds_no_room_expires_and_is_not_run_later() {
    let bench = Bench::start("instances: {max: 1}");
    let out = bench.server.folder().join("words");
    bench.configure(&json!({"destinationConfig": {"onFailure": {"destination": format!("file:{}", out.display())}}}));
    let gate = bench.server.folder().join("gate");
    let holds = bench.task("", &format!("wait {}", gate.display()));
    bench.until_begun(&holds);
    let late = bench.task("x-fc-async-task-id: late\r\nx-kip-task-max-age: 300ms\r\n", "");
    let task = bench.until(&late, "Expired");
    assert_eq!(task["errorKind"], "EventAgeExceeded");
    fs::write(&gate, "").unwrap();
    bench.until(&holds, "Succeeded");
    let next = bench.task("", "");
    bench.until(&next, "Succeeded");
    assert_eq!(bench.runs("late"), 0);
    let word = until("the word is there", || fs::read_to_string(out.join("f-late.json")).ok());
    assert!(word.contains("EventAgeExceeded"), "{word}");
}

#[test]
fn requests_go_before_tasks_and_tasks_of_one_order_one_after_another() {
    let bench = Bench::start("instances: {max: 1}");
    let ids: Vec<String> = (0..20).map(|_| bench.task("", "sleep 50")).collect();
    until_true("they run", || !noted(&bench.ledger).is_empty());
    let answer = bench.server.get("/pid");
    assert_eq!(answer.status(), 200);
    let ended = noted(&bench.ledger).iter().filter(|line| line.what == "end").count();
    assert!(ended < 15, "{ended} tasks were run before a request");
    ids.iter().for_each(|id| drop(bench.until(id, "Succeeded")));
    bench.server.deploy(&manifest(&[bench.function("f", "instances: {max: 4}")]));
    fs::remove_file(&bench.ledger).unwrap();
    let ordered: Vec<String> = (0..6).map(|_| bench.task("x-kip-task-order: k\r\n", "sleep 20")).collect();
    ordered.iter().for_each(|id| drop(bench.until(id, "Succeeded")));
    let lines = noted(&bench.ledger);
    let order: Vec<(&str, &str)> = lines.iter().map(|line| (line.what.as_str(), line.id.as_str())).collect();
    let expected: Vec<(&str, &str)> =
        ordered.iter().flat_map(|id| [("begin", id.as_str()), ("end", id.as_str())]).collect();
    assert_eq!(order, expected);
}

#[test]
fn progress_is_taken_from_the_present_run_only() {
    let bench = Bench::start("");
    let gate = bench.server.folder().join("gate");
    let id = bench.task("", &format!("progress 40 %\nwait {}", gate.display()));
    let task = until("progress is shown", || {
        let task = bench.show(&id);
        task["progress"].is_string().then_some(task)
    });
    assert_eq!((&task["progress"], &task["status"]), (&json!("40 %"), &json!("Running")));
    // Who knows the task but not its address may not speak for it.
    let forged = call(bench.server.api, "POST", &format!("/api/v1/progress/{}/1/00", task["number"]), "", b"100 %");
    assert_eq!(refused(&forged), "KW-5001");
    fs::write(&gate, "").unwrap();
    bench.until(&id, "Succeeded");
    let lines = noted(&bench.ledger);
    assert!(lines.iter().any(|line| line.what == "progress-204"), "{lines:?}");
}

#[test]
fn events_go_on_where_a_reader_left() {
    let bench = Bench::start("");
    let gate = bench.server.folder().join("gate");
    let id = bench.task("", &format!("wait {}\nanswer x", gate.display()));
    bench.until_begun(&id);
    let read = |last: &str| {
        let mut caller = Caller::connect(bench.server.api);
        let headers = format!(
            "authorization: Bearer {}\r\naccept: text/event-stream\r\n{last}connection: close\r\n",
            bench.server.key
        );
        caller.send("GET", &format!("/api/v1/functions/f/tasks/{id}/events"), &headers);
        caller
    };
    let mut first = read("");
    let head = first.head();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let mut seen = String::new();
    while !seen.contains("event: Running") {
        seen.push_str(&String::from_utf8(first.piece().expect("more")).unwrap());
    }
    assert!(seen.contains("id: 1\nevent: Enqueued\n"), "{seen}");
    drop(first);
    fs::write(&gate, "").unwrap();
    let rest = read("last-event-id: 3\r\n").answer("GET").text();
    assert!(rest.starts_with("id: 4\nevent: Succeeded\n"), "{rest}");
    let poll = bench.server.api_get(&format!("/api/v1/functions/f/tasks/{id}/events?after=2&wait=5")).json();
    assert_eq!((poll[0]["status"].as_str(), poll[1]["status"].as_str()), (Some("Running"), Some("Succeeded")));
    let shown = bench.server.api_get(&format!("/api/v1/functions/f/tasks/{id}?wait=30&includePayload=true")).json();
    assert!(shown["taskPayload"].as_str().unwrap().starts_with("wait "), "{shown}");
}

#[test]
fn a_function_is_told_and_one_that_is_gone_makes_its_tasks_invalid() {
    let bench = Bench::start("");
    bench.server.deploy(&manifest(&[bench.function("f", ""), bench.function("g", "")]));
    bench.configure(&json!({"asyncTask": true, "destinationConfig": {"onSuccess": {"destination": "function:g"}}}));
    let id = bench.task("x-fc-async-task-id: chained\r\n", "answer 42");
    let task = until("the word was taken", || {
        let task = bench.show(&id);
        task["destinationStatus"].is_string().then_some(task)
    });
    assert_eq!((&task["status"], &task["kind"]), (&json!("Succeeded"), &json!("task")));
    let told = bench.server.ask(&["tasks", "ls", "g"]);
    let told = told["tasks"][0]["taskId"].as_str().unwrap();
    let word = bench.server.api_get(&format!("/api/v1/functions/g/tasks/{told}/payload")).json();
    assert_eq!((&word["responsePayload"], &word["requestContext"]["condition"]), (&json!("42"), &json!("Success")));
    let waits = bench.task("x-kip-task-delay: 1h\r\n", "");
    bench.server.kip(&["rm", "f"]).ok();
    let task = bench.until(&waits, "Invalid");
    assert_eq!(task["errorKind"], "FunctionNotFound");
    assert_eq!(bench.submit("", "").status(), 404);
}

#[test]
fn a_restart_in_order_costs_a_task_nothing() {
    let mut bench = Bench::start("instances: {max: 1}");
    let running = bench.task("", "sleep 1000");
    bench.until_begun(&running);
    let waits = bench.task("", "");
    bench.server.terminate();
    bench.server.start_again();
    // One that outlasts the server's patience is run again.
    let gate = bench.server.folder().join("gate");
    let long = bench.task("", &format!("wait {}", gate.display()));
    bench.until_begun(&long);
    bench.server.terminate();
    fs::write(&gate, "").unwrap();
    bench.server.start_again();
    for id in [&running, &waits, &long] {
        let task = bench.until(id, "Succeeded");
        assert_eq!((&task["crashes"], &task["errors"]), (&json!(0), &json!(0)), "{task}");
    }
}

#[test]
fn a_large_result_is_kept_and_shown_in_part() {
    let bench = Bench::with("[tasks]\nresult = \"2MiB\"", "");
    let whole = bench.task("", "large 1500000");
    let task = bench.until(&whole, "Succeeded");
    assert_eq!(task["returnPayload"].as_str().unwrap().len(), 1 << 20);
    let result = bench.server.api_get(&format!("/api/v1/functions/f/tasks/{whole}/result"));
    assert_eq!((result.body.len(), result.header("x-kip-task-result-cut")), (1_500_000, None));
    let cut = bench.task("", "large 3000000");
    bench.until(&cut, "Succeeded");
    let result = bench.server.api_get(&format!("/api/v1/functions/f/tasks/{cut}/result"));
    assert_eq!((result.body.len(), result.header("x-kip-task-result-cut")), (2 << 20, Some("1")));
    assert_eq!((&bench.show(&cut)["resultCut"], &bench.show(&whole)["resultCut"]), (&json!(true), &Value::Null));
    let printed = bench.server.kip(&["tasks", "result", "f", &cut]).ok();
    assert!(printed.stderr.contains("tasks.result"), "{}", printed.stderr);
}

#[test]
fn results_beyond_the_quota_of_a_function_are_not_kept() {
    let mut bench = Bench::with("[tasks]\nfunction_results = \"250KiB\"", "");
    let result = |bench: &Bench, id: &str| {
        let answer = bench.server.api_get(&format!("/api/v1/functions/f/tasks/{id}/result"));
        (answer.body.len(), answer.header("x-kip-task-result-cut").map(str::to_owned))
    };
    // In the database and in a file.
    for length in [30_000, 200_000] {
        let kept = bench.task("", &format!("large {length}"));
        bench.until(&kept, "Succeeded");
        assert_eq!(result(&bench, &kept), (length, None));
    }
    let beyond = bench.task("", "large 30000");
    assert_eq!(bench.until(&beyond, "Succeeded")["resultCut"], true);
    assert_eq!(result(&bench, &beyond), (0, Some("1".to_owned())));
    assert!(bench.server.log().contains("tasks.function_results"), "{}", bench.server.log());
    // They are counted again at a start.
    bench.server.terminate();
    bench.server.start_again();
    let after = bench.task("", "large 30000");
    bench.until(&after, "Succeeded");
    assert_eq!(result(&bench, &after).0, 0);
    let small = bench.task("", "large 5000");
    bench.until(&small, "Succeeded");
    assert_eq!(result(&bench, &small), (5_000, None));
}

#[test]
fn a_run_that_takes_too_long_ends_its_instance_before_another_has_its_place() {
    for stateful in [false, true] {
        let bench = Bench::start("instances: {max: 1}");
        bench.configure(&json!({"asyncTask": stateful, "maxAsyncRetryAttempts": 0, "timeoutInSeconds": 1}));
        let long = bench.task("", "hang");
        let process = bench.until_begun(&long);
        let next = bench.task("", "");
        assert_eq!(bench.until(&long, "Failed")["errorKind"], "FunctionTimeout");
        bench.until(&next, "Succeeded");
        assert_ne!(bench.until_begun(&next), process, "the next one has an instance of its own");
        until_true("the program that hangs has ended", || !is_alive(process));
    }
}

#[test]
fn a_task_of_a_function_that_does_not_start_says_so() {
    let bench = Bench::start("");
    bench.server.deploy(&manifest(&["  broken:\n    run: [\"false\"]\n".to_owned()]));
    let headers = format!("authorization: Bearer {}\r\nx-kip-task-max-age: 20s\r\n", bench.server.key);
    let other = call(bench.server.api, "POST", "/api/v1/functions/broken/tasks", &headers, b"");
    assert_eq!(other.status(), 202, "{other:?}");
    let id = other.json()["taskId"].as_str().unwrap().to_owned();
    let show = || bench.server.api_get(&format!("/api/v1/functions/broken/tasks/{id}")).json();
    until_true("what keeps it waiting is known", || {
        show()["waitsFor"].as_str().is_some_and(|why| why.starts_with("it does not start: "))
    });
    let expired = until("it has expired", || Some(show()).filter(|task| task["status"] == "Expired"));
    let said = expired["taskErrorMessage"].as_str().unwrap_or_default();
    assert!(said.contains("it does not start: "), "{said}");
}

/// A program that serves one connection after the other is never left with one that is idle, whoever has it: the threads of the
/// gateway, a thread of tasks, or the process that holds a stateful run.
#[test]
fn a_program_that_serves_one_connection_at_a_time_is_never_stuck() {
    let bench = Bench::start("");
    let settings = format!("env: {{LEDGER: {}}}\ninstances: {{max: 1}}", bench.ledger.display());
    bench.server.deploy(&manifest(&[function("f", &["--one-connection"], &settings)]));
    let mut callers: Vec<Caller> = (0..4).map(|_| bench.server.connect()).collect();
    for stateful in [false, true, false] {
        for caller in &mut callers {
            caller.send("GET", "/f/f/pid", "");
            assert_eq!(caller.answer("GET").status(), 200);
        }
        bench.configure(&json!({"asyncTask": stateful}));
        let task = bench.task("", "answer done");
        bench.until(&task, "Succeeded");
    }
}

/// Lines by task, for those that check many.
pub(crate) fn by_task(lines: &[LedgerLine]) -> BTreeMap<&str, Vec<&LedgerLine>> {
    let mut all: BTreeMap<&str, Vec<&LedgerLine>> = BTreeMap::new();
    for line in lines {
        all.entry(line.id.as_str()).or_default().push(line);
    }
    all
}
