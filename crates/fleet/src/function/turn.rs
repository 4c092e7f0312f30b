//! How long an instance keeps its room while another one waits for it.
//!
//! An idle instance is offered at once, unless its own next request is expected so soon that the switch cannot pay. One that
//! works is let off after its turn. Where too much time goes into switches in vain, idle instances have turns as well; and
//! what is kept without a request, or replaces something, moves nothing before its turn is over.

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use super::spare::may_be_left;
use super::{FunctionCore, Role};
use crate::instance::Instance;
use crate::why::Reason;
use crate::{Class, Kind, Now, State};

/// A turn, in times of what it takes to have the instance back.
const TURN: u64 = 3;
/// One that works has this long at least: letting it off costs what it could do meanwhile. Milliseconds.
const BUSY_TURN: u64 = 2_000;
/// A request is expected within so many times the usual gap.
const EXPECTED: u64 = 2;
/// Waiting for one may cost this part of what it takes to have the instance back, and is this short a part at least.
const WORTH: u64 = 5;
const LEAST: u64 = 20;

/// Others wait for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pressure {
    /// Since when, boot time.
    since: u64,
    /// Turns that an idle instance has before it is offered.
    stretch: u8,
    /// No turn is longer, milliseconds.
    longest: u64,
}

/// When an instance is offered. Boot times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// From here on it goes for requests that wait and for new versions.
    pub(super) from: u64,
    /// From here on for everything.
    pub(super) ends: u64,
    /// Nobody waits for it.
    pub(super) unwanted: bool,
}

impl FunctionCore {
    pub(super) fn press(&mut self, now: u64, stretch: u8, longest: u64) {
        let since = self.pressed.map_or(now, |pressure| pressure.since);
        self.pressed = Some(Pressure { since, stretch, longest });
        // Whatever the placer was told before, it is told again.
        self.instances.values_mut().for_each(|instance| instance.offered = None);
    }

    pub(super) fn relax(&mut self) {
        self.pressed = None;
        self.instances.values_mut().for_each(|instance| instance.offered = None);
    }

    /// When an instance may be offered; `None` if it has nothing to offer.
    pub(super) fn turn(&self, instance: &Instance) -> Option<Turn> {
        let Pressure { since, stretch, longest } = self.pressed?;
        let revision = self.revisions.get(&instance.version)?;
        let restore = revision.restore();
        let turns = |number: u8| restore.saturating_mul(TURN).saturating_mul(u64::from(number)).min(longest);
        let turn = turns(stretch.max(1));
        match instance.state {
            State::Starting | State::Initializing if self.is_unwanted(instance) => {
                Some(Turn { from: instance.since, ends: u64::MAX, unwanted: true })
            }
            _ if instance.goal.is_some() || instance.attached > 0 => None,
            _ if !may_be_left(instance) || self.withholds(instance) => None,
            State::Ready | State::Paused | State::Parked | State::Spilled => {
                let served = instance.served > instance.served_before;
                let ends = instance.hot_since.saturating_add(turn);
                // It came for a request that is gone, and there is no other.
                let unwanted = !served && instance.kind == Kind::OnDemand && revision.returns.is_none();
                let protected = instance.hot_since.saturating_add(if unwanted { 0 } else { turns(stretch) });
                let expected =
                    instance.last_used.saturating_add(if served { expects(revision.gap, restore) } else { 0 });
                let latest = instance.hot_since.max(since).saturating_add(turn);
                Some(Turn { from: protected.max(expected.min(latest)), ends, unwanted })
            }
            // One that always works is let off, when others have waited for as long as it has served.
            State::Busy => {
                let from = instance.hot_since.max(since).saturating_add(turn.max(BUSY_TURN));
                Some(Turn { from, ends: from, unwanted: false })
            }
            _ => None,
        }
    }

    /// While others wait for room: in how many milliseconds the first of its instances is offered that is not yet, and whether
    /// idle ones have turns because changes of hands were in vain. `None` where nothing is to be offered.
    pub fn offers_in(&self, now: Now) -> Option<(u64, bool)> {
        let protects = self.pressed?.stretch > 0;
        let turns = self.instances.values().filter_map(|instance| self.turn(instance));
        turns.map(|turn| (turn.from.saturating_sub(now.boot), protects)).min()
    }

    /// When something is to be offered that is not yet, or not to everybody, boot time.
    pub(super) fn offered_at(&self, now: u64, instance: &Instance) -> Option<u64> {
        let turn = self.turn(instance)?;
        let at = if turn.from > now { turn.from } else { turn.ends };
        let busy = instance.state == State::Busy;
        let offered = instance.offered.is_some_and(|offer| offer.busy == busy && (!offer.early || turn.from > now));
        (!offered && at > now && at < u64::MAX).then_some(at)
    }

    /// Whether it starts and no request, no task and no policy is left that it starts for.
    pub(super) fn is_unwanted(&self, instance: &Instance) -> bool {
        let Some(revision) = self.revisions.get(&instance.version) else { return true };
        let fixed = !matches!(revision.role, Role::Serving | Role::Named)
            || instance.kind == Kind::Provisioned
            || revision.returns.is_some()
            || self.is_successor(instance);
        if fixed {
            return false;
        }
        let own = || self.instances.values().filter(|other| other.version == instance.version);
        let queued = revision.queue.depth().saturating_add(self.tasks_waiting(instance.version).count);
        let in_flight = own().fold(0u32, |sum, other| sum.saturating_add(other.in_flight));
        let demand = queued.saturating_add(in_flight).div_ceil(revision.policy.concurrency.soft.max(1));
        let wanted = demand.max(revision.kept());
        let serves = |other: &&Instance| other.state.class() == Class::Hot && !other.unready && !other.lost;
        let before = |other: &&Instance| {
            matches!(other.state, State::Starting | State::Initializing | State::Waking) && other.id < instance.id
        };
        let ahead = own().filter(serves).count() + own().filter(before).count();
        u32::try_from(ahead).unwrap_or(u32::MAX) >= wanted
    }

    fn is_successor(&self, instance: &Instance) -> bool {
        self.revisions.get(&instance.version).is_some_and(|revision| revision.rotation.is_some())
    }

    /// An idle instance gets a request: how long after its last one, if it had any since it is hot.
    pub(super) fn note_gap(&mut self, now: u64, id: InstanceId) {
        let Some(instance) = self.instances.get(&id) else { return };
        if instance.state != State::Ready || instance.served <= instance.served_before {
            return;
        }
        let (version, gap) = (instance.version, now.saturating_sub(instance.last_used));
        if let Some(revision) = self.revisions.get_mut(&version) {
            revision.gap = Some(revision.gap.map_or(gap, |mean| mean.saturating_add(gap.saturating_mul(3)) / 4));
        }
    }

    /// An idle instance goes: its next request did not come when it was expected.
    pub(super) fn expected_in_vain(&mut self, now: u64, id: InstanceId) {
        let Some(instance) = self.instances.get(&id).filter(|instance| instance.state == State::Ready) else { return };
        let (version, idle) = (instance.version, now.saturating_sub(instance.last_used));
        if let Some(revision) = self.revisions.get_mut(&version) {
            revision.gap = revision.gap.map(|gap| gap.saturating_mul(2).max(idle));
        }
    }

    /// One instance of this version starts though no request waits, if none is there.
    pub(super) fn come_back(&mut self, now: u64, version: VersionId, why: Reason) {
        let lives = |instance: &Instance| {
            instance.version == version && !matches!(instance.state.class(), Class::Leaving | Class::Gone)
        };
        let there = self.instances.values().any(lives);
        if let Some(revision) = self.revisions.get_mut(&version)
            && matches!(revision.role, Role::Serving | Role::Named)
            && self.closing.is_none()
        {
            let until = now.saturating_add(revision.policy.limits.start);
            revision.returns = (!there).then_some((why, until));
        }
    }
}

/// How long after its last request an instance is kept for the next one, milliseconds: not at all where none is expected soon.
fn expects(gap: Option<u64>, restore: u64) -> u64 {
    let most = restore / WORTH;
    let expected = |gap: u64| gap.saturating_mul(EXPECTED).max(restore / LEAST);
    gap.map(expected).filter(|wait| *wait <= most).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_expected_only_where_waiting_for_it_costs_little() {
        let rows = [(None, 0), (Some(0), 300), (Some(150), 300), (Some(400), 800), (Some(601), 0), (Some(60_000), 0)];
        for (gap, waits) in rows {
            assert_eq!(expects(gap, 6_000), waits, "{gap:?}");
        }
    }
}
