//! Hot instances that do not do well: not ready, not alive, stuck.

use kip_spec::InstanceId;

use super::FunctionCore;
use crate::why::{Reason, Refusal};
use crate::{Class, Effect, ProbeFailure};

impl FunctionCore {
    /// The ready probe only gates dispatch. It rests while the instance sleeps.
    pub(super) fn readiness(&mut self, id: InstanceId, ready: bool) {
        if let Some(instance) = self.instances.get_mut(&id)
            && instance.state.class() == Class::Hot
        {
            instance.unready = !ready;
        }
    }

    /// While its body has no touch with an instance, it is as if it were not there: another one takes its place, beyond the maximum
    /// if need be. When it is found there may be one too many, which then goes.
    pub(super) fn touch(&mut self, id: InstanceId, lost: bool) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.lost = lost;
        }
    }

    /// The live probe replaces. An instance that is only slow to answer while it works is left to the watchdog, which
    /// looks at the work itself.
    pub(super) fn unhealthy(&mut self, now: u64, id: InstanceId, how: ProbeFailure, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id) else { return };
        let working = instance.in_flight > 0 && how == ProbeFailure::Slow;
        if instance.state.class() == Class::Hot && !working {
            self.kill(now, id, Reason::NotLive(how), true, effects);
        }
    }

    /// Asks how instances that work get on, if that is due.
    pub(super) fn watch(&mut self, now: u64, effects: &mut Vec<Effect>) {
        for instance in self.instances.values_mut() {
            let stall = self.revisions.get(&instance.version).and_then(|revision| revision.policy.stall);
            if instance.watch.is_none_or(|at| at > now) {
                continue;
            }
            instance.watch = None;
            if let Some(stall) = stall
                && instance.in_flight > 0
            {
                instance.watch = Some(now.saturating_add(stall));
                effects.push(Effect::AskProgress { instance: instance.id });
            }
        }
    }

    /// Work in flight and not a byte for too long: the instance gets no more work and is replaced.
    pub(super) fn progress(&mut self, now: u64, id: InstanceId, last: u64, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let stall = self.revisions.get(&instance.version).and_then(|revision| revision.policy.stall);
        let Some(stall) = stall.filter(|_| instance.watch.is_some() && instance.in_flight > 0) else { return };
        let silent = now.saturating_sub(last);
        if silent >= stall {
            self.kill(now, id, Reason::Stalled { silent }, true, effects);
        } else {
            instance.watch = Some(last.saturating_add(stall).max(now + 1));
        }
    }

    /// What it has to do ends now: nobody waits any more, and nothing is computed.
    pub(super) fn abort(&mut self, now: u64, effects: &mut Vec<Effect>) {
        for revision in self.revisions.values_mut() {
            while let Some((ticket, _)) = revision.queue.pop() {
                effects.push(Effect::Refuse { ticket, refusal: Refusal::Disabled });
            }
        }
        let working: Vec<InstanceId> =
            self.instances.values().filter(|instance| instance.in_flight > 0).map(|instance| instance.id).collect();
        for id in working {
            self.kill(now, id, Reason::Aborted, false, effects);
        }
    }

    /// Requests of an earlier server that last longer than any request may.
    pub(super) fn never_settled(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let overdue = |instance: &crate::instance::Instance| instance.inherited.is_some_and(|(_, until)| until <= now);
        let late: Vec<InstanceId> = self.instances.values().filter(|i| overdue(i)).map(|i| i.id).collect();
        for id in late {
            self.kill(now, id, Reason::NeverSettled, true, effects);
        }
    }
}
