//! From an order to a running child.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use kip_spec::InstanceId;
use tokio::sync::watch;

use super::journal::{self, Journal, Stage};
use super::logs::LogFile;
use super::{CANCELLED, Process, ProcessBody, cgroup, contract, expand, streams, unsafe_spawn};
use crate::body::{Ended, Order, StartError, StartProblem};
use crate::failpoint::reached;

impl ProcessBody {
    /// Starts the program; it is not ready yet. Also gives the port that it was told to listen on.
    pub(super) fn spawn(&self, order: &Order) -> Result<(Arc<Process>, u16), StartError> {
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
        let Some((name, arguments)) = argv.split_first() else {
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
        let mut procs = Vec::new();
        for folder in cgroup.iter().chain(&limits.folders) {
            let open = OpenOptions::new().write(true).open(folder.join("cgroup.procs"));
            procs.push(open.map_err(io("its cgroup cannot be joined"))?);
        }

        let mut command = Command::new(&program);
        command.arg0(name).args(arguments).env_clear().envs(&env).current_dir(&order.directory);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        unsafe_spawn::before_exec(&mut command, procs, kip_host::limits::open_files_at_start());
        // Held over the spawn, so that an end that is ordered meanwhile finds either the process or no start.
        let mut table = self.lock();
        if table.cancelled.remove(&order.instance) {
            return Err(fail((StartProblem::SpawnFailed, CANCELLED.to_owned())));
        }
        let mut command = tokio::process::Command::from(command);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                cgroup.iter().chain(&limits.folders).for_each(|folder| cgroup::remove(folder));
                return Err(fail(explain(&error, &program)));
            }
        };
        reached("start: spawned");
        // It holds our copies of its ends of the pipes, which would keep them from ever ending.
        drop(command);
        let pid = child.id().unwrap_or_default();
        let (ended, watch) = watch::channel(None);
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
            address: None,
            memo: order.memo.clone(),
            headers: journal::listed(&headers),
        };
        let (id, report, limited) = (order.instance, self.ended.clone(), journal.clone());
        kip_host::tasks::spawn("wait for instance", async move {
            let status = child.wait().await;
            let (code, signal) = status.map_or((None, None), |status| (status.code(), status.signal()));
            let end = Ended { instance: id, code, signal, out_of_memory: limited.out_of_memory() };
            let _ = ended.send(Some(end));
            let _ = report.send(end).await;
        });
        let (address, journal) = (Mutex::default(), Mutex::new(journal));
        let process =
            Arc::new(Process { id, pid, leads_group: true, cgroup, folder, journal, ended: watch, headers, address });
        table.running.insert(id, process.clone());
        drop(table);
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

fn explain(error: &io::Error, program: &std::path::Path) -> (StartProblem, String) {
    let program = program.display();
    match error.kind() {
        // The file was there a moment ago, so it is the interpreter in its first line that is not.
        io::ErrorKind::NotFound => (
            StartProblem::CommandNotExecutable,
            format!("the interpreter in the first line of {program} does not exist"),
        ),
        io::ErrorKind::PermissionDenied => {
            (StartProblem::CommandNotExecutable, format!("{program}: permission denied"))
        }
        _ => (StartProblem::SpawnFailed, format!("{program}: {error}")),
    }
}
