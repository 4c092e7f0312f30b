//! Which request goes where: the one queue, late binding, packed or balanced.

use kip_spec::function::Dispatch;
use kip_spec::{InstanceId, VersionId};

use super::{FunctionCore, Role};
use crate::instance::Instance;
use crate::why::Refusal;
use crate::{Class, Effect, StartKind, State, Ticket};

impl FunctionCore {
    /// A request arrives. True if that was all: it went to a hot instance or was refused.
    pub(super) fn arrive(&mut self, now: u64, ticket: Ticket, effects: &mut Vec<Effect>) -> bool {
        let refuse = |refusal, effects: &mut Vec<Effect>| {
            effects.push(Effect::Refuse { ticket, refusal });
            true
        };
        if let Some((refusal, _)) = self.closing {
            return refuse(refusal, effects);
        }
        let Some((version, revision)) = self.revisions.iter().find(|(_, revision)| revision.role == Role::Serving)
        else {
            return refuse(Refusal::Removed, effects);
        };
        let version = *version;
        if revision.queue.is_empty()
            && let Some(instance) = self.free_instance(version)
        {
            self.place(now, ticket, instance, StartKind::Warm, effects);
            return !self.wants_more(version);
        }
        let depth = revision.queue.depth();
        if depth >= revision.policy.queue_depth {
            return refuse(Refusal::QueueFull { depth }, effects);
        }
        self.enqueue(now, version, ticket);
        false
    }

    /// A request leaves, from the queue or from an instance. True if that was all.
    pub(super) fn leave(&mut self, now: u64, ticket: Ticket, effects: &mut Vec<Effect>) -> bool {
        let Some(id) = self.placed.remove(&ticket) else {
            let was_waiting = self.revisions.values_mut().any(|revision| revision.queue.remove(ticket).is_some());
            return !was_waiting;
        };
        let Some(instance) = self.instances.get_mut(&id) else { return true };
        instance.in_flight = instance.in_flight.saturating_sub(1);
        if instance.state.class() != Class::Hot {
            instance.last_used = now;
            return false;
        }
        instance.settle(now);
        let (version, idle) = (instance.version, instance.state == State::Ready);
        let Some(revision) = self.revisions.get(&version) else { return false };
        if revision.role != Role::Serving || !revision.queue.is_empty() {
            self.drain_queue(now, version, effects);
            return false;
        }
        if !idle {
            return true;
        }
        // A timer that fires in time anyway is left alone: this is what keeps a hot request free of timers.
        let rest =
            [revision.policy.idle.pause, revision.policy.idle.stop].into_iter().flatten().map(|limit| limit.0).min();
        match (rest, self.armed) {
            (None, _) => true,
            (Some(rest), Some(armed)) => armed <= now.saturating_add(rest),
            (Some(_), None) => false,
        }
    }

    /// Gives waiting requests to free instances, oldest first.
    pub(super) fn drain_queue(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) {
        while self.revisions.get(&version).is_some_and(|revision| !revision.queue.is_empty()) {
            let Some(instance) = self.free_instance(version) else { return };
            let Some(revision) = self.revisions.get_mut(&version) else { return };
            let Some((ticket, waiting)) = revision.queue.pop() else { return };
            let became_hot_since = self.instances.get(&instance).filter(|instance| instance.hot_since >= waiting.since);
            let start = became_hot_since.map_or(StartKind::Warm, |instance| instance.hot_from);
            self.place(now, ticket, instance, start, effects);
        }
    }

    fn place(&mut self, now: u64, ticket: Ticket, id: InstanceId, start: StartKind, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.in_flight += 1;
        instance.served += 1;
        instance.settle(now);
        self.placed.insert(ticket, id);
        effects.push(Effect::Dispatch { ticket, instance: id, start });
    }

    /// The instance that the next request should go to.
    fn free_instance(&self, version: VersionId) -> Option<InstanceId> {
        let policy = &self.revisions.get(&version)?.policy;
        let (hard, soft) = (policy.concurrency.hard, policy.concurrency.soft);
        let hot = || {
            self.instances.values().filter(move |instance| {
                instance.version == version && instance.state.class() == Class::Hot && instance.in_flight < hard
            })
        };
        let least_loaded = |instance: &&Instance| (instance.in_flight, instance.last_used, instance.id);
        match policy.dispatch {
            Dispatch::Packed => hot()
                .find(|instance| instance.in_flight < soft)
                .or_else(|| hot().min_by_key(|instance| (instance.in_flight, instance.id))),
            Dispatch::Balanced => hot().min_by_key(least_loaded),
        }
        .map(|instance| instance.id)
    }

    /// Whether the version is past its soft limit everywhere, so that the scaler should be asked.
    fn wants_more(&self, version: VersionId) -> bool {
        let Some(revision) = self.revisions.get(&version) else { return false };
        let soft = revision.policy.concurrency.soft;
        if soft == revision.policy.concurrency.hard {
            return false;
        }
        let mut hot = self.instances.values().filter(|i| i.version == version && i.state.class() == Class::Hot);
        hot.all(|instance| instance.in_flight > soft)
    }
}
