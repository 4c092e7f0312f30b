//! The driver: what a server's shell does for a core, with given times in place of processes.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use kip_fleet::state::STATES;
use kip_fleet::{
    Call, CoreHost, CoreNumber, Effect, Event, FromPlacer, Now, Operate, OperationOutcome, Place, Policy, StartKind,
    Ticket, ToPlacer, Usage,
};
use kip_spec::VersionId;

use super::delays::Delays;
use super::request::{InstanceTimes, TraceRequest};

const VERSION: VersionId = VersionId(1);

/// What became of a replayed trace.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How long requests waited.
    pub delays: Delays,
    /// Requests whose wait ended with a start.
    pub cold: u64,
    /// Requests whose wait ended with a wake.
    pub woken: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Instances that were started.
    pub starts: u64,
    /// Instances at once at most, those asleep among them.
    pub peak_instances: u32,
    /// Milliseconds of all instances by state ([`kip_fleet::State::index`]).
    pub times: [u64; STATES],
    /// From the first counted moment to the end of the last request, milliseconds.
    pub span: u64,
    /// Instances that are hot, on the way there, and asleep, in flight and waiting, by minute.
    pub minutes: Vec<Minute>,
}

/// A look at a minute's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Minute {
    /// Hot or busy.
    pub hot: u32,
    /// Starting or waking.
    pub starting: u32,
    /// Asleep.
    pub asleep: u32,
    /// Requests in flight and waiting.
    pub requests: u32,
}

#[derive(Debug)]
struct PlannedEvent {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for PlannedEvent {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for PlannedEvent {}

impl PartialOrd for PlannedEvent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PlannedEvent {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The world of one function.
struct World {
    host: CoreHost,
    times: InstanceTimes,
    due: BinaryHeap<Reverse<PlannedEvent>>,
    number: u64,
    /// When the core wants to be asked again.
    tick: Option<u64>,
    /// Requests that wait, from the ticket `first` on; nothing where one has an instance.
    waiting: VecDeque<Option<TraceRequest>>,
    first: u64,
    queued: u32,
    running: u32,
    /// Requests that came before are not counted.
    from: u64,
    /// Times up to `from`.
    before: Option<[u64; STATES]>,
    alive: u32,
    outcome: Outcome,
    effects: Vec<Effect>,
    end: u64,
}

/// Replays a trace, sorted by arrival, with a policy. What happens before `from` is simulated and not counted.
pub fn replay(
    requests: impl IntoIterator<Item = TraceRequest>,
    policy: Policy,
    times: InstanceTimes,
    from: u64,
) -> Outcome {
    let mut world = World {
        host: CoreHost::new(1, CoreNumber(1), Some((VERSION, Arc::new(policy)))),
        times,
        due: BinaryHeap::new(),
        number: 0,
        tick: None,
        waiting: VecDeque::new(),
        first: 0,
        queued: 0,
        running: 0,
        from,
        before: None,
        alive: 0,
        outcome: Outcome::default(),
        effects: Vec::new(),
        end: from,
    };
    let mut effects = Vec::new();
    world.host.serve(now(0), &mut effects);
    world.carry(0, effects);
    for (ticket, request) in (0..).zip(requests) {
        world.until(request.at);
        world.arrive(ticket, request);
    }
    world.finish()
}

fn now(at: u64) -> Now {
    Now { boot: at, wall: i64::try_from(at).unwrap_or(i64::MAX) }
}

impl World {
    /// Everything that is due up to and at this time.
    fn until(&mut self, time: u64) {
        loop {
            let due = self.due.peek().map(|Reverse(due)| due.at);
            let next = match (due, self.tick) {
                (Some(due), Some(tick)) => due.min(tick),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => return,
            };
            if next > time {
                return;
            }
            if due.is_some_and(|due| due <= next) {
                if let Some(Reverse(due)) = self.due.pop() {
                    if matches!(due.event, Event::Leave { .. }) {
                        self.end = self.end.max(due.at);
                        self.running -= 1;
                    }
                    self.step(due.at, due.event);
                }
            } else {
                self.tick = None;
                self.step(next, Event::Tick);
            }
        }
    }

    fn arrive(&mut self, ticket: u64, request: TraceRequest) {
        self.waiting.push_back(Some(request));
        self.queued += 1;
        self.step(request.at, Event::Arrive { ticket: Ticket(ticket), call: Call::default() });
    }

    /// A request does not wait any more.
    fn take(&mut self, ticket: Ticket) -> Option<TraceRequest> {
        let at = usize::try_from(ticket.0.checked_sub(self.first)?).ok()?;
        let request = self.waiting.get_mut(at)?.take()?;
        self.queued -= 1;
        while self.waiting.front().is_some_and(Option::is_none) {
            self.waiting.pop_front();
            self.first += 1;
        }
        Some(request)
    }

    fn step(&mut self, at: u64, event: Event) {
        self.look(at);
        let mut effects = std::mem::take(&mut self.effects);
        self.host.step(now(at), event, &mut effects);
        self.carry(at, effects);
    }

    /// Settles what is counted by time before anything changes at `at`.
    fn look(&mut self, at: u64) {
        if at >= self.from && self.before.is_none() {
            self.before = Some(self.spent(self.from));
        }
        const MINUTE: u64 = 60_000;
        while at.saturating_sub(self.from) / MINUTE > self.outcome.minutes.len() as u64 {
            let minute = self.minute();
            self.outcome.minutes.push(minute);
        }
    }

    fn minute(&self) -> Minute {
        let mut minute = Minute { requests: self.queued + self.running, ..Minute::default() };
        for instance in self.host.core().into_iter().flat_map(|core| core.instances()) {
            match instance.state.class() {
                kip_fleet::Class::Hot => minute.hot += 1,
                kip_fleet::Class::Starting => minute.starting += 1,
                kip_fleet::Class::Asleep => minute.asleep += 1,
                kip_fleet::Class::Leaving | kip_fleet::Class::Gone => {}
            }
        }
        minute
    }

    /// What all instances have spent up to now, those that are gone and those that live.
    fn spent(&self, at: u64) -> [u64; STATES] {
        let mut times = self.outcome.times;
        for usage in self.host.core().into_iter().flat_map(|core| core.usage(now(at))) {
            add(&mut times, &usage);
        }
        times
    }

    fn carry(&mut self, at: u64, mut effects: Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Dispatch { ticket, start, .. } => {
                    let Some(request) = self.take(ticket) else { continue };
                    self.running += 1;
                    if request.at >= self.from {
                        self.outcome.delays.add(at - request.at);
                        match start {
                            StartKind::Warm => {}
                            StartKind::Woken => self.outcome.woken += 1,
                            StartKind::Cold => self.outcome.cold += 1,
                        }
                    }
                    self.plan(at + request.service, Event::Leave { ticket });
                }
                Effect::Refuse { ticket, .. } => {
                    let counted = self.take(ticket).is_some_and(|request| request.at >= self.from);
                    self.outcome.refused += u64::from(counted);
                }
                Effect::Operate { instance, operation, what, .. } => {
                    let (takes, seen) = match what {
                        Operate::Start { .. } => {
                            self.outcome.starts += u64::from(at >= self.from);
                            self.alive += 1;
                            self.outcome.peak_instances = self.outcome.peak_instances.max(self.alive);
                            (self.times.cold, OperationOutcome::Started)
                        }
                        Operate::Initialize => (0, OperationOutcome::Initialized),
                        Operate::Pause => (0, OperationOutcome::Paused),
                        Operate::Park => (0, OperationOutcome::Parked),
                        Operate::Spill => (0, OperationOutcome::Spilled),
                        Operate::Resume { .. } => (self.times.wake, OperationOutcome::Resumed),
                        Operate::Stop { .. } | Operate::Kill { .. } => (0, OperationOutcome::Stopped),
                    };
                    self.plan(at + takes, Event::Observed { instance, operation, seen });
                }
                Effect::Tell(ToPlacer::Ask { instance, number, .. }) => {
                    let grant = FromPlacer::Grant { instance, place: Place::default(), number, from: None };
                    self.plan(at, Event::Placer(grant));
                }
                Effect::WakeAt(at) => self.tick = Some(at),
                Effect::Ended(usage) => {
                    self.alive = self.alive.saturating_sub(1);
                    add(&mut self.outcome.times, &usage);
                }
                _ => {}
            }
        }
        self.effects = effects;
    }

    fn plan(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.due.push(Reverse(PlannedEvent { at, number: self.number, event }));
    }

    /// Goes on until the last request is over.
    fn finish(mut self) -> Outcome {
        while self.queued + self.running > 0 {
            let due = self.due.peek().map(|Reverse(due)| due.at);
            let Some(next) = due.into_iter().chain(self.tick).min() else { break };
            self.until(next);
        }
        self.look(self.end);
        let before = self.before.unwrap_or([0; STATES]);
        let spent = self.spent(self.end);
        for ((time, all), before) in self.outcome.times.iter_mut().zip(spent).zip(before) {
            *time = all - before;
        }
        self.outcome.span = self.end - self.from;
        self.outcome
    }
}

fn add(times: &mut [u64; STATES], usage: &Usage) {
    for (sum, time) in times.iter_mut().zip(usage.times[0].iter().zip(usage.times[1]).map(|(a, b)| a + b)) {
        *sum += time;
    }
}
