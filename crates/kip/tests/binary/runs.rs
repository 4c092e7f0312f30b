//! `kip run`, and the output of a task: streams, exit codes, what is left behind, what is refused.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{ChildGuard, CommandOutput, Server, call, kip, until, until_true};
use crate::tasks::Bench;

fn script(text: &str) -> Vec<&str> {
    vec!["run", "--", "sh", "-c", text]
}

#[test]
fn a_run_streams_its_output_and_ends_as_its_program() {
    let server = Server::start();
    let ran = server.kip(&script("echo to-out; echo to-err >&2; echo '  indented'; exit 7"));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), "to-out\n  indented\n"), "{ran:?}");
    assert!(ran.stderr.contains("to-err\n") && ran.stderr.contains("KW-5007"), "{ran:?}");
    let ran = server.kip(&script("seq 1 3000")).ok();
    assert_eq!(ran.stdout.lines().count(), 3_000, "nothing is lost, and nothing is shown twice");
    assert_eq!(ran.stdout.lines().last(), Some("3000"));
    assert_eq!(server.kip(&script("kill -TERM $$")).code, Some(143));
    let json = server.kip(&["run", "-o", "json", "--", "sh", "-c", "echo x; exit 4"]);
    assert_eq!((json.code, &json.json()["status"]), (Some(4), &json!("Failed")));

    // It comes as it is written, while the program runs.
    let (out, gate) = (server.folder().join("out"), server.folder().join("gate"));
    let text = format!("echo first; while [ ! -e {} ]; do sleep 0.02; done; echo last", gate.display());
    let mut command = kip(&server.data());
    command
        .args(script(&text))
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(out.with_extension("err")).unwrap());
    let mut running = ChildGuard::spawn(&mut command);
    until_true("the first line is shown", || fs::read_to_string(&out).unwrap() == "first\n");
    fs::write(&gate, "").unwrap();
    let status = until("it ends", || running.ended());
    assert!(status.success());
    assert_eq!(fs::read_to_string(&out).unwrap(), "first\nlast\n");
}

#[test]
fn one_off_runs_leave_no_function_but_their_task_and_log() {
    let server = Server::start();
    server.kip(&script("echo kept")).ok();
    let task = server.ask(&["task", "ls"])["tasks"][0].clone();
    let (name, id) = (task["functionName"].as_str().unwrap(), task["taskId"].as_str().unwrap());
    assert!(name.starts_with("run-sh-"), "{task}");
    let none = || server.ask(&["ls"]).as_array().unwrap().is_empty();
    until_true("the function is gone", none);
    let log = server.kip(&["logs", name, "--task", id]).ok().stdout;
    assert!(log.contains("| kept"), "{log}");
    assert_eq!(server.ask(&["task", "show", name, id])["status"], "Succeeded");
    // Detached, and over a crash of the server.
    let mut server = server;
    let gate = server.folder().join("gate");
    let text = format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display());
    let words = ["-o", "json", "run", "--detach", "--name", "long", "--", "sh", "-c", &text];
    let detached = server.kip(&words).ok().json();
    until_true("it runs", || {
        server.ask(&["task", "show", "long", detached["taskId"].as_str().unwrap()])["status"] == "Running"
    });
    server.crash();
    server.start_again();
    assert_eq!(server.ask(&["ls"])[0]["name"], "long");
    fs::write(&gate, "").unwrap();
    until_true("the function is gone", || server.ask(&["ls"]).as_array().unwrap().is_empty());
}

#[test]
fn an_ask_that_no_host_meets_is_refused_at_once() {
    let server = Server::with("[[device]]\nname = \"gpu0\"\nmemory = \"24GiB\"\ntype = \"L4\"");
    let ask = |words: &[&str]| server.kip(&[&["run"], words, &["--", "true"]].concat());
    ask(&["--gpu", "40GiB"]).failed(&["KW-3004", "it needs 40GiB of one device, and there are: gpu0 (24GiB)"]);
    ask(&["--memory", "100TiB"]).failed(&["KW-3004", "of memory, and a host has"]);
    assert_eq!(server.ask(&["ls"]), json!([]), "nothing is deployed for it");
    ask(&["--gpu", "4GiB"]).ok();
    let devices = server.ask(&["device", "ls"]);
    let own =
        devices.as_array().unwrap().iter().find(|device| device["declared"] == "gpu0").cloned().unwrap_or_default();
    assert_eq!((&own["type"], own["declared_memory"].as_u64()), (&json!("L4"), Some(24 << 30)), "{devices}");
}

#[test]
fn the_log_of_a_task_is_that_of_its_runs() {
    let server = Server::start();
    let ledger = Path::new("/dev/null").display().to_string();
    server.deploy(&format!(
        "api: kip/v1\njobs:\n  j: {{run: [sh, -c, 'read word; echo said $word $KIPWAKE_TASK_ATTEMPT; [ $KIPWAKE_TASK_ATTEMPT = 2 ]'], retries: 1, env: {{X: {ledger}}}}}\n"
    ));
    let submit = |word: &str| {
        let task = server.ask(&["invoke", "j", "--async", "-X", "POST", "-d", word]);
        task["task"].as_str().unwrap_or_else(|| panic!("{task}")).to_owned()
    };
    let ids = ["one", "two"].map(submit);
    for (id, word) in ids.iter().zip(["one", "two"]) {
        // Followed, it ends with the task.
        let lines = server.ask_lines(&["logs", "j", "--task", id, "--follow"]);
        let lines: Vec<&str> = lines.iter().map(|line| line["line"].as_str().unwrap()).collect();
        assert_eq!(lines, [format!("said {word} 1"), format!("said {word} 2")]);
    }
    server.kip(&["logs", "j", "--task", "t99999"]).failed(&["KW-5001"]);
}

#[test]
fn ctrl_c_says_what_goes_on() {
    let server = Server::start();
    let err = server.folder().join("err");
    let mut command = kip(&server.data());
    command.args(["run", "--name", "long", "--", "sh", "-c", "echo begun; sleep 1000"]);
    let out = server.folder().join("out");
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut running = ChildGuard::spawn(&mut command);
    until_true("it runs", || fs::read_to_string(&out).unwrap() == "begun\n");
    crate::support::kill(running.pid(), rustix::process::Signal::INT);
    let status = until("it ends", || running.ended());
    assert_eq!(status.code(), Some(130));
    let said = fs::read_to_string(&err).unwrap();
    assert!(said.contains("interrupted: the run goes on") && said.contains("kip task stop long t"), "{said}");
    let task = server.ask(&["task", "ls", "long"])["tasks"][0].clone();
    assert_eq!(task["status"], "Running");
    server.kip(&["task", "stop", "long", task["taskId"].as_str().unwrap()]).ok();
}

#[test]
fn a_mistyped_option_or_a_missing_variable_runs_nothing() {
    let server = Server::start();
    let wrong = server.kip(&["run", "--memroy", "4GiB", "--", "true"]);
    assert!(wrong.code != Some(0) && wrong.stderr.contains("no option `--memroy`"), "{wrong:?}");
    let unset = server.kip(&["run", "--env", "SURELY_NOT_SET", "--", "true"]);
    unset.failed(&["KW-7007", "SURELY_NOT_SET", "is not set here"]);
    assert!(server.ask(&["task", "ls"])["tasks"].as_array().unwrap().is_empty());

    // Its own grace.
    let text = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let words = ["-o", "json", "run", "--detach", "--name", "deaf", "--grace", "200ms", "--", "sh", "-c", text];
    let id = server.kip(&words).ok().json()["taskId"].as_str().unwrap().to_owned();
    until_true("it runs", || server.kip(&["logs", "deaf", "--task", &id]).ok().stdout.contains("| up"));
    server.kip(&["task", "stop", "deaf", &id]).ok();
    until_true("nothing of it is left", || server.instances().is_empty() && server.processes().is_empty());
    let result = server.kip(&["task", "result", "deaf", &id]).ok();
    assert!(result.stdout.is_empty() && result.stderr.contains("no result: its status is Stopped"), "{result:?}");
}

#[test]
fn a_job_is_a_program_that_runs_to_its_end() {
    let bench = Bench::start("");
    let run = |options: &[&str], script: &str| {
        let words = [&["run", "--name", "nightly"], options, &["--", "sh", "-c", script]].concat();
        bench.server.kip(&words)
    };
    let task = run(&["-o", "json"], "echo made > $KIPWAKE_OUT/result.txt").ok().json();
    let result: Value = serde_json::from_str(task["returnPayload"].as_str().unwrap()).unwrap();
    assert_eq!((&result["exitCode"], &result["files"]), (&json!(0), &json!(["result.txt"])), "{result}");
    let made = Path::new(result["out"].as_str().unwrap()).join("result.txt");
    assert_eq!(fs::read_to_string(made).unwrap(), "made\n");
    let ended = |ran: CommandOutput, code: i32, parts: &[&str]| {
        assert_eq!(ran.code, Some(code), "{ran:?}");
        parts.iter().for_each(|part| assert!(ran.stderr.contains(part), "`{part}`: {ran:?}"));
    };
    ended(run(&[], "exit 3"), 3, &["KW-5007", "nightly", "exit code 3"]);
    run(&["--retries", "1"], "[ $KIPWAKE_TASK_ATTEMPT = 2 ]").ok();
    ended(run(&[], "kill -9 $$"), 137, &["ended by signal 9"]);
    // By exit code: one that is never worth a retry, one that is, and a program that is not there.
    let runs = |options: &[&str], script: &str| {
        drop(run(options, script));
        let last = bench.server.ask(&["tasks", "ls", "nightly", "-n", "1"])["tasks"][0].clone();
        assert_eq!((&last["kind"], &last["errorKind"]), (&json!("job"), &json!("ProgramFailed")), "{last}");
        last["epoch"].as_u64().unwrap()
    };
    assert_eq!(runs(&["--retries", "3", "--retry-never", "2,3"], "exit 3"), 1);
    assert_eq!(runs(&["--retries", "3", "--retry-only", "75"], "[ $KIPWAKE_TASK_ATTEMPT = 2 ] && exit 4; exit 75"), 2);
    assert_eq!(runs(&["--retry-only", "137", "--retries", "1"], "kill -9 $$"), 2, "128 and the signal");
    let missing = bench.server.kip(&["run", "--", "/nowhere/at-all"]);
    ended(missing, 127, &["/nowhere/at-all` cannot be started"]);
    bench.server.kip(&["run", "--name", "bad name", "--", "true"]).failed(&["KW-7007", "bad name"]);
    bench.server.kip(&["run", "--name", "f", "--", "true"]).failed(&["KW-7007", "a function"]);
    let key = format!("authorization: Bearer {}\r\n", bench.server.key);
    bench.server.deploy("api: kip/v1\njobs:\n  declared: {run: 'true'}\n");
    let called = call(bench.server.gateway, "POST", "/f/declared/invoke", &key, b"");
    assert_eq!((called.status(), called.code().as_str()), (405, "KW-8023"));
    // What is behind `--` is the program's, `-o` included.
    let words = ["-o", "json", "run", "--name", "long", "--detach", "--", "sleep", "1000"];
    let detached = bench.server.kip(&words).ok().json();
    let id = detached["taskId"].as_str().unwrap();
    until_true("it runs", || bench.server.ask(&["tasks", "show", "long", id])["status"] == "Running");
    bench.server.kip(&["tasks", "stop", "long", id]).ok();
    until_true("it is stopped", || bench.server.ask(&["tasks", "show", "long", id])["status"] == "Stopped");
    bench.server.until_no_instance();
}

#[test]
fn a_program_becomes_a_function_without_a_file() {
    let server = Server::start();
    let program = crate::support::subject();
    let program = program.to_str().unwrap();
    let up = |name: &str| {
        let words = ["up", "--no-follow", "--name", name, "--env", "GREETING=hello", "--", program];
        server.kip(&words).ok()
    };
    let told = up("mine");
    let text = format!("{}{}", told.stdout, told.stderr);
    assert!(text.contains("Deployed  mine r1") && text.contains("/f/mine/"), "{text}");
    let answer = call(server.gateway, "GET", "/f/mine/env", "", b"");
    assert_eq!((answer.status(), answer.header("x-kip-start")), (200, Some("warm")), "it was started: {answer:?}");
    assert_eq!(answer.json()["GREETING"], "hello");
    server.kip(&["up", "--", program, "--port", ""]).failed(&["KW-7007", "the shell replaced ${PORT}", "'${PORT}'"]);
    let gone = server.kip(&["up", "--no-follow", "--name", "gone", "--", "./there-is-no-such-program"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("error[KW-4001]: gone r1 is deployed, but does not start"), "{}", gone.stderr);
}
