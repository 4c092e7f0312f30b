//! What the control room is opened with, besides its stores.

use std::path::PathBuf;
use std::sync::Arc;

use kip_fleet::Inventory;
use kip_fleet::policy::RungOffer;
use kip_host::tasks::Supervisor;
use kip_records::TraceOptions;
use kip_records::access_log::AccessLogOptions;
use kip_records::cost::PriceBook;
use kip_records::metrics::Metrics;
use kip_snapshot::Snapshots;
use kip_spec::named_secret::SecretSource;
use kip_spec::{InstanceId, Millis};
use kip_store::Retention;

use crate::disk::DiskOptions;
use crate::driver::DriverRung;
use crate::exec_table::ExecOptions;

/// What becomes of an instance that uses more device memory than it declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverUse {
    /// It is charged for what it uses, and named.
    #[default]
    Charge,
    /// It is replaced as well: it finishes its requests, and a new instance takes over.
    Replace,
}

/// How folders of functions are captured.
#[derive(Debug, Clone)]
pub struct CodeOptions {
    /// Where snapshots are kept.
    pub snapshots: Snapshots,
    /// How much of a folder is captured.
    pub limits: kip_snapshot::Limits,
    /// Whether a snapshot can be shown to an instance at the path of its folder.
    pub mounts: bool,
    /// Whether instances can be in the data directory: they are their server's user.
    pub inside: bool,
    /// The server can read files that its instances cannot: it is root, and they are not.
    pub reads_more: bool,
    /// The data directory, which is never captured.
    pub data: PathBuf,
}

/// A pool beside what the inventory says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolOptions {
    /// Where its instances run, as the settings have it: `local`, a socket, or `ssh://…`.
    pub engine: String,
    /// It is this host, or a part of it.
    pub local: bool,
    /// Folders of its host below which folders may be mounted into containers.
    pub mounts: Vec<PathBuf>,
    /// Pools with a larger one are filled first.
    pub priority: i64,
    /// The price of an instance for an hour, in the money of its owner.
    pub price: Option<f64>,
}

/// What is kept, and how much.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Images that are kept, and pulled before anybody asks for them.
    pub keep: Vec<String>,
    /// Bytes of images that this server pulled, at most; those used longest ago go first.
    pub size: Option<u64>,
    /// How long an image that this server pulled stays after its last use.
    pub age: Option<Millis>,
}

/// What the control room is told when it opens.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often this server was started, this time included.
    pub boot: u32,
    /// What there is for instances.
    pub inventory: Inventory,
    /// What the inventory does not say of its pools, in the same order; none where all of them are this host.
    pub pools: Vec<PoolOptions>,
    /// Which images are kept, and how many.
    pub images: ImageOptions,
    /// Our own program, which serves models and runs jobs.
    pub kip: PathBuf,
    /// The log store: a folder for each function.
    pub logs: PathBuf,
    /// Where jobs leave their files, a folder for each job.
    pub results: PathBuf,
    /// How folders of functions are captured at deployments.
    pub code: CodeOptions,
    /// The folder below which shares have theirs.
    pub storage: PathBuf,
    /// Instances on which work of an earlier server goes on that somebody holds, one for each piece of work.
    pub held: Vec<InstanceId>,
    /// Freezing by the driver of the devices, where they are qualified.
    pub driver: Option<DriverRung>,
    /// Where what was decided and measured of devices is kept: the data directory. Without one it is forgotten.
    pub devices: Option<PathBuf>,
    /// What becomes of an instance that uses more device memory than it declares.
    pub over_use: OverUse,
    /// A library of the operator that keeps programs to their share of a device.
    pub limiter: Option<PathBuf>,
    /// Whether pages of other processes can be taken out on this host.
    pub spill: bool,
    /// The disk that state is on.
    pub disk: DiskOptions,
    /// How many records stay, and for how long.
    pub retention: Retention,
    /// Where each request is written down as a line, if it is.
    pub access_log: Option<AccessLogOptions>,
    /// Where traces of requests go, if anywhere.
    pub traces: Option<TraceOptions>,
    /// Where requests are counted: the evidence about revisions comes from it.
    pub metrics: Metrics,
    /// What bounds sessions of people in instances.
    pub exec: ExecOptions,
    /// What time costs, for budgets.
    pub prices: Arc<PriceBook>,
    /// The models of the cache; none where there is no cache.
    pub models: Option<kip_models::Models>,
    /// What knows the values of secrets.
    pub secrets: Arc<dyn SecretSource>,
    /// Ends the server when a task that it cannot do without has ended.
    pub supervisor: Supervisor,
}

impl Options {
    /// The rungs below paused that this host offers to all versions.
    pub(crate) fn offer(&self) -> RungOffer {
        RungOffer { driver: self.driver.is_some(), spill: self.spill }
    }
}
