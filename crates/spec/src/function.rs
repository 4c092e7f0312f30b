//! A function as declared: validated, with every default filled in. A version holds one of these and never changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::container::{Container, Mount};
use crate::job::Job;
use crate::model_name::NameRewrite;
use crate::named_secret::SecretName;
use crate::probe::ProbeTimings;
use crate::scaling::Scaling;
use crate::sleep::{Canary, RungUse, SleepCalls};
use crate::snapshot::Code;
use crate::{Bytes, FunctionName, MilliCpu, Millis, ModelName};

/// What a version of a function is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionSpec {
    /// Its name.
    pub name: FunctionName,
    /// What runs.
    pub program: Program,
    /// Extra environment of the instance.
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets, by name; they are read when an instance starts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretName>,
    /// What each instance reserves.
    pub resources: Resources,
    /// How many instances, and how much each takes at once.
    pub instances: Instances,
    /// How we find out that an instance is ready.
    pub ready: ReadyProbe,
    /// How we find out that one is beyond help; `None` asks nothing.
    #[serde(default)]
    pub live: Option<LiveProbe>,
    /// When they are probed, and how many answers count.
    #[serde(default)]
    pub probes: ProbeTimings,
    /// Hooks of the container contract.
    pub lifecycle: Lifecycle,
    /// Limits in time.
    pub timeouts: Timeouts,
    /// Requests that may wait at once; one more is refused with 429.
    pub queue_depth: u32,
    /// When idle instances sleep and end.
    pub idle: Idle,
    /// How the number of instances follows the load.
    #[serde(default)]
    pub scaling: Scaling,
    /// When an instance that works counts as stuck.
    #[serde(default)]
    pub watchdog: Watchdog,
    /// When instances are replaced though nothing is wrong.
    #[serde(default)]
    pub rotation: Rotation,
    /// Which free instance takes a request.
    pub dispatch: Dispatch,
    /// Who may call it over HTTP, and how.
    pub http: HttpTrigger,
    /// What an instance speaks; `None` is HTTP/1.1, and HTTP/2 for gRPC.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// How bodies of unknown length go to an instance over HTTP/1.1.
    #[serde(default)]
    pub request_body: RequestBody,
    /// How a new version takes over from the one that serves.
    #[serde(default)]
    pub deploy: Deploy,
    /// Names of further ports: each instance gets a free one for each, in `PORT_<NAME>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Where its program listens.
    #[serde(default, skip_serializing_if = "Listen::is_port")]
    pub listen: Listen,
    /// The user of the host that its processes run as, by name or number; `None` leaves that to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether an idle instance that uses CPU counts as working: it is not paused.
    #[serde(default = "defaults::idle_cpu")]
    pub idle_cpu: bool,
    /// The longest time in which an idle instance must serve again; it gives back only what it can have again in that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<Millis>,
    /// Its instances keep their room until they end by themselves: no other function can evict them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// How important it is where room is short.
    #[serde(default, skip_serializing_if = "FunctionPriority::is_normal")]
    pub priority: FunctionPriority,
    /// How a start and a wake are checked; `None` asks nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Box<Canary>>,
    /// What executes a model of the built-in server; `None` decides by what is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<ModelRuntime>,
    /// Further names by which callers ask for its model, beside its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<ModelName>,
    /// What some of these names do to the body of a request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rewrites: BTreeMap<ModelName, NameRewrite>,
    /// An administrator deployed it, so that its instances may write their working directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owns_directory: bool,
    /// What makes it a job: its program is no web server and runs to its end for each task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// Folders of the server that a process sees at other paths: its code, its layers. Where the host gives no mounts, it finds them by its
    /// environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<Mount>,
    /// Which files of its folder a version runs.
    #[serde(default, skip_serializing_if = "Code::is_default")]
    pub code: Code,
}

impl FunctionSpec {
    /// This program with every default.
    pub fn new(name: FunctionName, program: Program) -> Self {
        Self {
            name,
            program,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            resources: Resources::default(),
            instances: defaults::INSTANCES,
            ready: ReadyProbe::Tcp,
            live: None,
            probes: ProbeTimings::default(),
            lifecycle: Lifecycle::default(),
            timeouts: defaults::TIMEOUTS,
            queue_depth: defaults::QUEUE_DEPTH,
            idle: defaults::IDLE,
            watchdog: Watchdog::default(),
            rotation: Rotation::default(),
            scaling: Scaling::default(),
            dispatch: defaults::DISPATCH,
            http: HttpTrigger::default(),
            protocol: None,
            request_body: RequestBody::default(),
            deploy: Deploy::default(),
            ports: Vec::new(),
            listen: Listen::Port,
            user: None,
            idle_cpu: defaults::IDLE_CPU,
            names: Vec::new(),
            rewrites: BTreeMap::new(),
            owns_directory: false,
            wake: None,
            pinned: false,
            priority: FunctionPriority::default(),
            canary: None,
            runtime: None,
            job: None,
            folders: Vec::new(),
            code: Code::default(),
        }
    }
}

/// What an instance executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A command, run without a shell. `${PORT}` and other `${NAME}` are replaced by the instance's environment.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// Working directory, absolute.
        dir: PathBuf,
    },
    /// A local model, served by the built-in model server.
    Model {
        /// The `.onnx` file, absolute.
        path: PathBuf,
    },
    /// A container of an image, on the host's container engine.
    Image(Box<Container>),
}

impl Program {
    /// The folder an instance starts in; of an image, the one inside the container.
    pub fn working_directory(&self) -> PathBuf {
        match self {
            Self::Command { dir, .. } => dir.clone(),
            Self::Model { path } => path.parent().map_or_else(|| PathBuf::from("/"), PathBuf::from),
            Self::Image(container) => container.dir.as_deref().unwrap_or("/").into(),
        }
    }
}

/// What one instance reserves on its host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// CPU share, if declared.
    pub cpu: Option<MilliCpu>,
    /// Host memory, if declared; counted against the host's capacity.
    pub memory: Option<Bytes>,
    /// Devices, if declared.
    #[serde(default)]
    pub gpu: Option<GpuResources>,
    /// The port of the host that its program listens on whatever `PORT` says. One instance of all functions can have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What one instance reserves of devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuResources {
    /// How much.
    pub need: GpuNeed,
    /// Of which type of device; `None` is any.
    pub kind: Option<String>,
    /// What keeps an instance to its share of a device.
    #[serde(default, skip_serializing_if = "GpuIsolation::is_account")]
    pub isolation: GpuIsolation,
}

/// What keeps an instance to its share of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuIsolation {
    /// Nothing: the share is counted, and use beyond it is seen and charged.
    #[default]
    Account,
    /// The caps that frameworks have, by variables.
    Framework,
    /// A library of the operator, between the program and the driver.
    Preload,
}

impl GpuIsolation {
    /// Whether nothing but the ledger keeps it.
    pub fn is_account(&self) -> bool {
        *self == Self::Account
    }
}

/// How much of a device an instance reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuNeed {
    /// So much memory of one device.
    Memory(Bytes),
    /// As much memory of one device as it uses: the first instance has a device alone, and what it then holds is measured.
    Measured,
    /// Whole devices.
    Cards(u8),
}

/// Counts of instances and what each may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    /// Kept alive always, asleep when idle.
    pub min: u32,
    /// Never more than this many.
    pub max: u32,
    /// Requests at once in one instance.
    pub concurrency: Concurrency,
}

/// Requests at once in one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// Never exceeded.
    pub hard: u32,
    /// What scaling aims at; at most `hard`.
    pub soft: u32,
}

/// How readiness is found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyProbe {
    /// The instance's port accepts a connection.
    Tcp,
    /// A GET of this path answers 200 to 399.
    Http {
        /// Path with a leading slash.
        path: String,
    },
    /// The port accepts a connection, and a program in the instance ends with exit code 0. Asked at the start only.
    Exec {
        /// Program and arguments, as they are.
        argv: Vec<String>,
    },
}

/// How it is found out that an instance is beyond help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveProbe {
    /// A GET of this path answers 200 to 399.
    pub path: String,
}

/// When an instance that works counts as stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watchdog {
    /// Requests in flight and not a byte of an answer for this long; `None` is never.
    pub stall: Option<Millis>,
}

/// When instances are replaced though nothing is wrong; `None` is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rotation {
    /// Past this age.
    pub max_age: Option<Millis>,
    /// Past this much memory in use.
    pub max_memory: Option<Bytes>,
}

/// A call that Kipwake makes on an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Path with a leading slash.
    pub path: String,
    /// How long it may take.
    pub timeout: Millis,
}

/// Hooks around an instance's life.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lifecycle {
    /// `POST` with an empty body once before any request.
    pub initialize: Option<Hook>,
    /// `GET` before the instance is stopped.
    pub pre_stop: Option<Hook>,
    /// How its end is asked for.
    #[serde(default)]
    pub stop: Stop,
    /// How it gives its device memory back; `None` where its program cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep: Option<SleepCalls>,
}

/// How the end of an instance is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stop {
    /// The signal; `None` is SIGTERM.
    pub signal: Option<StopSignal>,
    /// Which of its processes get it first; `None` decides by what the main process is.
    pub to: Option<StopTarget>,
}

/// A signal that asks a program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopSignal {
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

/// Which processes of an instance get the signal first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopTarget {
    /// Its main process; whatever is left after that has ended gets SIGTERM then.
    Main,
    /// Its whole process group.
    Group,
}

/// Limits in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From the start of an instance to its readiness.
    pub startup: Millis,
    /// A request's wait for an instance, start or wake included.
    pub queue: Millis,
    /// From sending a request to the first byte of the answer's head.
    pub first_byte: Millis,
    /// Between two pieces of an answer's body.
    pub idle: Millis,
    /// From arrival to the end of the answer.
    pub total: Millis,
    /// From SIGTERM to SIGKILL; `None` is 1.2 times the longest request seen, and 10 seconds at least.
    pub grace: Option<Millis>,
}

/// When idle instances sleep and end; `None` is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// Idle for this long: paused.
    pub pause: Option<Millis>,
    /// Idle or asleep for this long: stopped, unless among the kept minimum.
    pub stop: Option<Millis>,
    /// When it gives its device memory back, where it can.
    #[serde(default)]
    pub park: RungUse,
    /// When it gives its host memory back, where it can.
    #[serde(default)]
    pub spill: RungUse,
}

/// What an instance speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, begun with its preface.
    Http2,
}

/// How a request's body whose length its caller did not say goes to an instance over HTTP/1.1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestBody {
    /// With its length if it ends within the first 64 KiB, chunked if it is longer: many programs read `Content-Length` only.
    #[default]
    Measured,
    /// Chunked, as it comes: for instances that answer while a caller still sends.
    Stream,
}

/// What executes a model of the built-in server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelRuntime {
    /// tract, which is built in.
    Tract,
    /// ONNX Runtime, where it is found.
    OnnxRuntime,
    /// ONNX Runtime, this library of it.
    Library(PathBuf),
}

/// Where a program of this host listens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listen {
    /// On a port of loopback, which all users of the host can connect to.
    #[default]
    Port,
    /// On a Unix socket that its server and its own user alone can reach.
    Socket,
}

impl Listen {
    /// Whether it is a port.
    pub fn is_port(&self) -> bool {
        *self == Self::Port
    }
}

/// How a new version takes over from the one that serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// In which order.
    #[serde(default)]
    pub strategy: Strategy,
}

/// In which order a new version starts and the one before ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The new version starts beside the one that serves, which ends when the new one is ready.
    #[default]
    Rolling,
    /// The version that serves ends first: for programs that cannot run twice at once.
    Recreate,
}

/// How important a function is where not all that are wanted have room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionPriority {
    /// It waits longer, and is evicted first.
    Low,
    /// As functions are that do not say.
    #[default]
    Normal,
    /// It is served before others, and evicted last.
    High,
}

impl FunctionPriority {
    fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

/// Which free instance takes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dispatch {
    /// The oldest instance below the soft limit, else the least loaded below the hard one: idle ones stay idle.
    Packed,
    /// The fewest in flight, then the longest unused.
    Balanced,
}

impl Dispatch {
    /// The dispatch of a function that sets none. Knative's autoscaler computes a number of instances that share the load; the other
    /// policies count on idle instances that sleep.
    pub const fn for_policy(policy: &Scaling) -> Self {
        match policy {
            Scaling::Kpa(_) => Self::Balanced,
            Scaling::Fixed | Scaling::Fc(_) | Scaling::Auto(_) => defaults::DISPATCH,
        }
    }
}

/// Who may call a function over HTTP, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpTrigger {
    /// Whether a key is asked for.
    pub auth: HttpAuth,
    /// Methods let through; empty means all.
    pub methods: Vec<String>,
    /// Paths of the instance whose requests neither wake an instance nor keep it awake, each whole or, with `*` at its end, by how it
    /// begins.
    #[serde(default)]
    pub exempt: Vec<String>,
    /// Which web pages of other origins may call it; without this, those that are served from this machine.
    #[serde(default)]
    pub cors: Option<Cors>,
    /// Callers without a key may submit tasks too. Without it, tasks need a key even where calls need none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open_tasks: bool,
}

/// Which web pages may call a function, and what they may send and see (the Fetch standard, "CORS protocol").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cors {
    /// Origins such as `https://chat.example.com`, or `*` for all.
    pub origins: Vec<String>,
    /// Request headers that pages may send; empty means those that they ask for.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Headers of answers that pages may read beyond the usual ones.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether pages may send cookies.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    pub max_age: Millis,
}

impl HttpTrigger {
    /// Whether requests for this path, as it was sent, neither wake nor hold an instance.
    pub fn exempts(&self, path: &str) -> bool {
        self.exempt.iter().any(|exempt| match exempt.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == exempt,
        })
    }
}

/// Whether callers of the gateway need a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpAuth {
    /// Anyone who reaches the gateway.
    #[default]
    Anonymous,
    /// A bearer key of this server.
    Key,
    /// A token that a trigger of the function accepts, or a bearer key of this server.
    Jwt,
}

/// The defaults that `kip.yaml` leaves out. The table in `docs/kip-yaml.md` is checked against these.
pub mod defaults {
    use super::*;

    /// One request at a time per instance.
    pub const CONCURRENCY: Concurrency = Concurrency { hard: 1, soft: 1 };
    /// Started by requests only; up to ten.
    pub const INSTANCES: Instances = Instances { min: 0, max: 10, concurrency: CONCURRENCY };
    /// Where each instance has a device, or a share of one: never more than asked for.
    pub const INSTANCES_ON_A_DEVICE: u32 = 1;
    /// Generous for models, finite for everybody.
    pub const TIMEOUTS: Timeouts = Timeouts {
        startup: Millis::from_secs(120),
        queue: Millis::from_secs(120),
        first_byte: Millis::from_secs(60),
        idle: Millis::from_secs(120),
        total: Millis::from_secs(600),
        grace: None,
    };
    /// Waiting requests of one version.
    pub const QUEUE_DEPTH: u32 = 1_000;
    /// Asleep soon, gone late.
    pub const IDLE: Idle = Idle {
        pause: Some(Millis::from_secs(30)),
        stop: Some(Millis::from_secs(12 * 3_600)),
        park: RungUse::WhenNeeded,
        spill: RungUse::WhenNeeded,
    };
    /// Work that no request shows is seen by CPU.
    pub const IDLE_CPU: bool = true;
    pub(super) fn idle_cpu() -> bool {
        IDLE_CPU
    }
    /// Idle instances stay idle.
    pub const DISPATCH: Dispatch = Dispatch::Packed;
    /// A preflight's answer holds for so long.
    pub const CORS_MAX_AGE: Millis = Millis::from_secs(600);
    /// Of a hook without one.
    pub const HOOK_TIMEOUT: Millis = Millis::from_secs(60);
}
