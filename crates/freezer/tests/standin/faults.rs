//! Every error, hang and death at every call of either process of a tree, and what must come of it.

use kip_freezer::driver::{Call, State};
use kip_freezer::journal::NullJournal;
use kip_freezer::tree::{self, FreezeOutcome, Order, WakeOutcome};
use kip_freezer::{DeviceLocks, Error};
use kip_spec::code;

use crate::support::{Host, LIMIT, SHORT, order, states};

/// How a freeze and a wake after it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CycleEnd {
    /// Frozen, woken, and content as before.
    Whole,
    /// The freeze was given up and all run, content as before.
    Unlocked,
    /// Nothing was touched by the wake, and a later one did it.
    Parked,
    /// The tree must be ended.
    MustDie,
}

/// Freezes and wakes a tree of two with something going wrong, and checks that whatever is said of it is so.
async fn run(host: &Host, fault: &str, limited: Option<Call>) -> CycleEnd {
    host.knobs("");
    let desk = host.desk().await;
    let mut probes = host.tree().await;
    let sums = [probes[0].tell("sum", LIMIT).await.unwrap().sum, probes[1].tell("sum", LIMIT).await.unwrap().sum];
    let mut order = order(&desk, &probes).await;
    match limited {
        Some(Call::Lock) => order.limits.lock = SHORT,
        Some(Call::Checkpoint) => order.limits.checkpoint = SHORT,
        Some(Call::Restore) => order.limits.restore = SHORT,
        Some(Call::Unlock) => order.limits.unlock = SHORT,
        _ => {}
    }
    host.knobs(fault);
    let end = freeze_and_wake(&desk, &order).await;
    host.knobs("");
    let end = match end {
        CycleEnd::Parked => {
            assert_eq!(states(&desk, &order).await, [State::Checkpointed; 2], "{fault}");
            let woken = tree::wake(&desk, &order, &NullJournal).await;
            assert!(matches!(woken, WakeOutcome::Awake { .. }), "{fault}: {woken:?}");
            CycleEnd::Parked
        }
        other => other,
    };
    if end != CycleEnd::MustDie {
        assert_eq!(states(&desk, &order).await, [State::Running; 2], "{fault}");
        for (probe, sum) in probes.iter_mut().zip(sums) {
            assert_eq!(probe.tell("sum", LIMIT).await.unwrap().sum, sum, "{fault}");
        }
    }
    end
}

async fn freeze_and_wake(desk: &DeviceLocks, order: &Order) -> CycleEnd {
    let frozen = tree::freeze(desk, order, &NullJournal).await;
    let told = frozen.problem().map(|problem| problem.code);
    match frozen {
        FreezeOutcome::Parked { .. } => {}
        FreezeOutcome::Unlocked(_) => {
            assert_eq!(told, Some(code::FREEZE_ABORTED));
            return CycleEnd::Unlocked;
        }
        FreezeOutcome::MustDie(_) => {
            assert_eq!(told, Some(code::FREEZE_LOST));
            return CycleEnd::MustDie;
        }
    }
    match tree::wake(desk, order, &NullJournal).await {
        WakeOutcome::Awake { .. } => CycleEnd::Whole,
        WakeOutcome::Parked(_) => CycleEnd::Parked,
        WakeOutcome::MustDie(_) => CycleEnd::MustDie,
    }
}

/// What the driver may answer.
const CODES: [i32; 12] = [1, 2, 3, 4, 46, 304, 401, 600, 800, 801, 999, 12_345];

/// What an error that stays means for the first and the second process of a tree.
fn expected(call: Call, code: i32, skip: u64) -> CycleEnd {
    // Codes that speak of the helper leave the process untouched; the others cost it at these two calls.
    let touched = !matches!(code, 3 | 4);
    match (call, skip) {
        (Call::Lock, _) => CycleEnd::Unlocked,
        (Call::Checkpoint, 0) if !touched => CycleEnd::Unlocked,
        (Call::Restore, 0) if !touched => CycleEnd::Parked,
        _ => CycleEnd::MustDie,
    }
}

async fn every_code(call: Call) {
    let host = Host::new();
    for code in CODES {
        for skip in [0, 1] {
            let fault = format!("inject.{} = {code},{skip}", call.symbol());
            assert_eq!(run(&host, &fault, None).await, expected(call, code, skip), "{fault}");
        }
    }
}

#[tokio::test]
async fn every_error_of_a_lock() {
    every_code(Call::Lock).await;
}

#[tokio::test]
async fn every_error_of_a_checkpoint() {
    every_code(Call::Checkpoint).await;
}

#[tokio::test]
async fn every_error_of_a_restore() {
    every_code(Call::Restore).await;
}

#[tokio::test]
async fn every_error_of_an_unlock() {
    every_code(Call::Unlock).await;
}

#[tokio::test]
async fn an_error_that_passes_is_gone_at_the_second_try_where_a_second_try_is_safe() {
    let host = Host::new();
    for (call, code, end) in [
        (Call::Lock, 600, CycleEnd::Unlocked),
        (Call::Checkpoint, 3, CycleEnd::Whole),
        (Call::Checkpoint, 304, CycleEnd::MustDie),
        (Call::Restore, 3, CycleEnd::Whole),
        (Call::Restore, 2, CycleEnd::MustDie),
        (Call::Unlock, 304, CycleEnd::Whole),
        (Call::Unlock, 401, CycleEnd::Whole),
    ] {
        let fault = format!("inject.{} = {code},0,1", call.symbol());
        assert_eq!(run(&host, &fault, None).await, end, "{fault}");
    }
}

/// The helper dies or hangs before or after the call was done, at each step and for each process.
async fn every_loss(call: Call) {
    let host = Host::new();
    for skip in [0, 1] {
        for (effect, done) in [("die", false), ("die-after", true), ("hang", false), ("hang-after", true)] {
            let fault = format!("inject.{} = {effect},{skip},1", call.symbol());
            let limited = effect.starts_with("hang").then_some(call);
            let end = match call {
                _ if done => CycleEnd::Whole,
                Call::Lock => CycleEnd::Unlocked,
                Call::Unlock => CycleEnd::Whole,
                _ => CycleEnd::MustDie,
            };
            assert_eq!(run(&host, &fault, limited).await, end, "{fault}");
        }
    }
}

#[tokio::test]
async fn a_helper_lost_at_a_lock() {
    every_loss(Call::Lock).await;
}

#[tokio::test]
async fn a_helper_lost_at_a_checkpoint() {
    every_loss(Call::Checkpoint).await;
}

#[tokio::test]
async fn a_helper_lost_at_a_restore() {
    every_loss(Call::Restore).await;
}

#[tokio::test]
async fn a_helper_lost_at_an_unlock() {
    every_loss(Call::Unlock).await;
}

#[tokio::test]
async fn an_abort_that_cannot_unlock_says_that_the_tree_must_die() {
    let host = Host::new();
    for code in [304, 401] {
        let fault = format!("inject.cuCheckpointProcessLock = 600,1\ninject.cuCheckpointProcessUnlock = {code}");
        assert_eq!(run(&host, &fault, None).await, CycleEnd::MustDie, "{fault}");
    }
}

#[tokio::test]
async fn a_call_that_only_says_that_it_was_done_is_found_out() {
    let host = Host::new();
    for (call, end) in [
        (Call::Lock, CycleEnd::Unlocked),
        (Call::Checkpoint, CycleEnd::MustDie),
        (Call::Restore, CycleEnd::MustDie),
        (Call::Unlock, CycleEnd::MustDie),
    ] {
        let fault = format!("inject.{} = 0", call.symbol());
        assert_eq!(run(&host, &fault, None).await, end, "{fault}");
    }
}

#[tokio::test]
async fn nothing_is_touched_while_states_cannot_be_told() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    host.knobs("inject.cuCheckpointProcessGetRestoreThreadId = 999");
    let found = tree::find(&desk, &[probes[0].pid()], LIMIT).await;
    assert!(matches!(found, Err(Error::Driver(_))), "{found:?}");
}

#[tokio::test]
async fn managed_memory_is_refused_and_costs_the_instance() {
    let host = Host::new();
    let desk = host.desk().await;
    let mut probes = host.tree().await;
    probes[0].tell("managed", LIMIT).await.unwrap();
    let order = order(&desk, &probes).await;
    let frozen = tree::freeze(&desk, &order, &NullJournal).await;
    let FreezeOutcome::MustDie(error) = frozen else { panic!("{frozen:?}") };
    assert!(error.problem().cause.unwrap().contains("801"));
}

#[tokio::test]
async fn nvml_that_fails_leaves_memory_charged() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let order = order(&desk, &probes).await;
    host.knobs("inject.nvmlDeviceGetComputeRunningProcesses_v3 = 999");
    let frozen = tree::freeze(&desk, &order, &NullJournal).await;
    assert!(matches!(frozen, FreezeOutcome::Parked { residue: None, .. }), "{frozen:?}");
    // And without it there is no way to see that there is room.
    let woken = tree::wake(&desk, &order, &NullJournal).await;
    assert!(matches!(woken, WakeOutcome::Parked(Error::CannotFreeze(_))), "{woken:?}");
}
