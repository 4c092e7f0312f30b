//! What the function tells the placer, and what it does when others wait for room: idle instances are offered, and those
//! that never idle finish their work first. When, is in [`super::turn`].

use kip_spec::function::FunctionPriority;
use kip_spec::{InstanceId, VersionId};

use super::FunctionCore;
use crate::instance::{Goal, Instance};
use crate::placer::{Offer, Urgency};
use crate::room::Gpu;
use crate::why::{EndReason, Reason, Refusal, StartFailure};
use crate::{Class, CoreNumber, Effect, Kind, Now, Operate, OperationNumber, Place, Rung, Shortage, State, ToPlacer};

impl FunctionCore {
    /// The placer gave room.
    pub(super) fn granted(
        &mut self,
        now: u64,
        id: InstanceId,
        place: Place,
        (number, from): (OperationNumber, Option<CoreNumber>),
        effects: &mut Vec<Effect>,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else {
            // It was withdrawn meanwhile.
            effects.push(Effect::Tell(ToPlacer::Release { instance: id }));
            return;
        };
        if instance.ask != number {
            // It answers an earlier ask; the answer to the present one follows.
            return;
        }
        let why = match instance.waits_for.take() {
            Some(lack) => Reason::RoomAfter { waited: now.saturating_sub(instance.since), lack, from },
            None => Reason::RoomGranted,
        };
        match (instance.state, instance.state.rung()) {
            (State::Requested, _) => {
                instance.place = place;
                let limit = self.limits(id).start;
                self.operate(now, id, State::Starting, Operate::Start { place }, limit, why, effects);
            }
            (_, Some(rung)) if instance.wants_room => self.resume(now, id, rung, effects),
            // It does not want to wake any more. The grant has ended its offer: it is made again.
            (_, Some(rung)) => {
                instance.offered = None;
                effects.push(Effect::Tell(ToPlacer::Rests { instance: id, rung }));
            }
            _ => {}
        }
    }

    /// There is no room now.
    pub(super) fn waits_for_room(&mut self, id: InstanceId, lack: Shortage) {
        if let Some(instance) = self.instances.get_mut(&id)
            && (instance.state == State::Requested || instance.wants_room)
        {
            instance.waits_for = Some(lack);
        }
    }

    /// A device may be yielded for hours: requests that wait for nothing else are told so at once.
    pub(super) fn refuse_for_yielded(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.refresh();
        for (version, revision) in self.revisions.iter_mut().filter(|(_, revision)| !revision.queue.is_empty()) {
            if self.instances.totals(*version).lacking == 0 {
                continue;
            }
            let own = || self.instances.values().filter(|instance| instance.version == *version);
            let yielded = |instance: &Instance| instance.waits_for.and_then(|lack| lack.yielded);
            let waits = |instance: &Instance| instance.state == State::Requested || instance.wants_room;
            let lives =
                |instance: &Instance| matches!(instance.state.class(), Class::Hot | Class::Starting | Class::Asleep);
            let hopes = own().any(|instance| lives(instance) && !(waits(instance) && yielded(instance).is_some()));
            let Some(until) = own().filter(|instance| waits(instance)).find_map(yielded).filter(|_| !hopes) else {
                continue;
            };
            let left = (until < u64::MAX).then(|| until.saturating_sub(now));
            while let Some((ticket, _)) = revision.queue.pop() {
                effects.push(Effect::Refuse { ticket, refusal: Refusal::DeviceYielded { left } });
            }
        }
    }

    fn need_of(&self, version: VersionId) -> crate::RoomNeed {
        self.revisions.get(&version).map(|revision| revision.policy.need).unwrap_or_default()
    }

    /// An instance that uses more than its share finishes its requests and ends. No successor beside it: that would use as much.
    pub(super) fn overused(&mut self, now: u64, id: InstanceId, effects: &mut Vec<Effect>) {
        let settled = |instance: &&Instance| {
            instance.goal.is_none() && (instance.state.class() == Class::Hot || instance.state.rung().is_some())
        };
        if self.instances.get(&id).filter(settled).is_some() {
            self.set_goal(now, id, Goal::Stop, Reason::OverusesDevice, effects);
        }
    }

    /// Instances of a version need so much of a device from now on: it was measured.
    pub(super) fn resize(&mut self, version: VersionId, gpu: Gpu, effects: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get_mut(&version).filter(|revision| revision.policy.need.gpu != gpu) else {
            return;
        };
        std::sync::Arc::make_mut(&mut revision.policy).need.gpu = gpu;
        let own = self.instances.values().filter(|instance| instance.version == version);
        effects.extend(own.map(|instance| Effect::Tell(ToPlacer::Resize { instance: instance.id, gpu })));
    }

    /// The placer will never have room.
    pub(super) fn refused_room(&mut self, now: u64, id: InstanceId, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id).filter(|instance| instance.state == State::Requested) else {
            return;
        };
        let version = instance.version;
        self.gone(now, id, EndReason::NoRoom, Reason::NoCapacity, effects);
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        revision.returns = None;
        while let Some((ticket, _)) = revision.queue.pop() {
            effects.push(Effect::Refuse { ticket, refusal: Refusal::NeverFits { need: revision.policy.need } });
        }
        self.refuse_attachments(Some(version), Refusal::NeverFits { need: self.need_of(version) }, effects);
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        // Without a pause the minimum would ask again at once, for ever.
        revision.backoff.failed(now, StartFailure::NoRoom);
        revision.backoff.failed(now, StartFailure::NoRoom);
        // A new version that can never fit has failed; else it would ask for ever and never be told of.
        if revision.role == super::Role::Candidate {
            self.candidate_failed(now, version, StartFailure::NoRoom, effects);
        }
    }

    /// Wakes a sleeper, or asks for the room it lacks for that.
    pub(super) fn wake(&mut self, now: u64, id: InstanceId, urgency: Urgency, effects: &mut Vec<Effect>) {
        let Some((version, rung)) =
            self.instances.get(&id).and_then(|instance| Some((instance.version, instance.state.rung()?)))
        else {
            return;
        };
        let Some(need) = self.revisions.get(&version).map(|revision| revision.policy.need) else { return };
        if need.kept_on(rung) == need {
            self.resume(now, id, rung, effects);
            return;
        }
        let number = self.next_operation();
        if let Some(instance) = self.instances.get_mut(&id) {
            (instance.wants_room, instance.urgency, instance.ask) = (true, urgency, number);
            let ask = ToPlacer::Ask { function: self.number, instance: id, version, need, urgency, number };
            effects.push(Effect::Tell(ask));
        }
    }

    /// A sleeper that waits for room to wake is not wanted any more.
    pub(super) fn let_sleep(&mut self, id: InstanceId, effects: &mut Vec<Effect>) {
        if let Some(instance) = self.instances.get_mut(&id) {
            (instance.wants_room, instance.waits_for) = (false, None);
            effects.push(Effect::Tell(ToPlacer::Cancel { instance: id }));
        }
    }

    fn resume(&mut self, now: u64, id: InstanceId, from: Rung, effects: &mut Vec<Effect>) {
        let asked = self.instances.get(&id).is_some_and(|i| self.is_awaited(i) || self.attachments_wait(i.version));
        let Some(instance) = self.instances.get_mut(&id) else { return };
        (instance.wants_room, instance.goal) = (false, None);
        let version = instance.version;
        let revision = self.revisions.get(&version);
        let (queued, expects) = revision.map_or((0, None), |revision| (revision.queue.depth(), revision.expects));
        let limits = self.limits(id);
        let limit = if from == Rung::Paused { limits.sleep } else { limits.park };
        let why = match expects.filter(|_| queued == 0) {
            Some(every) if !asked => Reason::RequestsExpected { every },
            _ if queued == 0 && asked => Reason::AskedFor,
            _ => Reason::WokenForRequests { queued },
        };
        self.operate(now, id, State::Waking, Operate::Resume { from }, limit, why, effects);
    }

    /// Tells the placer what could be given up, and what not any more.
    pub(super) fn offer(&mut self, now: u64, effects: &mut Vec<Effect>) {
        if self.pressed.is_none() {
            return;
        }
        let ids: Vec<InstanceId> = self.instances.keys().copied().collect();
        for id in ids {
            let Some(instance) = self.instances.get(&id) else { continue };
            let restore = self.revisions.get(&instance.version).map_or(0, |revision| revision.restore());
            let offer = self.turn(instance).filter(|turn| turn.from <= now).map(|turn| Offer {
                restore: if turn.unwanted { 0 } else { restore },
                unused_since: instance.last_used,
                busy: instance.state == State::Busy,
                kept: instance.kind == Kind::Provisioned,
                early: turn.ends > now,
            });
            // What changes with every request is not told again and again.
            let told = |offer: Offer| (offer.busy, offer.kept, offer.early);
            let same = |a: Option<Offer>, b: Option<Offer>| a.map(told) == b.map(told);
            let Some(instance) = self.instances.get_mut(&id) else { continue };
            if same(instance.offered, offer) {
                continue;
            }
            instance.offered = offer;
            let message = match offer {
                Some(offer) => ToPlacer::Offer { instance: id, offer },
                None => ToPlacer::Withdraw { instance: id },
            };
            effects.push(Effect::Tell(message));
        }
    }

    /// How an instance ranks among those that could be evicted now: busy ones and kept ones come later, then those of a higher priority,
    /// then the larger expected loss. None for one that is not evicted.
    pub fn eviction_rank(&self, now: Now, id: InstanceId) -> Option<(bool, bool, FunctionPriority, u64)> {
        let instance = self.instances.get(&id).filter(|i| i.attached == 0 && !self.holds_on(i))?;
        let revision = self.revisions.get(&instance.version);
        let restore = revision.map_or(0, |revision| revision.restore());
        let priority = revision.map(|revision| revision.policy.need.priority).unwrap_or_default();
        let busy = match instance.state {
            State::Busy => true,
            State::Ready | State::Paused | State::Parked | State::Spilled if instance.goal.is_none() => false,
            _ => return None,
        };
        let kept = instance.kind == Kind::Provisioned;
        let offer = Offer { restore, unused_since: instance.last_used, busy, kept, early: false };
        Some((busy, kept, priority, offer.loss(now.boot)))
    }

    /// The placer wants an instance's room for somebody else.
    pub(super) fn evict(
        &mut self,
        now: u64,
        id: InstanceId,
        lack: Shortage,
        by: Option<CoreNumber>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(instance) = self.instances.get(&id) else {
            effects.push(Effect::Tell(ToPlacer::Release { instance: id }));
            return;
        };
        let yielded = lack.yielded.is_some();
        let why = if yielded { Reason::DeviceYielded } else { Reason::Evicted { lack, by } };
        let starts = matches!(instance.state, State::Starting | State::Initializing);
        if starts && (yielded || self.is_unwanted(instance)) {
            return self.kill(now, id, why, false, effects);
        }
        let may = match instance.state {
            State::Ready | State::Pausing => yielded || !self.is_replaced(instance),
            State::Busy => yielded || instance.offered.is_some_and(|offer| offer.busy),
            state if state.class() == Class::Leaving => return,
            state => state.rung().is_some() && (yielded || may_be_left(instance)),
        };
        // Its own successor starts when it has ended.
        let holds = self.holds_on(instance) && !(by == Some(self.number) && self.candidate_waits(instance.version));
        let may = may && (yielded || instance.attached == 0 && !holds);
        if !may || instance.goal.is_some_and(|(goal, _)| goal != Goal::Sleep(Rung::Paused)) {
            effects.push(Effect::Tell(ToPlacer::Declined { instance: id }));
            return;
        }
        let goal = self.goal_for(instance, lack);
        self.expected_in_vain(now, id);
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.offered = None;
        }
        self.set_goal(now, id, goal, why, effects);
    }

    /// The shallowest rest that gives what is lacked.
    fn goal_for(&self, instance: &Instance, lack: Shortage) -> Goal {
        let Some(revision) = self.revisions.get(&instance.version) else { return Goal::Stop };
        let policy = &revision.policy;
        let sleeps = policy.idle.pause.is_some() || instance.state.class() == Class::Asleep;
        let rung = match () {
            () if lack.quota || lack.port || revision.role == super::Role::Retiring || !sleeps => None,
            () if lack.memory => revision.offers(Rung::Spilled).then_some(Rung::Spilled),
            () if lack.gpu && policy.need.gpu != Gpu::None => revision.offers(Rung::Parked).then_some(Rung::Parked),
            () if lack.cpu => Some(Rung::Paused),
            () => None,
        };
        match rung {
            // It is there already and that did not help.
            Some(rung) if instance.state.rung().is_some_and(|rests| rests >= rung) => Goal::Stop,
            Some(rung) => Goal::Sleep(rung),
            None => Goal::Stop,
        }
    }
}

/// Whether a sleeper may be asked for what it holds: one that waits for room itself only where no request waits for it, for
/// else two that wait could each hold what the other needs.
pub(super) fn may_be_left(instance: &Instance) -> bool {
    !instance.wants_room || instance.urgency > Urgency::Candidate
}
