//! A control room over a body without programs, so that shells are tested in process and in paused time.

#![expect(clippy::expect_used, reason = "only tests use this")]

use std::path::PathBuf;
use std::sync::Arc;

use kip_engine::Body;
pub use kip_engine::fake;
use kip_engine::fake::FakeBody;
use kip_fleet::Inventory;
use kip_fleet::room::{Host, Pool};
use kip_host::disk::{Pressure, Reserve};
use kip_spec::FunctionName;
use kip_spec::function::{FunctionSpec, Program};
use kip_store::{ControlStore, SqliteControl, SqliteRecords};

use crate::{Bodies, Cell, Control, DiskOptions, Options, Retention};

/// A control room with one function `f`.
#[derive(Debug)]
pub struct Room {
    /// The room.
    pub control: Control,
    /// What its instances are.
    pub body: Arc<FakeBody>,
    folder: tempfile::TempDir,
}

impl Room {
    /// Opens a room, deploys `f` as `change` leaves it, and pauses the time: it goes on when everything waits.
    pub async fn open(change: impl FnOnce(&mut FunctionSpec)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store: Arc<dyn ControlStore> =
            Arc::new(SqliteControl::open(&folder.path().join("control.db")).expect("a control store"));
        let records = Arc::new(SqliteRecords::open(&folder.path().join("records.db")).expect("a record store"));
        let (body, events) = FakeBody::new();
        let identity = store.begin_boot().await.expect("an identity");
        let host = Host { cpu: 64_000, memory: 1 << 40, devices: Vec::new() };
        let pool = Pool { name: "local".to_owned(), max: None, hosts: vec![host] };
        let options = Options {
            boot: identity.boot,
            inventory: Inventory { pools: vec![pool], ..Inventory::default() },
            kip: PathBuf::from("/proc/self/exe"),
            logs: folder.path().join("logs"),
            results: folder.path().join("jobs"),
            held: Vec::new(),
            disk: DiskOptions {
                directory: folder.path().to_owned(),
                low: 0,
                reserve: Reserve::new(folder.path().join("reserve"), 0),
                pressure: Pressure::default(),
            },
            retention: Retention::default(),
            access_log: None,
            traces: None,
            supervisor: kip_host::tasks::Supervisor::default(),
        };
        let bodies = Bodies::from(body.clone() as Arc<dyn Body>);
        let control = Control::open(options, store, records, bodies, events).await.expect("a room");
        let room = Self { control, body, folder };
        room.deploy(change).await;
        kip_host::clock::paused::pause();
        room
    }

    /// Deploys `f` (again) as `change` leaves it.
    pub async fn deploy(&self, change: impl FnOnce(&mut FunctionSpec)) {
        let name: FunctionName = "f".parse().expect("a name");
        let program = Program::Command { argv: vec!["program".to_owned()], dir: self.folder.path().to_owned() };
        let mut spec = FunctionSpec::new(name, program);
        change(&mut spec);
        self.control.deploy(vec![spec], String::new(), "kip.yaml").await.expect("a deployment");
    }

    /// The function.
    pub fn cell(&self) -> Arc<Cell> {
        self.control.cell("f").expect("the function")
    }
}
