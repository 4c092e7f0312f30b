//! A version that gives its room up for a rollout's new one.

use super::*;
use crate::{AliasNumber, Draw, Qualifier, Rung, Target};

const ALIAS: AliasNumber = AliasNumber(0);

fn large(spill: bool) -> Policy {
    let need = RoomNeed { memory: 60, ..RoomNeed::default() };
    Policy { max: 1, need, rungs: Rungs { park: spill, spill }, queue_timeout: 5_000, ..policy() }
}

impl World {
    fn point_at(&mut self, version: u64, policy: &Policy) {
        let targets = vec![Target { version: VersionId(version), policy: Arc::new(policy.clone()), weight: 1 }];
        self.step(Event::Alias { alias: ALIAS, targets, latest: 0, provisioned: 0, draw: Draw::Begin(0) });
    }

    fn call_alias(&mut self) -> Ticket {
        self.call(Call { to: Qualifier::Alias(ALIAS), ..Call::default() })
    }

    /// Version 1 serves behind the alias, and version 2 waits for its room.
    fn beside(spill: bool) -> (Self, Policy) {
        let (mut world, policy) = (Self::new(1, 100, Faults { per_cent: 0, hang_per_cent: 0 }), large(spill));
        world.deploy(1, policy.clone());
        world.point_at(1, &policy);
        let first = world.call_alias();
        world.advance(100);
        assert_eq!(world.running[&first].1, StartKind::Cold);
        world.step(Event::Name { version: VersionId(2), policy: Arc::new(policy.clone()) });
        world.step(Event::Start { version: VersionId(2) });
        world.advance(100);
        assert_eq!(world.states_of(2), [State::Requested], "a busy instance keeps its room");
        (world, policy)
    }

    fn states_of(&self, version: u64) -> Vec<State> {
        let own = self.core.instances().filter(|instance| instance.version == VersionId(version));
        own.map(|instance| instance.state).collect()
    }

    fn set_aside(&mut self, aside: bool) {
        self.step(Event::SetAside { version: VersionId(1), aside });
    }
}

#[test]
fn a_version_set_aside_ends_its_work_and_its_callers_wait_for_the_new_one() {
    for spill in [true, false] {
        let (mut world, policy) = World::beside(spill);
        let first = *world.running.keys().next().expect("a request");
        world.set_aside(true);
        let second = world.call_alias();
        assert_eq!(world.states_of(1), [State::Draining], "the request in flight ends first");
        world.leave(first);
        world.advance(200);
        assert_eq!(world.states_of(1), if spill { vec![State::Spilled] } else { vec![] });
        assert!(matches!(world.states_of(2)[..], [State::Ready | State::Paused]));
        assert!(world.waiting.contains(&second), "nobody is refused, and the version set aside does not wake");
        world.point_at(2, &policy);
        world.set_aside(false);
        world.advance(20);
        assert!(world.running.contains_key(&second));
        assert!(world.refused.is_empty());
    }
}

#[test]
fn a_version_that_is_not_aside_any_more_wakes_for_those_who_waited() {
    let (mut world, _) = World::beside(true);
    let first = *world.running.keys().next().expect("a request");
    world.set_aside(true);
    world.faults = Faults { per_cent: 0, hang_per_cent: 100 };
    world.leave(first);
    let second = world.call_alias();
    world.faults = Faults { per_cent: 0, hang_per_cent: 0 };
    // The pause hangs, and what cannot give its room up asleep ends.
    world.advance(1_000);
    assert_eq!((world.states_of(1), world.states_of(2).len()), (vec![], 1));
    world.step(Event::Unname { version: VersionId(2) });
    world.set_aside(false);
    world.advance(1_000);
    assert!(world.running.contains_key(&second), "{:?}", world.states());
    assert!(world.refused.is_empty());
}

#[test]
fn a_request_that_would_wake_it_leaves_it_asleep() {
    let (mut world, _) = World::beside(true);
    let first = *world.running.keys().next().expect("a request");
    world.leave(first);
    world.set_aside(true);
    world.advance(200);
    let (rung, states) = (Rung::Spilled.state(), world.states_of(1));
    assert_eq!(states, [rung]);
    let second = world.call_alias();
    world.advance(500);
    assert_eq!(world.states_of(1), [rung]);
    world.step(Event::Remove);
    world.advance(1_000);
    assert_eq!(world.states(), [], "a function that is removed ends what is set aside too");
    assert!(world.refused.contains_key(&second));
}

#[test]
fn a_pinned_version_ends_for_its_own_successor() {
    let mut world = World::new(1, 100, Faults { per_cent: 0, hang_per_cent: 0 });
    let pinned = Policy { pinned: true, ..large(false) };
    world.deploy(1, pinned.clone());
    let first = world.arrive();
    world.advance(100);
    world.leave(first);
    world.advance(20);
    world.deploy(2, pinned);
    world.advance(20_000);
    assert_eq!(world.promoted, [VersionId(1), VersionId(2)]);
    assert_eq!(world.states_of(1), []);
}
