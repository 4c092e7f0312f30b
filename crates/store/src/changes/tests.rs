use super::*;
use crate::SqliteControl;
use crate::change::{Change, Effect};
use crate::control::contract::{deployment, name};
use crate::ids::Seq;
use tokio::sync::{Semaphore, mpsc};

fn changes() -> (tempfile::TempDir, Changes) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteControl::open(&folder.path().join("control.db")).unwrap();
    (folder, Changes::of_file(Arc::new(store)))
}

#[tokio::test]
async fn a_unit_goes_on_when_its_caller_leaves_between_commit_and_memory() {
    let (_folder, changes) = changes();
    let (committed, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (applied, mut seen) = mpsc::channel(1);
    let (reached, opened) = (committed.clone(), gate.clone());
    let unit = changes.unit(move |turn| async move {
        let done = turn.commit(Proposal::own(deployment(&["a"]))).await.unwrap();
        reached.add_permits(1);
        let _ = opened.acquire().await;
        applied.send(done.seq).await.unwrap();
    });
    tokio::select! {
        () = unit => panic!("the gate is shut"),
        _ = committed.acquire() => {}
    }
    // The caller is gone; the next unit still has to wait for the first.
    let next = changes.clone();
    let removed = kip_host::tasks::spawn("next", async move {
        next.unit(
            |turn| async move { turn.commit(Proposal::own(Change::RemoveFunction(name("a")))).await.unwrap().effect },
        )
        .await
    });
    assert!(seen.try_recv().is_err() && !removed.is_finished());
    gate.add_permits(1);
    assert_eq!(seen.recv().await, Some(Seq(2)));
    assert_eq!(removed.await.unwrap(), Effect::Done);
}

#[tokio::test]
async fn a_panic_in_a_unit_is_the_callers_and_the_next_one_goes_on() {
    let (_folder, changes) = changes();
    let broken = changes.clone();
    let caller =
        kip_host::tasks::spawn(
            "caller",
            async move { broken.unit(|_turn| async move { panic!("in the unit") }).await },
        );
    assert!(caller.await.unwrap_err().is_panic());
    let done = changes.unit(|turn| async move { turn.commit(Proposal::own(deployment(&["a"]))).await.unwrap() }).await;
    assert_eq!(done.seq, Seq(2));
}

#[tokio::test]
async fn a_store_that_is_no_file_restores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteControl::open(&folder.path().join("control.db")).unwrap();
    let changes = Changes::new(Arc::new(store));
    assert!(changes.file().is_none());
}
