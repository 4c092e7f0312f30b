//! Instances as child processes: own process group, own port, own logs, own cgroup where the host allows one.

mod adopt;
pub(crate) mod autopsy;
pub(crate) mod cgroup;
pub mod check;
mod code;
mod entrance;
pub(crate) mod exec;
mod isolation;
mod journal;
mod launch;
pub(crate) mod limits;
mod members;
mod namespace;
mod pump;
mod ready;
mod root;
mod spawn;
pub mod stop;
mod streams;
mod unsafe_folder;
mod unsafe_isolate;
mod unsafe_readable;
mod unsafe_root;
mod unsafe_spawn;
mod view;
mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kip_spec::InstanceId;
use kip_spec::function::Hook;
use kip_spec::sleep::InstanceCall;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::watch::Receiver;

use crate::adoption::Adoption;
use crate::body::{
    Body, BodyEvent, CallAnswer, Error, Health, InstanceEnd, Liveness, LocalBody, Measure, Order, ReadyInstance,
    StartError, StartProblem, StopOrder, Termination,
};
use isolation::Isolation;
use journal::{Journal, Stage};
use kip_host::endpoint::Endpoint;
use kip_host::failpoint::reached;

use crate::contract;
use crate::exec::{ExecError, ExecOrder, ExecProcess};
use crate::logs::LogFile;
use crate::ports::Ports;
use crate::roster::Roster;
use limits::Limits;
use namespace::Namespace;
use pump::Pump;

pub use isolation::{InstanceUser, IsolationOptions};

/// How long a pause may take to be seen.
const FREEZE_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// What a process body needs to know of its host.
#[derive(Debug, Clone)]
pub struct Options {
    /// The id of the server that owns the instances; they carry it in their environment.
    pub server: String,
    /// The data directory, which is to be out of their reach.
    pub data: PathBuf,
    /// As whom they run, and within which limits.
    pub isolation: IsolationOptions,
    /// The ports of this host that instances were given, by all bodies.
    pub ports: Arc<Ports>,
    /// Folder for what belongs to instances while they live, one folder each.
    pub instances: PathBuf,
    /// Folder for the instances' logs.
    pub logs: PathBuf,
    /// How the disk stands: while it is nearly full, what instances write is left out.
    pub pressure: kip_host::disk::Pressure,
}

/// What this host lets us do to processes, found out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The cgroup folder for instances, where freezing and killing work feature by feature.
    pub cgroup: Option<PathBuf>,
    /// Why there is none.
    pub cgroup_missing: Option<String>,
    /// Which declared limits cannot be enforced, where some cannot.
    pub limits_missing: Option<String>,
    /// How instances are kept from the server, in words.
    pub isolation: String,
    /// Why that is less than it could be.
    pub isolation_missing: Option<String>,
    /// Whether they are kept from it at all.
    pub isolated: bool,
    /// Whether they have mounts of their own, so that they can be shown other files than those of the host.
    pub mounts: bool,
}

impl Capabilities {
    /// How pausing is done, in words.
    pub fn pause_method(&self) -> &'static str {
        if self.cgroup.is_some() { "cgroup v2 freezer" } else { "SIGSTOP to the process group" }
    }
}

/// A child process and what belongs to it.
#[derive(Debug)]
pub(crate) struct Process {
    id: InstanceId,
    /// Main process, and the number of its process group.
    pid: u32,
    /// Whether that number is known to be its own still; else somebody else's processes may bear it.
    leads_group: bool,
    cgroup: Option<PathBuf>,
    /// Its user namespace, where it has one of its own.
    namespace: Option<Namespace>,
    /// It runs as another user than its server, so that it can write no cgroup of ours.
    is_other_user: bool,
    /// The id of its server, which is in its environment.
    server: String,
    /// Processes outside of its cgroup or group that were stopped with it.
    stopped_strays: Mutex<Vec<u32>>,
    /// Its own folder: journal and pipes.
    folder: PathBuf,
    /// What the next server is told of it.
    journal: Mutex<Journal>,
    /// Set once the main process has ended.
    ended: Receiver<Option<InstanceEnd>>,
    /// The same for others.
    life: Receiver<Liveness>,
    /// Held while it is being stopped.
    stopping: tokio::sync::Mutex<()>,
    /// Headers for hooks.
    headers: http::HeaderMap,
    /// Where it is reached; known once ready.
    endpoint: Mutex<Option<Endpoint>>,
}

impl Process {
    /// Calls a hook on it.
    async fn call_hook(&self, name: &'static str, method: http::Method, hook: &Hook) -> Result<(), Error> {
        let endpoint = self.endpoint.lock().clone();
        contract::call_hook(self.id, (endpoint, &self.headers), name, method, hook).await
    }

    /// Writes down how far it has come. If that fails it serves on, and the next server ends it.
    fn note(&self, change: impl FnOnce(&mut Journal)) {
        let mut journal = self.journal.lock();
        change(&mut journal);
        if let Err(error) = journal.write(&self.folder) {
            tracing::error!(instance = %self.id, %error, "its journal is not written; a restart of the server would end it");
        }
    }
}

/// Child processes of this server, and those of an earlier one that it took over.
#[derive(Debug)]
pub struct ProcessBody {
    options: Options,
    capabilities: Capabilities,
    processes: Roster<Process>,
    events: mpsc::Sender<BodyEvent>,
    pump: Pump,
    limits: Limits,
    isolation: Isolation,
}

impl ProcessBody {
    /// Probes the host, and is ready to start instances. The ends of main processes are reported to `events`.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub fn new(options: Options, events: mpsc::Sender<BodyEvent>) -> std::io::Result<Self> {
        kip_host::directory::create_own(&options.logs)?;
        kip_host::directory::create_own(&options.instances)?;
        let (cgroup, cgroup_missing) = match cgroup::prepare(&options.server) {
            Ok(path) => (Some(path), None),
            Err(reason) => (None, Some(reason)),
        };
        let limits = Limits::find(&options.server, cgroup.as_deref());
        let isolation = Isolation::find(options.isolation.clone(), &options.data);
        let capabilities = Capabilities {
            cgroup,
            cgroup_missing,
            limits_missing: limits.missing(),
            isolation: isolation.method.clone(),
            isolation_missing: isolation.missing.clone(),
            isolated: isolation.holds(),
            mounts: isolation.mounts(),
        };
        let pump = Pump::start(options.pressure.clone())?;
        Ok(Self { options, capabilities, processes: Roster::default(), events, pump, limits, isolation })
    }

    /// What this host lets us do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether an instance is one of this body's.
    #[cfg(feature = "docker")]
    pub(crate) fn has(&self, instance: InstanceId) -> bool {
        self.processes.has(instance)
    }

    /// The last lines that an instance wrote, up to now.
    async fn last_lines(&self, function: &str, instance: InstanceId, most: usize) -> Vec<String> {
        self.pump.settle(instance).await;
        LogFile::of(&self.options.logs, function, instance).last_lines(most)
    }

    /// Nothing of it is left: its folder and its port are free.
    fn forget(&self, id: InstanceId) {
        let _ = std::fs::remove_dir_all(self.folder_of(id));
        let _ = std::fs::remove_dir_all(self.socket_folder(id));
        self.processes.forget(id);
        self.options.ports.release(id);
    }

    fn folder_of(&self, id: InstanceId) -> PathBuf {
        self.options.instances.join(id.to_string())
    }

    /// The folder of the socket of an instance that listens on one.
    fn socket_folder(&self, id: InstanceId) -> PathBuf {
        self.options.data.join("sockets").join(id.to_string())
    }

    fn cgroup_of(&self, id: InstanceId) -> Option<PathBuf> {
        self.capabilities.cgroup.as_deref().map(|root: &Path| root.join(id.to_string()))
    }
}

/// What a program wrote about a file that it may not write, as a cause that says what to do.
fn read_only(lines: &[String]) -> Option<String> {
    const SAYINGS: [&str; 4] = ["read-only file system", "erofs", "[errno 30]", "os error 30"];
    let line = saying(lines, &SAYINGS)?;
    Some(format!(
        "it writes into its folder, which shows the files of its version and is read-only (`{line}`): name what it writes under `writable:`, or write `code: live`"
    ))
}

/// The last line with one of these in it, shortened.
fn saying(lines: &[String], sayings: &[&str]) -> Option<String> {
    let line = lines.iter().rev().find(|line| {
        let line = line.to_lowercase();
        sayings.iter().any(|saying| line.contains(saying))
    })?;
    Some(line.trim().chars().take(200).collect())
}

/// What a program wrote about an address that another one has, as a cause that says what to do.
fn in_use(lines: &[String]) -> Option<String> {
    const SAYINGS: [&str; 7] = [
        "address already in use",
        "eaddrinuse",
        "[errno 98]",
        "os error 98",
        "address in use",
        "failed to bind to address",
        "only one usage of each socket address",
    ];
    let line = saying(lines, &SAYINGS)?;
    Some(format!(
        "a port that it wants is in use (`{line}`): another instance or program listens there; give each port a name under `ports` and use ${{PORT_<NAME>}}, or set `deploy.strategy: recreate`"
    ))
}

#[async_trait]
impl Body for ProcessBody {
    async fn adopt(&self) -> Adoption {
        self.find_left()
    }

    async fn start(&self, order: Order) -> Result<ReadyInstance, StartError> {
        let Some(starting) = self.processes.begin(order.instance) else {
            let (problem, detail) = (StartProblem::SpawnFailed, "the start was cancelled".to_owned());
            return Err(StartError { problem, detail, last_lines: Vec::new() });
        };
        let (process, place) = self.spawn(&order).await.inspect_err(|_| {
            self.forget(order.instance);
            self.processes.fail(order.instance);
        })?;
        drop(starting);
        let ready = ready::wait(&process, &order, place).await;
        match ready {
            Ok(running) => {
                reached("start: ready");
                let endpoint = process.endpoint.lock().clone();
                process.note(|journal| {
                    journal.stage = Stage::Ready;
                    match endpoint {
                        Some(Endpoint::Tcp(address)) => journal.address = Some(address),
                        Some(Endpoint::Unix(path)) => journal.socket = Some(path.to_path_buf()),
                        _ => {}
                    }
                });
                reached("start: ready noted");
                Ok(running)
            }
            Err((problem, detail)) => {
                let last_lines = self.last_lines(order.function.as_str(), order.instance, 12).await;
                let read_only = order.code.as_ref().and_then(|_| read_only(&last_lines));
                let problem = match (problem, &read_only) {
                    (StartProblem::Exited { .. }, Some(_)) => StartProblem::CodeReadOnly,
                    _ => problem,
                };
                let cause = read_only.or_else(|| in_use(&last_lines));
                let detail = match (cause, detail.as_str()) {
                    (Some(cause), "") => cause,
                    (Some(cause), _) => format!("{cause}; {detail}"),
                    (None, _) => detail,
                };
                Err(StartError { problem, detail, last_lines })
            }
        }
    }

    async fn initialize(&self, instance: InstanceId, hook: &Hook) -> Result<(), Error> {
        let process = self.processes.known(instance)?;
        process.call_hook("initialize", http::Method::POST, hook).await?;
        reached("initialize: answered");
        process.note(|journal| journal.stage = Stage::Initialized);
        Ok(())
    }

    async fn call(&self, instance: InstanceId, what: &'static str, call: &InstanceCall) -> Result<CallAnswer, Error> {
        let process = self.processes.known(instance)?;
        let endpoint = process.endpoint.lock().clone();
        contract::call(instance, (endpoint, &process.headers), what, call).await
    }

    async fn remember(&self, instance: InstanceId, memo: &str) -> Result<(), Error> {
        self.processes.known(instance)?.note(|journal| memo.clone_into(&mut journal.memo));
        Ok(())
    }

    async fn pause(&self, instance: InstanceId) -> Result<(), Error> {
        reached("pause: begun");
        self.processes.known(instance)?.freeze().await?;
        reached("pause: frozen");
        Ok(())
    }

    async fn resume(&self, instance: InstanceId) -> Result<(), Error> {
        reached("resume: begun");
        kip_host::failpoint::delay("resume").await;
        self.processes.known(instance)?.thaw()?;
        reached("resume: thawed");
        Ok(())
    }

    async fn stop(&self, instance: InstanceId, order: StopOrder) -> Result<Termination, Error> {
        let Some(process) = self.processes.find_or_cancel(instance).await else { return Ok(Termination::Graceful) };
        process.note(|journal| journal.stage = Stage::Ending);
        reached("stop: noted");
        let ended = process.end_gently(&order, &self.options.server).await;
        reached("stop: asked");
        process.end_by_force(&self.options.server).await?;
        reached("stop: gone");
        self.forget(instance);
        Ok(ended)
    }

    async fn kill(&self, instance: InstanceId) -> Result<(), Error> {
        let Some(process) = self.processes.find_or_cancel(instance).await else { return Ok(()) };
        process.end_by_force(&self.options.server).await?;
        self.forget(instance);
        Ok(())
    }

    async fn probe(&self, instance: InstanceId, path: &str, limit: Duration) -> Health {
        let Ok(process) = self.processes.known(instance) else { return Health::Refused };
        let endpoint = process.endpoint.lock().clone();
        contract::probe((endpoint, &process.headers), path, limit).await
    }

    async fn measure(&self, instances: &[InstanceId], what: Measure) -> HashMap<InstanceId, u64> {
        let processes = self.processes.of(instances);
        let measured = kip_host::tasks::blocking("measure instances", move || match what {
            Measure::Memory => autopsy::memory_of(&processes),
            Measure::PeakMemory => autopsy::peak_memory_of(&processes),
            Measure::CpuTime => autopsy::cpu_of(&processes),
        });
        measured.await.unwrap_or_default()
    }

    async fn stacks(&self, instance: InstanceId) -> Vec<String> {
        let Ok(process) = self.processes.known(instance) else { return Vec::new() };
        kip_host::tasks::blocking("look at stacks", move || autopsy::stacks(&process.members()))
            .await
            .unwrap_or_default()
    }

    async fn settle_logs(&self, function: &str, instance: Option<InstanceId>) {
        match instance {
            Some(instance) => self.pump.settle(instance).await,
            None => self.pump.settle_folder(&self.options.logs.join(function)).await,
        }
    }

    async fn exec(&self, instance: InstanceId, order: ExecOrder) -> Result<Box<dyn ExecProcess>, ExecError> {
        self.run_inside(instance, &order).await
    }

    async fn clean_up(&self) {
        if let Some(cgroup) = &self.capabilities.cgroup {
            cgroup::remove(cgroup);
        }
        self.limits.clean_up();
    }

    fn local(&self) -> Option<&dyn LocalBody> {
        Some(self)
    }
}

impl LocalBody for ProcessBody {
    fn process(&self, instance: InstanceId) -> Option<u32> {
        self.processes.known(instance).ok().map(|process| process.pid)
    }

    fn members(&self, instances: &[InstanceId]) -> HashMap<InstanceId, Vec<u32>> {
        let processes = self.processes.of(instances);
        autopsy::members_of(&processes)
    }

    fn limit_memory(&self, instance: InstanceId, bytes: u64) -> std::io::Result<()> {
        let Ok(process) = self.processes.known(instance) else { return Ok(()) };
        let journal = process.journal.lock();
        limits::set_memory(&journal.cgroups(), bytes).map(drop)
    }
}
