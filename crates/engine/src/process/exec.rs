//! Programs that people run in an instance that is a process: in its cgroup, its namespaces, its working directory and with its
//! environment and user. Everything that a session starts is in a cgroup of the session below the instance's; without cgroups it is found
//! by the session's mark in the environment.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kip_spec::InstanceId;
use parking_lot::Mutex;
use rustix::fs::{Gid, OFlags, Uid};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::entrance::Entrance;
use super::launch::{LaunchFailure, launch};
use super::unsafe_readable::registered;
use super::unsafe_spawn::{Cgroup, Plan, Session, Step};
use super::{Process, ProcessBody, cgroup, members};
use crate::contract;
use crate::exec::{ExecError, ExecExit, ExecOrder, ExecProcess, ExecStream, PIECE, SESSION, TerminalSize};

/// What the cgroups of sessions are called, below the one of their instance.
const CGROUP: &str = "exec-";
/// Where programs are looked for in an instance without a search path.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long the end of a session may take.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Sent to a terminal in the place of the end of the input.
const END_OF_INPUT: u8 = 4;

type Descriptor = AsyncFd<Arc<OwnedFd>>;

impl ProcessBody {
    /// See [`crate::Body::exec`].
    pub(super) async fn run_inside(
        &self,
        instance: InstanceId,
        order: &ExecOrder,
    ) -> Result<Box<dyn ExecProcess>, ExecError> {
        let failed = |what: &'static str| move |error: io::Error| ExecError::Failed(format!("{what}: {error}"));
        let process = self.processes.known(instance).map_err(|_| ExecError::Unknown(instance))?;
        let (owner, user, limits) = {
            let journal = process.journal.lock();
            (journal.owner, journal.user.clone(), journal.limits.clone())
        };
        let identity = match user {
            Some(name) => self.isolation.named(&name).map(Some),
            None => Ok(self.isolation.identity(owner)),
        };
        let identity = identity.map_err(io::Error::other).map_err(failed("its user cannot be found"))?;
        let ids = identity.as_ref().map(|ids| (ids.uid, ids.gid));
        let entrance = Entrance::of(process.pid).map_err(failed("the instance cannot be entered"))?;
        let steps = self.isolation.steps_inside(identity, entrance).map_err(failed("its rights cannot be prepared"))?;
        let env = environment(&process, order).map_err(failed("the instance's environment cannot be read"))?;
        let directory = process.directory(order).map_err(failed("its working directory cannot be found"))?;
        let streams = Streams::open(order, ids).map_err(failed("its input and output cannot be opened"))?;
        let group = process.cgroup.as_ref().map(|folder| folder.join(format!("{CGROUP}{}", order.session)));
        if let Some(folder) = &group {
            cgroup::create(folder).map_err(failed("its cgroup cannot be made"))?;
        }
        let Streams { theirs, input, outputs } = streams;
        let ended = LeftoverGroup(group.clone());
        let plan = plan(order, &env, &directory, group.as_deref(), &limits).map_err(failed("it cannot be prepared"))?;
        let session = if order.terminal.is_some() { Session::Terminal } else { Session::Own };
        let plan = Plan { streams: theirs, session, steps, ..plan };
        let launched = kip_host::tasks::blocking("run in instance", move || launch(plan)).await;
        let launched = launched.unwrap_or_else(|| {
            Err(LaunchFailure { step: Step::Program, error: io::Error::other("the server is about to end") })
        });
        let child = launched.map_err(|failure| explain(&failure, order, &directory))?;
        let (tell, exit) = watch::channel(None);
        let end = super::watch::end_of(child);
        kip_host::tasks::spawn("wait for exec session", async move {
            let (code, signal) = end.await;
            let _ = tell.send(Some(ExecExit { code, signal }));
        });
        let register = |descriptor: OwnedFd, interest| registered(Arc::new(descriptor), interest);
        // From here on a drop ends the program.
        let mut running = Running {
            main: child,
            session: order.session.clone(),
            group: ended.keep(),
            terminal: order.terminal.is_some(),
            input: Mutex::new(None),
            outputs: Vec::new(),
            exit,
        };
        let registration = failed("its input and output cannot be watched");
        for (stream, descriptor) in outputs {
            let interest =
                if order.terminal.is_some() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            let descriptor = register(descriptor, interest).map_err(registration)?;
            running.outputs.push(Pipe { stream, descriptor: Arc::new(descriptor), over: AtomicBool::new(false) });
        }
        let input = match (input, running.outputs.first()) {
            (Some(input), _) => Some(Arc::new(register(input, Interest::WRITABLE).map_err(registration)?)),
            (None, Some(terminal)) if order.terminal.is_some() => Some(terminal.descriptor.clone()),
            (None, _) => None,
        };
        *running.input.lock() = input;
        Ok(Box::new(running))
    }

    /// Ends what sessions of an earlier server have left: nobody reads it any more.
    pub(super) fn end_left_sessions(&self) {
        let of_server = members::marked(contract::SERVER, &self.options.server);
        let is_session = |process: &u32| is_of_session(*process, None);
        of_server
            .into_iter()
            .filter(|process| *process != std::process::id() && is_session(process))
            .for_each(members::kill);
        let instances = self.capabilities.cgroup.iter().flat_map(fs::read_dir).flatten().flatten();
        let groups = instances.flat_map(|instance| fs::read_dir(instance.path())).flatten().flatten();
        for group in groups.filter(|group| group.file_name().as_bytes().starts_with(CGROUP.as_bytes())) {
            let _ = cgroup::kill(&group.path());
            cgroup::remove(&group.path());
        }
    }
}

/// Whether a process was started by a session, by this one if it is named.
pub(crate) fn is_of_session(process: u32, session: Option<&str>) -> bool {
    let bytes = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let mark = |entry: &[u8]| {
        let number = entry.strip_prefix(SESSION.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
        number.is_some_and(|number| session.is_none_or(|session| session.as_bytes() == number))
    };
    bytes.split(|byte| *byte == 0).any(mark)
}

/// The cgroup of a session that may not come to be.
struct LeftoverGroup(Option<PathBuf>);

impl LeftoverGroup {
    fn keep(mut self) -> Option<PathBuf> {
        self.0.take()
    }
}

impl Drop for LeftoverGroup {
    fn drop(&mut self) {
        self.0.iter().for_each(|folder| cgroup::remove(folder));
    }
}

impl Process {
    /// Where a program starts: as ordered, else where the instance's own program was started or is now.
    fn directory(&self, order: &ExecOrder) -> io::Result<PathBuf> {
        let noted = self.journal.lock().directory.clone();
        let own = match noted {
            Some(directory) => directory,
            None => fs::read_link(format!("/proc/{}/cwd", self.pid))?,
        };
        Ok(order.directory.as_ref().map_or_else(|| own.clone(), |directory| own.join(directory)))
    }
}

/// The instance's own environment, as its program was started with, and what is ordered on top.
fn environment(process: &Process, order: &ExecOrder) -> io::Result<BTreeMap<OsString, OsString>> {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = fs::read(format!("/proc/{}/environ", process.pid))?;
    let pair = |entry: &[u8]| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        Some((OsString::from_vec(entry[..at].to_vec()), OsString::from_vec(entry[at + 1..].to_vec())))
    };
    let mut env: BTreeMap<OsString, OsString> = bytes.split(|byte| *byte == 0).filter_map(pair).collect();
    if order.terminal.is_some() {
        env.insert("TERM".into(), "xterm".into());
    }
    env.extend(order.env.iter().map(|(name, value)| (name.into(), value.into())));
    env.insert(SESSION.into(), order.session.clone().into());
    Ok(env)
}

/// All that the child needs but its streams and what it does to itself.
fn plan(
    order: &ExecOrder,
    env: &BTreeMap<OsString, OsString>,
    directory: &Path,
    group: Option<&Path>,
    limits: &[PathBuf],
) -> io::Result<Plan> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
    let name = order.argv.first().map(String::as_str).unwrap_or_default();
    let programs = if name.contains('/') {
        vec![text(name.as_bytes())?]
    } else {
        let path = env.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_else(|| SEARCH_PATH.into());
        let found = std::env::split_paths(&path).map(|folder| folder.join(name));
        found.map(|file| text(file.as_os_str().as_bytes())).collect::<io::Result<_>>()?
    };
    let variable = |(name, value): (&OsString, &OsString)| {
        let mut entry = name.as_bytes().to_vec();
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        text(&entry)
    };
    let write = |file: PathBuf| File::options().write(true).open(file);
    let joined = |folder: &Path| {
        Ok::<_, io::Error>(Cgroup { folder: File::open(folder)?, procs: write(folder.join("cgroup.procs"))? })
    };
    let nothing = || File::open("/dev/null");
    Ok(Plan {
        programs,
        own: None,
        steps: super::unsafe_isolate::Steps::default(),
        arguments: order.argv.iter().map(|word| text(word.as_bytes())).collect::<io::Result<_>>()?,
        environment: env.iter().map(variable).collect::<io::Result<_>>()?,
        directory: text(directory.as_os_str().as_bytes())?,
        streams: [nothing()?, nothing()?, nothing()?],
        session: Session::Own,
        files: kip_host::limits::open_files_at_start(),
        cgroup: group.map(joined).transpose()?,
        tasks: limits.iter().map(|folder| write(folder.join("tasks"))).collect::<io::Result<_>>()?,
    })
}

/// Both ends of what a program reads and writes.
struct Streams {
    theirs: [File; 3],
    /// Our end of its input, where that is a pipe.
    input: Option<OwnedFd>,
    outputs: Vec<(ExecStream, OwnedFd)>,
}

impl Streams {
    fn open(order: &ExecOrder, ids: Option<(u32, u32)>) -> io::Result<Self> {
        let give = |file: &OwnedFd| match ids {
            Some((uid, gid)) => rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            None => Ok(()),
        };
        if let Some(size) = order.terminal {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let ours = rustix::pty::openpt(flags)?;
            rustix::pty::grantpt(&ours)?;
            rustix::pty::unlockpt(&ours)?;
            let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
            rustix::termios::tcsetwinsize(&ours, size_of_window(size))?;
            // Programs open `/dev/tty` and the terminal's own name anew.
            give(&theirs)?;
            unblock(&ours)?;
            let theirs = File::from(theirs);
            let theirs = [theirs.try_clone()?, theirs.try_clone()?, theirs];
            return Ok(Self { theirs, input: None, outputs: vec![(ExecStream::Output, ours)] });
        }
        let (input, stdin) = if order.input {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            give(&read)?;
            unblock(&write)?;
            (Some(write), File::from(read))
        } else {
            (None, File::open("/dev/null")?)
        };
        let mut outputs = Vec::new();
        let mut output = |stream| -> io::Result<File> {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            give(&write)?;
            unblock(&read)?;
            outputs.push((stream, read));
            Ok(File::from(write))
        };
        let theirs = [stdin, output(ExecStream::Output)?, output(ExecStream::Error)?];
        Ok(Self { theirs, input, outputs })
    }
}

fn unblock(descriptor: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(descriptor)?;
    Ok(rustix::fs::fcntl_setfl(descriptor, flags | OFlags::NONBLOCK)?)
}

fn size_of_window(size: TerminalSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn explain(failed: &LaunchFailure, order: &ExecOrder, directory: &Path) -> ExecError {
    let program = order.argv.first().cloned().unwrap_or_default();
    let error = &failed.error;
    match (failed.step, error.kind()) {
        (Step::Program, io::ErrorKind::NotFound) => ExecError::NoProgram(program),
        (Step::Program, _) => ExecError::NotExecutable { program, detail: error.to_string() },
        (Step::Directory, _) => ExecError::Directory(format!("{}: {error}", directory.display())),
        (step, _) => ExecError::Failed(format!("the program cannot be started ({step:?}): {error}")),
    }
}

/// Ends a process by force; one that is gone already is fine.
#[cfg(feature = "docker")]
pub(crate) fn kill(process: u32) {
    members::kill(process);
}

/// Waits until a process has ended that is no child of ours. Returns at once where it cannot be watched.
#[cfg(feature = "docker")]
pub(crate) async fn end_of_any(process: u32) {
    let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return };
    let opened = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK);
    if let Some(descriptor) = opened.ok().and_then(|opened| registered(Arc::new(opened), Interest::READABLE).ok()) {
        let _ = descriptor.readable().await;
    }
}

/// One of a program's outputs.
#[derive(Debug)]
struct Pipe {
    stream: ExecStream,
    descriptor: Arc<Descriptor>,
    over: AtomicBool,
}

impl Pipe {
    async fn read(&self) -> io::Result<Option<(ExecStream, Bytes)>> {
        loop {
            let mut ready = self.descriptor.readable().await?;
            let mut piece = vec![0; PIECE];
            let read = ready.try_io(|descriptor| Ok(rustix::io::read(descriptor.get_ref(), &mut piece)?));
            match read {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(length)) => {
                    piece.truncate(length);
                    return Ok(Some((self.stream, piece.into())));
                }
                // Nobody has the other side of the terminal open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(None),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

/// A program of a session.
#[derive(Debug)]
struct Running {
    main: Pid,
    session: String,
    /// The cgroup of the session.
    group: Option<PathBuf>,
    terminal: bool,
    input: Mutex<Option<Arc<Descriptor>>>,
    outputs: Vec<Pipe>,
    exit: watch::Receiver<Option<ExecExit>>,
}

impl Running {
    /// Everything that the session has started and that is there still.
    fn processes(&self) -> Vec<u32> {
        match &self.group {
            Some(folder) => cgroup::processes(folder),
            None => members::marked(SESSION, &self.session),
        }
    }

    fn kill(&self) {
        if let Some(folder) = &self.group {
            let _ = cgroup::kill(folder);
            return;
        }
        if self.exit.borrow().is_none() {
            let _ = rustix::process::kill_process_group(self.main, Signal::KILL);
        }
        self.processes().into_iter().for_each(members::kill);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        self.group.iter().for_each(|folder| cgroup::remove(folder));
    }
}

#[async_trait]
impl ExecProcess for Running {
    async fn read(&self) -> io::Result<Option<(ExecStream, Bytes)>> {
        let open = |pipe: &&Pipe| !pipe.over.load(Ordering::Relaxed);
        loop {
            let mut left = self.outputs.iter().filter(open);
            let (read, pipe) = match (left.next(), left.next()) {
                (None, _) => return Ok(None),
                (Some(pipe), None) => (pipe.read().await, pipe),
                (Some(one), Some(other)) => tokio::select! {
                    read = one.read() => (read, one),
                    read = other.read() => (read, other),
                },
            };
            match read? {
                Some(piece) => return Ok(Some(piece)),
                None => pipe.over.store(true, Ordering::Relaxed),
            }
        }
    }

    async fn write(&self, data: &[u8]) -> io::Result<usize> {
        let Some(input) = self.input.lock().clone() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        loop {
            let mut ready = input.writable().await?;
            let written = ready.try_io(|descriptor| Ok(rustix::io::write(descriptor.get_ref(), data)?));
            match written {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return written,
                Err(_would_block) => {}
            }
        }
    }

    async fn end_input(&self) {
        if self.terminal {
            let _ = self.write(&[END_OF_INPUT]).await;
        } else {
            self.input.lock().take();
        }
    }

    async fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = self.outputs.first().filter(|_| self.terminal) {
            let _ = rustix::termios::tcsetwinsize(terminal.descriptor.get_ref().as_fd(), size_of_window(size));
        }
    }

    async fn exit(&self) -> ExecExit {
        let mut exit = self.exit.clone();
        let seen = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        seen.unwrap_or_default()
    }

    async fn end(&self) {
        let ended = async {
            let mut pause = Duration::from_millis(1);
            loop {
                self.kill();
                if self.exit.borrow().is_some() && self.processes().is_empty() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        };
        if tokio::time::timeout(END_LIMIT, ended).await.is_err() {
            tracing::warn!(session = self.session, "something that an exec session has started is still there");
        }
        self.group.iter().for_each(|folder| cgroup::remove(folder));
    }
}
