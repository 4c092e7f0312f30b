//! A new version that starts when nothing of the one before is left, because the two cannot run side by side: one holds a
//! file, a port or a device that the other needs.

use kip_spec::{InstanceId, VersionId};

use super::{FunctionCore, Role};
use crate::instance::Goal;
use crate::why::{EndReason, Reason};
use crate::{Class, Effect, State};

impl FunctionCore {
    /// Whether a version that serves has to end before a new one starts.
    pub(super) fn makes_way(&self, version: VersionId) -> bool {
        let serves = self.revisions.get(&version).is_some_and(|revision| revision.role == Role::Serving);
        serves && self.revisions.values().any(|other| other.role == Role::Candidate && other.policy.recreate)
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

    /// Ends what there is of a version. Its requests in flight finish; those that wait stay in its queue.
    pub(super) fn make_way(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) {
        let ends = |goal: &Option<(Goal, Reason)>| matches!(goal, Some((Goal::Stop, _)));
        let own: Vec<(InstanceId, State)> = self
            .instances
            .values()
            .filter(|instance| instance.version == version && !ends(&instance.goal))
            .map(|instance| (instance.id, instance.state))
            .collect();
        for (id, state) in own {
            match state {
                State::Requested => self.gone(now, id, EndReason::NoRoom, Reason::MakesWay, effects),
                State::Starting | State::Initializing => self.kill(now, id, Reason::MakesWay, false, effects),
                // It goes when it is awake.
                State::Waking | State::Stopping => {}
                state if state.class() != Class::Gone => self.set_goal(now, id, Goal::Stop, Reason::MakesWay, effects),
                _ => {}
            }
        }
    }
}
