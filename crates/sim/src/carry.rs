//! What cores want, carried out on the world's bodies and callers; and what the world sees on the way to and from the placer.

use kip_fleet::{
    Effect, Event, FromPlacer, Operate, OperationNumber, OperationOutcome, ProgramExit, Reason, RoomNeed, StartFailure,
    State, Ticket, ToPlacer,
};
use kip_spec::InstanceId;

use crate::body::{Body, Condition, PendingOperation};
use crate::fate::{OperationEnd, OperationFate};
use crate::fault::Fault;
use crate::plant::PlantedBug;
use crate::world::{World, WorldEvent};

impl World {
    pub(crate) fn carry_out(&mut self, function: usize, effect: Effect) {
        match effect {
            Effect::Dispatch { ticket, instance, .. } => self.dispatched(function, ticket, instance),
            Effect::Offer { ticket, instance, .. } => self.offered(function, ticket, instance),
            Effect::Refuse { ticket, .. } => {
                let cell = &mut self.cells[function];
                match cell.requests.remove(&ticket) {
                    Some(request) if request.at.is_none() => {
                        cell.waiting -= 1;
                        cell.ends.refused += 1;
                    }
                    other => self.fail("ends once", format!("{ticket:?} is refused but is {other:?}")),
                }
            }
            Effect::Operate { instance, operation, what, .. } => self.operate(function, instance, operation, what),
            Effect::Tell(message) => self.post(message),
            Effect::WakeAt(at) => {
                let at = at.max(self.now);
                let cell = &mut self.cells[function];
                if cell.alarm.is_none_or(|alarm| at < alarm) {
                    cell.alarm = Some(at);
                    let late = self.fates.timer();
                    self.plan(at.saturating_add(late), function, WorldEvent::Alarm(at));
                }
            }
            Effect::Changed(change) => match (change.from, change.to) {
                (None, _) => {
                    if self.cells[function].bodies.contains_key(&change.instance) && change.why == Reason::Adopted {
                        return;
                    }
                    let born = Body::new(change.version, self.now);
                    if self.cells[function].bodies.insert(change.instance, born).is_some() {
                        self.fail("ids", format!("{} was made twice", change.instance));
                    }
                }
                (Some(_), State::Gone(_)) => {
                    self.cells[function].forget_versions();
                    let body = self.cells[function].bodies.remove(&change.instance);
                    if body.as_ref().is_none_or(|body| body.condition != Condition::Nothing) {
                        self.fail("nothing is left", format!("{} is called gone but is {body:?}", change.instance));
                    }
                }
                (Some(_), State::Stopping) if matches!(change.why, Reason::CoreFailed | Reason::Quarantined) => {
                    // Whatever it works at: nobody knows its state any more.
                    if let Some(body) = self.cells[function].bodies.get_mut(&change.instance) {
                        body.not_live = true;
                    }
                }
                _ => {}
            },
            Effect::Promoted { version } => self.cells[function].serving = version,
            Effect::VersionFailed { .. } | Effect::CrashLoop { .. } | Effect::RungsDisabled { .. } => {}
            Effect::Scaled { .. } | Effect::Provisioned { .. } => {}
            Effect::AskProgress { instance } => self.tell_progress(function, instance),
            Effect::Ended(usage) => self.check_usage(function, &usage),
        }
    }

    fn dispatched(&mut self, function: usize, ticket: Ticket, instance: InstanceId) {
        let now = self.now;
        let cell = &mut self.cells[function];
        let Some(request) = cell.requests.get_mut(&ticket).filter(|request| request.at.is_none()) else {
            self.fail("ends once", format!("{ticket:?} is dispatched but does not wait"));
            return;
        };
        request.at = Some(instance);
        let request = *request;
        if let Some(waits) = &mut self.waits {
            waits.push(now - request.since);
        }
        let done = now.saturating_add(request.work);
        cell.waiting -= 1;
        let Some(body) = cell.bodies.get_mut(&instance) else {
            self.fail("dispatch", format!("{ticket:?} goes to {instance}, which does not exist"));
            return;
        };
        body.in_flight += 1;
        body.last_byte = now;
        body.stuck += u32::from(request.stuck);
        match body.condition {
            // A caller that scripts leave by themselves has no end of its own.
            Condition::Up if request.work == u64::MAX => {}
            Condition::Up if request.stuck => {
                // The relay gives up in the end, where nobody watches.
                let total = cell.versions.get(&body.version).map_or(60_000, |policy| policy.limits.request);
                self.plan(now.saturating_add(total), function, WorldEvent::Leave(ticket));
            }
            Condition::Up => self.plan(done, function, WorldEvent::Leave(ticket)),
            // Its end is not known to the core yet: the request breaks off at once.
            Condition::Dead if body.news > 0 => self.plan(now + 1, function, WorldEvent::Leave(ticket)),
            condition => {
                self.fail("dispatch", format!("{ticket:?} goes to {instance}, which is {condition:?}"));
                return;
            }
        }
        self.check_dispatch(function, instance);
        self.may_die(function, instance, Fault::DeathAtWork, 200);
    }

    fn operate(&mut self, function: usize, instance: InstanceId, operation: OperationNumber, what: Operate) {
        self.check_operation(function, instance, what);
        let Some(body) = self.cells[function].bodies.get_mut(&instance) else { return };
        body.asked = Some(PendingOperation { operation, at: self.now });
        body.killed |= matches!(what, Operate::Kill { .. });
        if let Operate::Start { place } = what {
            (body.condition, body.place) = (Condition::Starting, place);
        }
        let stale = matches!(what, Operate::Resume { .. }) && body.woken_before;
        let fate = self.fates.operation(function, what);
        if matches!(what, Operate::Resume { .. }) {
            self.may_die(function, instance, Fault::DeathAtWork, 8);
        }
        if matches!(what, Operate::Start { .. })
            && self.plant == Some(PlantedBug::EagerStart)
            && self.now.is_multiple_of(7)
        {
            let early = Event::Observed { instance, operation, seen: OperationOutcome::Started };
            self.plan(self.now + 1, function, WorldEvent::Told(early));
        }
        if stale && self.plant == Some(PlantedBug::StaleAnswer) {
            let early = Event::Observed { instance, operation, seen: OperationOutcome::Resumed };
            self.plan(self.now, function, WorldEvent::Told(early));
        }
        self.plan(self.now + fate.takes, function, WorldEvent::Operated(instance, operation, what, fate));
    }

    /// An operation has been done, or has failed, or hangs.
    pub(crate) fn operated(
        &mut self,
        function: usize,
        instance: InstanceId,
        operation: OperationNumber,
        what: Operate,
        fate: OperationFate,
    ) {
        let Some(body) = self.cells[function].bodies.get_mut(&instance) else { return };
        let done = match fate.end {
            OperationEnd::Well => body.apply(what),
            OperationEnd::Silent { done } => done && body.apply(what),
            OperationEnd::Fails => {
                // What failed to start is not there any more, but its traces are.
                if matches!(what, Operate::Start { .. }) && body.condition == Condition::Starting {
                    body.condition = Condition::Dead;
                }
                false
            }
        };
        let gone = body.condition == Condition::Nothing;
        body.woken_before |= matches!(what, Operate::Resume { .. }) && done;
        if done && gone {
            self.break_off(function, instance);
        }
        if done && matches!(what, Operate::Start { .. }) {
            self.may_die(function, instance, Fault::Death, 20_000);
        }
        if done && matches!(what, Operate::Start { .. } | Operate::Resume { .. }) {
            self.may_ail(function, instance);
        }
        if done && what == Operate::Pause {
            self.may_die(function, instance, Fault::DeathAtWork, 5_000);
        }
        let unheard = self.plant == Some(PlantedBug::EndlessStop) && instance.sequence.is_multiple_of(7);
        if matches!(fate.end, OperationEnd::Silent { .. })
            || unheard && matches!(what, Operate::Stop { .. } | Operate::Kill { .. })
        {
            return;
        }
        let seen = match (what, done) {
            (Operate::Start { .. }, true) => OperationOutcome::Started,
            (Operate::Start { .. }, false) => {
                OperationOutcome::StartFailed(StartFailure::Exited(ProgramExit { code: Some(1), signal: None }))
            }
            (Operate::Initialize, true) => OperationOutcome::Initialized,
            (Operate::Initialize, false) => {
                OperationOutcome::StartFailed(StartFailure::InitializeFailed { status: 500 })
            }
            (Operate::Pause, true) if self.plant == Some(PlantedBug::SwallowedPause) => OperationOutcome::PauseFailed,
            (Operate::Pause, true) => OperationOutcome::Paused,
            (Operate::Pause, false) => OperationOutcome::PauseFailed,
            (Operate::Park, true) => OperationOutcome::Parked,
            (Operate::Park, false) if fate.unknown => OperationOutcome::ParkUnknown,
            (Operate::Park, false) => OperationOutcome::ParkFailed,
            (Operate::Spill, true) => OperationOutcome::Spilled,
            (Operate::Spill, false) if fate.unknown => OperationOutcome::ParkUnknown,
            (Operate::Spill, false) => OperationOutcome::SpillFailed,
            (Operate::Resume { .. }, true) => OperationOutcome::Resumed,
            (Operate::Resume { .. }, false) if fate.unknown => OperationOutcome::CanaryFailed,
            (Operate::Resume { .. }, false) => OperationOutcome::ResumeFailed,
            (Operate::Stop { .. } | Operate::Kill { .. }, _) => OperationOutcome::Stopped,
        };
        let event = Event::Observed { instance, operation, seen };
        if let Some(again) = fate.again_after {
            self.plan(self.now + fate.known_after + again, function, WorldEvent::Told(event.clone()));
        }
        self.plan(self.now + fate.known_after, function, WorldEvent::Told(event));
    }

    /// When a byte last came from an instance: while it works well, just now.
    fn tell_progress(&mut self, function: usize, instance: InstanceId) {
        let Some(body) = self.cells[function].bodies.get(&instance) else { return };
        let blind = self.plant == Some(PlantedBug::BlindWatchdog);
        let last = if body.stuck > 0 && !blind { body.last_byte } else { self.now };
        self.plan(self.now, function, WorldEvent::Told(Event::Progress { instance, last }));
    }

    /// What the placer is told, after planted bugs; `None` if it never hears of it.
    pub(crate) fn before_placer(&mut self, message: ToPlacer) -> Option<ToPlacer> {
        match message {
            ToPlacer::Ask { function, instance, version, mut need, urgency, number } => {
                self.rooms.asked(instance, need);
                if self.plant == Some(PlantedBug::BlindLedger) {
                    need = RoomNeed { kind: need.kind, ..RoomNeed::default() };
                }
                if self.plant == Some(PlantedBug::ForgottenPort) {
                    need.port = 0;
                }
                let lost = self.plant == Some(PlantedBug::LostAsk) && self.now.is_multiple_of(7);
                (!lost).then_some(ToPlacer::Ask { function, instance, version, need, urgency, number })
            }
            ToPlacer::Cancel { .. } => (self.plant != Some(PlantedBug::ForgottenCancel)).then_some(message),
            ToPlacer::Hold { instance, need, place, rung, .. } => {
                self.rooms.held(instance, need, place, rung);
                Some(message)
            }
            ToPlacer::Rests { instance, rung } => {
                self.check_rests(instance, rung);
                self.rooms.rests(instance, rung);
                Some(message)
            }
            ToPlacer::Serving { instance } => {
                self.rooms.serves(instance);
                Some(message)
            }
            ToPlacer::Release { instance } => {
                let waits = self.rooms.waits(instance);
                self.rooms.released(instance);
                self.check_release(instance);
                let forgotten = self.plant == Some(PlantedBug::ForgottenRelease) && self.now.is_multiple_of(7)
                    || self.plant == Some(PlantedBug::ForgottenCancel) && waits;
                (!forgotten).then_some(message)
            }
            _ => Some(message),
        }
    }

    /// Notes what the placer answers. False if the answer is lost, by a planted bug.
    pub(crate) fn after_placer(&mut self, message: FromPlacer) -> bool {
        match message {
            FromPlacer::Grant { instance, place, .. } => {
                let yielded = self.yielded.keys().any(|(pool, host, device)| {
                    (*pool, *host) == (place.pool, place.host) && place.devices & device != 0
                });
                if yielded && self.rooms.needs_device(instance) {
                    self.fail("yield", format!("{instance} is granted room on a yielded device"));
                }
                self.rooms.granted(instance, place);
                true
            }
            FromPlacer::Refuse { instance } => {
                self.rooms.released(instance);
                true
            }
            FromPlacer::Evict { instance, .. } => {
                let cell = &self.cells[instance.core as usize];
                let asleep =
                    cell.core().and_then(|core| core.instance(instance)).is_some_and(|i| i.state.rung().is_some());
                if asleep && self.plant == Some(PlantedBug::Stubborn) {
                    self.post(ToPlacer::Declined { instance });
                    return false;
                }
                self.plant != Some(PlantedBug::ForgottenEvict)
            }
            FromPlacer::Waits { .. } => self.plant != Some(PlantedBug::SwallowedWaits),
            FromPlacer::Press { .. } | FromPlacer::Relax | FromPlacer::Restore { .. } => true,
        }
    }
}
