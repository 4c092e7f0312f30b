//! Scaling policies in a core: Knative's, and what is provisioned.

use kip_spec::Finite;
use kip_spec::scaling::kpa::Algorithm;
use kip_spec::scaling::provision::{FireTime, Metric, Provision, ScheduledAction, Tracking, Window};
use kip_spec::scaling::{Fc, Kpa};

use super::*;
use crate::{AliasNumber, Kind, Qualifier, Target};

fn knative(settings: Kpa) -> Policy {
    Policy {
        max: 100,
        queue_depth: 1_000,
        queue_timeout: 60_000,
        scaling: Scaling::Kpa(Box::new(settings)),
        ..policy()
    }
}

fn one_each() -> Kpa {
    Kpa { target: Finite::whole(1), total: Finite::whole(1), ..crate::scaler::kpa::tests::settings() }
}

fn hot(world: &World) -> usize {
    world.core.instances().filter(|instance| instance.state.class() == Class::Hot).count()
}

#[test]
fn knative_from_its_first_scale_over_a_burst_to_zero_and_back() {
    let mut world = World::calm();
    world.deploy(1, knative(one_each()));
    assert_eq!(world.states(), [State::Starting], "initial scale is one");
    world.advance(200);
    let first: Vec<Ticket> = (0..10).map(|_| world.arrive()).collect();
    assert_eq!((world.running.len(), world.waiting.len()), (1, 9), "nothing starts before the tick");
    world.advance(4_200);
    assert_eq!(hot(&world), 10, "and then all that is needed does");
    assert_eq!(world.running.len(), 10);
    first.into_iter().for_each(|ticket| world.leave(ticket));
    world.advance(30_000);
    assert_eq!(hot(&world), 10, "a panic keeps them");
    world.advance(60_000);
    assert!(hot(&world) <= 1, "and then they go");
    world.advance(120_000);
    assert_eq!(world.states(), []);
    assert!(world.core.is_vacant(), "at zero nothing of it is left");
    assert!(world.changes.iter().any(|change| change.why == crate::Reason::Autoscaled { to: 10 }));
    let decisions = world.decisions;
    world.advance(600_000);
    assert_eq!(world.decisions, decisions, "at zero it costs nothing");
    world.arrive();
    assert_eq!(world.states(), [State::Starting], "a request does not wait for a tick");
}

#[test]
fn knative_never_removes_a_busy_instance() {
    let quick = Kpa { panic_threshold: Finite::whole(1_000), ..one_each() };
    let mut world = World::calm();
    world.deploy(1, knative(quick));
    let all: Vec<Ticket> = (0..5).map(|_| world.arrive()).collect();
    world.advance(5_000);
    assert_eq!(hot(&world), 5);
    let [stays, go @ ..] = &all[..] else { unreachable!("there are five") };
    go.iter().for_each(|ticket| world.leave(*ticket));
    let busy = world.running[stays].0;
    world.advance(200_000);
    assert_eq!(world.core.instances().map(|instance| instance.id).collect::<Vec<_>>(), [busy]);
}

fn provision(default_target: u32, tracking: Vec<Tracking>, scheduled: Vec<ScheduledAction>) -> Fc {
    Fc::new(Provision { default_target, tracking, scheduled, ..Provision::default() })
}

fn always() -> Window {
    Window::new(None, None, "").expect("UTC")
}

fn half() -> Tracking {
    let (metric, target) = (Metric::Concurrency, Finite::constant(0.5));
    Tracking { name: "half".to_owned(), window: always(), metric, target, min: 1, max: 6 }
}

fn kept(world: &World) -> usize {
    world.core.instances().filter(|instance| instance.kind == Kind::Provisioned).count()
}

fn fc(settings: Fc) -> Policy {
    Policy { max: 20, queue_timeout: 60_000, queue_depth: 100, scaling: Scaling::Fc(Box::new(settings)), ..policy() }
}

#[test]
fn provisioned_serve_first_and_the_rest_goes_on_demand() {
    let mut world = World::calm();
    world.deploy(1, fc(provision(2, vec![], vec![])));
    world.advance(200);
    assert_eq!((hot(&world), kept(&world)), (2, 2));
    let all: Vec<Ticket> = (0..5).map(|_| world.arrive()).collect();
    world.advance(200);
    assert_eq!((hot(&world), kept(&world), world.running.len()), (5, 2, 5));
    all.into_iter().for_each(|ticket| world.leave(ticket));
    world.advance(1_000);
    assert_eq!((hot(&world), kept(&world)), (2, 2), "those that are provisioned stay hot, the others sleep");
    let again = world.arrive();
    assert_eq!(world.core.instance(world.running[&again].0).expect("it lives").kind, Kind::Provisioned);
}

#[test]
fn without_on_demand_requests_wait_for_what_is_provisioned() {
    let mut world = World::calm();
    world.deploy(1, fc(Fc { disable_ondemand: true, ..provision(2, vec![], vec![]) }));
    world.advance(200);
    let all: Vec<Ticket> = (0..5).map(|_| world.arrive()).collect();
    world.advance(1_000);
    assert_eq!((hot(&world), world.running.len(), world.waiting.len()), (2, 2, 3));
    all.into_iter().for_each(|ticket| world.leave(ticket));
}

#[test]
fn idle_mode_lets_them_sleep_and_toggling_it_keeps_their_number() {
    let mut world = World::calm();
    world.deploy(1, fc(provision(2, vec![], vec![])));
    world.advance(500);
    assert_eq!(world.states(), [State::Ready; 2]);
    let mut idle = provision(2, vec![], vec![]);
    idle.provision.always_allocate_cpu = false;
    world.step(Event::Provision { qualifier: Qualifier::Latest, settings: Some(Arc::new(idle)) });
    world.advance(500);
    assert_eq!((world.states(), kept(&world)), (vec![State::Paused; 2], 2));
    let ticket = world.arrive();
    world.advance(50);
    assert_eq!(world.running[&ticket].1, StartKind::Woken);
    world.leave(ticket);
    world.step(Event::Provision { qualifier: Qualifier::Latest, settings: None });
    world.advance(500);
    assert_eq!((world.states(), kept(&world)), (vec![State::Ready; 2], 2));
}

#[test]
fn a_policy_follows_use_and_what_it_gives_up_ends() {
    let mut world = World::calm();
    world.deploy(1, fc(provision(0, vec![half()], vec![])));
    world.advance(500);
    assert_eq!(kept(&world), 1);
    let all: Vec<Ticket> = (0..3).map(|_| world.arrive()).collect();
    world.advance(10_000);
    assert_eq!(kept(&world), 6, "three of six is half");
    all.into_iter().for_each(|ticket| world.leave(ticket));
    world.advance(5_000);
    assert_eq!((kept(&world), world.states().len()), (1, 1), "what was released is gone");
    let decisions = world.decisions;
    world.advance(60_000);
    assert_eq!(world.decisions, decisions, "with nothing to do, nothing is looked at");
    world.arrive();
    world.advance(3_000);
    assert_eq!(kept(&world), 2, "and then it goes on");
}

#[test]
fn a_schedule_wakes_a_function_that_nobody_uses() {
    let minute = FireTime::Cron("30 * * * * *".parse().expect("a cron"));
    let later = FireTime::At(WALL + 100_000);
    let action = |name: &str, when, target| ScheduledAction { name: name.to_owned(), window: always(), when, target };
    let mut world = World::calm();
    // Every minute at 30 s five are wanted, from 100 s on none for the rest of the minute.
    world.deploy(1, fc(provision(0, vec![], vec![action("five", minute, 5), action("none", later, 0)])));
    world.step(Event::Tick);
    let counts: Vec<usize> = [31_000, 60_000, 31_000]
        .map(|millis| {
            world.advance(millis);
            kept(&world)
        })
        .to_vec();
    // At 32 s and 92 s five; at 123 s none, for the other one fired at 100 s.
    assert_eq!(counts, [5, 5, 0]);
    assert!(!world.core.is_vacant(), "it waits for the next time");
}

#[test]
fn a_weighted_alias_splits_what_is_provisioned_for_it() {
    let mut world = World::calm();
    world.deploy(1, policy());
    let target = |version, weight| Target {
        version: VersionId(version),
        policy: Arc::new(Policy { max: 20, ..policy() }),
        weight,
    };
    let targets = vec![target(2, 90), target(3, 10)];
    world.step(Event::Alias { alias: AliasNumber(7), targets, latest: 0, provisioned: 0, draw: crate::Draw::Begin(0) });
    let settings = Some(Arc::new(provision(10, vec![], vec![])));
    world.step(Event::Provision { qualifier: Qualifier::Alias(AliasNumber(7)), settings });
    world.advance(500);
    let of = |world: &World, version| world.core.instances().filter(|i| i.version == VersionId(version)).count();
    assert_eq!([1, 2, 3].map(|version| of(&world, version)), [0, 9, 1]);
    let targets = vec![target(2, 50), target(3, 50)];
    world.step(Event::Alias { alias: AliasNumber(7), targets, latest: 0, provisioned: 0, draw: crate::Draw::Begin(0) });
    world.advance(1_000);
    assert_eq!([1, 2, 3].map(|version| of(&world, version)), [0, 5, 5]);
    world.step(Event::Provision { qualifier: Qualifier::Alias(AliasNumber(7)), settings: None });
    world.advance(1_000);
    assert_eq!(kept(&world), 0);
}

#[test]
fn a_policy_follows_what_is_measured_from_outside_and_rests_while_all_sleep() {
    let by = |metric, name: &str| Tracking { metric, name: name.to_owned(), ..half() };
    let mut settings = provision(0, vec![by(Metric::Cpu, "cpu"), by(Metric::GpuMemory, "gpu")], vec![]);
    settings.provision.always_allocate_cpu = false;
    let mut world = World::calm();
    world.deploy(1, fc(settings));
    world.advance(500);
    assert_eq!(kept(&world), 1);
    let measured = |world: &mut World, cpu: f64, gpu_memory: f64| {
        let (cpu, gpu_memory) = (Finite::new(cpu), Finite::new(gpu_memory));
        world.step(Event::Measured { version: VersionId(1), cpu, gpu_memory });
    };
    // It is kept awake by a request, or it would sleep.
    let ticket = world.arrive();
    measured(&mut world, 1.0, 0.1);
    world.advance(900);
    assert_eq!(kept(&world), 2, "by CPU");
    measured(&mut world, 0.1, 0.75);
    world.advance(900);
    assert_eq!(kept(&world), 3, "the larger of both, here by device memory");
    let why = world.core.provisions()[0].last().expect("a look").why.tell(&world.core.provisions()[0].settings.clone());
    assert!(why.starts_with("policy `gpu`: GPUMemUtilization 0.75 against 0.5, above since"), "{why}");
    world.leave(ticket);
    measured(&mut world, 0.0, 0.1);
    world.advance(5_000);
    assert_eq!((kept(&world), world.states()), (1, vec![State::Paused]));
    let decisions = world.decisions;
    world.advance(60_000);
    assert_eq!(world.decisions, decisions, "who sleeps uses nothing, so nothing is looked at");
    world.arrive();
    measured(&mut world, 1.0, 0.1);
    world.advance(2_500);
    assert!(kept(&world) >= 2, "and with a request it goes on");
}

#[test]
fn a_timer_that_comes_late_loses_no_period() {
    let mut world = World::calm();
    world.deploy(1, fc(provision(0, vec![half()], vec![])));
    world.advance(500);
    let mut ticket = world.arrive();
    let mut measured = BTreeSet::new();
    for _ in 0..50 {
        // A request ends and another one comes after the end of a period, and before the timer.
        world.now += 251;
        world.leave(ticket);
        ticket = world.arrive();
        world.advance(0);
        let looked = world.core.provisions()[0].last().expect("a look");
        measured.extend(looked.metrics[Metric::Concurrency.index()].map(|_| looked.wall));
    }
    assert!(measured.len() >= 10, "{measured:?}");
    assert_eq!(kept(&world), 2, "one of two is half");
}

#[test]
fn what_is_provisioned_stays_within_the_maximum_and_goes_on_from_where_it_was() {
    let mut world = World::calm();
    world.step(Event::Provision {
        qualifier: Qualifier::Latest,
        settings: Some(Arc::new(provision(30, vec![], vec![]))),
    });
    world.deploy(1, fc(provision(1, vec![], vec![])));
    assert_eq!(world.states().len(), 20, "what was put before it served is known from the start");
    world.advance(2_000);
    assert_eq!(kept(&world), 20);
    let provisioned = &world.core.provisions()[0];
    assert_eq!((provisioned.target(), provisioned.wanted()), (30, 20));
    assert_eq!(provisioned.tell(), "the default target; instances.max limits it to 20");

    let mut world = World::calm();
    world.step(Event::Reached { qualifier: Qualifier::Latest, target: 4 });
    world.deploy(1, fc(provision(0, vec![half()], vec![])));
    world.advance(900);
    assert_eq!(kept(&world), 4, "it goes on from there");
    world.advance(1_000);
    assert_eq!(kept(&world), 1, "and then by what is measured");
}

/// Somebody else has all of the room.
fn full_house(world: &mut World) {
    let (function, instance, version) = (CoreNumber(7), InstanceId { boot: 1, core: 7, sequence: 1 }, VersionId(1));
    let need = RoomNeed { memory: 100, ..RoomNeed::default() };
    let hold = ToPlacer::Hold { function, instance, version, need, place: crate::Place::default(), rung: None };
    world.placer.step(Now { boot: world.now, wall: WALL }, hold, &mut Vec::new());
}

#[test]
fn knative_keeps_asking_for_room_while_requests_wait_whatever_its_window_says() {
    let mut world = World::new(1, 100, Faults { per_cent: 0, hang_per_cent: 0 });
    let (metric, algorithm) = (kip_spec::scaling::kpa::Metric::Rps, Algorithm::WeightedExponential);
    let (window, deadline) = (Millis(6_000), Millis(4_000));
    let rps = Kpa {
        metric,
        algorithm,
        target: Finite::whole(4),
        stable_window: window,
        panic_window: window,
        grace: deadline,
        progress_deadline: deadline,
        retention: Millis(2_000),
        total: Finite::whole(4),
        panic_threshold: Finite::whole(10),
        max_scale: 2,
        target_burst_capacity: Finite::constant(-1.0),
        max_scale_up_rate: Finite::whole(2),
        max_scale_down_rate: Finite::whole(10),
        ..one_each()
    };
    let patient =
        Policy { need: RoomNeed { memory: 60, ..RoomNeed::default() }, queue_timeout: 600_000, ..knative(rps) };
    world.deploy(1, patient);
    world.advance(30_000);
    assert_eq!(world.states(), [], "it was up and is at zero");
    full_house(&mut world);
    world.arrive();
    world.advance(19_000);
    world.arrive();
    world.arrive();
    world.advance(60_000);
    assert_eq!((world.states(), world.waiting.len()), (vec![State::Requested], 3), "they came and have not ended");
}

#[test]
fn an_instance_is_replaced_in_place_though_a_sleeper_waits_for_room_as_well() {
    let mut world = World::new(1, 100, Faults { per_cent: 0, hang_per_cent: 0 });
    let kept = Kpa { min_scale: 2, max_scale: 2, ..one_each() };
    let (need, rungs) = (RoomNeed { memory: 60, ..RoomNeed::default() }, Rungs { park: true, spill: true });
    world.deploy(1, Policy { min: 2, max: 2, need, rungs, ..knative(kept) });
    world.advance(1_000);
    let first = world.core.instances().next().expect("one has room").id;
    let lack = crate::Shortage { memory: true, ..crate::Shortage::default() };
    world.step(Event::Placer(crate::FromPlacer::Evict { instance: first, lack, by: Some(CoreNumber(9)) }));
    world.advance(2_000);
    assert_eq!(world.states(), [State::Spilled, State::Ready], "the second got the room, and the first wants it back");
    let second = world.core.instances().nth(1).expect("it is there").id;
    world.step(Event::Rotate);
    world.advance(5_000);
    assert!(world.core.instance(second).is_none(), "there is no room for a successor beside it: {:?}", world.states());
}

#[test]
fn a_sleeper_that_wants_to_wake_for_nobody_gives_up_what_it_holds() {
    let (boot, instance) = (1_000, InstanceId { boot: 1, core: 0, sequence: 1 });
    let mut core = FunctionCore::new(1, CoreNumber(0), 0);
    let mut step = |event: Event| {
        let mut effects = Vec::new();
        core.step(Now { boot, wall: WALL }, event, &mut effects);
        let operation = effects.iter().find_map(|effect| match effect {
            Effect::Operate { operation, .. } => Some(*operation),
            Effect::Tell(ToPlacer::Ask { number, .. }) => Some(*number),
            _ => None,
        });
        (operation, effects, core.instance(instance).map(|instance| (instance.state, instance.wants_room)))
    };
    let need = RoomNeed { cpu: 1_000, memory: 60, ..RoomNeed::default() };
    let kept = Policy { min: 1, need, ..knative(Kpa { min_scale: 1, ..one_each() }) };
    let asked = step(Event::Serve { version: VersionId(1), policy: Arc::new(kept) }).0.expect("it asks for room");
    let grant = crate::FromPlacer::Grant { instance, place: crate::Place::default(), number: asked, from: None };
    let operation = step(Event::Placer(grant)).0.expect("it starts");
    step(Event::Observed { instance, operation, seen: OperationOutcome::Started });
    let evict = |cpu, memory| {
        let lack = crate::Shortage { cpu, memory, ..crate::Shortage::default() };
        Event::Placer(crate::FromPlacer::Evict { instance, lack, by: Some(CoreNumber(9)) })
    };
    let operation = step(evict(true, false)).0.expect("it falls asleep");
    let (_, _, state) = step(Event::Observed { instance, operation, seen: OperationOutcome::Paused });
    assert_eq!(state, Some((State::Paused, true)), "it is kept hot, so it wants its CPU back");
    let (_, effects, state) = step(evict(false, true));
    let declined = |effect: &Effect| matches!(effect, Effect::Tell(ToPlacer::Declined { .. }));
    assert!(!effects.iter().any(declined), "somebody's requests wait for its memory");
    assert_eq!(state, Some((State::Stopping, false)));
}
