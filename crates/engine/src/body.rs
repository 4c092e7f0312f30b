//! The trait that every kind of body fulfils, and the values that cross it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes as Buffer;
use http::HeaderValue;
use kip_host::endpoint::Endpoint;
use kip_spec::container::{Container, Mount};
use kip_spec::function::{Hook, Listen, ReadyProbe, Stop};
use kip_spec::named_secret::SecretText;
use kip_spec::probe::Probing;
use kip_spec::sleep::InstanceCall;
use kip_spec::snapshot::PinnedFile;
use kip_spec::{Bytes, FunctionName, InstanceId, MilliCpu, Millis, VersionId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::adoption::Adoption;
use crate::containers::ContainerEngine;
use crate::exec::{ExecError, ExecOrder, ExecProcess};
use crate::sight;

/// What to start.
#[derive(Debug, Clone)]
pub struct Order {
    /// The instance's id.
    pub instance: InstanceId,
    /// Its function.
    pub function: FunctionName,
    /// The number of its function: a name that is made again is another one.
    pub owner: u64,
    /// Its version, by the number of its revision in the store.
    pub version: VersionId,
    /// How the version is shown: its number if it was published, else `r` and the ordinal of its revision.
    pub label: String,
    /// The program's file, where it is not to be looked up from the first word of `argv`.
    pub program: Option<PathBuf>,
    /// Program and arguments; `${NAME}` stands for a variable of the instance's environment. Of a container, what takes the place of
    /// the image's command, if it is not empty.
    pub argv: Vec<String>,
    /// The container that it is; none where it is a process of the host.
    pub container: Option<Box<Container>>,
    /// A container that the program runs for each request that it gets. The program is ours then, and runs as the server does: what
    /// it starts is on the other side of the engine.
    pub runs: Option<Box<Container>>,
    /// Working directory.
    pub directory: PathBuf,
    /// It may write its working directory, whomever that belongs to.
    pub owns_directory: bool,
    /// Folders of the host that it sees at other paths, as far as this host can arrange that.
    pub folders: Vec<Mount>,
    /// The files that it sees in its working directory, where those are not the ones that are there now.
    pub code: Option<CodeView>,
    /// Further folders that it reads.
    pub reads: Vec<PathBuf>,
    /// A folder of the server that it writes into, which is made for it.
    pub writes: Option<PathBuf>,
    /// Variables on top of the contract's.
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets.
    pub secrets: BTreeMap<String, SecretText>,
    /// Declared memory: a limit, and told to the program.
    pub memory: Option<Bytes>,
    /// Declared share of CPU: a limit.
    pub cpu: Option<MilliCpu>,
    /// What the one who orders wants to be told again when the instance is adopted.
    pub memo: String,
    /// How readiness is found out.
    pub ready: ReadyProbe,
    /// When it is probed for that, and how many answers count.
    pub probing: Probing,
    /// How long that may take.
    pub startup: Millis,
    /// Names of further ports that it gets, each in `PORT_<NAME>`.
    pub ports: Vec<String>,
    /// The port that its program listens on whatever it is told; any free one otherwise.
    pub port: Option<u16>,
    /// Where its program listens.
    pub listen: Listen,
    /// The user of the host that it runs as, by name or number, where that is not the server's choice.
    pub user: Option<String>,
    /// What is said with each request to it, so that its program can refuse whoever does not know it.
    pub token: SecretText,
    /// Its devices, on a host that has any.
    pub devices: Option<Devices>,
    /// The initialize hook, for the contract's variables and headers.
    pub initialize: Option<Hook>,
    /// The pre-stop hook, for the contract's headers.
    pub pre_stop: Option<Hook>,
}

/// The files of a version as they were when it was deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeView {
    /// The folder that has them. It is shown at the path of the working directory, where nobody can write it; or it is the working
    /// directory, with links to what is live.
    pub tree: PathBuf,
    /// Paths below the working directory that are shown as they are there now.
    pub live: Vec<LivePath>,
    /// Files below it that are shown as well, and must be as they were.
    pub pinned: Vec<PinnedFile>,
}

/// A path below the working directory that is no part of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePath {
    /// Below the working directory.
    pub path: String,
    /// Whether the instance may write there.
    pub writable: bool,
}

/// The devices of an instance on a host that has some; it may have none of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Devices {
    /// Their numbers on the host.
    pub numbers: Vec<usize>,
    /// Their names.
    pub names: Vec<String>,
    /// Variables that an instance has whatever its function declares.
    pub fixed: BTreeMap<String, String>,
    /// Variables that it has where its function declares no other value.
    pub offered: BTreeMap<String, String>,
    /// A library that is loaded before all others.
    pub preload: Option<PathBuf>,
}

/// Whether an instance lives, as far as its body knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It lives.
    Alive,
    /// Its body has lost touch with it: the link to the engine that runs it is down. It may live.
    Unreachable,
    /// Its main process has ended.
    Ended,
}

/// An instance that is ready.
#[derive(Debug, Clone)]
pub struct ReadyInstance {
    /// Where it is reached.
    pub endpoint: Endpoint,
    /// Whether it lives; the body changes it.
    pub life: watch::Receiver<Liveness>,
    /// What is said with each request to it.
    pub token: Option<HeaderValue>,
    /// It can be reached from other machines, on this address, which nobody asked for.
    pub exposed: Option<SocketAddr>,
}

/// How an instance is to end.
#[derive(Debug, Clone)]
pub struct StopOrder {
    /// Called first, if declared and if the instance is awake.
    pub pre_stop: Option<Hook>,
    /// From the signal to SIGKILL. One that an earlier server began to stop keeps what is left of its grace.
    pub grace: Millis,
    /// The signal, and which processes get it first.
    pub stop: Stop,
}

/// How an instance that was stopped ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// All of its processes ended within the grace.
    Graceful,
    /// The grace was over; SIGKILL ended what was left.
    Killed,
}

/// What a body reports by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEvent {
    /// The main process of an instance ended, asked to or not.
    Ended(InstanceEnd),
    /// The body lost touch with an instance.
    Unreachable(InstanceId),
    /// The body is in touch with it again.
    Reachable(InstanceId),
    /// What runs the instances of a pool does not answer. The number is that of the pool in the inventory.
    PoolLost(u16),
    /// It answers again.
    PoolFound(u16),
}

/// How the main process of an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceEnd {
    /// Which instance.
    pub instance: InstanceId,
    /// Exit code, if it ended by itself.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// It was ended because it reached its memory limit, of so many bytes.
    pub out_of_memory: Option<u64>,
}

/// Why an instance did not become ready, with what helps to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    /// What happened.
    pub problem: StartProblem,
    /// More about it: the path looked for, what the system said, where it listens.
    pub detail: String,
    /// The last lines it wrote.
    pub last_lines: Vec<String>,
}

/// What happened at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartProblem {
    /// No such program.
    CommandNotFound,
    /// Not allowed, or not a program.
    CommandNotExecutable,
    /// No such folder.
    WorkingDirectory,
    /// A file that the version needs is not as it was when it was deployed.
    CodeChanged,
    /// The files of the version are not there, or cannot be shown to it.
    CodeMissing,
    /// It ended first, because it writes into its folder, which is read-only.
    CodeReadOnly,
    /// This host gives it no mounts, and it needs some.
    MountImpossible,
    /// The folder of a share is not there.
    ShareMissing,
    /// A secret that it needs cannot be read.
    SecretMissing,
    /// The files of a model that it needs are not there, or not yet.
    ModelMissing,
    /// The system refused otherwise.
    SpawnFailed,
    /// It ended first.
    Exited {
        /// Exit code, if it ended by itself.
        code: Option<i32>,
        /// Signal, if one ended it.
        signal: Option<i32>,
    },
    /// It was killed first, at its memory limit.
    OutOfMemory {
        /// The limit in bytes.
        limit: u64,
    },
    /// It ran and did not become ready.
    NeverReady,
    /// It ran and listened elsewhere.
    WrongPort {
        /// Where.
        port: u16,
    },
    /// Somebody else answers on its port.
    PortTaken,
    /// No container engine answers.
    EngineUnavailable,
    /// The engine does not have the image, and it is not pulled at a start.
    ImageMissing,
    /// The image is for another architecture than the engine's.
    ImagePlatform,
    /// The engine refused to make or to start the container.
    ContainerRefused,
    /// A device of the instance is not in its container.
    DeviceMissing,
    /// Programs of others hold the memory of its device.
    DeviceTaken,
}

/// Why an operation on a running instance failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such instance here.
    #[error("there is no instance {0}")]
    Unknown(InstanceId),
    /// The system refused.
    #[error("cannot {what} instance {instance}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which instance.
        instance: InstanceId,
        /// What the system said.
        source: std::io::Error,
    },
    /// It was asked and did not happen in time.
    #[error("instance {instance} did not {what} in time")]
    Slow {
        /// What was tried.
        what: &'static str,
        /// On which instance.
        instance: InstanceId,
    },
    /// The container engine refused, or did not answer.
    #[error("cannot {what} instance {instance}: {reason}")]
    Engine {
        /// What was tried.
        what: &'static str,
        /// On which instance.
        instance: InstanceId,
        /// What the engine said.
        reason: String,
    },
    /// A hook failed.
    #[error("the {hook} hook of instance {instance} failed: {detail}")]
    Hook {
        /// Which hook.
        hook: &'static str,
        /// On which instance.
        instance: InstanceId,
        /// The status it answered, 0 for none.
        status: u16,
        /// What was seen.
        detail: String,
    },
}

/// The answer of an instance to a request of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallAnswer {
    /// HTTP status.
    pub status: u16,
    /// The whole body.
    pub body: Buffer,
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answered 200 to 399.
    Well,
    /// It refused, broke off, or answered otherwise.
    Refused,
    /// It did not answer in time.
    Slow,
}

/// A figure of an instance that a body can measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Bytes of memory in use now.
    Memory,
    /// The most bytes of memory that were in use since its start.
    PeakMemory,
    /// Nanoseconds of CPU time since its start.
    CpuTime,
}

/// One kind of body: what runs the instances of a pool. Every call may be repeated. Calls on an instance come one at a time, but
/// for `kill`, which may come at any time and makes the others return. Instance ids are never used twice, so that a late call
/// cannot meet another instance; the numbers of operations fence what is observed, in the brain.
#[async_trait]
pub trait Body: Send + Sync + std::fmt::Debug {
    /// Takes hold of everything that earlier servers of this data directory left. What is not adopted must be killed. Called
    /// once, before the first start.
    async fn adopt(&self) -> Adoption;
    /// Starts an instance and returns when it is ready. May take minutes.
    async fn start(&self, order: Order) -> Result<ReadyInstance, StartError>;
    /// Calls the initialize hook. `POST`, empty body.
    async fn initialize(&self, instance: InstanceId, hook: &Hook) -> Result<(), Error>;
    /// Sends a request to an instance and returns its answer, whatever its status is. `what` names the request in errors.
    async fn call(&self, instance: InstanceId, what: &'static str, call: &InstanceCall) -> Result<CallAnswer, Error>;
    /// Replaces what the next server is told of an instance. Returns when that is written; it is not synced.
    async fn remember(&self, instance: InstanceId, memo: &str) -> Result<(), Error>;
    /// Sends a `GET` for a path, to see how the instance does.
    async fn probe(&self, instance: InstanceId, path: &str, limit: Duration) -> Health;
    /// Measures instances together: one look can serve for many. What cannot be measured is left out.
    async fn measure(&self, instances: &[InstanceId], what: Measure) -> HashMap<InstanceId, u64>;
    /// Where the threads of an instance stand, as far as that can be seen.
    async fn stacks(&self, instance: InstanceId) -> Vec<String>;
    /// Waits until what an instance of a function, or all of them, wrote up to now is in the log store.
    async fn settle_logs(&self, function: &str, instance: Option<InstanceId>);
    /// Takes its CPU away; returns when that is so.
    async fn pause(&self, instance: InstanceId) -> Result<(), Error>;
    /// Gives its CPU back.
    async fn resume(&self, instance: InstanceId) -> Result<(), Error>;
    /// Ends it gently, then by force; returns when nothing of it is left.
    async fn stop(&self, instance: InstanceId, order: StopOrder) -> Result<Termination, Error>;
    /// Ends it by force; returns when nothing of it is left.
    async fn kill(&self, instance: InstanceId) -> Result<(), Error>;
    /// Runs a program in an instance that is awake, beside what else is called on it.
    async fn exec(&self, instance: InstanceId, order: ExecOrder) -> Result<Box<dyn ExecProcess>, ExecError> {
        let _ = order;
        Err(ExecError::Failed(format!("instance {instance} is of a kind in which no program can be run")))
    }
    /// Removes what was made for all instances, once none is left.
    async fn clean_up(&self);
    /// What only a body can do whose instances are processes of this host.
    fn local(&self) -> Option<&dyn LocalBody>;
    /// The container engine of a body whose instances are containers.
    fn engine(&self) -> Option<&dyn ContainerEngine> {
        None
    }
}

/// Instances that are processes of this host: they can be looked into and frozen by the driver.
pub trait LocalBody: Send + Sync {
    /// The main process of an instance.
    fn process(&self, instance: InstanceId) -> Option<u32>;
    /// All processes of instances. May read much of `/proc`: not for a runtime's thread.
    fn members(&self, instances: &[InstanceId]) -> HashMap<InstanceId, Vec<u32>>;
    /// Sets the memory limit of an instance that has one, bytes: what it parks moves into its memory.
    ///
    /// # Errors
    /// The kernel's.
    fn limit_memory(&self, instance: InstanceId, bytes: u64) -> std::io::Result<()>;
    /// Whether an instance finds a folder of the host at another path: a snapshot where its code is. `None` where that cannot be seen.
    fn sees(&self, instance: InstanceId, folder: &Path, at: &Path) -> Option<bool> {
        sight::sees(self.process(instance)?, folder, at)
    }
    /// Whether a process of an instance has loaded a library. Reads `/proc`: not for a runtime's thread.
    fn loads(&self, instance: InstanceId, library: &str) -> bool {
        let members = self.members(&[instance]);
        members.values().flatten().any(|process| sight::loads(*process, library))
    }
}
