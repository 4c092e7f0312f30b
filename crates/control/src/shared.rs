//! The server's state around the functions: the map of cells, the placer and its router, and the loops that carry messages.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use kip_engine::{BodyEvent, StopOrder};
use kip_fleet::router::Message;
use kip_fleet::{
    Class, CoreNumber, Effect, Event, FunctionCore, Inventory, Placer, RoomNeed, Router, Shortage, ToPlacer,
};
use kip_host::failpoint::reached;
use kip_records::Recorder;
use kip_spec::qualifier::host_label;
use kip_spec::{FunctionName, InstanceId, Millis, QualifierName, VersionId};
use kip_store::{Changes, RecordStore, StoredRevision};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use crate::accounts::Accounts;
use crate::bodies::Bodies;
use crate::cell::{Cell, LastLogged, PolicyObservation, Surroundings, now};
use crate::device_book::DeviceBook;
use crate::disk::DiskWatch;
use crate::exec_table::ExecEnd;
use crate::link::Link;
use crate::meter::Meter;
use crate::open_tasks::OpenTasks;
use crate::options::Options;
use crate::permit::Permit;
use crate::rollout_table::Rollouts;
use crate::rounds::CheckSchedule;
use crate::stores::Files;
use crate::timers::Timers;
use crate::version::Version;

/// From SIGTERM to SIGKILL for those that are still at work when the server has waited long enough, unless their function says.
const SHORTEST_GRACE: Millis = Millis::from_secs(10);

/// What a deployment made.
#[derive(Debug, Clone)]
pub struct DeployResult {
    /// The function.
    pub function: FunctionName,
    /// Its new revision.
    pub version: VersionId,
    /// How that is shown.
    pub label: String,
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
    pub(crate) cells: RwLock<Cells>,
    /// Whose an instance of an earlier server is; the number in its id is of that server's counting.
    pub(crate) adopted: RwLock<HashMap<InstanceId, Arc<Cell>>>,
    pub(crate) next_core: AtomicU32,
    pub(crate) placer: Mutex<Placer>,
    pub(crate) router: Mutex<Router>,
    pub(crate) posted: Notify,
    pub(crate) closing: AtomicBool,
    /// Instances of an earlier server that are being ended.
    pub(crate) ending_left: AtomicUsize,
    pub(crate) changed_functions: AtomicU64,
    /// Where places for tasks go, and where they come out until somebody has taken that.
    pub(crate) offers: mpsc::Sender<Permit>,
    pub(crate) offered: Mutex<Option<mpsc::Receiver<Permit>>>,
    /// Places of work of an earlier server, until somebody asks for them.
    pub(crate) held: Mutex<Vec<(InstanceId, Permit)>>,
    pub(crate) disk: Arc<DiskWatch>,
    pub(crate) rollouts: Rollouts,
    /// Who knows the open tasks, once somebody does.
    pub(crate) open_tasks: OnceLock<Weak<dyn OpenTasks>>,
    /// Sessions of people in instances.
    pub(crate) execs: crate::exec_table::ExecTable,
    pub(crate) devices: DeviceBook,
    pub(crate) images: crate::image_cache::ImageCache,
    /// Instances that wait for the files of a model.
    pub(crate) fetching: Mutex<BTreeMap<InstanceId, kip_models::Record>>,
    pub(crate) accounts: Accounts,
    /// Custom domains, as the gateway asks them.
    pub(crate) domains: crate::domains::Domains,
}

#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) by_name: HashMap<FunctionName, Arc<Cell>>,
    /// By the label of a host name.
    pub(crate) by_host: HashMap<String, Arc<Cell>>,
    /// By the labels of qualifiers that end in a hash; the others are read as they are.
    pub(crate) by_label: HashMap<String, (Arc<Cell>, QualifierName)>,
    pub(crate) by_number: HashMap<CoreNumber, Arc<Cell>>,
    /// Those of which a revision is a job: timers look through them every second.
    pub(crate) jobs: HashMap<FunctionName, Arc<Cell>>,
}

impl Shared {
    /// Starts the loops without which nothing would go on.
    pub(crate) fn supervise(self: Arc<Self>, disk: Arc<DiskWatch>, mut events: mpsc::Receiver<BodyEvent>) {
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
        let rolling = self.clone();
        supervisor.vital("rollouts", async move { rolling.run_rollouts().await });
        let yielding = self.clone();
        supervisor.vital("yielded devices", async move { yielding.watch_yielded().await });
        let routing = self.clone();
        supervisor.vital("router", async move { routing.route().await });
        // Only reminders are lost with it.
        let reminding = self.clone();
        kip_host::tasks::spawn("reminders", async move { reminding.remind().await });
        // They only take room.
        let collecting = self.clone();
        kip_host::tasks::spawn("snapshots", async move { collecting.collect_snapshots().await });
        // They only take room.
        let keeping = self.clone();
        kip_host::tasks::spawn("images", async move { keeping.keep_images().await });
        // Without it, sums by day and what policies have learnt end with this minute.
        let adding = self.clone();
        kip_host::tasks::spawn("accounts", async move { adding.keep_accounts().await });
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
                    BodyEvent::PoolLost(pool) => self.pool_answers(pool, false),
                    BodyEvent::PoolFound(pool) => self.pool_answers(pool, true),
                }
            }
        });
    }

    pub(crate) fn cells(&self) -> parking_lot::RwLockReadGuard<'_, Cells> {
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
    pub(crate) async fn stop(&self, instance: InstanceId) {
        let Some(cell) = self.owner(instance) else { return };
        self.execs.end_of(instance, ExecEnd::Instance).await;
        let spec = &cell.serving().spec;
        let grace = spec.timeouts.grace.unwrap_or(SHORTEST_GRACE);
        let order = StopOrder { pre_stop: None, grace, stop: spec.lifecycle.stop };
        if let Err(error) = self.bodies.at(cell.place_of(instance)).stop(instance, order).await {
            tracing::error!(%instance, %error, "an instance is left behind");
        }
    }

    pub(crate) fn cell_named(&self, name: &str) -> Option<Arc<Cell>> {
        self.cells().by_name.get(name).cloned()
    }

    pub(crate) fn add_cell(self: &Arc<Self>, version: Arc<Version>) -> Arc<Cell> {
        let number = CoreNumber(self.next_core.fetch_add(1, Ordering::Relaxed));
        let around: Arc<dyn Surroundings> = self.clone();
        let cell = Arc::new(Cell::new(number, version.clone(), Arc::downgrade(&around)));
        self.note_job(&cell, &version);
        let mut cells = self.cells.write();
        cells.by_name.insert(cell.name().clone(), cell.clone());
        cells.by_host.insert(host_label(cell.name().as_str(), None), cell.clone());
        cells.by_number.insert(number, cell.clone());
        cell
    }

    fn note_job(&self, cell: &Arc<Cell>, version: &Version) {
        if version.spec.job.is_some() {
            self.cells.write().jobs.insert(cell.name().clone(), cell.clone());
        }
    }

    /// A version of the store, with what this host offers and has measured.
    pub(crate) fn version(&self, stored: StoredRevision) -> Arc<Version> {
        let measured = self.devices.size(stored.id);
        let barred = self.barred(&stored.spec);
        let version = Version::stored(stored, self.options.offer(), measured);
        version.bars(barred);
        Arc::new(version)
    }

    pub(crate) fn deploy(self: &Arc<Self>, stored: StoredRevision) -> DeployResult {
        let version = self.version(stored);
        let deployed =
            DeployResult { function: version.spec.name.clone(), version: version.id, label: version.label() };
        let known = self.cells().by_name.get(&deployed.function).cloned();
        let cell = known.unwrap_or_else(|| self.add_cell(version.clone()));
        self.note_job(&cell, &version);
        cell.deploy(version);
        self.changed_functions.fetch_add(1, Ordering::Relaxed);
        deployed
    }

    pub(crate) fn with_placer<T>(&self, look: impl FnOnce(&Placer) -> T) -> T {
        look(&self.placer.lock())
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
    pub(crate) async fn route(self: Arc<Self>) {
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
    pub(crate) async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            let _ = tokio::time::timeout(Duration::from_millis(50), self.changed.notified()).await;
        }
    }
}

impl Surroundings for Shared {
    fn boot(&self) -> u32 {
        self.boot
    }

    fn bodies(&self) -> Bodies {
        self.bodies.clone()
    }

    fn inventory(&self) -> Inventory {
        self.options.inventory.clone()
    }

    fn post(&self, message: Message) {
        Self::post(self, message);
    }

    fn instance_changed(
        &self,
        cell: &Arc<Cell>,
        change: kip_fleet::Change,
        place: Option<kip_fleet::Place>,
        detail: Option<&Arc<str>>,
        link: Option<&Arc<Link>>,
    ) {
        self.note_change(cell.name(), change, place, detail);
        match link {
            Some(link) if change.to.class() == Class::Hot => {
                let devices = self.options.inventory.has_devices();
                self.rounds.awake(link, Arc::downgrade(cell), place, devices)
            }
            _ => self.rounds.asleep(change.instance),
        }
    }

    fn in_the_way(&self, instance: InstanceId) -> Option<String> {
        Self::in_the_way(self, instance)
    }

    fn missing(&self, need: RoomNeed, lack: Shortage) -> String {
        Self::missing(self, need, lack)
    }

    fn disown(&self, instance: InstanceId) {
        self.adopted.write().remove(&instance);
    }

    fn note_scaling(
        &self,
        cell: &Cell,
        core: &FunctionCore,
        told: &mut LastLogged,
        looked: (PolicyObservation, Option<String>),
    ) {
        cell.note_scaling(self, core, told, looked);
    }

    fn offer(&self, permit: Permit) -> bool {
        self.offers.try_send(permit).is_ok()
    }

    fn carry_out(self: Arc<Self>, cell: &Arc<Cell>, effect: Effect) {
        Self::execute(&self, cell, effect);
    }
}
