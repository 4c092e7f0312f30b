//! What the scaler wants against what is: start, wake, pause, stop the difference.

use kip_spec::{InstanceId, VersionId};

use super::{FunctionCore, Role};
use crate::instance::{Instance, Operation};
use crate::scaler::{Desired, Observation, Scaler};
use crate::why::{Gone, Refusal, Why};
use crate::{Change, Class, Effect, Operate, State, ToPlacer};

/// How many instances of a version are in each class.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    hot: u32,
    starting: u32,
    asleep: u32,
    leaving: u32,
}

impl FunctionCore {
    /// Brings every version to what it should be. Doing it twice does nothing more.
    pub(super) fn reconcile(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let versions: Vec<VersionId> = self.revisions.keys().copied().collect();
        for version in versions {
            self.drain_queue(now, version, effects);
            let desired = self.desired(now, version);
            self.fewer(now, version, desired, effects);
            self.more(now, version, desired, effects);
            self.refuse_the_hopeless(now, version, effects);
        }
        let idle: Vec<VersionId> = self
            .revisions
            .iter()
            .filter(|(version, revision)| {
                revision.role == Role::Retiring
                    && revision.queue.is_empty()
                    && !self.instances.values().any(|instance| instance.version == **version)
            })
            .map(|(version, _)| *version)
            .collect();
        for version in idle {
            self.revisions.remove(&version);
        }
    }

    fn desired(&mut self, now: u64, version: VersionId) -> Desired {
        let nothing = Desired { hot: 0, asleep: 0 };
        let Some(revision) = self.revisions.get_mut(&version) else { return nothing };
        revision.backoff.expire(now);
        let pause = revision.policy.idle.pause.map_or(0, |pause| pause.0);
        self.scratch.idle.clear();
        self.scratch.asleep.clear();
        let (mut in_flight, mut busy) = (0u32, 0u32);
        for instance in self.instances.values().filter(|instance| instance.version == version) {
            in_flight += instance.in_flight;
            match instance.state {
                State::Busy => busy += 1,
                State::Ready => self.scratch.idle.push(instance.resting_since(pause)),
                state if state.class() == Class::Asleep => self.scratch.asleep.push(instance.last_used),
                _ => {}
            }
        }
        self.scratch.idle.sort_unstable();
        self.scratch.asleep.sort_unstable();
        let queued = revision.queue.depth();
        let seen =
            Observation { in_flight, queued, busy, idle_since: &self.scratch.idle, asleep_since: &self.scratch.asleep };
        match revision.role {
            Role::Serving => revision.scaler.decide(now, &seen),
            // Its scaler is not asked: it keeps what it works with, and proves itself with one instance.
            Role::Candidate => Desired { hot: 1, asleep: 0 },
            Role::Retiring => {
                let soft = revision.policy.concurrency.soft.max(1);
                let demand = in_flight.saturating_add(queued).div_ceil(soft).min(revision.policy.max);
                Desired { hot: demand.max(busy), asleep: 0 }
            }
        }
    }

    fn counts(&self, version: VersionId) -> Counts {
        let mut counts = Counts::default();
        for instance in self.instances.values().filter(|instance| instance.version == version) {
            match instance.state.class() {
                Class::Hot => counts.hot += 1,
                Class::Starting => counts.starting += 1,
                Class::Asleep => counts.asleep += 1,
                Class::Leaving => counts.leaving += 1,
                Class::Gone => {}
            }
        }
        counts
    }

    /// Wakes and starts what is missing.
    fn more(&mut self, now: u64, version: VersionId, desired: Desired, effects: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get(&version) else { return };
        let (policy, role) = (revision.policy.clone(), revision.role);
        let (queued, blocked) = (revision.queue.depth(), revision.backoff.blocks(now).is_some());
        let counts = self.counts(version);
        let mut missing = desired.hot.saturating_sub(counts.hot + counts.starting);
        while missing > 0
            && let Some(id) = self.latest_used(version, State::Paused)
        {
            self.operate(
                now,
                id,
                State::Waking,
                Operate::Resume,
                policy.limits.sleep,
                Why::WokenForRequests { queued },
                effects,
            );
            missing -= 1;
        }
        if blocked || self.closing.is_some() {
            return;
        }
        let minimum = if role == Role::Serving { policy.min } else { 0 };
        let counts = self.counts(version);
        // One that is falling asleep will be woken when it has fallen; starting another for it would count the work twice.
        let falling = self.instances.values().filter(|i| i.version == version && i.state == State::Pausing).count();
        missing = missing.saturating_sub(u32::try_from(falling).unwrap_or(u32::MAX));
        let alive = counts.hot + counts.starting + counts.asleep;
        let room = policy.max.max(minimum).saturating_sub(alive + counts.leaving);
        let for_minimum = minimum.saturating_sub(alive + missing);
        let why = match role {
            Role::Candidate => Why::NewVersion,
            _ if queued > 0 => Why::RequestsWait { queued },
            _ if missing > 0 => Why::RequestsWait { queued: 0 },
            _ => Why::KeepMinimum,
        };
        for _ in 0..(missing + for_minimum).min(room) {
            self.create(now, version, policy.need, why, effects);
        }
    }

    /// Withdraws, pauses and stops what is too much. Never touches what is busy.
    fn fewer(&mut self, now: u64, version: VersionId, desired: Desired, effects: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get(&version) else { return };
        let (policy, role) = (revision.policy.clone(), revision.role);
        let leaving_why = match (self.closing, role) {
            (Some((_, why)), _) => Some(why),
            (None, Role::Retiring) => Some(Why::VersionReplaced),
            _ => None,
        };
        let counts = self.counts(version);
        let minimum = if role == Role::Serving { policy.min } else { 0 };

        // Those that only wait for room cost nothing to withdraw, newest first.
        let alive = counts.hot + counts.starting + counts.asleep;
        let mut surplus = (counts.hot + counts.starting).saturating_sub(desired.hot).min(alive.saturating_sub(minimum));
        while surplus > 0
            && let Some(id) = self
                .instances
                .values()
                .rev()
                .find(|i| i.version == version && i.state == State::Requested)
                .map(|i| i.id)
        {
            self.gone(now, id, Gone::NoRoom, leaving_why.unwrap_or(Why::NoLongerNeeded), effects);
            surplus -= 1;
        }
        if let Some(why) = leaving_why {
            // A version on its way out does not wait for starts that nobody needs.
            while surplus > 0
                && let Some(id) = self.first_in(version, |i| matches!(i.state, State::Starting | State::Initializing))
            {
                self.operate(now, id, State::Stopping, Operate::Kill, policy.limits.stop, why, effects);
                surplus -= 1;
            }
        }

        let counts = self.counts(version);
        let mut surplus = counts.hot.saturating_sub(desired.hot);
        let mut beds = desired.asleep.saturating_sub(counts.asleep);
        while surplus > 0
            && let Some(id) = self.longest_unused(version, State::Ready)
        {
            let idle = self.instances.get(&id).map_or(0, |instance| now.saturating_sub(instance.last_used));
            if beds > 0 && policy.idle.pause.is_some() && leaving_why.is_none() {
                self.operate(
                    now,
                    id,
                    State::Pausing,
                    Operate::Pause,
                    policy.limits.sleep,
                    Why::IdleForPause { idle },
                    effects,
                );
                beds -= 1;
            } else {
                let why = leaving_why.unwrap_or(Why::IdleForStop { idle });
                self.operate(now, id, State::Stopping, Operate::Stop, policy.limits.stop, why, effects);
            }
            surplus -= 1;
        }

        let counts = self.counts(version);
        // Those asleep that will be woken for waiting requests are not too many.
        let to_wake = desired.hot.saturating_sub(counts.hot + counts.starting);
        let mut surplus = counts.asleep.saturating_sub(desired.asleep.saturating_add(to_wake));
        while surplus > 0
            && let Some(id) = self.longest_unused(version, State::Paused)
        {
            let idle = self.instances.get(&id).map_or(0, |instance| now.saturating_sub(instance.last_used));
            let why = leaving_why.unwrap_or(Why::IdleForStop { idle });
            self.operate(now, id, State::Stopping, Operate::Stop, policy.limits.stop, why, effects);
            surplus -= 1;
        }
    }

    /// Refuses waiting requests that nothing can serve before the next start is due.
    fn refuse_the_hopeless(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) {
        let counts = self.counts(version);
        if counts.hot + counts.starting + counts.asleep > 0 {
            return;
        }
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        let Some((retry_in, failure)) = revision.backoff.blocks(now) else { return };
        while let Some((ticket, _)) = revision.queue.pop() {
            effects.push(Effect::Refuse { ticket, refusal: Refusal::Backoff { retry_in, failure } });
        }
    }

    fn create(&mut self, now: u64, version: VersionId, need: crate::policy::Need, why: Why, effects: &mut Vec<Effect>) {
        self.next_instance += 1;
        let id = InstanceId { boot: self.boot, core: self.number.0, sequence: self.next_instance };
        let operation = Operation { number: self.next_operation(), deadline: None };
        self.instances.insert(id, Instance::new(id, version, now, operation));
        effects.push(Effect::Changed(Change { instance: id, version, from: None, to: State::Requested, why }));
        effects.push(Effect::Tell(ToPlacer::Ask { function: self.number, instance: id, need }));
    }

    /// Begins an operation: the instance enters the state, and the operation's deadline is set.
    #[expect(clippy::too_many_arguments, reason = "one line at each place of use says the whole transition")]
    pub(super) fn operate(
        &mut self,
        now: u64,
        id: InstanceId,
        state: State,
        what: Operate,
        limit: u64,
        why: Why,
        effects: &mut Vec<Effect>,
    ) {
        let operation = self.next_operation();
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.operation = Some(Operation { number: operation, deadline: Some(now.saturating_add(limit)) });
        let version = instance.version;
        if instance.state != state {
            self.change(now, id, state, why, effects);
        }
        effects.push(Effect::Operate { instance: id, version, operation, what });
    }

    fn first_in(&self, version: VersionId, which: impl Fn(&Instance) -> bool) -> Option<InstanceId> {
        self.instances
            .values()
            .find(|instance| instance.version == version && which(instance))
            .map(|instance| instance.id)
    }

    fn longest_unused(&self, version: VersionId, state: State) -> Option<InstanceId> {
        let among = self.instances.values().filter(|instance| instance.version == version && instance.state == state);
        among.min_by_key(|instance| (instance.last_used, std::cmp::Reverse(instance.id))).map(|instance| instance.id)
    }

    fn latest_used(&self, version: VersionId, state: State) -> Option<InstanceId> {
        let among = self.instances.values().filter(|instance| instance.version == version && instance.state == state);
        among.max_by_key(|instance| (instance.last_used, std::cmp::Reverse(instance.id))).map(|instance| instance.id)
    }
}
