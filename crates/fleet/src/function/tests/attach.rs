//! Sessions of people in instances: they start and wake, keep awake, and take no request's place.

use super::*;

fn asleep() -> (World, InstanceId) {
    let mut world = World::calm();
    world.deploy(1, policy());
    let ticket = world.arrive();
    world.advance(100);
    world.leave(ticket);
    world.advance(500);
    assert_eq!(world.states(), [State::Paused]);
    let id = world.core.instances().next().expect("an instance").id;
    (world, id)
}

#[test]
fn an_attachment_starts_an_instance_keeps_it_awake_and_takes_no_place() {
    let mut world = World::calm();
    world.deploy(1, policy());
    let session = world.attach(None);
    world.advance(100);
    let (id, start) = world.attached[&session].expect("placed");
    assert_eq!((start, world.states()), (StartKind::Cold, vec![State::Busy]));
    // The hard limit is one request, and it is free.
    let ticket = world.arrive();
    assert_eq!(world.running.get(&ticket), Some(&(id, StartKind::Warm)));
    world.leave(ticket);
    world.advance(100_000);
    assert_eq!(world.states(), [State::Busy], "neither paused nor stopped");
    world.leave(session);
    world.advance(200);
    assert_eq!(world.states(), [State::Paused]);
    world.advance(100_000);
    assert!(world.states().is_empty() && world.core.is_vacant());
}

#[test]
fn the_named_instance_wakes_for_its_attachment() {
    let (mut world, id) = asleep();
    let session = world.attach(Some(id));
    world.advance(50);
    assert_eq!(world.attached[&session], Some((id, StartKind::Woken)));
    let second = world.attach(Some(id));
    assert_eq!(world.attached[&second], Some((id, StartKind::Warm)));
    world.leave(session);
    world.advance(1_000);
    assert_eq!(world.states(), [State::Busy]);
    world.leave(second);
    world.advance(1_000);
    assert_eq!(world.states(), [State::Paused]);
}

#[test]
fn an_instance_that_falls_asleep_is_woken_when_it_has() {
    let mut world = World::calm();
    world.deploy(1, policy());
    let ticket = world.arrive();
    world.advance(100);
    world.leave(ticket);
    while world.states() != [State::Pausing] {
        world.advance(1);
    }
    let id = world.core.instances().next().expect("an instance").id;
    let session = world.attach(Some(id));
    assert_eq!(world.attached[&session], None);
    world.advance(100);
    assert_eq!(world.attached[&session], Some((id, StartKind::Woken)));
}

#[test]
fn an_attachment_does_not_hold_back_the_end_of_its_instance() {
    let (mut world, id) = asleep();
    let session = world.attach(Some(id));
    world.advance(50);
    world.deploy(2, Policy { unproven: true, ..policy() });
    world.advance(5_000);
    assert!(world.core.instance(id).is_none(), "{:?}", world.states());
    assert!(!world.core.is_placed(session));
    world.step(Event::Leave { ticket: session });
    let late = world.attach(Some(id));
    assert_eq!(world.refused[&late], Refusal::InstanceGone);
}

#[test]
fn attachments_that_wait_are_refused_with_their_reason() {
    let mut world = World::new(1, u64::MAX, Faults { per_cent: 100, hang_per_cent: 0 });
    world.deploy(1, policy());
    let session = world.attach(None);
    world.advance(200);
    assert!(matches!(world.refused[&session], Refusal::StartFailed(_)), "{:?}", world.refused);
    let mut hangs = World::new(1, u64::MAX, Faults { per_cent: 0, hang_per_cent: 100 });
    hangs.deploy(1, Policy { limits: Limits { start: 60_000, ..policy().limits }, ..policy() });
    let session = hangs.attach(None);
    hangs.advance(1_000);
    assert_eq!(hangs.refused[&session], Refusal::QueueTimeout { waited: 1_000 });
    let session = hangs.attach(None);
    hangs.step(Event::Remove);
    assert_eq!(hangs.refused[&session], Refusal::Removed);
}

/// Whatever comes together, every attachment is answered, none is left behind, and the requests beside them are served as ever.
#[test]
fn attachments_among_requests_versions_and_faults() {
    for seed in 1..=300 {
        let mut world = World::new(seed, u64::MAX, Faults { per_cent: 10, hang_per_cent: 3 });
        world.deploy(1, policy());
        let mut version = 1;
        for _ in 0..150 {
            match world.roll(10) {
                0..=2 => drop(world.arrive()),
                3 | 4 => {
                    if let Some(ticket) = world.running.keys().next().copied() {
                        world.leave(ticket);
                    }
                }
                5 => drop(world.attach(None)),
                6 => {
                    let known: Vec<InstanceId> = world.core.instances().map(|instance| instance.id).collect();
                    let number = world.roll(known.len().max(1) as u64);
                    if let Some(id) = usize::try_from(number).ok().and_then(|number| known.get(number)) {
                        world.attach(Some(*id));
                    }
                }
                7 => {
                    if let Some(ticket) = world.attached.keys().next().copied() {
                        world.leave(ticket);
                    }
                }
                8 if world.roll(4) == 0 => {
                    version += 1;
                    world.deploy(version, policy());
                }
                _ => {
                    let pause = world.roll(400);
                    world.advance(pause);
                }
            }
        }
        // Each has an answer when its time is over; one whose instance ended has been told by its end.
        world.advance(5_000);
        let unanswered = world.attached.values().filter(|placed| placed.is_none()).count();
        assert_eq!(unanswered, 0, "seed {seed}:\n{}", world.log.join("\n"));
        for ticket in world.attached.keys().copied().chain(world.running.keys().copied()).collect::<Vec<_>>() {
            world.leave(ticket);
        }
        world.advance(200_000);
        let counts: Vec<(State, u32)> = world.core.instances().map(|i| (i.state, i.attached)).collect();
        let over = counts.is_empty() && world.core.attachments.is_empty();
        assert!(over, "seed {seed}: {counts:?}\n{}", world.log.join("\n"));
    }
}
