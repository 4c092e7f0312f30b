//! The driver: what a server's shell does for cores, with given times in place of processes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use kip_fleet::router::Message;
use kip_fleet::state::STATES;
use kip_fleet::{
    Call, Change, CoreHost, CoreNumber, Effect, Event, FromPlacer, Now, Operate, OperationOutcome, Place, Policy,
    ScalingExplanation, StartKind, State, Ticket, ToPlacer, Usage,
};
use kip_spec::VersionId;

use super::delays::Delays;
use super::pool::Pool;
use super::request::{InstanceTimes, TraceRequest};
use super::series::{Level, Series};
use crate::random::Random;

const VERSION: VersionId = VersionId(1);

/// What is replayed, and under which conditions.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How each function scales.
    pub policy: Arc<Policy>,
    /// How long instances start and wake.
    pub times: InstanceTimes,
    /// What happens before is simulated and not counted, milliseconds.
    pub from: u64,
    /// Devices that all functions share, one for each instance that is not asleep; unlimited without a number.
    pub devices: Option<u32>,
    /// For what is drawn.
    pub seed: u64,
    /// What the scalers go by at this time is part of the outcome.
    pub explain: Option<u64>,
}

/// What a function's scaler goes by at the time that was asked for.
#[derive(Debug, Clone)]
pub struct FunctionExplanation {
    /// The number of the function.
    pub function: u32,
    /// What its scaler sees and wants.
    pub scaling: ScalingExplanation,
    /// Its last changes before: when, which instance, and to what, oldest first.
    pub changes: Vec<(u64, Change)>,
}

/// Changes of an instance that are part of an explanation.
const CHANGES: usize = 8;

/// What became of a replayed trace.
#[derive(Debug, Clone)]
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
    /// Instances at once at most that start, wake, are hot or work.
    pub peak_awake: u32,
    /// Milliseconds of all instances by state ([`kip_fleet::State::index`]), as the cores have metered them.
    pub times: [u64; STATES],
    /// From the first counted moment to the end of the last request, milliseconds.
    pub span: u64,
    /// What there was over time.
    pub series: Series,
    /// The sum of what all counted requests spent waiting and in flight, milliseconds.
    pub sojourn: u128,
    /// A hash of every dispatch, refusal and change of an instance, with its time: equal for equal runs.
    pub hash: u64,
    /// Of each function: requests that count, and those of them that waited for a start.
    pub functions: Vec<(u64, u64)>,
    /// What was to be explained, of each function that had instances or requests then.
    pub explanations: Vec<FunctionExplanation>,
}

/// What is due for the placer, in the place of a cell.
const PLACER: u32 = u32::MAX;

/// When something is due: events before timers, and in the order in which they were planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PlannedStep {
    at: u64,
    timer: bool,
    number: u64,
    cell: u32,
    /// Where its event is.
    slot: u32,
}

/// One function.
#[derive(Debug)]
struct Cell {
    host: CoreHost,
    /// When the core wants to be asked again.
    tick: Option<u64>,
    /// Requests that wait, from the ticket `first` on; nothing where one has an instance.
    waiting: VecDeque<Option<TraceRequest>>,
    first: u64,
    next: u64,
    /// Its latest changes, while an explanation is to come.
    changes: VecDeque<(u64, Change)>,
}

/// A replay under way: requests go in by their order of arrival, the outcome comes out at the end. Its memory grows with the requests
/// and instances at once, and not with the trace.
#[derive(Debug)]
pub struct Replay {
    setup: Setup,
    pool: Pool,
    cells: Vec<Cell>,
    due: BinaryHeap<Reverse<PlannedStep>>,
    events: Vec<Option<Event>>,
    /// What the placer told itself, for when its turn comes.
    to_placer: VecDeque<ToPlacer>,
    free: Vec<u32>,
    number: u64,
    level: Level,
    random: Random,
    /// Up to when everything that is due has happened.
    clock: u64,
    /// Times up to `from`.
    before: Option<[u64; STATES]>,
    alive: u32,
    outcome: Outcome,
    effects: Vec<Effect>,
    answers: Vec<Message>,
    end: u64,
}

/// Replays a trace, sorted by arrival.
pub fn replay(requests: impl IntoIterator<Item = TraceRequest>, setup: Setup) -> Outcome {
    let mut replay = Replay::new(setup);
    requests.into_iter().for_each(|request| replay.request(request));
    replay.finish()
}

fn now(at: u64) -> Now {
    Now { boot: at, wall: i64::try_from(at).unwrap_or(i64::MAX) }
}

impl Replay {
    /// Nothing has come yet.
    pub fn new(setup: Setup) -> Self {
        let outcome = Outcome {
            delays: Delays::default(),
            cold: 0,
            woken: 0,
            refused: 0,
            starts: 0,
            peak_instances: 0,
            peak_awake: 0,
            times: [0; STATES],
            span: 0,
            series: Series::new(setup.from),
            sojourn: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            functions: Vec::new(),
            explanations: Vec::new(),
        };
        let mut setup = setup;
        let pool = Pool::new(setup.devices, Arc::make_mut(&mut setup.policy));
        Self {
            pool,
            cells: Vec::new(),
            due: BinaryHeap::new(),
            events: Vec::new(),
            to_placer: VecDeque::new(),
            free: Vec::new(),
            number: 0,
            level: Level::default(),
            random: Random::stream(setup.seed, "operations", 0),
            clock: 0,
            before: None,
            alive: 0,
            outcome,
            effects: Vec::new(),
            answers: Vec::new(),
            end: setup.from,
            setup,
        }
    }

    /// The next request; none may come before one that was handed in.
    pub fn request(&mut self, request: TraceRequest) {
        let cell = self.cell(request.function);
        self.explain(request.at);
        self.until(request.at);
        let counts = request.at >= self.setup.from;
        if counts {
            self.outcome.series.arrived(request.at);
            self.outcome.functions[request.function as usize].0 += 1;
        }
        let ticket = cell_ticket(&mut self.cells[cell as usize]);
        self.look(request.at);
        self.cells[cell as usize].waiting.push_back(Some(request));
        self.level.waiting += 1;
        self.step(request.at, cell, Event::Arrive { ticket, call: Call::default() });
    }

    /// Everything that is due up to and at this time happens.
    pub fn until(&mut self, time: u64) {
        while let Some(Reverse(due)) = self.due.peek().copied().filter(|Reverse(due)| due.at <= time) {
            self.due.pop();
            if due.timer {
                let cell = &mut self.cells[due.cell as usize];
                if cell.tick == Some(due.at) {
                    cell.tick = None;
                    self.look(due.at);
                    self.step(due.at, due.cell, Event::Tick);
                }
                continue;
            }
            if due.cell == PLACER {
                if let Some(message) = self.to_placer.pop_front() {
                    self.tell(due.at, due.cell, message);
                }
                continue;
            }
            let Some(event) = self.events[due.slot as usize].take() else { continue };
            self.free.push(due.slot);
            self.look(due.at);
            if matches!(event, Event::Leave { .. }) {
                self.end = self.end.max(due.at);
                self.level.in_flight -= 1;
            }
            self.step(due.at, due.cell, event);
        }
        self.clock = self.clock.max(time);
    }

    /// What is to be explained is noted before anything later happens.
    fn explain(&mut self, before: u64) {
        let Some(at) = self.setup.explain.take_if(|at| *at < before) else { return };
        self.until(at);
        for (function, cell) in (0..).zip(&self.cells) {
            let scaling = cell.host.core().and_then(|core| core.explain(VERSION, now(at)));
            if let Some(scaling) = scaling {
                let changes = cell.changes.iter().copied().collect();
                self.outcome.explanations.push(FunctionExplanation { function, scaling, changes });
            }
        }
    }

    /// The core of a function, if there is one now.
    pub fn host(&self, function: u32) -> Option<&CoreHost> {
        self.cells.get(function as usize).map(|cell| &cell.host)
    }

    /// Goes on until the last request is over.
    pub fn finish(mut self) -> Outcome {
        self.explain(u64::MAX);
        while self.level.waiting + self.level.in_flight > 0 {
            let Some(Reverse(next)) = self.due.peek().copied() else { break };
            self.until(next.at);
        }
        self.look(self.end);
        let before = self.before.unwrap_or([0; STATES]);
        let spent = self.spent(self.end);
        for ((time, all), before) in self.outcome.times.iter_mut().zip(spent).zip(before) {
            *time = all - before;
        }
        self.outcome.span = self.end - self.setup.from;
        self.outcome
    }

    fn cell(&mut self, function: u32) -> u32 {
        while self.cells.len() <= function as usize {
            let number = CoreNumber(u32::try_from(self.cells.len()).unwrap_or(u32::MAX));
            let host = CoreHost::new(1, number, Some((VERSION, self.setup.policy.clone())));
            self.cells.push(Cell {
                host,
                tick: None,
                waiting: VecDeque::new(),
                first: 0,
                next: 0,
                changes: VecDeque::new(),
            });
            self.outcome.functions.push((0, 0));
            let mut effects = std::mem::take(&mut self.effects);
            // A function is there from the request before its own first one on; the first function from the beginning.
            let at = self.clock;
            self.cells[number.0 as usize].host.serve(now(at), &mut effects);
            self.carry(at, number.0, effects);
        }
        function
    }

    fn step(&mut self, at: u64, cell: u32, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        self.cells[cell as usize].host.step(now(at), event, &mut effects);
        self.carry(at, cell, effects);
    }

    /// Settles what is counted by time before anything changes at `at`.
    fn look(&mut self, at: u64) {
        if at >= self.setup.from {
            if self.before.is_none() {
                self.before = Some(self.spent(self.setup.from));
            }
            self.outcome.series.advance(at, self.level);
        }
    }

    /// What all instances have spent up to now, those that are gone and those that live.
    fn spent(&self, at: u64) -> [u64; STATES] {
        let mut times = self.outcome.times;
        let cores = self.cells.iter().filter_map(|cell| cell.host.core());
        for usage in cores.flat_map(|core| core.usage(now(at))) {
            add(&mut times, &usage);
        }
        times
    }

    fn note(&mut self, at: u64, what: u64) {
        let mixed = (self.outcome.hash ^ at).wrapping_mul(0x0100_0000_01b3);
        self.outcome.hash = (mixed ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    /// A request does not wait any more.
    fn take(&mut self, cell: u32, ticket: Ticket) -> Option<TraceRequest> {
        let cell = &mut self.cells[cell as usize];
        let at = usize::try_from(ticket.0.checked_sub(cell.first)?).ok()?;
        let request = cell.waiting.get_mut(at)?.take()?;
        self.level.waiting -= 1;
        while cell.waiting.front().is_some_and(Option::is_none) {
            cell.waiting.pop_front();
            cell.first += 1;
        }
        Some(request)
    }

    fn carry(&mut self, at: u64, cell: u32, mut effects: Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Dispatch { ticket, start, instance } => {
                    let Some(request) = self.take(cell, ticket) else { continue };
                    self.level.in_flight += 1;
                    self.note(at, ticket.0 << 8 ^ u64::from(instance.sequence));
                    if request.at >= self.setup.from {
                        self.outcome.delays.add(at - request.at);
                        self.outcome.sojourn += u128::from(at - request.at + request.service);
                        match start {
                            StartKind::Warm => {}
                            StartKind::Woken => self.outcome.woken += 1,
                            StartKind::Cold => {
                                self.outcome.cold += 1;
                                self.outcome.functions[cell as usize].1 += 1;
                            }
                        }
                    }
                    self.plan(at + request.service, cell, Event::Leave { ticket });
                }
                Effect::Refuse { ticket, .. } => {
                    let counted = self.take(cell, ticket).is_some_and(|request| request.at >= self.setup.from);
                    self.outcome.refused += u64::from(counted);
                    self.note(at, ticket.0);
                }
                Effect::Operate { instance, operation, what, .. } => {
                    let (takes, seen) = match what {
                        Operate::Start { .. } => {
                            self.outcome.starts += u64::from(at >= self.setup.from);
                            (self.setup.times.cold.draw(&mut self.random), OperationOutcome::Started)
                        }
                        Operate::Initialize => (0, OperationOutcome::Initialized),
                        Operate::Pause => (0, OperationOutcome::Paused),
                        Operate::Park => (0, OperationOutcome::Parked),
                        Operate::Spill => (0, OperationOutcome::Spilled),
                        Operate::Resume { .. } => {
                            (self.setup.times.wake.draw(&mut self.random), OperationOutcome::Resumed)
                        }
                        Operate::Stop { .. } | Operate::Kill { .. } => (0, OperationOutcome::Stopped),
                    };
                    self.plan(at + takes, cell, Event::Observed { instance, operation, seen });
                }
                Effect::Tell(message) => self.tell(at, cell, message),
                Effect::WakeAt(when) => {
                    // What is overdue is due now.
                    let when = when.max(at);
                    self.cells[cell as usize].tick = Some(when);
                    self.due.push(Reverse(PlannedStep { at: when, timer: true, number: 0, cell, slot: 0 }));
                }
                Effect::Changed(change) => {
                    self.note(at, u64::from(change.instance.sequence) << 8 ^ change.to.index() as u64);
                    self.changed(change.from, change.to);
                    if self.setup.explain.is_some() {
                        let changes = &mut self.cells[cell as usize].changes;
                        changes.push_back((at, change));
                        if changes.len() > CHANGES {
                            changes.pop_front();
                        }
                    }
                }
                Effect::Ended(usage) => add(&mut self.outcome.times, &usage),
                _ => {}
            }
        }
        self.effects = effects;
    }

    fn tell(&mut self, at: u64, cell: u32, message: ToPlacer) {
        match (self.pool.placer(), message) {
            (None, ToPlacer::Ask { instance, number, .. }) => {
                let grant = FromPlacer::Grant { instance, place: Place::default(), number, from: None };
                self.plan(at, cell, Event::Placer(grant));
            }
            (None, _) => {}
            (Some(placer), message) => {
                let mut answers = std::mem::take(&mut self.answers);
                placer.step(now(at), message, &mut answers);
                for answer in answers.drain(..) {
                    match answer {
                        Message::ToFunction { function, message } => self.plan(at, function.0, Event::Placer(message)),
                        Message::ToPlacer(message) => {
                            self.number += 1;
                            self.to_placer.push_back(message);
                            let (number, cell) = (self.number, PLACER);
                            self.due.push(Reverse(PlannedStep { at, timer: false, number, cell, slot: 0 }));
                        }
                    }
                }
                self.answers = answers;
            }
        }
    }

    fn changed(&mut self, from: Option<State>, to: State) {
        if let Some(count) = from.and_then(|from| self.level.count(from)) {
            *count -= 1;
        }
        if let Some(count) = self.level.count(to) {
            *count += 1;
        }
        // One that asks for room is not there yet.
        let there = |state: State| !matches!(state, State::Requested | State::Gone(_));
        match (from.is_some_and(there), there(to)) {
            (false, true) => self.alive += 1,
            (true, false) => self.alive -= 1,
            _ => {}
        }
        self.outcome.peak_instances = self.outcome.peak_instances.max(self.alive);
        self.outcome.peak_awake = self.outcome.peak_awake.max(self.level.hot + self.level.starting);
    }

    fn plan(&mut self, at: u64, cell: u32, event: Event) {
        self.number += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.events[slot as usize] = Some(event);
                slot
            }
            None => {
                self.events.push(Some(event));
                u32::try_from(self.events.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.due.push(Reverse(PlannedStep { at, timer: false, number: self.number, cell, slot }));
    }
}

fn cell_ticket(cell: &mut Cell) -> Ticket {
    cell.next += 1;
    Ticket(cell.next - 1)
}

fn add(times: &mut [u64; STATES], usage: &Usage) {
    for (sum, time) in times.iter_mut().zip(usage.times[0].iter().zip(usage.times[1]).map(|(a, b)| a + b)) {
        *sum += time;
    }
}
