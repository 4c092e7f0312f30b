//! A small world around the cores: virtual time, operations that take their time and sometimes fail, callers that leave.
//! Stories, with a few invariants after every step; random worlds of many functions are the simulator's, `crates/sim`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kip_spec::function::{Concurrency, Dispatch, Idle, defaults};
use kip_spec::scaling::Scaling;
use kip_spec::{InstanceId, Millis, VersionId};

use super::Backlog;
use crate::placer::Urgency;
use crate::policy::{Limits, Rungs};
use crate::room::Inventory;
use crate::router::Message;
use crate::why::{ProgramExit, Refusal, StartFailure};
use crate::{
    Call, Class, CoreNumber, Effect, Event, FunctionCore, Now, Operate, OperationNumber, OperationOutcome, Placer,
    Policy, RoomNeed, Router, StartKind, State, Ticket, ToPlacer,
};
use crate::{Change, Usage};

/// 2024-07-01T00:00:00Z, when the host booted.
const WALL: i64 = 1_719_792_000_000;

pub(crate) fn policy() -> Policy {
    Policy {
        max: 3,
        queue_depth: 10,
        queue_timeout: 1_000,
        idle: Idle { pause: Some(Millis(100)), stop: Some(Millis(10_000)), ..defaults::IDLE },
        grace: Some(0),
        ..Policy::plain(Limits { start: 500, initialize: 500, sleep: 50, park: 200, stop: 100, request: 10_000 })
    }
}

/// How long operations take and how often they fail.
#[derive(Clone, Copy)]
struct Faults {
    per_cent: u64,
    hang_per_cent: u64,
}

struct World {
    now: u64,
    core: FunctionCore,
    placer: Placer,
    router: Router,
    pending: VecDeque<(u64, Event)>,
    alarm: Option<u64>,
    dice: u64,
    faults: Faults,
    next_ticket: u64,
    waiting: BTreeSet<Ticket>,
    running: BTreeMap<Ticket, (InstanceId, StartKind)>,
    refused: BTreeMap<Ticket, Refusal>,
    attached: BTreeMap<Ticket, Option<(InstanceId, StartKind)>>,
    ended: u64,
    promoted: Vec<VersionId>,
    failed: Vec<(VersionId, StartFailure)>,
    asked: Vec<InstanceId>,
    loops: Vec<u32>,
    disabled: Vec<VersionId>,
    offers: Vec<Ticket>,
    decisions: u32,
    usage: Vec<Usage>,
    changes: Vec<Change>,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, capacity: u64, faults: Faults) -> Self {
        Self {
            now: 1_000,
            core: FunctionCore::new(1, CoreNumber(0), 0),
            placer: Placer::new(Inventory::of_memory(capacity)),
            router: Router::default(),
            pending: VecDeque::new(),
            alarm: None,
            dice: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            faults,
            next_ticket: 0,
            waiting: BTreeSet::new(),
            running: BTreeMap::new(),
            refused: BTreeMap::new(),
            attached: BTreeMap::new(),
            ended: 0,
            promoted: Vec::new(),
            failed: Vec::new(),
            asked: Vec::new(),
            loops: Vec::new(),
            disabled: Vec::new(),
            offers: Vec::new(),
            decisions: 0,
            usage: Vec::new(),
            changes: Vec::new(),
            log: Vec::new(),
        }
    }

    fn calm() -> Self {
        Self::new(1, u64::MAX, Faults { per_cent: 0, hang_per_cent: 0 })
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % below
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        let now = Now { boot: self.now, wall: WALL + i64::try_from(self.now).expect("small") };
        self.log.push(format!("{} {event:?}", self.now));
        assert!(self.log.len() < 100_000, "no progress:\n{}", self.log[99_900..].join("\n"));
        self.core.step(now, event, &mut effects);
        for effect in effects {
            self.log.push(format!("{}   {effect:?}", self.now));
            self.carry_out(effect);
        }
        while let Some(message) = self.router.take() {
            match message {
                Message::ToPlacer(message) => {
                    let mut answers = Vec::new();
                    self.placer.step(now, message, &mut answers);
                    answers.into_iter().for_each(|answer| self.router.post(answer));
                }
                Message::ToFunction { message, .. } => self.step(Event::Placer(message)),
            }
        }
        self.check();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Dispatch { ticket, instance, start } if self.attached.contains_key(&ticket) => {
                self.attached.insert(ticket, Some((instance, start)));
            }
            Effect::Dispatch { ticket, instance, start } => {
                assert!(self.waiting.remove(&ticket), "{ticket:?} dispatched but not waiting");
                self.running.insert(ticket, (instance, start));
            }
            Effect::Offer { ticket, instance, start } => {
                assert!(self.running.insert(ticket, (instance, start)).is_none());
                self.offers.push(ticket);
            }
            Effect::Refuse { ticket, refusal } => {
                if self.attached.remove(&ticket).is_some() {
                    self.waiting.insert(ticket);
                }
                assert!(self.waiting.remove(&ticket), "{ticket:?} refused but not waiting");
                self.refused.insert(ticket, refusal);
            }
            Effect::Operate { instance, operation, what, .. } => {
                let fails = self.roll(100) < self.faults.per_cent;
                if self.roll(100) < self.faults.hang_per_cent {
                    return;
                }
                let seen = match (what, fails) {
                    (Operate::Start { .. }, false) => OperationOutcome::Started,
                    (Operate::Initialize, false) => OperationOutcome::Initialized,
                    (Operate::Start { .. } | Operate::Initialize, true) => {
                        OperationOutcome::StartFailed(StartFailure::NeverReady)
                    }
                    (Operate::Pause, false) => OperationOutcome::Paused,
                    (Operate::Pause, true) => OperationOutcome::PauseFailed,
                    (Operate::Resume { .. }, false) => OperationOutcome::Resumed,
                    (Operate::Resume { .. }, true) => OperationOutcome::ResumeFailed,
                    (Operate::Park, false) => OperationOutcome::Parked,
                    (Operate::Park, true) => OperationOutcome::ParkFailed,
                    (Operate::Spill, false) => OperationOutcome::Spilled,
                    (Operate::Spill, true) => OperationOutcome::SpillFailed,
                    (Operate::Stop { .. } | Operate::Kill { .. }, _) => OperationOutcome::Stopped,
                };
                let takes = match what {
                    Operate::Start { .. } => 20 + self.roll(60),
                    _ => 1 + self.roll(10),
                };
                self.later(takes, Event::Observed { instance, operation, seen });
            }
            Effect::Tell(message) => self.router.post(Message::ToPlacer(message)),
            Effect::WakeAt(at) => self.alarm = Some(at),
            Effect::Promoted { version } => self.promoted.push(version),
            Effect::VersionFailed { version, failure } => self.failed.push((version, failure)),
            Effect::AskProgress { instance } => self.asked.push(instance),
            Effect::CrashLoop { failures, .. } => self.loops.push(failures),
            Effect::RungsDisabled { version } => self.disabled.push(version),
            Effect::Scaled { .. } | Effect::Provisioned { .. } => self.decisions += 1,
            Effect::Ended(usage) => {
                assert_eq!(usage.times.iter().flatten().sum::<u64>(), usage.until - usage.since, "{usage:?}");
                self.usage.push(usage);
            }
            Effect::Changed(change) => self.changes.push(change),
        }
    }

    fn later(&mut self, takes: u64, event: Event) {
        let at = self.now + takes;
        let place = self.pending.partition_point(|(other, _)| *other <= at);
        self.pending.insert(place, (at, event));
    }

    fn arrive(&mut self) -> Ticket {
        self.call(Call::default())
    }

    fn call(&mut self, call: Call) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket);
        self.step(Event::Arrive { ticket, call });
        ticket
    }

    fn attach(&mut self, instance: Option<InstanceId>) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.attached.insert(ticket, None);
        self.step(Event::Attach { ticket, to: crate::Qualifier::Latest, instance });
        ticket
    }

    fn leave(&mut self, ticket: Ticket) {
        self.attached.remove(&ticket);
        if self.running.remove(&ticket).is_some() || self.waiting.remove(&ticket) {
            self.ended += 1;
        }
        self.step(Event::Leave { ticket });
    }

    fn deploy(&mut self, version: u64, policy: Policy) {
        self.step(Event::Deploy { version: VersionId(version), policy: Arc::new(policy) });
    }

    fn backlog(&mut self, count: u32, oldest: u64) {
        self.step(Event::Backlog { version: VersionId(1), backlog: Backlog { count, oldest } });
    }

    /// Lets virtual time pass, event by event.
    fn advance(&mut self, millis: u64) {
        let end = self.now + millis;
        loop {
            let event_at = self.pending.front().map(|(at, _)| *at);
            let next = [event_at, self.alarm].into_iter().flatten().min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if self.alarm.is_some_and(|at| at <= self.now) {
                self.alarm = None;
                self.step(Event::Tick);
            } else if let Some((_, event)) = self.pending.pop_front() {
                self.step(event);
            }
        }
        self.now = end;
    }

    fn states(&self) -> Vec<State> {
        self.core.instances().map(|instance| instance.state).collect()
    }

    fn check(&self) {
        let mut load: BTreeMap<InstanceId, u32> = BTreeMap::new();
        for (instance, _) in self.running.values() {
            *load.entry(*instance).or_default() += 1;
        }
        for instance in self.core.instances() {
            let policy = &self.core.revisions().find(|(v, _)| *v == instance.version).expect("a version").1.policy;
            assert!(instance.in_flight <= policy.concurrency.hard, "over the hard limit: {instance:?}");
            match instance.state {
                State::Busy => assert!(instance.in_flight > 0 || instance.attached > 0),
                State::Draining => {}
                _ => assert_eq!(instance.in_flight, 0, "work on {:?}", instance.state),
            }
            let outstanding = instance.operation.is_some();
            let expected =
                !matches!(instance.state, State::Ready | State::Busy | State::Paused | State::Parked | State::Spilled);
            assert_eq!(outstanding, expected, "operation of {instance:?}");
            let usage = instance.usage(self.now);
            assert_eq!(usage.times.iter().flatten().sum::<u64>(), self.now - usage.since);
        }
        let queued: u32 = self.core.revisions().map(|(_, revision)| revision.queue.depth()).sum();
        assert_eq!(queued as usize, self.waiting.len(), "queue and callers disagree");
        if queued > 0 {
            let hope = self.core.instances().any(|i| i.state.class() != Class::Gone && i.state != State::Ready);
            // What is set aside waits for a word from outside.
            let hope = hope || !self.core.aside.is_empty();
            let alarmed = self.alarm.is_some();
            assert!(hope && alarmed, "requests wait and nothing happens:\n{}", self.log.join("\n"));
        }
        let (reserved, capacity, _) = self.placer.ledger();
        assert!(reserved <= capacity);
    }
}

#[test]
fn from_zero_to_paused_to_woken_to_gone() {
    let mut world = World::calm();
    world.deploy(1, policy());
    assert!(world.core.is_vacant());
    let first = world.arrive();
    world.advance(90);
    assert_eq!(world.running[&first].1, StartKind::Cold);
    world.leave(first);
    world.advance(120);
    assert_eq!(world.states(), [State::Paused]);
    let second = world.arrive();
    world.advance(20);
    assert_eq!(world.running[&second].1, StartKind::Woken);
    world.leave(second);
    let third = world.arrive();
    assert_eq!(world.running[&third].1, StartKind::Warm);
    world.leave(third);
    world.advance(20_000);
    assert_eq!(world.states(), []);
    assert!(world.core.is_vacant());
}

#[test]
fn two_first_requests_for_one_shared_instance_start_one() {
    let mut world = World::calm();
    world.deploy(1, Policy { concurrency: Concurrency { hard: 4, soft: 2 }, ..policy() });
    world.arrive();
    world.arrive();
    assert_eq!(world.states(), [State::Starting]);
    world.advance(100);
    assert_eq!(world.running.len(), 2);
}

#[test]
fn a_backlog_starts_all_it_needs_at_once_and_not_twice() {
    let mut world = World::calm();
    world.deploy(1, Policy { max: 50, concurrency: Concurrency { hard: 4, soft: 4 }, queue_depth: 100, ..policy() });
    for _ in 0..41 {
        world.arrive();
    }
    assert_eq!(world.states().len(), 11);
    world.advance(5);
    assert_eq!(world.states().len(), 11);
}

#[test]
fn tasks_wake_a_function_from_zero_scale_in_one_step_and_let_it_sleep() {
    let mut world = World::calm();
    world.deploy(1, policy());
    world.backlog(5, 1_000);
    assert_eq!(world.states().len(), 3, "as many as there may be, at once");
    assert!(!world.core.is_vacant());
    world.advance(90);
    let first = world.offers.clone();
    assert_eq!(first.len(), 3);
    assert_eq!(world.running[&first[0]].1, StartKind::Cold);
    world.leave(first[0]);
    world.leave(first[1]);
    assert_eq!(world.offers.len(), 5, "a place that is free is offered again");
    for ticket in world.offers.clone().into_iter().skip(2) {
        world.leave(ticket);
    }
    assert_eq!((world.offers.len(), world.running.len()), (5, 0), "nobody is left to be offered one");
    world.advance(200);
    assert!(world.states().iter().all(|state| *state == State::Paused), "{:?}", world.states());
    world.backlog(1, world.now);
    world.advance(20);
    assert_eq!(world.running[&world.offers[5]].1, StartKind::Woken);
    world.leave(world.offers[5]);
    world.advance(30_000);
    assert!(world.core.is_vacant());
}

#[test]
fn tasks_wait_behind_requests_until_they_have_waited_long_enough() {
    let mut world = World::calm();
    world.deploy(1, Policy { max: 1, queue_timeout: 1_000_000, ..policy() });
    let first = world.arrive();
    world.advance(100);
    let second = world.arrive();
    world.backlog(1, world.now - 90);
    world.leave(first);
    assert!(world.running.contains_key(&second) && world.offers.is_empty(), "a request goes first, even a later one");
    let third = world.arrive();
    world.leave(second);
    assert!(world.running.contains_key(&third), "{:?}", world.running);
    world.advance(crate::Priority::STEP);
    world.arrive();
    world.leave(third);
    assert_eq!(world.offers.len(), 1, "a task that has waited so long goes before a fresh request");
}

#[test]
fn a_new_version_takes_the_tasks_that_wait() {
    let mut world = World::calm();
    world.deploy(1, Policy { max: 1, ..policy() });
    world.backlog(3, world.now);
    world.advance(100);
    let on_old = world.offers[0];
    world.deploy(2, policy());
    world.advance(200);
    world.leave(on_old);
    world.advance(200);
    assert_eq!(world.offers.len(), 3);
    let old = world.core.instances().find(|instance| instance.version == VersionId(1));
    assert!(old.is_none(), "a version on its way out is given no task");
}

#[test]
fn tasks_that_wait_go_over_to_the_version_that_serves_from_now_on() {
    let mut world = World::calm();
    let before = Policy { max: 1, ..policy() };
    world.deploy(1, before.clone());
    let targets = vec![crate::Target { version: VersionId(1), policy: Arc::new(before), weight: 1 }];
    world.step(Event::Alias {
        alias: crate::AliasNumber(0),
        targets,
        latest: 0,
        provisioned: 0,
        draw: crate::Draw::Begin(0),
    });
    world.backlog(3, world.now);
    world.advance(100);
    world.deploy(2, policy());
    world.advance(200);
    let waits = |version| {
        world.core.revisions().find(|(id, _)| *id == VersionId(version)).map(|(_, revision)| revision.backlog.count)
    };
    assert_eq!((waits(1), waits(2)), (Some(0), Some(0)), "the alias's version wants no instance for them");
    assert_eq!(world.offers.len(), 3, "and the next one has offered them places");
}

#[test]
fn a_full_queue_and_an_overdue_request_are_refused() {
    let mut world = World::calm();
    world.deploy(
        1,
        Policy {
            max: 1,
            queue_depth: 2,
            queue_timeout: 300,
            idle: Idle { pause: None, stop: None, ..defaults::IDLE },
            ..policy()
        },
    );
    let first = world.arrive();
    world.advance(100);
    let (second, third) = (world.arrive(), world.arrive());
    let fourth = world.arrive();
    assert_eq!(world.refused[&fourth], Refusal::QueueFull { depth: 2 });
    world.advance(301);
    assert_eq!(world.refused[&second], Refusal::QueueTimeout { waited: 300 });
    assert_eq!(world.refused[&third], Refusal::QueueTimeout { waited: 300 });
    world.leave(first);
}

#[test]
fn a_failed_start_refuses_its_callers_at_once_and_recovers_by_itself() {
    let mut world = World::calm();
    world.deploy(1, policy());
    world.faults.per_cent = 100;
    let first = world.arrive();
    world.advance(100);
    assert_eq!(world.refused[&first], Refusal::StartFailed(StartFailure::NeverReady));
    let second = world.arrive();
    world.advance(100);
    assert_eq!(world.refused[&second], Refusal::StartFailed(StartFailure::NeverReady));
    let third = world.arrive();
    assert!(matches!(world.refused[&third], Refusal::Backoff { .. }));
    world.faults.per_cent = 0;
    world.advance(1_000);
    let fourth = world.arrive();
    world.advance(100);
    assert!(world.running.contains_key(&fourth));
}

#[test]
fn a_caller_that_leaves_while_it_waits_is_never_dispatched() {
    let mut world = World::calm();
    world.deploy(1, policy());
    let first = world.arrive();
    world.leave(first);
    world.advance(100);
    assert!(world.running.is_empty());
    assert_eq!(world.states(), [State::Ready], "the start goes on and serves whoever comes next");
}

#[test]
fn an_instance_that_dies_while_paused_is_replaced() {
    let mut world = World::calm();
    world.deploy(1, policy());
    let first = world.arrive();
    world.advance(90);
    world.leave(first);
    world.advance(150);
    let instance = world.core.instances().next().expect("one").id;
    world.step(Event::Exited { instance, exit: ProgramExit { code: None, signal: Some(9) } });
    let second = world.arrive();
    world.advance(200);
    assert_eq!(world.running[&second].1, StartKind::Cold);
}

#[test]
fn a_hung_wake_loses_no_request() {
    let mut world = World::calm();
    world.deploy(1, policy());
    let first = world.arrive();
    world.advance(90);
    world.leave(first);
    world.advance(150);
    assert_eq!(world.states(), [State::Paused]);
    world.faults.hang_per_cent = 100;
    let second = world.arrive();
    world.faults.hang_per_cent = 0;
    world.advance(200);
    assert_eq!(world.running[&second].1, StartKind::Cold, "the hung one was replaced");
}

#[test]
fn the_minimum_is_started_without_requests_and_sleeps() {
    let mut world = World::calm();
    world.deploy(1, Policy { min: 2, ..policy() });
    world.advance(100);
    assert_eq!(world.states(), [State::Ready, State::Ready]);
    world.advance(50_000);
    assert_eq!(world.states(), [State::Paused, State::Paused]);
}

#[test]
fn a_new_version_takes_over_when_it_is_ready_and_the_old_one_drains() {
    let mut world = World::calm();
    world.deploy(1, policy());
    let old = world.arrive();
    world.advance(90);
    world.deploy(2, policy());
    let during = world.arrive();
    assert_eq!(world.promoted, [VersionId(1)]);
    world.advance(90);
    assert_eq!(world.promoted, [VersionId(1), VersionId(2)]);
    assert!(world.running.contains_key(&during), "the old version serves what it was given");
    let new = world.arrive();
    let (instance, _) = world.running[&new];
    assert_eq!(world.core.instance(instance).expect("hot").version, VersionId(2));
    world.leave(old);
    world.leave(during);
    world.leave(new);
    world.advance(100);
    assert!(world.core.instances().all(|instance| instance.version == VersionId(2)));
}

#[test]
fn a_new_version_that_fails_leaves_the_old_one_in_place() {
    let mut world = World::calm();
    world.deploy(1, Policy { idle: Idle { pause: None, stop: None, ..defaults::IDLE }, ..policy() });
    let first = world.arrive();
    world.advance(90);
    world.leave(first);
    world.faults.per_cent = 100;
    world.deploy(2, policy());
    world.advance(200);
    world.faults.per_cent = 0;
    assert_eq!(world.promoted, [VersionId(1)]);
    let second = world.arrive();
    assert_eq!(world.running[&second].1, StartKind::Warm);
}

#[test]
fn a_new_version_that_can_never_fit_fails() {
    let mut world = World::new(1, 10, Faults { per_cent: 0, hang_per_cent: 0 });
    world.deploy(1, Policy { need: RoomNeed { memory: 6, ..RoomNeed::default() }, ..policy() });
    let first = world.arrive();
    world.advance(90);
    world.deploy(2, Policy { need: RoomNeed { memory: 11, ..RoomNeed::default() }, ..policy() });
    assert_eq!(world.failed, [(VersionId(2), StartFailure::NoRoom)]);
    assert!(world.running.contains_key(&first));
    assert_eq!(world.core.revisions().count(), 1);
}

#[test]
fn one_that_falls_asleep_while_others_wait_gives_up_its_room() {
    let mut world = World::new(1, 10, Faults { per_cent: 0, hang_per_cent: 0 });
    world.deploy(1, Policy { need: RoomNeed { memory: 6, ..RoomNeed::default() }, ..policy() });
    let first = world.arrive();
    world.advance(90);
    world.leave(first);
    let other = InstanceId { boot: 1, core: 9, sequence: 1 };
    let need = RoomNeed { memory: 6, ..RoomNeed::default() };
    let (function, version, urgency) = (CoreNumber(9), VersionId(9), Urgency::Minimum);
    let number = OperationNumber(1);
    let ask = ToPlacer::Ask { function, instance: other, version, need, urgency, number };
    world.router.post(Message::ToPlacer(ask));
    world.step(Event::Tick);
    assert_eq!(world.states(), [State::Ready]);
    world.advance(150);
    assert_eq!(world.states(), [State::Paused], "what is kept for no request moves nothing before its turn is over");
    world.advance(1_000);
    assert_eq!(world.states(), []);
}

#[test]
fn removal_refuses_what_waits_and_lets_the_rest_end() {
    let mut world = World::calm();
    world.deploy(1, Policy { max: 1, ..policy() });
    let first = world.arrive();
    world.advance(90);
    let second = world.arrive();
    world.step(Event::Remove);
    assert_eq!(world.refused[&second], Refusal::Removed);
    assert_eq!(world.states(), [State::Draining]);
    world.leave(first);
    world.advance(100);
    assert!(world.states().is_empty() && world.core.revisions().next().is_none());
}

#[test]
fn packed_fills_the_oldest_and_balanced_spreads() {
    for (dispatch, expected) in [(Dispatch::Packed, [3, 0]), (Dispatch::Balanced, [2, 1])] {
        let mut world = World::calm();
        let concurrency = Concurrency { hard: 4, soft: 3 };
        world.deploy(
            1,
            Policy {
                min: 2,
                dispatch,
                concurrency,
                idle: Idle { pause: None, stop: None, ..defaults::IDLE },
                ..policy()
            },
        );
        world.advance(100);
        for _ in 0..3 {
            world.arrive();
        }
        let load: Vec<u32> = world.core.instances().map(|instance| instance.in_flight).collect();
        assert_eq!(load, expected, "{dispatch:?}");
    }
}

#[test]
fn a_lost_instance_counts_as_nothing_until_it_is_found() {
    let mut world = World::calm();
    world.deploy(1, Policy { max: 1, ..policy() });
    let first = world.arrive();
    world.advance(90);
    let lost = world.core.instances().next().expect("one").id;
    world.step(Event::Touch { instance: lost, lost: true });
    let second = world.arrive();
    world.advance(90);
    assert_eq!(world.states().len(), 2, "another one takes its place, though one is the maximum");
    assert!(world.running.contains_key(&second));
    world.leave(second);
    world.advance(150);
    assert_eq!(world.states().len(), 2, "and nobody asks the lost one for anything");
    world.leave(first);
    world.step(Event::Touch { instance: lost, lost: false });
    world.advance(20_000);
    assert!(world.states().is_empty(), "found, it rests and ends as any other: {:?}", world.states());
}

#[test]
fn a_core_is_written_down_and_read_back() {
    let mut world = World::calm();
    world.deploy(1, policy());
    world.arrive();
    world.advance(90);
    let text = serde_json::to_string(&world.core).expect("serializes");
    let back: FunctionCore = serde_json::from_str(&text).expect("deserializes");
    assert_eq!(serde_json::to_string(&back).expect("serializes"), text);
}

mod aside;
mod attach;
mod scaling;

/// A task may take longer than any request: an instance that is to go waits for it, and for nothing else so long.
#[test]
fn an_instance_that_is_to_go_waits_for_its_task() {
    let mut world = World::calm();
    world.deploy(1, policy());
    world.backlog(1, world.now);
    world.advance(100);
    let ticket = world.offers[0];
    world.deploy(2, Policy { unproven: true, ..policy() });
    world.advance(100_000);
    assert!(world.states().contains(&State::Draining), "{:?}", world.states());
    world.leave(ticket);
    world.advance(1_000);
    assert!(!world.states().contains(&State::Draining), "{:?}", world.states());
}

/// What an earlier server began and somebody holds keeps its instance awake, and lets it finish when its version is replaced.
#[test]
fn a_held_run_of_an_earlier_server_keeps_its_instance_at_work() {
    let id = InstanceId { boot: 0, core: 0, sequence: 1 };
    let adopted = |serving: u64| {
        let mut world = World::calm();
        let found = crate::FoundState {
            asleep: None,
            busy: 0,
            born: world.now,
            provisioned: false,
            place: crate::Place::default(),
        };
        let policy = Arc::new(policy());
        let (version, ticket) = (VersionId(1), Ticket::inherited(0));
        world.step(Event::Adopt { instance: id, version, policy: policy.clone(), found });
        world.step(Event::Occupy { ticket, instance: id });
        world.step(Event::Serve { version: VersionId(serving), policy });
        world.advance(100_000);
        (world, ticket)
    };
    let (mut same, ticket) = adopted(1);
    assert_eq!(same.states(), [State::Busy], "neither paused nor stopped");
    same.step(Event::Leave { ticket });
    same.advance(200);
    assert_eq!(same.states(), [State::Paused]);
    let (mut replaced, ticket) = adopted(2);
    assert_eq!(replaced.states(), [State::Draining]);
    // Told to stop, its instance ends with its place.
    replaced.step(Event::Leave { ticket });
    replaced.advance(1_000);
    assert_eq!(replaced.states(), []);
}
