//! One device for several functions: whose turn it is, what a start that nobody waits for costs, what a failed new version leaves.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Server, call, function, manifest, until, until_true, until_within};

/// One device that has room for one of our functions.
const DEVICE: &str = "[[device]]\nname = \"gpu0\"\nmemory = \"24GiB\"\ntype = \"L4\"";
const HALF: &str = "resources: {gpu: {memory: 16GiB}}";

fn get(server: &Server, name: &str) -> u16 {
    call(server.gateway, "GET", &format!("/f/{name}/pid"), "", b"").status()
}

/// The reasons of a function's instances, oldest first, as `from>to: why`.
fn reasons(server: &Server, name: &str) -> Vec<String> {
    let records = server.api_get(&format!("/api/v1/functions/{name}/decisions?limit=1000")).json();
    let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
    let line = |record: &Value| format!("{}>{}: {}", text(record, "from"), text(record, "to"), text(record, "why"));
    records.as_array().expect("a list").iter().rev().map(line).collect()
}

#[test]
fn calls_in_turn_evict_the_idle_one_and_say_for_whom() {
    let server = Server::with(DEVICE);
    server.deploy(&manifest(&[function("f", &[], HALF), function("g", &[], HALF)]));
    for name in ["f", "g", "f", "g"] {
        assert_eq!(get(&server, name), 200, "{name}");
    }
    let (f, g) = (reasons(&server, "f"), reasons(&server, "g"));
    let evicted = "ready>stopping: evicted for `g`, which waits for device memory of gpu0";
    assert!(f.iter().any(|line| line == evicted), "{f:#?}");
    let won = |line: &&String| {
        line.starts_with("requested>starting: it waited ")
            && line.ends_with("for device memory of gpu0, which `f` gave up")
    };
    assert!(g.iter().any(|line| won(&line)), "{g:#?}");
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert!(why.contains("nothing runs: its instance was evicted for `g`") && why.contains(" ago"), "{why}");
    let status = server.api_get("/api/v1/status").json();
    assert_eq!(status["host"]["thrash_in_vain_per_mille"], 0, "{status}");
}

#[test]
fn a_start_that_nobody_waits_for_gives_way() {
    let server = Server::with(DEVICE);
    // It never becomes ready: whoever waits for its start waits for as long as a start may take.
    let never = format!("{HALF}\ntimeouts: {{startup: 10m, queue: 10m}}");
    server.deploy(&manifest(&[function("f", &["--never-listen"], &never), function("g", &[], HALF)]));
    let mut caller = server.connect();
    caller.send("GET", "/f/f/pid", "");
    server.until_state("starting");
    drop(caller);
    until_true("its caller has left", || server.function()["queued"] == 0);
    assert_eq!(get(&server, "g"), 200);
    let f = reasons(&server, "f");
    assert!(f.iter().any(|line| line.starts_with("starting>stopping: evicted for `g`")), "{f:#?}");
}

#[test]
fn a_start_that_somebody_waits_for_stays() {
    let server = Server::with(DEVICE);
    let slow = format!("{HALF}\nprobes: {{ready: /ready}}");
    server.deploy(&manifest(&[function("f", &["--ready-after", "1500"], &slow), function("g", &[], HALF)]));
    let waiting = server.later("GET", "/pid");
    server.until_state("starting");
    assert_eq!(get(&server, "g"), 200);
    assert_eq!(waiting.join().unwrap().status(), 200);
    let f = reasons(&server, "f");
    assert!(f.iter().any(|line| line.starts_with("starting>ready")), "{f:#?}");
}

#[test]
fn why_names_who_holds_the_device() {
    let server = Server::with(DEVICE);
    server.deploy(&manifest(&[function("f", &[], HALF), function("g", &[], HALF)]));
    let working = call_later(&server, "/f/g/delay/3000");
    until_true("g works", || server.instances().iter().any(|line| line["state"] == "busy"));
    let waiting = server.later("GET", "/pid");
    let why = until("f waits for the device", || {
        let text = server.kip(&["why", "f"]).ok().stdout;
        text.contains("for device memory").then_some(text)
    });
    assert!(why.contains("`g` has it"), "{why}");
    assert_eq!(working.join().unwrap(), 200);
    assert_eq!(waiting.join().unwrap().status(), 200);
}

fn call_later(server: &Server, target: &'static str) -> std::thread::JoinHandle<u16> {
    let gateway = server.gateway;
    crate::support::apart(move || call(gateway, "GET", target, "", b"").status())
}

#[test]
fn what_a_failed_version_displaced_comes_back() {
    let server = Server::with(DEVICE);
    let first = server.try_deploy(&manifest(&[function("f", &[], HALF)])).ok();
    assert!(!first.stderr.contains("KW-1024"), "{first:?}");
    assert_eq!(get(&server, "f"), 200);
    let before = server.until_state("ready")["version"].clone();

    let failed = server.try_deploy(&manifest(&[function("f", &["--exit-now", "3"], HALF)]));
    failed.failed(&["KW-1024", "ends before the new one starts", "KW-4003", "r1 had stopped for it and "]);
    let back = until("the version before is there without a request", || {
        server.instances().into_iter().find(|line| line["state"] == "ready")
    });
    assert_eq!(back["version"], before);
    let f = reasons(&server, "f");
    assert!(f.iter().any(|line| line.contains("it stopped for a new version, and that one failed")), "{f:#?}");
    assert_eq!(get(&server, "f"), 200);

    // Where both fit, the one that serves is not touched.
    let small = "resources: {gpu: {memory: 8GiB}}";
    server.deploy(&manifest(&[function("f", &[], small)]));
    let failed = server.try_deploy(&manifest(&[function("f", &["--exit-now", "3"], small)]));
    failed.failed(&["KW-4003", "goes on serving"]);
    assert!(!failed.stderr.contains("KW-1024"), "{failed:?}");
}

#[test]
fn recreate_ends_the_one_before_first() {
    let server = Server::start();
    let settings = "deploy: {strategy: recreate}";
    server.deploy_subject(&[], settings);
    assert_eq!(get(&server, "f"), 200);
    let again = server.try_deploy(&manifest(&[function("f", &["--ready-after", "200"], settings)])).ok();
    assert!(again.stderr.contains("KW-1024") && again.stdout.contains(" serves "), "{again:?}");
    let decisions = server.decisions();
    let at = |version: u64, to: &str| {
        let fits =
            |record: &Value| record["version"] == version && record["instance"].is_string() && record["to"] == to;
        decisions.iter().position(fits).unwrap_or_else(|| panic!("{version} {to}: {decisions:#?}"))
    };
    assert!(at(1, "gone") < at(2, "requested"), "{decisions:#?}");
    let failed = server.try_deploy(&manifest(&[function("f", &["--exit-now", "3"], settings)]));
    failed.failed(&["KW-4003", "r2 had stopped for it and "]);
    assert_eq!(get(&server, "f"), 200);
}

#[test]
fn a_deployment_says_what_is_true() {
    let server = Server::with(DEVICE);
    let deploy =
        |arguments: &[&str], settings: &str| server.try_deploy(&manifest(&[function("f", arguments, settings)]));
    let first = deploy(&[], "").ok();
    assert!(first.stdout.contains("f r1 is deployed, not started: its first request starts it"), "{first:?}");
    assert!(server.instances().is_empty());

    let kept = deploy(&[], "instances: {min: 1}").ok();
    assert!(kept.stdout.contains("f r2 serves "), "{kept:?}");
    assert_eq!(server.instances().len(), 1, "a minimum is waited for");
    server.kip(&["rm", "f"]).ok();
    server.until_no_instance();

    let broken = deploy(&["--exit-now", "3"], "instances: {min: 1}");
    broken.failed(&["KW-4003", "is deployed, but does not start: 0 of 1 instances are ready", "kip why f"]);
    server.kip(&["rm", "f"]).ok();
    server.until_no_instance();

    // Each failure of a deployment is reported, and what works is waited for.
    let several = manifest(&[
        function("one", &["--exit-now", "3"], ""),
        function("two", &[], ""),
        function("three", &["--exit-now", "4"], ""),
    ]);
    std::fs::write(server.folder().join("kip.yaml"), several).unwrap();
    let failed = server.kip(&["deploy", "--wait"]);
    failed.failed(&["KW-4003", "one r1 is deployed", "three r1 is deployed"]);
    assert!(!failed.stderr.contains("two r1"), "{failed:?}");
    server.kip(&["rm", "one", "two", "three"]).ok();
    server.until_no_instance();

    // Asked for, an instance starts without a request.
    std::fs::write(server.folder().join("kip.yaml"), manifest(&[function("f", &[], "")])).unwrap();
    let waited = server.kip(&["deploy", "--wait"]).ok();
    assert!(waited.stdout.contains(" serves ") && server.instances().len() == 1, "{waited:?}");
    let both = server.kip(&["deploy", "--wait", "--no-wait"]);
    assert_eq!(both.code, Some(2), "{both:?}");
    let json = server.ask(&["deploy", "--no-wait"]);
    assert_eq!(json[0]["state"], "deployed", "{json}");
}

#[test]
fn a_deployment_names_what_will_fail() {
    let server = Server::with(DEVICE);
    let misspelt = server.try_deploy("api: kip/v1\nfunctions:\n  f: {run: uvicron app:app}\n").ok();
    assert!(misspelt.stderr.contains("warning[KW-4001]") && misspelt.stderr.contains("`uvicron`"), "{misspelt:?}");
    assert!(misspelt.stdout.contains("not started"), "{misspelt:?}");
    assert!(misspelt.stderr.contains("requests fail with this error"), "{misspelt:?}");
    // Where a version serves, a wrong one does not make requests fail.
    server.deploy(&manifest(&[function("h", &[], "")]));
    let second = server.try_deploy("api: kip/v1\nfunctions:\n  h: {run: uvicron app:app}\n").ok();
    assert!(second.stderr.contains("the version before serves on if it runs"), "{second:?}");
    for (ask, said) in [
        ("{gpu: {memory: 40GiB}}", "it needs 40GiB of one device, and there are: gpu0 (24GiB)"),
        ("{gpu: {memory: 4GiB, type: H100}}", "there is no device of type H100; there are: gpu0 (24GiB)"),
        ("{gpu: {cards: 2}}", "it needs 2 devices on one host"),
    ] {
        let settings = format!("resources: {ask}");
        let warned = server.try_deploy(&manifest(&[function("g", &[], &settings)])).ok();
        assert!(warned.stderr.contains("warning[KW-3004]") && warned.stderr.contains(said), "{warned:?}");
        let refused = call(server.gateway, "GET", "/f/g/", "", b"");
        assert_eq!((refused.status(), refused.code().as_str()), (503, "KW-3004"), "{refused:?}");
        assert!(refused.said().contains(said), "{refused:?}");
    }
    let gunicorn = server.try_deploy("api: kip/v1\nfunctions:\n  w: {run: 'gunicorn a:app --timeout 5'}\n").ok();
    assert!(gunicorn.stderr.contains("warning[KW-1025]") && gunicorn.stderr.contains("--timeout 0"), "{gunicorn:?}");
}

#[test]
fn named_ports_are_variables_and_differ() {
    let server = Server::start();
    server.deploy_subject(&[], "ports: [metrics, my-rpc]");
    let env = server.get("/env").json();
    let port = |name: &str| env[name].as_str().and_then(|text| text.parse::<u16>().ok());
    let all =
        [port("PORT"), port("PORT_METRICS"), port("PORT_MY_RPC")].map(|port| port.unwrap_or_else(|| panic!("{env}")));
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{all:?}");
}

#[test]
fn an_instance_that_works_without_a_request_is_not_paused() {
    let server = Server::start();
    server.deploy_subject(&["--spin"], "idle: {pause: 200ms}");
    assert_eq!(get(&server, "f"), 200);
    let works = |line: &String| line.starts_with("pausing>ready") && line.contains("idle.cpu");
    until_within(Duration::from_secs(60), "it is seen to work", || {
        reasons(&server, "f").iter().any(works).then_some(())
    });
    let paused = reasons(&server, "f").iter().any(|line| line.starts_with("pausing>paused"));
    assert!(!paused, "{:#?}", reasons(&server, "f"));
}

#[test]
fn an_answer_can_ask_to_keep_its_instance_awake() {
    let server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 200ms, cpu: false}");
    let answer = server.get("/keep-awake");
    assert_eq!(answer.status(), 202, "{answer:?}");
    assert!(answer.header("x-kip-keep-awake").is_none(), "it is not for the caller: {answer:?}");
    let asked = |line: &String| line.starts_with("pausing>ready") && line.contains("x-kip-keep-awake");
    until("it is not paused", || reasons(&server, "f").iter().any(asked).then_some(()));
}

#[test]
fn an_address_in_use_is_named_as_the_cause() {
    let server = Server::start();
    let program = "import sys; print('OSError: [Errno 98] Address already in use', file=sys.stderr); sys.exit(1)";
    let manifest = format!("api: kip/v1\nfunctions:\n  f: {{run: [python3, -c, \"{program}\"]}}\n");
    server.deploy(&manifest);
    let failed = server.get("/");
    assert_eq!(failed.code().as_str(), "KW-4003", "{failed:?}");
    assert!(failed.said().contains("a port that it wants is in use") && failed.said().contains("ports"), "{failed:?}");
}

#[test]
fn refusals_leave_records() {
    let server = Server::start();
    server.deploy_subject(&[], "trigger: {http: {auth: key}}");
    let refused = server.get("/pid?secret=1");
    assert_eq!(refused.status(), 401, "{refused:?}");
    let record = server.until_record("the refusal is recorded", |record| record["status"] == 401);
    assert_eq!((&record["outcome"], &record["path"]), (&"refused".into(), &"/f/f/pid".into()), "{record}");
    let unknown = call(server.gateway, "GET", "/f/nothing/", &format!("authorization: Bearer {}\r\n", server.key), b"");
    assert_eq!(unknown.status(), 404, "{unknown:?}");
    until("the unknown function is recorded", || {
        let records = server.api_get("/api/v1/requests?status=404").json();
        (!records.as_array().expect("a list").is_empty()).then_some(())
    });
}

#[test]
fn why_nothing_starts_names_the_load_since_when_and_what_is_missing() {
    let server = Server::with(DEVICE);
    server.deploy(&manifest(&[
        function("f", &[], &format!("{HALF}\ninstances: {{pin: true}}")),
        function("g", &[], &format!("{HALF}\ntimeouts: {{queue: 60s}}")),
    ]));
    assert_eq!(get(&server, "f"), 200);
    let mut caller = server.connect();
    caller.send("GET", "/f/g/pid", "");
    let why = || server.kip(&["why", "g"]).ok().stdout;
    until_true("it waits for room", || why().contains("missing:"));
    let why = why();
    assert!(why.contains("missing: 16GiB of one device; free: gpu0 8GiB of 24GiB; `f` has it"), "{why}");
    assert!(why.contains("by auto: 1 wanted, 0 there"), "{why}");
    assert!(why.contains("in flight and waiting 1, places 0, not enough for"), "{why}");
    assert!(why.contains("held back: 1 more waits for device memory"), "{why}");
}
