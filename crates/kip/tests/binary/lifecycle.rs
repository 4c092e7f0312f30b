//! Instances through trouble: ends nobody asked for, programs that resist, versions, restarts, lack of room.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::bodies::pid;
use crate::http::Answer;
use crate::support::{self, Server, apart, call, function, is_alive, kill, manifest, until, until_true};

/// Deploys one function beside `f`.
fn with(name: &str, arguments: &[&str], settings: &str) -> String {
    manifest(&[function(name, arguments, settings)])
}

#[test]
fn requests_that_come_while_it_falls_asleep() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1}\nidle: {pause: 1ms}");
    let first = pid(&server.get("/pid"));
    for _ in 0..60 {
        assert_eq!(pid(&server.get("/pid")), first);
    }
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let gateway = server.gateway;
            apart(move || (0..30).map(|_| pid(&call(gateway, "GET", "/f/f/pid", "", b""))).collect::<Vec<u32>>())
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.join().unwrap(), vec![first; 30]);
    }
    server.until_state("paused");
    server.until_quiet();
}

#[test]
pub(crate) fn a_request_longer_than_every_idle_time_is_left_alone() {
    let server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 20ms, stop: 50ms}\ninstances: {max: 2, concurrency: 2}");
    let long = server.later("GET", "/stream/40/30");
    until_true("it is in flight", || server.function()["in_flight"] == 1);
    let other = server.get("/pid");
    assert_eq!(other.header("x-kip-start"), Some("warm"), "{other:?}");
    let answer = long.join().unwrap();
    assert!(answer.clean && answer.text().ends_with("data: 39\n\n"), "{answer:?}");
    let steps = server.steps();
    assert_eq!(steps.iter().filter(|step| *step == ">requested").count(), 1, "{steps:?}");
    server.until_no_instance();
}

#[test]
pub(crate) fn first_requests_share_one_start() {
    let server = Server::start();
    server.deploy_subject(&["--ready-after", "500"], "probes: {ready: /ready}\ninstances: {concurrency: 4}");
    let callers: Vec<_> = (0..4).map(|_| server.later("GET", "/pid")).collect();
    let answers: Vec<Answer> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    assert!(answers.windows(2).all(|pair| pid(&pair[0]) == pid(&pair[1])), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.header("x-kip-start") == Some("cold")), "{answers:?}");
    assert_eq!(server.steps().iter().filter(|step| *step == ">requested").count(), 1);
}

#[test]
fn killed_while_paused_idle_and_busy() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1, concurrency: 2}\nidle: {pause: 300ms}");
    let paused = pid(&server.get("/pid"));
    server.until_state("paused");
    kill(paused, Signal::KILL);
    until_true("its end is seen", || server.instances().iter().all(|instance| instance["process"] != paused));
    let idle = pid(&server.get("/pid"));
    assert_ne!(idle, paused);
    kill(idle, Signal::KILL);
    until_true("its end is seen", || server.instances().iter().all(|instance| instance["process"] != idle));
    let busy = pid(&server.get("/pid"));
    let post = server.later("POST", "/hang");
    // Only a request that has arrived is not sent again.
    until_true("it has the request", || server.get("/count").json()["now"] == 1);
    kill(busy, Signal::KILL);
    let answer = post.join().unwrap();
    assert_eq!((answer.code().as_str(), answer.status()), ("KW-2010", 502), "{answer:?}");
    assert_ne!(pid(&server.get("/pid")), busy);
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert!(why.contains("the program ended by itself, with signal 9"), "{why}");
    server.until_quiet();
}

#[test]
fn a_program_that_ends_right_after_its_start() {
    let server = Server::start();
    for after in ["0", "1", "5", "20"] {
        server.deploy_subject(&["--exit-after-start", after], "timeouts: {queue: 20s, first_byte: 20s}");
        for _ in 0..5 {
            let answer = server.get("/hang");
            let expected = ["KW-2009", "KW-2010", "KW-4003", "KW-3003"];
            assert!(expected.contains(&answer.code().as_str()), "{answer:?}");
        }
        until_true("no dead instance is taken for a live one", || {
            server.instances().iter().all(|instance| instance["state"] != "ready" && instance["state"] != "paused")
        });
    }
    server.deploy_subject(&[], "");
    until_true("a good version heals it", || server.get("/pid").status() == 200);
}

#[test]
pub(crate) fn programs_that_resist_their_end() {
    let server = Server::start();
    server.deploy_subject(&["--ignore-term", "--fork"], "idle: {stop: 300ms}\ntimeouts: {grace: 300ms}");
    pid(&server.get("/pid"));
    // The program, and the child that left its group and its session.
    assert!(server.processes().len() >= 2, "{:?}", server.processes());
    server.until_no_instance();
    assert_eq!(server.processes(), Vec::<u32>::new());
}

#[test]
fn without_a_cgroup_nothing_is_left_either() {
    let mut server = Server::start();
    if !server.has_cgroup() {
        println!("skipped: this host has no cgroup to be without; the other tests show the same");
        return;
    }
    server.signal(Signal::INT);
    server.wait();
    let plain = server.serve_command();
    let mut command = Command::new("unshare");
    let script = "for mount in $(sed -n 's/^[^ ]* \\([^ ]*\\) cgroup2 .*/\\1/p' /proc/self/mounts); do umount -l $mount || exit 9; done; exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let possible = Command::new("unshare").args(["--mount", "true"]).output().is_ok_and(|ran| ran.status.success());
    if !possible {
        println!("skipped: no mount namespace may be made here, so cgroups cannot be hidden");
        return;
    }
    server.start_by(command);
    assert!(!server.has_cgroup(), "cgroups are hidden from this server");
    server.deploy_subject(&["--ignore-term", "--fork"], "idle: {pause: 200ms, stop: 2s}\ntimeouts: {grace: 300ms}");
    let first = pid(&server.get("/pid"));
    server.until_state("paused");
    until_true("it is stopped", || {
        let stat = fs::read_to_string(format!("/proc/{first}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    });
    let woken = server.get("/pid");
    assert_eq!((pid(&woken), woken.header("x-kip-start")), (first, Some("woken")));
    server.until_no_instance();
    assert_eq!(server.processes(), Vec::<u32>::new());
    let again = pid(&server.get("/pid"));
    kill(again, Signal::KILL);
    until_true("what it forked is cleared away too", || server.processes().is_empty());
    assert!(server.kip(&["doctor"]).stdout.contains("note  cgroup"));
}

#[test]
pub(crate) fn hooks_are_called() {
    let server = Server::start();
    let file = server.folder().join("stopped");
    let settings = format!(
        "lifecycle: {{initialize: /initialize, pre_stop: /pre-stop}}\nenv: {{PRE_STOP_FILE: {}}}\nidle: {{pause: 100ms, stop: 1s}}",
        file.display()
    );
    server.deploy_subject(&[], &settings);
    assert_eq!(server.get("/count").json()["initialized"], 1);
    let logged = || server.kip(&["logs", "f"]).ok().stdout.contains("subject: initialize by POST");
    match crate::bodies::engine() {
        // Podman gives out what a container wrote a moment later, and nobody can ask it whether that was all.
        Some(_) => until_true("its line is there", logged),
        None => assert!(logged()),
    }
    server.until_state("paused");
    server.until_no_instance();
    assert_eq!(fs::read_to_string(&file).unwrap(), "GET /pre-stop", "called though it was asleep");
    let steps = server.steps().join(" ");
    assert!(steps.contains("starting>initializing initializing>ready"), "{steps}");

    let slow = "lifecycle: {initialize: {path: /initialize, timeout: 300ms}}";
    server.deploy_subject(&["--initialize-delay", "100000"], slow);
    let late = server.get("/");
    assert_eq!((late.code().as_str(), late.status()), ("KW-4006", 502), "{late:?}");
    assert!(late.said().contains("the initialize hook did not answer"), "{late:?}");
    server.until_no_instance();
    assert!(server.processes().is_empty());
}

#[test]
fn a_minimum_is_kept_and_survives_a_restart() {
    let mut server = Server::start();
    let settings = "instances: {min: 1, max: 2}\nidle: {pause: 200ms, stop: 400ms}\nprobes: {ready: /ready}";
    server.deploy_subject(&["--ready-after", "500"], settings);
    // Nobody has to wait for the minimum to be there.
    assert_eq!(server.get("/pid").status(), 200);
    let asleep = server.until_state("paused");
    let process = u32::try_from(asleep["process"].as_u64().unwrap()).unwrap();
    kill(process, Signal::KILL);
    until_true("it is replaced", || {
        server.instances().iter().any(|i| i["process"].as_u64().is_some_and(|p| p != u64::from(process)))
    });
    server.until_state("paused");
    server.signal(Signal::INT);
    assert!(server.wait().success());
    assert!(server.processes().is_empty());
    server.start_again();
    server.until_state("paused");
    assert_eq!(server.get("/pid").header("x-kip-start"), Some("woken"));
}

#[test]
pub(crate) fn a_new_version_takes_over_when_it_is_ready() {
    let server = Server::start();
    let deploy = |version: &str, arguments: &[&str]| {
        let settings = format!("env: {{V: '{version}'}}\nprobes: {{ready: /ready}}\ninstances: {{concurrency: 4}}");
        server.try_deploy(&with("f", arguments, &settings))
    };
    let version = |answer: &Answer| answer.json()["V"].as_str().unwrap_or_default().to_owned();
    deploy("1", &[]).ok();
    assert_eq!(version(&server.get("/env")), "1");
    let old = server.until_state("ready")["process"].as_u64().unwrap();
    let long = server.later("GET", "/delay/1500");
    until_true("the old one is busy", || server.function()["in_flight"] == 1);
    let made = deploy("2", &["--ready-after", "300"]).ok();
    assert!(made.stdout.contains(" serves "), "{made:?}");
    assert_eq!(version(&server.get("/env")), "2");
    assert_eq!(long.join().unwrap().text(), "delayed\n", "what was in flight ends well");
    until_true("the old one is gone", || !is_alive(u32::try_from(old).unwrap()));

    let failed = deploy("3", &["--exit-now", "5"]);
    failed.failed(&[
        "KW-4003",
        "did not become ready",
        "exit code 5",
        "told to give up at once",
        "goes on serving",
        "kip logs f",
    ]);
    assert_eq!(version(&server.get("/env")), "2");
    let json = server.kip(&["deploy", "kip.yaml", "-o", "json"]);
    assert_eq!((json.code, &json.json()["error"]["code"]), (Some(1), &Value::from("KW-4003")), "{json:?}");
    until_true("nothing of it is left", || server.instances().len() == 1);
}

#[test]
fn deployments_that_overtake_each_other_all_end() {
    let server = Server::start();
    server.deploy_subject(&[], "idle: {pause: never}");
    pid(&server.get("/pid"));
    let slow = with("f", &["--ready-after", "1000000"], "probes: {ready: /ready}\ntimeouts: {startup: 10m}");
    fs::write(server.folder().join("slow.yaml"), slow).unwrap();
    let mut command = support::kip(&server.data());
    command.args(["deploy", "slow.yaml"]).current_dir(server.folder());
    let first = apart(move || support::run(&mut command));
    until_true("the candidate starts", || server.function()["starting"] == 1);
    server.deploy_subject(&[], "idle: {pause: never}\nenv: {V: '2'}");
    let first = first.join().unwrap();
    assert_eq!(first.code, Some(1), "{first:?}");
    assert!(first.stderr.contains("error[KW-3009]") && first.stderr.contains("try: "), "{first:?}");
    assert_eq!(server.get("/env").json()["V"], "2");
    until_true("only the last one is left", || server.instances().len() == 1);
}

/// Deployments and removals of one function at the same time end as if one had come after the other: what can be
/// reached is what runs.
#[test]
fn deployments_and_removals_do_not_lose_each_other() {
    let mut server = Server::start();
    let names: Vec<String> = (0..15).map(|number| format!("q{number}")).collect();
    // Through the API: the command line's own start would keep the calls apart.
    let headers = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", server.key);
    let racer = |name: &str, deploys: bool| {
        let (api, headers, name) = (server.api, headers.clone(), name.to_owned());
        let text = with(&name, &[], "instances: {min: 1, max: 2}");
        let body = serde_json::json!({"file": "kip.yaml", "text": text, "directory": server.folder()}).to_string();
        apart(move || match deploys {
            true => support::call(api, "POST", "/api/v1/deployments", &headers, body.as_bytes()),
            false => support::call(api, "DELETE", &format!("/api/v1/functions/{name}"), &headers, b""),
        })
    };
    for name in &names {
        assert_eq!(racer(name, true).join().unwrap().status(), 200);
        let racing: Vec<_> = (0..6).map(|turn| racer(name, turn % 2 == 1)).collect();
        racing.into_iter().for_each(|one| drop(one.join().unwrap()));
    }
    let listed = |server: &Server| -> Vec<String> {
        let listed = server.ask(&["ls"]);
        listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let before = listed(&server);
    for name in &before {
        server.kip(&["rm", name]).ok();
    }
    server.until_no_instance();
    until_true("no process is left", || server.processes().is_empty());
    server.kip(&["stop"]).ok();
    server.wait();
    server.start_again();
    assert_eq!(listed(&server), Vec::<String>::new(), "what was removed stays removed");
}

#[test]
pub(crate) fn removal_while_requests_are_under_way() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1}");
    pid(&server.get("/pid"));
    let flying = server.later("GET", "/delay/1500");
    until_true("it is in flight", || server.function()["in_flight"] == 1);
    let waiting = server.later("GET", "/pid");
    until_true("the other waits", || server.function()["queued"] == 1);
    assert_eq!(server.kip(&["rm", "f"]).ok().stdout, "removed f\n");
    let refused = waiting.join().unwrap();
    assert_eq!((refused.code().as_str(), refused.status()), ("KW-3005", 410), "{refused:?}");
    assert_eq!(server.get("/").code(), "KW-2001");
    // The name is free at once, while the old one still works.
    server.deploy_subject(&[], "env: {V: new}");
    assert_eq!(server.get("/env").json()["V"], "new");
    assert_eq!(flying.join().unwrap().text(), "delayed\n");
    until_true("the old one is gone", || server.processes().len() == 1);
    server.kip(&["rm", "f"]).ok();
    server.until_no_instance();
    assert!(server.processes().is_empty());
}

#[test]
fn a_start_that_failed_heals_by_itself() {
    let server = Server::start();
    let script = server.folder().join("program.sh");
    let write = |text: &str| fs::write(&script, format!("#!/bin/sh\n{text}\n")).unwrap();
    write("echo broken >&2; exit 4");
    Command::new("chmod").arg("+x").arg(&script).status().unwrap();
    server.deploy(&manifest(&["  f:\n    code: live\n    run: ./program.sh\n".to_owned()]));
    assert_eq!(server.get("/").code(), "KW-4003");
    let second = server.get("/");
    assert_eq!(second.code(), "KW-4003", "the first failure costs no pause: {second:?}");
    let third = server.call_with("GET", "/", &format!("authorization: Bearer {}\r\n", server.key), b"");
    assert_eq!((third.code().as_str(), third.status()), ("KW-3003", 503), "{third:?}");
    assert!(third.header("retry-after").is_some() && third.said().contains("broken"), "{third:?}");
    let info = server.kip(&["why", "f"]).ok().stdout;
    assert!(info.contains("2 starts failed in a row") && info.contains("broken"), "{info}");
    write(&format!("exec {}", support::subject().display()));
    let healed = until("it is tried again", || Some(server.get("/pid")).filter(|answer| answer.status() == 200));
    assert_eq!(healed.header("x-kip-start"), Some("cold"));
    assert_eq!(server.function()["failed_starts"], 0);
}

#[test]
pub(crate) fn a_server_that_ends_lets_requests_finish() {
    let mut server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1}");
    pid(&server.get("/pid"));
    let flying = server.later("GET", "/delay/1500");
    until_true("it is in flight", || server.function()["in_flight"] == 1);
    let waiting = server.later("GET", "/pid");
    until_true("the other waits", || server.function()["queued"] == 1);
    server.signal(Signal::INT);
    let refused = waiting.join().unwrap();
    assert_eq!((refused.code().as_str(), refused.status()), ("KW-2012", 503), "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(flying.join().unwrap().text(), "delayed\n");
    assert!(server.wait().success());
    assert!(server.processes().is_empty());

    // One that never finishes gets as much time as the settings say, and none after a second signal.
    server.start_again();
    let mut hanging = server.connect();
    hanging.send("GET", "/f/f/hang", "");
    until_true("it is in flight", || server.function()["in_flight"] == 1);
    server.signal(Signal::INT);
    until_true("it is stopping", || server.log().contains("stopping: requests in flight may end"));
    server.signal(Signal::INT);
    assert!(server.wait().success());
    assert!(server.processes().is_empty());
}

#[test]
fn instances_that_do_not_fit_together() {
    let server = Server::with("[host]\nmemory = \"100MiB\"");
    let settings = "resources: {memory: 64MiB}\nidle: {pause: 400ms}\ninstances: {max: 1}";
    server.deploy(&manifest(&[function("f", &[], settings), function("g", &[], settings)]));
    let gateway = server.gateway;
    let other = move |path: &str| call(gateway, "GET", &format!("/f/g{path}"), "", b"");
    for _ in 0..2 {
        let first = pid(&server.get("/pid"));
        // It has to wait until the first one has had its turn, and takes its place then.
        let second = pid(&other("/pid"));
        assert!(!is_alive(first) && is_alive(second));
        let reasons = server.kip(&["why", "f"]).ok().stdout;
        assert!(reasons.contains("evicted for `g`, which waits for memory"), "{reasons}");
    }
    let status = server.api_get("/api/v1/status").json();
    assert_eq!(status["host"]["reserved_memory"], 64 << 20, "{status}");

    server.deploy(&with("h", &[], "resources: {memory: 1GiB}"));
    let never = call(gateway, "GET", "/f/h/", "", b"");
    assert_eq!((never.code().as_str(), never.status()), ("KW-3004", 503), "{never:?}");
    assert!(never.said().contains("1GiB of memory") && never.said().contains("`resources`"), "{never:?}");
    assert!(never.header("retry-after").is_none(), "trying again does not help: {never:?}");

    // A candidate that can never fit is told at once, and the old version serves on.
    let failed = server.try_deploy(&with("g", &[], "resources: {memory: 1GiB}"));
    failed.failed(&["KW-3004", "goes on serving", "try: "]);
    pid(&other("/pid"));
}

#[test]
pub(crate) fn a_program_says_when_an_instance_is_ready() {
    let server = Server::start();
    let (gate, tries) = (server.folder().join("gate"), server.folder().join("tries"));
    let probe =
        |script: &str| format!("probes: {{ready: {{exec: [/bin/sh, -c, '{script}']}}}}\ntimeouts: {{startup: 20s}}");
    server.deploy_without_wait(&manifest(&[function(
        "f",
        &[],
        &probe(&format!("echo x >> {}; test -e {}", tries.display(), gate.display())),
    )]));
    let answer = server.later("GET", "/pid");
    until_true("it was asked", || fs::read_to_string(&tries).is_ok_and(|text| text.lines().count() >= 3));
    assert_eq!(server.function()["starting"], 1, "its port takes connections, and its program says no");
    fs::write(&gate, "").unwrap();
    assert_eq!(answer.join().unwrap().status(), 200);
    server.kip(&["rm", "f"]).ok();
    server.until_no_instance();
    let never = probe("echo not yet >&2; exit 3").replace("20s", "6s");
    server.deploy_without_wait(&manifest(&[function("f", &[], &never)]));
    assert_eq!(server.get("/pid").code(), "KW-4004");
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert!(why.contains("probes.ready.exec") && why.contains("exit code 3: not yet"), "{why}");
}
