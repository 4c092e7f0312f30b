//! A core made from another one whose step panicked: what is certain is taken over, everything else ends.

use std::collections::BTreeSet;

use super::{FunctionCore, Revision, Role};
use crate::host::Subject;
use crate::instance::{Goal, Operation};
use crate::why::{EndReason, Reason, Refusal};
use crate::{Class, Effect, Now, State, Ticket, ToPlacer};

impl FunctionCore {
    /// The fresh core. `half` is what the failed step wanted done: what was not begun is not begun any more, what was told
    /// stays told.
    pub(crate) fn rebuilt(
        &self,
        now: Now,
        subject: &Subject,
        half: Vec<Effect>,
        quarantined: bool,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let mut core = Self::new(self.boot, self.number, self.next_instance);
        core.next_operation = self.next_operation;
        core.next_offer = self.next_offer;
        core.pressed = self.pressed;
        core.wall = now.wall;
        core.closing = if quarantined { Some((Refusal::Quarantined, Reason::Quarantined)) } else { self.closing };
        if core.closing.is_none() {
            (core.aliases, core.aside) = (self.aliases.clone(), self.aside.clone());
            core.reached = self.provisions.iter().map(|put| (put.qualifier, put.target())).collect();
        }
        let refusal = core.closing.map_or(Refusal::CoreFailed, |(refusal, _)| refusal);
        let ended = settle_half(self.waiting().collect(), subject, half, refusal, effects);
        for (version, revision) in self.revisions.iter() {
            let role = if quarantined { Role::Retiring } else { revision.role };
            let mut fresh = Revision::new(role, revision.policy.clone(), false);
            (fresh.backlog, fresh.backoff) = (revision.backlog, revision.backoff.clone());
            (fresh.costs, fresh.longest) = (revision.costs, revision.longest);
            if core.closing.is_none() {
                (fresh.named_minimum, fresh.called) = (revision.named_minimum, revision.called);
            }
            core.revisions.insert(*version, fresh);
        }
        core.placed =
            self.placed.iter().filter(|(ticket, _)| !ended.contains(*ticket)).map(|(t, p)| (*t, *p)).collect();
        core.attachments.placed = self
            .attachments
            .placed
            .iter()
            .filter(|(ticket, _)| !ended.contains(*ticket))
            .map(|(t, i)| (*t, *i))
            .collect();
        let lost = if let Subject::Instance(instance) = subject { Some(*instance) } else { None };
        for instance in self.instances.values() {
            core.take_over(now.boot, instance.clone(), (lost == Some(instance.id), quarantined), effects);
        }
        let instances = &core.instances;
        core.placed.retain(|_, placed| instances.contains_key(&placed.on));
        core.attachments.placed.retain(|_, on| instances.contains_key(on));
        core
    }

    /// An instance that was at rest or at work goes on; one between two states is ended, since nobody knows which it reached.
    fn take_over(
        &mut self,
        now: u64,
        mut instance: crate::instance::Instance,
        (lost, quarantined): (bool, bool),
        effects: &mut Vec<Effect>,
    ) {
        let ends = lost || quarantined;
        let (id, version, place, state) = (instance.id, instance.version, instance.place, instance.state);
        let Some(need) = self.revisions.get(&version).map(|revision| revision.policy.need) else { return };
        if instance.wants_room {
            effects.push(Effect::Tell(ToPlacer::Cancel { instance: id }));
        }
        let working = self.placed.values().filter(|placed| placed.on == id).count();
        let working = u32::try_from(working).unwrap_or(u32::MAX);
        instance.in_flight = working.saturating_add(instance.inherited.map_or(0, |(left, _)| left));
        let attached = self.attachments.placed.values().filter(|on| **on == id).count();
        instance.attached = u32::try_from(attached).unwrap_or(u32::MAX);
        (instance.operation, instance.wants_room, instance.waits_for) = (None, false, None);
        (instance.goal, instance.offered, instance.slept_on) = (None, None, None);
        if matches!(state, State::Ready | State::Busy) {
            let works = instance.in_flight > 0 || instance.attached > 0;
            let state = if works { State::Busy } else { State::Ready };
            instance.enter(state, now);
        }
        let stall = self.revisions.get(&version).and_then(|revision| revision.policy.stall);
        instance.watch = stall.filter(|_| instance.in_flight > 0).map(|stall| now.saturating_add(stall));
        self.instances.insert(id, instance);
        match state {
            State::Requested => return self.gone(now, id, EndReason::NoRoom, Reason::CoreFailed, effects),
            State::Draining if !ends => {
                let deadline = Some(now.saturating_add(self.limits(id).request));
                let number = self.next_operation();
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.operation = Some(Operation { number, deadline });
                    instance.goal = Some((Goal::Stop, Reason::CoreFailed));
                }
            }
            state if !ends && (state.class() == Class::Hot || state.rung().is_some()) => {}
            _ => {
                // Also where the function was removed: that alone would have let it finish its work.
                let why = if quarantined { Reason::Quarantined } else { Reason::CoreFailed };
                return self.kill(now, id, why, false, effects);
            }
        }
        let (function, rung) = (self.number, state.rung());
        effects.push(Effect::Tell(ToPlacer::Hold { function, instance: id, version, need, place, rung }));
    }
}

/// Repeats what the failed step has told, and refuses who waits. The tickets that hold nothing any more.
pub(crate) fn settle_half(
    waiting: BTreeSet<Ticket>,
    subject: &Subject,
    half: Vec<Effect>,
    refusal: Refusal,
    effects: &mut Vec<Effect>,
) -> BTreeSet<Ticket> {
    let (mut ended, mut refused) = (BTreeSet::new(), waiting);
    for effect in half {
        match effect {
            Effect::Dispatch { ticket, .. } => {
                ended.insert(ticket);
                refused.insert(ticket);
            }
            // Nobody knows of it.
            Effect::Offer { ticket, .. } => drop(ended.insert(ticket)),
            Effect::Refuse { ticket, .. } => {
                ended.insert(ticket);
                effects.push(effect);
            }
            Effect::Operate { .. } | Effect::WakeAt(_) | Effect::AskProgress { .. } => {}
            told => effects.push(told),
        }
    }
    match subject {
        Subject::Arrival(ticket) if !ended.contains(ticket) => drop(refused.insert(*ticket)),
        Subject::Departure(ticket) => {
            ended.insert(*ticket);
            refused.remove(ticket);
        }
        _ => {}
    }
    effects.extend(refused.iter().map(|ticket| Effect::Refuse { ticket: *ticket, refusal }));
    ended.extend(refused);
    ended
}
