//! What an instance of a job runs: a web server that is as small as can be, which runs a program for each request it gets and answers
//! with how that ended. So a job is a function like any other: placed, stopped, counted and retried as one.
//!
//! It is not the main process that a stop is meant for: its program is. SIGTERM is handed on to the program, whose end is waited for
//! and answered as any other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use kip_control::RESULTS;
use kip_host::environment::read;
use kip_spec::function::StopTarget;
use kip_tasks::{EXIT, INTERRUPTED};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// Names of files that an answer lists at most.
const MOST_FILES: usize = 1_000;

/// The program that runs, and whether the end was asked for.
#[derive(Debug, Default)]
struct ProgramState {
    running: Option<Running>,
    /// A run is under way, or its answer.
    busy: bool,
    ending: bool,
}

/// What runs, as far as a signal is handed on to it.
#[derive(Debug, Clone)]
enum Running {
    /// A process.
    Process(u32),
    /// A container.
    #[cfg(feature = "docker")]
    Container(Arc<tokio::sync::Notify>),
}

/// What is run for each request.
#[derive(Debug)]
enum Work {
    /// A program with its arguments.
    Program(Vec<String>),
    /// A container.
    #[cfg(feature = "docker")]
    Container(Box<kip_engine::docker::job::JobContainer>),
}

type Shared = Arc<Mutex<ProgramState>>;

/// What the command line and the environment say.
fn work(image: bool, argv: &[String]) -> anyhow::Result<Work> {
    if !image {
        return Ok(Work::Program(argv.to_vec()));
    }
    #[cfg(feature = "docker")]
    {
        let text = read(kip_engine::docker::job::JOB).unwrap_or_default();
        Ok(Work::Container(Box::new(serde_json::from_str(&text)?)))
    }
    #[cfg(not(feature = "docker"))]
    anyhow::bail!("this program was built without containers")
}

/// Serves until it is ended.
pub(crate) fn serve(image: bool, argv: &[String]) -> anyhow::Result<()> {
    let port: u16 = read("PORT").unwrap_or_default().parse()?;
    let work = work(image, argv)?;
    let program = Shared::default();
    hand_signals_on(program.clone())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    // One at a time: an instance of a job has one.
    for stream in listener.incoming().flatten() {
        let _ = connection(stream, &work, &program);
        if program.lock().ending {
            break;
        }
    }
    Ok(())
}

/// From here on SIGTERM is caught, and what runs gets it: a handler is not inherited, as an ignored signal would be.
fn hand_signals_on(program: Shared) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut terminated = {
        let _entered = runtime.enter();
        signal(SignalKind::terminate())?
    };
    kip_host::tasks::thread("signals", move || {
        runtime.block_on(async {
            while terminated.recv().await.is_some() {
                let mut program = program.lock();
                if std::mem::replace(&mut program.ending, true) {
                    continue;
                }
                match &program.running {
                    Some(Running::Process(process)) => hand_on(*process),
                    #[cfg(feature = "docker")]
                    Some(Running::Container(stop)) => stop.notify_one(),
                    // Its program has ended: its answer is waited for.
                    None if program.busy => {}
                    None => end_at_once(),
                }
            }
        });
    })?;
    Ok(())
}

/// Asks the program to end, or the group that it shares with us if it would not ask its own children.
fn hand_on(process: u32) {
    let group = kip_engine::stop_target_of(process) == StopTarget::Group;
    let sent = match i32::try_from(process).ok().and_then(Pid::from_raw) {
        Some(_) if group => rustix::process::kill_current_process_group(Signal::TERM),
        Some(process) => rustix::process::kill_process(process, Signal::TERM),
        None => Ok(()),
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "the program ended in this moment");
    }
}

#[expect(clippy::exit, reason = "nothing runs, and the listener waits for connections that nobody will make")]
fn end_at_once() {
    std::process::exit(0);
}

/// The head of a request, as far as it matters, and its body.
struct Request {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }
}

fn connection(stream: TcpStream, work: &Work, program: &Shared) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = next(&mut reader)? {
        let ended = match request.path.as_str() {
            "/invoke" => run(&request, work, program),
            _ => RunResult::refused(404, "no such path"),
        };
        let text = format!("{}\n", ended.answer);
        let code = ended.code.map(|code| format!("{EXIT}: {code}\r\n")).unwrap_or_default();
        let interrupted = if ended.interrupted { format!("{INTERRUPTED}: true\r\n") } else { String::new() };
        write!(
            writer,
            "HTTP/1.1 {} Over\r\ncontent-type: application/json\r\n{code}{interrupted}content-length: {}\r\n\r\n{text}",
            ended.status,
            text.len()
        )?;
        program.lock().busy = false;
    }
    Ok(())
}

fn next(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path, headers: Vec::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = request.header("content-length").parse().unwrap_or(0);
    reader.take(length).read_to_end(&mut request.body)?;
    Ok(Some(request))
}

/// How a run ended, as it is answered.
struct RunResult {
    status: u16,
    /// The program's exit code, as a shell would have it.
    code: Option<u8>,
    answer: Value,
    /// The program was asked to end before it had ended.
    interrupted: bool,
}

impl RunResult {
    fn refused(status: u16, why: &str) -> Self {
        Self { status, code: None, answer: json!({ "error": why }), interrupted: false }
    }

    fn with_code(code: u8, answer: Value) -> Self {
        Self { status: if code == 0 { 200 } else { 500 }, code: Some(code), answer, interrupted: false }
    }
}

/// Runs the program: what it is given comes in on its standard input, what it writes is the instance's log.
fn run(request: &Request, work: &Work, running: &Shared) -> RunResult {
    let id = request.header("x-kip-task-id");
    if id.is_empty() {
        return RunResult::refused(409, "a job is run as a task: kip job run, or x-fc-invocation-type: Async");
    }
    // Ids are fit for file names: letters, digits, `_` and `-`.
    let out = read(RESULTS).map(|folder| PathBuf::from(folder).join(id));
    let named = [
        ("KIPWAKE_TASK_ID", "x-kip-task-id"),
        ("KIPWAKE_TASK_ATTEMPT", "x-kip-task-attempt"),
        ("KIPWAKE_TASK_EPOCH", "x-kip-task-epoch"),
        ("KIPWAKE_TASK_DUE", "x-kip-task-due"),
        ("KIPWAKE_PROGRESS", "x-kip-task-progress"),
    ];
    let values = named.map(|(name, header)| (name, request.header(header).to_owned()));
    let mut env: Vec<(&str, String)> = values.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    if let Some(out) = &out {
        if let Err(error) = std::fs::create_dir_all(out) {
            return RunResult::refused(500, &format!("{} cannot be made: {error}", out.display()));
        }
        env.push(("KIPWAKE_OUT", out.display().to_string()));
    }
    match work {
        Work::Program(argv) => run_program(argv, &env, out, &request.body, running),
        #[cfg(feature = "docker")]
        Work::Container(job) => container::run(job, &env, out, &request.body, running),
    }
}

fn run_program(
    argv: &[String],
    env: &[(&str, String)],
    out: Option<PathBuf>,
    input: &[u8],
    running: &Shared,
) -> RunResult {
    let Some((program, arguments)) = argv.split_first() else { return RunResult::refused(500, "there is no program") };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).env_remove(RESULTS);
    command.envs(env.iter().map(|(name, value)| (*name, value.as_str())));
    let killed_before = killed_for_memory();
    // Under the lock: a signal that comes now finds the program, or finds that there is none to be started.
    let mut now = running.lock();
    if now.ending {
        return RunResult::refused(503, "the instance ends");
    }
    let mut child = match command.spawn() {
        Ok(child) => {
            (now.running, now.busy) = (Some(Running::Process(child.id())), true);
            drop(now);
            child
        }
        Err(error) => {
            // As a shell says it.
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            let why = format!("`{program}` cannot be started: {error}");
            return RunResult::with_code(code, json!({ "exitCode": code, "error": why }));
        }
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read what it is given is none the worse for it.
        let _ = stdin.write_all(input);
    }
    let waited = child.wait();
    let interrupted = {
        let mut now = running.lock();
        now.running = None;
        now.ending
    };
    match waited {
        Ok(status) => {
            let mut answer = json!({
                "exitCode": status.code(),
                "signal": status.signal(),
                "out": out.as_ref().map(|out| out.display().to_string()),
                "files": out.map(files).unwrap_or_default(),
            });
            if status.signal() == Some(9) && killed_for_memory() > killed_before {
                answer["error"] = json!("the program was killed for its memory limit (resources.memory)");
            }
            let signal = status.signal().map(|signal| signal.saturating_add(128));
            let code = status.code().or(signal).and_then(|code| u8::try_from(code).ok());
            RunResult { interrupted, ..RunResult::with_code(code.unwrap_or(u8::MAX), answer) }
        }
        Err(error) => RunResult::refused(500, &error.to_string()),
    }
}

/// How many processes of our cgroup the kernel has killed because its memory was used up; 0 where that is not counted.
fn killed_for_memory() -> u64 {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let count = groups.lines().find_map(|line| {
        let file = match line.strip_prefix("0::") {
            Some(path) => format!("/sys/fs/cgroup{path}/memory.events"),
            None => format!("/sys/fs/cgroup/memory{}/memory.oom_control", line.split_once(":memory:")?.1),
        };
        let text = std::fs::read_to_string(file).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    });
    count.unwrap_or(0)
}

/// The files that a run left in its folder, by name.
fn files(folder: PathBuf) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Ok(name) = path.strip_prefix(&folder)
                && found.len() < MOST_FILES
            {
                found.push(name.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

#[cfg(feature = "docker")]
mod container {
    //! A run that is a container.

    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;
    use std::sync::Arc;

    use kip_engine::docker::job::{JobContainer, JobEnd};
    use kip_host::environment::read;
    use kip_spec::reference::escaped;
    use serde_json::json;
    use tokio::sync::Notify;

    use super::{RunResult, Running, Shared, files};

    /// 128 and the signal's number, as shells have it.
    const SIGNALLED: i64 = 128;

    pub(super) fn run(
        job: &JobContainer,
        own: &[(&str, String)],
        out: Option<PathBuf>,
        input: &[u8],
        running: &Shared,
    ) -> RunResult {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return RunResult::refused(500, &error.to_string()),
        };
        if let Some(out) = &out {
            // Whoever the container runs as.
            let _ = std::fs::set_permissions(out, std::fs::Permissions::from_mode(0o777));
        }
        let declared = job.variables.iter().filter_map(|name| Some((name.clone(), read(name)?)));
        let own = own.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        // A value stands for itself: it was expanded when this process was started.
        let env = declared.chain(own).map(|(name, value)| (name, escaped(&value))).collect();
        let stop = Arc::new(Notify::new());
        {
            let mut now = running.lock();
            if now.ending {
                return RunResult::refused(503, "the instance ends");
            }
            (now.running, now.busy) = (Some(Running::Container(stop.clone())), true);
        }
        let write = |is_error: bool, bytes: &[u8]| {
            let _ = match is_error {
                true => std::io::stderr().write_all(bytes),
                false => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
            };
        };
        let ended = runtime.block_on(job.run(env, out.clone(), input, &stop, write));
        let interrupted = {
            let mut now = running.lock();
            now.running = None;
            now.ending
        };
        match ended {
            Ok(JobEnd { code, out_of_memory }) => {
                let signal = code.filter(|code| *code > SIGNALLED).map(|code| code - SIGNALLED);
                let mut answer = json!({
                    "exitCode": code.filter(|_| signal.is_none()),
                    "signal": signal,
                    "out": out.as_ref().map(|out| out.display().to_string()),
                    "files": out.map(files).unwrap_or_default(),
                });
                if out_of_memory {
                    answer["error"] = json!("the program was killed for its memory limit (resources.memory)");
                }
                let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
                RunResult { interrupted, ..RunResult::with_code(code, answer) }
            }
            // As a shell says it that cannot start a program.
            Err(reason) => {
                let why = format!("the container cannot be run: {reason}");
                RunResult { interrupted, ..RunResult::with_code(126, json!({ "exitCode": 126, "error": why })) }
            }
        }
    }
}
