//! Rungs below paused, composed of what there is: the requests by which a program gives its device memory back, the driver of the
//! devices, and the pages of the processes. Each step is written into the body's journal first, so that the next server knows what it
//! may trust.

use std::sync::Arc;
use std::time::Duration;

use kip_engine::{Body, Measure};
use kip_fleet::router::Message;
use kip_fleet::{OperationOutcome, Place, ToPlacer};
use kip_freezer::journal::Entry;
use kip_freezer::spill;
use kip_host::failpoint::reached;
use kip_spec::function::{FunctionSpec, GpuNeed};
use kip_spec::sleep::InstanceCall;
use kip_spec::{Bytes, InstanceId};

use crate::cell::Cell;
use crate::driver::{EntryNotes, FreezeResult};
use crate::memo::{Memo, MemoryState};
use crate::shared::Shared;

/// How long the driver may take to show that memory is free, milliseconds.
const SHOWN_FREE: u64 = 2_000;
const LOOK: Duration = Duration::from_millis(50);
/// What is left of the host's memory beside what a parked instance takes, bytes.
const HOST_RESERVE: u64 = 256 << 20;
/// A program that says that it gave its memory back, and holds more than this part of it in percent, did not.
const MOST_HELD: u64 = 90;

/// An instance on its way down or up.
pub(crate) struct Descent<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) cell: &'a Arc<Cell>,
    pub(crate) instance: InstanceId,
    pub(crate) spec: &'a FunctionSpec,
    pub(crate) body: &'a dyn Body,
    pub(crate) place: Place,
}

/// Why its device memory was not given back.
enum ReleaseFailure {
    /// It has it still, or took it again.
    Holds(String),
    /// Nobody knows.
    Lost(String),
}

impl Descent<'_> {
    /// Gives the device memory of a paused instance back: for that it gets CPU, and is paused again.
    pub(crate) async fn park(&self) -> OperationOutcome {
        let (instance, body) = (self.instance, self.body);
        let drives = self.shared.options.driver.is_some() && self.place.devices != 0;
        if self.spec.lifecycle.sleep.is_none() && !drives {
            // It holds no device: there is nothing to give back on the way to the next rung.
            self.note(MemoryState::Parked, None).await;
            return OperationOutcome::Parked;
        }
        reached("park: begun");
        let earlier = self.tree();
        self.note(MemoryState::Unknown, earlier.clone()).await;
        reached("park: noted");
        if let Err(error) = body.resume(instance).await {
            tracing::warn!(%instance, %error, "it cannot be parked");
            return OperationOutcome::ParkUnknown;
        }
        reached("park: thawed");
        match self.release(earlier).await {
            Ok((tree, held)) => {
                if let Err(error) = body.pause(instance).await {
                    tracing::warn!(%instance, %error, "it gave its device memory back and cannot be paused");
                    return OperationOutcome::ParkUnknown;
                }
                reached("park: paused");
                self.note(MemoryState::Parked, tree).await;
                reached("park: done");
                // What the driver does not show is believed.
                let gpu = held.unwrap_or(0);
                self.tell_memory().await;
                self.shared.post(Message::ToPlacer(ToPlacer::Residue { instance, memory: 0, gpu }));
                OperationOutcome::Parked
            }
            Err(ReleaseFailure::Holds(why)) => {
                tracing::warn!(%instance, why, "it did not give its device memory back");
                if let Err(error) = body.pause(instance).await {
                    tracing::warn!(%instance, %error, "nor can it be paused");
                    return OperationOutcome::ParkUnknown;
                }
                self.take_memory_back();
                self.note(MemoryState::Held, self.tree()).await;
                OperationOutcome::ParkFailed
            }
            Err(ReleaseFailure::Lost(why)) => {
                tracing::warn!(%instance, why, "it was lost while it gave its device memory back");
                OperationOutcome::ParkUnknown
            }
        }
    }

    /// The program's own requests first, then the driver for what is left. Also gives what it holds afterwards, if that is shown.
    async fn release(&self, earlier: Option<Box<Entry>>) -> Result<(Option<Box<Entry>>, Option<u64>), ReleaseFailure> {
        self.host_has_room().await?;
        self.lend_memory().await;
        let mut held = None;
        if let Some(sleep) = &self.spec.lifecycle.sleep {
            held = match self.ask_to_sleep(&sleep.down).await {
                Ok(held) => held,
                // It may have begun to. Only a program that has taken everything again can be trusted with requests.
                Err(why) => {
                    return Err(match self.send("sleep.up", &sleep.up).await {
                        Ok(()) => ReleaseFailure::Holds(why),
                        Err(worse) => ReleaseFailure::Lost(format!("{why}; then {worse}")),
                    });
                }
            };
        }
        let Some(driver) = self.shared.options.driver.as_ref().filter(|_| self.place.devices != 0) else {
            return Ok((None, held));
        };
        let processes = self.processes();
        let was_restored = earlier.is_some_and(|entry| entry.was_restored);
        match driver.freeze(self.instance, self.place, &processes, was_restored, &self.notes()).await {
            FreezeResult::Parked { entry, held } => {
                reached("park: frozen");
                Ok((entry.map(Box::new), held))
            }
            // The program gave back what it could; the rest is charged on.
            FreezeResult::Running(why) if self.spec.lifecycle.sleep.is_some() => {
                tracing::info!(instance = %self.instance, why, "the driver does not take what is left");
                Ok((None, held))
            }
            FreezeResult::Running(why) => Err(ReleaseFailure::Holds(why)),
            FreezeResult::Lost(why) => Err(ReleaseFailure::Lost(why)),
        }
    }

    /// What leaves the device goes to the host: where that has too little, the instance keeps it, before the kernel has to end anybody.
    async fn host_has_room(&self) -> Result<(), ReleaseFailure> {
        let (Some(held), Some(free)) = (self.device_memory().await, kip_host::usage::available_memory()) else {
            return Ok(());
        };
        match free >= held.saturating_add(HOST_RESERVE) {
            true => Ok(()),
            false => Err(ReleaseFailure::Holds(format!(
                "{} of device memory would go to the host, which has {} left",
                Bytes(held),
                Bytes(free)
            ))),
        }
    }

    /// What leaves the device counts as memory of the instance: its limit is raised by that, or the kernel would end it.
    async fn lend_memory(&self) {
        let Some(limit) = self.spec.resources.memory else { return };
        let declared = match self.spec.resources.gpu.as_ref().map(|gpu| gpu.need) {
            Some(GpuNeed::Memory(bytes)) => bytes.0,
            _ => crate::devices::memory(&self.shared.options.inventory, self.place).unwrap_or(0),
        };
        let parked = self.device_memory().await.unwrap_or(0).max(declared);
        self.limit_memory(limit.0.saturating_add(parked));
    }

    /// The limit is the declared one: its device memory is on the device.
    fn take_memory_back(&self) {
        if let Some(limit) = self.spec.resources.memory {
            self.limit_memory(limit.0);
        }
    }

    fn limit_memory(&self, bytes: u64) {
        let Some(local) = self.body.local() else { return };
        if let Err(error) = local.limit_memory(self.instance, bytes) {
            tracing::warn!(instance = %self.instance, %error, limit = %Bytes(bytes), "its memory limit cannot be changed");
        }
    }

    /// What it takes of the host now that its device memory is there as well.
    async fn tell_memory(&self) {
        let instance = self.instance;
        let measured = self.body.measure(&[instance], Measure::Memory).await;
        if let Some(memory) = measured.get(&instance).copied() {
            self.shared.post(Message::ToPlacer(ToPlacer::Observed { instance, memory: Some(memory), gpu: None }));
        }
    }

    async fn ask_to_sleep(&self, down: &[InstanceCall]) -> Result<Option<u64>, String> {
        let before = self.device_memory().await;
        self.send("sleep.down", down).await?;
        reached("park: down");
        let held = self.held_after(before).await;
        if let (Some(before), Some(held)) = (before, held)
            && holds_on(held, before)
        {
            return Err(format!("it still holds {} of {} of device memory", Bytes(held), Bytes(before)));
        }
        Ok(held)
    }

    /// Gives the host memory of a parked instance back: its pages go to where they came from, or to the swap space.
    pub(crate) async fn spill(&self) -> OperationOutcome {
        let instance = self.instance;
        let processes = self.processes();
        reached("spill: begun");
        let spilled = kip_host::tasks::blocking("spill pages", move || spill::pages_out(&processes)).await;
        match spilled {
            Some(Ok(spilled)) if spilled.is_worth_it() => {
                self.note(MemoryState::Spilled, self.tree()).await;
                reached("spill: done");
                let (freed, left) = (Bytes(spilled.freed()), Bytes(spilled.after));
                tracing::info!(%instance, %freed, %left, "its pages are out");
                let memory = spilled.after;
                self.shared.post(Message::ToPlacer(ToPlacer::Residue { instance, memory, gpu: 0 }));
                OperationOutcome::Spilled
            }
            Some(Ok(spilled)) => {
                let (held, left) = (Bytes(spilled.before), Bytes(spilled.after));
                tracing::warn!(%instance, %held, %left, "its pages stay: they have no file, and the host has no swap space");
                OperationOutcome::SpillFailed
            }
            Some(Err(error)) => {
                tracing::warn!(%instance, %error, "its pages cannot be taken out");
                OperationOutcome::SpillFailed
            }
            None => OperationOutcome::SpillFailed,
        }
    }

    /// Wakes an instance from the rung it rests on: its CPU, its device memory, and the proof that it answers as before.
    pub(crate) async fn wake(&self) -> OperationOutcome {
        let (instance, body) = (self.instance, self.body);
        let state = self.shared.memory_of(self.cell, instance).0;
        if state == MemoryState::Spilled {
            // Read in one go what would else come back page by page.
            let processes = self.processes();
            kip_host::tasks::blocking("warm pages", move || spill::pages_in(&processes)).await;
        }
        let tree = self.tree();
        if state != MemoryState::Held {
            self.note(MemoryState::Unknown, tree.clone()).await;
            reached("wake: noted");
        }
        if let Err(error) = body.resume(instance).await {
            tracing::warn!(%instance, %error, "it cannot be woken");
            return OperationOutcome::ResumeFailed;
        }
        if state == MemoryState::Held {
            return OperationOutcome::Resumed;
        }
        reached("wake: thawed");
        let tree = match self.take_again(tree).await {
            Ok(tree) => tree,
            Err(why) => {
                tracing::warn!(%instance, why, "it did not take its device memory again");
                return OperationOutcome::ResumeFailed;
            }
        };
        reached("wake: up");
        if let Err(why) = self.shared.ask_canary(instance, self.spec, body).await {
            self.shared.note_canary(self.cell, instance, &why);
            return OperationOutcome::CanaryFailed;
        }
        self.take_memory_back();
        self.note(MemoryState::Held, tree).await;
        reached("wake: done");
        OperationOutcome::Resumed
    }

    async fn take_again(&self, tree: Option<Box<Entry>>) -> Result<Option<Box<Entry>>, String> {
        let frozen = tree.as_ref().filter(|entry| entry.step == kip_freezer::journal::Step::Parked);
        let tree = match (frozen, &self.shared.options.driver) {
            (Some(entry), Some(driver)) => Some(Box::new(driver.wake(entry, &self.notes()).await?)),
            (Some(_), None) => return Err("the driver froze it, and its device is not qualified any more".to_owned()),
            (None, _) => tree,
        };
        reached("wake: restored");
        let up = self.spec.lifecycle.sleep.as_ref().map_or(&[][..], |sleep| &sleep.up);
        self.send("sleep.up", up).await?;
        Ok(tree)
    }

    /// Before it is killed: what the driver has restored once must not hold memory then.
    pub(crate) async fn retire(&self) {
        let Some(driver) = &self.shared.options.driver else { return };
        let Some(tree) = self.tree().filter(|entry| entry.was_restored) else { return };
        if self.body.resume(self.instance).await.is_ok() {
            driver.retire(&tree, &self.notes()).await;
        }
    }

    /// Sends requests in their order, until one is not answered with success.
    async fn send(&self, what: &'static str, calls: &[InstanceCall]) -> Result<(), String> {
        for call in calls {
            let answer = self.body.call(self.instance, what, call).await.map_err(|error| error.to_string())?;
            if !(200..300).contains(&answer.status) {
                return Err(format!("{} {} answered {}", call.method.name(), call.path, answer.status));
            }
        }
        Ok(())
    }

    /// Bytes of device memory that it holds, as the driver says; none on a host without devices, or where it cannot tell.
    async fn device_memory(&self) -> Option<u64> {
        if self.place.devices == 0 {
            return None;
        }
        self.shared.meter.device_memory(self.shared, &[self.instance]).await.remove(&self.instance)
    }

    /// The same after it was asked to give it back: the driver may show that a moment later.
    async fn held_after(&self, before: Option<u64>) -> Option<u64> {
        let before = before?;
        let until = kip_host::clock::boot_millis().saturating_add(SHOWN_FREE);
        loop {
            let held = self.device_memory().await;
            if held.is_none_or(|held| !holds_on(held, before)) || kip_host::clock::boot_millis() >= until {
                return held;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn processes(&self) -> Vec<u32> {
        let members = self.body.local().map(|local| local.members(&[self.instance]));
        members.and_then(|mut members| members.remove(&self.instance)).unwrap_or_default()
    }

    fn tree(&self) -> Option<Box<Entry>> {
        self.shared.memory_of(self.cell, self.instance).1
    }

    fn notes(&self) -> EntryNotes<'_> {
        EntryNotes { body: self.body, memo: self.shared.memo(self.cell, self.instance) }
    }

    /// Writes down where its memory is, before anybody relies on it.
    async fn note(&self, memory: MemoryState, tree: Option<Box<Entry>>) {
        let link = self.cell.lock().links.get(&self.instance).cloned();
        if let Some(link) = link {
            link.memory_is(memory, tree.clone());
        }
        let memo = Memo { memory, tree, ..self.shared.memo(self.cell, self.instance) };
        if let Err(error) = self.body.remember(self.instance, &memo.to_string()).await {
            tracing::warn!(instance = %self.instance, %error, "a step of its memory is not written down");
        }
    }
}

impl Shared {
    fn memory_of(&self, cell: &Cell, instance: InstanceId) -> (MemoryState, Option<Box<Entry>>) {
        let link = cell.lock().links.get(&instance).cloned();
        link.map(|link| link.memory()).unwrap_or_default()
    }
}

fn holds_on(held: u64, before: u64) -> bool {
    held.saturating_mul(100) > before.saturating_mul(MOST_HELD)
}
