//! How programs are asked to end: the main process first, then what is left, each once, and with the whole of the grace.

use std::fs;
use std::path::PathBuf;

use kip_host::environment::FAIL_POINT;
use rustix::process::Signal;

use crate::support::{Server, until, until_true};

/// A web server that serves until it is told to end; what it does then is in `end`, what it does at its start in `begin`.
const SERVER: &str = r#"
import http.server, os, signal, subprocess, sys, threading, time
def note(text):
    with open("ledger", "a") as file: file.write(text + "\n")
BEGIN
def end(number, frame):
    note("main " + signal.Signals(number).name)
    END
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, end)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// A worker that notes each signal, takes a while to save, and then ends.
const WORKER: &str = r#"
import os, signal, sys, time
def end(number, frame):
    with open("ledger", "a") as file: file.write("worker " + signal.Signals(number).name + "\n")
    time.sleep(0.4)
    with open("ledger", "a") as file: file.write("worker saved\n")
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGUSR1): signal.signal(number, end)
open("worker.pid", "w").write(str(os.getpid()))
while True: time.sleep(60)
"#;

/// A function `f` of a folder of its own, which has served a request.
struct Program {
    server: Server,
    folder: PathBuf,
}

impl Program {
    fn start(run: &str, begin: &str, end: &str, settings: &str) -> Self {
        let server = Server::start();
        let folder = server.folder().join("program");
        crate::support::open_folder(&folder);
        fs::write(folder.join("server.py"), SERVER.replace("BEGIN", begin).replace("    END", &format!("    {end}")))
            .unwrap();
        fs::write(folder.join("worker.py"), WORKER).unwrap();
        server.deploy(&format!(
            "api: kip/v1\nfunctions:\n  f:\n    dir: {}\n    code: live\n    run: {run}\n    timeouts: {{grace: 20s}}\n{settings}",
            folder.display()
        ));
        let program = Self { server, folder };
        assert_eq!(program.server.get("/").status(), 200);
        program
    }

    fn ledger(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("ledger")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Removes the function, waits until nothing is left of it, and says what its processes noted.
    fn removed(self) -> Vec<String> {
        self.server.kip(&["rm", "f"]).ok();
        until_true("nothing is left", || self.server.instances().is_empty() && self.server.processes().is_empty());
        self.ledger()
    }
}

/// Starts the worker and waits until it can be asked to end.
const WITH_WORKER: &str =
    "subprocess.Popen([sys.executable, 'worker.py'], WHERE)\nwhile not os.path.exists('worker.pid'): time.sleep(0.01)";

#[test]
fn a_program_gets_its_whole_grace() {
    let program = Program::start("python3 server.py", "", "time.sleep(0.5); note('main saved')", "");
    assert_eq!(program.removed(), ["main SIGTERM", "main saved"]);
}

#[test]
fn the_main_process_ends_its_own_children() {
    let begin = WITH_WORKER.replace(", WHERE", "");
    let end = "os.kill(int(open('worker.pid').read()), signal.SIGUSR1); time.sleep(0.8); note('main saved')";
    let program = Program::start("python3 server.py", &begin, end, "");
    assert_eq!(program.removed(), ["main SIGTERM", "worker SIGUSR1", "worker saved", "main saved"]);
}

#[test]
fn what_is_left_after_the_main_process_gets_one_signal_and_the_rest_of_the_grace() {
    for place in ["", ", start_new_session=True"] {
        let begin = WITH_WORKER.replace(", WHERE", place);
        let program = Program::start("python3 server.py", &begin, "pass", "");
        assert_eq!(
            program.removed(),
            ["main SIGTERM", "worker SIGTERM", "worker saved"],
            "worker started with `{place}`"
        );
    }
}

#[test]
fn a_shell_that_did_not_exec_shares_the_signal_with_its_child() {
    let run = "[sh, -c, 'python3 server.py; true']";
    let program = Program::start(run, "", "time.sleep(0.5); note('main saved')", "");
    assert_eq!(program.removed(), ["main SIGTERM", "main saved"]);
}

#[test]
fn signal_and_target_can_be_declared() {
    let settings = "    lifecycle: {stop: {signal: int, to: main}}\n";
    let program = Program::start("python3 server.py", "", "pass", settings);
    assert_eq!(program.removed(), ["main SIGINT"]);
    let begin = WITH_WORKER.replace(", WHERE", "");
    let settings = "    lifecycle: {stop: {to: group}}\n";
    let program = Program::start("python3 server.py", &begin, "time.sleep(1)", settings);
    let mut noted = program.removed();
    noted.sort();
    assert_eq!(noted, ["main SIGTERM", "worker SIGTERM", "worker saved"]);
}

#[test]
fn a_server_that_is_killed_during_a_stop_leaves_the_rest_of_the_grace_to_the_next() {
    let mut program =
        Program::start("python3 server.py", "", "time.sleep(1.5); note('main saved')", "    idle: {stop: 1s}\n");
    program.server.terminate();
    let mut command = program.server.serve_command();
    command.env(FAIL_POINT, "stop: signalled");
    program.server.start_by(command);
    program.server.wait();
    until("it is asked to end", || (!program.ledger().is_empty()).then_some(()));
    program.server.start_again();
    until_true("nothing is left", || program.server.processes().is_empty());
    assert_eq!(program.ledger(), ["main SIGTERM", "main saved"]);
    program.server.signal(Signal::INT);
    program.server.wait();
}

/// A job that needs a moment to save.
const JOB: &str = "import os, signal, sys, time
def end(*_):
    time.sleep(0.5)
    open('saved', 'w').write('yes')
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open('began', 'w').write('yes')
time.sleep(600)
";

/// Deploys a job, runs it, ends it by `end`, and waits until it has saved.
fn saves_when(run: &str, settings: &str, end: impl FnOnce(&Server, &str)) {
    let server = Server::start();
    let folder = server.folder().join("job");
    crate::support::open_folder(&folder);
    fs::write(folder.join("train.py"), JOB).unwrap();
    server.deploy(&format!(
        "api: kip/v1\njobs:\n  train: {{dir: {}, run: {run}, grace: 20s{settings}}}\n",
        folder.display()
    ));
    let submitted = server.ask(&["jobs", "run", "train", "--detach"]);
    let id = submitted["taskId"].as_str().unwrap_or_else(|| panic!("{submitted}")).to_owned();
    until_true("the program runs", || folder.join("began").exists());
    end(&server, &id);
    until_true("nothing of it is left", || server.processes().is_empty());
    assert!(folder.join("saved").exists(), "`{run}` was not given the time to save");
}

#[test]
fn a_job_saves_when_it_is_stopped() {
    for run in ["python3 train.py", "[sh, -c, 'python3 train.py; true']"] {
        saves_when(run, "", |server, id| drop(server.kip(&["tasks", "stop", "train", id]).ok()));
    }
}

#[test]
fn a_job_saves_when_its_time_is_over() {
    saves_when("python3 train.py", ", timeout: 2s", |_, _| {});
}

#[test]
fn a_job_saves_when_the_server_is_stopped_with_everything() {
    saves_when("python3 train.py", "", |server, _| drop(server.kip(&["stop"]).ok()));
}

#[test]
fn a_program_that_outlasts_its_grace_is_killed_and_why_says_so() {
    let server = Server::start();
    server.deploy_subject(&["--ignore-term"], "timeouts: {grace: 300ms}");
    assert_eq!(server.get("/").status(), 200);
    server.kip(&["rotate", "f"]).ok();
    let killed = || server.kip(&["why", "f"]).ok().stdout.contains("was killed with SIGKILL");
    until_true("the reason is recorded", killed);
}
