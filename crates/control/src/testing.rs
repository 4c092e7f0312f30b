//! A control room over a body without programs, so that shells are tested in process and in paused time.

#![expect(clippy::expect_used, reason = "only tests use this")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kip_engine::Body;
pub use kip_engine::fake;
use kip_engine::fake::FakeBody;
use kip_fleet::Inventory;
use kip_fleet::room::{Host, Pool};
use kip_host::disk::{Pressure, Reserve};
use kip_spec::function::{FunctionSpec, Program};
use kip_store::gate::{CommitGate, GatedControl};
use kip_store::{Author, Changes, ControlStore as _, SqliteControl, SqliteRecords};

use crate::{Bodies, Cell, CodeOptions, Control, DiskOptions, Options, Retention, Stores};

/// A control room with one function `f`.
#[derive(Debug)]
pub struct Room {
    /// The room.
    pub control: Control,
    /// What its instances are.
    pub body: Arc<FakeBody>,
    folder: tempfile::TempDir,
}

/// Opens a control room over these stores, with its files in `data`. Without a host nothing ever starts.
pub async fn open(data: &Path, boot: u32, stores: Stores, host: bool) -> (Control, Arc<FakeBody>) {
    let (body, events) = FakeBody::new();
    let hosts = if host { vec![Host { cpu: 64_000, memory: 1 << 40, devices: Vec::new() }] } else { Vec::new() };
    let pool = Pool { name: "local".to_owned(), max: None, hosts };
    let options = Options {
        boot,
        inventory: Inventory { pools: vec![pool], ..Inventory::default() },
        pools: Vec::new(),
        images: crate::ImageOptions::default(),
        kip: PathBuf::from("/proc/self/exe"),
        logs: data.join("logs"),
        results: data.join("jobs"),
        storage: data.join("storage"),
        code: CodeOptions {
            snapshots: kip_snapshot::Snapshots::new(data.join("snapshots")),
            limits: kip_snapshot::Limits::default(),
            mounts: true,
            inside: true,
            reads_more: false,
            data: data.to_owned(),
        },
        held: Vec::new(),
        driver: None,
        devices: None,
        over_use: crate::OverUse::default(),
        limiter: None,
        spill: false,
        exec: crate::ExecOptions::default(),
        disk: DiskOptions {
            directory: data.to_owned(),
            low: 0,
            reserve: Reserve::new(data.join("reserve"), 0),
            pressure: Pressure::default(),
        },
        retention: Retention::default(),
        access_log: None,
        traces: None,
        metrics: kip_records::metrics::Metrics::new(8),
        prices: Arc::new(kip_records::cost::PriceBook::function_compute()),
        models: None,
        secrets: Arc::new(kip_spec::named_secret::NoSecrets),
        supervisor: kip_host::tasks::Supervisor::default(),
    };
    let bodies = Bodies::from(body.clone() as Arc<dyn Body>);
    (Control::open(options, stores, bodies, events).await.expect("a room"), body)
}

/// A declaration with nothing special about it.
pub fn spec(name: &str) -> FunctionSpec {
    let program = Program::Command { argv: vec!["program".to_owned()], dir: "/".into() };
    FunctionSpec::new(name.parse().expect("a name"), program)
}

impl Room {
    /// Opens a room, deploys `f` as `change` leaves it, and pauses the time: it goes on when everything waits.
    pub async fn open(change: impl FnOnce(&mut FunctionSpec)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteControl::open(&folder.path().join("control.db")).expect("a control store");
        let records = Arc::new(SqliteRecords::open(&folder.path().join("records.db")).expect("a record store"));
        let identity = store.begin_boot().await.expect("an identity");
        let store = GatedControl { store, gate: CommitGate::default() };
        let stores = Stores { changes: Changes::new(Arc::new(store)), records, files: None };
        let (control, body) = open(folder.path(), identity.boot, stores, true).await;
        let room = Self { control, body, folder };
        room.deploy(change).await;
        kip_host::clock::paused::pause();
        room
    }

    /// Deploys `f` (again) as `change` leaves it.
    pub async fn deploy(&self, change: impl FnOnce(&mut FunctionSpec)) {
        let program = Program::Command { argv: vec!["program".to_owned()], dir: self.folder.path().to_owned() };
        let mut spec = FunctionSpec { program, ..spec("f") };
        change(&mut spec);
        let author = Author::default();
        self.control.deploy(vec![spec], String::new(), "kip.yaml", author).await.expect("a deployment");
    }

    /// The function.
    pub fn cell(&self) -> Arc<Cell> {
        self.control.cell("f").expect("the function")
    }
}
