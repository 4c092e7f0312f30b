//! Instances outlive their server: the next one takes them over as they are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bodies::{self, pid};
use crate::support::{self, ChildGuard, Server, call, function, is_alive, kill, manifest, until, until_true};

/// The folders of the instances there are.
fn folders(server: &Server) -> Vec<PathBuf> {
    fs::read_dir(server.data().join(bodies::journals().0)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn change_journal(folder: &Path, change: impl FnOnce(&mut Value)) {
    let file = folder.join("journal.json");
    let mut journal: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut journal);
    fs::write(&file, journal.to_string()).unwrap();
}

/// A reason in the decision log.
fn until_reason(server: &Server, reason: &str) {
    until_true(&format!("`{reason}` is in the decision log"), || {
        server.decisions().iter().any(|decision| decision["why"].as_str().unwrap().contains(reason))
    });
}

#[test]
pub(crate) fn a_killed_server_loses_no_instance_hot_or_asleep() {
    let mut server = Server::start();
    let settings = "instances: {min: 2, max: 2}\nidle: {pause: 200ms}";
    let hot = "idle: {pause: never}";
    server.deploy(&manifest(&[function("f", &["--fork"], settings), function("hot", &[], hot)]));
    // Those that are falling asleep count as asleep already, and would be adopted awake.
    let paused = |one: &Value| one["function"] == "f" && one["state"] == "paused";
    until_true("both sleep", || server.instances().iter().filter(|one| paused(one)).count() == 2);
    pid(&call(server.gateway, "GET", "/f/hot/pid", "", b""));
    let (before, processes) = (server.known(), server.processes());
    let ids = |server: &Server| -> Vec<(String, Value)> {
        let line = |one: &Value| (one["id"].as_str().unwrap().to_owned(), one["process"].clone());
        server.instances().iter().map(line).collect()
    };
    let names = ids(&server);
    for round in 0..3 {
        server.crash();
        assert_eq!(server.processes().len(), processes.len(), "they outlive a killed server");
        if round == 0 {
            server.kip(&["ls"]).failed(&["KW-7005", "no server runs on the data directory", "kip serve"]);
        }
        server.start_again();
        assert_eq!((server.known(), ids(&server)), (before.clone(), names.clone()), "the same, none twice");
        assert!(server.log().contains("adopted=3 ended=0"), "{}", server.log());
    }
    assert_eq!(server.function()["asleep"], 2, "as they were");
    let hot = call(server.gateway, "GET", "/f/hot/pid", "", b"");
    assert_eq!(hot.header("x-kip-start"), Some("warm"));
    let woken = server.get("/pid");
    // Asked while it lives: nobody knows the process of an instance that is gone.
    let process = pid(&woken);
    assert!(before.contains(&process));
    assert_eq!(woken.header("x-kip-start"), Some("woken"));
    until_reason(&server, "an earlier server");
    server.until_state("paused");
    // All that can be done with an own instance can be done with them.
    kill(process, Signal::KILL);
    until_true("its end is noticed", || !server.known().contains(&process));
    server.kip(&["rm", "f", "hot"]).ok();
    server.until_no_instance();
    until_true("nothing is left of them", || server.processes().is_empty() && folders(&server).is_empty());
}

#[test]
pub(crate) fn sigterm_keeps_instances_and_says_so() {
    let mut server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1}");
    let first = pid(&server.get("/pid"));
    let flying = server.later("GET", "/delay/1500");
    until_true("it is in flight", || server.function()["in_flight"] == 1);
    let waiting = server.later("GET", "/pid");
    until_true("the other waits", || server.function()["queued"] == 1);
    server.signal(Signal::TERM);
    let refused = waiting.join().unwrap();
    assert_eq!((refused.code().as_str(), refused.status()), ("KW-2012", 503), "{refused:?}");
    assert_eq!(flying.join().unwrap().text(), "delayed\n");
    assert!(server.wait().success());
    assert!(is_alive(first));
    let last: Value = serde_json::from_str(server.printed().lines().last().unwrap()).unwrap();
    assert_eq!(last["kept"], 1, "{}", server.printed());
    assert!(server.log().contains("the next start adopts the instances that stay"), "{}", server.log());
    server.start_again();
    let again = server.get("/pid");
    assert_eq!((pid(&again), again.header("x-kip-start")), (first, Some("warm")));

    // A request that never ends does not keep the server for ever, and a second signal means now.
    let mut hanging = server.connect();
    hanging.send("GET", "/f/f/hang", "");
    until_true("it is in flight", || server.function()["in_flight"] == 1);
    server.signal(Signal::TERM);
    until_true("it is stopping", || server.log().contains("stopping: requests in flight may end"));
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(is_alive(first));

    // What was kept can be ended without a server.
    let stopped = server.kip(&["stop"]).ok();
    assert_eq!(stopped.stdout, "no server runs; ended the 1 instances that the last one left\n");
    assert!(!is_alive(first) && server.processes().is_empty());
    server.kip(&["stop"]).failed(&["KW-7005"]);
    server.start_again();
    assert_ne!(pid(&server.get("/pid")), first);
}

#[test]
fn kip_stop_waits_for_a_server_that_ends_already() {
    let mut server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1}");
    let first = pid(&server.get("/pid"));
    let flying = server.later("GET", "/delay/1500");
    until_true("it is in flight", || server.function()["in_flight"] == 1);
    server.signal(Signal::TERM);
    until_true("it is stopping", || server.log().contains("stopping: requests in flight may end"));
    server.kip(&["ls"]).failed(&["KW-7005", "just starting or stopping", "try: "]);
    let stopped = server.kip(&["stop"]).ok();
    assert!(stopped.stdout.contains("ended the 1 instances"), "{stopped:?}");
    assert_eq!(flying.join().unwrap().text(), "delayed\n");
    assert!(server.wait().success() && !is_alive(first));
}

fn requests_go_on_after_a_crash(concurrency: u32) {
    let mut server = Server::start();
    server.deploy_subject(&[], &format!("instances: {{max: 1, concurrency: {concurrency}}}\nidle: {{pause: 100ms}}"));
    let first = pid(&server.get("/pid"));
    // A container engine takes its time to say what there is; the requests must last until then.
    let delay = if bodies::engine().is_some() { "/delay/8000" } else { "/delay/2000" };
    let flying: Vec<_> = (0..concurrency).map(|_| server.later("GET", delay)).collect();
    until_true("all are in flight", || server.function()["in_flight"] == concurrency);
    server.crash();
    for one in flying {
        assert!(one.join().is_err() || server.processes().contains(&first), "their callers see the end at once");
    }
    server.start_again();
    assert_eq!(server.instances()[0]["state"], "busy", "what the old server left is counted: {:?}", server.instances());
    // It is not overloaded: the next request waits for its turn, on the same instance.
    let next = server.get("/count");
    let count = next.json();
    assert!(count["most"].as_u64().unwrap() <= u64::from(concurrency), "{count}");
    assert_eq!(pid(&server.get("/pid")), first);
    server.until_quiet();
    server.until_state("paused");
}

#[test]
fn requests_in_flight_at_a_crash_with_one_at_a_time() {
    requests_go_on_after_a_crash(1);
}

#[test]
pub(crate) fn requests_in_flight_at_a_crash_with_eight_at_a_time() {
    requests_go_on_after_a_crash(8);
}

#[test]
fn caught_in_the_midst_of_a_step() {
    let mut server = Server::start();
    let starting = "probes: {ready: /ready}\ntimeouts: {startup: 10m}\ninstances: {min: 1}";
    let initializing = "lifecycle: {initialize: {path: /initialize, timeout: 10m}}\ninstances: {min: 1}";
    // The next server gives it the rest of its grace.
    let stopping = "timeouts: {grace: 8s}\nidle: {stop: 10ms}";
    let cases = [
        (vec!["--ready-after", "1000000"], starting, "starting", "it was starting when its server ended"),
        (vec!["--initialize-delay", "1000000"], initializing, "initializing", "it was being initialized"),
        (vec!["--ignore-term"], stopping, "stopping", "it was being stopped when its server ended"),
    ];
    for (arguments, settings, state, reason) in cases {
        // Not waited for: some never become ready.
        server.deploy_without_wait(&manifest(&[function("f", &arguments, settings)]));
        if state == "stopping" {
            pid(&server.get("/pid"));
        }
        server.until_state(state);
        // The core is a little ahead of what is written down.
        let stage = match state {
            "starting" => "starting",
            "initializing" => "ready",
            _ => "ending",
        };
        until_true("the step is written down", || {
            let text = |folder: &PathBuf| fs::read_to_string(folder.join(bodies::journals().1)).unwrap_or_default();
            folders(&server).iter().any(|folder| text(folder).contains(&format!("\"stage\":\"{stage}\"")))
        });
        let left = server.processes();
        assert_eq!(left.len(), 1);
        server.crash();
        server.start_again();
        until_reason(&server, reason);
        until_true("it was ended", || !is_alive(left[0]));
        server.kip(&["rm", "f"]).ok();
        server.until_no_instance();
        until_true("nothing is left", || server.processes().is_empty());
    }
}

#[test]
fn a_crash_between_freezing_and_noting_it() {
    let mut server = Server::start();
    if !server.has_cgroup() {
        println!("skipped: no cgroup to freeze by hand");
        return;
    }
    server.deploy_subject(&[], "idle: {pause: never}");
    let first = pid(&server.get("/pid"));
    server.crash();
    let journal: Value = serde_json::from_slice(&fs::read(folders(&server)[0].join("journal.json")).unwrap()).unwrap();
    let freeze = PathBuf::from(journal["cgroup"].as_str().unwrap()).join("cgroup.freeze");
    fs::write(&freeze, "1").unwrap();
    server.start_again();
    assert_eq!(server.instances()[0]["state"], "paused");
    let woken = server.get("/pid");
    assert_eq!((pid(&woken), woken.header("x-kip-start")), (first, Some("woken")));
}

#[test]
fn what_died_or_closed_its_port_while_no_server_ran() {
    let mut server = Server::start();
    server.deploy_subject(&["--fork"], "idle: {pause: never}");
    let first = pid(&server.get("/pid"));
    server.crash();
    kill(first, Signal::KILL);
    until_true("its main process is gone", || !is_alive(first));
    assert!(!server.processes().is_empty(), "what it forked is not");
    server.start_again();
    until_reason(&server, "its main process ended while no server ran");
    until_true("the rest is cleared away", || server.processes().is_empty());
    let second = pid(&server.get("/pid"));
    server.crash();
    server.processes().into_iter().for_each(|process| kill(process, Signal::KILL));
    until_true("all is gone", || server.processes().is_empty());
    server.start_again();
    until_reason(&server, "it ended while no server ran");

    let third = pid(&server.get("/pid"));
    assert_ne!(second, third);
    server.crash();
    // Another program answers on what is written down as its port.
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    change_journal(&folders(&server)[0], |journal| {
        journal["address"] = json!(stranger.local_addr().unwrap().to_string());
    });
    server.start_again();
    until_reason(&server, "it does not listen on its port");
    until_true("it was ended", || !is_alive(third));
    assert_eq!(server.get("/pid").status(), 200);
}

#[test]
fn a_process_id_that_was_given_again_is_a_stranger() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: never}");
    let first = pid(&server.get("/pid"));
    server.crash();
    kill(first, Signal::KILL);
    until_true("it is gone", || !is_alive(first));
    let stranger = ChildGuard::spawn(Command::new("setsid").args(["sleep", "1000"]));
    // The journal now says that the stranger is the instance; only when that was started is not so.
    change_journal(&folders(&server)[0], |journal| {
        journal["process"] = json!(stranger.pid());
        journal["cgroup"] = Value::Null;
    });
    server.start_again();
    assert!(server.log().contains("adopted=0 ended=1"), "{}", server.log());
    assert_eq!(server.get("/pid").header("x-kip-start"), Some("cold"));
    server.kip(&["rm", "f"]).ok();
    server.until_no_instance();
    assert!(is_alive(stranger.pid()), "a stranger is left alone");
}

#[test]
fn journals_that_cannot_be_believed() {
    let mut server = Server::start();
    for round in 0..3 {
        server.deploy_subject(&[], "idle: {pause: never}");
        let before = pid(&server.get("/pid"));
        server.crash();
        let folder = folders(&server).pop().unwrap();
        match round {
            // Of another boot of the host.
            0 => change_journal(&folder, |journal| journal["host_boot"] = json!("another")),
            1 => fs::write(folder.join("journal.json"), "{\"half").unwrap(),
            _ => fs::remove_dir_all(&folder).unwrap(),
        }
        server.start_again();
        until_true("it was found by its mark and ended", || !is_alive(before));
        assert_eq!(server.get("/pid").header("x-kip-start"), Some("cold"));
    }
}

#[test]
fn a_program_without_its_environment_and_under_another_name() {
    let mut server = Server::start();
    let script = format!("exec -a something-else env -i PORT=$PORT {}", support::subject().display());
    let text = manifest(&[format!("  f:\n    run: [bash, -c, {}]\n    idle: {{stop: 10s}}\n", json!(script))]);
    server.deploy(&text);
    let first = pid(&server.get("/pid"));
    assert_eq!(fs::read_to_string(format!("/proc/{first}/environ")).unwrap().matches("KIPWAKE").count(), 0);
    server.crash();
    server.start_again();
    assert_eq!(pid(&server.get("/pid")), first);
    server.kip(&["rm", "f"]).ok();
    server.until_no_instance();
    assert!(!is_alive(first));
}

#[test]
fn removed_and_replaced_while_in_use() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: never}\nenv: {V: '1'}");
    let old = pid(&server.get("/pid"));
    let flying = server.later("GET", "/delay/3000");
    until_true("it is in flight", || server.function()["in_flight"] == 1);
    server.deploy_subject(&[], "idle: {pause: never}\nenv: {V: '2'}");
    assert_eq!(server.get("/env").json()["V"], "2");
    server.crash();
    drop(flying.join());
    server.start_again();
    assert_eq!(server.instances().len(), 2, "the old version's is busy still: {:?}", server.instances());
    assert_eq!(server.get("/env").json()["V"], "2");
    until_true("the old one goes when it is done", || !is_alive(old));

    let current = pid(&server.get("/pid"));
    let flying = server.later("GET", "/delay/60000");
    until_true("it is in flight", || server.function()["in_flight"] == 1);
    server.kip(&["rm", "f"]).ok();
    assert!(is_alive(current));
    server.crash();
    drop(flying.join());
    server.start_again();
    until_true("nobody can call it any more, so it is ended", || !is_alive(current));
    assert!(server.instances().is_empty());
}

#[test]
fn the_binary_is_replaced() {
    let mut server = Server::start();
    server.signal(Signal::INT);
    server.wait();
    let own = server.folder().join("kip");
    let install = |server: &Server| {
        let new = server.folder().join("kip.new");
        fs::copy(support::KIP, &new).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &own).unwrap();
    };
    let serve = |server: &mut Server| {
        let plain = server.serve_command();
        let mut command = Command::new(&own);
        command.args(plain.get_args());
        for (name, value) in plain.get_envs().filter(|(_, value)| value.is_none()) {
            assert!(value.is_none());
            command.env_remove(name);
        }
        server.start_by(command);
    };
    install(&server);
    serve(&mut server);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits/model");
    let digits = format!("  digits:\n    model: {}\n", model.canonicalize().unwrap().display());
    server.deploy(&manifest(&[function("f", &[], ""), digits]));
    let ready = |server: &Server| call(server.gateway, "GET", "/f/digits/v2/health/ready", "", b"").status();
    let first = pid(&server.get("/pid"));
    assert_eq!(ready(&server), 200);
    let before = server.known();
    assert_eq!(before.len(), 2);
    // Twice: once while it runs and once while it does not.
    install(&server);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    install(&server);
    serve(&mut server);
    assert_eq!(server.known(), before);
    assert_eq!((pid(&server.get("/pid")), ready(&server)), (first, 200));
    // The new binary also starts new ones of its model server.
    let old = *before.iter().find(|process| **process != first).unwrap();
    kill(old, Signal::KILL);
    until("a new one serves", || Some(ready(&server)).filter(|status| *status == 200));
    assert!(!is_alive(old));
}
