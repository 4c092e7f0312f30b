//! Work that waits outside of the core and can wait longer than a request: tasks. The core is told how many are ready and how
//! old the oldest is, scales for them as for requests, and offers them places when no request has the better claim.

use kip_spec::VersionId;
use serde::{Deserialize, Serialize};

use super::{FunctionCore, Role};
use crate::instance::Goal;
use crate::why::Reason;
use crate::{Effect, Priority, StartKind, Ticket};

/// Tasks that are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backlog {
    /// How many.
    pub count: u32,
    /// Since when the oldest is, boot time.
    pub oldest: u64,
}

impl Backlog {
    /// A task counts as having come later than a request of the same age, as in the queue.
    pub(crate) fn rank(self) -> Option<u64> {
        let rank = || self.oldest.saturating_add(u64::from(Priority::ASYNC.0) * Priority::STEP);
        (self.count > 0).then(rank)
    }
}

impl FunctionCore {
    /// So many tasks are ready for a version, those that were offered a place not among them.
    pub(super) fn backlog(&mut self, version: VersionId, backlog: Backlog) {
        if let Some(revision) = self.revisions.get_mut(&version) {
            revision.backlog = backlog;
        }
    }

    /// See [`crate::Event::Halt`].
    pub(super) fn halt(&mut self, now: u64, ticket: Ticket, effects: &mut Vec<Effect>) {
        let Some(id) = self.placed.get(&ticket).map(|placed| placed.on) else { return };
        let alone = self.instances.get(&id).is_some_and(|instance| instance.in_flight == 1 && instance.goal.is_none());
        if alone {
            self.set_goal(now, id, Goal::Stop, Reason::TaskStopped, effects);
        }
    }

    /// Tasks that a version is to serve. One that proves itself or is on its way out gets none: its successor does.
    pub(super) fn tasks_waiting(&self, version: VersionId) -> Backlog {
        self.revisions
            .get(&version)
            .filter(|revision| matches!(revision.role, Role::Serving | Role::Named))
            .map(|revision| revision.backlog)
            .unwrap_or_default()
    }

    /// Offers a place to a task, if there is one and no request goes before it. True if it did.
    pub(super) fn offer_place(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) -> bool {
        let Some(rank) = self.tasks_waiting(version).rank() else { return false };
        let Some(revision) = self.revisions.get(&version) else { return false };
        if revision.queue.next_rank().is_some_and(|first| first <= rank) {
            return false;
        }
        let since = revision.backlog.oldest;
        let Some(instance) = self.free_instance(version) else { return false };
        let became_hot_since = self.instances.get(&instance).filter(|instance| instance.hot_since >= since);
        let start = became_hot_since.map_or(StartKind::Warm, |instance| instance.hot_from);
        if let Some(revision) = self.revisions.get_mut(&version) {
            revision.backlog.count -= 1;
        }
        self.next_offer += 1;
        let ticket = Ticket::offered(self.next_offer);
        self.put(now, ticket, instance, start, effects);
        // It is the shell that knows which task it is for.
        if let Some(Effect::Dispatch { ticket, instance, start }) = effects.pop() {
            effects.push(Effect::Offer { ticket, instance, start });
        }
        true
    }
}
