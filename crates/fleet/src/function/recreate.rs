//! Versions that cannot run side by side, because one holds a file, a port or a device that the other needs: a new version that starts
//! when nothing of the one before is left, and a version that a rollout sets aside for its successor.

use kip_spec::{InstanceId, VersionId};

use super::{FunctionCore, Revision, Role};
use crate::instance::{Goal, Instance};
use crate::why::{EndReason, Reason};
use crate::{Class, Effect, State};

impl FunctionCore {
    /// Why a version gives its room up before another one starts, if it does.
    pub(super) fn makes_way(&self, version: VersionId) -> Option<Reason> {
        let role = self.revisions.get(&version)?.role;
        let recreates = |other: &Revision| other.role == Role::Candidate && other.policy.recreate;
        match role {
            Role::Serving if self.revisions.values().any(recreates) => Some(Reason::MakesWay),
            Role::Serving | Role::Named if self.closing.is_none() && self.is_aside(version) => Some(Reason::SetAside),
            _ => None,
        }
    }

    /// Whether a version gives its room up for a rollout's new one, and its requests wait.
    pub fn is_aside(&self, version: VersionId) -> bool {
        self.aside.contains(&version)
    }

    /// A rollout's new version needs the room of this one, or does not any more.
    pub(super) fn set_aside(&mut self, version: VersionId, aside: bool) {
        if aside {
            self.aside.insert(version);
        } else {
            self.aside.remove(&version);
        }
    }

    /// Whether a new version waits until nothing of the ones before is left.
    pub(super) fn waits_for_end(&self, version: VersionId) -> bool {
        let Some(revision) = self.revisions.get(&version) else { return false };
        revision.role == Role::Candidate
            && revision.policy.recreate
            && self.instances.values().any(|instance| {
                let role = self.revisions.get(&instance.version).map(|revision| revision.role);
                instance.version != version && matches!(role, Some(Role::Serving | Role::Retiring))
            })
    }

    /// Ends what there is of a version, or brings it to sleep where it is only set aside and can give its room back asleep. Its requests
    /// in flight finish; those that wait stay in its queue.
    pub(super) fn make_way(&mut self, now: u64, version: VersionId, why: Reason, effects: &mut Vec<Effect>) {
        let rung =
            self.revisions.get(&version).filter(|_| why == Reason::SetAside).and_then(Revision::rung_without_room);
        let goal = rung.map_or(Goal::Stop, Goal::Sleep);
        let there = |instance: &Instance| match instance.goal {
            Some((set, _)) => set == Goal::Stop || set == goal,
            None => rung.is_some_and(|rung| instance.state.rung().is_some_and(|rests| rests >= rung)),
        };
        let own: Vec<(InstanceId, State)> = self
            .instances
            .values()
            .filter(|instance| {
                instance.version == version && !instance.lost && (!there(instance) || instance.wants_room)
            })
            .map(|instance| (instance.id, instance.state))
            .collect();
        for (id, state) in own {
            match state {
                State::Requested => self.gone(now, id, EndReason::NoRoom, why, effects),
                State::Starting | State::Initializing => self.kill(now, id, why, false, effects),
                // It goes when it is awake.
                State::Waking | State::Stopping => {}
                state if state.class() != Class::Gone => self.set_goal(now, id, goal, why, effects),
                _ => {}
            }
        }
    }
}
