//! Virtual time, and what happens in it: cores, one placer, a router with delays, bodies, callers.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_fleet::router::Message;
use kip_fleet::{AliasNumber, Draw, Qualifier, Target};
use kip_fleet::{
    Call, CoreNumber, Effect, Event, Inventory, Now, Operate, OperationNumber, Place, Placer, Policy, ProgramExit,
    Recovery, Router, Ticket, ToPlacer,
};
use kip_spec::scaling::Fc;
use kip_spec::{InstanceId, VersionId};

use crate::body::Condition;
use crate::cell::{Cell, Request};
use crate::fate::{FateSource, OperationFate};
use crate::fault::Fault;
use crate::invariant::Failure;
use crate::plant::PlantedBug;
use crate::room::Rooms;
use crate::task::{TaskEvent, Tasks};
use crate::trace::{Detail, Trace};

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum WorldEvent {
    /// A request comes, and the next one is drawn.
    Arrive,
    /// A request's work is done, its connection broke, or its caller leaves.
    Leave(Ticket),
    /// An operation has been done to a body, or not.
    Operated(InstanceId, OperationNumber, Operate, OperationFate),
    /// A program ends by itself.
    Dies(InstanceId),
    /// A core learns something.
    Told(Event),
    /// The placer learns something.
    ToPlacer(ToPlacer),
    /// A core's timer.
    Alarm(u64),
    /// The ready probe has another answer from now on.
    Ready(InstanceId, bool),
    /// The live probe fails.
    NotLive(InstanceId, bool),
    /// What an earlier server left on an instance ends.
    Settles(InstanceId),
    /// Something about tasks.
    Task(TaskEvent),
    /// A rollout is looked at.
    Rollout,
}

/// Everything that is, at one moment of virtual time.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: u64,
    sequence: u64,
    /// By time and then by order of being planned; never by anything that could differ between runs.
    pub(crate) future: BTreeMap<(u64, u64), (usize, WorldEvent)>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) placer: Placer,
    pub(crate) router: Router,
    /// When the last message of a pair arrives: within a pair none overtakes another.
    pub(crate) lanes: BTreeMap<(usize, bool), u64>,
    /// Who really has what room.
    pub(crate) rooms: Rooms,
    pub(crate) tasks: Tasks,
    pub(crate) fates: FateSource,
    pub(crate) trace: Trace,
    pub(crate) plant: Option<PlantedBug>,
    pub(crate) checked: bool,
    pub(crate) failure: Option<Failure>,
    effects: Vec<Effect>,
    next_version: u64,
    pub(crate) steps: u64,
    /// Steps at this very moment: without a bound, a livelock would never end.
    at_once: u32,
    /// Programs that a restarted server did not find.
    pub(crate) orphans: u32,
    /// How long each request waited for its place, milliseconds, where that is asked for.
    pub(crate) waits: Option<Vec<u64>>,
    /// Devices that are out of use, by pool, host and bit, until when.
    pub(crate) yielded: BTreeMap<(u16, u32, u64), u64>,
}

impl World {
    pub(crate) fn new(names: Vec<String>, inventory: Inventory, fates: FateSource, detail: Detail) -> Self {
        let cells = (0..).zip(names).map(|(number, name)| Cell::new(name, CoreNumber(number))).collect();
        Self {
            now: 0,
            sequence: 0,
            future: BTreeMap::new(),
            cells,
            placer: Placer::new(inventory),
            router: Router::default(),
            lanes: BTreeMap::new(),
            rooms: Rooms::default(),
            tasks: Tasks::new(),
            fates,
            trace: Trace::new(detail),
            plant: None,
            checked: true,
            failure: None,
            effects: Vec::new(),
            next_version: 0,
            steps: 0,
            at_once: 0,
            orphans: 0,
            waits: None,
            yielded: BTreeMap::new(),
        }
    }

    /// Adds a function and gives its number.
    pub(crate) fn add(&mut self, name: &str) -> usize {
        let number = self.cells.len();
        self.cells.push(Cell::new(name.to_owned(), CoreNumber(u32::try_from(number).unwrap_or(u32::MAX))));
        number
    }

    /// Plans something.
    pub(crate) fn plan(&mut self, at: u64, function: usize, happening: WorldEvent) {
        self.sequence += 1;
        self.future.insert((at.max(self.now), self.sequence), (function, happening));
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.future.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes what happens next. Arrivals of a workload are for the caller, who knows the traffic.
    pub(crate) fn take(&mut self) -> Option<(usize, WorldEvent)> {
        let ((at, _), happening) = self.future.pop_first()?;
        if at > self.now {
            self.at_once = 0;
        }
        self.now = at;
        Some(happening)
    }

    /// Lets virtual time pass up to a moment, where no workload is running.
    pub(crate) fn run_until(&mut self, end: u64) {
        while self.failure.is_none() && self.next_at().is_some_and(|at| at <= end) {
            if let Some((function, happening)) = self.take() {
                self.happen(function, happening);
            }
        }
        self.now = self.now.max(end);
    }

    /// Lets something happen.
    pub(crate) fn happen(&mut self, function: usize, happening: WorldEvent) {
        match happening {
            WorldEvent::Arrive => {}
            WorldEvent::Leave(ticket) => self.leave(function, ticket),
            WorldEvent::Operated(instance, operation, what, fate) => {
                self.operated(function, instance, operation, what, fate);
            }
            WorldEvent::Dies(instance) => self.dies(function, instance),
            WorldEvent::Told(event) => self.told(function, event),
            WorldEvent::ToPlacer(message) => self.placer_told(message),
            WorldEvent::Alarm(at) if self.cells[function].alarm == Some(at) => {
                self.cells[function].alarm = None;
                if self.plant == Some(PlantedBug::LostTick) && self.now.is_multiple_of(7) {
                    return;
                }
                self.step(function, Event::Tick);
            }
            WorldEvent::Alarm(_) => {}
            WorldEvent::Ready(instance, ready) => self.probed(function, instance, ready),
            WorldEvent::NotLive(instance, slow) => self.ails(function, instance, slow),
            WorldEvent::Settles(instance) => self.settles(function, instance),
            WorldEvent::Task(event) => self.task(function, event),
            WorldEvent::Rollout => self.look_at_rollout(function),
        }
    }

    /// A version is deployed.
    pub(crate) fn deploy(&mut self, function: usize, policy: Arc<Policy>) {
        self.next_version += 1;
        self.step(function, Event::Deploy { version: VersionId(self.next_version), policy });
    }

    /// Points the function's alias at the latest of its versions.
    pub(crate) fn point(&mut self, function: usize, weights: &[u32], provisioned: u32) {
        let cell = &self.cells[function];
        if cell.closed {
            return;
        }
        let latest = cell.versions.iter().rev().zip(weights);
        let targets: Vec<Target> = latest
            .map(|((version, policy), weight)| Target { version: *version, policy: policy.clone(), weight: *weight })
            .collect();
        self.step(
            function,
            Event::Alias { alias: AliasNumber(0), targets, latest: 0, provisioned, draw: Draw::Begin(0) },
        );
    }

    /// Something is provisioned from outside, or not any more.
    pub(crate) fn provision(&mut self, function: usize, settings: Option<Arc<Fc>>) {
        if !self.cells[function].closed {
            self.step(function, Event::Provision { qualifier: Qualifier::Latest, settings });
        }
    }

    /// A request arrives.
    pub(crate) fn arrive(&mut self, function: usize, work: u64, patience: Option<u64>, call: Call) -> Ticket {
        let now = self.now;
        let stuck = self.fates.stuck(function);
        let cell = &mut self.cells[function];
        let ticket = Ticket(cell.next_ticket);
        cell.next_ticket += 1;
        cell.ends.accepted += 1;
        cell.waiting += 1;
        cell.requests.insert(ticket, Request { since: now, at: None, work, stuck });
        if let Some(patience) = patience {
            self.plan(now.saturating_add(patience), function, WorldEvent::Leave(ticket));
        }
        self.step(function, Event::Arrive { ticket, call });
        ticket
    }

    /// A request leaves, from wherever it is. Nothing if it has ended already.
    pub(crate) fn leave(&mut self, function: usize, ticket: Ticket) {
        let cell = &mut self.cells[function];
        let Some(request) = cell.requests.remove(&ticket) else { return };
        match request.at {
            None => {
                cell.waiting -= 1;
                cell.ends.cancelled += 1;
            }
            Some(instance) => {
                cell.ends.left += 1;
                if let Some(body) = cell.bodies.get_mut(&instance) {
                    // One that broke off was counted when it did.
                    if body.condition != Condition::Dead {
                        cell.counts.entry(body.version).or_default().0 += 1;
                    }
                    body.in_flight -= 1;
                    body.last_byte = self.now;
                    body.stuck -= u32::from(request.stuck);
                }
            }
        }
        if self.plant == Some(PlantedBug::ForgottenLeave) && self.now.is_multiple_of(7) {
            return;
        }
        self.step(function, Event::Leave { ticket });
        self.place_lost(function, ticket);
    }

    /// A program ends by itself, if there is one.
    pub(crate) fn dies(&mut self, function: usize, instance: InstanceId) {
        let Some(body) = self.cells[function].bodies.get_mut(&instance) else { return };
        if !matches!(body.condition, Condition::Up | Condition::Frozen(_)) {
            return;
        }
        body.condition = Condition::Dead;
        body.news += 1;
        let after = self.fates.news(function);
        let exit = ProgramExit { code: None, signal: Some(9) };
        self.plan(self.now + after, function, WorldEvent::Told(Event::Exited { instance, exit }));
        self.break_off(function, instance);
    }

    /// Requests with a body that is gone break off; their callers notice within a moment.
    pub(crate) fn break_off(&mut self, function: usize, instance: InstanceId) {
        let broken: Vec<Ticket> = self.cells[function]
            .requests
            .iter()
            .filter(|(_, request)| request.at == Some(instance))
            .map(|(ticket, _)| *ticket)
            .collect();
        if let Some(body) = self.cells[function].bodies.get(&instance) {
            let (version, count) = (body.version, broken.len() as u64);
            let (requests, failed) = self.cells[function].counts.entry(version).or_default();
            (*requests, *failed) = (*requests + count, *failed + count);
        }
        for ticket in broken {
            self.plan(self.now + ticket.0 % 3, function, WorldEvent::Leave(ticket));
        }
    }

    fn told(&mut self, function: usize, event: Event) {
        match &event {
            Event::Exited { instance, .. } => {
                if let Some(body) = self.cells[function].bodies.get_mut(instance) {
                    body.news -= 1;
                    body.end_known = true;
                }
            }
            Event::Observed { instance, operation, .. } => {
                if let Some(body) = self.cells[function].bodies.get_mut(instance)
                    && body.asked.is_some_and(|asked| asked.operation == *operation)
                {
                    body.asked = None;
                }
            }
            _ => {}
        }
        self.step(function, event);
    }

    /// Steps a core and carries out what it wants.
    pub(crate) fn step(&mut self, function: usize, event: Event) {
        self.steps += 1;
        self.at_once += 1;
        if self.at_once > 20_000 {
            let name = self.cells[function].name.clone();
            self.fail("progress", format!("{name} is stepped for ever at one moment; the last event was {event:?}"));
            return;
        }
        self.trace.event(self.now, function, &self.cells[function], &event);
        let fails = self.fates.panics(function);
        self.drive(function, |cell, now, effects| cell.step(now, event, fails, effects));
    }

    /// Every instance of an earlier server was handed in.
    pub(crate) fn serve(&mut self, function: usize) {
        self.drive(function, |cell, now, effects| cell.host.serve(now, effects));
    }

    fn drive(&mut self, function: usize, act: impl FnOnce(&mut Cell, Now, &mut Vec<Effect>) -> Option<Recovery>) {
        let mut effects = std::mem::take(&mut self.effects);
        let now = Now { boot: self.now, wall: self.fates.wall(self.now) };
        let recovery = act(&mut self.cells[function], now, &mut effects);
        if let Some(Recovery { cause, quarantined }) = recovery {
            let name = self.cells[function].name.clone();
            let after = if quarantined { "is put into quarantine" } else { "begins anew" };
            self.trace.tell(self.now, || format!("{name} {after}: {cause}"));
        }
        for effect in effects.drain(..) {
            self.trace.effect(self.now, function, &self.cells[function], &effect);
            self.carry_out(function, effect);
        }
        self.effects = effects;
        self.route();
        if self.checked {
            self.check(function);
        }
    }

    pub(crate) fn post(&mut self, message: ToPlacer) {
        self.router.post(Message::ToPlacer(message));
    }

    /// Sends what lies in the router on its way.
    fn route(&mut self) {
        while let Some(message) = self.router.take() {
            let (function, down, happening) = match message {
                Message::ToPlacer(message) => (function_of(&message), false, WorldEvent::ToPlacer(message)),
                Message::ToFunction { function, message } => {
                    (function.0 as usize, true, WorldEvent::Told(Event::Placer(message)))
                }
            };
            let lane = self.lanes.entry((function, down)).or_default();
            let at = (self.now + self.fates.message()).max(*lane);
            *lane = at;
            self.plan(at, function, happening);
        }
    }

    /// A device is out of use until a time, or in use again: the placer is told at once, as by a server.
    pub(crate) fn yield_device(&mut self, place: Place, until: Option<u64>) {
        let key = (place.pool, place.host, place.devices);
        match until {
            Some(until) => {
                self.yielded.insert(key, until);
                self.placer_told(ToPlacer::Yield { place, until });
            }
            None => {
                self.yielded.remove(&key);
                self.placer_told(ToPlacer::Regain { place });
            }
        }
    }

    /// A restarted server tells its placer first.
    pub(crate) fn yield_again(&mut self) {
        for ((pool, host, devices), until) in self.yielded.clone() {
            self.placer_told(ToPlacer::Yield { place: Place { pool, host, devices }, until });
        }
    }

    pub(crate) fn placer_told(&mut self, message: ToPlacer) {
        self.trace.placer(self.now, &message);
        let Some(message) = self.before_placer(message) else { return };
        let mut answers = Vec::new();
        self.placer.step(Now { boot: self.now, wall: 0 }, message, &mut answers);
        for answer in answers {
            if let Message::ToFunction { message, .. } = &answer
                && !self.after_placer(*message)
            {
                continue;
            }
            self.router.post(answer);
        }
        self.route();
        if self.checked {
            self.check_ledger();
        }
    }

    /// What ends a body after it has come up, unless nothing does.
    pub(crate) fn may_die(&mut self, function: usize, instance: InstanceId, fault: Fault, within: u64) {
        if let Some(after) = self.fates.death(function, fault, within) {
            self.plan(self.now + after, function, WorldEvent::Dies(instance));
        }
    }
}

/// Whose message it is.
fn function_of(message: &ToPlacer) -> usize {
    let core = match message {
        ToPlacer::Ask { function, .. } | ToPlacer::Hold { function, .. } => function.0,
        ToPlacer::Release { instance }
        | ToPlacer::Rests { instance, .. }
        | ToPlacer::Cancel { instance }
        | ToPlacer::Serving { instance }
        | ToPlacer::Offer { instance, .. }
        | ToPlacer::Withdraw { instance }
        | ToPlacer::Observed { instance, .. }
        | ToPlacer::Residue { instance, .. }
        | ToPlacer::Resize { instance, .. }
        | ToPlacer::Declined { instance } => instance.core,
        ToPlacer::Yield { .. }
        | ToPlacer::Regain { .. }
        | ToPlacer::Lose { .. }
        | ToPlacer::Find { .. }
        | ToPlacer::Weigh { .. }
        | ToPlacer::Limit(_) => 0,
    };
    core as usize
}
