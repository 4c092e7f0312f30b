//! The handle that everybody holds: functions by name, deployments, the host's ledger, shutdown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kip_engine::{BodyEvent, Measure};
use kip_fleet::{Event, Placer};
use kip_host::failpoint::reached;
use kip_host::tasks::Supervisor;
use kip_spec::function::FunctionSpec;
use kip_spec::named_secret::SecretName;
use kip_spec::qualifier::host_label;
use kip_spec::{FunctionName, InstanceId, VersionId};
use kip_store::{
    Author, Change, Effect, IfMatch, Object, Proposal, RecordStore, RevisionExtra, Seq, SettingChange, StoredRevision,
    TrafficShare, VersionSource,
};
use kip_wire::{FunctionInfo, HostInfo, InstanceInfo, ServerEvent};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use crate::bodies::Bodies;
use crate::cell::{Cell, now};
use crate::device_book::DeviceBook;
use crate::disk::DiskWatch;
use crate::error::Error;
use crate::info::host_of;
use crate::options::Options;
use crate::shared::{DeployResult, Shared};
use crate::stores::Stores;

use crate::meter::Meter;
use crate::permit::Permit;
use crate::qualifiers::noted;
use crate::rollout_table::Rollouts;
use crate::rounds::CheckSchedule;
use crate::timers::Timers;
use kip_records::Recorder;
use kip_records::Traces;
use kip_records::access_log::AccessLog;
use kip_records::metrics::Evidence;

/// What is to become of requests without a qualifier after a deployment.
#[derive(Debug, Clone, Default)]
pub struct Direction {
    /// Where they go, of functions where that is not the version that serves alone.
    pub traffic: BTreeMap<FunctionName, Vec<TrafficShare>>,
    /// They go where they went: the new revisions do not serve.
    pub held: bool,
    /// What a facade keeps of the new revisions.
    pub extra: BTreeMap<FunctionName, RevisionExtra>,
    /// Settings that belong to the deployment, stored in the same commit.
    pub settings: Vec<SettingChange>,
}

/// Places for tasks that may be on their way.
const OFFERS: usize = 4_096;

/// The control room. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    pub(crate) shared: Arc<Shared>,
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
            rollouts: Rollouts::default(),
            open_tasks: std::sync::OnceLock::new(),
            execs: crate::exec_table::ExecTable::default(),
            devices: DeviceBook::open(options.devices.as_deref()),
            images: crate::image_cache::ImageCache::open(options.devices.as_deref()),
            fetching: Mutex::default(),
            accounts: crate::accounts::Accounts::default(),
            domains: crate::domains::Domains::default(),
            options,
        });
        shared.remember_devices();
        for stored in shared.changes.read().current_revisions().await? {
            shared.add_cell(shared.version(stored));
        }
        // What is provisioned for a version or an alias needs them.
        shared.remember_qualifiers().await?;
        for (function, qualifier, settings) in shared.stored_provisions().await? {
            if let Some(cell) = shared.cell_named(function.as_str()) {
                shared.remember_version(&cell, &qualifier).await?;
                cell.remember_provision(qualifier, Arc::new(settings));
            }
        }
        shared.remember_rollouts().await?;
        shared.remember_reached().await?;
        shared.remember_learnt().await?;
        shared.check_budgets().await?;
        shared.adopt_all().await?;
        shared.all_cells().iter().for_each(Cell::begin);
        shared.clone().supervise(disk, events);
        let control = Self { shared };
        control.keep_models();
        Ok(control)
    }

    /// A function by its name.
    pub fn cell(&self, name: &str) -> Option<Arc<Cell>> {
        self.shared.cells().by_name.get(name).cloned()
    }

    /// A function by its name.
    ///
    /// # Errors
    /// [`Error::NoFunction`], with the nearest name.
    pub fn require(&self, name: &str) -> Result<Arc<Cell>, Error> {
        self.cell(name).ok_or_else(|| Error::NoFunction { name: name.to_owned(), nearest: self.nearest(name) })
    }

    /// Whether some function is so.
    pub fn any(&self, is_so: impl Fn(&Cell) -> bool) -> bool {
        self.shared.cells().by_name.values().any(|cell| is_so(cell))
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
        self.deploy_with(specs, document, facade, Direction::default(), author).await
    }

    /// The same, with what is to become of requests without a qualifier.
    ///
    /// # Errors
    /// As [`Control::deploy`]; [`Error::NoFunction`] for a new function without traffic, and what is wrong with the traffic.
    pub async fn deploy_with(
        &self,
        specs: Vec<FunctionSpec>,
        document: String,
        facade: &'static str,
        Direction { traffic, held, extra, settings }: Direction,
        author: Author,
    ) -> Result<Vec<DeployResult>, Error> {
        let control = self.clone();
        let unit = self.shared.changes.unit(move |turn| async move {
            if control.is_closing() {
                return Err(Error::ShuttingDown);
            }
            let new = specs.iter().map(|spec| &spec.name).filter(|name| control.cell(name.as_str()).is_none());
            control.check_hosts(&new.collect::<Vec<_>>())?;
            if held {
                // Nothing of a new function would serve.
                specs.iter().try_for_each(|spec| control.require(spec.name.as_str()).map(drop))?;
            }
            for (function, shares) in &traffic {
                control.check_traffic(function, shares).await?;
            }
            let rev = author.if_match.unwrap_or_default();
            let object = |spec: &FunctionSpec| IfMatch { object: Object::Function(spec.name.clone()), rev };
            let if_match = specs.iter().filter(|_| author.if_match.is_some()).map(object).collect();
            let keep = specs.iter().filter_map(|spec| control.cell(spec.name.as_str())).flat_map(|cell| {
                let mut needed = cell.living_versions();
                needed.extend(control.shared.versions_in_rollouts(cell.name()));
                needed.extend(control.revisions_of_tasks(&cell));
                needed
            });
            let keep = keep.collect();
            let change = Change::Deploy { specs, document, facade, traffic: traffic.clone(), held, keep, extra };
            let change = change.together(settings);
            reached("deploy: checked");
            let committed = turn.commit(Proposal { by: author.by, change, if_match }).await?;
            reached("deploy: committed");
            let Effect::Deployed(revisions) = committed.effect else { return Ok(Vec::new()) };
            if held {
                return revisions.into_iter().map(|stored| control.hold(stored)).collect();
            }
            let deployed: Vec<DeployResult> =
                revisions.into_iter().map(|stored| control.shared.deploy(stored)).collect();
            for DeployResult { function, .. } in &deployed {
                control.direct_traffic(function, traffic.get(function).cloned().unwrap_or_default()).await?;
            }
            reached("deploy: applied");
            Ok(deployed)
        });
        unit.await
    }

    /// Makes a revision known that does not serve.
    fn hold(&self, stored: StoredRevision) -> Result<DeployResult, Error> {
        let version = self.shared.version(stored);
        let function = version.spec.name.clone();
        let made = DeployResult { function, version: version.id, label: version.label() };
        self.require(made.function.as_str())?.call_by_itself(version);
        Ok(made)
    }

    /// Returns to the version that served before the one that serves. It serves at once if an instance of it is there, else when its
    /// first one is ready.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NothingBefore`] or [`Error::Store`].
    pub async fn rollback(&self, name: &str, author: Author) -> Result<DeployResult, Error> {
        let (control, name) = (self.clone(), name.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let cell = control.require(&name)?;
            let object = Object::Function(cell.name().clone());
            let by = author.by.clone();
            let committed = turn.commit(author.proposal(object, Change::Rollback(cell.name().clone()))).await?;
            let nothing = || Error::NothingBefore { what: format!("function `{name}`") };
            let Effect::Deployed(revisions) = committed.effect else { return Err(nothing()) };
            let stored = revisions.into_iter().next().ok_or_else(nothing)?;
            let version = control.shared.version_of(&cell, stored.id).await?.ok_or_else(nothing)?;
            let made = DeployResult { function: cell.name().clone(), version: version.id, label: version.label() };
            control.shared.note_named(&cell, format!("rolled back to {}", made.label), noted("", &by));
            cell.deploy(version);
            control.shared.changed_functions.fetch_add(1, Ordering::Relaxed);
            Ok(made)
        });
        unit.await
    }

    /// Starts an instance of a function though no request waits, if none is there.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn start(&self, name: &str) -> Result<(), Error> {
        let cell = self.require(name)?;
        cell.step(Event::Start { version: cell.serving().id });
        Ok(())
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
            control.shared.forget_history(cell.name()).await;
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
            cells.jobs.remove(cell.name());
            cells.by_host.remove(&host_label(cell.name().as_str(), None));
            cells.by_label.retain(|_, (other, _)| !Arc::ptr_eq(other, &cell));
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
        all.iter_mut().for_each(|info| self.shared.show_fetch(info));
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

    /// A revision as it is stored; none if there is no such one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn revision(&self, revision: VersionId) -> Result<Option<FunctionSpec>, Error> {
        Ok(self.shared.changes.read().revision(revision).await?.map(|stored| stored.spec))
    }

    /// When the newest revision of a function was made, milliseconds since 1970.
    pub async fn deployed_at(&self, name: &str) -> Option<i64> {
        let name = self.cell(name)?.name().clone();
        let revisions = self.versions(name).await.ok()?;
        revisions.last().map(|revision| revision.created)
    }

    /// What is known of each revision that a function's instances run or that serves, newest first.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn evidence(&self, name: &str) -> Result<Vec<(VersionId, Evidence)>, Error> {
        let cell = self.require(name)?;
        let versions: Vec<VersionId> = cell.lock().versions.keys().rev().copied().collect();
        let metrics = &self.shared.options.metrics;
        let of = |version: VersionId| (version, metrics.evidence(cell.number(), version.0).unwrap_or_default());
        Ok(versions.into_iter().map(of).collect())
    }

    /// The host's ledger.
    pub fn host(&self) -> HostInfo {
        let placer = self.shared.placer.lock();
        let host = host_of(&placer, now());
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

    /// The secrets that the serving versions of functions name.
    pub fn secret_uses(&self) -> Vec<(FunctionName, SecretName)> {
        let of = |cell: Arc<Cell>| {
            let serving = cell.serving();
            let secrets: Vec<SecretName> = serving.spec.secrets.values().cloned().collect();
            secrets.into_iter().map(move |secret| (cell.name().clone(), secret))
        };
        self.sorted().into_iter().flat_map(of).collect()
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
        let mut jobs: Vec<Arc<Cell>> =
            self.shared.cells().jobs.values().filter(|cell| cell.is_job()).cloned().collect();
        jobs.sort_by(|a, b| a.name().cmp(b.name()));
        jobs
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
        // What a function that is closed has learnt is gone.
        self.shared.account();
        let shared = self.shared.clone();
        let close = move || shared.all_cells().iter().for_each(|cell| cell.close(Event::Shutdown));
        self.shared.changes.unit(move |_turn| async move { close() }).await;
        self.shared.execs.close().await;
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
        self.shared.execs.close().await;
        let quiet = || cells.iter().all(|cell| cell.in_flight() <= cell.outliving.load(Ordering::Relaxed));
        let _ = tokio::time::timeout(patience, self.shared.until(quiet)).await;
        self.shared.account();
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
        let mut info = cell.instance_infos().into_iter().find(|info| info.id == id)?;
        self.shared.show_fetch(&mut info);
        let peak_memory = self.shared.bodies.measure(&[id], Measure::PeakMemory).await.remove(&id);
        Some(InstanceInfo { peak_memory, ..info })
    }
}
