//! Replacing instances though nothing is wrong with them: the successor first, one at a time.
//!
//! An instance that is being replaced goes on serving but is no longer counted, so that reconciling makes its successor as
//! it makes any other instance. When somebody else is hot, or nobody is wanted, it goes. Where there is no room for both,
//! it goes first.

use kip_spec::{InstanceId, VersionId};

use super::{FunctionCore, Role};
use crate::instance::{Goal, Instance};
use crate::scaler::Desired;
use crate::why::{EndReason, Reason};
use crate::{Class, Effect, State};

impl FunctionCore {
    /// Every instance there is of versions that stay is to be replaced.
    pub(super) fn mark_all(&mut self, why: Reason) {
        let ids: Vec<InstanceId> = self.instances.keys().copied().collect();
        ids.into_iter().for_each(|id| self.mark(id, why));
    }

    pub(super) fn mark(&mut self, id: InstanceId, why: Reason) {
        if let Some(instance) = self.instances.get_mut(&id)
            && (matches!(instance.state.class(), Class::Hot | Class::Asleep) || instance.state == State::Waking)
        {
            instance.replace.get_or_insert(why);
        }
    }

    /// When an instance gets too old, boot time.
    pub(super) fn too_old_at(&self, instance: &Instance) -> Option<u64> {
        let revision = self.revisions.get(&instance.version)?;
        let age = revision.policy.max_age.filter(|_| revision.role != Role::Retiring)?;
        let aside = self.is_aside(instance.version);
        let takes_part =
            !aside && instance.replace.is_none() && matches!(instance.state.class(), Class::Hot | Class::Asleep);
        takes_part.then(|| instance.born.saturating_add(age))
    }

    /// Whether an instance is the one that is being replaced.
    pub(super) fn is_replaced(&self, instance: &Instance) -> bool {
        let revision = self.revisions.get(&instance.version);
        revision.and_then(|revision| revision.rotation).is_some_and(|(old, _)| old == instance.id)
    }

    /// Before instances are counted: chooses whom to replace, and lets it go if its successor is there.
    pub(super) fn begin_rotation(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) {
        self.refresh();
        let replaced = self.instances.totals(version).replaced > 0;
        let rotates = |revision: &super::Revision| revision.policy.max_age.is_some() || revision.rotation.is_some();
        if !replaced && !self.revisions.get(&version).is_some_and(rotates) {
            return;
        }
        let due: Vec<(InstanceId, u64)> = self
            .instances
            .values()
            .filter(|instance| instance.version == version && self.too_old_at(instance).is_some_and(|at| at <= now))
            .map(|instance| (instance.id, now.saturating_sub(instance.born)))
            .collect();
        due.into_iter().for_each(|(id, age)| self.mark(id, Reason::TooOld { age }));

        let Some(revision) = self.revisions.get_mut(&version) else { return };
        if revision.role == Role::Retiring {
            revision.rotation = None;
            return;
        }
        // One at a time: the one before must be gone.
        let before = |instance: &Instance| {
            instance.version == version && instance.replace.is_some() && instance.state.class() == Class::Leaving
        };
        if self.instances.values().any(before) {
            revision.rotation = None;
            return;
        }
        // A sleeper that requests wait for is woken first and replaced later.
        let calm = revision.queue.is_empty();
        let settled = |instance: &&Instance| {
            instance.version == version
                && instance.goal.is_none()
                && (instance.state.class() == Class::Hot
                    || calm && instance.state.rung().is_some() && !instance.wants_room)
        };
        revision.rotation =
            revision.rotation.filter(|(old, _)| self.instances.get(old).as_ref().is_some_and(settled)).or_else(|| {
                let next = self.instances.values().filter(settled).find(|instance| instance.replace.is_some())?;
                Some((next.id, now))
            });
        let Some((old, since)) = revision.rotation else { return };
        let successor = self.instances.values().find(|instance| {
            instance.version == version
                && instance.id != old
                && instance.state.class() == Class::Hot
                && !instance.unready
                && !instance.lost
                && instance.replace.is_none()
                && instance.hot_since >= since
        });
        if let Some(successor) = successor.map(|instance| instance.id) {
            self.inherit_rest(old, successor);
            self.set_goal(now, old, Goal::Stop, Reason::Succeeded, effects);
            self.end_rotation(version);
        }
    }

    /// After what is missing was started: lets the old one go if nobody is to follow, or if both have no room.
    pub(super) fn continue_rotation(
        &mut self,
        now: u64,
        version: VersionId,
        desired: Desired,
        effects: &mut Vec<Effect>,
    ) {
        let Some(revision) = self.revisions.get(&version) else { return };
        let Some((old, _)) = revision.rotation else { return };
        let blocked = revision.backoff.blocks(now).is_some();
        let comes = |instance: &&Instance| {
            let moves = instance.state.class() == Class::Starting || instance.wants_room;
            instance.version == version && instance.id != old && moves
        };
        let (mut any, mut moves, mut stranded) = (false, false, None);
        for instance in self.instances.values().filter(comes) {
            any = true;
            moves |= instance.waits_for.is_none();
            if instance.state == State::Requested {
                stranded = stranded.or(Some(instance.id));
            }
        }
        if moves {
            return;
        }
        if let Some(next) = stranded {
            self.gone(now, next, EndReason::NoRoom, Reason::ReplacedInPlace, effects);
        }
        if any {
            // Where only a sleeper waits, it takes the room that the old one leaves.
            self.set_goal(now, old, Goal::Stop, Reason::ReplacedInPlace, effects);
            self.end_rotation(version);
        } else if !blocked && !self.lacks_somebody(version, desired) {
            // Nobody is wanted, rather than nobody could be made now.
            let why = self.instances.get(&old).and_then(|instance| instance.replace).unwrap_or(Reason::Rotated);
            self.set_goal(now, old, Goal::Stop, why, effects);
            self.end_rotation(version);
        }
    }

    /// One that has not worked yet rests for as long as the one before: else what grows old would never sleep.
    fn inherit_rest(&mut self, old: InstanceId, successor: InstanceId) {
        let last_used = self.instances.get(&old).map(|old| old.last_used);
        if let (Some(successor), Some(last_used)) = (self.instances.get_mut(&successor), last_used)
            && successor.served == 0
        {
            successor.last_used = last_used;
        }
    }

    fn end_rotation(&mut self, version: VersionId) {
        if let Some(revision) = self.revisions.get_mut(&version) {
            revision.rotation = None;
        }
    }
}
