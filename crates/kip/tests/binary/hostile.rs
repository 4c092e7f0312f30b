//! Programs that behave badly, and a server that must not suffer from it.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::bodies::pid;
use crate::support::{Server, is_alive, until, until_true};

/// Why declared limits are not enforced here, if they are not.
fn limits_missing(server: &Server) -> Option<String> {
    server.api_get("/api/v1/status").json()["limits_missing"].as_str().map(str::to_owned)
}

/// The memory of the server itself, in bytes.
fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim();
    line.trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

#[test]
pub(crate) fn one_that_eats_memory_to_its_limit_is_named() {
    let server = Server::start();
    if let Some(reason) = limits_missing(&server) {
        eprintln!("skipped: {reason}");
        return;
    }
    server.deploy_subject(&[], "resources: {memory: 64MiB}\nidle: {pause: never}");
    let first = pid(&server.get("/pid"));
    assert_eq!(server.get("/eat/16").text(), "eaten\n", "within its limit");
    let id = server.instances()[0]["id"].as_str().unwrap().to_owned();
    let peak = server.ask(&["inspect", &id])["peak_memory"].as_u64().unwrap();
    assert!((16 << 20..=64 << 20).contains(&peak), "{peak}");
    let answer = server.call("POST", "/eat/200");
    assert_eq!((answer.code().as_str(), answer.status()), ("KW-2010", 502), "{answer:?}");
    assert!(!is_alive(first));
    let why =
        until("it is named", || Some(server.kip(&["why", "f"]).ok().stdout).filter(|why| why.contains("KW-4010")));
    assert!(why.contains("was killed for memory, at its limit of 64MiB (resources.memory)"), "{why}");
    // Others are not touched, and the next one serves.
    assert_ne!(pid(&until("it is replaced", || Some(server.get("/pid")).filter(|a| a.status() == 200))), first);
}

#[test]
pub(crate) fn one_that_eats_memory_at_its_start_is_named() {
    let server = Server::start();
    if let Some(reason) = limits_missing(&server) {
        eprintln!("skipped: {reason}");
        return;
    }
    server.deploy_subject(&["--eat", "200"], "resources: {memory: 64MiB, cpu: 500m}");
    let answer = server.get("/pid");
    assert_eq!((answer.code().as_str(), answer.status()), ("KW-4010", 502), "{answer:?}");
    assert!(answer.said().contains("at its limit of 64MiB"), "{answer:?}");
    server.until_no_instance();
    assert!(server.processes().is_empty());
}

#[test]
pub(crate) fn cpu_is_limited() {
    let server = Server::start();
    if let Some(reason) = limits_missing(&server) {
        eprintln!("skipped: {reason}");
        return;
    }
    server.deploy_subject(&["--spin"], "resources: {cpu: 100m}\nidle: {pause: never}");
    let process = pid(&server.get("/pid"));
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    // So much time is a quarter of what it takes without a limit; more takes it with none.
    let (begin, before) = (kip_host::clock::boot_millis(), ticks());
    until_true("it has used some CPU", || ticks() >= before + 20);
    let took = kip_host::clock::boot_millis() - begin;
    assert!(took >= 1_000, "200 ms of CPU at a tenth of a core took {took} ms");
}

#[test]
fn one_that_writes_without_end_costs_no_memory() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1}\ntimeouts: {first_byte: 60s, total: 60s}");
    pid(&server.get("/pid"));
    let before = resident(&server);
    for path in ["/write/64", "/endless/64"] {
        let answer = server.get(path);
        assert_eq!(answer.text(), "written\n", "{answer:?}");
        let last = server.kip(&["logs", "f", "-n", "1"]).ok().stdout;
        assert!(last.ends_with("subject: written\n"), "{last}");
        let grown = resident(&server).saturating_sub(before);
        assert!(grown < 48 << 20, "{grown} bytes more after {path}");
    }
    let kept: u64 =
        fs::read_dir(server.data().join("logs/f")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(kept <= 70 << 20, "{kept} bytes of logs are kept");
    let lines = server.ask_lines(&["logs", "f", "-n", "20"]);
    let cut: Vec<&Value> = lines.iter().filter(|line| line["cut"] == true).collect();
    assert!(!cut.is_empty() && cut.iter().all(|line| line["line"].as_str().unwrap().len() == 64 << 10));
}

#[test]
fn one_that_closes_its_port_is_found_out() {
    let mut server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1}\nidle: {pause: never}");
    let first = pid(&server.get("/pid"));
    assert_eq!(server.get("/close-port").text(), "closed\n");
    // The very next request: what refuses connections is out at once, and another one answers.
    let next = server.get("/pid");
    assert_eq!(next.status(), 200, "{next:?}");
    let second = pid(&next);
    assert_ne!(second, first);
    until_true("the one without a port is ended", || !is_alive(first));

    assert_eq!(server.get("/close-port").text(), "closed\n");
    server.crash();
    server.start_again();
    until_true("the next server does not take it over", || !is_alive(second));
    assert_ne!(pid(&server.get("/pid")), second);
}

#[test]
fn frozen_ones_are_ended_without_being_thawed() {
    let mut server = Server::start();
    server.deploy_subject(&["--ignore-term", "--fork"], "instances: {min: 2, max: 2}\nidle: {pause: 50ms}");
    until_true("both sleep", || server.function()["asleep"] == 2);
    server.signal(Signal::TERM);
    server.wait();
    assert!(server.processes().len() >= 4);
    assert!(server.kip(&["stop"]).ok().stdout.contains("ended the 2 instances"));
    assert_eq!(server.processes(), Vec::<u32>::new());
}

/// Starts the server with a limit on open files, soft and hard.
pub(crate) fn start_with_files(server: &mut Server, limit: &str) {
    server.signal(Signal::INT);
    server.wait();
    let plain = server.serve_command();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
    command.arg(plain.get_program()).args(plain.get_args());
    for (name, _) in plain.get_envs() {
        command.env_remove(name);
    }
    server.start_by(command);
}

#[test]
fn few_open_files_are_said_and_survived() {
    let mut server = Server::start();
    start_with_files(&mut server, "-n 300");
    assert!(server.log().contains("few open files are allowed"), "{}", server.log());
    server.deploy_subject(&[], "instances: {max: 1}");
    let first = pid(&server.get("/pid"));
    // More callers than it has room for, who say nothing.
    let callers: Vec<TcpStream> = (0..340).filter_map(|_| TcpStream::connect(server.gateway).ok()).collect();
    assert!(callers.len() > 300);
    until_true("it is full", || server.log().contains("a connection could not be taken"));
    assert!(is_alive(first) && is_alive(server.pid));
    drop(callers);
    // It notices the end of each caller by itself.
    let again = || Some(server.get("/pid")).filter(|answer| answer.status() == 200);
    assert_eq!(pid(&until("it takes callers again", again)), first);
    server.until_quiet();
}

#[test]
fn a_soft_limit_on_files_is_raised_for_the_server_alone() {
    let mut server = Server::start();
    start_with_files(&mut server, "-S -n 400");
    server.deploy_subject(&[], "");
    let instance = pid(&server.get("/pid"));
    let soft = |process: u32| {
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
        line.split_whitespace().nth(3).unwrap().parse::<u64>().unwrap()
    };
    assert!(soft(server.pid) > 400);
    assert_eq!(soft(instance), 400);
}
