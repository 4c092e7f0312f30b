//! The handle that everybody holds: functions by name, deployments, the host's ledger, shutdown.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kip_engine::{BodyEvent, Measure, StopOrder};
use kip_fleet::router::Message;
use kip_fleet::{CoreNumber, Event, Inventory, Placer, Router, ToPlacer};
use kip_host::failpoint::reached;
use kip_host::tasks::Supervisor;
use kip_spec::function::FunctionSpec;
use kip_spec::{Code, FunctionName, InstanceId, Millis, Problem, VersionId, code};
use kip_store::{
    Author, Change, Changes, Effect, IfMatch, Object, Proposal, RecordStore, RecordsFile, Retention, Seq, SqliteFile,
    StoredRevision, VersionSource,
};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use crate::bodies::Bodies;
use crate::cell::{Cell, now};
use crate::disk::{DiskOptions, DiskWatch, ServerEvent};
use crate::info::{FunctionInfo, HostInfo, InstanceInfo};
use crate::meter::Meter;
use crate::permit::Permit;
use crate::rounds::CheckSchedule;
use crate::timers::Timers;
use crate::version::Version;
use kip_records::Recorder;
use kip_records::access_log::{AccessLog, AccessLogOptions};
use kip_records::{TraceOptions, Traces};

/// From SIGTERM to SIGKILL for those that are still at work when the server has waited long enough, unless their function says.
const SHORTEST_GRACE: Millis = Millis::from_secs(10);
/// Places for tasks that may be on their way.
const OFFERS: usize = 4_096;

/// What the control room is told when it opens.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often this server was started, this time included.
    pub boot: u32,
    /// What there is for instances.
    pub inventory: Inventory,
    /// Our own program, which serves models and runs jobs.
    pub kip: PathBuf,
    /// The log store: a folder for each function.
    pub logs: PathBuf,
    /// Where jobs leave their files, a folder for each job.
    pub results: PathBuf,
    /// Instances on which work of an earlier server goes on that somebody holds, one for each piece of work.
    pub held: Vec<InstanceId>,
    /// The disk that state is on.
    pub disk: DiskOptions,
    /// How many records stay, and for how long.
    pub retention: Retention,
    /// Where each request is written down as a line, if it is.
    pub access_log: Option<AccessLogOptions>,
    /// Where traces of requests go, if anywhere.
    pub traces: Option<TraceOptions>,
    /// Ends the server when a task that it cannot do without has ended.
    pub supervisor: Supervisor,
}

/// The stores of a server.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Control objects.
    pub changes: Changes,
    /// Records.
    pub records: Arc<dyn RecordStore>,
    /// The stores as files, where they are some: for backups, restores and the watch over the disk.
    pub files: Option<Files>,
}

/// Stores in files on this machine, besides that of control objects.
#[derive(Debug, Clone)]
pub struct Files {
    /// Records.
    pub records: Arc<dyn RecordsFile>,
    /// Tasks.
    pub tasks: Arc<dyn SqliteFile>,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the change is not stored")]
    Store(#[from] kip_store::Error),
    /// There is no such function.
    #[error("there is no function `{name}`")]
    NoFunction {
        /// The name asked for.
        name: String,
        /// One that is nearly the same.
        nearest: Option<String>,
    },
    /// Two names differ in case only, and host names know no case.
    #[error("there is a function `{existing}` already; names must differ in more than case, because host names do")]
    NameCase {
        /// The name asked for.
        name: String,
        /// The name there is.
        existing: String,
    },
    /// The function has nobody of this name.
    #[error("the function `{function}` has no version or alias `{qualifier}` that serves")]
    NoQualifier {
        /// The function.
        function: String,
        /// The name asked for.
        qualifier: String,
    },
    /// Nothing is provisioned.
    #[error("nothing is provisioned for `{qualifier}` of the function `{function}`")]
    NoProvision {
        /// The function.
        function: String,
        /// For whom.
        qualifier: String,
    },
    /// What is provisioned was not put, so that it cannot be taken away.
    #[error("what is provisioned for `{function}` was not put: its manifest declares it")]
    Declared {
        /// The function.
        function: String,
    },
    /// The server ends.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The access log cannot be written.
    #[error("the access log cannot be opened")]
    AccessLog(#[source] std::io::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Store(error) => crate::restore::store_code(error),
            Self::NoFunction { .. } => code::FUNCTION_NOT_FOUND,
            Self::NameCase { .. } => code::FUNCTION_NAME_CASE,
            Self::NoQualifier { .. } => code::VERSION_NOT_FOUND,
            Self::NoProvision { .. } | Self::Declared { .. } => code::NO_PROVISION,
            Self::ShuttingDown => code::SHUTTING_DOWN,
            Self::AccessLog(_) => code::CONFIG_INVALID,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = Self::new(error.code(), error.to_string());
        match &error {
            Error::Store(source @ kip_store::Error::Full { .. }) => problem
                .cause(source.to_string())
                .hint("make room on the disk of the data directory; changes are taken again by themselves"),
            Error::Store(source @ kip_store::Error::NotDurable { .. }) => problem
                .cause(source.to_string())
                .hint("look at the disk (dmesg), then start the server again; functions go on serving until then"),
            Error::Store(source @ kip_store::Error::Stale { .. }) => problem
                .cause(source.to_string())
                .hint("read it again and decide anew; without If-Match the last change wins"),
            Error::Store(source) => {
                problem.cause(source.to_string()).hint("look at the disk of the data directory: kip doctor")
            }
            Error::NoFunction { nearest: Some(nearest), .. } => {
                problem.hint(format!("did you mean `{nearest}`? `kip ls` lists all"))
            }
            Error::NoFunction { .. } => problem.hint("`kip ls` lists the functions there are"),
            Error::NameCase { .. } => problem.hint("choose another name"),
            Error::NoQualifier { .. } => problem
                .cause("there are no aliases yet: a qualifier is LATEST, or the version that serves, such as v3")
                .hint("leave the qualifier out, or write LATEST: whatever serves; `kip inspect` shows the version"),
            Error::NoProvision { .. } => problem.hint("`kip provision list` shows what is"),
            Error::Declared { function } => problem.hint(format!(
                "change scaling.provision in kip.yaml and deploy it, or put something else over it: `kip provision put {function} --target 0`"
            )),
            Error::ShuttingDown => problem,
            Error::AccessLog(source) => problem
                .cause(source.to_string())
                .hint("gateway.access_log in kipwake.toml names a file that the server may write to, stderr, or off"),
        }
    }
}

/// What a deployment made.
#[derive(Debug, Clone)]
pub struct DeployResult {
    /// The function.
    pub function: FunctionName,
    /// Its new version.
    pub version: VersionId,
}

/// The control room. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) boot: u32,
    pub(crate) options: Options,
    pub(crate) runtime: Handle,
    pub(crate) bodies: Bodies,
    /// The one way to change control objects: store and memory are one unit.
    pub(crate) changes: Changes,
    pub(crate) records: Arc<dyn RecordStore>,
    pub(crate) files: Option<Files>,
    pub(crate) recorder: Recorder,
    pub(crate) timers: Timers,
    pub(crate) rounds: CheckSchedule,
    pub(crate) meter: Meter,
    /// Woken when an instance is gone or a version decided.
    pub(crate) changed: Notify,
    cells: RwLock<Cells>,
    /// Whose an instance of an earlier server is; the number in its id is of that server's counting.
    pub(crate) adopted: RwLock<HashMap<InstanceId, Arc<Cell>>>,
    next_core: AtomicU32,
    placer: Mutex<Placer>,
    router: Mutex<Router>,
    posted: Notify,
    closing: AtomicBool,
    /// Instances of an earlier server that are being ended.
    pub(crate) ending_left: AtomicUsize,
    changed_functions: AtomicU64,
    /// Where places for tasks go, and where they come out until somebody has taken that.
    offers: mpsc::Sender<Permit>,
    offered: Mutex<Option<mpsc::Receiver<Permit>>>,
    /// Places of work of an earlier server, until somebody asks for them.
    pub(crate) held: Mutex<Vec<(InstanceId, Permit)>>,
    pub(crate) disk: Arc<DiskWatch>,
}

#[derive(Debug, Default)]
struct Cells {
    by_name: HashMap<FunctionName, Arc<Cell>>,
    /// Keys in lower case, for host names.
    by_host: HashMap<String, Arc<Cell>>,
    by_number: HashMap<CoreNumber, Arc<Cell>>,
}

impl Control {
    /// Opens the room on the current runtime: functions of the store are there at once, those with a minimum begin to start.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn open(
        options: Options,
        stores: Stores,
        bodies: Bodies,
        events: mpsc::Receiver<BodyEvent>,
    ) -> Result<Self, Error> {
        let Stores { changes, records, files } = stores;
        let disk = Arc::new(DiskWatch::new(options.disk.clone(), changes.clone(), files.clone()));
        let pressure = options.disk.pressure.clone();
        let access_log = options.access_log.clone().map(|log| AccessLog::start(&log, pressure.clone()));
        let access_log = access_log.transpose().map_err(Error::AccessLog)?;
        let recorder = Recorder::start(
            records.clone(),
            pressure,
            options.retention,
            access_log,
            options.traces.as_ref().map(Traces::start),
            &options.supervisor,
        );
        let (offers, offered) = mpsc::channel(OFFERS);
        let shared = Arc::new(Shared {
            boot: options.boot,
            runtime: Handle::current(),
            bodies,
            changes,
            recorder,
            records,
            files,
            timers: Timers::default(),
            rounds: CheckSchedule::default(),
            meter: Meter::default(),
            changed: Notify::new(),
            cells: RwLock::default(),
            adopted: RwLock::default(),
            next_core: AtomicU32::new(1),
            placer: Mutex::new(Placer::new(options.inventory.clone())),
            router: Mutex::default(),
            posted: Notify::new(),
            closing: AtomicBool::new(false),
            ending_left: AtomicUsize::new(0),
            changed_functions: AtomicU64::new(0),
            offers,
            offered: Mutex::new(Some(offered)),
            held: Mutex::default(),
            disk: disk.clone(),
            options,
        });
        for stored in shared.changes.read().current_revisions().await? {
            shared.add_cell(Arc::new(Version::stored(stored)));
        }
        for (function, qualifier, settings) in shared.stored_provisions().await? {
            if let Some(cell) = shared.cell_named(function.as_str()) {
                cell.remember_provision(qualifier, Arc::new(settings));
            }
        }
        shared.remember_reached().await?;
        shared.adopt_all().await?;
        shared.all_cells().iter().for_each(Cell::begin);
        shared.clone().supervise(disk, events);
        Ok(Self { shared })
    }

    /// A function by its name.
    pub fn cell(&self, name: &str) -> Option<Arc<Cell>> {
        self.shared.cells().by_name.get(name).cloned()
    }

    /// A function by the first label of a host name, in lower case.
    pub fn cell_by_host(&self, label: &str) -> Option<Arc<Cell>> {
        self.shared.cells().by_host.get(label).cloned()
    }

    /// A function by its name.
    ///
    /// # Errors
    /// [`Error::NoFunction`], with the nearest name.
    pub fn require(&self, name: &str) -> Result<Arc<Cell>, Error> {
        self.cell(name).ok_or_else(|| Error::NoFunction { name: name.to_owned(), nearest: self.nearest(name) })
    }

    /// The name of a function that is nearly the given one: the same but for case, or with the same beginning.
    fn nearest(&self, name: &str) -> Option<String> {
        let cells = self.shared.cells();
        let lower = name.to_lowercase();
        let beginning = lower.get(..3).unwrap_or(&lower);
        let mut near: Vec<&str> = cells
            .by_name
            .keys()
            .map(FunctionName::as_str)
            .filter(|known| known.to_lowercase().starts_with(beginning))
            .collect();
        near.sort_unstable();
        near.first().map(|name| (*name).to_owned())
    }

    /// Stores a new version of each function, all or none, and hands them to the brain. `author` can name the revision of the
    /// function it read, if it deploys only one.
    ///
    /// # Errors
    /// [`Error::NameCase`], [`Error::Store`] or [`Error::ShuttingDown`]; nothing is changed then.
    pub async fn deploy(
        &self,
        specs: Vec<FunctionSpec>,
        document: String,
        facade: &'static str,
        author: Author,
    ) -> Result<Vec<DeployResult>, Error> {
        let control = self.clone();
        let unit = self.shared.changes.unit(move |turn| async move {
            if control.is_closing() {
                return Err(Error::ShuttingDown);
            }
            for spec in &specs {
                let lower = spec.name.as_str().to_lowercase();
                if let Some(cell) = control.cell_by_host(&lower).filter(|cell| *cell.name() != spec.name) {
                    return Err(Error::NameCase { name: spec.name.to_string(), existing: cell.name().to_string() });
                }
            }
            let rev = author.if_match.unwrap_or_default();
            let object = |spec: &FunctionSpec| IfMatch { object: Object::Function(spec.name.clone()), rev };
            let if_match = specs.iter().filter(|_| author.if_match.is_some()).map(object).collect();
            let change = Change::Deploy { specs, document, facade };
            let committed = turn.commit(Proposal { by: author.by, change, if_match }).await?;
            let Effect::Deployed(revisions) = committed.effect else { return Ok(Vec::new()) };
            Ok(revisions.into_iter().map(|stored| control.shared.deploy(stored)).collect())
        });
        unit.await
    }

    /// Removes a function: waiting requests are refused, those in flight end, instances stop.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::Store`].
    pub async fn remove(&self, name: &str, author: Author) -> Result<(), Error> {
        let (control, name) = (self.clone(), name.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let cell = control.require(&name)?;
            let object = Object::Function(cell.name().clone());
            turn.commit(author.proposal(object, Change::RemoveFunction(cell.name().clone()))).await?;
            control.forget(cell.name(), Event::Remove);
            Ok(())
        });
        unit.await
    }

    /// The revision of an object: the number of the commit that changed it last.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn rev(&self, object: Object) -> Result<Seq, Error> {
        Ok(self.shared.changes.read().rev(object).await?)
    }

    /// Takes a function out of the map and ends what runs of it. The store has forgotten it already.
    pub(crate) fn forget(&self, name: &FunctionName, event: Event) {
        let Some(cell) = self.cell(name.as_str()) else { return };
        {
            let mut cells = self.shared.cells.write();
            cells.by_name.remove(cell.name());
            cells.by_host.remove(&cell.name().as_str().to_lowercase());
        }
        self.shared.changed_functions.fetch_add(1, Ordering::Relaxed);
        cell.close(event);
        let shared = self.shared.clone();
        kip_host::tasks::spawn_on(&self.shared.runtime, "forget removed function", async move {
            shared.until(|| cell.is_finished()).await;
            shared.cells.write().by_number.remove(&cell.number);
        });
    }

    /// All functions, by name.
    pub fn functions(&self) -> Vec<FunctionInfo> {
        self.sorted().into_iter().map(|cell| cell.info()).collect()
    }

    /// All instances, by function.
    pub fn instances(&self) -> Vec<InstanceInfo> {
        let mut all: Vec<InstanceInfo> =
            self.shared.all_cells().iter().flat_map(|cell| cell.instance_infos()).collect();
        all.sort_by(|a, b| (&a.function, a.id).cmp(&(&b.function, b.id)));
        all
    }

    /// The stored versions of a function, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn versions(&self, function: FunctionName) -> Result<Vec<VersionSource>, Error> {
        Ok(self.shared.changes.read().revisions(function).await?)
    }

    /// The host's ledger.
    pub fn host(&self) -> HostInfo {
        let placer = self.shared.placer.lock();
        let host = HostInfo::of_placer(&placer, now());
        drop(placer);
        HostInfo {
            dropped_records: self.shared.recorder.dropped(),
            dropped_log_lines: kip_host::log::dropped(),
            shed_records: self.shared.recorder.shed(),
            disk: self.shared.disk.info(),
            ..host
        }
    }

    /// Replaces every instance of a function by a new one, the successor first, and says how many there are.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn rotate(&self, name: &str) -> Result<usize, Error> {
        let cell = self.require(name)?;
        cell.step(Event::Rotate);
        Ok(cell.instance_infos().iter().filter(|instance| instance.replace.is_some()).count())
    }

    /// What happened to the server itself lately, oldest first.
    pub fn events(&self) -> Vec<ServerEvent> {
        self.shared.disk.events()
    }

    /// Something about the stores that an operator has to look at.
    pub fn report(&self, what: String) {
        self.shared.disk.report(what);
    }

    /// Places for tasks, as they are offered. They are given to the first who asks.
    pub fn offers(&self) -> Option<mpsc::Receiver<Permit>> {
        self.shared.offered.lock().take()
    }

    /// The place of work of an earlier server that was told to be held when this room was opened. Each is given once; those that are
    /// not wanted are to be asked for and dropped.
    pub fn take_held(&self, instance: &str) -> Option<Permit> {
        let instance: InstanceId = instance.parse().ok()?;
        let mut held = self.shared.held.lock();
        let at = held.iter().position(|(known, _)| *known == instance)?;
        Some(held.swap_remove(at).1)
    }

    /// Nobody asks for what is held any more.
    pub fn release_held(&self) {
        // Their cells are stepped when they are dropped: not under this lock.
        let left = std::mem::take(&mut *self.shared.held.lock());
        drop(left);
    }

    /// Counts deployments and removals: while it stays the same, so do the functions there are.
    pub fn changes(&self) -> u64 {
        self.shared.changed_functions.load(Ordering::Relaxed)
    }

    /// The functions that are jobs, by name.
    pub fn jobs(&self) -> Vec<Arc<Cell>> {
        let mut cells = self.sorted();
        cells.retain(|cell| cell.serving().spec.job.is_some());
        cells
    }

    /// How often this server was started, this time included.
    pub fn boot(&self) -> u32 {
        self.shared.boot
    }

    /// Ends the server when a task has ended that it cannot do without.
    pub fn supervisor(&self) -> &Supervisor {
        &self.shared.options.supervisor
    }

    /// Where records are handed in.
    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    /// Where records are read.
    pub fn records(&self) -> &dyn RecordStore {
        self.shared.records.as_ref()
    }

    /// The folder of a function's logs.
    pub fn log_folder(&self, function: &str) -> PathBuf {
        self.shared.options.logs.join(function)
    }

    /// Waits until what a function's instances wrote up to now is in its logs.
    pub async fn settle_logs(&self, function: &str) {
        self.shared.bodies.settle_logs(function, None).await;
    }

    /// Whether the server ends.
    pub fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Relaxed)
    }

    /// Ends everything: waiting requests are refused, those in flight get `patience`, then what is left is ended by force.
    pub async fn shutdown(&self, patience: Duration) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // A deployment under way is waited for; later ones see that the server ends.
        let shared = self.shared.clone();
        let close = move || shared.all_cells().iter().for_each(|cell| cell.close(Event::Shutdown));
        self.shared.changes.unit(move |_turn| async move { close() }).await;
        let all_gone = self.shared.until(|| self.instances().is_empty());
        if tokio::time::timeout(patience, all_gone).await.is_err() {
            let ending = self.instances().into_iter().map(|instance| self.shared.stop(instance.id));
            futures_util::future::join_all(ending).await;
        }
        // Each ends on its own: its grace is written down, and force follows it.
        self.shared.until(|| self.shared.ending_left.load(Ordering::Relaxed) == 0).await;
        self.shared.recorder.flush().await;
        self.shared.bodies.clean_up().await;
    }

    /// Ends the server and keeps its instances: waiting requests are refused, those in flight get `patience`. The next
    /// server adopts what is left, which this counts.
    pub async fn leave(&self, patience: Duration) -> usize {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.changes.unit(|_turn| async {}).await;
        let cells = self.shared.all_cells();
        cells.iter().for_each(|cell| cell.refuse_waiting());
        let quiet = || cells.iter().all(|cell| cell.in_flight() <= cell.outliving.load(Ordering::Relaxed));
        let _ = tokio::time::timeout(patience, self.shared.until(quiet)).await;
        cells.iter().for_each(|cell| self.shared.used_until_now(cell));
        self.shared.recorder.flush().await;
        self.instances().len()
    }

    pub(crate) fn sorted(&self) -> Vec<Arc<Cell>> {
        let mut cells: Vec<Arc<Cell>> = self.shared.cells().by_name.values().cloned().collect();
        cells.sort_by(|a, b| a.name().cmp(b.name()));
        cells
    }

    /// An instance by its id.
    pub async fn instance(&self, id: InstanceId) -> Option<InstanceInfo> {
        let cell = self.shared.owner(id)?;
        let info = cell.instance_infos().into_iter().find(|info| info.id == id)?;
        let peak_memory = self.shared.bodies.measure(&[id], Measure::PeakMemory).await.remove(&id);
        Some(InstanceInfo { peak_memory, ..info })
    }
}

impl Shared {
    /// Starts the loops without which nothing would go on.
    fn supervise(self: Arc<Self>, disk: Arc<DiskWatch>, mut events: mpsc::Receiver<BodyEvent>) {
        let supervisor = self.options.supervisor.clone();
        supervisor.vital("disk watch", disk.run());
        let ticking = self.clone();
        supervisor.vital("timers", async move {
            loop {
                let number = ticking.timers.next().await;
                reached("timers: due");
                if let Some(cell) = ticking.cell_of(number) {
                    cell.step(Event::Tick);
                }
            }
        });
        let asking = self.clone();
        supervisor.vital("rounds", async move { asking.rounds.run(asking.clone()).await });
        let measuring = self.clone();
        supervisor.vital("meter", async move { measuring.meter.run(measuring.clone()).await });
        let routing = self.clone();
        supervisor.vital("router", async move { routing.route().await });
        // Only reminders are lost with it.
        let reminding = self.clone();
        kip_host::tasks::spawn("reminders", async move { reminding.remind().await });
        let ends = supervisor.clone();
        supervisor.vital("ends of instances", async move {
            while let Some(event) = events.recv().await {
                reached("ends: taken");
                match event {
                    BodyEvent::Ended(end) => {
                        if let Some(cell) = self.owner(end.instance) {
                            let shared = self.clone();
                            // Each by itself: the last lines of one that writes much may take a moment.
                            ends.critical("end of instance", async move { shared.ended(&cell, end).await });
                        }
                    }
                    BodyEvent::Unreachable(instance) => self.reach(instance, false),
                    BodyEvent::Reachable(instance) => self.reach(instance, true),
                }
            }
        });
    }

    /// A body lost touch with an instance, or is in touch with it again: meanwhile requests go to others.
    fn reach(&self, instance: InstanceId, reachable: bool) {
        if let Some(cell) = self.owner(instance) {
            cell.step(Event::Readiness { instance, ready: reachable });
        }
    }

    fn cells(&self) -> parking_lot::RwLockReadGuard<'_, Cells> {
        self.cells.read()
    }

    pub(crate) fn cell_of(&self, number: CoreNumber) -> Option<Arc<Cell>> {
        self.cells().by_number.get(&number).cloned()
    }

    /// Every cell in the order of their numbers, those of removed functions that are still ending included.
    pub(crate) fn all_cells(&self) -> Vec<Arc<Cell>> {
        let cells: BTreeMap<CoreNumber, Arc<Cell>> =
            self.cells().by_number.iter().map(|(number, cell)| (*number, cell.clone())).collect();
        cells.into_values().collect()
    }

    /// The function that an instance belongs to.
    pub(crate) fn owner(&self, instance: InstanceId) -> Option<Arc<Cell>> {
        if instance.boot == self.boot {
            return self.cell_of(CoreNumber(instance.core));
        }
        self.adopted.read().get(&instance).cloned()
    }

    /// Ends an instance, whatever its function thinks of it; its program gets its grace.
    async fn stop(&self, instance: InstanceId) {
        let Some(cell) = self.owner(instance) else { return };
        let spec = &cell.serving().spec;
        let grace = spec.timeouts.grace.unwrap_or(SHORTEST_GRACE);
        let order = StopOrder { pre_stop: None, grace, stop: spec.lifecycle.stop };
        if let Err(error) = self.bodies.of(&cell, instance).stop(instance, order).await {
            tracing::error!(%instance, %error, "an instance is left behind");
        }
    }

    pub(crate) fn cell_named(&self, name: &str) -> Option<Arc<Cell>> {
        self.cells().by_name.get(name).cloned()
    }

    /// Offers a place to whoever has tasks. False if it comes back at once.
    pub(crate) fn offer(&self, permit: Permit) -> bool {
        self.offers.try_send(permit).is_ok()
    }

    fn add_cell(self: &Arc<Self>, version: Arc<Version>) -> Arc<Cell> {
        let number = CoreNumber(self.next_core.fetch_add(1, Ordering::Relaxed));
        let cell = Arc::new(Cell::new(number, version, Arc::downgrade(self)));
        let mut cells = self.cells.write();
        cells.by_name.insert(cell.name().clone(), cell.clone());
        cells.by_host.insert(cell.name().as_str().to_lowercase(), cell.clone());
        cells.by_number.insert(number, cell.clone());
        cell
    }

    pub(crate) fn deploy(self: &Arc<Self>, stored: StoredRevision) -> DeployResult {
        let version = Arc::new(Version::stored(stored));
        let deployed = DeployResult { function: version.spec.name.clone(), version: version.id };
        let known = self.cells().by_name.get(&deployed.function).cloned();
        let cell = known.unwrap_or_else(|| self.add_cell(version.clone()));
        cell.deploy(version);
        self.changed_functions.fetch_add(1, Ordering::Relaxed);
        deployed
    }

    pub(crate) fn post(&self, message: Message) {
        self.router.lock().post(message);
        self.posted.notify_one();
    }

    /// Hands the placer one message and posts what it answers.
    pub(crate) fn tell_placer(&self, message: ToPlacer) {
        let mut answers = Vec::new();
        self.placer.lock().step(now(), message, &mut answers);
        answers.drain(..).for_each(|answer| self.post(answer));
    }

    /// Takes messages one at a time and steps their receivers; no two locks are held.
    async fn route(self: Arc<Self>) {
        loop {
            let message = self.router.lock().take();
            reached("router: message");
            match message {
                None => self.posted.notified().await,
                Some(Message::ToPlacer(message)) => self.tell_placer(message),
                Some(Message::ToFunction { function, message }) => {
                    if let Some(cell) = self.cell_of(function) {
                        cell.step(Event::Placer(message));
                    }
                }
            }
        }
    }

    /// Waits until something is so, looking again whenever an instance is gone, and now and then.
    async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            let _ = tokio::time::timeout(Duration::from_millis(50), self.changed.notified()).await;
        }
    }
}
