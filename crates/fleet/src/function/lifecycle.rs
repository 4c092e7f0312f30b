//! How instances move from state to state, with a failure edge for each step.

use kip_spec::{InstanceId, VersionId};

use super::revision::STABLE;
use super::{FunctionCore, Role};
use crate::instance::{Goal, Operation};
use crate::policy::{GRACE, Limits};
use crate::why::{EndReason, ProgramExit, Reason, Refusal, StartFailure};
use crate::{Class, Effect, Operate, OperationNumber, OperationOutcome, Rung, StartKind, State, ToPlacer};

/// After a failed pause the instance stays hot for this long before the next try.
const PAUSE_RETRY: u64 = 30_000;

/// An instance that works without a request is asked again after this long at least.
const WORKING_RETRY: u64 = 1_000;

impl FunctionCore {
    /// An operation ended; a late answer to an earlier operation is dropped.
    pub(super) fn observed(
        &mut self,
        now: u64,
        id: InstanceId,
        operation: OperationNumber,
        seen: OperationOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.operation.is_none_or(|current| current.number != operation) {
            return;
        }
        instance.operation = None;
        let (state, version) = (instance.state, instance.version);
        let slept_deep = instance.slept_on > Some(Rung::Paused);
        match (state, seen) {
            (State::Starting, OperationOutcome::Started) if self.has_initialize(id) => {
                let limit = self.limits(id).initialize;
                self.operate(now, id, State::Initializing, Operate::Initialize, limit, Reason::ProgramReady, effects);
            }
            (State::Starting, OperationOutcome::Started) => {
                self.hot(now, id, StartKind::Cold, Reason::ProgramReady, effects)
            }
            (State::Initializing, OperationOutcome::Initialized) => {
                self.hot(now, id, StartKind::Cold, Reason::Initialized, effects)
            }
            (State::Starting | State::Initializing, OperationOutcome::StartFailed(failure)) => {
                self.start_failed(now, id, failure, effects);
            }
            (State::Pausing, OperationOutcome::Paused) => self.rest(now, id, Rung::Paused, effects),
            (State::Parking, OperationOutcome::Parked) => self.rest(now, id, Rung::Parked, effects),
            (State::Spilling, OperationOutcome::Spilled) => self.rest(now, id, Rung::Spilled, effects),
            (State::Pausing, OperationOutcome::PauseFailed) => {
                self.stays(now, id, State::Ready, Reason::PauseFailed, effects)
            }
            (State::Pausing, OperationOutcome::Working(work)) => {
                self.stays(now, id, State::Ready, Reason::Working(work), effects);
                // Asked again when it has been idle as long once more.
                let pause = self.instances.get(&id).and_then(|i| self.revisions.get(&i.version)?.policy.idle.pause);
                if let Some(instance) = self.instances.get_mut(&id) {
                    let again = pause.map_or(PAUSE_RETRY, |pause| pause.0).clamp(WORKING_RETRY, PAUSE_RETRY);
                    instance.pause_not_before = now.saturating_add(again);
                }
            }
            (State::Parking, OperationOutcome::ParkFailed) => {
                self.note_rung(version, false, effects);
                self.stays(now, id, State::Paused, Reason::ParkFailed, effects)
            }
            (State::Spilling, OperationOutcome::SpillFailed) => {
                self.note_rung(version, false, effects);
                self.stays(now, id, State::Parked, Reason::ParkFailed, effects)
            }
            (State::Parking | State::Spilling, OperationOutcome::ParkUnknown) => {
                self.note_rung(version, false, effects);
                self.kill(now, id, Reason::ParkUnknown, false, effects);
            }
            (State::Waking, OperationOutcome::Resumed) => {
                if slept_deep {
                    self.note_rung(version, true, effects);
                }
                self.hot(now, id, StartKind::Woken, Reason::Done, effects);
            }
            (State::Waking, OperationOutcome::ResumeFailed | OperationOutcome::CanaryFailed) => {
                if slept_deep {
                    self.note_rung(version, false, effects);
                }
                let canary = seen == OperationOutcome::CanaryFailed;
                let why = if canary { Reason::CanaryFailed } else { Reason::WakeFailed };
                self.kill(now, id, why, false, effects);
            }
            (State::Stopping, OperationOutcome::Stopped) => {
                self.gone(now, id, EndReason::Stopped, Reason::Done, effects)
            }
            (State::Stopping, OperationOutcome::Killed) => {
                let grace = self.instances.get(&id).and_then(|i| self.revisions.get(&i.version));
                let grace = grace.map_or(GRACE, |revision| revision.grace());
                self.gone(now, id, EndReason::Stopped, Reason::GraceOver { grace }, effects)
            }
            // An answer that does not fit its operation is a shell's mistake: keep waiting for the deadline.
            _ => {
                let deadline = Some(now.saturating_add(self.limits(id).stop));
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.operation = Some(Operation { number: operation, deadline });
                }
            }
        }
    }

    /// It has come to rest, perhaps on the way to a deeper rung or to its end.
    fn rest(&mut self, now: u64, id: InstanceId, rung: Rung, effects: &mut Vec<Effect>) {
        self.change(now, id, rung.state(), Reason::Done, effects);
        self.pursue(now, id, effects);
    }

    /// It could not be brought lower.
    fn stays(&mut self, now: u64, id: InstanceId, state: State, why: Reason, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.pause_not_before = now.saturating_add(PAUSE_RETRY);
        let goal = instance.goal.take();
        self.change(now, id, state, why, effects);
        // Whoever waits for its room would wait in vain: what cannot sleep ends.
        if let Some((goal, why)) = goal
            && (goal == Goal::Stop || why.is_eviction())
        {
            self.set_goal(now, id, Goal::Stop, why, effects);
        }
    }

    /// Gives an instance somewhere to go. One that works finishes first and gets nothing new meanwhile.
    pub(super) fn set_goal(&mut self, now: u64, id: InstanceId, goal: Goal, why: Reason, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.goal = Some((goal, why));
        if instance.wants_room {
            self.let_sleep(id, effects);
        }
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.state == State::Busy {
            let deadline = now.saturating_add(self.limits(id).request);
            let number = self.next_operation();
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.operation = Some(Operation { number, deadline: Some(deadline) });
            }
            self.change(now, id, State::Draining, why, effects);
        } else {
            self.pursue(now, id, effects);
        }
    }

    /// The next step of an instance that is going somewhere; nothing while another step is under way.
    pub(super) fn pursue(&mut self, now: u64, id: InstanceId, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id) else { return };
        let Some((goal, why)) = instance.goal else { return };
        let limits = self.limits(id);
        let step = match (instance.state, goal) {
            (State::Draining, _) if instance.in_flight > 0 => return,
            (State::Ready | State::Draining, Goal::Sleep(_)) => (Rung::Paused.way(), Operate::Pause, limits.sleep),
            (State::Paused, Goal::Sleep(rung)) if rung > Rung::Paused => {
                (Rung::Parked.way(), Operate::Park, limits.park)
            }
            (State::Parked, Goal::Sleep(rung)) if rung > Rung::Parked => {
                (Rung::Spilled.way(), Operate::Spill, limits.park)
            }
            (State::Paused | State::Parked | State::Spilled, Goal::Sleep(_)) => {
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.goal = None;
                }
                return;
            }
            (State::Ready | State::Draining | State::Paused | State::Parked | State::Spilled, Goal::Stop) => {
                return self.stop(now, id, why, effects);
            }
            _ => return,
        };
        let (state, what, limit) = step;
        self.operate(now, id, state, what, limit, why, effects);
    }

    /// Instances whose last request has ended go on to where they are going.
    pub(super) fn drained(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.refresh();
        if self.instances.all_totals().all(|totals| totals.in_state(State::Draining) == 0) {
            return;
        }
        let done = |i: &&crate::instance::Instance| i.state == State::Draining && i.in_flight == 0;
        let ids: Vec<InstanceId> = self.instances.values().filter(done).map(|instance| instance.id).collect();
        ids.into_iter().for_each(|id| self.pursue(now, id, effects));
    }

    fn stop(&mut self, now: u64, id: InstanceId, why: Reason, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id) else { return };
        let (version, uptime) = (instance.version, now.saturating_sub(instance.hot_since));
        if let Some(revision) = self.revisions.get_mut(&version)
            && uptime >= STABLE
        {
            revision.backoff.stable();
        }
        let grace = self.revisions.get(&version).map_or(GRACE, |revision| revision.grace());
        let limit = self.limits(id).stop.saturating_add(grace);
        self.operate(now, id, State::Stopping, Operate::Stop { grace }, limit, why, effects);
    }

    /// The program ended by itself; what may be left of it is cleared away.
    pub(super) fn exited(&mut self, now: u64, id: InstanceId, exit: ProgramExit, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id) else { return };
        match instance.state {
            State::Starting | State::Initializing => self.start_failed(now, id, StartFailure::Exited(exit), effects),
            State::Requested | State::Stopping | State::Gone(_) => {}
            _ => {
                let (version, uptime) = (instance.version, now.saturating_sub(instance.hot_since));
                let soon = uptime < STABLE && instance.hot_from == StartKind::Cold && instance.goal.is_none();
                let looping = self.revisions.get_mut(&version).is_some_and(|revision| {
                    if soon {
                        return revision.backoff.crashed(now, StartFailure::ExitedSoon(exit));
                    }
                    revision.backoff.stable();
                    false
                });
                self.tell_loop(version, looping, effects);
                self.kill(now, id, Reason::Exited(exit), false, effects);
            }
        }
    }

    /// An operation did not end in time.
    pub(super) fn operation_late(&mut self, now: u64, id: InstanceId, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id) else { return };
        match instance.state {
            State::Starting => self.start_failed(now, id, StartFailure::NeverReady, effects),
            State::Initializing => self.start_failed(now, id, StartFailure::InitializeFailed { status: 0 }, effects),
            State::Requested => self.no_room_in_time(now, id, effects),
            // Tasks have times of their own, and are ended by whoever keeps those.
            State::Draining if self.placed.iter().any(|(ticket, placed)| placed.on == id && ticket.is_task()) => {
                let deadline = now.saturating_add(self.limits(id).request.max(1_000));
                let number = self.next_operation();
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.operation = Some(Operation { number, deadline: Some(deadline) });
                }
            }
            // Its requests had as long as any request may have.
            State::Draining => {
                let why = instance.goal.map_or(Reason::Deadline, |(_, why)| why);
                self.stop(now, id, why, effects);
            }
            // Whether it sleeps is not known, so it cannot be trusted with a request.
            state => {
                let (version, deep) = (instance.version, instance.slept_on > Some(Rung::Paused));
                if matches!(state, State::Parking | State::Spilling) || state == State::Waking && deep {
                    self.note_rung(version, false, effects);
                }
                self.kill(now, id, Reason::Deadline, false, effects);
            }
        }
    }

    /// A new version did not get room to prove itself.
    fn no_room_in_time(&mut self, now: u64, id: InstanceId, effects: &mut Vec<Effect>) {
        let Some(version) = self.instances.get(&id).map(|instance| instance.version) else { return };
        self.gone(now, id, EndReason::NoRoom, Reason::NoCapacity, effects);
        if self.revisions.get(&version).is_some_and(|revision| revision.role == Role::Candidate) {
            self.candidate_failed(now, version, StartFailure::NoRoomInTime, effects);
        }
    }

    fn hot(&mut self, now: u64, id: InstanceId, from: StartKind, why: Reason, effects: &mut Vec<Effect>) {
        self.change(now, id, State::Ready, why, effects);
        let Some(instance) = self.instances.get_mut(&id) else { return };
        (instance.hot_since, instance.served_before) = (now, instance.served);
        instance.hot_from = from;
        instance.last_used = now;
        let took = now.saturating_sub(instance.moving_since);
        let (version, slept_on) = (instance.version, instance.slept_on.take());
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        match slept_on {
            Some(rung) => revision.costs.woke(rung, took),
            None => revision.costs.started(took),
        }
        revision.backoff.started();
        revision.returns = None;
        let role = revision.role;
        if from == StartKind::Cold || !revision.policy.need.is_nothing() {
            effects.push(Effect::Tell(ToPlacer::Serving { instance: id }));
        }
        if role == Role::Candidate {
            self.promote(now, version, effects);
        }
    }

    fn start_failed(&mut self, now: u64, id: InstanceId, failure: StartFailure, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id) else { return };
        let version = instance.version;
        self.kill(now, id, Reason::StartFailed(failure), false, effects);
        let others = self.instances.values().any(|instance| {
            instance.version == version
                && matches!(instance.state.class(), Class::Hot | Class::Starting | Class::Asleep)
        });
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        let looping = revision.backoff.failed(now, failure);
        revision.returns = None;
        if !others {
            while let Some((ticket, _)) = revision.queue.pop() {
                effects.push(Effect::Refuse { ticket, refusal: Refusal::StartFailed(failure) });
            }
        }
        let role = revision.role;
        if !others {
            self.refuse_attachments(Some(version), Refusal::StartFailed(failure), effects);
        }
        if role == Role::Candidate {
            self.candidate_failed(now, version, failure, effects);
        }
        self.tell_loop(version, looping, effects);
    }

    fn tell_loop(&self, version: VersionId, looping: bool, effects: &mut Vec<Effect>) {
        let backoff = self.revisions.get(&version).map(|revision| &revision.backoff).filter(|_| looping);
        if let Some((backoff, failure)) = backoff.and_then(|backoff| Some((backoff, backoff.last()?))) {
            effects.push(Effect::CrashLoop { version, failures: backoff.failures(), failure });
        }
    }

    pub(super) fn kill(&mut self, now: u64, id: InstanceId, why: Reason, autopsy: bool, effects: &mut Vec<Effect>) {
        let limit = self.limits(id).stop;
        self.placed.retain(|_, placed| placed.on != id);
        self.attachments.placed.retain(|_, on| *on != id);
        if let Some(instance) = self.instances.get_mut(&id) {
            (instance.in_flight, instance.attached, instance.inherited) = (0, 0, None);
        }
        self.operate(now, id, State::Stopping, Operate::Kill { autopsy }, limit, why, effects);
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
        why: Reason,
        effects: &mut Vec<Effect>,
    ) {
        let operation = self.next_operation();
        debug_assert!(self.instances.contains_key(&id), "{what:?} of {id}, which is not there");
        debug_assert!(
            state.class() != Class::Gone && state.rung().is_none(),
            "{what:?} leads to {state}, which is a rest"
        );
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.operation = Some(Operation { number: operation, deadline: Some(now.saturating_add(limit)) });
        match what {
            Operate::Start { .. } => instance.moving_since = now,
            Operate::Resume { from } => (instance.moving_since, instance.slept_on) = (now, Some(from)),
            _ => {}
        }
        let version = instance.version;
        if instance.wants_room {
            self.let_sleep(id, effects);
        }
        if self.instances.get(&id).is_some_and(|instance| instance.state != state) {
            self.change(now, id, state, why, effects);
        }
        effects.push(Effect::Operate { instance: id, version, operation, what });
    }

    pub(super) fn limits(&self, id: InstanceId) -> Limits {
        let revision = self.instances.get(&id).and_then(|instance| self.revisions.get(&instance.version));
        let unknown = Limits { start: 0, initialize: 0, sleep: 0, park: 0, stop: 10_000, request: 0 };
        revision.map_or(unknown, |revision| revision.policy.limits)
    }

    fn has_initialize(&self, id: InstanceId) -> bool {
        let revision = self.instances.get(&id).and_then(|instance| self.revisions.get(&instance.version));
        revision.is_some_and(|revision| revision.policy.initialize)
    }
}
