//! What instances write is kept whatever becomes of the server, and is found again.

use std::collections::BTreeSet;
use std::fs::{self, File};

use serde_json::Value;

use crate::support::{self, ChildGuard, Server, function, manifest, until_true};

/// The numbers of a ticking program's lines, in the order of the log.
fn ticks(server: &Server) -> Vec<u64> {
    let lines = server.ask_lines(&["logs", "f", "-n", "1000000"]);
    let number = |line: &Value| line["line"].as_str()?.strip_prefix("tick ")?.parse().ok();
    lines.iter().filter_map(number).collect()
}

#[test]
pub(crate) fn no_line_is_lost_when_the_server_is_killed() {
    let mut server = Server::start();
    server.deploy_subject(&["--tick", "200"], "idle: {pause: never}");
    assert_eq!(server.get("/").status(), 200);
    for _ in 0..4 {
        let before = ticks(&server).len();
        until_true("it writes on", || ticks(&server).len() > before + 100);
        server.crash();
        // So many lines are written while nobody reads.
        std::thread::sleep(std::time::Duration::from_millis(100));
        server.start_again();
    }
    let found = ticks(&server);
    let distinct: BTreeSet<u64> = found.iter().copied().collect();
    let last = *distinct.last().unwrap();
    assert_eq!(distinct.len() as u64, last + 1, "every line from 0 to {last} is there");
    // What was written down and not taken from the pipe yet is there twice; that is a chunk at most.
    assert!(found.len() - distinct.len() < 4 * 4_096, "{} of {}", found.len(), distinct.len());
}

#[test]
fn the_lines_of_one_request() {
    let server = Server::start();
    let one = "instances: {max: 1}";
    let many = "instances: {max: 1, concurrency: 8}";
    server.deploy(&manifest(&[function("f", &[], one), function("g", &[], many)]));
    let id = |function: &str, path: &str| {
        support::call(server.gateway, "GET", &format!("/f/{function}{path}"), "", b"").text()
    };
    let lines = |function: &str, id: &str| server.kip(&["logs", function, "--request", id]).ok();

    let (first, second) = (id("f", "/marked"), id("f", "/marked"));
    assert_ne!(first, second);
    let by_marks = lines("f", &first);
    assert_eq!(by_marks.stdout.lines().count(), 3, "{by_marks:?}");
    assert!(by_marks.stdout.contains("subject: marked work") && !by_marks.stdout.contains(&second), "{by_marks:?}");

    let named = id("f", "/json");
    let by_name = server.ask_lines(&["logs", "f", "--request", &named]);
    assert_eq!(by_name.len(), 1, "{by_name:?}");
    let fields = ["level", "message", "request_id"].map(|name| by_name[0][name].as_str().unwrap_or_default());
    assert_eq!(fields, ["WARN", "as JSON", named.as_str()]);

    for (function, remark) in [("f", "its instance had no other request meanwhile"), ("g", "up to 8 requests")] {
        let unnamed = id(function, "/unnamed");
        let by_time = lines(function, &unnamed);
        assert!(by_time.stdout.contains("subject: unnamed work"), "{by_time:?}");
        assert!(by_time.stderr.contains("were written while it was served") && by_time.stderr.contains(remark));
    }
    let none = lines("f", "r-none");
    assert!(none.stdout.is_empty() && none.stderr.contains("no line names request r-none"), "{none:?}");
}

#[test]
fn the_end_of_a_log_as_it_grows() {
    let server = Server::start();
    server.deploy_subject(&[], "idle: {stop: 200ms}");
    assert_eq!(server.get("/log/3").status(), 200);
    let seen = server.folder().join("seen");
    let mut command = support::kip(&server.data());
    command.args(["logs", "f", "-f", "-n", "1"]).stdout(File::create(&seen).unwrap());
    let _following = ChildGuard::spawn(&mut command);
    let text = || fs::read_to_string(&seen).unwrap();
    until_true("the last line is shown", || text().contains("subject: line 2"));
    assert_eq!(text().lines().count(), 1, "{}", text());
    server.until_no_instance();
    assert_eq!(server.get("/log/5").status(), 200);
    until_true("the next instance's lines as well", || text().contains("subject: line 4"));
    let ids: BTreeSet<String> = text()
        .lines()
        .filter_map(|line| line.split(' ').find(|word| word.starts_with("i-")).map(str::to_owned))
        .collect();
    assert_eq!(ids.len(), 2, "{}", text());
    // Only one of them, and only what is new.
    let one = ids.first().unwrap();
    let lines = server.ask_lines(&["logs", "f", "--instance", one]);
    assert!(!lines.is_empty() && lines.iter().all(|line| line["instance"] == one.as_str()));
    assert!(server.ask_lines(&["logs", "f", "--since", "1h"]).len() >= 8);
    assert!(server.ask_lines(&["logs", "f", "--since", "2020-01-01T00:00:00Z"]).len() >= 8);
    until_true("nothing is new", || server.ask_lines(&["logs", "f", "--since", "100ms"]).is_empty());
}

#[test]
fn records_of_several_lines_are_put_together() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    assert_eq!(server.get("/traceback").status(), 200);
    let of_stderr = |arguments: &[&str]| -> Vec<String> {
        let lines = server.ask_lines(arguments);
        let text = |line: &Value| line["line"].as_str().unwrap().to_owned();
        lines.iter().filter(|line| line["stream"] == "err").map(text).collect()
    };
    assert_eq!(of_stderr(&["logs", "f"]).len(), 4);
    let joined = of_stderr(&["logs", "f", "--join"]);
    assert_eq!(joined.len(), 1, "{joined:?}");
    assert!(joined[0].starts_with("Traceback") && joined[0].ends_with("\nValueError: no"), "{joined:?}");
}

#[test]
fn a_selection_that_cannot_be_is_refused() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    assert_eq!(server.get("/").status(), 200);
    server.kip(&["logs", "f", "--instance", "i-9-9-9"]).failed(&["KW-3002", "no instance", "kip ps"]);
    for wrong in [["--status", "9xx"], ["--limit", "0"], ["--start", "hot"]] {
        let refused = server.kip(&[&["requests", "f"][..], &wrong[..]].concat());
        assert!(refused.code == Some(1) && refused.stderr.contains("error[KW-"), "{wrong:?}: {refused:?}");
    }
}
