//! What a host promises, with steps that fail on purpose.

mod aliases;
mod history;

use super::*;
use crate::function::tests::policy;
use crate::why::EndReason;
use crate::{Call, FoundState, FromPlacer, OperationOutcome, Place, State, ToPlacer};

fn at(boot: u64) -> Now {
    Now { boot, wall: 0 }
}

fn serving(min: u32) -> Option<(VersionId, Arc<Policy>)> {
    Some((VersionId(1), Arc::new(Policy { min, ..policy() })))
}

fn host(min: u32) -> CoreHost {
    CoreHost::new(1, CoreNumber(3), serving(min))
}

/// Steps, grants every ask and ends every operation well.
fn run(host: &mut CoreHost, boot: u64, event: Event) -> Vec<Effect> {
    let mut all = Vec::new();
    let mut events = vec![event];
    while let Some(event) = events.pop() {
        let from = all.len();
        assert_eq!(host.step(at(boot), event, &mut all), None);
        for effect in &all[from..] {
            match *effect {
                Effect::Tell(ToPlacer::Ask { instance, number, .. }) => {
                    let place = Place::default();
                    events.push(Event::Placer(FromPlacer::Grant { instance, place, number, from: None }));
                }
                Effect::Operate { instance, operation, what, .. } => {
                    let seen = match what {
                        Operate::Start { .. } => OperationOutcome::Started,
                        Operate::Stop { .. } | Operate::Kill { .. } => OperationOutcome::Stopped,
                        _ => continue,
                    };
                    events.push(Event::Observed { instance, operation, seen });
                }
                _ => {}
            }
        }
    }
    all
}

fn arrive(ticket: u64) -> Event {
    Event::Arrive { ticket: Ticket(ticket), call: Call::default() }
}

fn fail(host: &mut CoreHost, boot: u64, event: Event) -> (Recovery, Vec<Effect>) {
    let (subject, mut effects) = (Subject::of(&event), Vec::new());
    host.advance(at(boot), event, &mut effects);
    let recovery = host.recover(at(boot), subject, 0, &"a planted fault", &mut effects);
    (recovery, effects)
}

#[test]
fn a_request_makes_the_core_and_the_last_instance_takes_it_away() {
    let mut host = host(0);
    let mut effects = Vec::new();
    assert_eq!(host.serve(at(1), &mut effects), None);
    assert!(effects.is_empty() && host.core().is_none(), "nothing is wanted");
    run(&mut host, 1, arrive(0));
    let first = host.core().and_then(|core| core.instances().next()).map(|instance| instance.id.sequence);
    run(&mut host, 2, Event::Leave { ticket: Ticket(0) });
    run(&mut host, 20_000, Event::Tick);
    assert!(host.core().is_none(), "nothing of it is left");
    run(&mut host, 30_000, arrive(1));
    let second = host.core().and_then(|core| core.instances().next()).map(|instance| instance.id.sequence);
    assert_eq!((first, second), (Some(1), Some(2)), "no id is used twice");
}

#[test]
fn nothing_is_decided_before_every_instance_is_handed_in() {
    let mut host = host(2);
    let policy = serving(2).map(|(_, policy)| policy).expect("there is one");
    let instance = InstanceId { boot: 0, core: 3, sequence: 9 };
    let found = FoundState { asleep: None, busy: 0, born: 1, provisioned: true, place: Place::default() };
    let adopt = Event::Adopt { instance, version: VersionId(1), policy, found };
    let pressed = Event::Placer(FromPlacer::Press { stretch: 0, longest: 60_000 });
    let mut effects = Vec::new();
    host.step(at(5), adopt, &mut effects);
    host.step(at(5), pressed, &mut effects);
    host.step(at(5), arrive(0), &mut effects);
    let decided = |effect: &Effect| matches!(effect, Effect::Dispatch { .. } | Effect::Tell(ToPlacer::Ask { .. }));
    assert!(!effects.iter().any(decided), "{effects:?}");
    assert_eq!(host.serve(at(6), &mut effects), None);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Dispatch { .. })), "and then everything is");
    assert_eq!(host.core().map(|core| core.instances().count()), Some(2), "one of two was there");
}

#[test]
fn what_is_put_for_two_qualifiers_is_known_to_a_core_made_anew() {
    let settings = |target| {
        Some(Arc::new(Fc::new(kip_spec::scaling::provision::Provision {
            default_target: target,
            ..Default::default()
        })))
    };
    let mut host = host(0);
    for (qualifier, target) in [(Qualifier::Latest, 0), (Qualifier::Version(VersionId(1)), 0)] {
        run(&mut host, 1, Event::Provision { qualifier, settings: settings(target) });
    }
    assert!(host.core().is_none(), "zero keeps nothing");
    run(&mut host, 2, Event::Provision { qualifier: Qualifier::Latest, settings: settings(1) });
    let put = host.core().map(|core| core.provisions().len());
    assert_eq!(put, Some(2));
}

#[test]
fn a_panic_refuses_who_waits_and_keeps_who_works() {
    let mut host = host(0);
    (0..2).for_each(|ticket| drop(run(&mut host, 1, arrive(ticket))));
    let mut effects = Vec::new();
    // The third waits for its start, the fourth for a free one.
    (2..5).for_each(|ticket| assert_eq!(host.step(at(2), arrive(ticket), &mut effects), None));
    let before = host.core().map(FunctionCore::sequence);
    let (recovery, effects) = fail(&mut host, 3, Event::Leave { ticket: Ticket(0) });
    assert_eq!((recovery.cause.as_str(), recovery.quarantined), ("a planted fault", false));
    let refused: Vec<u64> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Refuse { ticket, refusal: Refusal::CoreFailed } => Some(ticket.0),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [2, 3, 4], "each once; {effects:?}");
    let core = host.core().expect("it goes on");
    assert!(core.is_placed(Ticket(1)) && !core.is_placed(Ticket(0)), "the place that was given back is free");
    let states: Vec<State> = core.instances().map(|instance| instance.state).collect();
    assert_eq!(states, [State::Ready, State::Busy], "one that had asked for room is gone");
    let held = effects.iter().filter(|effect| matches!(effect, Effect::Tell(ToPlacer::Hold { .. }))).count();
    assert_eq!(held, 2);
    assert_eq!(Some(core.sequence()), before, "numbers go on");
    let gone =
        |effect: &Effect| matches!(effect, Effect::Changed(change) if change.to == State::Gone(EndReason::NoRoom));
    assert!(effects.iter().any(gone), "{effects:?}");
    let served = run(&mut host, 4, arrive(9));
    assert!(served.iter().any(|effect| matches!(effect, Effect::Dispatch { .. })), "{served:?}");
}

#[test]
fn a_second_panic_within_a_minute_puts_the_function_into_quarantine_until_it_is_deployed_again() {
    let mut host = host(0);
    run(&mut host, 1, arrive(0));
    assert!(!fail(&mut host, 2, arrive(1)).0.quarantined);
    assert!(!fail(&mut host, 62_003, arrive(2)).0.quarantined, "that was long ago");
    let (recovery, effects) = fail(&mut host, 62_004, arrive(3));
    assert!(recovery.quarantined && host.is_quarantined());
    let killed = effects.iter().any(|e| matches!(e, Effect::Operate { what: Operate::Kill { .. }, .. }));
    assert!(killed, "its instances end: {effects:?}");
    let refused = run(&mut host, 62_005, arrive(4));
    assert!(matches!(refused[..], [Effect::Refuse { refusal: Refusal::Quarantined, .. }]), "{refused:?}");
    let policy = serving(0).map(|(_, policy)| policy).expect("there is one");
    run(&mut host, 62_006, Event::Deploy { version: VersionId(2), policy });
    assert!(!host.is_quarantined());
    let served = run(&mut host, 62_007, arrive(5));
    assert!(served.iter().any(|effect| matches!(effect, Effect::Dispatch { .. })), "{served:?}");
}

/// A real one: the milliseconds of two requests over all of time are more than fit, and overflow is checked.
#[test]
fn a_step_that_panics_ends_in_the_host() {
    let provision = kip_spec::scaling::provision::Provision { default_target: 1, ..Default::default() };
    let concurrency = kip_spec::function::Concurrency { hard: 4, soft: 4 };
    let scaling = Scaling::Fc(Box::new(Fc::new(provision)));
    let kept = Policy { scaling, concurrency, ..policy() };
    let mut host = CoreHost::new(1, CoreNumber(3), Some((VersionId(1), Arc::new(kept))));
    (0..3).for_each(|ticket| drop(run(&mut host, 1, arrive(ticket))));
    let working = host.core().and_then(|core| core.instances().next()).map(|instance| instance.in_flight);
    assert_eq!(working, Some(3));
    let mut effects = Vec::new();
    let recovery = host.step(at(u64::MAX - 1), arrive(3), &mut effects).expect("it cannot count so far");
    assert!(recovery.cause.contains("overflow") && !recovery.quarantined, "{recovery:?}");
    assert!(matches!(effects[0], Effect::Refuse { ticket: Ticket(3), refusal: Refusal::CoreFailed }), "{effects:?}");
    assert!(host.core().is_some_and(|core| core.is_placed(Ticket(0))), "work in flight goes on");
    effects.clear();
    assert_eq!(host.step(at(u64::MAX - 1), arrive(4), &mut effects), None);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Dispatch { ticket: Ticket(4), .. })), "{effects:?}");
}
