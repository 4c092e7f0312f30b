//! Instances of an earlier server: handed to their functions, or ended with a reason in the decision log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kip_engine::{AliveInstance, FoundInstance, InheritedConnections, StopOrder};
use kip_fleet::room::Gpu;
use kip_fleet::router::Message;
use kip_fleet::{CoreNumber, Event, Kind, Place, Rung, ToPlacer};
use kip_spec::function::Stop;
use kip_spec::{FunctionName, InstanceId, Millis, VersionId};
use kip_store::{DecisionRecord, Record};

use crate::Version;
use crate::cell::Cell;
use crate::devices;
use crate::driver::RecoveredTree;
use crate::error::Error;
use crate::link::Link;
use crate::memo::{Memo, MemoryState};
use crate::shared::Shared;
use kip_records::decision::Decision;

/// Between two looks at the connections that an earlier server left: quick at first, since most end at once.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

impl Shared {
    /// Adopts what can go on and ends the rest in the background. When it returns, every instance is known to its function.
    ///
    /// # Errors
    /// When the store cannot say what a version is.
    pub(crate) async fn adopt_all(self: &Arc<Self>) -> Result<(), Error> {
        let began = kip_host::clock::monotonic_micros();
        let adoptions = self.bodies.adopt().await;
        if adoptions.iter().all(|(_, adoption)| adoption.found.is_empty()) {
            return Ok(());
        }
        let mut inherited = Vec::new();
        let mut all = Vec::new();
        for (pool, adoption) in adoptions {
            inherited.push(adoption.inherited);
            all.extend(adoption.found.into_iter().map(|found| (pool, found)));
        }
        let (mut adopted, mut ended) = (0, 0);
        let mut links = Vec::new();
        for (pool, mut found) in all {
            // This host may be several pools.
            let named = Memo::read(&found.memo).pool.and_then(|name| self.pool_named(&name));
            let named = named.map(|number| Place { pool: number, ..pool });
            let pool = named.filter(|named| self.bodies.are_one(*named, pool)).unwrap_or(pool);
            let place = devices::place_of(&self.options.inventory, pool, &found.devices);
            if let (Err(device), true) = (&place, found.state.is_ok()) {
                found.state = Err(format!("its device {device} is not declared any more"));
            }
            let place = place.unwrap_or(pool);
            let mut memo = Memo::read(&found.memo);
            let cell = found.function.as_ref().and_then(|name| self.cell_named(name.as_str()));
            let version = match (&cell, found.version) {
                (Some(cell), Some(version)) => self.version_of(cell, version).await?,
                _ => None,
            };
            // Whether its program gives memory back by itself.
            let asks = version.as_ref().is_some_and(|version| version.spec.lifecycle.sleep.is_some());
            if let Ok(alive) = &mut found.state
                && let Err(reason) = self.calm(pool, found.instance, (&mut memo, asks), alive).await
            {
                found.state = Err(reason);
            }
            match (cell, version, &found.state) {
                (Some(cell), Some(version), Ok(alive)) => {
                    adopted += 1;
                    self.adopted.write().insert(found.instance, cell.clone());
                    let found_as = seen(alive, &memo, place);
                    self.hold(&cell, &version, found.instance, found_as, memo.memory);
                    let link = Link::new(
                        found.instance,
                        version,
                        alive.endpoint.clone(),
                        alive.life.clone(),
                        alive.token.clone(),
                    );
                    link.memory_is(memo.memory, memo.tree);
                    links.push((cell, link, found_as));
                }
                (..) => {
                    ended += 1;
                    self.end_left(pool, found);
                }
            }
        }
        let cells: BTreeMap<CoreNumber, Arc<Cell>> =
            links.iter().map(|(cell, _, _)| (cell.number, cell.clone())).collect();
        for (cell, link, found) in links {
            let (instance, memory, gpu) = (link.instance, link.memory().0, link.version.policy().need.gpu);
            cell.adopt(link, found);
            if memory == MemoryState::Unknown {
                // Told after the cell has told the placer that it is parked: it may hold its device memory nevertheless.
                self.post(Message::ToPlacer(ToPlacer::Residue { instance, memory: 0, gpu: bytes_of(gpu) }));
            }
        }
        let held = self.options.held.iter();
        let held = held.filter_map(|instance| Some((*instance, self.owner(*instance)?.occupy(*instance)?)));
        self.held.lock().extend(held);
        cells.values().for_each(Cell::begin);
        let took = (kip_host::clock::monotonic_micros() - began) / 1_000;
        tracing::info!(adopted, ended, took_ms = took, "instances of an earlier server");
        for inherited in inherited.into_iter().filter(|inherited| !inherited.is_empty()) {
            let shared = self.clone();
            kip_host::tasks::spawn("requests of an earlier server", async move { shared.settle(inherited).await });
        }
        Ok(())
    }

    /// Room is held for all that live before anybody else can be given it.
    fn hold(
        &self,
        cell: &Cell,
        version: &Version,
        instance: InstanceId,
        found: kip_fleet::FoundState,
        memory: MemoryState,
    ) {
        let (function, need) = (cell.number, version.policy().need);
        // One whose memory nobody knows of holds everything, as far as others are concerned.
        let rung = found.asleep.map(|rung| if memory == MemoryState::Unknown { Rung::Paused } else { rung });
        let (version, place) = (version.id, found.place);
        self.tell_placer(ToPlacer::Hold { function, instance, version, need, place, rung });
    }

    pub(crate) async fn version_of(&self, cell: &Cell, version: VersionId) -> Result<Option<Arc<Version>>, Error> {
        let held = cell.lock().held_version(version);
        if held.is_some() {
            return Ok(held);
        }
        let stored = self.changes.read().revision(version).await?.filter(|stored| stored.spec.name == *cell.name());
        let version = stored.map(|stored| self.version(stored));
        if let Some(version) = &version {
            cell.number_version(version);
        }
        Ok(version)
    }

    /// Ends what cannot be adopted, without waiting for it.
    fn end_left(self: &Arc<Self>, pool: Place, found: FoundInstance) {
        let (instance, there, has_grace) = (found.instance, found.was_there(), found.has_grace);
        let why = found.state.err().unwrap_or_else(|| "its function or version was removed".to_owned());
        let name = found.function.as_ref().map(FunctionName::as_str);
        tracing::warn!(%instance, function = name, why, "an instance of an earlier server does not go on");
        if let Some(function) = found.function {
            self.recorder.record(Record::Decision(DecisionRecord {
                at: kip_host::clock::wall_millis(),
                function: function.to_string(),
                version: found.version.map_or(0, |version| version.0),
                label: None,
                instance: Some(instance.to_string()),
                from: None,
                to: "gone".to_owned(),
                why,
                detail: None,
                decision: Decision::NotAdopted.value(),
            }));
        }
        if !there {
            return;
        }
        let shared = self.clone();
        self.ending_left.fetch_add(1, Ordering::Relaxed);
        kip_host::tasks::spawn("end left instance", async move {
            let body = shared.bodies.at(pool);
            let ended = match has_grace {
                // Its hook was called and its signal sent; the rest of its grace is in its journal.
                true => {
                    let order = StopOrder { pre_stop: None, grace: Millis(0), stop: Stop::default() };
                    body.stop(instance, order).await.map(drop)
                }
                false => body.kill(instance).await,
            };
            if let Err(error) = ended {
                tracing::error!(%instance, %error, "an instance of an earlier server is still there");
            }
            shared.ending_left.fetch_sub(1, Ordering::Relaxed);
            shared.changed.notify_waiters();
        });
    }

    /// Tells functions when requests of an earlier server are over.
    async fn settle(&self, mut inherited: InheritedConnections) {
        let mut pause = FIRST_PAUSE;
        while !inherited.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            for instance in inherited.settled() {
                if let Some(cell) = self.owner(instance) {
                    cell.step(Event::Settled { instance });
                }
            }
        }
    }

    /// What the next server must know of an instance beside its devices: why it is there.
    pub(crate) fn memo(&self, cell: &Cell, instance: InstanceId) -> Memo {
        let kind = cell.look(&cell.lock(), |core| core.instance(instance).map(|instance| instance.kind)).flatten();
        let pool = self.pool_name(cell.place_of(instance).pool).map(str::to_owned);
        Memo { kind: kind.unwrap_or_default(), pool, ..Memo::default() }
    }

    /// One that was caught between two rungs must not be given a request before it was woken: it is put to sleep.
    ///
    /// # Errors
    /// Why it cannot go on.
    async fn calm(
        &self,
        pool: Place,
        instance: InstanceId,
        (memo, asks): (&mut Memo, bool),
        alive: &mut AliveInstance,
    ) -> Result<(), String> {
        if memo.memory == MemoryState::Held {
            return Ok(());
        }
        if let Some(tree) = memo.tree.take() {
            let Some(driver) = &self.options.driver else {
                return Err("the driver was freezing it, and its device is not qualified any more".to_owned());
            };
            let parked = match driver.recover(&tree).await? {
                RecoveredTree::Parked(entry) => {
                    memo.tree = Some(Box::new(entry));
                    true
                }
                RecoveredTree::Running(entry) => {
                    memo.tree = entry.map(Box::new);
                    false
                }
            };
            // One that the driver froze whole is parked, whatever its server had still to do.
            if memo.memory == MemoryState::Unknown {
                match (parked, asks) {
                    (true, _) => memo.memory = MemoryState::Parked,
                    // It runs, and only the driver ever takes its memory: it has all of it.
                    (false, false) => memo.memory = MemoryState::Held,
                    (false, true) => {}
                }
            }
        }
        if alive.asleep {
            return Ok(());
        }
        let paused = self.bodies.at(pool).pause(instance).await;
        paused.map_err(|error| format!("it was caught while it gave memory back, and cannot be paused: {error}"))?;
        (alive.asleep, alive.busy) = (true, 0);
        Ok(())
    }
}

/// Bytes of a part of a device; of whole ones, all that there may be.
fn bytes_of(gpu: Gpu) -> u64 {
    match gpu {
        Gpu::None => 0,
        Gpu::Slice(bytes) => bytes,
        Gpu::Cards(_) => u64::MAX,
    }
}

fn seen(alive: &AliveInstance, memo: &Memo, place: Place) -> kip_fleet::FoundState {
    let asleep = alive.asleep.then_some(memo.memory.rung());
    let provisioned = memo.kind == Kind::Provisioned;
    kip_fleet::FoundState { asleep, busy: alive.busy, born: alive.born, provisioned, place }
}
