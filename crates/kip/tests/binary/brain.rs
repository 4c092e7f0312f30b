//! What the brain decides, as a user meets it: rotation, watchdog, probes for life, devices, usage, crash loops.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::http::Answer;
use crate::support::{Server, apart, call, function, manifest, until, until_true, until_within};

fn pid(answer: &Answer) -> u32 {
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.text().parse().expect("a process id")
}

/// The ids of the instances that serve.
fn hot(server: &Server) -> Vec<String> {
    let hot = |line: &&Value| line["state"] == "ready" || line["state"] == "busy";
    server.instances().iter().filter(hot).map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

/// A file's path as a manifest writes it.
fn file(server: &Server, name: &str) -> String {
    server.folder().join(name).display().to_string()
}

fn decision(server: &Server, why: &str) -> Value {
    until(&format!("a decision says `{why}`"), || {
        server.decisions().into_iter().find(|one| one["why"].as_str().is_some_and(|text| text.contains(why)))
    })
}

/// Callers that go on until they are stopped; each gives its statuses.
fn load(server: &Server, callers: usize, stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<Vec<u16>>> {
    let caller = |_| {
        let (gateway, stop) = (server.gateway, stop.clone());
        apart(move || {
            let mut statuses = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                statuses.push(call(gateway, "GET", "/f/f/delay/5", "", b"").status());
            }
            statuses
        })
    };
    (0..callers).map(caller).collect()
}

fn all_went_well(callers: Vec<std::thread::JoinHandle<Vec<u16>>>) {
    for caller in callers {
        let statuses = caller.join().unwrap();
        assert!(!statuses.is_empty() && statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
}

#[test]
fn rotation_under_load_fails_no_request() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1, concurrency: 8}\nprobes: {ready: /ready}");
    let stop = Arc::new(AtomicBool::new(false));
    let callers = load(&server, 4, &stop);
    let mut present = until("it serves", || hot(&server).pop());
    for _ in 0..3 {
        let said = server.kip(&["rotate", "f"]).ok();
        assert!(said.stdout.contains("1 instance is being replaced"), "{said:?}");
        let next = until("a successor serves alone", || {
            let hot = hot(&server);
            hot.first().filter(|id| hot.len() == 1 && **id != present && server.instances().len() == 1).cloned()
        });
        present = next;
    }
    stop.store(true, Ordering::SeqCst);
    all_went_well(callers);
    decision(&server, "its successor is ready");
    server.kip(&["rotate", "nobody"]).failed(&["KW-3001"]);
}

#[test]
fn an_instance_past_its_age_is_replaced() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {min: 1, max: 1}\nrotation: {max_age: 1s}\nidle: {pause: never}");
    let mut seen = Vec::new();
    until_true("three have served", || {
        for id in hot(&server) {
            if !seen.contains(&id) {
                seen.push(id);
            }
        }
        assert_eq!(server.get("/").status(), 200);
        seen.len() >= 3
    });
    decision(&server, "past rotation.max_age");
}

#[test]
fn an_instance_past_its_memory_is_replaced() {
    let server = Server::start();
    let settings = "resources: {memory: 256MiB}\nrotation: {max_memory: 64MiB}\nidle: {pause: never}";
    server.deploy_subject(&[], &format!("{settings}\ninstances: {{concurrency: 4}}"));
    let first = pid(&server.get("/pid"));
    // A request that is under way when its memory is measured, so that its record has the figure.
    let mut held = server.connect();
    held.send("GET", "/f/f/stall", "");
    assert_eq!(server.get("/eat/80").status(), 200);
    until_true("another one serves", || pid(&server.get("/pid")) != first);
    decision(&server, "more memory than rotation.max_memory");
    drop(held);
    server.until_record("how much it used", |record| {
        record["peak_memory"].as_u64().is_some_and(|bytes| bytes > 64 << 20)
    });
}

#[test]
fn work_without_a_byte_is_found_though_health_answers() {
    let server = Server::start();
    let hang = file(&server, "hang");
    server.deploy_subject(
        &[],
        &format!(
            "watchdog: {{stall: 1s}}\ninstances: {{max: 1, concurrency: 4}}\nprobes: {{ready: /ready, live: /live}}\n\
             env: {{HANG_FILE: {hang}}}"
        ),
    );
    let first = pid(&server.get("/pid"));
    // It may be sent again, and the successor answers it.
    let answer = server.get("/hang-once");
    assert_ne!(pid(&answer), first);
    let stalled = decision(&server, "past watchdog.stall");
    let gone = until("the end is written down", || {
        server.decisions().into_iter().find(|one| one["instance"] == stalled["instance"] && one["to"] == "gone")
    });
    let detail = gone["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("subject: listens") && detail.contains(&format!("process {first} thread")), "{gone}");
    // This one may not.
    fs::remove_file(&hang).unwrap();
    let second = pid(&server.get("/pid"));
    let answer = server.call("POST", "/hang-once");
    assert_eq!((answer.status(), answer.code().as_str()), (502, "KW-2010"), "{answer:?}");
    assert_ne!(pid(&server.get("/pid")), second);
}

#[test]
fn what_talks_or_waits_for_its_caller_is_not_stuck() {
    let server = Server::start();
    let settings = "watchdog: {stall: 1s}\ninstances: {max: 1, concurrency: 4}";
    server.deploy(&manifest(&[
        function("f", &[], settings),
        function("held", &[], settings),
        function("fed", &[], settings),
    ]));
    // Its caller reads nothing until the other stream, which takes three times `stall`, is over.
    let mut held = server.connect();
    held.send("GET", "/f/held/big/80000000", "connection: close\r\n");
    let mut upload = server.connect();
    upload.write("POST /f/fed/tee HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nfirst");
    let answer = server.get("/stream/10/300");
    assert!(answer.clean && answer.text().ends_with("data: 9\n\n"), "{answer:?}");
    upload.write("last");
    let head = upload.head();
    assert_eq!(head.status, 200);
    let answer = held.answer("GET");
    assert!(answer.clean && answer.body.len() == 80_000_000, "{}", answer.body.len());
    assert_eq!(server.instances().len(), 3);
    assert!(server.decisions().iter().all(|one| !one["why"].as_str().unwrap().contains("stall")));
    for name in ["held", "fed"] {
        let decisions = server.api_get(&format!("/api/v1/functions/{name}/decisions?limit=100")).json();
        assert!(!decisions.to_string().contains("stall"), "{decisions}");
    }
}

#[test]
fn a_ready_probe_that_fails_only_holds_requests_back() {
    let server = Server::start();
    let unready = file(&server, "unready");
    server.deploy_subject(
        &[],
        &format!(
            "probes: {{ready: /ready}}\ninstances: {{max: 1}}\nidle: {{pause: never}}\n\
             env: {{UNREADY_FILE: {unready}}}"
        ),
    );
    let first = pid(&server.get("/pid"));
    fs::write(&unready, "").unwrap();
    until_within(Duration::from_secs(60), "it is not ready", || {
        server.instances().first().filter(|line| line["unready"] == true).cloned()
    });
    assert!(server.kip(&["ps"]).ok().stdout.contains("ready (probe fails)"));
    let waits = server.later("GET", "/pid");
    until_true("it is told", || {
        server.kip(&["why", "f"]).ok().stdout.contains("wait because every hot instance fails its ready probe")
    });
    fs::remove_file(&unready).unwrap();
    assert_eq!(pid(&waits.join().unwrap()), first);
    assert_eq!(server.instances().len(), 1);
}

#[test]
fn a_live_probe_that_fails_replaces() {
    let server = Server::start();
    let dead = file(&server, "dead");
    server.deploy_subject(
        &[],
        &format!(
            "probes: {{live: /live}}\nidle: {{pause: never}}\ninstances: {{min: 1, max: 1}}\nenv: {{DEAD_FILE: {dead}}}"
        ),
    );
    let first = pid(&server.get("/pid"));
    fs::write(&dead, first.to_string()).unwrap();
    until_within(Duration::from_secs(90), "another one serves", || (pid(&server.get("/pid")) != first).then_some(()));
    decision(&server, "the live probe failed");
}

/// Two devices of different size and type.
const DEVICES: &str = "[[device]]\nname = \"gpu0\"\nmemory = \"24GiB\"\ntype = \"L4\"\n\
                       [[device]]\nname = \"gpu1\"\nmemory = \"8GiB\"\ntype = \"T4\"";

fn env_of(server: &Server, name: &str) -> (Value, Value) {
    let answer = call(server.gateway, "GET", &format!("/f/{name}/env"), "", b"");
    assert_eq!(answer.status(), 200, "{answer:?}");
    let env = answer.json();
    (env["CUDA_VISIBLE_DEVICES"].clone(), env["KIPWAKE_DEVICES"].clone())
}

fn granted(server: &Server) -> Vec<u64> {
    let status = server.api_get("/api/v1/status").json();
    let devices = status["host"]["devices"].as_array().expect("a list").clone();
    devices.iter().map(|device| device["granted"].as_u64().unwrap() >> 30).collect()
}

#[test]
fn devices_are_shared_by_slices_and_kept_over_a_restart() {
    let mut server = Server::with(DEVICES);
    server.deploy(&manifest(&[
        function("large", &[], "resources: {gpu: {memory: 14GiB}}"),
        function("small", &[], "resources: {gpu: {memory: 6GiB, type: l4}}"),
        function("other", &[], "resources: {gpu: {memory: 6GiB, type: T4}}"),
        function("none", &[], ""),
        function("never", &[], "resources: {gpu: {cards: 1, type: H100}}"),
    ]));
    let text = |text: &str| Value::from(text);
    assert_eq!(env_of(&server, "large"), (text("0"), text("gpu0")));
    assert_eq!(env_of(&server, "small"), (text("0"), text("gpu0")));
    assert_eq!(env_of(&server, "other"), (text("1"), text("gpu1")));
    assert_eq!(env_of(&server, "none"), (text(""), text("")));
    assert_eq!(granted(&server), [20, 6]);
    let never = call(server.gateway, "GET", "/f/never/", "", b"");
    assert_eq!(never.status(), 503, "{never:?}");
    let shown = server.kip(&["ps"]).ok().stdout;
    assert!(shown.contains("device gpu0: 20 of 24 GiB reserved: large i-1-1-1, small i-1-2-1"), "{shown}");

    let before = server.instances();
    server.crash();
    server.start_again();
    let after = server.instances();
    assert_eq!(after.len(), 4);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before["id"], &before["devices"]), (&after["id"], &after["devices"]));
    }
    assert_eq!(granted(&server), [20, 6]);
}

#[test]
fn a_device_that_is_not_declared_any_more_ends_its_instances() {
    let mut server = Server::with(DEVICES);
    server.deploy_subject(&[], "resources: {gpu: {memory: 6GiB, type: T4}}");
    assert_eq!(env_of(&server, "f").1, "gpu1");
    server.crash();
    let settings = server.data().join("kipwake.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replace("gpu1", "gpu9")).unwrap();
    server.start_again();
    decision(&server, "its device gpu1 is not declared any more");
    assert_eq!(env_of(&server, "f").1, "gpu9");
}

#[test]
fn two_functions_on_one_device_take_turns() {
    let server = Server::with("[[device]]\nname = \"gpu0\"\nmemory = \"8GiB\"");
    let one = "resources: {gpu: {memory: 6GiB}}\ninstances: {concurrency: 4}";
    server.deploy(&manifest(&[function("f", &[], one), function("g", &[], one)]));
    let alternate = |name: &'static str| {
        let gateway = server.gateway;
        apart(move || {
            for _ in 0..150 {
                let answer = call(gateway, "GET", &format!("/f/{name}/delay/2"), "", b"");
                assert_eq!(answer.status(), 200, "{answer:?}");
            }
        })
    };
    let callers = [alternate("f"), alternate("g")];
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let starts = |name: &str| {
        let records = server.api_get(&format!("/api/v1/functions/{name}/decisions?limit=10000")).json();
        records.as_array().unwrap().iter().filter(|one| one["to"] == "starting").count()
    };
    let all = starts("f") + starts("g");
    assert!((2..=30).contains(&all), "{all} starts for 300 requests");
}

#[test]
fn waiting_for_a_device_is_told() {
    let server = Server::with("[[device]]\nname = \"gpu0\"\nmemory = \"8GiB\"");
    let whole = "resources: {gpu: {cards: 1}}";
    server.deploy(&manifest(&[function("f", &[], whole), function("g", &[], whole)]));
    let mut holds = server.connect();
    holds.send("GET", "/f/g/hang", "");
    until_true("the device is taken", || granted(&server) == [8]);
    let waits = server.later("GET", "/pid");
    until_true("it is told", || {
        let why = server.kip(&["why", "f"]).ok().stdout;
        why.contains("wait because an instance waits since") && why.contains("for device memory")
    });
    assert!(server.kip(&["ps"]).ok().stdout.contains("requested (waits for device memory)"));
    let function = server.function();
    assert_eq!(
        (&function["waits"][0]["queued"], &function["waits"][0]["version"]),
        (&Value::from(1), &function["version"])
    );
    holds.leave();
    pid(&waits.join().unwrap());
    let evicted = server.api_get("/api/v1/functions/g/decisions?limit=100").json();
    assert!(evicted.to_string().contains("evicted for `f`, which waits for device memory of gpu0"), "{evicted}");
}

#[test]
fn the_quota_holds_over_all_functions() {
    let server = Server::with("[quota]\ninstances = 1");
    server.deploy(&manifest(&[function("f", &[], ""), function("g", &[], "")]));
    let mut holds = server.connect();
    holds.send("GET", "/f/g/hang", "");
    until_true("the only instance there may be is busy", || {
        server.instances().iter().any(|line| line["function"] == "g" && line["state"] == "busy")
    });
    let waits = server.later("GET", "/pid");
    until_true("it is told", || server.kip(&["why", "f"]).ok().stdout.contains("for quota"));
    assert_eq!(server.api_get("/api/v1/status").json()["host"]["quota"]["instances"], 1);
    holds.leave();
    pid(&waits.join().unwrap());
    assert_eq!(server.instances().len(), 1);
}

#[test]
fn usage_goes_on_over_a_planned_restart() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: never}");
    assert_eq!(server.get("/delay/50").status(), 200);
    server.signal(rustix::process::Signal::TERM);
    server.wait();
    server.start_again();
    assert_eq!(server.get("/delay/50").status(), 200);
    let usage = server.ask(&["usage", "f"]);
    let version = &usage["versions"][0];
    assert_eq!((&version["instances"], &version["living"]), (&Value::from(1), &Value::from(1)), "{usage}");
    assert!(version["times"]["on-demand"]["busy"].as_u64().unwrap() >= 100, "{usage}");
}

#[test]
fn usage_adds_up_to_the_life() {
    let server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 20ms, stop: 400ms}");
    for _ in 0..3 {
        assert_eq!(server.get("/delay/20").status(), 200);
    }
    let living = server.ask(&["usage", "f"]);
    assert_eq!(
        (&living["versions"][0]["instances"], &living["versions"][0]["served"]),
        (&Value::from(1), &Value::from(3))
    );
    server.until_no_instance();
    let usage = server.ask(&["usage", "f"]);
    let version = &usage["versions"][0];
    assert_eq!((&version["living"], &version["instances"]), (&Value::from(0), &Value::from(1)), "{usage}");
    let states = version["times"]["on-demand"].as_object().expect("states");
    let sum: u64 = states.values().map(|time| time.as_u64().unwrap()).sum();
    assert_eq!(version["total_ms"], sum, "{usage}");
    assert!(states["busy"].as_u64().unwrap() >= 60 && states.contains_key("paused"), "{usage}");
    // The decision log has the same span; its clock is read a moment later.
    let decisions = server.decisions();
    let at = |state: &str| decisions.iter().find(|one| one["to"] == state).unwrap()["at"].as_i64().unwrap();
    let life = at("gone") - at("requested");
    assert!((i64::try_from(sum).unwrap() - life).abs() <= 500, "{sum} of {life}");
    let shown = server.kip(&["usage", "f"]).ok().stdout;
    assert!(shown.contains("0 of 1 live, 3 served"), "{shown}");
}

#[test]
fn time_has_its_price() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 20ms, stop: 600ms}\nresources: {cpu: 2, memory: 1GiB}");
    assert_eq!(server.get("/delay/100").status(), 200);
    server.until_no_instance();
    let usage = server.ask(&["usage", "f"]);
    let times = &usage["versions"][0]["times"]["on-demand"];
    let of = |states: &[&str]| states.iter().filter_map(|state| times[state].as_u64()).sum::<u64>();
    let active = of(&["requested", "starting", "initializing", "busy", "waking", "draining", "stopping"]);
    let idle = of(&["ready", "pausing", "paused", "parking", "parked", "spilling", "spilled"]);
    let report = server.ask(&["cost", "f"]);
    let cost = &report["functions"][0];
    assert_eq!((&cost["active_ms"], &cost["idle_ms"]), (&Value::from(active), &Value::from(idle)), "{report}");
    assert!(idle >= 500, "{usage}");
    // Two cores and a GiB while active, the GiB while idle; one request.
    let exact = |millis: u64, rate: f64| f64::from(u32::try_from(millis).unwrap()) / 1_000.0 * rate;
    let units = exact(active, 2.15) + exact(idle, 0.15) + 75.0 / 10_000.0;
    let shown: f64 = cost["units"].as_str().unwrap().parse().unwrap();
    assert!((units - shown).abs() < 0.006, "{units}: {report}");
    let [total, all] = ["total", "total_all_active"].map(|key| report[key].as_str().unwrap().parse::<f64>().unwrap());
    assert!((total - units * 0.000_02).abs() < 1e-6 && all > total, "{report}");
    let text = server.kip(&["cost"]).ok().stdout;
    assert!(text.contains("ALL ACTIVE") && text.contains("USD"), "{text}");

    // A price book of one's own, and one that is none.
    let book = server.kip(&["cost", "book"]).ok().stdout;
    std::fs::write(server.data().join("prices.toml"), book.replace("USD", "EUR")).unwrap();
    std::fs::write(server.data().join("kipwake.toml"), "[cost]\nprices = \"prices.toml\"\n").unwrap();
    server.terminate();
    server.start_again();
    assert_eq!(server.ask(&["cost"])["currency"], "EUR");
    std::fs::write(server.data().join("prices.toml"), "name = 1\n").unwrap();
    server.terminate();
    let refused = crate::support::run(&mut server.serve_command());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["KW-8006", "cost.prices", "kip cost book"] {
        assert!(refused.stdout.contains(part), "{refused:?}");
    }
}

#[test]
fn a_crash_loop_is_named() {
    let server = Server::start();
    server.try_deploy(&manifest(&[function("f", &["--exit-now", "3"], "instances: {min: 1}")]));
    until_true("it is called so", || server.function()["crash_loop"] == server.function()["version"]);
    assert!(server.kip(&["ls"]).ok().stdout.contains("is in a crash loop"));
    assert!(server.kip(&["why", "f"]).ok().stdout.contains("is in a crash loop"));
    until_true("it is in the log", || server.steps().iter().any(|step| step == ">crash loop"));
}

#[test]
fn the_cost_of_days_is_divided_among_keys_and_budgets_warn() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 20ms, stop: 400ms}\nresources: {cpu: 2, memory: 1GiB}");
    let key = server.kip(&["key", "create", "anna", "--role", "invoke"]).ok().stdout.trim_end().to_owned();
    assert_eq!(server.call_with("GET", "/delay/300", &format!("Authorization: Bearer {key}\r\n"), b"").status(), 200);
    assert_eq!(server.get("/delay/100").status(), 200);
    server.until_no_instance();
    let table = |by: &str| server.ask(&["cost", "--by", by, "--last", "7d"]);
    let names = |table: &Value| -> Vec<String> {
        let rows = table["rows"].as_array().unwrap().iter();
        rows.map(|row| row["names"][0].as_str().unwrap().to_owned()).collect()
    };
    let by_key = table("key");
    assert_eq!(names(&by_key), ["-", "anna"], "{by_key}");
    let cost = |row: &Value| row["cost"].as_str().unwrap().parse::<f64>().unwrap();
    let ratio = cost(&by_key["rows"][1]) / cost(&by_key["rows"][0]);
    assert!((1.5..4.5).contains(&ratio), "a request of 300 ms beside one of 100 ms: {by_key}");
    for by in ["function", "version", "state", "day", "day,key"] {
        let other = table(by);
        assert_eq!((&other["total"], &other["currency"]), (&by_key["total"], &by_key["currency"]), "{other}");
    }
    // The time is that of the usage, to the millisecond.
    let usage = server.ask(&["usage", "f"]);
    let rows = &table("state")["rows"];
    let of = |state: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["names"][0] == state).unwrap();
        row["active_ms"].as_u64().unwrap() + row["idle_ms"].as_u64().unwrap()
    };
    let times = &usage["versions"][0]["times"]["on-demand"];
    for state in ["busy", "starting", "paused"] {
        assert_eq!(Some(of(state)), times[state].as_u64(), "{state}: {usage}");
    }
    // It outlives the server.
    server.terminate();
    server.start_again();
    assert_eq!(server.ask(&["cost", "--by", "key"])["total"], by_key["total"]);
    server.kip(&["cost", "--by", "key,state"]).failed(&["KW-7", "not known by key"]);

    server.kip(&["budget", "set", "f", "0", "--per", "day"]).failed(&["KW-1041"]);
    server.kip(&["budget", "set", "nobody", "1", "--per", "day"]).failed(&["nobody"]);
    server.kip(&["budget", "set", "--for-key", "nobody", "1", "--per", "day"]).failed(&["KW-7014", "kip key ls"]);
    server.kip(&["budget", "set", "f", "1000", "--per", "month"]).ok();
    let shown = server.kip(&["budget", "set", "--for-key", "anna", "0.000001", "--per", "day"]).ok().stdout;
    assert!(shown.contains("exceeded") && shown.contains("ok"), "{shown}");
    server.kip(&["budget", "set", "f", "0.000002", "--per", "month"]).ok();
    let warned = server.kip(&["ls"]).ok().stdout;
    assert!(warned.contains("over budget: function f has cost") && warned.contains("of 0.000002 a month"), "{warned}");
    assert!(server.kip(&["cost"]).ok().stdout.contains("over budget: key anna"));
    assert!(server.api_get("/metrics").text().contains("kip_budget_used_ratios{kind=\"key\",name=\"anna\"}"));
    let over: Vec<Value> = server.decisions().into_iter().filter(|one| one["to"] == "over budget").collect();
    assert_eq!(over.len(), 1, "once a period: {over:?}");
    assert_eq!(server.get("/delay/1").status(), 200, "nothing is refused");
    server.kip(&["budget", "rm", "--for-key", "anna"]).ok();
    server.kip(&["budget", "rm", "--for-key", "anna"]).failed(&["KW-7033"]);
}
