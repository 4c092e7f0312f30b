//! Instances as child processes: own process group, own port, own logs, own cgroup where the host allows one.

mod cgroup;
mod contract;
mod expand;
mod leftovers;
mod logs;
mod members;
mod ready;
mod spawn;
mod stop;
mod unsafe_spawn;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use kip_spec::InstanceId;
use kip_spec::function::Hook;
use tokio::sync::{mpsc, watch};

use crate::body::{Body, Ended, Error, Order, Running, StartError, StopOrder};

pub use logs::LogFiles;

/// What a start says that was ordered to end before it had a process.
const CANCELLED: &str = "the start was cancelled";
/// How long a pause may take to be seen.
const FREEZE_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// What a process body needs to know of its host.
#[derive(Debug, Clone)]
pub struct Options {
    /// The id of the server that owns the instances; they carry it in their environment.
    pub server: String,
    /// Folder for the instances' logs.
    pub logs: PathBuf,
}

/// What this host lets us do to processes, found out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The cgroup folder for instances, where freezing and killing work feature by feature.
    pub cgroup: Option<PathBuf>,
    /// Why there is none.
    pub cgroup_missing: Option<String>,
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
    cgroup: Option<PathBuf>,
    /// Set once the main process has ended.
    ended: watch::Receiver<Option<Ended>>,
    /// Headers for hooks.
    headers: http::HeaderMap,
    /// Known once ready.
    address: Mutex<Option<SocketAddr>>,
}

/// The processes there are.
#[derive(Debug, Default)]
pub(crate) struct Table {
    running: HashMap<InstanceId, Arc<Process>>,
    /// The ports they were given.
    ports: HashMap<InstanceId, u16>,
    /// Told to end before their start got as far as a process.
    cancelled: HashSet<InstanceId>,
    /// Their start failed without a process; the end that follows has nothing to do.
    failed: HashSet<InstanceId>,
}

/// Child processes of this server.
#[derive(Debug)]
pub struct ProcessBody {
    options: Options,
    capabilities: Capabilities,
    processes: Mutex<Table>,
    ended: mpsc::Sender<Ended>,
}

impl ProcessBody {
    /// Probes the host, ends what an earlier server left behind, and is ready to start instances. The ends of main
    /// processes are reported to `ended`. The second value says how many leftover processes were ended.
    ///
    /// # Errors
    /// When the log folder cannot be made.
    pub fn new(options: Options, ended: mpsc::Sender<Ended>) -> std::io::Result<(Self, usize)> {
        kip_host::directory::create_private(&options.logs)?;
        let left = leftovers::end_all(&options.server);
        let (cgroup, cgroup_missing) = match cgroup::prepare(&options.server) {
            Ok(path) => (Some(path), None),
            Err(reason) => (None, Some(reason)),
        };
        let capabilities = Capabilities { cgroup, cgroup_missing };
        Ok((Self { options, capabilities, processes: Mutex::default(), ended }, left))
    }

    /// What this host lets us do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Where an instance's output is.
    pub fn log_files(&self, function: &str, instance: InstanceId) -> LogFiles {
        LogFiles::of(&self.options.logs, function, instance)
    }

    /// The folder of a function's logs.
    pub fn log_folder(&self, function: &str) -> PathBuf {
        self.options.logs.join(function)
    }

    /// Removes what the body made on the host, once all instances are gone.
    pub fn clean_up(&self) {
        if let Some(cgroup) = &self.capabilities.cgroup {
            cgroup::remove(cgroup);
        }
    }

    fn find(&self, id: InstanceId) -> Result<Arc<Process>, Error> {
        self.lock().running.get(&id).cloned().ok_or(Error::Unknown(id))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, id: InstanceId) {
        let mut table = self.lock();
        table.running.remove(&id);
        table.ports.remove(&id);
    }

    /// The instance's process; one that is not there yet will not be started.
    fn find_or_cancel(&self, id: InstanceId) -> Option<Arc<Process>> {
        let mut table = self.lock();
        let found = table.running.get(&id).cloned();
        if found.is_none() && !table.failed.remove(&id) {
            table.cancelled.insert(id);
        }
        found
    }

    fn cgroup_of(&self, id: InstanceId) -> Option<PathBuf> {
        self.capabilities.cgroup.as_deref().map(|root: &Path| root.join(id.to_string()))
    }
}

#[async_trait]
impl Body for ProcessBody {
    async fn start(&self, order: Order) -> Result<Running, StartError> {
        let files = self.log_files(order.function.as_str(), order.instance);
        let (process, port) = self.spawn(&order, &files).inspect_err(|error| {
            self.forget(order.instance);
            if error.detail != CANCELLED {
                self.lock().failed.insert(order.instance);
            }
        })?;
        let ready = ready::wait(&process, &order, port).await;
        match ready {
            Ok(running) => {
                *process.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(running.address);
                Ok(running)
            }
            Err((problem, detail)) => Err(StartError { problem, detail, last_lines: files.last_lines(12) }),
        }
    }

    async fn initialize(&self, instance: InstanceId, hook: &Hook) -> Result<(), Error> {
        let process = self.find(instance)?;
        contract::call_hook(&process, "initialize", http::Method::POST, hook).await
    }

    async fn pause(&self, instance: InstanceId) -> Result<(), Error> {
        self.find(instance)?.freeze().await
    }

    async fn resume(&self, instance: InstanceId) -> Result<(), Error> {
        self.find(instance)?.thaw()
    }

    async fn stop(&self, instance: InstanceId, order: StopOrder) -> Result<(), Error> {
        let Some(process) = self.find_or_cancel(instance) else { return Ok(()) };
        process.end_gently(&order).await;
        process.end_by_force(&self.options.server).await?;
        self.forget(instance);
        Ok(())
    }

    async fn kill(&self, instance: InstanceId) -> Result<(), Error> {
        let Some(process) = self.find_or_cancel(instance) else { return Ok(()) };
        process.end_by_force(&self.options.server).await?;
        self.forget(instance);
        Ok(())
    }

    fn process(&self, instance: InstanceId) -> Option<u32> {
        self.find(instance).ok().map(|process| process.pid)
    }
}
