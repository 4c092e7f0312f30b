//! Instances as containers of a Docker or Podman engine on this host, through the API that both serve.
//!
//! The engine decides nothing: no restarts, no health checks. What is ours is found by label, with the id of the server in it, so that
//! several servers can share one engine. Differences of the engines are data ([`EngineInfo`]), not kinds of bodies.

mod adopt;
mod cgroups;
mod connect;
mod copying;
mod create;
mod credentials;
mod exec;
mod failure;
mod follow;
mod gpu;
mod images;
mod inspect;
mod instance;
pub mod job;
mod journal;
mod labels;
mod libpod;
mod output;
mod ready;
mod remote;
mod start;
mod stop;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kip_host::disk::Pressure;
use kip_spec::InstanceId;
use kip_spec::container::Container;
use kip_spec::function::Hook;
use kip_spec::sleep::InstanceCall;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::adoption::Adoption;
use crate::body::{
    Body, BodyEvent, CallAnswer, Error, Health, LocalBody, Measure, Order, ReadyInstance, StartError, StopOrder,
    Termination,
};
use crate::containers::{ContainerEngine, EngineError, EngineInfo, ImageInfo, PullProgress};
use crate::contract;
use crate::exec::{ExecError, ExecOrder, ExecProcess};
use crate::logs::LogFile;
use crate::mounts;
use crate::ports::Ports;
use crate::process::autopsy;
use crate::roster::Roster;
use connect::{Engine, connect};
use instance::Instance;

pub use connect::EngineAddress;
pub use remote::RemoteOptions;
pub use tunnel::SshTarget;

/// What a body of containers needs to know of its host.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// The id of the server that owns the instances; containers carry it in a label.
    pub server: String,
    /// Where the engine is looked for.
    pub address: EngineAddress,
    /// Folder for what belongs to instances while they live, one folder each.
    pub instances: PathBuf,
    /// Folder for the instances' logs.
    pub logs: PathBuf,
    /// How the disk stands: while it is nearly full, what instances write is left out.
    pub pressure: Pressure,
    /// The ports of this host that instances were given, by all bodies.
    pub ports: Arc<Ports>,
    /// The name of each device of the host in device specifications (CDI).
    pub devices: Vec<String>,
    /// Folders below which folders of the host may be mounted into containers.
    pub mounts: Vec<PathBuf>,
    /// What is special about a named engine; none of the engine of this host.
    pub remote: Option<RemoteOptions>,
}

/// Containers of this server, and those of an earlier one that it took over.
#[derive(Debug)]
pub struct DockerBody {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: DockerOptions,
    roster: Roster<Instance>,
    events: mpsc::Sender<BodyEvent>,
    /// The engine that answered last.
    engine: Mutex<Option<Arc<Engine>>>,
    /// Held while one is looked for.
    connecting: tokio::sync::Mutex<()>,
    /// What earlier servers left has been looked for: only now may what nobody owns be removed.
    adopted: AtomicBool,
    /// Its events are followed.
    following: AtomicBool,
    reader: output::Reader,
    pulls: images::Pulls,
    /// The ssh to an engine on another host.
    tunnel: Option<Arc<tunnel::Tunnel>>,
    /// Whether a named engine answered when last asked.
    there: AtomicBool,
    /// Where images are copied from that the engine lacks.
    donor: Option<Arc<Shared>>,
}

/// What the engine at an address is, for one look.
///
/// # Errors
/// What was tried, in words, if none answers.
pub async fn describe(address: &EngineAddress) -> Result<EngineInfo, String> {
    connect(address, None).await.map(|engine| engine.info)
}

impl DockerBody {
    /// A body that looks for its engine when it first needs it. Ends of containers are reported to `events`.
    ///
    /// # Errors
    /// When the folder cannot be made, or no thread can be started.
    pub fn new(options: DockerOptions, events: mpsc::Sender<BodyEvent>) -> std::io::Result<Self> {
        Self::open(options, events, None)
    }

    /// The same for a named engine. Images that it lacks and that no registry has are copied from the engine of this body.
    ///
    /// # Errors
    /// As [`DockerBody::new`].
    pub fn another(&self, options: DockerOptions, events: mpsc::Sender<BodyEvent>) -> std::io::Result<Self> {
        Self::open(options, events, Some(self.shared.clone()))
    }

    fn open(
        options: DockerOptions,
        events: mpsc::Sender<BodyEvent>,
        donor: Option<Arc<Shared>>,
    ) -> std::io::Result<Self> {
        kip_host::directory::create_own(&options.instances)?;
        let tunnel = match &options.address {
            EngineAddress::Ssh(target) => Some(Arc::new(tunnel::Tunnel::open(target.clone())?)),
            _ => None,
        };
        let reader = output::Reader::start(options.pressure.clone())?;
        let shared = Shared {
            options,
            roster: Roster::default(),
            events,
            engine: Mutex::new(None),
            connecting: tokio::sync::Mutex::default(),
            adopted: AtomicBool::new(false),
            following: AtomicBool::new(false),
            reader,
            pulls: images::Pulls::default(),
            tunnel,
            there: AtomicBool::new(true),
            donor,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether an instance is one of this body's.
    pub(crate) fn has(&self, instance: InstanceId) -> bool {
        self.shared.roster.has(instance)
    }

    /// What the process of a job is to run on this engine; none if the order is not about that.
    ///
    /// # Errors
    /// In words, why there is no engine.
    pub(crate) async fn job(&self, order: &Order) -> Result<Option<job::JobContainer>, String> {
        if order.runs.is_none() {
            return Ok(None);
        }
        let options = &self.shared.options;
        let engine = self.shared.engine().await?;
        Ok(job::JobContainer::of(order, &options.server, engine.info.socket.clone(), &options.devices))
    }

    /// Removes what the process of a job has left behind, or what those have left that do not live any more.
    pub(crate) async fn sweep_jobs(&self, only: Option<InstanceId>, alive: &BTreeSet<InstanceId>) {
        let engine = self.shared.engine.lock().clone();
        if let Some(engine) = engine {
            job::sweep(&engine, &self.shared.options.server, only, alive).await;
        }
    }

    async fn engine_for(&self, instance: InstanceId, what: &'static str) -> Result<Arc<Engine>, Error> {
        self.shared.engine().await.map_err(|reason| Error::Engine { what, instance, reason })
    }
}

impl Shared {
    /// The engine, for what is asked of it beside instances.
    async fn engine_of_images(self: &Arc<Self>) -> Result<Arc<Engine>, EngineError> {
        if self.options.address == EngineAddress::Off {
            return Err(EngineError::Off);
        }
        self.engine().await.map_err(EngineError::NoEngine)
    }

    /// The engine, looked for if none has answered yet.
    async fn engine(self: &Arc<Self>) -> Result<Arc<Engine>, String> {
        if let Some(engine) = self.engine.lock().clone() {
            self.begin_following(&engine);
            return Ok(engine);
        }
        let _turn = self.connecting.lock().await;
        if let Some(engine) = self.engine.lock().clone() {
            return Ok(engine);
        }
        let engine = Arc::new(connect(&self.options.address, self.tunnel.as_deref()).await?);
        let info = &engine.info;
        tracing::info!(
            engine = info.kind.name(), version = info.version, api = info.api, socket = %info.socket.display(),
            storage = info.storage, cgroup = info.cgroup, "containers run on this engine"
        );
        self.connected(engine.clone());
        self.begin_following(&engine);
        Ok(engine)
    }

    fn connected(&self, engine: Arc<Engine>) {
        *self.engine.lock() = Some(engine);
    }

    fn begin_following(self: &Arc<Self>, engine: &Arc<Engine>) {
        if self.adopted.load(Ordering::Acquire) && !self.following.swap(true, Ordering::AcqRel) {
            let followed = follow::follow(Arc::downgrade(self), engine.clone());
            kip_host::tasks::spawn("container engine events", followed);
        }
    }

    fn folder_of(&self, id: InstanceId) -> PathBuf {
        self.options.instances.join(id.to_string())
    }

    /// Nothing of it is left.
    fn forget(&self, id: InstanceId) {
        if let Ok(instance) = self.roster.known(id) {
            self.close_route(&instance);
        }
        let _ = std::fs::remove_dir_all(self.folder_of(id));
        self.roster.forget(id);
        self.options.ports.release(id);
    }

    /// What takes connections in the place of programs.
    fn proxied(&self, published: bool) -> ready::Proxy {
        match (self.tunnel.is_some(), published) {
            (true, _) if self.publishes_on().is_none() => ready::Proxy::Ssh,
            (_, true) => ready::Proxy::Engine,
            _ => ready::Proxy::None,
        }
    }

    /// Whether the folders that a container is to see may be mounted. Those of another host cannot be looked at from here.
    fn check_mounts(&self, container: &Container) -> Result<(), EngineError> {
        match &self.options.remote {
            None => mounts::check(container, &self.options.mounts),
            Some(_) => mounts::check_names(container, &self.options.mounts),
        }
    }

    fn read_output(&self, engine: &Engine, instance: &Arc<Instance>) {
        let log = LogFile::of(&self.options.logs, &instance.function, instance.id);
        let log = match instance.version {
            Some(version) => log.of_version(version),
            None => log,
        };
        *instance.output.lock() = Some(self.reader.read(engine.docker.clone(), instance, log));
    }

    /// Waits until what an instance wrote is in its log.
    async fn settle(&self, instance: &Instance) {
        let output = instance.output.lock().clone();
        let engine = self.engine.lock().clone();
        if let (Some(output), Some(engine)) = (output, engine) {
            match instance.has_ended() {
                true => output.rest().await,
                false => output.settle(&engine.docker, &instance.container).await,
            }
        }
    }
}

#[async_trait]
impl Body for DockerBody {
    async fn adopt(&self) -> Adoption {
        let adoption = self.shared.find_left().await;
        self.shared.adopted.store(true, Ordering::Release);
        let engine = self.shared.engine.lock().clone();
        if let Some(engine) = engine {
            self.shared.begin_following(&engine);
        } else if self.shared.options.remote.is_some() {
            self.shared.tell_pool(false).await;
            self.shared.look_for_engine();
        }
        adoption
    }

    async fn start(&self, order: Order) -> Result<ReadyInstance, StartError> {
        self.shared.start_instance(&order).await
    }

    async fn initialize(&self, instance: InstanceId, hook: &Hook) -> Result<(), Error> {
        let instance = self.shared.roster.known(instance)?;
        instance.call_hook("initialize", http::Method::POST, hook).await?;
        instance.note(|journal| journal.stage = journal::Stage::Initialized);
        Ok(())
    }

    async fn probe(&self, instance: InstanceId, path: &str, limit: Duration) -> Health {
        let Ok(known) = self.shared.roster.known(instance) else { return Health::Refused };
        let address = *known.address.lock();
        contract::probe((address.map(Into::into), &known.headers), path, limit).await
    }

    async fn measure(&self, instances: &[InstanceId], what: Measure) -> HashMap<InstanceId, u64> {
        let instances = self.shared.roster.of(instances);
        let measure = move || {
            let one = |instance: &Arc<Instance>| {
                let process = instance.process.lock();
                let (_, cgroups) = process.as_ref()?;
                let measured = match what {
                    Measure::Memory => cgroups.memory(),
                    Measure::PeakMemory => cgroups.peak_memory(),
                    Measure::CpuTime => cgroups.cpu(),
                };
                Some((instance.id, measured?))
            };
            instances.iter().filter_map(one).collect()
        };
        kip_host::tasks::blocking("measure containers", measure).await.unwrap_or_default()
    }

    async fn stacks(&self, instance: InstanceId) -> Vec<String> {
        let members = self.members(&[instance]).remove(&instance).unwrap_or_default();
        kip_host::tasks::blocking("look at stacks", move || autopsy::stacks(&members)).await.unwrap_or_default()
    }

    async fn settle_logs(&self, function: &str, instance: Option<InstanceId>) {
        let of = |known: &Arc<Instance>| known.function == function && instance.is_none_or(|id| id == known.id);
        let instances: Vec<Arc<Instance>> = self.shared.roster.all().into_iter().filter(of).collect();
        futures_util::future::join_all(instances.iter().map(|instance| self.shared.settle(instance))).await;
    }

    async fn call(&self, instance: InstanceId, what: &'static str, call: &InstanceCall) -> Result<CallAnswer, Error> {
        let known = self.shared.roster.known(instance)?;
        let address = *known.address.lock();
        contract::call(instance, (address.map(Into::into), &known.headers), what, call).await
    }

    async fn remember(&self, instance: InstanceId, memo: &str) -> Result<(), Error> {
        self.shared.roster.known(instance)?.note(|journal| journal.memo = Some(memo.to_owned()));
        Ok(())
    }

    async fn pause(&self, instance: InstanceId) -> Result<(), Error> {
        let known = self.shared.roster.known(instance)?;
        let engine = self.engine_for(instance, "pause").await?;
        self.shared.pause(&engine, &known).await
    }

    async fn resume(&self, instance: InstanceId) -> Result<(), Error> {
        let known = self.shared.roster.known(instance)?;
        let engine = self.engine_for(instance, "resume").await?;
        self.shared.unpause(&engine, &known).await
    }

    async fn stop(&self, instance: InstanceId, order: StopOrder) -> Result<Termination, Error> {
        let Some(known) = self.shared.roster.find_or_cancel(instance).await else { return Ok(Termination::Graceful) };
        if self.shared.forget_if_given_up(&known) {
            return Ok(Termination::Killed);
        }
        let engine = self.engine_for(instance, "stop").await?;
        let ended = self.shared.end_gently(&engine, &known, &order).await;
        self.shared.end_by_force(&engine, &known).await?;
        self.shared.forget(instance);
        Ok(ended)
    }

    async fn kill(&self, instance: InstanceId) -> Result<(), Error> {
        let Some(known) = self.shared.roster.find_or_cancel(instance).await else { return Ok(()) };
        if self.shared.forget_if_given_up(&known) {
            return Ok(());
        }
        let engine = self.engine_for(instance, "end").await?;
        self.shared.end_by_force(&engine, &known).await?;
        self.shared.forget(instance);
        Ok(())
    }

    async fn exec(&self, instance: InstanceId, order: ExecOrder) -> Result<Box<dyn ExecProcess>, ExecError> {
        self.run_inside(instance, &order).await
    }

    async fn clean_up(&self) {
        let engine = self.shared.engine.lock().clone();
        if let Some(engine) = engine {
            self.shared.sweep(&engine).await;
        }
    }

    fn local(&self) -> Option<&dyn LocalBody> {
        self.shared.options.remote.is_none().then_some(self)
    }

    fn engine(&self) -> Option<&dyn ContainerEngine> {
        Some(self)
    }
}

impl LocalBody for DockerBody {
    fn process(&self, instance: InstanceId) -> Option<u32> {
        let known = self.shared.roster.known(instance).ok()?;
        let process = known.process.lock();
        process.as_ref().map(|(process, _)| *process)
    }

    fn members(&self, instances: &[InstanceId]) -> HashMap<InstanceId, Vec<u32>> {
        let members = |instance: &Arc<Instance>| {
            let process = instance.process.lock();
            Some((instance.id, process.as_ref()?.1.processes()))
        };
        self.shared.roster.of(instances).iter().filter_map(members).collect()
    }

    fn limit_memory(&self, instance: InstanceId, bytes: u64) -> std::io::Result<()> {
        let Ok(known) = self.shared.roster.known(instance) else { return Ok(()) };
        let cgroups = known.process.lock().as_ref().map(|(_, cgroups)| cgroups.clone());
        cgroups.map_or(Ok(()), |cgroups| cgroups.limit_memory(bytes))
    }
}

#[async_trait]
impl ContainerEngine for DockerBody {
    async fn describe(&self) -> Result<EngineInfo, String> {
        // Asked anew: it may have been replaced by another version, or have ended.
        let engine = Arc::new(connect(&self.shared.options.address, self.shared.tunnel.as_deref()).await?);
        let info = engine.info.clone();
        self.shared.connected(engine);
        Ok(info)
    }

    async fn resolve(&self, container: &Container) -> Result<Container, EngineError> {
        self.shared.check_mounts(container)?;
        let engine = self.shared.engine_of_images().await?;
        let wanted = &engine.info.architecture;
        let facts = images::find(&engine.docker, &self.shared.pulls, container, wanted).await?;
        let digest = images::digest_of(&container.image, &facts.digests);
        Ok(Container { id: Some(facts.id), digest, ..container.clone() })
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, EngineError> {
        let engine = self.shared.engine_of_images().await?;
        images::list(&engine.docker).await
    }

    async fn pull(&self, image: &str) -> Result<(), EngineError> {
        let engine = self.shared.engine_of_images().await?;
        images::pull(&engine.docker, &self.shared.pulls, image).await
    }

    async fn remove(&self, image: &str) -> Result<(), EngineError> {
        let engine = self.shared.engine_of_images().await?;
        images::remove(&engine.docker, image).await
    }

    async fn ensure(&self, container: &Container) -> Result<(), EngineError> {
        let engine = self.shared.engine_of_images().await?;
        self.shared.image_of(&engine, container).await.map(drop)
    }

    fn take_pulled(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.pulls.done.lock())
    }

    fn pulls(&self) -> BTreeMap<String, PullProgress> {
        self.shared.pulls.under_way.lock().iter().map(|(image, progress)| (image.clone(), *progress)).collect()
    }
}
