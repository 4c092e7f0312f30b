//! The journal: when it cannot be written, and what a later server makes of it at each step.

use kip_freezer::driver::State;
use kip_freezer::journal::{NullJournal, Step};
use kip_freezer::recovery::{Decision, MemberState, decide};
use kip_freezer::tree::{self, FreezeOutcome, Order, WakeOutcome};
use kip_freezer::{DeviceLocks, Error};
use kip_host::clock;

use crate::support::{Host, LIMIT, RecordingJournal, order, states};

#[tokio::test]
async fn no_step_is_taken_that_could_not_be_written_down() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let order = order(&desk, &probes).await;
    for step in [Step::Locking, Step::Checkpointing] {
        let journal = RecordingJournal { fails_at: Some(step), ..RecordingJournal::default() };
        let frozen = tree::freeze(&desk, &order, &journal).await;
        assert!(matches!(frozen, FreezeOutcome::Unlocked(Error::Journal(_))), "{step:?}: {frozen:?}");
        assert_eq!(states(&desk, &order).await, [State::Running; 2], "{step:?}");
    }
    // What is written after the fact is not worth an instance.
    let journal = RecordingJournal { fails_at: Some(Step::Parked), ..RecordingJournal::default() };
    assert!(matches!(tree::freeze(&desk, &order, &journal).await, FreezeOutcome::Parked { .. }));
    let journal = RecordingJournal { fails_at: Some(Step::Restoring), ..RecordingJournal::default() };
    let woken = tree::wake(&desk, &order, &journal).await;
    assert!(matches!(woken, WakeOutcome::Parked(Error::Journal(_))), "{woken:?}");
    assert_eq!(states(&desk, &order).await, [State::Checkpointed; 2]);
    let journal = RecordingJournal { fails_at: Some(Step::Unlocking), ..RecordingJournal::default() };
    assert!(matches!(tree::wake(&desk, &order, &journal).await, WakeOutcome::Awake { .. }));
}

/// What a later server sees and decides.
async fn recover(host: &Host, journal: &RecordingJournal, now: u64) -> (DeviceLocks, Decision) {
    let desk = host.desk().await;
    let entry = journal.last();
    let mut seen = Vec::new();
    for member in &entry.members {
        seen.push(match desk.state(member.pid, LIMIT).await {
            Ok(state) if member.lives() => MemberState::Is(state),
            _ => MemberState::Ended,
        });
    }
    let decision = decide(&entry, &seen, now, &clock::boot_id().unwrap());
    (desk, decision)
}

/// The server and its helpers end right after they have written down what comes next, or in the midst of it.
#[tokio::test]
async fn whoever_comes_after_knows_what_to_do() {
    let late = u64::MAX;
    for (step, fault, expected) in [
        (Step::Locking, "", Decision::Serve),
        (Step::Locking, "inject.cuCheckpointProcessLock = hang-after,0,1", Decision::Unlock(vec![0])),
        (Step::Checkpointing, "", Decision::Unlock(vec![0, 1])),
        (Step::Checkpointing, "inject.cuCheckpointProcessCheckpoint = hang-after,0,1", Decision::Kill("")),
        (Step::Checkpointing, "inject.cuCheckpointProcessCheckpoint = hang-after,1,1", Decision::Keep),
        (Step::Parked, "", Decision::Keep),
        (Step::Restoring, "", Decision::Kill("")),
        (Step::Restoring, "inject.cuCheckpointProcessRestore = hang-after,0,1", Decision::Kill("")),
        (Step::Restoring, "inject.cuCheckpointProcessRestore = hang-after,1,1", Decision::Unlock(vec![0, 1])),
        (Step::Unlocking, "", Decision::Unlock(vec![0, 1])),
        (Step::Unlocking, "inject.cuCheckpointProcessUnlock = hang-after,0,1", Decision::Unlock(vec![1])),
        (Step::Unlocking, "inject.cuCheckpointProcessUnlock = hang-after,1,1", Decision::Serve),
    ] {
        let host = Host::new();
        let desk = host.desk().await;
        let mut probes = host.tree().await;
        let sum = probes[1].tell("sum", LIMIT).await.unwrap().sum;
        let order = order(&desk, &probes).await;
        host.knobs(fault);
        let journal = broken_off(&host, &desk, &order, step, fault).await;
        drop(desk);
        host.knobs("");
        let (desk, decision) = recover(&host, &journal, late).await;
        let pids = |members: &[usize]| Decision::Unlock(members.iter().map(|at| order.members[*at].pid).collect());
        let expected = match expected {
            Decision::Unlock(members) => pids(&members.iter().map(|at| *at as usize).collect::<Vec<_>>()),
            other => other,
        };
        let decision = if let Decision::Kill(_) = decision { Decision::Kill("") } else { decision };
        assert_eq!(decision, expected, "{step:?} {fault}");
        // What was decided can be done, and leads where it should.
        match decision {
            Decision::Unlock(members) => {
                for pid in members {
                    let act = kip_freezer::Ask::Act { call: kip_freezer::driver::Call::Unlock, pid, timeout_ms: 0 };
                    assert_eq!(desk.ask(act, LIMIT).await.unwrap().0, kip_freezer::Answer::Done);
                }
            }
            Decision::Keep => {
                assert!(matches!(tree::wake(&desk, &order, &NullJournal).await, WakeOutcome::Awake { .. }), "{step:?}");
            }
            Decision::Serve => {}
            _ => continue,
        }
        assert_eq!(probes[1].tell("sum", LIMIT).await.unwrap().sum, sum, "{step:?} {fault}");
    }
}

/// Runs until a step is written down, or until the fault has struck after it, and ends there as a server that is killed.
async fn broken_off(host: &Host, desk: &DeviceLocks, order: &Order, step: Step, fault: &str) -> RecordingJournal {
    let wakes = matches!(step, Step::Restoring | Step::Unlocking);
    if wakes {
        assert!(matches!(tree::freeze(desk, order, &NullJournal).await, FreezeOutcome::Parked { .. }));
    }
    let journal = RecordingJournal { stops_at: fault.is_empty().then_some(step), ..RecordingJournal::default() };
    let work = async {
        if wakes {
            drop(tree::wake(desk, order, &journal).await);
        } else {
            drop(tree::freeze(desk, order, &journal).await);
        }
    };
    let there = async {
        let skip = |knob: &str| knob.split(',').nth(1).unwrap().trim().parse::<u64>().unwrap();
        let hung = |knob: &str| {
            let call = knob.trim_start_matches("inject.").split_whitespace().next().unwrap().to_owned();
            host.calls(&call) > skip(knob)
        };
        let is_there = || journal.steps().last() == Some(&step) && (fault.is_empty() || hung(fault));
        while !is_there() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // The count is taken before the call does its work: until it is done, its state is not the one that is meant.
        if !fault.is_empty() {
            let members = usize::try_from(skip(fault)).unwrap() + 1;
            until_done(desk, order, step, members).await;
        }
    };
    tokio::select! {
        () = work => panic!("it came to its end: {step:?} {fault}"),
        () = there => {}
    }
    journal
}

/// Waits until so many processes show the state that the work leads to: members go one after the other, and the last of them is
/// the one whose call hangs after its work. A helper answers meanwhile.
async fn until_done(desk: &DeviceLocks, order: &Order, step: Step, members: usize) {
    let to = match step {
        Step::Locking | Step::Restoring => State::Locked,
        Step::Checkpointing => State::Checkpointed,
        _ => State::Running,
    };
    crate::support::until("the call has done its work", async || {
        states(desk, order).await.into_iter().filter(|state| *state == to).count() >= members
    })
    .await;
}
