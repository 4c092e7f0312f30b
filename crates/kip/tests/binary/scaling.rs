//! Scaling policies on the real binary: a burst by Knative's autoscaler, a schedule by a clock of the test's own, what is
//! recorded against what `kip scaler decide` makes of it, and the examples of the pages.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Server, apart, call, kip, run, until, until_within};

/// Windows of several seconds, one after another.
const LONG: Duration = Duration::from_secs(180);

/// Callers that go on until they are stopped.
fn load(
    server: &Server,
    callers: usize,
    path: &'static str,
    stop: &Arc<AtomicBool>,
) -> Vec<std::thread::JoinHandle<bool>> {
    let caller = |_| {
        let (gateway, stop) = (server.gateway, stop.clone());
        apart(move || {
            let mut well = true;
            while !stop.load(Ordering::SeqCst) {
                well &= call(gateway, "GET", path, "", b"").status() == 200;
            }
            well
        })
    };
    (0..callers).map(caller).collect()
}

fn end(stop: &AtomicBool, callers: Vec<std::thread::JoinHandle<bool>>) {
    stop.store(true, Ordering::SeqCst);
    assert!(callers.into_iter().all(|caller| caller.join().unwrap()), "a request failed");
}

/// What scaling policies of `f` saw and decided, oldest first.
fn history(server: &Server) -> Vec<Value> {
    let mut all = server.api_get("/api/v1/functions/f/scaling?limit=10000").json().as_array().expect("a list").clone();
    all.reverse();
    all
}

/// Feeds what was seen to `kip scaler decide`: it must decide the same again.
fn decides_the_same(server: &Server, history: &[Value]) {
    let seen: Vec<String> = history.iter().map(|record| record["observation"].to_string()).collect();
    let file = server.folder().join("seen.jsonl");
    fs::write(&file, seen.join("\n")).unwrap();
    let again = server.kip(&["scaler", "decide", &file.to_string_lossy()]).ok();
    let again: Vec<Value> = again.stdout.lines().map(|line| serde_json::from_str(line).expect("a decision")).collect();
    let decided: Vec<&Value> = history.iter().map(|record| &record["decision"]).filter(|one| !one.is_null()).collect();
    assert_eq!(decided.len(), again.len());
    for (number, (decided, again)) in decided.into_iter().zip(&again).enumerate() {
        assert_eq!(decided, again, "decision {number} of {}", history.len());
    }
}

fn hot(server: &Server) -> usize {
    server.instances().iter().filter(|line| line["state"] == "ready" || line["state"] == "busy").count()
}

#[test]
fn knatives_autoscaler_from_zero_over_a_burst_and_a_panic_back_to_zero() {
    let mut server = Server::start();
    server.deploy_subject(
        &[],
        "instances: {max: 6}
         scaling: {mode: kpa, annotations: {target: 1, target-utilization-percentage: 100, window: 6s, target-burst-capacity: -1}, config: {scale-to-zero-grace-period: 1s}}",
    );
    until_within(LONG, "the first scale went back to zero", || {
        (history(&server).len() > 3 && server.instances().is_empty()).then_some(())
    });
    let stop = Arc::new(AtomicBool::new(false));
    let callers = load(&server, 6, "/f/f/delay/50", &stop);
    until_within(LONG, "the burst has what it needs", || (hot(&server) >= 5).then_some(()));
    let panics = until("it panics and says so", || {
        let scaling = server.function()["scaling"][0].clone();
        (scaling["panic"] == true).then_some(scaling)
    });
    assert!(panics["why"].as_str().unwrap().contains("panic for"), "{panics}");
    let said = server.kip(&["why", "f"]).ok().stdout;
    assert!(said.contains("by kpa:") && said.contains("in a panic") && said.contains("scale to"), "{said}");
    end(&stop, callers);
    until_within(LONG, "calm is back", || (server.function()["scaling"][0]["panic"] == false).then_some(()));
    until_within(LONG, "it is at zero", || server.instances().is_empty().then_some(()));
    let seen = history(&server);
    assert!(seen.iter().any(|record| record["decision"]["panic"] == true));
    let most = seen.iter().filter_map(|record| record["decision"]["applied"].as_u64()).max();
    assert!(most.is_some_and(|most| (5..=6).contains(&most)), "{most:?}");
    decides_the_same(&server, &seen);
    server.terminate();
    server.start_again();
    assert!(history(&server).len() >= seen.len(), "the history is kept");
    assert!(server.instances().is_empty(), "what was at zero stays there");
}

/// Starts the server anew and lets it believe that it is this time.
fn pretend(server: &mut Server, time: &str) {
    server.terminate();
    let mut command = server.serve_command();
    command.env("KIPWAKE_CLOCK", time);
    server.start_by(command);
}

fn kept(server: &Server) -> Vec<String> {
    let kept = |line: &&Value| line["kind"] == "provisioned";
    server.instances().iter().filter(kept).map(|line| line["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_schedule_begins_and_ends_by_the_clock_and_the_rest_goes_on_demand() {
    let mut server = Server::start();
    server.deploy_subject(
        &[],
        r#"instances: {max: 6}
         idle: {pause: 200ms, stop: 1h}
         scaling: {mode: fc, provision: {defaultTarget: 0, scheduledActions: [{name: day, startTime: "2024-07-01T00:00:00", endTime: "2024-07-31T00:00:00", timeZone: Asia/Shanghai, scheduleExpression: cron(0 0 8 * * *), target: 2}, {name: night, startTime: "2024-07-01T00:00:00", endTime: "2024-07-31T00:00:00", timeZone: Asia/Shanghai, scheduleExpression: cron(20 0 8 * * *), target: 1}]}}"#,
    );
    assert_eq!(server.instances(), Vec::<Value>::new(), "July 2024 is over");
    let listed = server.ask(&["provision", "list"]);
    let why = listed[0]["policies"][0]["why"].as_str().unwrap();
    assert_eq!((listed[0]["target"].as_u64(), why), (Some(0), "its window ended at 2024-07-30T16:00:00Z"));

    pretend(&mut server, "2024-07-01T07:59:57+08:00");
    until("the day begins with two", || (kept(&server) == ["ready", "ready"]).then_some(()));
    let stop = Arc::new(AtomicBool::new(false));
    let callers = load(&server, 4, "/f/f/delay/20", &stop);
    until("more are started on demand", || (hot(&server) == 4 && kept(&server).len() == 2).then_some(()));
    end(&stop, callers);
    until("those on demand sleep, the provisioned do not", || {
        let states: Vec<String> =
            server.instances().iter().map(|line| format!("{} {}", line["kind"], line["state"])).collect();
        let count = |what: &str| states.iter().filter(|state| *state == what).count();
        let asleep = count("\"on-demand\" \"paused\"");
        (count("\"provisioned\" \"ready\"") == 2 && asleep == states.len() - 2).then_some(())
    });
    until_within(LONG, "the night begins with one", || (kept(&server).len() == 1).then_some(()));
    let said = server.kip(&["why", "f"]).ok().stdout;
    assert!(said.contains("LATEST by fc: 1 wanted") && said.contains("`night`"), "{said}");
    decides_the_same(&server, &history(&server));
}

#[test]
fn provisioned_from_outside_in_the_words_of_function_compute() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 200ms, stop: 1h}");
    let policy = r#"{"targetTrackingPolicies": [{"name": "demo", "startTime": "2024-07-01T16:00:00.000Z",
        "endTime": "2024-07-30T16:00:00.000Z", "metricType": "ProvisionedConcurrencyUtilization", "metricTarget": 0.3,
        "minCapacity": 0, "maxCapacity": 13}]}"#;
    fs::write(server.folder().join("provision.json"), policy).unwrap();
    let words = ["provision", "put", "f", "--target", "1", "--targetTrackingPolicies", "./provision.json"];
    let put = server.ask(&[&words[..], &["--qualifier", "LATEST"]].concat());
    assert_eq!(put["policies"][0]["active"], false, "{put}");
    until("the default target is kept hot", || (kept(&server) == ["ready"]).then_some(()));
    let listed = server.kip(&["provision", "list"]).ok().stdout;
    assert!(listed.contains("demo (inactive: its window ended at 2024-07-30T16:00:00Z)"), "{listed}");

    server.ask(&["provision", "put", "f", "--target", "2", "--ac", "false"]);
    until("in idle mode two sleep", || (kept(&server) == ["paused", "paused"]).then_some(()));
    assert_eq!(server.get("/").status(), 200);
    // Who asks has records written: the last second's would go with the server.
    server.decisions();
    server.crash();
    server.start_again();
    until("a new server keeps them", || (kept(&server).len() == 2).then_some(()));

    let wrong = r#"[{"name": "p", "metricType": "Luck", "metricTarget": 3, "minCapacity": 4, "maxCapacity": 2}]"#;
    let refused = server.kip(&["provision", "put", "f", "--target-tracking-policies", wrong]);
    refused.failed(&["KW-1020", "`Luck` is not known", "3 is not a ratio", "4 is more than maxCapacity, 2"]);
    for words in [["put", "f", "--target", "1"].as_slice(), &["get", "f"], &["rm", "f"]] {
        for qualifier in ["prod", "v999"] {
            let refused = server.kip(&[&["provision"], words, &["--qualifier", qualifier]].concat());
            refused.failed(&["KW-3007", "no version or alias", qualifier, "kip alias ls f", "LATEST"]);
        }
    }
    server.ask(&["provision", "rm", "f"]);
    until("they are released", || server.instances().is_empty().then_some(()));
    server.kip(&["provision", "rm", "f"]).failed(&["KW-3020"]);
    assert_eq!(server.ask(&["provision", "list"]), serde_json::json!([]));
    let advice = server.ask(&["advise", "f"]);
    assert!(advice["measured"]["starts"].as_u64().unwrap() >= 2, "{advice}");
}

#[test]
fn a_policy_follows_the_cpu_that_is_used_and_lets_go_when_it_is_calm() {
    let server = Server::start();
    server.deploy_subject(
        &[],
        "resources: {cpu: 0.1}
         scaling: {mode: fc, provision: {targetTrackingPolicies: [{name: hot, metricType: CPUUtilization, metricTarget: 0.5, minCapacity: 1, maxCapacity: 3}]}}",
    );
    until("one is kept", || (kept(&server).len() == 1).then_some(()));
    let stop = Arc::new(AtomicBool::new(false));
    let callers = load(&server, 2, "/f/f/burn/50", &stop);
    until_within(LONG, "what burns is given more", || (kept(&server).len() == 3).then_some(()));
    let said = server.kip(&["why", "f"]).ok().stdout;
    assert!(said.contains("policy `hot`: CPUUtilization") && said.contains("held by maxCapacity"), "{said}");
    end(&stop, callers);
    until_within(LONG, "calm gives it back", || (kept(&server).len() == 1).then_some(()));
    let seen = history(&server);
    let cpu = seen.iter().filter_map(|record| record["observation"]["cpu"].as_f64());
    assert!(cpu.fold(0.0, f64::max) > 0.5, "{seen:?}");
    decides_the_same(&server, &seen);
}

#[test]
fn a_policy_follows_the_device_memory_that_the_driver_tells() {
    let mut server = Server::with("[[device]]\nname = \"gpu0\"\nmemory = \"512MiB\"\n");
    let driver = server.folder().join("driver");
    fs::create_dir(&driver).unwrap();
    fs::write(driver.join("knobs"), "capacity = 536870912\n").unwrap();
    // Instances, which may be users of their own, keep what they hold in it.
    fs::set_permissions(&driver, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let library = crate::gpu::standin();
    let variables = [
        ("KIPWAKE_CUDA_LIBRARY", library),
        ("KIPWAKE_NVML_LIBRARY", library),
        ("KIPWAKE_STANDIN_DIR", driver.as_path()),
    ];
    server.terminate();
    let mut command = server.serve_command();
    command.envs(variables);
    server.start_by(command);
    // Beside the subject a process holds 64 MiB, and as much again for its context.
    let variables: String = variables.iter().map(|(name, value)| format!("{name}={} ", value.display())).collect();
    let (kip, subject) = (crate::support::KIP, crate::support::subject());
    let script = format!("sleep 100000 | {variables} {kip} gpu-probe 67108864 >/dev/null & exec {}", subject.display());
    server.deploy(&format!(
        "api: kip/v1\nfunctions:\n  f:\n    code: live\n    run: [sh, -c, '{script}']\n    resources: {{gpu: {{memory: 160MiB}}}}
    scaling: {{mode: fc, provision: {{targetTrackingPolicies: [{{name: full, metricType: GPUMemUtilization, metricTarget: 0.5, minCapacity: 1, maxCapacity: 2}}]}}}}\n"
    ));
    until_within(LONG, "what is full is given another", || (kept(&server).len() == 2).then_some(()));
    let said = server.kip(&["why", "f"]).ok().stdout;
    assert!(said.contains("policy `full`: GPUMemUtilization 0.8 against 0.5"), "{said}");
    let advice = server.ask(&["advise", "f"]);
    assert!(advice["measured"]["device_memory"].as_u64() >= Some(128 << 20), "{advice}");
    // It holds for nothing when nobody follows it.
    server.ask(&["provision", "put", "f", "--target", "1"]);
    until("one is enough", || (kept(&server).len() == 1).then_some(()));
}

#[test]
fn provisioned_instances_that_nobody_uses_are_reminded_of() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 200ms, stop: 1h}");
    server.ask(&["provision", "put", "f", "--target", "1"]);
    until("one is kept", || (kept(&server) == ["ready"]).then_some(()));
    assert_eq!(server.get("/").status(), 200);
    until("the request is written down", || (!server.ask(&["requests", "f"]).as_array()?.is_empty()).then_some(()));
    let later = |hours: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours)).to_string();
    pretend(&mut server, &later(1));
    until("it is there again", || (kept(&server) == ["ready"]).then_some(()));
    assert!(!server.kip(&["why", "f"]).ok().stdout.contains("reminder"), "an hour is not long");
    pretend(&mut server, &later(5));
    let reminder = "nothing was asked of 1 provisioned instance for 5h";
    let said = until("five hours are", || {
        Some(server.kip(&["why", "f"]).ok().stdout).filter(|said| said.contains("reminder"))
    });
    assert!(said.contains(reminder) && said.contains("`kip provision rm f` releases it"), "{said}");
    assert!(server.log().contains("provisioned instances are unused"), "{}", server.log());
    assert!(server.kip(&["provision", "list"]).ok().stdout.contains(reminder));
    let advice = server.ask(&["advise", "f"]);
    let advised = advice["advice"].as_array().unwrap().iter().find(|advice| advice["setting"] == "provision").unwrap();
    assert_eq!(advised["better"], "kip provision rm f");
    // A request is a use.
    assert_eq!(server.get("/").status(), 200);
    assert!(!server.kip(&["why", "f"]).ok().stdout.contains("reminder:"));
    server.kip(&["provision", "rm", "f"]).ok();
    until("it is released", || kept(&server).is_empty().then_some(()));
}

#[test]
fn the_burst_of_the_examples_shows_what_it_says() {
    let server = Server::start();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/burst");
    let ran = server.kip(&["up", &example.to_string_lossy(), "--no-follow", "-o", "json"]).ok();
    let steps = ran.json()["burst"].as_array().expect("steps").clone();
    let [asleep, burst, calm, one] = &steps[..] else { panic!("{steps:?}") };
    let most = |step: &Value, what: &str| step["most"][what].as_u64().unwrap_or(0);
    let all = |step: &Value, kind: &str| {
        let counts = step["most"].as_object().unwrap().iter().filter(|(what, _)| what.starts_with(kind));
        counts.filter_map(|(_, count)| count.as_u64()).max().unwrap_or(0)
    };
    let reasons = |step: &Value, to: &str, why: &str| {
        let decisions = step["decisions"].as_array().unwrap().iter();
        decisions.filter(|one| one["to"] == to && one["why"].as_str().unwrap().contains(why)).count()
    };
    assert_eq!(most(asleep, "provisioned paused"), 2, "{asleep}");
    assert!(all(burst, "on-demand") >= 1 && burst["answered"].as_u64() > Some(0), "{burst}");
    assert!(burst["refused"] == 0 && reasons(burst, "waking", "") >= 2, "{burst}");
    assert!(reasons(calm, "stopping", "unused") >= 1 && most(calm, "provisioned paused") == 2, "{calm}");
    assert!(one["answered"].as_u64() > Some(0) && all(one, "on-demand") == 0, "{one}");
}

#[test]
fn the_examples_of_the_pages_are_as_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut examples = 0;
    for page in ["scaling.md", "scaling-kpa.md", "scaling-fc.md"] {
        let blocks = crate::examples::blocks(&fs::read_to_string(pages.join(page)).unwrap());
        for (block, answer) in blocks.iter().zip(blocks.iter().skip(1)) {
            let (command, format) = match block.0.as_str() {
                "jsonl decide" => ("decide", "text"),
                "json validate" => ("validate", "text"),
                _ => continue,
            };
            let file = folder.path().join("example.jsonl");
            fs::write(&file, &block.1).unwrap();
            let ran = run(kip(folder.path()).args(["scaler", command, "-o", format]).arg(&file));
            assert_eq!(answer.0, "text answer", "{page}: an example without an answer:\n{}", block.1);
            assert_eq!(ran.stdout, answer.1, "{page}: {}", block.1);
            examples += 1;
        }
    }
    assert!(examples >= 6, "only {examples} examples");
}

/// What `auto` goes by at present: service, start and wake times in seconds.
fn measured(server: &Server) -> Option<Vec<f64>> {
    let averages = &server.function()["scaling"][0]["averages"];
    ["service_s", "start_s", "wake_s"].iter().map(|name| averages[*name].as_f64()).collect()
}

#[test]
fn what_auto_has_learnt_outlives_the_server() {
    let mut server = Server::start();
    server.deploy_subject(&["--ready-after", "150"], "idle: {pause: never}\nscaling: {mode: auto}");
    assert_eq!(server.get("/delay/50").status(), 200);
    let learnt = until("it was measured", || measured(&server).filter(|times| times[1] < 0.9));
    // The instance is adopted, and so is what is known of its start.
    server.terminate();
    server.start_again();
    assert_eq!(measured(&server), Some(learnt.clone()));
    // The instances end with the server, and it is known all the same.
    server.kip(&["stop"]).ok();
    server.wait();
    server.start_again();
    assert_eq!(server.get("/delay/50").status(), 200);
    let again = until("it is measured again", || measured(&server));
    assert!((again[0] - learnt[0]).abs() < 0.1 && again[1] < 0.6, "{learnt:?} {again:?}");
    // What cannot be read is forgotten, with a word in the log.
    server.terminate();
    let records = rusqlite::Connection::open(server.data().join("records.db")).unwrap();
    assert_eq!(records.execute("UPDATE learnt SET history = 'x' || history", []).unwrap(), 1);
    drop(records);
    server.start_again();
    assert!(server.log().contains("has learnt cannot be read; it begins anew"), "{}", server.log());
    let fresh = measured(&server).unwrap();
    assert!((fresh[1] - 1.0).abs() < 1e-9, "{fresh:?}");
    // A function of the same name is another one.
    server.kip(&["rm", "f"]).ok();
    server.terminate();
    let records = rusqlite::Connection::open(server.data().join("records.db")).unwrap();
    assert_eq!(records.query_row("SELECT count(*) FROM learnt", [], |row| row.get::<_, u32>(0)).unwrap(), 0);
}

#[test]
fn what_was_recorded_is_decided_again_the_same() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 4}\nidle: {pause: 50ms, stop: 500ms}");
    server.kip(&["scaler", "recording", "f"]).failed(&["KW-7034"]);
    server.kip(&["scaler", "record", "f"]).ok();
    let callers: Vec<_> = (0..4).map(|_| server.later("GET", "/delay/100")).collect();
    assert!(callers.into_iter().all(|caller| caller.join().unwrap().status() == 200));
    server.until_no_instance();
    assert_eq!(server.get("/delay/10").status(), 200);
    let recording = server.kip(&["scaler", "recording", "f"]).ok().stdout;
    let file = server.folder().join("recording.json");
    fs::write(&file, &recording).unwrap();
    let path = file.to_str().unwrap();
    let report = server.ask(&["simulate", "--replay", path]);
    assert_eq!(report["identical"], true, "{report}");
    let (steps, decisions) = (report["steps"].as_u64().unwrap(), report["decisions"].as_u64().unwrap());
    assert!(steps > 20 && decisions > 40, "{report}");
    assert!(server.kip(&["simulate", "--replay", path]).ok().stdout.contains("decisions are the same"));
    // A policy that allows one instance decides otherwise.
    let mut other: Value = serde_json::from_str(&recording).unwrap();
    let serving = &mut other["recording"]["parts"][0]["snapshot"]["serving"][1];
    assert_eq!(serving["max"], 4, "{serving}");
    serving["max"] = Value::from(1);
    fs::write(&file, other.to_string()).unwrap();
    server.kip(&["simulate", "--replay", path]).failed(&["KW-1042", "is not decided the same again"]);
    server.kip(&["scaler", "record", "f", "--stop"]).ok();
    server.kip(&["scaler", "record", "f", "--stop"]).failed(&["KW-7034"]);
}

#[test]
fn auto_drives_what_says_nothing_of_scaling() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 4}");
    assert_eq!(server.function()["spec"]["scaling"]["mode"], "auto");
    let calls: Vec<_> = (0..4).map(|_| server.later("GET", "/delay/1500")).collect();
    let instances = until("each has an instance", || {
        let busy = server.instances().iter().filter(|instance| instance["state"] == "busy").count();
        (busy == 4).then(|| server.kip(&["ps"]).ok().stdout)
    });
    assert!(instances.contains("by auto: 4 wanted, 4 there"), "{instances}");
    calls.into_iter().for_each(|call| assert_eq!(call.join().unwrap().status(), 200));
    let figures = &server.function()["scaling"][0]["averages"];
    assert!(figures["service_s"].as_f64().is_some_and(|service| (1.4..3.0).contains(&service)), "{figures}");
}

#[test]
fn the_plan_says_that_fixed_becomes_auto() {
    let server = Server::start();
    server.deploy_subject(&[], "scaling: {mode: fixed}");
    let file = server.folder().join("kip.yaml");
    fs::write(&file, crate::support::manifest(&[crate::support::function("f", &[], "")])).unwrap();
    let plan = server.kip(&["plan", server.folder().to_str().unwrap()]).ok().stdout;
    assert!(plan.contains("scaling follows what is measured (auto)"), "{plan}");
    assert_eq!(server.function()["spec"]["scaling"]["mode"], "fixed", "until it is deployed again");
}
