//! What the function tells the placer, and what it does when others wait for room: idle instances are offered once they
//! have had their turn, and those that never idle finish their work first.

use kip_spec::InstanceId;

use super::FunctionCore;
use crate::instance::{Goal, Instance};
use crate::placer::{Offer, Urgency};
use crate::room::Gpu;
use crate::why::{EndReason, Reason, Refusal, StartFailure};
use crate::{Class, Effect, Kind, Operate, OperationNumber, Place, Rung, Shortage, State, ToPlacer};

/// An instance serves at least this many times as long as it takes to have it back.
const TURN: u64 = 3;
/// One that works, for this long at least: letting it off costs what it could do meanwhile. Milliseconds.
const BUSY_TURN: u64 = 2_000;
/// And never longer than this while others wait, milliseconds.
const LONGEST_TURN: u64 = 60_000;

impl FunctionCore {
    /// The placer gave room.
    pub(super) fn granted(
        &mut self,
        now: u64,
        id: InstanceId,
        place: Place,
        number: OperationNumber,
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
        instance.waits_for = None;
        match (instance.state, instance.state.rung()) {
            (State::Requested, _) => {
                instance.place = place;
                let limit = self.limits(id).start;
                self.operate(now, id, State::Starting, Operate::Start { place }, limit, Reason::RoomGranted, effects);
            }
            (_, Some(rung)) if instance.wants_room => self.resume(now, id, rung, effects),
            // It does not want to wake any more.
            (_, Some(rung)) => effects.push(Effect::Tell(ToPlacer::Rests { instance: id, rung })),
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

    /// The placer will never have room.
    pub(super) fn refused_room(&mut self, now: u64, id: InstanceId, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id).filter(|instance| instance.state == State::Requested) else {
            return;
        };
        let version = instance.version;
        self.gone(now, id, EndReason::NoRoom, Reason::NoCapacity, effects);
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        while let Some((ticket, _)) = revision.queue.pop() {
            effects.push(Effect::Refuse { ticket, refusal: Refusal::NeverFits { need: revision.policy.need } });
        }
        // Without a pause the minimum would ask again at once, for ever.
        revision.backoff.failed(now, StartFailure::NoRoom);
        revision.backoff.failed(now, StartFailure::NoRoom);
        // A new version that can never fit has failed; else it would ask for ever and never be told of.
        if revision.role == super::Role::Candidate {
            self.candidate_failed(version, StartFailure::NoRoom, effects);
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
        let Some(instance) = self.instances.get_mut(&id) else { return };
        (instance.wants_room, instance.goal) = (false, None);
        let version = instance.version;
        let queued = self.revisions.get(&version).map_or(0, |revision| revision.queue.depth());
        let limits = self.limits(id);
        let limit = if from == Rung::Paused { limits.sleep } else { limits.park };
        let why = Reason::WokenForRequests { queued };
        self.operate(now, id, State::Waking, Operate::Resume { from }, limit, why, effects);
    }

    pub(super) fn press(&mut self, now: u64, stretch: u8) {
        let since = self.pressed.map_or(now, |(since, _)| since);
        self.pressed = Some((since, stretch));
        // Whatever the placer was told before, it is told again.
        self.instances.values_mut().for_each(|instance| instance.offered = None);
    }

    pub(super) fn relax(&mut self) {
        self.pressed = None;
        self.instances.values_mut().for_each(|instance| instance.offered = None);
    }

    /// When an instance may be offered, boot time: never before it has had its turn. `None` if it has nothing to offer.
    fn turn_ends(&self, instance: &Instance) -> Option<u64> {
        let (since, stretch) = self.pressed?;
        let revision = self.revisions.get(&instance.version)?;
        let quiet = instance.goal.is_none() && may_be_left(instance);
        let turn = revision.restore().saturating_mul(TURN).saturating_mul(u64::from(stretch)).min(LONGEST_TURN);
        match instance.state {
            State::Ready | State::Paused | State::Parked | State::Spilled if quiet => {
                Some(instance.hot_since.saturating_add(turn))
            }
            // One that always works is let off, when others have waited for as long as it has served.
            State::Busy if quiet => Some(instance.hot_since.max(since).saturating_add(turn.max(BUSY_TURN))),
            _ => None,
        }
    }

    /// When something is to be offered that is not yet, boot time.
    pub(super) fn offered_at(&self, now: u64, instance: &Instance) -> Option<u64> {
        let busy = instance.state == State::Busy;
        let at = self.turn_ends(instance)?;
        let offered = instance.offered.is_some_and(|offer| offer.busy == busy);
        (!offered && at > now).then_some(at)
    }

    /// Tells the placer what could be given up, and what not any more.
    pub(super) fn offer(&mut self, now: u64, effects: &mut Vec<Effect>) {
        if self.pressed.is_none() {
            return;
        }
        let ids: Vec<InstanceId> = self.instances.keys().copied().collect();
        for id in ids {
            let Some(instance) = self.instances.get(&id) else { continue };
            let offer = self.turn_ends(instance).filter(|at| *at <= now).map(|_| Offer {
                restore: self.revisions.get(&instance.version).map_or(0, |revision| revision.restore()),
                unused_since: instance.last_used,
                busy: instance.state == State::Busy,
                kept: instance.kind == Kind::Provisioned,
            });
            // What changes with every request is not told again and again.
            let same = |a: Option<Offer>, b: Option<Offer>| a.map(|o| (o.busy, o.kept)) == b.map(|o| (o.busy, o.kept));
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

    /// The placer wants an instance's room for somebody else.
    pub(super) fn evict(&mut self, now: u64, id: InstanceId, lack: Shortage, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id) else {
            effects.push(Effect::Tell(ToPlacer::Release { instance: id }));
            return;
        };
        let may = match instance.state {
            State::Ready | State::Pausing => !self.is_replaced(instance),
            State::Busy => instance.offered.is_some_and(|offer| offer.busy),
            state if state.class() == Class::Leaving => return,
            state => state.rung().is_some() && may_be_left(instance),
        };
        if !may || instance.goal.is_some_and(|(goal, _)| goal != Goal::Sleep(Rung::Paused)) {
            effects.push(Effect::Tell(ToPlacer::Declined { instance: id }));
            return;
        }
        let goal = self.goal_for(instance, lack);
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.offered = None;
        }
        self.set_goal(now, id, goal, Reason::Evicted { lack }, effects);
    }

    /// The shallowest rest that gives what is lacked.
    fn goal_for(&self, instance: &Instance, lack: Shortage) -> Goal {
        let Some(revision) = self.revisions.get(&instance.version) else { return Goal::Stop };
        let policy = &revision.policy;
        let sleeps = policy.idle.pause.is_some() || instance.state.class() == Class::Asleep;
        let rung = match () {
            () if lack.quota || revision.role == super::Role::Retiring || !sleeps => None,
            () if lack.memory => policy.rungs.spill.then_some(Rung::Spilled),
            () if lack.gpu && policy.need.gpu != Gpu::None => policy.rungs.park.then_some(Rung::Parked),
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
fn may_be_left(instance: &Instance) -> bool {
    !instance.wants_room || instance.urgency > Urgency::Candidate
}
