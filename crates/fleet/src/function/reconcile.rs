//! What the scaler wants against what is: start, wake, pause, stop the difference.

use std::cmp::Reverse;

use kip_spec::{InstanceId, VersionId};

use super::instances::Totals;
use super::{FunctionCore, Role};
use crate::instance::{Goal, Instance, Operation};
use crate::placer::Urgency;
use crate::scaler::{Desired, Observation, Scaler};
use crate::why::{EndReason, Reason, Refusal, StartFailure};
use crate::{Change, Class, Effect, Kind, Now, Rung, State, ToPlacer};

/// How many instances of a version are in each class.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    hot: u32,
    /// On the way to being hot, those that wait for room for that included.
    starting: u32,
    asleep: u32,
    leaving: u32,
    /// Of those starting, new ones that were told that there is no room.
    stranded: u32,
    /// Hot, but not ready for those that wait.
    unready: u32,
}

impl Counts {
    /// Those that are hot or will be. One that has no room yet is no reason to let another sleep.
    fn coming(self) -> u32 {
        self.hot + self.starting - self.stranded
    }

    fn alive(self) -> u32 {
        self.hot + self.unready + self.starting + self.asleep
    }
}

impl FunctionCore {
    /// Brings every version to what it should be. Doing it twice does nothing more.
    pub(super) fn reconcile(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let versions = self.versions();
        for version in versions.iter().copied() {
            if let Some(why) = self.makes_way(version) {
                // Its scaler goes on, and what it wants does not matter.
                let _ = self.desired(now, version);
                self.make_way(now, version, why, effects);
                continue;
            }
            self.drain_queue(now, version, effects);
            self.begin_rotation(now, version, effects);
            if self.revisions.get(&version).is_some_and(|revision| revision.shrunk) {
                self.settle_kinds(now, version);
            }
            let desired = self.desired(now, version);
            if desired.decided {
                effects.push(Effect::Scaled { version });
            }
            if !self.is_settled(version, desired) {
                self.fewer(now, version, desired, effects);
                self.more(now, version, desired, effects);
            }
            self.sink(now, version, effects);
            self.continue_rotation(now, version, desired, effects);
            self.refuse_the_hopeless(now, version, effects);
            self.settle_kinds(now, version);
        }
        self.scratch.versions = versions;
        self.drained(now, effects);
        self.offer(now, effects);
        let instances = &self.instances;
        self.revisions.retain(|version, revision| {
            revision.role != Role::Retiring
                || !revision.queue.is_empty()
                || instances.values().any(|instance| instance.version == *version)
        });
    }

    pub(super) fn desired(&mut self, now: u64, version: VersionId) -> Desired {
        let tasks = self.tasks_waiting(version);
        let load = self.load(version);
        let waits_for_end = self.waits_for_end(version);
        let attached = self.attachments_wait(version);
        let time = Now { boot: now, wall: self.wall };
        let Some(revision) = self.revisions.get_mut(&version) else { return Desired::NOTHING };
        revision.backoff.expire(now);
        let queued = revision.queue.depth().saturating_add(tasks.count);
        let totals = self.instances.totals(version);
        // One that only waits for room may be withdrawn: then nothing would ask again who is too much.
        let on_the_way = [State::Starting, State::Initializing, State::Waking];
        let starting = on_the_way.into_iter().map(|state| totals.in_state(state)).sum();
        let (mut busy, mut in_flight) = (totals.in_state(State::Busy), totals.busy_in_flight);
        let (mut idle_since, mut asleep_since) = (totals.idle.as_slice(), totals.sleepers.as_slice());
        if totals.is_uneven() {
            let pause = revision.policy.idle.pause.map_or(0, |pause| pause.0);
            let own = self.instances.values().filter(|instance| instance.version == version);
            (busy, in_flight) = self.scratch.gather(own, queued, pause);
            (idle_since, asleep_since) = (&self.scratch.idle, &self.scratch.asleep);
        }
        let minimum = revision.minimum();
        let seen = Observation {
            in_flight,
            queued,
            waiting_since: revision.queue.oldest().into_iter().chain((tasks.count > 0).then_some(tasks.oldest)).min(),
            busy,
            idle_since,
            asleep_since,
            minimum,
            maximum: revision.maximum(),
            kept_hot: revision.kept_hot,
            on_demand: revision.on_demand(),
            provisioned: revision.provisioned,
            starting,
            start: revision.costs.start,
            wake: revision.costs.wake(Rung::Paused),
        };
        let returns = revision.returns.filter(|(_, until)| *until > now);
        revision.returns = returns;
        match revision.role {
            // A candidate that starts from nothing waits until nothing is left.
            Role::Candidate if waits_for_end => Desired::NOTHING,
            Role::Serving | Role::Named => {
                revision.scaler.observe(now, load);
                let mut desired = revision.scaler.decide(time, &seen);
                if desired.hot == 0 && queued > 0 && seen.on_demand {
                    // A policy that goes by averages may forget requests that still wait for their first instance.
                    (desired.hot, desired.kind) = (1, Kind::OnDemand);
                    desired.why = Reason::RequestsWait { queued };
                }
                if desired.hot == 0 && attached && seen.on_demand {
                    (desired.hot, desired.kind, desired.why) = (1, Kind::OnDemand, Reason::AskedFor);
                }
                if let Some((why, _)) = returns.filter(|_| desired.hot == 0) {
                    (desired.hot, desired.kind, desired.why) = (1, Kind::OnDemand, why);
                }
                revision.expects = match desired.why {
                    Reason::RequestsExpected { every } => Some(every),
                    _ => None,
                };
                // The bound may have been lowered since they were started.
                desired.hot = desired.hot.min(seen.maximum.max(busy));
                desired.asleep = desired.asleep.min(seen.maximum.saturating_sub(desired.hot));
                desired
            }
            // Its scaler is not asked: it keeps what it works with, and proves itself with one instance.
            Role::Candidate => Desired { hot: 1, why: Reason::NewVersion, ..Desired::NOTHING },
            Role::Retiring => {
                let soft = revision.policy.concurrency.soft.max(1);
                let demand = queued.saturating_add(in_flight).div_ceil(soft).min(revision.maximum());
                let hot = if queued > 0 { demand.max(busy) } else { 0 };
                Desired { hot, why: Reason::RequestsWait { queued }, ..Desired::NOTHING }
            }
        }
    }

    /// One that is being replaced is not counted: its successor is.
    fn counts(&mut self, version: VersionId) -> Counts {
        self.refresh();
        let totals = self.instances.totals(version);
        let revision = self.revisions.get(&version);
        let waiting = self.tasks_waiting(version).count > 0 || revision.is_some_and(|it| !it.queue.is_empty());
        let Totals { hot, starting, asleep, leaving, stranded, unready, .. } = *totals;
        let mut counts = Counts { hot, starting, asleep, leaving, stranded, unready };
        let replaced = revision.and_then(|it| it.rotation).and_then(|(old, _)| self.instances.get(&old));
        if let Some(replaced) = replaced.filter(|replaced| replaced.version == version) {
            let part = Totals::of(replaced);
            counts.hot -= part.hot;
            counts.starting -= part.starting;
            counts.asleep -= part.asleep;
            counts.leaving -= part.leaving;
            counts.stranded -= part.stranded;
            counts.unready -= part.unready;
        }
        if waiting {
            counts.hot -= counts.unready;
        } else {
            counts.unready = 0;
        }
        counts
    }

    /// Whether there is what should be, so that nothing is to be started, woken, paused or stopped. This is what most steps find.
    fn is_settled(&mut self, version: VersionId, desired: Desired) -> bool {
        let counts = self.counts(version);
        let Some(revision) = self.revisions.get(&version) else { return false };
        let totals = self.instances.totals(version);
        let stays = self.closing.is_none() && revision.role != Role::Retiring && totals.asking == 0;
        let enough = counts.hot + counts.starting >= desired.hot && counts.alive() >= revision.minimum();
        let idle_too_many = counts.hot > desired.hot && totals.in_state(State::Ready) > 0;
        stays && enough && !idle_too_many && counts.asleep <= desired.asleep
    }

    /// Whether there are fewer than there should be, the one that is being replaced not counted.
    pub(super) fn lacks_somebody(&mut self, version: VersionId, desired: Desired) -> bool {
        let counts = self.counts(version);
        let minimum = self.revisions.get(&version).map_or(0, |revision| revision.minimum());
        counts.coming() < desired.hot || counts.alive() < minimum
    }

    /// Wakes and starts what is missing.
    fn more(&mut self, now: u64, version: VersionId, desired: Desired, effects: &mut Vec<Effect>) {
        self.wake_the_lighter(now, version, effects);
        let counts = self.counts(version);
        let mut to_wake = desired.hot.saturating_sub(counts.coming());
        let urgency = match self.revisions.get(&version) {
            Some(revision) if revision.queue.is_empty() && desired.hot <= revision.kept() => Urgency::Minimum,
            // Nobody waits yet, so nobody else has to give anything up.
            Some(revision) if revision.expects.is_some() => Urgency::Rotation,
            _ => Urgency::Demand,
        };
        while to_wake > 0
            && let Some(id) = self.best_sleeper(version)
        {
            self.wake(now, id, urgency, effects);
            to_wake -= 1;
        }
        self.hasten(version, desired, effects);
        let counts = self.counts(version);
        let mut missing = desired.hot.saturating_sub(counts.hot + counts.starting);
        let Some(revision) = self.revisions.get(&version) else { return };
        if revision.backoff.blocks(now).is_some() || self.closing.is_some() {
            return;
        }
        let calm = revision.queue.is_empty() && revision.scaler.applied().is_none();
        let (role, minimum, maximum) = (revision.role, revision.minimum(), revision.maximum());
        let returns = (revision.returns.is_some() || revision.expects.is_some()) && revision.queue.is_empty();
        let replaced = revision.rotation.and_then(|(old, _)| self.instances.get(&old)?.replace);
        // One that is falling asleep will be woken when it has fallen; starting another for it would count the work twice.
        let falls = |i: &&Instance| {
            let falling = matches!(i.state, State::Pausing | State::Parking | State::Spilling)
                || i.state == State::Draining && matches!(i.goal, Some((Goal::Sleep(_), _)));
            i.version == version && falling && !self.is_replaced(i)
        };
        let falling = if missing > 0 { self.instances.values().filter(falls).count() } else { 0 };
        missing = missing.saturating_sub(u32::try_from(falling).unwrap_or(u32::MAX));
        let room = maximum.saturating_sub(counts.alive() + counts.leaving);
        let for_minimum = minimum.saturating_sub(counts.alive() + missing);
        let (why, urgency) = match (role, replaced, desired.kind) {
            (Role::Candidate, ..) => (desired.why, Urgency::Candidate),
            (_, Some(why), _) if calm => (why, Urgency::Rotation),
            (.., Kind::OnDemand) if returns => (desired.why, Urgency::Rotation),
            (.., Kind::OnDemand) => (desired.why, Urgency::Demand),
            (.., Kind::Provisioned) => (desired.why, Urgency::Minimum),
        };
        for _ in 0..(missing + for_minimum).min(room) {
            self.create(now, version, urgency, why, effects);
        }
    }

    /// One that sleeps more lightly wakes in place of one that waits for room: it may hold what the other waits for.
    fn wake_the_lighter(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) {
        self.refresh();
        while self.instances.totals(version).wants_room > 0
            && let Some(lighter) = self.best_sleeper(version)
            && let Some(rung) = self.instances.get(&lighter).and_then(|instance| instance.state.rung())
            && let Some(waits) = self.last_in(version, |i| i.wants_room && i.state.rung() > Some(rung))
        {
            let urgency = self.instances.get(&waits).map_or(Urgency::Demand, |instance| instance.urgency);
            self.let_sleep(waits, effects);
            self.wake(now, lighter, urgency, effects);
            self.refresh();
        }
    }

    /// Asks for room are repeated when they have become more urgent, because requests wait, or less, because none do.
    fn hasten(&mut self, version: VersionId, desired: Desired, effects: &mut Vec<Effect>) {
        self.refresh();
        if self.instances.totals(version).asking == 0 {
            return;
        }
        let Some(revision) = self.revisions.get(&version) else { return };
        let (need, queued) = (revision.policy.need, revision.queue.depth());
        let urgency = match (queued, desired.kind) {
            (0, Kind::Provisioned) => Urgency::Minimum,
            (0, Kind::OnDemand) => return,
            _ => Urgency::Demand,
        };
        let counts = self.counts(version);
        let others = |i: &&mut Instance| {
            let waits = i.state == State::Requested || i.wants_room;
            let fixed = matches!(i.urgency, Urgency::Candidate | Urgency::Rotation) && queued == 0;
            i.version == version && waits && i.urgency != urgency && i.urgency != Urgency::Candidate && !fixed
        };
        let function = self.number;
        let others: Vec<&mut Instance> = self.instances.values_mut().filter(others).collect();
        let number = u32::try_from(others.len()).unwrap_or(u32::MAX);
        let without = (counts.hot + counts.starting).saturating_sub(number);
        let change = if queued == 0 { number } else { desired.hot.saturating_sub(without) };
        for instance in others.into_iter().take(change as usize) {
            instance.urgency = urgency;
            let (instance, number) = (instance.id, instance.ask);
            effects.push(Effect::Tell(ToPlacer::Ask { function, instance, version, need, urgency, number }));
        }
    }

    /// Withdraws, pauses and stops what is too much. Never touches what is busy.
    fn fewer(&mut self, now: u64, version: VersionId, desired: Desired, effects: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get(&version) else { return };
        let (policy, minimum) = (revision.policy.clone(), revision.minimum());
        let leaving_why = match (self.closing, revision.role) {
            (Some((_, why)), _) => Some(why),
            (None, Role::Retiring) => Some(Reason::VersionReplaced),
            _ => None,
        };
        let counts = self.counts(version);

        // Those that only wait for room cost nothing to withdraw, newest first.
        let mut surplus = counts.coming().saturating_sub(desired.hot);
        while surplus > 0
            && let Some(id) = self.last_in(version, |instance| instance.wants_room && !self.is_awaited(instance))
        {
            self.let_sleep(id, effects);
            surplus -= 1;
        }
        let counts = self.counts(version);
        let surplus = (counts.hot + counts.starting).saturating_sub(desired.hot);
        let mut surplus = surplus.min(counts.alive().saturating_sub(minimum));
        while surplus > 0
            && let Some(id) = self.last_in(version, |instance| instance.state == State::Requested)
        {
            self.gone(now, id, EndReason::NoRoom, leaving_why.unwrap_or(Reason::NoLongerNeeded), effects);
            surplus -= 1;
        }
        if let Some(why) = leaving_why {
            // A version on its way out does not wait for starts that nobody needs, and lets the busy finish.
            while surplus > 0
                && let Some(id) = self.last_in(version, |i| matches!(i.state, State::Starting | State::Initializing))
            {
                self.kill(now, id, why, false, effects);
                surplus -= 1;
            }
            if desired.hot == 0 {
                while let Some(id) = self.last_in(version, |instance| instance.state == State::Busy) {
                    self.set_goal(now, id, Goal::Stop, why, effects);
                }
            }
        }

        let scales = self.revisions.get(&version).is_some_and(|revision| revision.scaler.applied().is_some());
        let surplus_why = |idle, id: InstanceId, core: &Self| match core.instances.get(&id) {
            _ if scales => Reason::Autoscaled { to: desired.hot },
            Some(instance) if instance.released => Reason::Released { target: minimum },
            _ => Reason::IdleForStop { idle },
        };
        let counts = self.counts(version);
        let mut surplus = counts.hot.saturating_sub(desired.hot);
        let mut beds = desired.asleep.saturating_sub(counts.asleep);
        while surplus > 0
            && let Some(id) = self.least_wanted(version, |instance| instance.state == State::Ready)
        {
            let idle = self.instances.get(&id).map_or(0, |instance| now.saturating_sub(instance.last_used));
            let (goal, why) = if beds > 0 && policy.idle.pause.is_some() && leaving_why.is_none() {
                beds -= 1;
                (Goal::Sleep(Rung::Paused), Reason::IdleForPause { idle })
            } else {
                (Goal::Stop, leaving_why.unwrap_or_else(|| surplus_why(idle, id, self)))
            };
            self.set_goal(now, id, goal, why, effects);
            surplus -= 1;
        }

        let counts = self.counts(version);
        // Those asleep that will be woken for waiting requests are not too many.
        let to_wake = desired.hot.saturating_sub(counts.hot + counts.starting);
        let mut surplus = counts.asleep.saturating_sub(desired.asleep.saturating_add(to_wake));
        while surplus > 0
            && let Some(id) = self.least_wanted(version, |i| i.state.rung().is_some() && !i.wants_room)
        {
            let idle = self.instances.get(&id).map_or(0, |instance| now.saturating_sub(instance.last_used));
            let why = leaving_why.unwrap_or_else(|| surplus_why(idle, id, self));
            self.set_goal(now, id, Goal::Stop, why, effects);
            surplus -= 1;
        }
    }

    /// Refuses waiting requests that nothing can serve before the next start is due.
    fn refuse_the_hopeless(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) {
        if self.counts(version).alive() > 0
            || self.instances.values().any(|i| i.version == version && self.is_replaced(i))
        {
            return;
        }
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        let Some((retry_in, failure)) = revision.backoff.blocks(now) else { return };
        let refusal = match failure {
            StartFailure::NoRoom => Refusal::NeverFits { need: revision.policy.need },
            failure => Refusal::Backoff { retry_in, failure },
        };
        while let Some((ticket, _)) = revision.queue.pop() {
            effects.push(Effect::Refuse { ticket, refusal });
        }
        self.refuse_attachments(Some(version), refusal, effects);
    }

    fn create(&mut self, now: u64, version: VersionId, urgency: Urgency, why: Reason, effects: &mut Vec<Effect>) {
        let Some(policy) = self.revisions.get(&version).map(|revision| revision.policy.clone()) else { return };
        self.next_instance += 1;
        let id = InstanceId { boot: self.boot, core: self.number.0, sequence: self.next_instance };
        // Requests have deadlines of their own; a new version would wait for room for ever.
        let deadline = (urgency == Urgency::Candidate).then(|| now.saturating_add(policy.limits.start));
        let operation = Operation { number: self.next_operation(), deadline };
        let kind = if urgency == Urgency::Minimum { Kind::Provisioned } else { Kind::OnDemand };
        let mut instance = Instance::new(id, version, kind, now, operation);
        instance.urgency = urgency;
        self.instances.insert(id, instance);
        effects.push(Effect::Changed(Change { instance: id, version, from: None, to: State::Requested, why }));
        let (function, number) = (self.number, operation.number);
        let ask = ToPlacer::Ask { function, instance: id, version, need: policy.need, urgency, number };
        effects.push(Effect::Tell(ask));
    }

    /// As many instances as are kept by policy are called so, the oldest first.
    fn settle_kinds(&mut self, now: u64, version: VersionId) {
        self.refresh();
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        let (minimum, shrunk) = (revision.kept(), std::mem::take(&mut revision.shrunk));
        let counts = |instance: &&Instance| {
            instance.version == version && !matches!(instance.state.class(), Class::Leaving | Class::Gone)
        };
        let kept = self.instances.totals(version).provisioned;
        let (from, to, change) = match kept {
            kept if kept < minimum => (Kind::OnDemand, Kind::Provisioned, minimum - kept),
            kept => (Kind::Provisioned, Kind::OnDemand, kept - minimum),
        };
        if change == 0 {
            return;
        }
        let mut ids: Vec<InstanceId> =
            self.instances.values().filter(counts).filter(|i| i.kind == from).map(|i| i.id).collect();
        if to == Kind::OnDemand {
            ids.reverse();
        }
        for id in ids.into_iter().take(change as usize) {
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.become_kind(to, now);
                instance.released = to == Kind::OnDemand && shrunk;
            }
        }
    }

    fn last_in(&self, version: VersionId, which: impl Fn(&Instance) -> bool) -> Option<InstanceId> {
        let own = |i: &&Instance| i.version == version && !i.lost && !self.is_replaced(i);
        let mut among = self.instances.values().rev().filter(own);
        among.find(|instance| which(instance)).map(|instance| instance.id)
    }

    /// Whom to give up first: what costs extra, then what is not kept, then what is longest unused.
    fn least_wanted(&self, version: VersionId, which: impl Fn(&Instance) -> bool) -> Option<InstanceId> {
        let among = self.instances.values().filter(|instance| {
            instance.version == version
                && which(instance)
                && !instance.lost
                && instance.goal.is_none()
                && !self.is_replaced(instance)
        });
        let rank = |instance: &&Instance| {
            let kept = instance.kind == Kind::Provisioned;
            (!instance.released, Reverse(instance.place.pool), kept, instance.last_used, Reverse(instance.id))
        };
        among.min_by_key(rank).map(|instance| instance.id)
    }

    /// Whom to wake first: who wakes fastest, is kept anyway, and was used last.
    pub(super) fn best_sleeper(&self, version: VersionId) -> Option<InstanceId> {
        let among = self.instances.values().filter(|instance| {
            instance.version == version
                && instance.goal.is_none()
                && !instance.wants_room
                && !instance.lost
                && !self.is_replaced(instance)
        });
        let rank = |instance: &Instance| {
            let rung = instance.state.rung()?;
            let kept = instance.kind != Kind::Provisioned;
            Some((rung, kept, instance.place.pool, Reverse(instance.last_used), instance.id))
        };
        among.filter_map(|instance| Some((rank(instance)?, instance.id))).min().map(|(_, id)| id)
    }
}
