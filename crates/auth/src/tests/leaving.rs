//! A caller that leaves between the commit and memory, for each change of keys.

use kip_store::gate::{CommitGate, GatedControl};

use super::*;

struct World {
    _data: tempfile::TempDir,
    keys: Keys,
    gate: CommitGate,
}

async fn world() -> World {
    let data = tempfile::tempdir().unwrap();
    let store = SqliteControl::open(&data.path().join("control.db")).unwrap();
    let gate = CommitGate::default();
    let changes = Changes::of_file(Arc::new(GatedControl { store, gate: gate.clone() }));
    let (keys, _) = Keys::open(changes, data.path(), Seal::open(data.path()).unwrap()).await.unwrap();
    World { _data: data, keys, gate }
}

impl World {
    /// Begins a change, drops it when its commit is on the disk, lets the commit go on, and waits until it is over.
    async fn leave<F: Future>(&self, change: F) {
        self.gate.leave(change).await;
        // The next unit comes when the one that was left is over.
        self.keys.shared.changes.unit(|_turn| async {}).await;
    }
}

#[tokio::test]
async fn memory_has_each_change_of_a_key_though_its_caller_left() {
    let world = world().await;
    let keys = &world.keys;
    let made = keys.create(new("k", Role::Invoke), author()).await.unwrap();

    world.leave(keys.create(new("second", Role::Invoke), author())).await;
    assert!(keys.show("second").is_ok());

    let off = KeyChange { disabled: Some(true), ..KeyChange::default() };
    world.leave(keys.change("k", off, author())).await;
    assert_eq!(keys.check(Some(&made.secret)).unwrap_err().code, code::KEY_DISABLED);

    let on = KeyChange { disabled: Some(false), ..KeyChange::default() };
    keys.change("k", on, author()).await.unwrap();
    world.leave(keys.rotate("k", Millis(0), author())).await;
    assert_eq!(keys.check(Some(&made.secret)).unwrap_err().code, code::KEY_WRONG);

    let fresh = keys.rotate("k", Millis(0), author()).await.unwrap();
    assert!(keys.check(Some(&fresh.secret)).is_ok());
    world.leave(keys.write_uses()).await;
    assert!(keys.find("k").unwrap().stored.last_use.is_some());

    world.leave(keys.remove("k", author())).await;
    assert_eq!(keys.check(Some(&fresh.secret)).unwrap_err().code, code::KEY_WRONG, "a removed key stops working");
}

#[tokio::test]
async fn the_end_of_an_audit_record_is_written_though_its_caller_left() {
    let world = world().await;
    let key = world.keys.find("admin").unwrap();
    let record = world.keys.audit_begin(&key, "key.create", "k", "127.0.0.1".to_owned()).await.unwrap();
    world.gate.shut();
    tokio::select! {
        _ = world.keys.audit_end(record, "k".to_owned(), "done".to_owned()) => panic!("the gate is shut"),
        () = world.gate.reached() => {}
    }
    world.gate.open();
    let ended = async || {
        let found = world.keys.audit(AuditFilter { limit: 1, ..AuditFilter::default() }).await.unwrap();
        found[0].result == "done"
    };
    for _ in 0..2_000 {
        if ended().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the end of the record does not come");
}

#[tokio::test]
async fn a_change_of_a_key_that_was_changed_since_is_refused() {
    let world = world().await;
    let keys = &world.keys;
    let made = keys.create(new("k", Role::Invoke), author()).await.unwrap();
    let read = Author { if_match: Some(kip_store::Seq(made.info.rev)), ..author() };
    let off = KeyChange { disabled: Some(true), ..KeyChange::default() };
    let changed = keys.change("k", off.clone(), read.clone()).await.unwrap();
    assert!(changed.rev > made.info.rev);
    assert_eq!(code_of(keys.change("k", off, read.clone()).await), code::STALE);
    assert_eq!(code_of(keys.remove("k", read).await), code::STALE);
    assert_eq!(keys.show("k").unwrap(), changed);
}
