//! Aliases of functions whose core comes and goes.

use super::*;

fn target(version: u64, weight: u32) -> Target {
    Target { version: VersionId(version), policy: Arc::new(policy()), weight }
}

fn alias(targets: Vec<Target>, latest: u32) -> Event {
    Event::Alias { alias: AliasNumber(7), targets, latest, provisioned: 0, draw: Draw::Begin(0) }
}

fn call(ticket: u64, to: Qualifier) -> Event {
    Event::Arrive { ticket: Ticket(ticket), call: Call { to, ..Call::default() } }
}

fn by_alias(ticket: u64) -> Event {
    call(ticket, Qualifier::Alias(AliasNumber(7)))
}

/// The version of the instance that a request was given to.
fn version_of(host: &CoreHost, effects: &[Effect], wanted: u64) -> Option<u64> {
    let given = |effect: &Effect| match effect {
        Effect::Dispatch { ticket, instance, .. } if *ticket == Ticket(wanted) => Some(*instance),
        _ => None,
    };
    let instance = effects.iter().find_map(given)?;
    host.core()?.instance(instance).map(|instance| instance.version.0)
}

/// One request a minute, each of which ends at once; the core is gone between two.
fn sleepy(host: &mut CoreHost, requests: u64) -> Vec<u64> {
    let mut served = Vec::new();
    for ticket in 0..requests {
        let now = 1 + ticket * 60_000;
        let effects = run(host, now, by_alias(ticket));
        served.extend(version_of(host, &effects, ticket));
        run(host, now + 1, Event::Leave { ticket: Ticket(ticket) });
        run(host, now + 30_000, Event::Tick);
        assert!(host.core().is_none(), "a function with aliases rests like any other");
    }
    served
}

#[test]
fn shares_are_exact_for_a_function_that_sleeps_between_requests() {
    let mut host = host(0);
    run(&mut host, 1, alias(vec![target(2, 90), target(3, 10)], 0));
    assert!(host.core().is_none(), "an alias alone needs no core");
    let served = sleepy(&mut host, 100);
    let count = |version| served.iter().filter(|one| **one == version).count();
    assert_eq!((served.len(), count(2), count(3)), (100, 90, 10));
}

#[test]
fn a_share_of_the_version_that_serves_follows_deployments() {
    let mut host = host(0);
    run(&mut host, 1, alias(Vec::new(), 100));
    let effects = run(&mut host, 2, by_alias(0));
    assert_eq!(version_of(&host, &effects, 0), Some(1));
    run(&mut host, 3, Event::Leave { ticket: Ticket(0) });
    run(&mut host, 4, Event::Deploy { version: VersionId(5), policy: Arc::new(policy()) });
    assert_eq!(host.serving(), Some(VersionId(5)));
    let effects = run(&mut host, 5, by_alias(1));
    assert_eq!(version_of(&host, &effects, 1), Some(5));
}

#[test]
fn a_version_is_called_by_itself_once_it_is_named_and_by_the_next_core_too() {
    let mut host = host(0);
    let asked = |ticket| call(ticket, Qualifier::Version(VersionId(2)));
    let refused = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::Refuse { refusal: Refusal::NoVersion, .. }))
    };
    assert!(refused(&run(&mut host, 1, asked(0))));
    run(&mut host, 2, Event::Name { version: VersionId(2), policy: Arc::new(policy()) });
    for ticket in 1..3 {
        let now = ticket * 60_000;
        let effects = run(&mut host, now, asked(ticket));
        assert_eq!(version_of(&host, &effects, ticket), Some(2));
        run(&mut host, now + 1, Event::Leave { ticket: Ticket(ticket) });
        run(&mut host, now + 30_000, Event::Tick);
        assert!(host.core().is_none());
    }
    run(&mut host, 300_000, Event::Unname { version: VersionId(2) });
    assert!(refused(&run(&mut host, 300_001, asked(9))));
}

#[test]
fn an_instance_that_only_an_alias_names_outlives_the_server() {
    let mut host = host(0);
    host.remember(&alias(vec![target(2, 100)], 0));
    let instance = InstanceId { boot: 0, core: 3, sequence: 9 };
    let found = FoundState { asleep: None, busy: 0, born: 1, provisioned: false, place: Place::default() };
    let adopt = Event::Adopt { instance, version: VersionId(2), policy: Arc::new(policy()), found };
    let mut effects = Vec::new();
    host.step(at(5), adopt, &mut effects);
    host.serve(at(6), &mut effects);
    let state = host.core().and_then(|core| core.instance(instance)).map(|instance| instance.state);
    assert_eq!(state, Some(State::Ready), "{effects:?}");
    let effects = run(&mut host, 7, by_alias(0));
    assert_eq!(version_of(&host, &effects, 0), Some(2));
}

#[test]
fn requests_that_wait_follow_the_alias() {
    let mut host = host(0);
    run(&mut host, 1, alias(vec![target(2, 100)], 0));
    let mut effects = Vec::new();
    // Nothing grants them room, so they wait.
    (0..4).for_each(|ticket| assert_eq!(host.step(at(2), by_alias(ticket), &mut effects), None));
    let waiting = |host: &CoreHost, version| {
        let core = host.core().expect("somebody waits");
        core.queue(VersionId(version), at(3)).map(|(depth, _)| depth)
    };
    assert_eq!(waiting(&host, 2), Some(4));
    host.step(at(3), alias(vec![target(2, 50), target(3, 50)], 0), &mut effects);
    assert_eq!((waiting(&host, 2), waiting(&host, 3)), (Some(2), Some(2)));
    host.step(at(4), alias(vec![target(3, 100)], 0), &mut effects);
    assert_eq!((waiting(&host, 2).unwrap_or(0), waiting(&host, 3)), (0, Some(4)));
    let refused = effects.iter().any(|effect| matches!(effect, Effect::Refuse { .. }));
    assert!(!refused, "{effects:?}");
}
