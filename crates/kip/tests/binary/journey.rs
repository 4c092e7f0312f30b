//! One instance through its whole life, seen from outside: cold, warm, paused, woken, gone.

use std::fs;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{self, ChildGuard, Server, function, manifest, until, until_true};

/// User and system time of a process, in clock ticks.
fn cpu_ticks(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Whether the kernel gives a process no CPU: stopped, or in a frozen cgroup.
fn is_frozen(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
        return true;
    }
    let own = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let Some(mount) = mount.and_then(|line| line.split(' ').nth(1)) else { return false };
    let events = fs::read_to_string(format!("{mount}/{path}/cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}

#[test]
fn cold_warm_paused_woken_stopped() {
    let server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 300ms, stop: 2s}");
    assert!(server.instances().is_empty(), "nothing runs before the first request");

    let cold = server.get("/pid");
    assert_eq!((cold.status(), cold.header("x-kip-start")), (200, Some("cold")), "{cold:?}");
    let timing = cold.header("server-timing").unwrap();
    assert!(timing.starts_with("start;dur=") && timing.contains("first_byte;dur="), "{timing}");
    let pid: u32 = cold.text().parse().unwrap();

    let warm = server.get("/pid");
    assert_eq!((warm.text(), warm.header("x-kip-start")), (pid.to_string(), Some("warm")));
    assert!(warm.header("server-timing").unwrap().starts_with("queue;dur="), "{warm:?}");
    assert_eq!(warm.header("x-kip-instance"), cold.header("x-kip-instance"));

    let paused = server.until_state("paused");
    assert_eq!((paused["process"].as_u64(), paused["served"].as_u64()), (Some(u64::from(pid)), Some(2)));
    assert!(is_frozen(pid), "process {pid} gets no CPU");

    let woken = server.get("/pid");
    assert_eq!((woken.text(), woken.header("x-kip-start")), (pid.to_string(), Some("woken")), "{woken:?}");
    assert!(woken.header("server-timing").unwrap().starts_with("wake;dur="), "{woken:?}");

    server.until_no_instance();
    assert!(!support::is_alive(pid));
    assert_eq!(server.processes(), Vec::<u32>::new());
    let again = server.get("/pid");
    assert_eq!(again.header("x-kip-start"), Some("cold"));
    assert_ne!(again.header("x-kip-instance"), cold.header("x-kip-instance"), "an id is never used again");

    let steps = server.steps().join(" ");
    let life = ">requested requested>starting starting>ready ready>pausing pausing>paused paused>waking waking>ready";
    assert!(steps.contains(life), "{steps}");
    assert!(steps.contains("paused>stopping stopping>gone"), "{steps}");
}

#[test]
fn a_paused_instance_uses_no_cpu() {
    let server = Server::start();
    server.deploy_subject(&["--spin"], "idle: {pause: 1s, cpu: false}");
    let pid = server.get("/pid").text().parse::<u32>().unwrap();
    until_true("it uses some CPU", || cpu_ticks(pid).is_some_and(|ticks| ticks > 2));
    server.until_state("paused");
    assert!(is_frozen(pid));
    let before = cpu_ticks(pid).unwrap();
    // The same program, awake, shows that there was CPU to be had meanwhile.
    server.deploy(&manifest(&[function("other", &["--spin"], "idle: {pause: never}")]));
    let other = support::call(server.gateway, "GET", "/f/other/pid", "", b"").text().parse::<u32>().unwrap();
    until_true("the other one uses some CPU", || cpu_ticks(other).is_some_and(|ticks| ticks > 10));
    assert_eq!(cpu_ticks(pid), Some(before));
}

#[test]
fn every_command_speaks_json_and_keeps_remarks_apart() {
    let server = Server::start();
    server.deploy_subject(&[], "idle: {pause: never}\ntimeouts: {first_byte: 20m}");
    let warned =
        server.try_deploy(&manifest(&[function("f", &[], "idle: {pause: never}\ntimeouts: {first_byte: 20m}")]));
    assert!(warned.stderr.contains("warning[KW-1009]"), "{warned:?}");
    assert!(warned.stdout.contains("not started") && !warned.stdout.contains("warning"), "{warned:?}");

    let called = server.kip(&["invoke", "f", "/echo?x=1", "-d", "hello", "-H", "x-mine: 2"]).ok();
    let echo: serde_json::Value = serde_json::from_str(&called.stdout).unwrap();
    assert_eq!((echo["method"].as_str(), echo["length"].as_u64()), (Some("POST"), Some(5)));
    assert_eq!(echo["target"], "/echo?x=1");
    assert!(called.stderr.starts_with("200 cold on "), "{called:?}");
    server.get("/log/3");

    let functions = server.ask(&["ls"]);
    assert_eq!((functions[0]["name"].as_str(), functions[0]["hot"].as_u64()), (Some("f"), Some(1)));
    let instances = server.ask(&["ps"]);
    let id = instances[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.ask(&["inspect", &id])["id"], id.as_str());
    assert_eq!(server.ask(&["inspect", "f"])["spec"]["name"], "f");
    let requests = server.ask(&["requests", "f"]);
    assert_eq!(requests.as_array().unwrap().len(), 2, "{requests}");
    assert_eq!((&requests[1]["start"], &requests[1]["method"]), (&"cold".into(), &"POST".into()));
    assert!(requests[1]["queue_us"].as_u64() > Some(0) && requests[1]["total_us"].as_u64() > Some(0));
    let why = server.ask(&["why", "f"]);
    assert_eq!(why["function"]["name"], "f");
    let reasons = why["decisions"].to_string();
    assert!(reasons.contains("1 request waits and no hot instance is free"), "{reasons}");
    let invoked = server.ask(&["invoke", "f", "/pid"]);
    assert_eq!((&invoked["status"], &invoked["start"]), (&200.into(), &"warm".into()));
    for arguments in [&["config", "show"][..], &["config", "schema"], &["schema"]] {
        server.ask(arguments);
    }
    server.doctor();
    for line in server.kip(&["logs", "f", "-o", "json"]).ok().stdout.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["instance"], &line["stream"]), (&id.as_str().into(), &"out".into()));
    }

    for (arguments, header) in [
        (&["ls"][..], "FUNCTION"),
        (&["ps"], "INSTANCE"),
        (&["requests"], "TIME"),
        (&["why", "f"], "f r2: 1 hot, 0 starting, 0 asleep; 0 in flight"),
        (&["inspect", "f"], "function     f\nserves       r2"),
        (&["config", "show"], "SETTING"),
    ] {
        let ran = server.kip(arguments).ok();
        assert!(ran.stdout.starts_with(header), "{ran:?}");
        assert_eq!(ran.stderr, "");
    }
    assert!(server.kip(&["doctor"]).stdout.starts_with("ok    data directory"));
    assert_eq!(server.ask(&["rm", "f"]), serde_json::json!({"removed": "f"}));
    let gone = server.kip(&["inspect", "f", "-o", "json"]);
    assert_eq!((gone.code, &gone.json()["error"]["code"]), (Some(1), &"KW-3001".into()), "{gone:?}");
}

#[test]
fn logs_show_the_last_lines_and_follow_instances_to_come() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {stop: 200ms}");
    server.get("/log/5");
    let last = server.kip(&["logs", "f", "-n", "2"]).ok();
    let lines: Vec<&str> = last.stdout.lines().map(|line| line.split_once(" | ").unwrap().1).collect();
    assert_eq!(lines, ["subject: line 3", "subject: line 4"]);

    let file = server.folder().join("followed");
    let mut follow = support::kip(&server.data());
    follow.args(["logs", "f", "--follow"]).stdout(fs::File::create(&file).unwrap()).stderr(Stdio::null());
    let mut follow = ChildGuard::spawn(&mut follow);
    let read = || fs::read_to_string(&file).unwrap();
    until_true("the past is shown", || read().contains("subject: line 4"));
    server.until_no_instance();
    let second = server.get("/log/2").header("x-kip-instance").unwrap().to_owned();
    let wanted = format!("{second} r1  out | subject: line 1");
    until_true("the next instance is followed", || read().contains(&wanted));
    server.signal(Signal::INT);
    server.wait();
    until("the follower ends with the server", || follow.ended());
}

#[test]
fn stop_ends_the_server_and_all_it_runs() {
    let mut server = Server::start();
    server.deploy_subject(&[], "instances: {min: 2, max: 2}");
    until_true("both are ready", || server.function()["hot"] == 2);
    let stopped = server.kip(&["stop", "-o", "json"]).ok();
    assert_eq!(stopped.json()["stopped"], server.pid);
    assert!(server.wait().success());
    assert!(server.processes().is_empty());
    server.kip(&["ls"]).failed(&["KW-7005", "no server runs on the data directory", "kip serve"]);
}
