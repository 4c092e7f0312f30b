//! Trees that freeze and wake as they should.

use kip_freezer::driver::State;
use kip_freezer::journal::{Member, NullJournal, Step};
use kip_freezer::tree::{self, FreezeOutcome, RetireOutcome, WakeOutcome};
use kip_freezer::{DeviceLocks, Error};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{BYTES, CONTEXT, Host, LIMIT, RecordingJournal, order, states, until};

async fn used(desk: &DeviceLocks) -> u64 {
    desk.report().await.unwrap().devices[0].memory.used
}

fn signal(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(process).unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_tree_gives_its_memory_back_and_gets_its_content_again() {
    let host = Host::new();
    let desk = host.desk().await;
    let mut probes = host.tree().await;
    let sums = [probes[0].tell("sum", LIMIT).await.unwrap().sum, probes[1].tell("sum", LIMIT).await.unwrap().sum];
    let order = order(&desk, &probes).await;
    assert_eq!(used(&desk).await, 2 * (BYTES + CONTEXT));
    let journal = RecordingJournal::default();
    for _ in 0..3 {
        let frozen = tree::freeze(&desk, &order, &journal).await;
        assert!(matches!(frozen, FreezeOutcome::Parked { residue: Some(0), .. }), "{frozen:?}");
        assert_eq!(states(&desk, &order).await, [State::Checkpointed; 2]);
        assert_eq!(used(&desk).await, 0);
        let woken = tree::wake(&desk, &order, &journal).await;
        assert!(
            matches!(woken, WakeOutcome::Awake { held: Some(held), .. } if held == 2 * (BYTES + CONTEXT)),
            "{woken:?}"
        );
        for (probe, sum) in probes.iter_mut().zip(sums) {
            assert_eq!(probe.tell("sum", LIMIT).await.unwrap().sum, sum);
        }
    }
    let steps = [Step::Locking, Step::Checkpointing, Step::Parked, Step::Restoring, Step::Unlocking];
    assert_eq!(journal.steps(), steps.repeat(3));
    let entry = journal.last();
    assert_eq!((entry.members, entry.bytes), (order.members.clone(), order.bytes));
}

#[tokio::test]
async fn an_engine_waits_while_it_is_frozen_and_goes_on_where_it_was() {
    let host = Host::new();
    let desk = host.desk().await;
    let [mut probe, other] = host.tree().await;
    let sum = probe.tell("sum", LIMIT).await.unwrap().sum;
    let all = [probe, other];
    let order = order(&desk, &all).await;
    let [mut probe, _other] = all;
    assert!(matches!(tree::freeze(&desk, &order, &NullJournal).await, FreezeOutcome::Parked { .. }));
    {
        let mut asked = std::pin::pin!(probe.tell("sum", LIMIT));
        // Whole questions to the helper pass meanwhile, so an answer would have come.
        for _ in 0..20 {
            tokio::select! {
                biased;
                said = &mut asked => panic!("it answered while it was frozen: {said:?}"),
                _ = desk.report() => {}
            }
        }
        assert!(matches!(tree::wake(&desk, &order, &NullJournal).await, WakeOutcome::Awake { .. }));
        assert_eq!(asked.await.unwrap().sum, sum);
    }
}

#[tokio::test]
async fn only_processes_that_use_cuda_are_found() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let processes = [std::process::id(), probes[0].pid(), u32::MAX / 2, probes[1].pid()];
    let found = tree::find(&desk, &processes, LIMIT).await.unwrap();
    let found: Vec<u32> = found.iter().map(|member| member.pid).collect();
    assert_eq!(found, [probes[0].pid(), probes[1].pid()]);
}

#[tokio::test]
async fn a_wake_without_room_touches_nothing() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let order = order(&desk, &probes).await;
    assert!(matches!(tree::freeze(&desk, &order, &NullJournal).await, FreezeOutcome::Parked { .. }));
    host.knobs(&format!("capacity = {}\ninject.cuCheckpointProcessRestore = 0", order.bytes));
    let woken = tree::wake(&desk, &order, &NullJournal).await;
    assert!(matches!(woken, WakeOutcome::Parked(Error::NoRoom { .. })), "{woken:?}");
    assert_eq!(host.calls("cuCheckpointProcessRestore"), 0, "a restore without room costs the instance");
    assert_eq!(states(&desk, &order).await, [State::Checkpointed; 2]);
    host.knobs("");
    assert!(matches!(tree::wake(&desk, &order, &NullJournal).await, WakeOutcome::Awake { .. }));
}

/// Somebody outside took the memory between the look and the restore.
#[tokio::test]
async fn a_restore_that_finds_no_room_costs_the_instance() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let mut order = order(&desk, &probes).await;
    assert!(matches!(tree::freeze(&desk, &order, &NullJournal).await, FreezeOutcome::Parked { .. }));
    host.knobs(&format!("capacity = {}", CONTEXT));
    order.bytes = 0;
    let woken = tree::wake(&desk, &order, &NullJournal).await;
    let WakeOutcome::MustDie(Error::Driver(failed)) = &woken else { panic!("{woken:?}") };
    assert_eq!(failed.code, Some(2));
    assert_eq!(states(&desk, &order).await[0], State::Failed);
}

#[tokio::test]
async fn a_stopped_process_is_refused_before_anything_hangs() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let order = order(&desk, &probes).await;
    let stopped = probes[1].pid();
    signal(stopped, Signal::STOP);
    until("it is stopped", async || kip_host::processes::look(stopped).unwrap().is_stopped()).await;
    let frozen = tree::freeze(&desk, &order, &NullJournal).await;
    assert!(matches!(frozen, FreezeOutcome::Unlocked(Error::Stopped(process)) if process == stopped), "{frozen:?}");
    assert_eq!(states(&desk, &order).await, [State::Running; 2]);
    signal(stopped, Signal::CONT);
    until("it runs", async || !kip_host::processes::look(stopped).unwrap().is_stopped()).await;
    assert!(matches!(tree::freeze(&desk, &order, &NullJournal).await, FreezeOutcome::Parked { .. }));
    signal(stopped, Signal::STOP);
    until("it is stopped", async || kip_host::processes::look(stopped).unwrap().is_stopped()).await;
    let woken = tree::wake(&desk, &order, &NullJournal).await;
    assert!(matches!(woken, WakeOutcome::Parked(Error::Stopped(_))), "{woken:?}");
    signal(stopped, Signal::CONT);
}

#[tokio::test]
async fn a_process_frozen_by_its_cgroup_is_refused_too() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let order = order(&desk, &probes).await;
    let halted = probes[1].pid();
    let group = match crate::group::Group::around(halted) {
        Ok(group) => group,
        Err(why) => return println!("skipped: {why}"),
    };
    group.freeze().unwrap();
    // This is why a look at the state alone is not enough.
    assert!(!kip_host::processes::look(halted).unwrap().is_stopped());
    let frozen = tree::freeze(&desk, &order, &NullJournal).await;
    assert!(matches!(frozen, FreezeOutcome::Unlocked(Error::Stopped(process)) if process == halted), "{frozen:?}");
    group.thaw().unwrap();
    assert!(matches!(tree::freeze(&desk, &order, &NullJournal).await, FreezeOutcome::Parked { .. }));
    group.freeze().unwrap();
    let woken = tree::wake(&desk, &order, &NullJournal).await;
    assert!(matches!(woken, WakeOutcome::Parked(Error::Stopped(process)) if process == halted), "{woken:?}");
    group.thaw().unwrap();
    assert!(matches!(tree::wake(&desk, &order, &NullJournal).await, WakeOutcome::Awake { .. }));
}

#[tokio::test]
async fn another_process_of_the_same_number_is_left_alone() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let mut order = order(&desk, &probes).await;
    let Member { pid, started } = order.members[1];
    order.members[1] = Member { pid, started: started - 1 };
    let frozen = tree::freeze(&desk, &order, &NullJournal).await;
    assert!(matches!(frozen, FreezeOutcome::Unlocked(Error::Ended(_))), "{frozen:?}");
    assert_eq!(states(&desk, &order).await, [State::Running; 2]);
}

#[tokio::test]
async fn what_was_restored_is_emptied_before_it_is_killed() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let mut order = order(&desk, &probes).await;
    assert!(matches!(tree::retire(&desk, &order, &NullJournal).await, RetireOutcome::NotNeeded));
    assert_eq!(states(&desk, &order).await, [State::Running; 2]);
    assert!(matches!(tree::freeze(&desk, &order, &NullJournal).await, FreezeOutcome::Parked { .. }));
    assert!(matches!(tree::wake(&desk, &order, &NullJournal).await, WakeOutcome::Awake { .. }));
    order.was_restored = true;
    let retired = tree::retire(&desk, &order, &NullJournal).await;
    assert!(matches!(retired, RetireOutcome::Empty), "{retired:?}");
    assert_eq!(used(&desk).await, 0);
    for probe in probes {
        probe.kill(LIMIT).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_emptied_says_what_it_holds() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let mut order = order(&desk, &probes).await;
    order.was_restored = true;
    host.knobs("inject.cuCheckpointProcessCheckpoint = 304");
    let retired = tree::retire(&desk, &order, &NullJournal).await;
    let RetireOutcome::Holds(Some(held), Some(error)) = &retired else { panic!("{retired:?}") };
    assert_eq!(*held, order.bytes);
    assert!(error.problem().cause.unwrap().contains("OPERATING_SYSTEM"));
}

#[tokio::test]
async fn memory_that_stays_behind_is_told() {
    let host = Host::new();
    let desk = host.desk().await;
    let probes = host.tree().await;
    let order = order(&desk, &probes).await;
    host.knobs("inject.cuCheckpointProcessCheckpoint = leak,0,1");
    let frozen = tree::freeze(&desk, &order, &NullJournal).await;
    let half = (BYTES + CONTEXT) / 2;
    assert!(matches!(frozen, FreezeOutcome::Parked { residue: Some(left), .. } if left == half), "{frozen:?}");
}

#[tokio::test]
async fn one_operation_at_a_time_on_a_device() {
    let host = Host::new();
    let desk = host.desk().await;
    let turn = desk.turn(&["b".to_owned(), "a".to_owned()]).await;
    let (other, third) = (desk.clone(), desk.clone());
    let waits = kip_host::tasks::spawn("waits", async move { drop(other.turn(&["a".to_owned()]).await) });
    // Another device is free meanwhile.
    drop(third.turn(&["c".to_owned()]).await);
    assert!(!waits.is_finished());
    drop(turn);
    waits.await.unwrap();
}
