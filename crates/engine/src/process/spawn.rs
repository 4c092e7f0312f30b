//! From an order to a running child.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use tokio::sync::{Semaphore, watch};

use super::code::Code;
use super::journal::{Journal, Stage};
use super::launch::{Launch, LaunchFailure, launch};
use super::namespace::Namespace;
use super::ready::Place;
use super::unsafe_isolate::{Ids, Steps};
use super::unsafe_spawn::Step;
use super::watch::Watcher;
use super::{Process, ProcessBody, cgroup, isolation, streams};
use crate::body::{Liveness, Order, StartError, StartProblem};
use crate::logs::LogFile;
use crate::{contract, expand};
use kip_host::failpoint::reached;
use kip_spec::container::Mount;

/// Programs that are on their way into the kernel at once.
const LAUNCHES_AT_ONCE: usize = 16;
static LAUNCHES: Semaphore = Semaphore::const_new(LAUNCHES_AT_ONCE);

impl ProcessBody {
    /// Starts the program; it is not ready yet. Also says where it was told to listen.
    pub(super) async fn spawn(&self, order: &Order) -> Result<(Arc<Process>, Place), StartError> {
        let fail = |(problem, detail)| StartError { problem, detail, last_lines: Vec::new() };
        let io =
            |what: &'static str| move |error: io::Error| fail((StartProblem::SpawnFailed, format!("{what}: {error}")));
        let code = Code::find(order, &self.isolation).map_err(fail)?;
        let ports = self.options.ports.reserve(order.instance, 1 + order.ports.len(), order.port);
        let ports = ports.map_err(|error| match order.port {
            Some(port) => {
                let owner = kip_host::sockets::owner_of_port(port).unwrap_or_else(|| "an unknown process".to_owned());
                fail((
                    StartProblem::PortTaken,
                    format!("port {port}, which its program listens on, is held by {owner}"),
                ))
            }
            None => io("no free port")(error),
        })?;
        let (port, more_ports) = (ports[0], ports[1..].to_vec());
        let identity = self.identity_of(order).map_err(|detail| fail((StartProblem::SpawnFailed, detail)))?;
        let ids = identity.as_ref().map(|ids| (ids.uid, ids.gid));
        self.check_owner(order, ids).map_err(fail)?;
        let home = self.home(order, ids).map_err(io("it cannot have a home"))?;
        let socket = self.socket(order, ids).map_err(io("it cannot have a socket"))?;
        // Code and layers at the paths that their programs know, where that is possible.
        let placed: Vec<Mount> = code.placed.iter().chain(&order.folders).cloned().collect();
        let has_devices = order.devices.as_ref().is_some_and(|devices| !devices.numbers.is_empty());
        let places = !placed.is_empty() && self.isolation.places(has_devices);
        check_shares(order, places).map_err(fail)?;
        let view = contract::HostView { home: home.as_deref(), places, socket: socket.as_deref() };
        let env = contract::environment(order, &self.options.server, (port, &more_ports), view);
        let argv: Vec<String> = order.argv.iter().map(|word| expand::expand(word, &env)).collect();
        let Some(name) = argv.first() else {
            return Err(fail((StartProblem::CommandNotFound, "the command is empty".to_owned())));
        };
        let program = match &order.program {
            Some(file) => file.clone(),
            None => {
                // Looked up where the server sees it; the process sees it there too.
                let view = contract::HostView { places: false, ..view };
                let ours = contract::environment(order, &self.options.server, (port, &more_ports), view);
                let name = contract::source_of(order, name).unwrap_or_else(|| name.clone());
                let directory = if code.is_live() { code.folder } else { order.directory.as_path() };
                expand::program(&name, directory, &ours, |path| code.seen(directory, path)).map_err(fail)?
            }
        };
        let log = LogFile::of(&self.options.logs, order.function.as_str(), order.instance).of_version(order.version);
        log.prepare().map_err(io("its log cannot be written"))?;
        let folder = self.folder_of(order.instance);
        kip_host::directory::create_own(&folder).map_err(io("its folder cannot be made"))?;
        reached("start: folder made");
        let [out, err] = streams::NAMES;
        let (our_stdout, stdout) = streams::make(&folder, out).map_err(io("its output cannot be piped"))?;
        let (our_stderr, stderr) = streams::make(&folder, err).map_err(io("its output cannot be piped"))?;
        for stream in [&stdout, &stderr] {
            // Programs open `/dev/stdout` anew.
            give(stream, ids).map_err(io("its output cannot be piped"))?;
        }
        let path = env.get("PATH").map(String::as_str).unwrap_or_default();
        let own = home.into_iter().chain(socket.as_deref().and_then(Path::parent).map(Path::to_owned)).collect();
        let reads = self
            .reads(order, code.folder, (&program, path), (ids, own))
            .map_err(io("its folders cannot be shown to it"))?;
        let own = (order.owns_directory && code.is_live()).then(|| reads[0].as_path());
        let folders = if places { placed.as_slice() } else { &[] };
        let steps = match order.runs {
            Some(_) => Ok(Steps::default()),
            None => self.isolation.steps(identity, &reads, own, folders),
        };
        let mut steps = steps.map_err(io("it cannot be kept from the server"))?;
        let views = code.views(&reads[0], order.owns_directory, &self.isolation, steps.ids.as_ref());
        steps.views = views.map_err(io("it cannot be shown the files of its version"))?;
        let seen = match &code.placed {
            Some(mount) => PathBuf::from(&mount.target),
            None => contract::directory(order, places).map_or_else(|| reads[0].clone(), PathBuf::from),
        };
        let cgroup = self.cgroup_of(order.instance);
        if let Some(folder) = &cgroup {
            cgroup::create(folder).map_err(io("its cgroup cannot be made"))?;
        }
        let limits = self.limits.apply(order, cgroup.as_deref()).map_err(io("its limits cannot be set"))?;
        let plan = Launch {
            program: &program,
            arguments: &argv,
            environment: &env,
            is_own: order.program.is_some(),
            directory: &seen,
            steps,
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
            fail(explain(&failed, &program, &order.directory, ids))
        })?;
        reached("start: spawned");
        let pid = child.as_raw_nonzero().get().unsigned_abs();
        let (ended, watch) = watch::channel(None);
        let (life, alive) = watch::channel(Liveness::Alive);
        let headers = contract::headers(order);
        let journal = Journal {
            host_boot: kip_host::clock::boot_id().unwrap_or_default(),
            function: order.function.clone(),
            owner: order.owner,
            version: order.version,
            process: pid,
            started: kip_host::processes::look(pid).map_or(0, |process| process.started),
            port,
            more_ports,
            cgroup: cgroup.clone(),
            directory: Some(seen),
            limits: limits.folders,
            memory: limits.memory,
            devices: order.devices.as_ref().map(|devices| devices.names.clone()).unwrap_or_default(),
            initialize: order.initialize.is_some(),
            stage: Stage::Starting,
            ending: None,
            address: None,
            socket: None,
            user: order.user.clone(),
            memo: order.memo.clone(),
            headers: contract::listed(&headers),
        };
        let (id, limited) = (order.instance, journal.clone());
        let out_of_memory = move || limited.out_of_memory();
        Watcher { instance: id, ended, life, report: self.events.clone(), out_of_memory }.own(child);
        let (endpoint, journal) = (Mutex::default(), Mutex::new(journal));
        let process = Arc::new(Process {
            id,
            pid,
            leads_group: true,
            cgroup,
            namespace: Namespace::of(pid),
            is_other_user: is_other_user(pid),
            server: self.options.server.clone(),
            stopped_strays: Mutex::default(),
            folder,
            journal,
            ended: watch,
            life: alive,
            stopping: tokio::sync::Mutex::default(),
            headers,
            endpoint,
        });
        self.processes.add(id, process.clone());
        process.note(|_| {});
        reached("start: noted");
        self.pump.read(id, out, our_stdout, log.clone());
        self.pump.read(id, err, our_stderr, log);
        Ok((process, socket.map_or(Place::Port(port), Place::Socket)))
    }

    /// The socket of an instance that is to listen on one: in a folder that it alone can enter, beside its server.
    fn socket(&self, order: &Order, ids: Option<(u32, u32)>) -> io::Result<Option<PathBuf>> {
        /// Bytes of the path of a socket, as the kernel takes it.
        const LONGEST: usize = 107;
        if order.listen.is_port() {
            return Ok(None);
        }
        let folder = self.socket_folder(order.instance);
        kip_host::directory::create_own(&self.options.data.join("sockets"))?;
        kip_host::directory::create_own(&folder)?;
        if let Some(ids) = ids {
            own_folder(&folder, ids)?;
        }
        let socket = folder.join("s");
        match socket.as_os_str().len() {
            ..=LONGEST => Ok(Some(socket)),
            length => Err(io::Error::other(format!(
                "the path {} has {length} bytes, and the kernel takes {LONGEST}: use a data directory with a shorter path, or listen on a port",
                socket.display()
            ))),
        }
    }

    /// Numbers of functions come around after many: two that live must not be one user.
    fn check_owner(&self, order: &Order, ids: Option<(u32, u32)>) -> Result<(), (StartProblem, String)> {
        if ids.is_none() || order.user.is_some() {
            return Ok(());
        }
        let same = self.processes.all().iter().find_map(|process| {
            let journal = process.journal.lock();
            let other = journal.owner != order.owner && journal.function != order.function && journal.user.is_none();
            (other && self.isolation.is_shared(journal.owner, order.owner)).then(|| journal.function.clone())
        });
        match same {
            None => Ok(()),
            Some(other) => {
                let detail =
                    format!("its id would be that of `{other}`: deploy it under another name, or remove that one");
                Err((StartProblem::SpawnFailed, detail))
            }
        }
    }

    /// A folder in the place of the server's home, for who may not enter that.
    fn home(&self, order: &Order, ids: Option<(u32, u32)>) -> io::Result<Option<PathBuf>> {
        let Some(ids) = ids else { return Ok(None) };
        let homes = self.options.data.join("homes");
        kip_host::directory::create_own(&homes)?;
        let home = homes.join(order.owner.to_string());
        own_folder(&home, ids)?;
        Ok(Some(home))
    }

    /// The user that it runs as; none is that of the server, which only our own programs are.
    fn identity_of(&self, order: &Order) -> Result<Option<Ids>, String> {
        match &order.user {
            _ if order.runs.is_some() => Ok(None),
            Some(name) => self.isolation.named(name).map(Some),
            None => Ok(self.isolation.identity(order.owner)),
        }
    }

    /// The folders that it needs, with no links in their paths; the one that it runs in comes first.
    fn reads(
        &self,
        order: &Order,
        directory: &Path,
        (program, path): (&Path, &str),
        (ids, own): (Option<(u32, u32)>, Vec<PathBuf>),
    ) -> io::Result<Vec<PathBuf>> {
        let mut reads = vec![directory.canonicalize()?];
        if let Some(folder) = &order.writes {
            kip_host::directory::create_own(folder)?;
            if let Some(ids) = ids {
                own_folder(folder, ids)?;
            }
            reads.push(folder.clone());
        }
        reads.extend(order.reads.iter().cloned().chain(own));
        reads.extend(order.folders.iter().map(|folder| PathBuf::from(&folder.source)));
        // Programs start others of the search path, and a link in an environment of Python leads to where that was installed.
        let programs = std::env::split_paths(path).filter(|folder| folder.is_absolute());
        let own = [program.to_owned(), program.canonicalize().unwrap_or_default()]
            .into_iter()
            .filter(|_| order.program.is_none());
        let folders = own.filter_map(|file| file.parent().map(Path::to_owned)).chain(programs);
        reads.extend(folders.map(|folder| self.installation(&folder)).filter(|folder| folder.parent().is_some()));
        let whole = |path: PathBuf| path.canonicalize().unwrap_or(path);
        Ok(reads.into_iter().map(whole).collect())
    }

    /// What programs in a folder need beside it: the installation that its `bin` belongs to. A home is none, nor is what the data directory is
    /// in.
    fn installation(&self, folder: &Path) -> PathBuf {
        const PROGRAMS: [&str; 3] = ["bin", "sbin", "shims"];
        let is_programs = folder.file_name().is_some_and(|name| PROGRAMS.iter().any(|known| name == *known));
        let home = kip_host::environment::read("HOME").map(PathBuf::from);
        let around = folder.parent().filter(|_| is_programs);
        let around = around.filter(|around| !self.options.data.starts_with(around) && home.as_deref() != Some(*around));
        around.unwrap_or(folder).to_owned()
    }
}

/// Whether a process runs as another user than we do.
pub(super) fn is_other_user(process: u32) -> bool {
    std::fs::metadata(format!("/proc/{process}")).is_ok_and(|about| about.uid() != rustix::process::geteuid().as_raw())
}

/// Makes a folder that belongs to somebody, or gives it to them. What is in it stays whose it is.
fn own_folder(folder: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    kip_host::directory::create_own(folder)?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::empty())?;
    Ok(rustix::fs::fchown(opened, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

/// Code and layers have other ways to be found; a share has only its path.
fn check_shares(order: &Order, places: bool) -> Result<(), (StartProblem, String)> {
    for share in order.folders.iter().filter(|folder| contract::is_share(folder)) {
        if !places {
            let detail = format!("{} cannot be mounted at {}", share.source, share.target);
            return Err((StartProblem::MountImpossible, detail));
        }
        if !Path::new(&share.source).is_dir() {
            let detail = format!("the folder {} of {} is not there", share.source, share.target);
            return Err((StartProblem::ShareMissing, detail));
        }
    }
    Ok(())
}

fn give(file: &File, ids: Option<(u32, u32)>) -> io::Result<()> {
    let Some((uid, gid)) = ids else { return Ok(()) };
    Ok(rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

fn explain(
    failed: &LaunchFailure,
    program: &Path,
    directory: &Path,
    ids: Option<(u32, u32)>,
) -> (StartProblem, String) {
    let error = &failed.error;
    match (failed.step, error.kind()) {
        // The file was there a moment ago, so it is the interpreter in its first line that is not.
        (Step::Program, io::ErrorKind::NotFound) => (
            StartProblem::CommandNotExecutable,
            format!("the interpreter in the first line of {} does not exist", program.display()),
        ),
        (Step::Program, io::ErrorKind::PermissionDenied) => {
            let why = isolation::refused(program, ids).unwrap_or_else(|| "permission denied".to_owned());
            (StartProblem::CommandNotExecutable, format!("{}: {why}", program.display()))
        }
        (Step::Program, _) => (StartProblem::SpawnFailed, format!("{}: {error}", program.display())),
        (Step::Directory, _) => (StartProblem::WorkingDirectory, format!("{}: {error}", directory.display())),
        (Step::Streams, _) => (StartProblem::SpawnFailed, format!("its output cannot be piped: {error}")),
        (Step::Isolation, _) => (StartProblem::SpawnFailed, format!("it cannot be kept from the server: {error}")),
        (Step::Group, _) => (StartProblem::SpawnFailed, format!("it cannot have a process group: {error}")),
        (Step::Cgroup, _) => (StartProblem::SpawnFailed, format!("its cgroup cannot be joined: {error}")),
        (Step::Limits, _) => (StartProblem::SpawnFailed, format!("its limits cannot be set: {error}")),
    }
}
