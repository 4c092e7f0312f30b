//! What an earlier server of this data directory left behind: found, brought into a definite state, and either offered for
//! adoption or ended. What is there decides; the journal only says what cannot be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kip_host::clock::boot_millis;
use kip_host::endpoint::Endpoint;
use kip_host::processes;
use kip_host::sockets::{self, Connection, Listener};
use kip_spec::{FunctionName, InstanceId, VersionId};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::journal::{Journal, Stage};
use super::namespace::Namespace;
use super::ready::is_own_socket;
use super::spawn::is_other_user;
use super::watch::Watcher;
use super::{Process, ProcessBody, cgroup, streams};
use crate::adoption::{Adoption, AliveInstance, ENDED, FoundInstance, InheritedConnections, LeftConnections};
use crate::body::{InstanceEnd, Liveness};
use crate::contract;
use crate::logs::LogFile;

/// How long an instance that was caught falling asleep may take to be so.
const FALL_ASLEEP: Duration = Duration::from_millis(200);

/// Processes that carry our server's mark, by the instance that they name.
type MarkedProcesses = BTreeMap<InstanceId, (Option<FunctionName>, Vec<u32>)>;

impl ProcessBody {
    /// Looks for instances of earlier servers and takes hold of all of them; those that cannot go on must be killed.
    pub(super) fn find_left(&self) -> Adoption {
        self.end_left_sessions();
        let marked = marked(&self.options.server);
        let host_boot = kip_host::clock::boot_id().unwrap_or_default();
        let mut ids: BTreeSet<InstanceId> = names(&self.options.instances);
        ids.extend(self.capabilities.cgroup.iter().flat_map(|root| names(root)));
        ids.extend(marked.keys());
        // Once for all of them: these tables are long where there is much traffic.
        let connections = sockets::connections().unwrap_or_default();
        let listeners = sockets::listeners().unwrap_or_default();
        let (mut all, mut inherited) = (Vec::new(), InheritedConnections::default());
        for id in ids {
            let folder = self.folder_of(id);
            let journal = Journal::read(&folder).filter(|journal| journal.host_boot == host_boot);
            let (function, processes) = marked.get(&id).cloned().unwrap_or_default();
            let found = match journal {
                Some(journal) => {
                    let (function, version) = (Some(journal.function.clone()), Some(journal.version));
                    let (devices, memo) = (journal.devices.clone(), journal.memo.clone());
                    let has_grace =
                        journal.ending.is_some_and(|ending| ending.to.is_none() || ending.until > boot_millis());
                    let state = self.look_at(id, journal, &processes, &listeners);
                    state.map(|state| FoundInstance {
                        instance: id,
                        function,
                        version,
                        devices,
                        memo,
                        state,
                        has_grace,
                    })
                }
                None => self.without_journal(id, &processes).map(|reason| FoundInstance {
                    instance: id,
                    function,
                    version: None,
                    devices: Vec::new(),
                    memo: String::new(),
                    state: Err(reason),
                    has_grace: false,
                }),
            };
            let Some(mut found) = found else {
                let _ = fs::remove_dir_all(&folder);
                continue;
            };
            if let Ok(alive) = &mut found.state
                && let Some((left, number)) = left_on(&alive.endpoint, &connections)
                // One that sleeps had nothing to do; it has not seen yet that its connections were closed.
                && !alive.asleep
            {
                alive.busy = u32::try_from(number).unwrap_or(u32::MAX);
                inherited.0.insert(id, left);
            }
            all.push(found);
        }
        Adoption { found: all, inherited }
    }

    /// An instance with a journal. None if nothing of it is left.
    fn look_at(
        &self,
        id: InstanceId,
        journal: Journal,
        marked: &[u32],
        listeners: &[Listener],
    ) -> Option<Result<AliveInstance, String>> {
        let main = processes::look(journal.process).filter(|main| main.started == journal.started && !main.has_ended());
        let others = journal.cgroup.as_deref().map(cgroup::processes).unwrap_or_default();
        if main.is_none() && others.is_empty() && marked.is_empty() {
            // A process of the same id with another start is a stranger and none of our business.
            if let Some(folder) = &journal.cgroup {
                cgroup::remove(folder);
            }
            journal.limits.iter().for_each(|folder| cgroup::remove(folder));
            let _ = fs::remove_dir_all(self.folder_of(id));
            return Some(Err(ENDED.to_owned()));
        }
        let process = self.take_hold(id, journal.clone(), main.is_some());
        let Some(main) = main else {
            return Some(Err("its main process ended while no server ran".to_owned()));
        };
        if !journal.may_serve() {
            return Some(Err(journal.caught_in().to_owned()));
        }
        let Some(endpoint) = endpoint_of(&journal) else { return Some(Err("it listened nowhere".to_owned())) };
        let asleep = process.settle_asleep();
        match (&endpoint, journal.address) {
            (Endpoint::Unix(path), _) if !is_own_socket(&process, path) => {
                return Some(Err(format!("it does not listen on its socket {} any more", path.display())));
            }
            (Endpoint::Tcp(_), Some(address)) => {
                let inodes = sockets::inodes_of(&process.members());
                if !listeners.iter().any(|l| l.address.port() == address.port() && inodes.contains(&l.inode)) {
                    return Some(Err(format!("it does not listen on its port {} any more", address.port())));
                }
            }
            _ => {}
        }
        self.read_on(&process, &journal);
        let (life, token) = (process.life.clone(), contract::token_of(&process.headers));
        Some(Ok(AliveInstance { endpoint, life, token, asleep, busy: 0, born: main.born() }))
    }

    /// An instance without a journal: its server ended between its start and the writing of one, or the file was lost.
    fn without_journal(&self, id: InstanceId, marked: &[u32]) -> Option<String> {
        let cgroup = self.cgroup_of(id).filter(|folder| folder.is_dir());
        let first = marked.first().copied().or_else(|| cgroup.as_deref().map(cgroup::processes)?.first().copied());
        let Some(first) = first else {
            cgroup.as_deref().inspect(|folder| cgroup::remove(folder));
            return None;
        };
        let (function, version) = ("unknown".parse().ok()?, VersionId(0));
        let nothing = Journal {
            host_boot: String::new(),
            function,
            version,
            process: first,
            started: 0,
            port: 0,
            more_ports: Vec::new(),
            cgroup,
            directory: None,
            limits: Vec::new(),
            memory: None,
            devices: Vec::new(),
            initialize: false,
            stage: Stage::Ending,
            ending: None,
            address: None,
            socket: None,
            user: None,
            owner: 0,
            memo: String::new(),
            headers: Vec::new(),
        };
        self.take_hold(id, nothing, false);
        Some("nothing is written down of it".to_owned())
    }

    /// Puts it into the table as if we had started it.
    fn take_hold(&self, id: InstanceId, journal: Journal, main_lives: bool) -> Arc<Process> {
        let (ended, watch) = watch::channel(None);
        let (life, alive) = watch::channel(Liveness::Alive);
        let limited = journal.clone();
        let watched = main_lives
            && Watcher {
                instance: id,
                ended: ended.clone(),
                life: life.clone(),
                report: self.events.clone(),
                out_of_memory: move || limited.out_of_memory(),
            }
            .adopted(journal.process)
            .inspect_err(|error| tracing::warn!(instance = %id, %error, "it ended in this moment"))
            .is_ok();
        if !watched {
            life.send_replace(Liveness::Ended);
            let _ = ended.send(Some(InstanceEnd { instance: id, code: None, signal: None, out_of_memory: None }));
        }
        let process = Arc::new(Process {
            id,
            pid: journal.process,
            leads_group: main_lives,
            cgroup: journal.cgroup.clone(),
            namespace: if main_lives { Namespace::of(journal.process) } else { None },
            is_other_user: main_lives && is_other_user(journal.process),
            server: self.options.server.clone(),
            stopped_strays: Mutex::default(),
            folder: self.folder_of(id),
            ended: watch,
            life: alive,
            stopping: tokio::sync::Mutex::default(),
            headers: contract::read_headers(&journal.headers),
            endpoint: Mutex::new(endpoint_of(&journal)),
            journal: Mutex::new(journal.clone()),
        });
        self.processes.add(id, process.clone());
        let ports = [journal.port].into_iter().chain(journal.more_ports.iter().copied()).collect();
        self.options.ports.keep(id, ports);
        process
    }

    fn read_on(&self, process: &Process, journal: &Journal) {
        let log = LogFile::of(&self.options.logs, journal.function.as_str(), process.id).of_version(journal.version);
        for name in streams::NAMES {
            match streams::open(&process.folder, name) {
                Ok(pipe) => self.pump.read(process.id, name, pipe, log.clone()),
                Err(error) => tracing::error!(instance = %process.id, stream = name, %error, "its output is not read"),
            }
        }
    }
}

impl Process {
    /// Whether it sleeps. One that was caught between waking and sleeping does either afterwards.
    fn settle_asleep(&self) -> bool {
        let end = boot_millis() + u64::try_from(FALL_ASLEEP.as_millis()).unwrap_or(0);
        let in_time = || boot_millis() < end;
        let asleep = match &self.cgroup {
            Some(folder) if !cgroup::is_told_to_freeze(folder) => return false,
            Some(folder) => loop {
                if cgroup::is_frozen(folder).unwrap_or(false) {
                    break true;
                }
                if !in_time() {
                    break false;
                }
                std::thread::sleep(Duration::from_millis(1));
            },
            None => loop {
                let members = self.members();
                let stopped =
                    members.iter().filter(|member| processes::look(**member).is_some_and(|p| p.is_stopped())).count();
                if stopped == 0 {
                    return false;
                }
                if stopped == members.len() {
                    break true;
                }
                if !in_time() {
                    break false;
                }
                std::thread::sleep(Duration::from_millis(1));
            },
        };
        // The server that stopped them has ended.
        let stopped = |process: &u32| processes::look(*process).is_some_and(|process| process.is_stopped());
        *self.stopped_strays.lock() = self.strays().into_iter().filter(stopped).collect();
        if !asleep && let Err(error) = self.thaw() {
            tracing::warn!(instance = %self.id, %error, "it was half asleep and cannot be woken");
        }
        asleep
    }
}

/// Where an instance listened.
fn endpoint_of(journal: &Journal) -> Option<Endpoint> {
    let socket = journal.socket.as_deref().map(|path| Endpoint::Unix(path.into()));
    socket.or_else(|| journal.address.map(Endpoint::from))
}

/// The connections of the earlier server that are open on the side of the instance, and how many.
fn left_on(endpoint: &Endpoint, connections: &[Connection]) -> Option<(LeftConnections, usize)> {
    if let Endpoint::Unix(path) = endpoint {
        let open = sockets::unix_sockets(path).connected;
        let number = open.len();
        return (number > 0).then(|| (LeftConnections::Unix(path.to_path_buf(), open), number));
    }
    let Endpoint::Tcp(address) = endpoint else { return None };
    let own = connections.iter().filter(|connection| connection.local.port() == address.port());
    let open: Vec<Connection> = own.copied().collect();
    let number = open.len();
    (number > 0).then_some((LeftConnections::Tcp(None, open), number))
}

/// Every process with our server's mark, but for ourselves: a server that was started inside an instance carries it too.
fn marked(server: &str) -> MarkedProcesses {
    let mark = format!("{}={server}", contract::SERVER);
    let mut found = MarkedProcesses::new();
    for process in sockets::all_processes().into_iter().filter(|process| *process != std::process::id()) {
        let Ok(bytes) = fs::read(format!("/proc/{process}/environ")) else { continue };
        if !bytes.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()) {
            continue;
        }
        let variables = processes::environment(process);
        let value = |name: &str| variables.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
        let Some(id) = value(contract::INSTANCE).and_then(|text| text.parse().ok()) else { continue };
        let entry = found.entry(id).or_default();
        entry.0 = value(contract::FUNCTION).and_then(|name| name.parse().ok());
        entry.1.push(process);
    }
    found
}

/// The instances that folders are named after.
fn names(folder: &Path) -> BTreeSet<InstanceId> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
