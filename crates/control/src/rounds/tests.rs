//! The list without its task: what counts, and what is dropped.

use std::net::SocketAddr;

use kip_engine::Liveness;
use kip_spec::VersionId;
use kip_spec::function::{FunctionSpec, LiveProbe, Program, ReadyProbe, Resources, Rotation};
use kip_spec::probe::{ProbeTiming, ProbeTimings};
use tokio::sync::watch;

use super::*;
use crate::Version;

pub(crate) fn spec() -> FunctionSpec {
    let program = Program::Command { argv: vec!["x".to_owned()], dir: "/".into() };
    FunctionSpec {
        ready: ReadyProbe::Http { path: "/ready".to_owned() },
        live: Some(LiveProbe { path: "/live".to_owned() }),
        resources: Resources { memory: Some(kip_spec::Bytes(1 << 30)), ..Resources::default() },
        rotation: Rotation { max_age: None, max_memory: Some(kip_spec::Bytes(10 << 20)) },
        ..FunctionSpec::new("f".parse().unwrap(), program)
    }
}

const ID: InstanceId = InstanceId { boot: 1, core: 1, sequence: 1 };

fn awake(rounds: &CheckSchedule, spec: FunctionSpec) -> Arc<Link> {
    let version = Arc::new(Version::new(VersionId(1), spec, Default::default()));
    let link = Arc::new(Link::new(
        ID,
        version,
        SocketAddr::from(([127, 0, 0, 1], 1)).into(),
        watch::channel(Liveness::Alive).1,
        None,
    ));
    rounds.awake(&link, Weak::new(), None, false);
    link
}

fn due(rounds: &CheckSchedule, look: CheckKind) -> DueCheck {
    let taken = rounds.list().take(u64::MAX);
    taken.into_iter().find(|due| due.look == look).unwrap()
}

#[test]
fn three_failures_in_a_row_count_and_one_success_undoes_them() {
    let rounds = CheckSchedule::default();
    awake(&rounds, spec());
    let look = due(&rounds, CheckKind::Ready);
    let mut list = rounds.list();
    let mut found = |found, busy| match list.found(&look, found, busy, 0) {
        Some(CheckVerdict::Event(Event::Readiness { ready, .. })) => Some(ready),
        _ => None,
    };
    assert_eq!((found(CheckResult::Refused, false), found(CheckResult::Refused, false)), (None, None));
    assert_eq!(found(CheckResult::Well, false), None);
    assert_eq!((found(CheckResult::Slow, false), found(CheckResult::Refused, false)), (None, None));
    // Busy and slow is not a failure; refusing is.
    assert_eq!(found(CheckResult::Slow, true), None);
    assert_eq!(found(CheckResult::Refused, true), Some(false));
    // Told once.
    assert_eq!(found(CheckResult::Refused, true), None);
    assert_eq!((found(CheckResult::Well, false), found(CheckResult::Well, false)), (Some(true), None));
}

#[test]
fn periods_and_thresholds_of_a_declaration_hold() {
    let rounds = CheckSchedule::default();
    let timing = |failures, successes, seconds| ProbeTiming {
        period: Some(kip_spec::Millis::from_secs(seconds)),
        failures: Some(failures),
        successes: Some(successes),
        ..ProbeTiming::default()
    };
    let probes = ProbeTimings {
        ready: timing(1, 3, 2),
        live: ProbeTiming { delay: Some(kip_spec::Millis::from_secs(40)), ..timing(2, 1, 7) },
    };
    let before = kip_host::clock::boot_millis();
    awake(&rounds, FunctionSpec { probes, ..spec() });
    let first = |kind: CheckKind| {
        let at = rounds.list().due.iter().find(|(_, _, look)| *look == kind).map(|(at, ..)| *at);
        (at.unwrap() - before) / 1_000
    };
    assert_eq!((first(CheckKind::Ready), first(CheckKind::Live)), (2, 40), "the delay comes before the first look");
    let taken = rounds.list().take(u64::MAX);
    let look = |kind: CheckKind| taken.iter().find(|due| due.look == kind).unwrap().clone();
    let mut list = rounds.list();
    let mut found = |kind, found| match list.found(&look(kind), found, false, 1_000) {
        Some(CheckVerdict::Event(Event::Readiness { ready, .. })) => Some(ready),
        Some(CheckVerdict::Event(Event::Unhealthy { .. })) => Some(false),
        _ => None,
    };
    use CheckResult::{Refused, Well};
    assert_eq!(found(CheckKind::Ready, Refused), Some(false), "one failure counts");
    assert_eq!((found(CheckKind::Ready, Well), found(CheckKind::Ready, Well)), (None, None));
    // A failure in between begins the count anew, and is not told twice.
    assert_eq!((found(CheckKind::Ready, Refused), found(CheckKind::Ready, Well)), (None, None));
    assert_eq!((found(CheckKind::Ready, Well), found(CheckKind::Ready, Well)), (None, Some(true)));
    assert_eq!((found(CheckKind::Live, Refused), found(CheckKind::Live, Refused)), (None, Some(false)));
    let next = |kind: CheckKind| list.due.iter().find(|(_, _, look)| *look == kind).map(|(at, ..)| *at);
    assert_eq!((next(CheckKind::Ready), next(CheckKind::Live)), (Some(3_000), Some(8_000)));
}

#[test]
fn life_is_told_with_each_failure_from_the_third_on() {
    let rounds = CheckSchedule::default();
    awake(&rounds, spec());
    let look = due(&rounds, CheckKind::Live);
    let mut list = rounds.list();
    let mut found = |found| match list.found(&look, found, true, 0) {
        Some(CheckVerdict::Event(Event::Unhealthy { how, .. })) => Some(how),
        _ => None,
    };
    assert_eq!((found(CheckResult::Slow), found(CheckResult::Slow)), (None, None));
    assert_eq!(
        (found(CheckResult::Slow), found(CheckResult::Refused)),
        (Some(ProbeFailure::Slow), Some(ProbeFailure::Refused))
    );
    assert_eq!((found(CheckResult::Well), found(CheckResult::Refused)), (None, None));
}

#[test]
fn memory_is_told_when_it_changes_and_when_it_is_too_much() {
    let rounds = CheckSchedule::default();
    awake(&rounds, spec());
    let look = due(&rounds, CheckKind::Memory);
    let mut list = rounds.list();
    let mut found = |bytes| match list.found(&look, CheckResult::Uses(bytes), false, 0) {
        Some(CheckVerdict::Uses { memory, outgrown }) => Some((memory, outgrown)),
        _ => None,
    };
    assert_eq!(found(5 << 20), Some((5 << 20, false)));
    assert_eq!(found((5 << 20) + 100), None);
    assert_eq!(found(11 << 20), Some((11 << 20, true)));
    assert_eq!(found(11 << 20), Some((11 << 20, true)));
}

#[test]
fn nothing_is_due_of_one_that_sleeps_and_late_answers_are_dropped() {
    let rounds = CheckSchedule::default();
    let link = awake(&rounds, spec());
    let before = due(&rounds, CheckKind::Live);
    rounds.asleep(ID);
    assert!(rounds.list().take(u64::MAX).is_empty());
    rounds.awake(&link, Weak::new(), None, false);
    let mut list = rounds.list();
    for _ in 0..5 {
        assert!(list.found(&before, CheckResult::Refused, false, 0).is_none());
    }
    assert_eq!(list.take(u64::MAX).len(), 3);
}

#[test]
fn one_that_asks_for_nothing_is_not_listed() {
    let rounds = CheckSchedule::default();
    let plain = FunctionSpec {
        ready: ReadyProbe::Tcp,
        live: None,
        resources: Resources::default(),
        rotation: Rotation::default(),
        ..spec()
    };
    awake(&rounds, plain);
    assert!(rounds.list().entries.is_empty());
}

#[test]
fn an_instance_is_replaced_once_it_loses_the_files_that_it_saw() {
    let rounds = CheckSchedule::default();
    let snapshot = kip_spec::snapshot::Snapshot { digest: "0".repeat(64), live: vec![], pinned: vec![], moved: false };
    let mut declared = spec();
    declared.code.snapshot = Some(snapshot);
    awake(&rounds, declared);
    let look = due(&rounds, CheckKind::Code);
    let mut list = rounds.list();
    let mut found = |sees| match list.found(&look, CheckResult::Sees(sees), false, 0) {
        Some(CheckVerdict::Event(Event::Replace { instance: ID, why: Reason::CodeLost })) => true,
        None => false,
        Some(_) => panic!(),
    };
    // What was never seen there is not lost.
    assert_eq!([found(false), found(true), found(true), found(false)], [false, false, false, true]);
}
