//! The core of one function: its versions, their queues, its instances.
//!
//! `step(now, event, &mut effects)` is the only way in. A request to a hot instance costs a look at the instances and
//! no allocation; everything slower goes through `FunctionCore::reconcile`, which compares what the scaler wants
//! with what is and starts, wakes, pauses or stops the difference.

mod adopt;
mod attach;
mod backlog;
mod dispatch;
mod explain;
mod health;
mod instances;
mod lifecycle;
mod metering;
mod provisioning;
mod rebuild;
mod reconcile;
mod recreate;
mod revision;
mod rotate;
mod rungs;
mod spare;
#[cfg(test)]
pub(crate) mod tests;
mod turn;
mod versions;
mod waits;

use std::collections::{BTreeMap, BTreeSet};

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::alias::Alias;
use crate::instance::Instance;
use crate::sparse::SparseMap;
use crate::why::{EndReason, Reason, Refusal};
use crate::{
    AliasNumber, Change, Class, CoreNumber, Draw, Effect, Event, FromPlacer, History, Now, OperationNumber, Qualifier,
    State, Ticket, ToPlacer, Usage,
};

use instances::Instances;

pub use backlog::Backlog;
pub use explain::{HoldReason, ScalingExplanation};
pub(crate) use rebuild::settle_half;

pub use provisioning::ProvisionedTarget;
pub use revision::{Backoff, OperationCosts, Revision, Role};
pub use waits::WaitReason;

/// All of one function that decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionCore {
    boot: u32,
    number: CoreNumber,
    revisions: SparseMap<VersionId, Revision>,
    aliases: BTreeMap<AliasNumber, Alias>,
    /// Versions that give their room up for another one, and whose requests wait.
    #[serde(default)]
    aside: BTreeSet<VersionId>,
    /// What is provisioned, and for whom.
    provisions: Vec<ProvisionedTarget>,
    /// What was wanted before the server began anew, until somebody goes on from there.
    #[serde(with = "crate::sparse::pairs")]
    reached: BTreeMap<Qualifier, u32>,
    instances: Instances,
    placed: BTreeMap<Ticket, RequestPlace>,
    /// Sessions of people in instances.
    #[serde(default)]
    attachments: attach::Attachments,
    next_instance: u32,
    next_operation: u64,
    /// Places offered to tasks so far.
    next_offer: u64,
    /// The time of the present step, milliseconds since 1970.
    wall: i64,
    /// When the shell will call `Tick`, boot time.
    armed: Option<u64>,
    /// Set once the function is on its way out, with what its callers are told.
    closing: Option<(Refusal, Reason)>,
    /// Set while somebody waits for room.
    pressed: Option<turn::Pressure>,
    /// What an earlier core has learnt, until the version that serves goes on from there.
    #[serde(default)]
    learnt: Option<Box<History>>,
    #[serde(skip)]
    scratch: Scratch,
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct RequestPlace {
    on: InstanceId,
    since: u64,
}

/// Buffers that are empty between steps.
#[derive(Debug, Clone, Default)]
struct Scratch {
    idle: Vec<u64>,
    asleep: Vec<u64>,
    versions: Vec<VersionId>,
}

impl Scratch {
    /// Looks at each instance of a version: how many are busy with how many requests, and since when the others rest.
    fn gather<'a>(&mut self, own: impl Iterator<Item = &'a Instance>, queued: u32, pause: u64) -> (u32, u32) {
        self.idle.clear();
        self.asleep.clear();
        let (mut busy, mut in_flight) = (0u32, 0u32);
        for instance in own {
            match instance.state {
                _ if instance.lost => {}
                // Who waits cannot count on it.
                State::Ready | State::Busy if instance.unready && queued > 0 => {}
                State::Busy => {
                    busy += 1;
                    in_flight += instance.in_flight;
                }
                // It is as good as gone.
                _ if instance.released => {}
                State::Ready => self.idle.push(instance.resting_since(pause)),
                state if state.class() == Class::Asleep => self.asleep.push(instance.last_used),
                _ => {}
            }
        }
        self.idle.sort_unstable();
        self.asleep.sort_unstable();
        (busy, in_flight)
    }
}

impl FunctionCore {
    /// A core without versions. `boot` counts the server's starts; `number` is unique within one; `sequence` is what an
    /// earlier core of the same number ended with, see [`FunctionCore::sequence`].
    pub fn new(boot: u32, number: CoreNumber, sequence: u32) -> Self {
        Self {
            boot,
            number,
            revisions: SparseMap::default(),
            aliases: BTreeMap::new(),
            aside: BTreeSet::new(),
            provisions: Vec::new(),
            reached: BTreeMap::new(),
            instances: Instances::default(),
            placed: BTreeMap::new(),
            attachments: attach::Attachments::default(),
            next_instance: sequence,
            next_operation: 0,
            next_offer: 0,
            wall: 0,
            armed: None,
            closing: None,
            pressed: None,
            learnt: None,
            scratch: Scratch::default(),
        }
    }

    /// Takes one event and appends what is to be done.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        self.wall = now.wall;
        let counts = self.counts_requests();
        if counts {
            self.count_until(now.boot);
        }
        self.take(now, event, effects);
        if counts || self.counts_requests() {
            self.count_from(now.boot);
            if self.counting_sets_timers() {
                self.arm(now.boot, effects);
            }
        }
    }

    fn take(&mut self, whole: Now, event: Event, effects: &mut Vec<Effect>) {
        let now = whole.boot;
        match event {
            Event::Arrive { ticket, call } => {
                if self.arrive(now, ticket, call, effects) {
                    return;
                }
            }
            Event::Leave { ticket } => {
                if self.leave(now, ticket, effects) {
                    return;
                }
            }
            Event::Attach { ticket, to, instance } => self.attach(now, ticket, (to, instance), effects),
            Event::Halt { ticket } => self.halt(now, ticket, effects),
            Event::Abort => self.abort(now, effects),
            Event::Occupy { ticket, instance } => {
                debug_assert!(!self.serves(), "a place of an earlier server is taken after decisions have begun");
                return self.occupy(now, ticket, instance);
            }
            Event::Backlog { version, backlog } => self.backlog(version, backlog),
            Event::Deploy { version, policy } => self.deploy(now, version, policy, effects),
            Event::Serve { version, policy } => self.serve(now, version, policy, effects),
            Event::Provision { qualifier, settings } => {
                self.put_provision(now, qualifier, settings);
                // What is put again when a server begins is known before anything is decided.
                if !self.serves() {
                    return;
                }
            }
            Event::Reached { qualifier, target } => {
                self.reached.insert(qualifier, target);
                return;
            }
            Event::Learnt { history } => {
                self.learnt = Some(history);
                return;
            }
            Event::Measured { version, cpu, gpu_memory } => return self.measured(now, version, cpu, gpu_memory),
            Event::Alias { alias, targets, latest, provisioned, draw } => {
                let points =
                    (!targets.is_empty() || latest > 0).then(|| Alias::new(&targets, latest, provisioned, &draw));
                self.point(alias, points, &targets);
                // As above.
                if !self.serves() {
                    return;
                }
            }
            Event::Name { version, policy } => {
                self.call_by_itself(version, &policy);
                if !self.serves() {
                    return;
                }
            }
            Event::Unname { version } => self.unname(version),
            Event::SetAside { version, aside } => {
                self.set_aside(version, aside);
                if !self.serves() {
                    return;
                }
            }
            Event::Remove => self.close(now, Refusal::Removed, Reason::Removed, effects),
            Event::Shutdown => self.close(now, Refusal::ShuttingDown, Reason::ShuttingDown, effects),
            Event::Observed { instance, operation, seen } => self.observed(now, instance, operation, seen, effects),
            Event::Exited { instance, exit } => self.exited(now, instance, exit, effects),
            Event::Adopt { instance, version, policy, found } => {
                debug_assert!(!self.serves(), "{instance} is handed in after decisions have begun");
                return self.adopt(now, instance, version, policy, found, effects);
            }
            Event::Settled { instance } => self.settled(now, instance),
            Event::Sized { version, gpu } => self.resize(version, gpu, effects),
            Event::Readiness { instance, ready } => self.readiness(instance, ready),
            Event::Touch { instance, lost } => self.touch(instance, lost),
            Event::Unhealthy { instance, how } => self.unhealthy(now, instance, how, effects),
            Event::Progress { instance, last } => self.progress(now, instance, last, effects),
            Event::Start { version } => self.come_back(now, version, Reason::AskedFor),
            Event::Rotate => self.mark_all(Reason::Rotated),
            Event::Replace { instance, why } => self.mark(instance, why),
            Event::Overused { instance } => self.overused(now, instance, effects),
            Event::Placer(message) => self.placer_says(now, message, effects),
            Event::Tick => {
                self.armed = None;
                self.expire(now, effects);
            }
        }
        self.refuse_for_yielded(now, effects);
        self.provision(now, effects);
        self.place_attachments(now, effects);
        self.reconcile(now, effects);
        self.arm(now, effects);
    }

    /// Whether decisions have begun.
    fn serves(&self) -> bool {
        self.revisions.values().any(|revision| revision.role == Role::Serving)
    }

    fn placer_says(&mut self, now: u64, message: FromPlacer, effects: &mut Vec<Effect>) {
        match message {
            FromPlacer::Grant { instance, place, number, from } => {
                self.granted(now, instance, place, (number, from), effects);
            }
            FromPlacer::Refuse { instance } => self.refused_room(now, instance, effects),
            FromPlacer::Waits { instance, lack } => self.waits_for_room(instance, lack),
            FromPlacer::Press { stretch, longest } => self.press(now, stretch, longest),
            FromPlacer::Relax => self.relax(),
            FromPlacer::Restore { version } => self.come_back(now, version, Reason::CandidateFailed),
            FromPlacer::Evict { instance, lack, by } => self.evict(now, instance, lack, by, effects),
        }
    }

    /// Whether nothing of the function is left but its declaration, so that the core may be dropped and made anew on next use.
    pub fn is_vacant(&self) -> bool {
        use crate::scaler::Scaler;
        self.instances.is_empty()
            && self.placed.is_empty()
            && self.attachments.is_empty()
            && self.provisions.iter().all(ProvisionedTarget::is_at_rest)
            && self.revisions.values().all(|revision| {
                revision.queue.is_empty()
                    && revision.backlog.count == 0
                    && revision.backoff.is_clear()
                    && revision.role != Role::Candidate
                    && revision.returns.is_none()
                    && revision.minimum() == 0
                    && revision.scaler.is_at_rest()
            })
    }

    /// What the version that serves has learnt; nothing where it learns nothing.
    pub fn history(&self, now: Now) -> Option<History> {
        let serving = self.revisions.values().find(|revision| revision.role == Role::Serving)?;
        serving.history(now)
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
        self.placed.contains_key(&ticket) || self.attachments.placed.contains_key(&ticket)
    }

    /// The requests that wait, by version, and the attachments that do.
    pub fn waiting(&self) -> impl Iterator<Item = Ticket> {
        let requests = self.revisions.values().flat_map(|revision| revision.queue.tickets());
        requests.chain(self.attachments.waiting.keys().copied())
    }

    /// Its versions, oldest first.
    pub fn revisions(&self) -> impl Iterator<Item = (VersionId, &Revision)> {
        self.revisions.iter().map(|(version, revision)| (*version, revision))
    }

    /// Where the draw of each alias stands, for the next core.
    pub fn draws(&self) -> impl Iterator<Item = (AliasNumber, Draw)> {
        self.aliases.iter().map(|(number, alias)| (*number, Draw::Continue(alias.state())))
    }

    /// What is provisioned, and for whom.
    pub fn provisions(&self) -> &[ProvisionedTarget] {
        &self.provisions
    }

    /// Whether the function is on its way out.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// What the time of the living instances was spent on so far.
    pub fn usage(&self, now: Now) -> impl Iterator<Item = Usage> {
        self.instances.values().map(move |instance| instance.usage(now.boot))
    }

    /// Deadlines that have come: of waiting requests and of operations.
    fn expire(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.refresh();
        for (version, revision) in self.revisions.iter_mut() {
            let waits_for_room = self.instances.totals(*version).asking > 0;
            while let Some((ticket, waiting)) = revision.queue.pop_expired(now) {
                let refusal = if waits_for_room {
                    Refusal::NoCapacity
                } else {
                    Refusal::QueueTimeout { waited: now.saturating_sub(waiting.since) }
                };
                effects.push(Effect::Refuse { ticket, refusal });
            }
        }
        self.expire_attachments(now, effects);
        if self.instances.first_deadline().is_none_or(|deadline| deadline > now) {
            return;
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
        self.watch(now, effects);
        self.never_settled(now, effects);
    }

    /// The earliest time at which something is due, boot time.
    fn next_deadline(&mut self, now: u64) -> Option<u64> {
        self.refresh();
        let by_age = |revision: &Revision| revision.policy.max_age.is_some() || revision.sinks_by_time();
        let looks = self.pressed.is_some() || self.revisions.values().any(by_age);
        let each =
            looks.then(|| self.instances.values()).into_iter().flatten().flat_map(|instance| {
                [self.too_old_at(instance), self.offered_at(now, instance), self.sinks_at(instance)]
            });
        let instances = each.chain([self.instances.first_deadline()]);
        let revisions = self.revisions.values().flat_map(|revision| {
            use crate::scaler::Scaler;
            let scales = matches!(revision.role, Role::Serving | Role::Named);
            let scaler = scales.then(|| revision.scaler.next_tick()).flatten();
            [
                revision.queue.next_deadline(),
                scaler,
                revision.backoff.retry_at(),
                revision.returns.map(|(_, until)| until),
            ]
        });
        let provisions = self.provisions.iter().map(ProvisionedTarget::due);
        let attachments = self.attachments.waiting.values().map(|waiting| Some(waiting.deadline));
        instances.chain(revisions).chain(provisions).chain(attachments).flatten().min()
    }

    fn arm(&mut self, now: u64, effects: &mut Vec<Effect>) {
        if let Some(next) = self.next_deadline(now)
            && self.armed.is_none_or(|armed| next < armed)
        {
            self.armed = Some(next);
            effects.push(Effect::WakeAt(next));
        }
    }

    /// The versions there are, in a buffer that is to be put back.
    fn versions(&mut self) -> Vec<VersionId> {
        let mut versions = std::mem::take(&mut self.scratch.versions);
        versions.clear();
        versions.extend(self.revisions.keys().copied());
        versions
    }

    /// Brings the totals of the instances up to date.
    fn refresh(&mut self) {
        self.instances.refresh(&self.revisions);
    }

    fn next_operation(&mut self) -> OperationNumber {
        self.next_operation += 1;
        OperationNumber(self.next_operation)
    }

    /// Moves an instance to another state, tells the log, and tells the placer what that gives back.
    fn change(&mut self, now: u64, id: InstanceId, to: State, why: Reason, effects: &mut Vec<Effect>) {
        debug_assert!(self.instances.contains_key(&id), "{id} becomes {to} and is not there");
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let from = instance.state;
        debug_assert!(now >= instance.since, "{id} goes back in time");
        instance.enter(to, now);
        effects.push(Effect::Changed(Change { instance: id, version: instance.version, from: Some(from), to, why }));
        if to.class() != Class::Hot {
            instance.unready = false;
        }
        // What an instance still works at while it drains is watched as before.
        if to.class() != Class::Hot && to != State::Draining {
            instance.watch = None;
        }
        if let Some(rung) = to.rung() {
            effects.push(Effect::Tell(ToPlacer::Rests { instance: id, rung }));
        }
        if to.class() == Class::Gone {
            effects.push(Effect::Ended(instance.usage(now)));
            self.instances.remove(&id);
            self.placed.retain(|_, placed| placed.on != id);
            self.attachments.placed.retain(|_, on| *on != id);
            effects.push(Effect::Tell(ToPlacer::Release { instance: id }));
        }
    }

    fn gone(&mut self, now: u64, id: InstanceId, gone: EndReason, why: Reason, effects: &mut Vec<Effect>) {
        self.change(now, id, State::Gone(gone), why, effects);
    }

    /// A version's queue as users ask for it: depth and age of the oldest in milliseconds.
    pub fn queue(&self, version: VersionId, now: Now) -> Option<(u32, Option<u64>)> {
        let queue = &self.revisions.get(&version)?.queue;
        Some((queue.depth(), queue.oldest().map(|since| now.boot.saturating_sub(since))))
    }
}
