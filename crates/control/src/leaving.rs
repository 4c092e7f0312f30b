//! A caller that leaves between the commit and memory, for each change of control objects.

use std::future::Future;
use std::sync::Arc;

use kip_spec::function::FunctionSpec;
use kip_spec::scaling::{Fc, Provision};
use kip_store::gate::{CommitGate, GatedControl};
use kip_store::tasks::SqliteTasks;
use kip_store::{Author, Changes, ControlReader as _, Seq, SqliteControl, SqliteRecords};

use crate::{Control, Files, LATEST, Stores};

struct World {
    data: tempfile::TempDir,
    control: Control,
    store: SqliteControl,
    gate: CommitGate,
}

async fn world() -> World {
    let data = tempfile::tempdir().unwrap();
    let path = |name: &str| data.path().join(name);
    let store = SqliteControl::open(&path("control.db")).unwrap();
    let records = Arc::new(SqliteRecords::open(&path("records.db")).unwrap());
    let tasks = Arc::new(SqliteTasks::open(&path("tasks.db")).unwrap());
    let gate = CommitGate::default();
    let changes = Changes::of_file(Arc::new(GatedControl { store: store.clone(), gate: gate.clone() }));
    let stores = Stores { changes, records: records.clone(), files: Some(Files { records, tasks }) };
    let (control, _body) = crate::testing::open(data.path(), 1, stores, false).await;
    World { data, control, store, gate }
}

fn spec(name: &str) -> FunctionSpec {
    crate::testing::spec(name)
}

fn author() -> Author {
    Author::default()
}

impl World {
    /// Begins a change, drops it when its commit is on the disk, lets the commit go on, and waits until it is over.
    async fn leave<F: Future>(&self, change: F) {
        self.gate.leave(change).await;
        // The next unit comes when the one that was left is over.
        self.control.shared.changes.unit(|_turn| async {}).await;
    }

    /// The functions in memory, and those in the store: they must be the same.
    async fn functions(&self) -> Vec<String> {
        let memory: Vec<String> = self.control.functions().iter().map(|info| info.name.to_string()).collect();
        let stored = self.store.current_revisions().await.unwrap();
        assert_eq!(memory, stored.iter().map(|revision| revision.spec.name.to_string()).collect::<Vec<_>>());
        memory
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_has_each_change_though_its_caller_left() {
    let world = world().await;
    let control = &world.control;
    let deploy = |names: &[&str]| {
        let specs = names.iter().map(|name| spec(name)).collect();
        control.deploy(specs, String::new(), "kip.yaml", author())
    };
    world.leave(deploy(&["a", "b"])).await;
    assert_eq!(world.functions().await, ["a", "b"]);

    world.leave(control.put_provision("a", LATEST, Fc::new(Provision::default()), author())).await;
    let put = |control: &Control| control.provision("a", LATEST).is_ok();
    assert!(put(control));
    world.leave(control.remove_provision("a", LATEST, author())).await;
    assert!(!put(control));

    let backup = world.data.path().join("backup");
    control.backup(&backup, false, false, false).await.unwrap();
    world.leave(control.remove("a", author())).await;
    assert_eq!(world.functions().await, ["b"]);

    world.leave(control.restore(&backup, false, (false, None), String::new())).await;
    assert_eq!(world.functions().await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_function_that_was_changed_since_is_refused() {
    let world = world().await;
    let control = &world.control;
    control.deploy(vec![spec("a")], String::new(), "kip.yaml", author()).await.unwrap();
    let rev = control.rev(kip_store::Object::Function("a".parse().unwrap())).await.unwrap();
    let read = Author { if_match: Some(rev), ..author() };
    control.deploy(vec![spec("a")], String::new(), "kip.yaml", read.clone()).await.unwrap();
    let stale = control.remove("a", read.clone()).await.unwrap_err();
    assert_eq!(stale.code(), kip_spec::code::STALE);
    let stale = control.deploy(vec![spec("a")], String::new(), "kip.yaml", read).await.unwrap_err();
    assert_eq!(stale.code(), kip_spec::code::STALE);
    let missing = Author { if_match: Some(Seq(0)), ..author() };
    assert!(control.deploy(vec![spec("a")], String::new(), "kip.yaml", missing.clone()).await.is_err());
    control.deploy(vec![spec("new")], String::new(), "kip.yaml", missing).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_cannot_be_read_is_reported() {
    let world = world().await;
    world.control.deploy(vec![spec("a")], String::new(), "kip.yaml", author()).await.unwrap();
    let settings = Fc::new(Provision::default());
    world.control.put_provision("a", LATEST, settings, author()).await.unwrap();
    world.store.spoil_settings().await.unwrap();
    world.control.provision_again().await.unwrap();
    let events = world.control.events();
    assert!(events.iter().any(|event| event.what.contains("provision/a/LATEST")), "{events:?}");
}
