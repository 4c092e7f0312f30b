//! The core of one function: its versions, their queues, its instances.
//!
//! `step(now, event, &mut effects)` is the only way in. A request to a hot instance costs a look at the instances and
//! no allocation; everything slower goes through `FunctionCore::reconcile`, which compares what the scaler wants
//! with what is and starts, wakes, pauses or stops the difference.

mod adopt;
mod dispatch;
mod lifecycle;
mod reconcile;
mod revision;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::queue::Waiting;
use crate::why::{Gone, Refusal, Why};
use crate::{
    Change, Class, CoreNumber, Effect, Event, FromPlacer, Now, OperationNumber, Policy, State, Ticket, ToPlacer,
};

pub use revision::{Backoff, Revision, Role};

/// All of one function that decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionCore {
    boot: u32,
    number: CoreNumber,
    revisions: BTreeMap<VersionId, Revision>,
    instances: BTreeMap<InstanceId, Instance>,
    placed: BTreeMap<Ticket, InstanceId>,
    next_instance: u32,
    next_operation: u64,
    /// When the shell will call `Tick`, boot time.
    armed: Option<u64>,
    /// Set once the function is on its way out, with what its callers are told.
    closing: Option<(Refusal, Why)>,
    #[serde(skip)]
    scratch: Scratch,
}

/// Buffers that are empty between steps.
#[derive(Debug, Clone, Default)]
struct Scratch {
    idle: Vec<u64>,
    asleep: Vec<u64>,
}

impl FunctionCore {
    /// A core without versions. `boot` counts the server's starts; `number` is unique within one; `sequence` is what an
    /// earlier core of the same number ended with, see [`FunctionCore::sequence`].
    pub fn new(boot: u32, number: CoreNumber, sequence: u32) -> Self {
        Self {
            boot,
            number,
            revisions: BTreeMap::new(),
            instances: BTreeMap::new(),
            placed: BTreeMap::new(),
            next_instance: sequence,
            next_operation: 0,
            armed: None,
            closing: None,
            scratch: Scratch::default(),
        }
    }

    /// Takes one event and appends what is to be done.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        let now = now.boot;
        match event {
            Event::Arrive { ticket } => {
                if self.arrive(now, ticket, effects) {
                    return;
                }
            }
            Event::Leave { ticket } => {
                if self.leave(now, ticket, effects) {
                    return;
                }
            }
            Event::Deploy { version, policy } => self.deploy(now, version, policy, effects),
            Event::Remove => self.close(now, Refusal::Removed, Why::Removed, effects),
            Event::Shutdown => self.close(now, Refusal::ShuttingDown, Why::ShuttingDown, effects),
            Event::Observed { instance, operation, seen } => self.observed(now, instance, operation, seen, effects),
            Event::Exited { instance, exit } => self.exited(now, instance, exit, effects),
            Event::Adopt { instance, version, policy, found } => {
                self.adopt(now, instance, version, policy, found, effects);
            }
            Event::Settled { instance } => self.settled(now, instance),
            Event::Placer(FromPlacer::Grant { instance }) => self.granted(now, instance, effects),
            Event::Placer(FromPlacer::Refuse { instance }) => self.refused_room(now, instance, effects),
            Event::Placer(FromPlacer::Evict { instance }) => self.evict(now, instance, effects),
            Event::Tick => {
                self.armed = None;
                self.expire(now, effects);
            }
        }
        self.reconcile(now, effects);
        self.arm(effects);
    }

    /// Whether nothing of the function is left but its declaration, so that the core may be dropped and made anew on next use.
    pub fn is_vacant(&self) -> bool {
        self.instances.is_empty()
            && self.placed.is_empty()
            && self.revisions.values().all(|revision| {
                revision.queue.is_empty()
                    && revision.backoff.is_clear()
                    && revision.role != Role::Candidate
                    && revision.policy.min == 0
            })
    }

    /// The sequence of the last instance made, so that a core made anew after this one reuses no id.
    pub fn sequence(&self) -> u32 {
        self.next_instance
    }

    /// Its instances, oldest first.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// One of its instances.
    pub fn instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(&id)
    }

    /// Whether a request still has its place on an instance; it loses it when the instance ends.
    pub fn is_placed(&self, ticket: Ticket) -> bool {
        self.placed.contains_key(&ticket)
    }

    /// Its versions, oldest first.
    pub fn revisions(&self) -> impl Iterator<Item = (VersionId, &Revision)> {
        self.revisions.iter().map(|(version, revision)| (*version, revision))
    }

    /// Whether the function is on its way out.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    fn deploy(&mut self, now: u64, version: VersionId, policy: Arc<Policy>, effects: &mut Vec<Effect>) {
        self.closing = None;
        let something_runs = !self.instances.is_empty() || self.revisions.values().any(|r| !r.queue.is_empty());
        for revision in self.revisions.values_mut() {
            if revision.role == Role::Candidate {
                revision.role = Role::Retiring;
            }
        }
        let serving = self.revisions.values().any(|revision| revision.role == Role::Serving);
        let role = if serving && something_runs { Role::Candidate } else { Role::Serving };
        self.revisions.insert(version, Revision::new(role, policy));
        if role == Role::Serving {
            self.promote(now, version, effects);
        }
    }

    /// Makes a version the serving one; the one before drains its own queue.
    fn promote(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) {
        for (id, revision) in &mut self.revisions {
            if *id == version {
                revision.role = Role::Serving;
            } else if revision.role == Role::Serving {
                revision.role = Role::Retiring;
            }
        }
        effects.push(Effect::Promoted { version });
        self.reconcile(now, effects);
    }

    fn close(&mut self, now: u64, refusal: Refusal, why: Why, effects: &mut Vec<Effect>) {
        self.closing = Some((refusal, why));
        for revision in self.revisions.values_mut() {
            revision.role = Role::Retiring;
            while let Some((ticket, _)) = revision.queue.pop() {
                effects.push(Effect::Refuse { ticket, refusal });
            }
        }
        self.reconcile(now, effects);
    }

    /// Deadlines that have come: of waiting requests and of operations.
    fn expire(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let waits_for_room: Vec<VersionId> =
            self.instances.values().filter(|i| i.state == State::Requested).map(|i| i.version).collect();
        for (version, revision) in &mut self.revisions {
            while let Some((ticket, waiting)) = revision.queue.pop_expired(now) {
                let refusal = if waits_for_room.contains(version) {
                    Refusal::NoCapacity
                } else {
                    Refusal::QueueTimeout { waited: now.saturating_sub(waiting.since) }
                };
                effects.push(Effect::Refuse { ticket, refusal });
            }
        }
        let late: Vec<InstanceId> = self
            .instances
            .values()
            .filter(|instance| instance.operation.and_then(|o| o.deadline).is_some_and(|deadline| deadline <= now))
            .map(|instance| instance.id)
            .collect();
        for id in late {
            self.operation_late(now, id, effects);
        }
    }

    /// The earliest time at which something is due, boot time.
    fn next_deadline(&self) -> Option<u64> {
        use crate::scaler::Scaler;
        let operations = self.instances.values().filter_map(|instance| instance.operation.and_then(|o| o.deadline));
        let revisions = self.revisions.values().flat_map(|revision| {
            let scaler = (revision.role == Role::Serving).then(|| revision.scaler.next_tick()).flatten();
            [revision.queue.next_deadline(), scaler, revision.backoff.retry_at()]
        });
        operations.chain(revisions.flatten()).min()
    }

    fn arm(&mut self, effects: &mut Vec<Effect>) {
        if let Some(next) = self.next_deadline()
            && self.armed.is_none_or(|armed| next < armed)
        {
            self.armed = Some(next);
            effects.push(Effect::WakeAt(next));
        }
    }

    fn next_operation(&mut self) -> OperationNumber {
        self.next_operation += 1;
        OperationNumber(self.next_operation)
    }

    /// Moves an instance to another state and tells the log.
    fn change(&mut self, now: u64, id: InstanceId, to: State, why: Why, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let from = instance.state;
        instance.enter(to, now);
        effects.push(Effect::Changed(Change { instance: id, version: instance.version, from: Some(from), to, why }));
        match (from.class(), to.class()) {
            (_, Class::Gone) => {
                self.instances.remove(&id);
                self.placed.retain(|_, placed| *placed != id);
                effects.push(Effect::Tell(ToPlacer::Release { instance: id }));
            }
            // Only once it has settled: asked for its room while it falls asleep, it would have to decline.
            _ if matches!(to, State::Paused | State::Parked | State::Spilled) => {
                effects.push(Effect::Tell(ToPlacer::Asleep { instance: id }));
            }
            (Class::Asleep, after) if after != Class::Asleep => {
                effects.push(Effect::Tell(ToPlacer::Awake { instance: id }));
            }
            _ => {}
        }
    }

    fn gone(&mut self, now: u64, id: InstanceId, gone: Gone, why: Why, effects: &mut Vec<Effect>) {
        self.change(now, id, State::Gone(gone), why, effects);
    }

    /// A version's queue as users ask for it: depth and age of the oldest in milliseconds.
    pub fn queue(&self, version: VersionId, now: Now) -> Option<(u32, Option<u64>)> {
        let queue = &self.revisions.get(&version)?.queue;
        Some((queue.depth(), queue.oldest().map(|since| now.boot.saturating_sub(since))))
    }

    fn enqueue(&mut self, now: u64, version: VersionId, ticket: Ticket) {
        if let Some(revision) = self.revisions.get_mut(&version) {
            let deadline = now.saturating_add(revision.policy.queue_timeout);
            revision.queue.push(ticket, Waiting { since: now, deadline });
        }
    }
}
