//! Rungs below paused: when an idle instance goes down by itself, and when a version may not use them any more.

use kip_spec::{InstanceId, VersionId};

use super::{FunctionCore, Role};
use crate::effect::Effect;
use crate::instance::{Goal, Instance};
use crate::state::{Rung, State};
use crate::why::Reason;

impl FunctionCore {
    /// Instances whose time without a request is past `idle.park` or `idle.spill` go one rung down.
    pub(super) fn sink(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) {
        if !self.revisions.get(&version).is_some_and(super::Revision::sinks_by_time) {
            return;
        }
        let own = self.instances.values().filter(|instance| instance.version == version);
        let due: Vec<(InstanceId, Rung)> =
            own.filter_map(|i| self.sinks(i).filter(|(at, _)| *at <= now).map(|(_, rung)| (i.id, rung))).collect();
        for (id, rung) in due {
            let idle = self.instances.get(&id).map_or(0, |instance| now.saturating_sub(instance.last_used));
            let why = if rung == Rung::Spilled { Reason::IdleForSpill { idle } } else { Reason::IdleForPark { idle } };
            self.set_goal(now, id, Goal::Sleep(rung), why, effects);
        }
    }

    /// When an instance goes down by itself, boot time.
    pub(super) fn sinks_at(&self, instance: &Instance) -> Option<u64> {
        self.sinks(instance).map(|(at, _)| at)
    }

    fn sinks(&self, instance: &Instance) -> Option<(u64, Rung)> {
        let revision = self.revisions.get(&instance.version)?;
        let aside = self.is_aside(instance.version);
        if instance.goal.is_some()
            || instance.wants_room
            || aside
            || revision.role == Role::Retiring
            || self.closing.is_some()
        {
            return None;
        }
        let (rung, used) = match instance.state {
            State::Paused => (Rung::Parked, revision.policy.idle.park),
            State::Parked => (Rung::Spilled, revision.policy.idle.spill),
            _ => return None,
        };
        let after = used.after().filter(|_| revision.offers(rung))?;
        Some((instance.last_used.saturating_add(after.0).max(instance.pause_not_before), rung))
    }

    /// A freeze or a wake below paused ended so; after several failures in a row its version does not use these rungs any more.
    pub(super) fn note_rung(&mut self, version: VersionId, well: bool, effects: &mut Vec<Effect>) {
        if self.revisions.get_mut(&version).is_some_and(|revision| revision.note_rung(well)) {
            effects.push(Effect::RungsDisabled { version });
        }
    }

    /// Whether an instance keeps its room for others: it is pinned, or it could not be back in time.
    pub(super) fn holds_on(&self, instance: &Instance) -> bool {
        let Some(revision) = self.revisions.get(&instance.version) else { return false };
        let late = || revision.policy.wake.is_some_and(|limit| revision.restore() > limit);
        revision.role != Role::Retiring && self.closing.is_none() && (revision.policy.pinned || late())
    }

    /// Whether an instance is not even offered: it keeps its room, and no new version of its own function waits for that.
    pub(super) fn withholds(&self, instance: &Instance) -> bool {
        self.holds_on(instance) && !self.candidate_waits(instance.version)
    }

    /// Whether a new version of the function waits for room.
    pub(super) fn candidate_waits(&self, serving: VersionId) -> bool {
        let proves = |version: VersionId| {
            version != serving && self.revisions.get(&version).is_some_and(|revision| revision.role == Role::Candidate)
        };
        let waits = |instance: &Instance| instance.state == State::Requested || instance.wants_room;
        self.instances.values().any(|instance| waits(instance) && proves(instance.version))
    }
}
