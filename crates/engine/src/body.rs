//! The trait that every kind of body fulfils, and the values that cross it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use kip_spec::function::{Hook, ReadyProbe};
use kip_spec::{Bytes, FunctionName, InstanceId, MilliCpu, Millis, VersionId};

/// What to start.
#[derive(Debug, Clone)]
pub struct Order {
    /// The instance's id.
    pub instance: InstanceId,
    /// Its function.
    pub function: FunctionName,
    /// Its version.
    pub version: VersionId,
    /// The program's file, where it is not to be looked up from the first word of `argv`.
    pub program: Option<PathBuf>,
    /// Program and arguments; `${NAME}` stands for a variable of the instance's environment.
    pub argv: Vec<String>,
    /// Working directory.
    pub directory: PathBuf,
    /// Variables on top of the contract's.
    pub env: BTreeMap<String, String>,
    /// Declared memory: a limit, and told to the program.
    pub memory: Option<Bytes>,
    /// Declared share of CPU: a limit.
    pub cpu: Option<MilliCpu>,
    /// What the one who orders wants to be told again when the instance is adopted.
    pub memo: String,
    /// How readiness is found out.
    pub ready: ReadyProbe,
    /// How long that may take.
    pub startup: Millis,
    /// Its devices, on a host that has any.
    pub devices: Option<Devices>,
    /// The initialize hook, for the contract's variables and headers.
    pub initialize: Option<Hook>,
    /// The pre-stop hook, for the contract's headers.
    pub pre_stop: Option<Hook>,
}

/// The devices of an instance on a host that has some; it may have none of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices {
    /// Their numbers on the host.
    pub numbers: Vec<usize>,
    /// Their names.
    pub names: Vec<String>,
}

/// An instance that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its main process.
    pub process: u32,
    /// It can be reached from other machines, on this address, which nobody asked for.
    pub exposed: Option<SocketAddr>,
}

/// How an instance is to end.
#[derive(Debug, Clone)]
pub struct StopOrder {
    /// Called first, if declared and if the instance is awake.
    pub pre_stop: Option<Hook>,
    /// From SIGTERM to SIGKILL.
    pub grace: Millis,
}

/// The main process of an instance ended, asked to or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
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

/// One kind of body. Every call may be repeated; calls on an instance come one at a time, but for `kill`, which may
/// come at any time and makes the others return.
#[async_trait]
pub trait Body: Send + Sync + std::fmt::Debug {
    /// Starts an instance and returns when it is ready.
    async fn start(&self, order: Order) -> Result<Running, StartError>;
    /// Calls the initialize hook. `POST`, empty body.
    async fn initialize(&self, instance: InstanceId, hook: &Hook) -> Result<(), Error>;
    /// Takes its CPU away; returns when that is so.
    async fn pause(&self, instance: InstanceId) -> Result<(), Error>;
    /// Gives its CPU back.
    async fn resume(&self, instance: InstanceId) -> Result<(), Error>;
    /// Ends it gently, then by force; returns when nothing of it is left.
    async fn stop(&self, instance: InstanceId, order: StopOrder) -> Result<(), Error>;
    /// Ends it by force; returns when nothing of it is left.
    async fn kill(&self, instance: InstanceId) -> Result<(), Error>;
    /// Its main process, if it runs.
    fn process(&self, instance: InstanceId) -> Option<u32>;
}
