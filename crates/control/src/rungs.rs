//! Rungs below paused, composed of what bodies can do: the requests by which a program gives its device memory back, and the
//! pages of its processes. Each step is written into the body's journal first, so that the next server knows what it may trust.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kip_engine::Body;
use kip_fleet::router::Message;
use kip_fleet::{OperationOutcome, ToPlacer};
use kip_freezer::spill;
use kip_host::failpoint::reached;
use kip_spec::function::FunctionSpec;
use kip_spec::sleep::InstanceCall;
use kip_spec::{Bytes, InstanceId};

use crate::cell::Cell;
use crate::memo::{Memo, MemoryState};
use crate::shared::Shared;

/// How long the driver may take to show that memory is free.
const SHOWN_FREE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);
/// A program that says that it gave its memory back, and holds more than this part of it, did not.
const MOST_HELD: u64 = 90;

impl Shared {
    /// Gives the device memory of a paused instance back: its program is asked to, with its CPU, and paused again.
    pub(crate) async fn park(
        &self,
        cell: &Arc<Cell>,
        instance: InstanceId,
        spec: &FunctionSpec,
        body: &dyn Body,
    ) -> OperationOutcome {
        let Some(sleep) = &spec.lifecycle.sleep else {
            // It holds no device: there is nothing to give back on the way to the next rung.
            self.note_memory(cell, instance, MemoryState::Parked, body).await;
            return OperationOutcome::Parked;
        };
        reached("park: begun");
        self.note_memory(cell, instance, MemoryState::Unknown, body).await;
        reached("park: noted");
        let before = self.device_memory_of(instance).await;
        if let Err(error) = body.resume(instance).await {
            tracing::warn!(%instance, %error, "it cannot be parked");
            return OperationOutcome::ParkUnknown;
        }
        reached("park: thawed");
        let mut gone = self.send(instance, "sleep.down", &sleep.down, body).await;
        reached("park: down");
        let mut held = None;
        if gone.is_ok() {
            held = self.held_after(instance, before).await;
            if let (Some(before), Some(held)) = (before, held)
                && held.saturating_mul(100) > before.saturating_mul(MOST_HELD)
            {
                gone = Err(format!("it still holds {} of {} of device memory", Bytes(held), Bytes(before)));
            }
        }
        let Err(why) = gone else {
            if let Err(error) = body.pause(instance).await {
                tracing::warn!(%instance, %error, "it gave its device memory back and cannot be paused");
                return OperationOutcome::ParkUnknown;
            }
            reached("park: paused");
            self.note_memory(cell, instance, MemoryState::Parked, body).await;
            reached("park: done");
            // What the driver does not show is believed.
            let gpu = Some(held.unwrap_or(0));
            self.post(Message::ToPlacer(ToPlacer::Observed { instance, memory: None, gpu }));
            return OperationOutcome::Parked;
        };
        tracing::warn!(%instance, why, "it did not give its device memory back");
        // It may have begun to. Only a program that has taken everything again can be trusted with requests.
        let back = self.send(instance, "sleep.up", &sleep.up, body).await;
        match (back, body.pause(instance).await) {
            (Ok(()), Ok(())) => {
                self.note_memory(cell, instance, MemoryState::Held, body).await;
                OperationOutcome::ParkFailed
            }
            (back, _) => {
                tracing::warn!(%instance, why = ?back.err(), "nor did it take it again");
                OperationOutcome::ParkUnknown
            }
        }
    }

    /// Gives the host memory of a parked instance back: its pages go to where they came from, or to the swap space.
    pub(crate) async fn spill(&self, cell: &Arc<Cell>, instance: InstanceId, body: &dyn Body) -> OperationOutcome {
        let Some(local) = body.local() else { return OperationOutcome::SpillFailed };
        let members = local.members(&[instance]).remove(&instance).unwrap_or_default();
        reached("spill: begun");
        let spilled = kip_host::tasks::blocking("spill pages", move || spill::pages_out(&members)).await;
        match spilled {
            Some(Ok(spilled)) if spilled.is_worth_it() => {
                self.note_memory(cell, instance, MemoryState::Spilled, body).await;
                reached("spill: done");
                tracing::info!(%instance, freed = %Bytes(spilled.freed()), left = %Bytes(spilled.after), "its pages are out");
                let memory = Some(spilled.after);
                self.post(Message::ToPlacer(ToPlacer::Observed { instance, memory, gpu: None }));
                OperationOutcome::Spilled
            }
            Some(Ok(spilled)) => {
                let (held, left) = (Bytes(spilled.before), Bytes(spilled.after));
                tracing::warn!(%instance, %held, %left, "its pages stay: they have no file, and the host has no swap space for them");
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
    pub(crate) async fn wake(
        &self,
        cell: &Arc<Cell>,
        instance: InstanceId,
        spec: &FunctionSpec,
        body: &dyn Body,
    ) -> OperationOutcome {
        let memory = self.memory_state(cell, instance);
        if memory == MemoryState::Held {
            return match body.resume(instance).await {
                Ok(()) => OperationOutcome::Resumed,
                Err(error) => {
                    tracing::warn!(%instance, %error, "it cannot be woken");
                    OperationOutcome::ResumeFailed
                }
            };
        }
        self.note_memory(cell, instance, MemoryState::Unknown, body).await;
        reached("wake: noted");
        if memory == MemoryState::Spilled
            && let Some(local) = body.local()
        {
            // Read ahead in one go what would else come back page by page.
            let members = local.members(&[instance]).remove(&instance).unwrap_or_default();
            kip_host::tasks::blocking("warm pages", move || spill::pages_in(&members)).await;
        }
        if let Err(error) = body.resume(instance).await {
            tracing::warn!(%instance, %error, "it cannot be woken");
            return OperationOutcome::ResumeFailed;
        }
        reached("wake: thawed");
        let up = spec.lifecycle.sleep.as_ref().map_or(&[][..], |sleep| &sleep.up);
        if let Err(why) = self.send(instance, "sleep.up", up, body).await {
            tracing::warn!(%instance, why, "it did not take its device memory again");
            return OperationOutcome::ResumeFailed;
        }
        reached("wake: up");
        if let Err(why) = self.ask_canary(instance, spec, body).await {
            self.note_canary(cell, instance, &why);
            return OperationOutcome::CanaryFailed;
        }
        self.note_memory(cell, instance, MemoryState::Held, body).await;
        reached("wake: done");
        OperationOutcome::Resumed
    }

    /// Sends requests in their order, until one is not answered with success.
    async fn send(
        &self,
        instance: InstanceId,
        what: &'static str,
        calls: &[InstanceCall],
        body: &dyn Body,
    ) -> Result<(), String> {
        for call in calls {
            let answer = body.call(instance, what, call).await.map_err(|error| error.to_string())?;
            if !(200..300).contains(&answer.status) {
                return Err(format!("{} {} answered {}", call.method.name(), call.path, answer.status));
            }
        }
        Ok(())
    }

    /// Bytes of device memory that it holds, as the driver says; none on a host without devices, or where it cannot tell.
    async fn device_memory_of(&self, instance: InstanceId) -> Option<u64> {
        let devices =
            self.options.inventory.pools.iter().flat_map(|pool| &pool.hosts).any(|host| !host.devices.is_empty());
        if !devices {
            return None;
        }
        let mut held: HashMap<InstanceId, u64> = self.meter.device_memory(self, &[instance]).await;
        held.remove(&instance)
    }

    /// The same after it was asked to give it back: the driver may show that a moment later.
    async fn held_after(&self, instance: InstanceId, before: Option<u64>) -> Option<u64> {
        let before = before?;
        let until = tokio::time::Instant::now() + SHOWN_FREE;
        loop {
            let held = self.device_memory_of(instance).await;
            let free = held.is_none_or(|held| held.saturating_mul(100) <= before.saturating_mul(MOST_HELD));
            if free || tokio::time::Instant::now() >= until {
                return held;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn memory_state(&self, cell: &Cell, instance: InstanceId) -> MemoryState {
        cell.lock().links.get(&instance).map(|link| link.memory()).unwrap_or_default()
    }

    /// Writes down where its memory is, before anybody relies on it.
    async fn note_memory(&self, cell: &Cell, instance: InstanceId, memory: MemoryState, body: &dyn Body) {
        let link = cell.lock().links.get(&instance).cloned();
        if let Some(link) = link {
            link.memory_is(memory);
        }
        let memo = Memo { memory, ..self.memo(cell, instance) };
        if let Err(error) = body.remember(instance, &memo.to_string()).await {
            tracing::warn!(%instance, %error, "a step of its memory is not written down");
        }
    }
}
