//! Programs that are started for a measurement, each in a process group of its own, and ended by their ids when it is over.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// No server takes longer to start or to end, milliseconds.
const LIMIT: u64 = 60_000;

/// A running server; dropped, it is told to end, and killed if it does not.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    end: Signal,
}

impl Server {
    /// Starts a program that writes what it says into a file of the folder, and that ends well on this signal.
    pub(crate) fn start(mut command: Command, log: &Path, end: Signal) -> Result<Self> {
        let file = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child =
            command.spawn().with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        Ok(Self { child, end })
    }

    /// Waits until it takes connections.
    pub(crate) fn listens(&mut self, port: u16, log: &Path) -> Result<()> {
        let until = kip_host::clock::boot_millis() + LIMIT;
        while kip_host::clock::boot_millis() < until {
            if TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}:\n{}", std::fs::read_to_string(log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("it does not listen after {} s:\n{}", LIMIT / 1_000, std::fs::read_to_string(log).unwrap_or_default())
    }

    /// Whether anybody of its group is left.
    fn lives(&mut self) -> bool {
        // Waited for, so that the first of the group is no zombie.
        let _ = self.child.try_wait();
        kip_host::sockets::processes_by_group().contains_key(&self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        for (signal, wait) in [(self.end, LIMIT / 2), (Signal::KILL, LIMIT / 2)] {
            let _ = kill_process_group(group, signal);
            let until = kip_host::clock::boot_millis() + wait;
            while kip_host::clock::boot_millis() < until {
                if !self.lives() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        eprintln!("processes of group {} are left", self.child.id());
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// All programs of this name in `PATH` and in these folders, without those that are the same file.
pub(crate) fn programs(name: &str, folders: &[&str]) -> Vec<PathBuf> {
    let path = kip_host::environment::read("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in path.split(':').chain(folders.iter().copied()) {
        if let Ok(program) = std::fs::canonicalize(Path::new(folder).join(name))
            && !found.contains(&program)
        {
            found.push(program);
        }
    }
    found
}

/// The first of [`programs`], or how to get it.
pub(crate) fn program(name: &str, folders: &[&str], package: &str) -> Result<PathBuf> {
    let found = programs(name, folders).into_iter().next();
    found.with_context(|| format!("there is no {name}: `apt-get install {package}` brings it"))
}

/// What a program says when it is run.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{} cannot be started", command.get_program().display()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{} ended with {}: {text}", command.get_program().display(), output.status);
    }
    Ok(text.trim().to_owned())
}
