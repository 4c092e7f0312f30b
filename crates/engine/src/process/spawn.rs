//! From an order to a running child.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use kip_spec::InstanceId;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::journal::{self, Journal, Stage};
use super::launch::{Launch, LaunchFailure, launch};
use super::logs::LogFile;
use super::unsafe_spawn::Step;
use super::watch::Watcher;
use super::{Process, ProcessBody, cgroup, contract, expand, streams};
use crate::body::{Liveness, Order, StartError, StartProblem};
use kip_host::failpoint::reached;

/// Programs that are on their way into the kernel at once.
const LAUNCHES_AT_ONCE: usize = 16;
static LAUNCHES: Semaphore = Semaphore::const_new(LAUNCHES_AT_ONCE);

impl ProcessBody {
    /// Starts the program; it is not ready yet. Also gives the port that it was told to listen on.
    pub(super) async fn spawn(&self, order: &Order) -> Result<(Arc<Process>, u16), StartError> {
        let fail = |(problem, detail)| StartError { problem, detail, last_lines: Vec::new() };
        let io =
            |what: &'static str| move |error: io::Error| fail((StartProblem::SpawnFailed, format!("{what}: {error}")));
        if !order.directory.is_dir() {
            let detail = format!("there is no folder {}", order.directory.display());
            return Err(fail((StartProblem::WorkingDirectory, detail)));
        }
        let port = self.reserve_port(order.instance).map_err(io("no free port"))?;
        let env = contract::environment(order, &self.options.server, port);
        let argv: Vec<String> = order.argv.iter().map(|word| expand::expand(word, &env)).collect();
        let Some(name) = argv.first() else {
            return Err(fail((StartProblem::CommandNotFound, "the command is empty".to_owned())));
        };
        let program = match &order.program {
            Some(file) => file.clone(),
            None => expand::program(name, &order.directory, &env).map_err(fail)?,
        };
        let log = LogFile::of(&self.options.logs, order.function.as_str(), order.instance);
        log.prepare().map_err(io("its log cannot be written"))?;
        let folder = self.folder_of(order.instance);
        kip_host::directory::create_private(&folder).map_err(io("its folder cannot be made"))?;
        reached("start: folder made");
        let [out, err] = streams::NAMES;
        let (our_stdout, stdout) = streams::make(&folder, out).map_err(io("its output cannot be piped"))?;
        let (our_stderr, stderr) = streams::make(&folder, err).map_err(io("its output cannot be piped"))?;
        let cgroup = self.cgroup_of(order.instance);
        if let Some(folder) = &cgroup {
            cgroup::create(folder).map_err(io("its cgroup cannot be made"))?;
        }
        let limits = self.limits.apply(order, cgroup.as_deref()).map_err(io("its limits cannot be set"))?;
        let plan = Launch {
            program: &program,
            arguments: &argv,
            environment: &env,
            directory: &order.directory,
            stdout,
            stderr,
            cgroup: cgroup.as_deref(),
            limits: &limits.folders,
        }
        .plan()
        .map_err(io("its start cannot be prepared"))?;
        // On a thread that may wait: the kernel may take milliseconds until the program has begun. On few of them: each
        // thread keeps memory of its own, and a thousand starts at once would leave it behind.
        let turn = LAUNCHES.acquire().await;
        let launched = kip_host::tasks::blocking("start instance", move || launch(plan)).await;
        drop(turn);
        let launched = launched.unwrap_or_else(|| {
            Err(LaunchFailure { step: Step::Program, error: io::Error::other("the server is about to end") })
        });
        let child = launched.map_err(|failed| {
            cgroup.iter().chain(&limits.folders).for_each(|folder| cgroup::remove(folder));
            fail(explain(&failed, &program, &order.directory))
        })?;
        reached("start: spawned");
        let pid = child.as_raw_nonzero().get().unsigned_abs();
        let (ended, watch) = watch::channel(None);
        let (life, alive) = watch::channel(Liveness::Alive);
        let headers = contract::headers(order);
        let journal = Journal {
            host_boot: kip_host::clock::boot_id().unwrap_or_default(),
            function: order.function.clone(),
            version: order.version,
            process: pid,
            started: kip_host::processes::look(pid).map_or(0, |process| process.started),
            port,
            cgroup: cgroup.clone(),
            limits: limits.folders,
            memory: limits.memory,
            devices: order.devices.as_ref().map(|devices| devices.names.clone()).unwrap_or_default(),
            initialize: order.initialize.is_some(),
            stage: Stage::Starting,
            ending: None,
            address: None,
            memo: order.memo.clone(),
            headers: journal::listed(&headers),
        };
        let (id, limited) = (order.instance, journal.clone());
        let out_of_memory = move || limited.out_of_memory();
        Watcher { instance: id, ended, life, report: self.events.clone(), out_of_memory }.own(child);
        let (address, journal) = (Mutex::default(), Mutex::new(journal));
        let process = Arc::new(Process {
            id,
            pid,
            leads_group: true,
            cgroup,
            folder,
            journal,
            ended: watch,
            life: alive,
            stopping: tokio::sync::Mutex::default(),
            headers,
            address,
        });
        self.lock().running.insert(id, process.clone());
        process.note(|_| {});
        reached("start: noted");
        self.pump.read(id, out, our_stdout, log.clone());
        self.pump.read(id, err, our_stderr, log);
        Ok((process, port))
    }

    /// A port for an instance, which no other instance of ours is given until nothing of this one is left: programs may
    /// take seconds until they listen, and many start at once.
    fn reserve_port(&self, instance: InstanceId) -> io::Result<u16> {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            let port = free_port()?;
            let mut table = self.lock();
            if !table.ports.values().any(|given| *given == port) {
                table.ports.insert(instance, port);
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }
}

/// A port that nobody has now. Somebody else may take it before the instance does; readiness checks whose it is.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn explain(failed: &LaunchFailure, program: &Path, directory: &Path) -> (StartProblem, String) {
    let (program, error) = (program.display(), &failed.error);
    match (failed.step, error.kind()) {
        // The file was there a moment ago, so it is the interpreter in its first line that is not.
        (Step::Program, io::ErrorKind::NotFound) => (
            StartProblem::CommandNotExecutable,
            format!("the interpreter in the first line of {program} does not exist"),
        ),
        (Step::Program, io::ErrorKind::PermissionDenied) => {
            (StartProblem::CommandNotExecutable, format!("{program}: permission denied"))
        }
        (Step::Program, _) => (StartProblem::SpawnFailed, format!("{program}: {error}")),
        (Step::Directory, _) => (StartProblem::WorkingDirectory, format!("{}: {error}", directory.display())),
        (Step::Streams, _) => (StartProblem::SpawnFailed, format!("its output cannot be piped: {error}")),
        (Step::Group, _) => (StartProblem::SpawnFailed, format!("it cannot have a process group: {error}")),
        (Step::Cgroup, _) => (StartProblem::SpawnFailed, format!("its cgroup cannot be joined: {error}")),
        (Step::Limits, _) => (StartProblem::SpawnFailed, format!("its limits cannot be set: {error}")),
    }
}
