//! How instances move from state to state, with a failure edge for each step.

use kip_spec::InstanceId;

use super::{FunctionCore, Role};
use crate::why::{Exit, Gone, Refusal, StartFailure, Why};
use crate::{Class, Effect, Operate, OperationNumber, Seen, StartKind, State, ToPlacer};

/// After a failed pause the instance stays hot for this long before the next try.
const PAUSE_RETRY: u64 = 30_000;

impl FunctionCore {
    /// The placer gave room.
    pub(super) fn granted(&mut self, now: u64, id: InstanceId, effects: &mut Vec<Effect>) {
        match self.instances.get(&id).map(|instance| instance.state) {
            Some(State::Requested) => {
                let limit = self.limits(id).start;
                self.operate(now, id, State::Starting, Operate::Start, limit, Why::RoomGranted, effects);
            }
            Some(_) => {}
            // It was withdrawn meanwhile.
            None => effects.push(Effect::Tell(ToPlacer::Release { instance: id })),
        }
    }

    /// The placer will never have room.
    pub(super) fn refused_room(&mut self, now: u64, id: InstanceId, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id).filter(|instance| instance.state == State::Requested) else {
            return;
        };
        let version = instance.version;
        self.gone(now, id, Gone::NoRoom, Why::NoCapacity, effects);
        if let Some(revision) = self.revisions.get_mut(&version) {
            while let Some((ticket, _)) = revision.queue.pop() {
                effects.push(Effect::Refuse { ticket, refusal: Refusal::NoCapacity });
            }
            // Without a pause the minimum would ask again at once, for ever.
            revision.backoff.failed(now, StartFailure::NoRoom);
            revision.backoff.failed(now, StartFailure::NoRoom);
            // A new version that can never fit has failed; else it would ask for ever and never be told of.
            if revision.role == Role::Candidate {
                revision.role = Role::Retiring;
                effects.push(Effect::VersionFailed { version, failure: StartFailure::NoRoom });
            }
        }
    }

    /// The placer wants the room back for somebody else.
    pub(super) fn evict(&mut self, now: u64, id: InstanceId, effects: &mut Vec<Effect>) {
        match self.instances.get(&id).map(|instance| instance.state) {
            Some(State::Ready | State::Paused) => {
                let limit = self.limits(id).stop;
                self.operate(now, id, State::Stopping, Operate::Stop, limit, Why::Evicted, effects);
            }
            Some(state) if state.class() == Class::Leaving => {}
            Some(_) => effects.push(Effect::Tell(ToPlacer::Declined { instance: id })),
            None => effects.push(Effect::Tell(ToPlacer::Release { instance: id })),
        }
    }

    /// An operation ended; a late answer to an earlier operation is dropped.
    pub(super) fn observed(
        &mut self,
        now: u64,
        id: InstanceId,
        operation: OperationNumber,
        seen: Seen,
        effects: &mut Vec<Effect>,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.operation.is_none_or(|current| current.number != operation) {
            return;
        }
        instance.operation = None;
        let state = instance.state;
        match (state, seen) {
            (State::Starting, Seen::Started) if self.has_initialize(id) => {
                let limit = self.limits(id).initialize;
                self.operate(now, id, State::Initializing, Operate::Initialize, limit, Why::ProgramReady, effects);
            }
            (State::Starting, Seen::Started) => self.hot(now, id, StartKind::Cold, Why::ProgramReady, effects),
            (State::Initializing, Seen::Initialized) => self.hot(now, id, StartKind::Cold, Why::Initialized, effects),
            (State::Starting | State::Initializing, Seen::StartFailed(failure)) => {
                self.start_failed(now, id, failure, effects);
            }
            (State::Pausing, Seen::Paused) => self.change(now, id, State::Paused, Why::Done, effects),
            (State::Pausing, Seen::PauseFailed) => {
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.pause_not_before = now.saturating_add(PAUSE_RETRY);
                }
                self.change(now, id, State::Ready, Why::PauseFailed, effects);
            }
            (State::Waking, Seen::Resumed) => self.hot(now, id, StartKind::Woken, Why::Done, effects),
            (State::Waking, Seen::ResumeFailed) => self.kill(now, id, Why::WakeFailed, effects),
            (State::Stopping, Seen::Stopped) => self.gone(now, id, Gone::Stopped, Why::Done, effects),
            // An answer that does not fit its operation is a shell's mistake: keep waiting for the deadline.
            _ => {
                if let Some(instance) = self.instances.get_mut(&id) {
                    let deadline = Some(
                        now.saturating_add(self.revisions.get(&instance.version).map_or(0, |r| r.policy.limits.stop)),
                    );
                    instance.operation = Some(crate::instance::Operation { number: operation, deadline });
                }
            }
        }
    }

    /// The program ended by itself; what may be left of it is cleared away.
    pub(super) fn exited(&mut self, now: u64, id: InstanceId, exit: Exit, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id) else { return };
        match instance.state {
            State::Starting | State::Initializing => self.start_failed(now, id, StartFailure::Exited(exit), effects),
            State::Requested | State::Stopping | State::Gone(_) => {}
            _ => {
                // One that ends without having served is as good as one that never started.
                let (version, useless) =
                    (instance.version, instance.served == 0 && instance.hot_from == StartKind::Cold);
                if useless && let Some(revision) = self.revisions.get_mut(&version) {
                    revision.backoff.failed(now, StartFailure::Exited(exit));
                }
                self.kill(now, id, Why::Exited(exit), effects);
            }
        }
    }

    /// An operation did not end in time.
    pub(super) fn operation_late(&mut self, now: u64, id: InstanceId, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id) else { return };
        match instance.state {
            State::Starting => self.start_failed(now, id, StartFailure::NeverReady, effects),
            State::Initializing => self.start_failed(now, id, StartFailure::InitializeFailed { status: 0 }, effects),
            // Whether it sleeps is not known, so it cannot be trusted with a request.
            _ => self.kill(now, id, Why::Deadline, effects),
        }
    }

    fn hot(&mut self, now: u64, id: InstanceId, from: StartKind, why: Why, effects: &mut Vec<Effect>) {
        self.change(now, id, State::Ready, why, effects);
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.hot_since = now;
        instance.hot_from = from;
        instance.last_used = now;
        let version = instance.version;
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        revision.backoff.clear();
        if revision.role == Role::Candidate {
            self.promote(now, version, effects);
        }
    }

    fn start_failed(&mut self, now: u64, id: InstanceId, failure: StartFailure, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get(&id) else { return };
        let version = instance.version;
        self.kill(now, id, Why::StartFailed(failure), effects);
        let others = self.instances.values().any(|instance| {
            instance.version == version
                && matches!(instance.state.class(), Class::Hot | Class::Starting | Class::Asleep)
        });
        let Some(revision) = self.revisions.get_mut(&version) else { return };
        revision.backoff.failed(now, failure);
        if revision.role == Role::Candidate {
            revision.role = Role::Retiring;
            effects.push(Effect::VersionFailed { version, failure });
        }
        if !others {
            while let Some((ticket, _)) = revision.queue.pop() {
                effects.push(Effect::Refuse { ticket, refusal: Refusal::StartFailed(failure) });
            }
        }
    }

    fn kill(&mut self, now: u64, id: InstanceId, why: Why, effects: &mut Vec<Effect>) {
        let limit = self.limits(id).stop;
        self.placed.retain(|_, placed| *placed != id);
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.in_flight = 0;
        }
        self.operate(now, id, State::Stopping, Operate::Kill, limit, why, effects);
    }

    fn limits(&self, id: InstanceId) -> crate::policy::Limits {
        let revision = self.instances.get(&id).and_then(|instance| self.revisions.get(&instance.version));
        revision.map_or(crate::policy::Limits { start: 0, initialize: 0, sleep: 0, stop: 10_000, request: 0 }, |r| {
            r.policy.limits
        })
    }

    fn has_initialize(&self, id: InstanceId) -> bool {
        let revision = self.instances.get(&id).and_then(|instance| self.revisions.get(&instance.version));
        revision.is_some_and(|revision| revision.policy.initialize)
    }
}
