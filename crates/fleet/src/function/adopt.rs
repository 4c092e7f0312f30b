//! Instances of an earlier server: they go on as they were found.

use std::sync::Arc;

use kip_spec::{InstanceId, VersionId};

use super::{FunctionCore, RequestPlace, Revision, Role};
use crate::instance::Instance;
use crate::why::Reason;
use crate::{Change, Class, Effect, FoundState, Kind, Policy, State, Ticket, ToPlacer};

impl FunctionCore {
    /// Takes over an instance. One of a version that does not serve is let go as if it had just been replaced.
    pub(super) fn adopt(
        &mut self,
        now: u64,
        id: InstanceId,
        version: VersionId,
        policy: Arc<Policy>,
        found: FoundState,
        effects: &mut Vec<Effect>,
    ) {
        if self.instances.contains_key(&id) {
            return;
        }
        let need = policy.need;
        let left = if found.asleep.is_none() { found.busy.min(policy.concurrency.hard) } else { 0 };
        let watch = policy.stall.filter(|_| left > 0).map(|stall| now.saturating_add(stall));
        let until = now.saturating_add(policy.limits.request);
        self.revisions.get_or_insert_with(version, || Revision::new(Role::Retiring, policy, false));
        let kind = if found.provisioned { Kind::Provisioned } else { Kind::OnDemand };
        let mut instance = Instance::adopted(id, version, kind, found.place, now);
        (instance.born, instance.hot_since) = (found.born.min(now), found.born.min(now));
        (instance.in_flight, instance.watch) = (left, watch);
        instance.inherited = (left > 0).then_some((left, until));
        instance.state = match (found.asleep, left) {
            (Some(rung), _) => rung.state(),
            (None, 0) => State::Ready,
            (None, _) => State::Busy,
        };
        let to = instance.state;
        self.instances.insert(id, instance);
        effects.push(Effect::Changed(Change { instance: id, version, from: None, to, why: Reason::Adopted }));
        let (function, place) = (self.number, found.place);
        let rung = to.rung();
        effects.push(Effect::Tell(ToPlacer::Hold { function, instance: id, version, need, place, rung }));
    }

    /// See [`crate::Event::Occupy`].
    pub(super) fn occupy(&mut self, now: u64, ticket: Ticket, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(&id).filter(|instance| instance.state.class() == Class::Hot) else {
            return;
        };
        instance.in_flight += 1;
        instance.settle(now);
        let stall = self.revisions.get(&instance.version).and_then(|revision| revision.policy.stall);
        instance.watch = instance.watch.or_else(|| stall.map(|stall| now.saturating_add(stall)));
        self.placed.insert(ticket, RequestPlace { on: id, since: now });
    }

    /// What an earlier server left on an instance is over.
    pub(super) fn settled(&mut self, now: u64, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let Some((left, _)) = instance.inherited.take() else { return };
        instance.in_flight = instance.in_flight.saturating_sub(left);
        if instance.state == State::Busy {
            instance.settle(now);
        }
    }
}
