//! What callers choose (task ids, idempotency keys, ordering keys) belongs to their tenant, and so do their tasks.

use serde_json::json;

use crate::http::Answer;
use crate::support::{Server, call, function, manifest, until};
use crate::tasks::Bench;

/// The code of a problem, as the API and the gateway have it in the body.
fn code_of(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

struct Tenant {
    secret: String,
}

impl Tenant {
    fn new(server: &Server, name: &str, role: &str) -> Self {
        let arguments = ["key", "create", &format!("{name}-{role}"), "--tenant", name, "--role", role];
        Self { secret: server.kip(&arguments).ok().stdout.trim_end().to_owned() }
    }

    fn bearer(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.secret)
    }

    /// Submits work through the gateway.
    fn submit(&self, bench: &Bench, headers: &str, script: &str) -> Answer {
        bench.submit(&format!("{}{headers}", self.bearer()), script)
    }

    /// Submits work that must be taken, and gives its id.
    fn task(&self, bench: &Bench, headers: &str, script: &str) -> String {
        let answer = self.submit(bench, headers, script);
        assert_eq!(answer.status(), 202, "{answer:?}");
        answer.header("x-fc-async-task-id").unwrap().to_owned()
    }

    fn api(&self, bench: &Bench, method: &str, path: &str, body: &str) -> Answer {
        let headers = format!("{}content-type: application/json\r\n", self.bearer());
        call(bench.server.api, method, &format!("/api/v1{path}"), &headers, body.as_bytes())
    }

    fn of_task(&self, bench: &Bench, method: &str, id: &str, what: &str) -> Answer {
        self.api(bench, method, &format!("/functions/f/tasks/{id}{what}"), "")
    }

    /// What its task answered, once it is over.
    fn result(&self, bench: &Bench, id: &str) -> String {
        until(&format!("task {id} is over"), || {
            let answer = self.of_task(bench, "GET", id, "/result");
            (answer.status() == 200).then(|| answer.text())
        })
    }
}

#[test]
fn tenants_never_share_a_task() {
    let bench = Bench::start("instances: {max: 2}");
    let (alpha, beta) = (Tenant::new(&bench.server, "alpha", "invoke"), Tenant::new(&bench.server, "beta", "invoke"));
    // The same key and id, the same function, bodies that differ or do not.
    for (headers, bodies) in [
        ("idempotency-key: daily\r\n", ["answer same", "answer same"]),
        ("idempotency-key: weekly\r\n", ["answer a", "answer b"]),
        ("x-fc-async-task-id: report\r\n", ["answer a", "answer b"]),
    ] {
        let [ours, theirs] = [(&alpha, bodies[0]), (&beta, bodies[1])].map(|(of, body)| of.task(&bench, headers, body));
        let expected = bodies.map(|body| body.trim_start_matches("answer ").to_owned());
        assert_eq!([alpha.result(&bench, &ours), beta.result(&bench, &theirs)], expected, "{headers}");
        let again = alpha.submit(&bench, headers, bodies[0]);
        assert_eq!((again.status(), again.header("x-fc-async-task-id")), (202, Some(ours.as_str())));
        let nameless = bench.submit(headers, bodies[0]);
        assert_eq!(nameless.status(), 202, "callers without a key are a tenant of their own: {nameless:?}");
        if !headers.contains("task-id") {
            assert_ne!(nameless.header("x-fc-async-task-id"), Some(ours.as_str()));
        }
        let conflict = alpha.submit(&bench, headers, "answer another");
        assert_eq!((conflict.status(), conflict.code().as_str()), (409, "KW-5002"));
    }
    // What the function sees is part of the request.
    alpha.task(&bench, "idempotency-key: user\r\nx-user: one\r\n", "answer x");
    alpha.task(&bench, "idempotency-key: user\r\nx-user: one\r\ntraceparent: 00-1-2-01\r\n", "answer x");
    let other = alpha.submit(&bench, "idempotency-key: user\r\nx-user: two\r\n", "answer x");
    assert_eq!((other.status(), other.code().as_str()), (409, "KW-5002"), "{other:?}");

    // Over the API too, which takes events.
    let event = |of: &Tenant| {
        let headers = format!("{}idempotency-key: event\r\n", of.bearer());
        let answer = call(bench.server.api, "POST", "/api/v1/functions/f/tasks", &headers, b"answer e");
        assert_eq!(answer.status(), 202, "{answer:?}");
        answer.json()["taskId"].as_str().unwrap().to_owned()
    };
    let (ours, theirs) = (event(&alpha), event(&beta));
    assert_ne!(ours, theirs);
    assert_eq!(event(&alpha), ours);

    // A foreign id is as unknown as a free one, chosen or generated.
    let mine = alpha.task(&bench, "x-fc-async-task-id: mine\r\n", "answer m");
    alpha.result(&bench, &mine);
    for (method, id, what) in [
        ("GET", "mine", ""),
        ("GET", "mine", "/result"),
        ("GET", "mine", "/events?wait=0"),
        ("GET", ours.as_str(), ""),
        ("GET", ours.as_str(), "/result"),
        ("GET", "mine", "?tenant=alpha"),
    ] {
        let (foreign, free) = (beta.of_task(&bench, method, id, what), beta.of_task(&bench, method, "free", what));
        assert_eq!((foreign.status(), code_of(&foreign).as_str()), (404, "KW-5001"), "{method} {id}{what}");
        assert_eq!(foreign.text(), free.text().replace("free", id), "{method} {id}{what}");
    }
    assert_eq!(beta.task(&bench, "x-fc-async-task-id: mine\r\n", "answer m"), "mine");
}

#[test]
fn operators_of_a_tenant_see_its_tasks_and_those_of_the_server_see_all() {
    let bench = Bench::start("instances: {max: 1}");
    let [alpha, beta] = ["alpha", "beta"].map(|name| Tenant::new(&bench.server, name, "operate"));
    for of in [&alpha, &beta] {
        of.task(&bench, "x-fc-async-task-id: same\r\nx-kip-task-delay: 1h\r\n", "answer later");
    }
    let waits = alpha.task(&bench, "x-fc-async-task-id: waits\r\nx-kip-task-delay: 1h\r\n", "answer later");
    let tenants = |answer: Answer| -> Vec<String> {
        let list = answer.json();
        let tasks = list["tasks"].as_array().unwrap_or_else(|| panic!("a list: {list}"));
        tasks.iter().map(|task| task["tenant"].as_str().unwrap().to_owned()).collect()
    };
    for path in ["/tasks", "/functions/f/tasks"] {
        assert_eq!(tenants(beta.api(&bench, "GET", path, "")), ["beta"], "{path}");
        assert_eq!(tenants(beta.api(&bench, "GET", &format!("{path}?tenant=alpha"), "")), [] as [&str; 0]);
        assert_eq!(tenants(bench.api("GET", &format!("/api/v1{path}"), "")).len(), 3);
    }
    for (method, what) in [("PUT", "/stop"), ("POST", "/retry"), ("DELETE", ""), ("GET", "/payload"), ("GET", "")] {
        let answer = beta.of_task(&bench, method, &waits, what);
        assert_eq!((answer.status(), code_of(&answer).as_str()), (404, "KW-5001"), "{method} {what}");
    }
    let bulk = beta.api(&bench, "POST", "/tasks/stop", "{}");
    assert_eq!(bulk.json(), json!({"matched": 1, "changed": 1}), "only its own");
    assert_eq!(alpha.of_task(&bench, "GET", "same", "").json()["status"], "Enqueued");

    // Whoever sees all has to say whose task is meant, where several have the same id.
    let answer = bench.api("GET", "/api/v1/functions/f/tasks/same", "");
    assert_eq!((answer.status(), code_of(&answer).as_str()), (409, "KW-5010"), "{answer:?}");
    assert!(answer.text().contains("alpha, beta"), "{answer:?}");
    let named = bench.api("GET", "/api/v1/functions/f/tasks/same?tenant=alpha", "");
    assert_eq!(named.json()["status"], "Enqueued", "{named:?}");
    bench.server.kip(&["task", "show", "f", "same"]).failed(&["KW-5010", "--tenant"]);
    let shown = bench.server.ask(&["task", "show", "f", "same", "--tenant", "beta"]);
    assert_eq!(shown["status"], "Stopped", "{shown}");
    assert_eq!(bench.server.ask(&["task", "show", "f", "waits"])["tenant"], "alpha", "one of this id needs no name");
}

#[test]
fn ordering_keys_belong_to_tenants() {
    let bench = Bench::start("instances: {max: 2}");
    let [alpha, beta] = ["alpha", "beta"].map(|name| Tenant::new(&bench.server, name, "invoke"));
    let gate = bench.server.folder().join("gate");
    let first = alpha.task(&bench, "x-kip-task-order: k\r\n", &format!("wait {}", gate.display()));
    bench.until_begun(&first);
    let other = beta.task(&bench, "x-kip-task-order: k\r\n", "answer free");
    assert_eq!(beta.result(&bench, &other), "free", "the key of one tenant holds up no other");
    let behind = alpha.task(&bench, "x-kip-task-order: k\r\n", "answer behind");
    assert_eq!(bench.show(&behind)["waitsFor"], "another task with its ordering key goes first");
    std::fs::write(gate, "").unwrap();
    assert_eq!(alpha.result(&bench, &behind), "behind");
}

#[test]
fn runs_of_schedules_are_the_systems() {
    let server = Server::start();
    server.deploy("api: kip/v1\njobs:\n  tick: {run: 'true', schedule: {cron: '* * * * * *', overlap: allow}}\n");
    let run = until("a run is over", || {
        let list = server.ask(&["task", "ls", "tick"]);
        list["tasks"].as_array().unwrap().iter().find(|task| task["status"] == "Succeeded").cloned()
    });
    assert_eq!((&run["tenant"], &run["kind"]), (&json!("@system"), &json!("job")), "{run}");
    let refused = server.kip(&["key", "create", "x", "--tenant", "@system"]);
    refused.failed(&["KW-7017", "`@system` cannot be a tenant"]);
    // Nobody can take a coming run's id in its place.
    server.kip(&["job", "pause", "tick"]).ok();
}

#[test]
fn payloads_that_wait_are_bounded_for_each_tenant_and_in_all() {
    let settings = "[tasks]\npayload = \"2MiB\"\ntenant_bytes = \"3100KiB\"\nanonymous_bytes = \"20KiB\"\nwaiting_bytes = \"4200KiB\"";
    let bench = Bench::with(settings, "instances: {max: 1}");
    let [alpha, beta] = ["alpha", "beta"].map(|name| Tenant::new(&bench.server, name, "operate"));
    let large = |of: &Tenant, mebibytes: usize, id: &str| {
        let headers = format!("x-fc-async-task-id: {id}\r\nx-kip-task-delay: 1h\r\n");
        of.submit(&bench, &headers, &"x".repeat(mebibytes << 20))
    };
    assert_eq!(large(&alpha, 2, "a").status(), 202);
    let full = large(&alpha, 2, "b");
    assert_eq!((full.status(), full.code().as_str()), (429, "KW-5003"), "{full:?}");
    assert!(full.header("retry-after").is_some() && full.text().contains("tasks.tenant_bytes"), "{full:?}");
    assert!(full.text().contains("for tenant `alpha`") && full.text().contains("2 MiB"), "{full:?}");
    assert_eq!(large(&alpha, 1, "b").status(), 202);
    assert_eq!(large(&beta, 1, "b").status(), 202);
    let full = large(&beta, 1, "c");
    assert_eq!((full.status(), full.text().contains("tasks.waiting_bytes")), (429, true), "{full:?}");
    // Callers without a key have less, and headers count.
    let anonymous = |id: &str, headers: &str, body: &str| {
        let headers =
            format!("x-fc-invocation-type: Async\r\nx-fc-async-task-id: {id}\r\nx-kip-task-delay: 1h\r\n{headers}");
        call(bench.server.gateway, "POST", "/f/f/echo", &headers, body.as_bytes())
    };
    assert_eq!(anonymous("k", "", &"x".repeat(8 << 10)).status(), 202);
    let padding = format!("x-padding: {}\r\n", "y".repeat(12 << 10));
    let full = anonymous("l", &padding, "");
    assert_eq!((full.status(), full.text().contains("tasks.anonymous_bytes")), (429, true), "{full:?}");
    // What is over makes room, also over a restart.
    let mut bench = bench;
    bench.server.crash();
    bench.server.start_again();
    let again = |of: &Tenant, id: &str| {
        let headers = format!("x-fc-async-task-id: {id}\r\nx-kip-task-delay: 1h\r\n");
        of.submit(&bench, &headers, &"x".repeat(1 << 20)).status()
    };
    assert_eq!(again(&beta, "c"), 429, "what waits is counted by the next server too");
    assert_eq!(alpha.of_task(&bench, "PUT", "a", "/stop").status(), 200);
    assert_eq!(again(&beta, "c"), 202);
}

#[test]
fn a_payload_has_16_mebibytes_and_a_refusal_names_its_size() {
    let bench = Bench::start("instances: {max: 1}");
    let page = "x".repeat(200_000);
    let id = bench.task("", &format!("answer {page}"));
    bench.until(&id, "Succeeded");
    let result = bench.server.api_get(&format!("/api/v1/functions/f/tasks/{id}/result"));
    assert_eq!(result.text(), page);
    let headers = format!("authorization: Bearer {}\r\n", bench.server.key);
    for (path, address) in [("/f/f/task", bench.server.gateway), ("/api/v1/functions/f/tasks", bench.server.api)] {
        let headers = format!("{headers}x-fc-invocation-type: Async\r\n");
        let taken = call(address, "POST", path, &headers, &vec![b'y'; 12 << 20]);
        assert_eq!(taken.status(), 202, "{path}: {taken:?}");
        let answer = call(address, "POST", path, &headers, &vec![b'x'; 20_000_000]);
        assert_eq!((answer.status(), code_of(&answer).as_str()), (413, "KW-5004"), "{path}: {answer:?}");
        assert!(answer.text().contains("20000000 bytes") && answer.text().contains("16777216"), "{path}: {answer:?}");
    }
}

/// A function with a key, and one without: neither door mixes tenants.
#[test]
fn a_function_with_keys_keeps_tenants_apart() {
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], "trigger: {http: {auth: key}}")]));
    let submit = |secret: &str| {
        let headers =
            format!("authorization: Bearer {secret}\r\nx-fc-invocation-type: Async\r\nidempotency-key: k\r\n");
        let answer = call(server.gateway, "POST", "/f/f/task", &headers, b"answer x");
        answer.header("x-fc-async-task-id").unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    let [alpha, beta] = ["alpha", "beta"].map(|name| Tenant::new(&server, name, "invoke"));
    let own = submit(&server.key);
    assert_eq!(submit(&server.key), own);
    assert_ne!(submit(&alpha.secret), own);
    assert_ne!(submit(&alpha.secret), submit(&beta.secret));
}
