//! Which request goes where: the one queue, late binding, packed or balanced.

use kip_spec::function::Dispatch;
use kip_spec::{InstanceId, VersionId};

use super::instances::stack_order;
use super::{FunctionCore, RequestPlace, Role};
use crate::alias::Pointer;
use crate::instance::Instance;
use crate::queue::QueuedRequest;
use crate::why::Refusal;
use crate::{Call, Class, Effect, Kind, Qualifier, StartKind, State, Ticket};

impl FunctionCore {
    /// A request arrives. True if that was all: it went to a hot instance or was refused.
    pub(super) fn arrive(&mut self, now: u64, ticket: Ticket, call: Call, effects: &mut Vec<Effect>) -> bool {
        let refuse = |refusal, effects: &mut Vec<Effect>| {
            effects.push(Effect::Refuse { ticket, refusal });
            true
        };
        if let Some((refusal, _)) = self.closing {
            return refuse(refusal, effects);
        }
        let (version, pinned) = match self.resolve(call) {
            Ok(resolved) => resolved,
            Err(refusal) => return refuse(refusal, effects),
        };
        let Some(revision) = self.revisions.get_mut(&version) else { return refuse(Refusal::NoVersion, effects) };
        revision.arrivals = revision.arrivals.wrapping_add(1);
        let nobody_waits = revision.queue.is_empty();
        if nobody_waits && let Some(instance) = self.free_instance(version) {
            self.put(now, ticket, instance, StartKind::Warm, effects);
            return self.needs_no_timer(now, instance) && !self.wants_more(version);
        }
        let Some(revision) = self.revisions.get(&version) else { return refuse(Refusal::NoVersion, effects) };
        let depth = revision.queue.depth();
        if depth >= revision.policy.queue_depth {
            return refuse(Refusal::QueueFull { depth }, effects);
        }
        let patience = call.patience.unwrap_or(u64::MAX).min(revision.policy.queue_timeout);
        let waiting = QueuedRequest {
            since: now,
            deadline: now.saturating_add(patience),
            priority: call.priority,
            pinned,
            by: match call.to {
                Qualifier::Alias(alias) => Some(alias),
                _ => None,
            },
            caller: call.caller,
        };
        if let Some(revision) = self.revisions.get_mut(&version) {
            revision.queue.push(ticket, waiting);
        }
        false
    }

    /// The version that a request is for, and whether no other may serve it.
    pub(super) fn resolve(&mut self, Call { to, caller, .. }: Call) -> Result<(VersionId, bool), Refusal> {
        let takes = |role: Role| matches!(role, Role::Serving | Role::Named);
        let pointer = match to {
            Qualifier::Latest => Pointer::Latest,
            Qualifier::Version(version) => {
                let known = self.revisions.get(&version).is_some_and(|revision| takes(revision.role));
                return if known { Ok((version, true)) } else { Err(Refusal::NoVersion) };
            }
            Qualifier::Alias(alias) => {
                let alias = self.aliases.get_mut(&alias);
                alias.and_then(|alias| alias.next(caller)).ok_or(Refusal::NoVersion)?
            }
        };
        match pointer {
            Pointer::Version(version) => Ok((version, true)),
            Pointer::Latest => Ok((self.serving().ok_or(Refusal::Removed)?, false)),
        }
    }

    /// The version that serves.
    pub(super) fn serving(&self) -> Option<VersionId> {
        let serving = self.revisions.iter().find(|(_, revision)| revision.role == Role::Serving);
        serving.map(|(version, _)| *version)
    }

    /// A request leaves, from the queue or from an instance. True if that was all.
    pub(super) fn leave(&mut self, now: u64, ticket: Ticket, effects: &mut Vec<Effect>) -> bool {
        let Some(placed) = self.placed.remove(&ticket) else {
            if self.detach(now, ticket) {
                return false;
            }
            let was_waiting = self.revisions.values_mut().any(|revision| revision.queue.remove(ticket).is_some());
            return !was_waiting;
        };
        let Some(instance) = self.instances.get_mut(&placed.on) else { return true };
        debug_assert!(instance.in_flight > 0, "{ticket:?} leaves {}, which has nothing", placed.on);
        instance.in_flight = instance.in_flight.saturating_sub(1);
        let version = instance.version;
        let Some(revision) = self.revisions.get_mut(&version) else { return false };
        let served = now.saturating_sub(placed.since);
        revision.longest = revision.longest.max(served);
        revision.scaler.served(served);
        if instance.state.class() != Class::Hot {
            instance.last_used = now;
            return false;
        }
        instance.settle(now);
        let idle = instance.state == State::Ready;
        let serves = matches!(revision.role, Role::Serving | Role::Named);
        let waiting = !revision.queue.is_empty() || revision.backlog.count > 0;
        if !serves || waiting || revision.rotation.is_some() {
            self.drain_queue(now, version, effects);
            return false;
        }
        if !idle {
            return true;
        }
        self.refresh();
        let Some(revision) = self.revisions.get(&version) else { return false };
        // A timer that fires in time anyway is left alone: this is what keeps a hot request free of timers.
        let rest =
            [revision.policy.idle.pause, revision.policy.idle.stop].into_iter().flatten().map(|limit| limit.0).min();
        let own = usize::try_from(self.instances.totals(version).count).unwrap_or(usize::MAX);
        // Its maximum may have been lowered while it was busy.
        let too_many = own > usize::try_from(revision.maximum()).unwrap_or(usize::MAX)
            || revision.scaler.applied().is_some_and(|wanted| own > usize::try_from(wanted).unwrap_or(usize::MAX))
            || self.instances.get(&placed.on).is_some_and(|instance| instance.released);
        !too_many && self.pressed.is_none() && rest.is_none_or(|rest| self.fires_before(now.saturating_add(rest)))
    }

    /// Gives waiting requests to free instances, in their order, and places to tasks in theirs.
    pub(super) fn drain_queue(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) {
        loop {
            if self.offer_place(now, version, effects) {
                continue;
            }
            if self.revisions.get(&version).is_none_or(|revision| revision.queue.is_empty()) {
                return;
            }
            let Some(instance) = self.free_instance(version) else { return };
            self.serve_next(now, version, instance, effects);
        }
    }

    fn serve_next(&mut self, now: u64, version: VersionId, instance: InstanceId, effects: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        let Some((ticket, waiting)) = revision.queue.pop() else { return };
        let became_hot_since = self.instances.get(&instance).filter(|instance| instance.hot_since >= waiting.since);
        let start = became_hot_since.map_or(StartKind::Warm, |instance| instance.hot_from);
        self.put(now, ticket, instance, start, effects);
    }

    pub(super) fn put(
        &mut self,
        now: u64,
        ticket: Ticket,
        id: InstanceId,
        start: StartKind,
        effects: &mut Vec<Effect>,
    ) {
        debug_assert!(
            self.instances.get(&id).is_some_and(|instance| instance.state.class() == Class::Hot && !instance.unready),
            "{ticket:?} goes to {id}, which cannot serve"
        );
        self.note_gap(now, id);
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.in_flight += 1;
        instance.served += 1;
        instance.settle(now);
        if instance.watch.is_none()
            && let Some(stall) = self.revisions.get(&instance.version).and_then(|revision| revision.policy.stall)
        {
            instance.watch = Some(now.saturating_add(stall));
        }
        self.placed.insert(ticket, RequestPlace { on: id, since: now });
        effects.push(Effect::Dispatch { ticket, instance: id, start });
    }

    /// Whether giving work to an instance has made nothing due that the timer does not know of.
    fn needs_no_timer(&self, now: u64, id: InstanceId) -> bool {
        let watch = self.instances.get(&id).and_then(|instance| instance.watch);
        self.pressed.is_none() && watch.is_none_or(|watch| self.fires_before(watch.max(now)))
    }

    fn fires_before(&self, at: u64) -> bool {
        self.armed.is_some_and(|armed| armed <= at)
    }

    /// The instance that the next request should go to.
    pub(super) fn free_instance(&mut self, version: VersionId) -> Option<InstanceId> {
        self.refresh();
        let totals = self.instances.totals(version);
        if totals.hot == totals.unready {
            return None;
        }
        let policy = &self.revisions.get(&version)?.policy;
        let (hard, soft) = (policy.concurrency.hard, policy.concurrency.soft);
        let free = || {
            self.instances.values().filter(move |instance| {
                instance.version == version
                    && instance.state.class() == Class::Hot
                    && instance.in_flight < hard
                    && !instance.unready
                    && !instance.lost
            })
        };
        let provisions = !self.provisions.is_empty();
        match policy.dispatch {
            Dispatch::Packed => match totals.first_free() {
                Some(below_soft) => return Some(below_soft),
                None if soft >= hard => None,
                None => free().min_by_key(|instance| (instance.in_flight, stack_order(instance))),
            },
            Dispatch::Balanced => {
                // What is provisioned serves first; what was started beside it takes the rest.
                let beside = |instance: &Instance| provisions && instance.kind == Kind::OnDemand;
                free().min_by_key(|i| (beside(i), i.in_flight, i.last_used, i.id))
            }
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
