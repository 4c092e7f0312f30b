//! From an order to a running child.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use kip_spec::InstanceId;
use tokio::sync::watch;

use super::logs::LogFiles;
use super::{CANCELLED, Process, ProcessBody, cgroup, contract, expand, unsafe_spawn};
use crate::body::{Ended, Order, StartError, StartProblem};

impl ProcessBody {
    /// Starts the program; it is not ready yet. Also gives the port that it was told to listen on.
    pub(super) fn spawn(&self, order: &Order, files: &LogFiles) -> Result<(Arc<Process>, u16), StartError> {
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
        let (stdout, stderr) = files.open().map_err(io("its log files cannot be written"))?;
        let cgroup = self.cgroup_of(order.instance);
        let procs = match &cgroup {
            Some(folder) => {
                cgroup::create(folder).map_err(io("its cgroup cannot be made"))?;
                let open = OpenOptions::new().write(true).open(folder.join("cgroup.procs"));
                Some(open.map_err(io("its cgroup cannot be joined"))?)
            }
            None => None,
        };

        let mut command = Command::new(&program);
        command.arg0(name).args(arguments).env_clear().envs(&env).current_dir(&order.directory);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        unsafe_spawn::before_exec(&mut command, procs);
        // Held over the spawn, so that an end that is ordered meanwhile finds either the process or no start.
        let mut table = self.lock();
        if table.cancelled.remove(&order.instance) {
            return Err(fail((StartProblem::SpawnFailed, CANCELLED.to_owned())));
        }
        let mut child = match tokio::process::Command::from(command).spawn() {
            Ok(child) => child,
            Err(error) => {
                if let Some(folder) = &cgroup {
                    cgroup::remove(folder);
                }
                return Err(fail(explain(&error, &program)));
            }
        };
        let pid = child.id().unwrap_or_default();
        let (ended, watch) = watch::channel(None);
        let (id, report) = (order.instance, self.ended.clone());
        kip_host::tasks::spawn("wait for instance", async move {
            let status = child.wait().await;
            let (code, signal) = status.map_or((None, None), |status| (status.code(), status.signal()));
            let end = Ended { instance: id, code, signal };
            let _ = ended.send(Some(end));
            let _ = report.send(end).await;
        });
        let headers = contract::headers(order);
        let process = Arc::new(Process { id, pid, cgroup, ended: watch, headers, address: Mutex::default() });
        table.running.insert(id, process.clone());
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
