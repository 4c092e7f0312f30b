//! The server killed at every moment that matters: between two steps of each operation, and again and again under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kip_host::environment::FAIL_POINT;
use rustix::process::Signal;

use crate::http::Answer;
use crate::support::{Server, apart, is_alive, kill, until_true};

fn pid(answer: &Answer) -> u32 {
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.text().parse().expect("a process id")
}

/// Every process that runs for the server is one that it knows.
fn until_no_orphan(server: &Server) {
    until_true("no process is left over, and none is there twice", || {
        let mut processes = server.processes();
        processes.sort_unstable();
        processes == server.known()
    });
}

/// Starts the server so that it kills itself at a point.
fn start_failing(server: &mut Server, point: &str) {
    let mut command = server.serve_command();
    command.env(FAIL_POINT, point);
    server.start_by(command);
}

/// Drives a function through the point, waits for the crash, and checks what the next server makes of it.
fn crash_at(point: &str, settings: &str, drive: impl FnOnce(&Server)) {
    let mut server = Server::start();
    server.deploy_subject(&[], settings);
    server.signal(Signal::INT);
    server.wait();
    start_failing(&mut server, point);
    drive(&server);
    assert!(!server.wait().success(), "the server killed itself at `{point}`");
    server.start_again();
    assert_eq!(server.get("/pid").status(), 200, "after a crash at `{point}`");
    until_no_orphan(&server);
}

/// A call whose server may go away in the midst of it.
fn call_into_the_crash(server: &Server) {
    let _ = server.later("GET", "/pid").join();
}

#[test]
fn between_the_steps_of_a_start() {
    for point in ["start: folder made", "start: spawned", "start: noted", "start: ready", "start: ready noted"] {
        crash_at(point, "idle: {pause: never}", call_into_the_crash);
    }
    crash_at("initialize: answered", "lifecycle: {initialize: /initialize}", call_into_the_crash);
}

#[test]
fn between_the_steps_of_a_pause_and_a_wake() {
    for point in ["pause: begun", "pause: frozen"] {
        crash_at(point, "idle: {pause: 10ms}", call_into_the_crash);
    }
    for point in ["resume: begun", "resume: thawed"] {
        crash_at(point, "idle: {pause: 10ms}", |server| {
            assert_eq!(server.get("/pid").status(), 200);
            server.until_state("paused");
            call_into_the_crash(server);
        });
    }
}

#[test]
fn between_the_steps_of_a_drain_and_a_stop() {
    for point in ["stop: noted", "stop: asked", "stop: gone"] {
        crash_at(point, "idle: {stop: 10ms}\ntimeouts: {grace: 1s}", call_into_the_crash);
    }
}

#[test]
fn an_adopted_instance_goes_through_the_same_crashes() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 10ms}\ninstances: {max: 1}");
    let first = pid(&server.get("/pid"));
    for point in ["resume: begun", "resume: thawed", "pause: begun", "pause: frozen"] {
        server.until_state("paused");
        server.crash();
        start_failing(&mut server, point);
        call_into_the_crash(&server);
        server.wait();
        server.start_again();
        assert_eq!(pid(&server.get("/pid")), first, "after a crash at `{point}`");
        until_no_orphan(&server);
    }
}

#[test]
fn while_an_instance_dies() {
    let mut server = Server::start();
    server.deploy_subject(&[], "instances: {min: 3, max: 3}\nidle: {pause: never}");
    until_true("all are there", || server.function()["hot"] == 3);
    for victim in server.known() {
        kill(victim, Signal::KILL);
        server.crash();
        server.start_again();
        until_true("three again", || server.function()["hot"] == 3);
        until_no_orphan(&server);
        assert!(!is_alive(victim));
    }
}

/// Callers that go on through every crash, and count what they were answered.
fn rounds_under_load(rounds: u32) {
    let mut server = Server::start();
    let settings = "instances: {min: 3, max: 3, concurrency: 2}\nidle: {pause: 20ms}\ntimeouts: {queue: 20s}";
    server.deploy_subject(&[], settings);
    until_true("all are there", || server.known().len() == 3);
    let instances = server.known();
    let served = Arc::new(AtomicUsize::new(0));
    for round in 0..rounds {
        let over = Arc::new(AtomicBool::new(false));
        let gateway = server.gateway;
        let callers: Vec<_> = (0..6)
            .map(|caller| {
                let (over, served) = (over.clone(), served.clone());
                let path = ["/f/f/pid", "/f/f/delay/30", "/f/f/stream/5/10"][caller % 3];
                apart(move || {
                    let mut odd = Vec::new();
                    while !over.load(Ordering::SeqCst) {
                        // One that the crash cut off ends at once as well; it must not hang.
                        match crate::http::try_call(gateway, path) {
                            Ok(answer) if answer.clean && answer.status() == 200 => {
                                served.fetch_add(1, Ordering::SeqCst);
                            }
                            Ok(answer) if answer.clean => odd.push(format!("{answer:?}")),
                            Ok(_) | Err(_) => {}
                        }
                    }
                    odd
                })
            })
            .collect();
        let before = served.load(Ordering::SeqCst);
        until_true("requests are served", || served.load(Ordering::SeqCst) > before + 20);
        server.crash();
        over.store(true, Ordering::SeqCst);
        let odd: Vec<String> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        assert_eq!(odd, Vec::<String>::new(), "round {round}: answered with an error before the crash");
        server.start_again();
        let adopted: BTreeSet<u32> = server.known().into_iter().collect();
        assert_eq!(adopted, instances.iter().copied().collect(), "round {round}: none lost, none twice");
        assert!(instances.contains(&pid(&server.get("/pid"))), "round {round}");
    }
    server.until_quiet();
    until_no_orphan(&server);
}

#[test]
fn five_rounds_under_load() {
    rounds_under_load(5);
}

#[test]
#[ignore = "takes minutes; `cargo xtask soak` runs it"]
fn fifty_rounds_under_load() {
    rounds_under_load(50);
}

#[test]
fn a_vital_task_that_panics_ends_the_server_in_order_and_the_next_one_adopts() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 10ms}\ninstances: {max: 1}");
    let first = pid(&server.get("/pid"));
    for (point, task) in [
        ("router: message", "router"),
        ("timers: due", "timers"),
        ("record writer: batch", "record writer"),
        ("ends: taken", "ends of instances"),
    ] {
        server.until_state("paused");
        server.signal(Signal::TERM);
        server.wait();
        let mut command = server.serve_command();
        command.env(FAIL_POINT, format!("panic: {point}"));
        // What an adoption brings may lead to the point before the server is ready.
        let ended = server.try_start_by(command);
        match task {
            _ if ended.is_some() => {}
            "ends of instances" => kill(first, Signal::KILL),
            // A request wakes it, and it falls asleep again: timers, the placer and the records have work.
            _ => call_into_the_crash(&server),
        }
        let status = server.wait();
        assert_eq!(status.code(), Some(1), "after a panic at `{point}`: {}", server.log());
        let log = server.log();
        let last = log.lines().rfind(|line| line.contains("ERROR")).unwrap_or_default();
        assert!(last.contains(&format!("the task `{task}` panicked")), "the log ends with another reason: {log}");
        assert!(server.printed().contains("KW-8024"), "{}", server.printed());
        server.start_again();
        if task != "ends of instances" {
            assert_eq!(pid(&server.get("/pid")), first, "adopted after a panic at `{point}`");
        }
        until_no_orphan(&server);
    }
    assert_eq!(server.get("/pid").status(), 200);
}
