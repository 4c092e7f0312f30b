//! A server of its own for each test, and the words that tests speak with it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use kip_host::clock::boot_millis;
use serde_json::Value;

use crate::bodies;
use crate::http::{Answer, Caller};

/// No condition takes this long on a server that works, however busy the machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The binary under test.
pub(crate) const KIP: &str = env!("CARGO_BIN_EXE_kip");

/// The program that instances run.
pub(crate) fn subject() -> PathBuf {
    let folder = Path::new(KIP).parent().expect("the binary is in a folder");
    let program = folder.join("examples").join("subject");
    assert!(program.is_file(), "{} is not built: cargo builds examples before tests", program.display());
    program
}

/// Waits until something is so.
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, look)
}

/// The same for what takes long even on a server that works.
pub(crate) fn until_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = boot_millis() + u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(boot_millis() < end, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until something is true.
pub(crate) fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// Makes a folder into which functions write, which may be users of their own.
pub(crate) fn open_folder(path: &Path) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

/// Starts a thread that makes one call.
pub(crate) fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    kip_host::tasks::thread("caller", work).expect("room for a thread")
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl CommandOutput {
    /// It must have gone well.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// What it printed, as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It must have failed as a person should meet it: exit code 1, nothing on standard output, and all of these on
    /// standard error.
    pub(crate) fn failed(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not said: {self:?}");
        }
    }
}

/// A command of the binary with nothing of the outer environment that could change what it does.
pub(crate) fn kip(data: &Path) -> Command {
    let mut command = Command::new(KIP);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KIPWAKE_") {
            command.env_remove(name);
        }
    }
    command.arg("--data-dir").arg(data).stdin(Stdio::null());
    command
}

/// Runs a command to its end. Its output goes through files: a pipe that an instance inherited would never end.
pub(crate) fn run(command: &mut Command) -> CommandOutput {
    run_within(LIMIT, command)
}

/// The same for a command that takes long.
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> CommandOutput {
    let (stdout, stderr) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut child = ChildGuard::spawn(command.stdout(stdout.reopen().unwrap()).stderr(stderr.reopen().unwrap()));
    let status = until_within(limit, &format!("{command:?} has ended"), || child.ended());
    let read = |file: &Path| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
    CommandOutput { code: status.code(), stdout: read(stdout.path()), stderr: read(stderr.path()) }
}

/// A child that does not outlive its test.
pub(crate) struct ChildGuard(Option<Child>);

impl ChildGuard {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(Some(command.spawn().expect("the command starts")))
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.as_ref().map(Child::id).unwrap_or_default()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A server, its folder, and everything that runs for it.
pub(crate) struct Server {
    child: Option<ChildGuard>,
    folder: tempfile::TempDir,
    pub(crate) gateway: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) key: String,
    pub(crate) pid: u32,
    starts: u32,
}

impl Server {
    /// A server with settings that suit tests.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// The same with more lines of `kipwake.toml`.
    pub(crate) fn with(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Functions may run as users of their own, and write down there what they do.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::create_dir_all(folder.path().join("data")).unwrap();
        fs::set_permissions(folder.path().join("data"), fs::Permissions::from_mode(0o700)).unwrap();
        let engine = bodies::settings(folder.path());
        let text = format!("[server]\nthreads = 2\npatience = \"5s\"\n{settings}\n{engine}\n");
        fs::write(folder.path().join("data/kipwake.toml"), text).unwrap();
        let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server =
            Self { child: None, folder, gateway: nobody, api: nobody, key: String::new(), pid: 0, starts: 0 };
        server.start_again();
        server
    }

    /// Starts the server on its folder, which no other one may use.
    pub(crate) fn start_again(&mut self) {
        let command = self.serve_command();
        self.start_by(command);
    }

    /// The command that serves on this folder.
    pub(crate) fn serve_command(&self) -> Command {
        let mut command = kip(&self.data());
        command.args(["serve", "--gateway", "127.0.0.1:0", "--api", "127.0.0.1:0", "-o", "json"]);
        command
    }

    /// Starts the server by a command that ends up being it.
    pub(crate) fn start_by(&mut self, command: Command) {
        if let Some(status) = self.try_start_by(command) {
            panic!("the server ended with {status}: {}{}", self.printed(), self.log());
        }
    }

    /// The same for a server that may end before it is ready; then its status.
    pub(crate) fn try_start_by(&mut self, mut command: Command) -> Option<ExitStatus> {
        self.starts += 1;
        let out = self.folder.path().join(format!("serve.{}.out", self.starts));
        let log = File::create(self.log_file()).unwrap();
        command.stdout(File::create(&out).unwrap()).stderr(log).current_dir(self.folder.path());
        let mut child = ChildGuard::spawn(&mut command);
        let ready = until("the server is ready", || {
            let ended = child.ended();
            let text = fs::read_to_string(&out).unwrap();
            let line = text.split_inclusive('\n').next().filter(|line| line.ends_with('\n'));
            let line = line.and_then(|line| serde_json::from_str::<Value>(line).ok());
            match (line.filter(|line| line["pid"].is_u64()), ended) {
                (Some(line), _) => Some(Ok(line)),
                (None, Some(status)) => Some(Err(status)),
                (None, None) => None,
            }
        });
        let ready = match ready {
            Ok(ready) => ready,
            Err(status) => {
                self.child = Some(child);
                return Some(status);
            }
        };
        let address = |name: &str| {
            let text = ready[name].as_str().unwrap_or_default();
            text.trim_start_matches("http://").parse::<SocketAddr>().expect("an address")
        };
        (self.gateway, self.api) = (address("gateway"), address("api"));
        self.key = ready["key"].as_str().expect("a key").to_owned();
        self.pid = u32::try_from(ready["pid"].as_u64().expect("a process id")).unwrap();
        self.child = Some(child);
        bodies::serves(self);
        None
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join(format!("serve.{}.log", self.starts))
    }

    /// What the server wrote since its last start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Runs a client command.
    pub(crate) fn kip(&self, arguments: &[&str]) -> CommandOutput {
        run(kip(&self.data()).args(arguments).current_dir(self.folder.path()))
    }

    /// What `kip doctor` finds, as JSON. It exits with 1 where something is wrong.
    pub(crate) fn doctor(&self) -> Value {
        let ran = self.kip(&["doctor", "-o", "json"]);
        let found = ran.json();
        let bad = found.as_array().is_some_and(|findings| findings.iter().any(|finding| finding["state"] == "bad"));
        assert_eq!(ran.code, Some(i32::from(bad)), "{ran:?}");
        found
    }

    /// A client command's result, as JSON.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        self.kip(&[arguments, &["-o", "json"]].concat()).ok().json()
    }

    /// A client command's results, one JSON value a line.
    pub(crate) fn ask_lines(&self, arguments: &[&str]) -> Vec<Value> {
        let ran = self.kip(&[arguments, &["-o", "json"]].concat()).ok();
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Writes a manifest into a folder of its own and deploys it.
    pub(crate) fn try_deploy(&self, manifest: &str) -> CommandOutput {
        fs::write(self.folder.path().join("kip.yaml"), manifest).unwrap();
        self.kip(&["deploy", "kip.yaml"])
    }

    pub(crate) fn deploy(&self, manifest: &str) {
        self.try_deploy(manifest).ok();
    }

    /// Deploys a manifest and does not wait until what it declares is ready.
    pub(crate) fn deploy_without_wait(&self, manifest: &str) {
        fs::write(self.folder.path().join("kip.yaml"), manifest).unwrap();
        self.kip(&["deploy", "kip.yaml", "--no-wait"]).ok();
    }

    /// Deploys one function `f` that runs the subject.
    pub(crate) fn deploy_subject(&self, arguments: &[&str], settings: &str) {
        self.deploy(&manifest(&[function("f", arguments, settings)]));
    }

    pub(crate) fn connect(&self) -> Caller {
        Caller::connect(self.gateway)
    }

    /// One call of function `f`.
    pub(crate) fn call(&self, method: &str, path: &str) -> Answer {
        self.call_with(method, path, "", b"")
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("GET", path)
    }

    pub(crate) fn call_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        call(self.gateway, method, &format!("/f/f{path}"), headers, body)
    }

    /// A call that goes on while the test does something else.
    pub(crate) fn later(&self, method: &'static str, path: &str) -> std::thread::JoinHandle<Answer> {
        let (gateway, target) = (self.gateway, format!("/f/f{path}"));
        apart(move || call(gateway, method, &target, "", b""))
    }

    /// Function `f` as the API shows it.
    pub(crate) fn function(&self) -> Value {
        self.api_get("/api/v1/functions/f").json()
    }

    /// The instances there are.
    pub(crate) fn instances(&self) -> Vec<Value> {
        self.api_get("/api/v1/instances").json().as_array().expect("a list").clone()
    }

    pub(crate) fn api_get(&self, path: &str) -> Answer {
        call(self.api, "GET", path, &format!("authorization: Bearer {}\r\n", self.key), b"")
    }

    /// Waits until there is an instance in this state and gives its line.
    pub(crate) fn until_state(&self, state: &str) -> Value {
        until(&format!("an instance is {state}"), || self.instances().into_iter().find(|line| line["state"] == state))
    }

    pub(crate) fn until_no_instance(&self) {
        until_true("no instance is left", || self.instances().is_empty());
    }

    /// Waits until nothing is in flight and nothing waits.
    pub(crate) fn until_quiet(&self) {
        until_true("no place is taken", || {
            let function = self.function();
            function["in_flight"] == 0 && function["queued"] == 0
        });
    }

    /// Waits for the record of a request that ended in this way.
    pub(crate) fn until_record(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            let records = self.api_get("/api/v1/functions/f/requests?limit=1000").json();
            records.as_array().expect("a list").iter().find(|record| fits(record)).cloned()
        })
    }

    /// The decisions about `f`, oldest first, as `from>to`.
    pub(crate) fn steps(&self) -> Vec<String> {
        let records = self.api_get("/api/v1/functions/f/decisions?limit=1000").json();
        let step = |record: &Value| {
            format!("{}>{}", record["from"].as_str().unwrap_or_default(), record["to"].as_str().unwrap_or_default())
        };
        records.as_array().expect("a list").iter().rev().map(step).collect()
    }

    /// Processes that were started for this server, found by their environment, which names our folder.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let ours = |process: &u32| {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            let text = String::from_utf8_lossy(&environment);
            text.contains("KIPWAKE_INSTANCE=") && text.contains(&folder)
        };
        kip_host::sockets::all_processes().into_iter().filter(ours).collect()
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        kill(self.pid, signal);
    }

    /// Kills the server, as a crash would, and waits for its end.
    pub(crate) fn crash(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.wait();
    }

    /// Ends the server as its unit's restart does: instances stay.
    pub(crate) fn terminate(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        self.wait();
    }

    /// What the server printed on standard output since its last start.
    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(self.folder.path().join(format!("serve.{}.out", self.starts))).unwrap_or_default()
    }

    /// The decisions about `f`, oldest first.
    pub(crate) fn decisions(&self) -> Vec<Value> {
        let records = self.api_get("/api/v1/functions/f/decisions?limit=1000").json();
        let mut records = records.as_array().expect("a list").clone();
        records.reverse();
        records
    }

    /// The processes of instances that the server knows, sorted.
    pub(crate) fn known(&self) -> Vec<u32> {
        let process = |instance: &Value| u32::try_from(instance["process"].as_u64()?).ok();
        let mut known: Vec<u32> = self.instances().iter().filter_map(process).collect();
        known.sort_unstable();
        known
    }

    /// Waits for the end of the server's process and says how it ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a server");
        until("the server has ended", || child.ended())
    }

    /// Whether instances have a cgroup of their own here.
    pub(crate) fn has_cgroup(&self) -> bool {
        self.api_get("/api/v1/status").json()["cgroup_missing"].is_null()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("the server's log:\n{}", self.log());
        }
        if self.child.is_none() {
            // What it kept, or left when it was killed.
            self.kip(&["stop"]);
        }
        if let Some(mut child) = self.child.take() {
            kill(self.pid, rustix::process::Signal::INT);
            let end = boot_millis() + 15_000;
            while child.ended().is_none() && boot_millis() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            let hung = child.ended().is_none();
            drop(child);
            assert!(failed || !hung, "the server did not end after SIGINT");
        }
        let left = self.processes();
        left.iter().for_each(|process| kill(*process, rustix::process::Signal::KILL));
        assert!(failed || left.is_empty(), "processes {left:?} outlived their server");
    }
}

/// Signals a process by its id; one that is gone is fine.
pub(crate) fn kill(process: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Whether a process is there and not a zombie.
pub(crate) fn is_alive(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// One call on a connection of its own.
pub(crate) fn call(address: SocketAddr, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
    let mut caller = Caller::connect(address);
    let headers = format!("{headers}connection: close\r\n");
    if body.is_empty() && matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS") {
        caller.send(method, target, &headers);
    } else {
        caller.send_body(method, target, &headers, body);
    }
    caller.answer(method)
}

/// A manifest of these functions, whose tasks anybody may submit.
pub(crate) fn manifest(functions: &[String]) -> String {
    let open = "defaults: {trigger: {http: {tasks: anonymous}}}";
    format!("api: kip/v1\n{open}\nfunctions:\n{}", functions.concat())
}

/// A function that runs the subject; `settings` are more lines of it. Its folder is the one of the test, where the test tells it what to do: its
/// code is live.
pub(crate) fn function(name: &str, arguments: &[&str], settings: &str) -> String {
    let program = subject();
    let words: Vec<String> = std::iter::once(program.to_string_lossy().into_owned())
        .chain(arguments.iter().map(|word| (*word).to_owned()))
        .map(|word| serde_json::to_string(&word).unwrap())
        .collect();
    let settings: String = settings.lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!("  {name}:\n{}    run: [{}]\n{settings}", bodies::lines(), words.join(", "))
}
