//! `kip.yaml` as types: what the schema describes and what [`crate::write()`] fills.
//!
//! Reading does not go through these, because a typed reader stops at its first error; tests hold the two together.

use std::collections::BTreeMap;

use kip_spec::MilliCpu;
use schemars::JsonSchema;
use serde::Serialize;

use crate::wire_image::{ContainerInput, PullKeyword};
use crate::wire_job::Job;
use crate::wire_probes::Probes;
use crate::wire_sleep::{Canary, Latency, Sleep};
pub(crate) use crate::wire_text::Run;
use crate::wire_text::{
    self, Duration, DurationOrKeyword, DurationOrNever, Method, PathOnInstance, Scalar, Size, SizeOrAuto, Variable,
};

/// A kip.yaml: functions as declared for Kipwake.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "kip.yaml")]
pub(crate) struct Document {
    /// The format.
    pub(crate) api: Api,
    /// Values for every function that does not say otherwise; maps are merged key by key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) defaults: Option<Defaults>,
    /// The functions by name: 1 to 64 letters, digits, `-` or `_`, beginning with a letter or `_`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) functions: BTreeMap<String, Function>,
    /// The jobs by name: programs that run to their end, by a timer or when told to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) jobs: BTreeMap<String, Job>,
}

/// Formats there are.
#[derive(Serialize, JsonSchema)]
pub(crate) enum Api {
    /// The only one so far.
    #[serde(rename = "kip/v1")]
    KipV1,
}

/// Values for every function.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Defaults {}

/// One function. It needs `run`, `model` or `image`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Function {
    /// Directory the command starts in; counts from the folder of the manifest, which is the default. Of an image, inside its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dir: Option<String>,
    /// Command that starts a web server on the port `${PORT}`; run without a shell. Beside `image`, it takes the place of the image's
    /// command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<Run>,
    /// Path of an .onnx file, or of a folder with a model.onnx, for the built-in model server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^(\.{1,2}|\.{0,2}/.*)$"))]
    pub(crate) model: Option<String>,
    /// Name of an image, for a container of the engine on this host, such as `ghcr.io/team/ocr:3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[A-Za-z0-9._/:@-]+$"))]
    pub(crate) image: Option<String>,
    /// Takes the place of the image's entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entrypoint: Option<Run>,
    /// When the image is pulled; `missing` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull: Option<PullKeyword>,
    /// What the container is made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<ContainerInput>,
    /// Whether a version holds the files of `dir`: `snapshot` captures them at the deployment, `live` runs what is there at a start.
    /// Without it, they are captured where that is possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<CodeKeyword>,
    /// Paths below `dir` that instances write; all versions share them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16))]
    pub(crate) writable: Vec<String>,
    /// Extra environment of each instance.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) env: BTreeMap<String, Variable>,
    /// Files of variables, NAME=VALUE a line; what is under `env` wins. Paths count from the folder of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env_file: Option<Paths>,
    /// What each instance reserves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<Resources>,
    /// How many instances, and how much each takes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instances: Option<Instances>,
    /// How readiness is found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) probes: Option<Probes>,
    /// Calls that Kipwake makes around an instance's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lifecycle: Option<Lifecycle>,
    /// Limits in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeouts: Option<Timeouts>,
    /// Waiting requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queue: Option<Queue>,
    /// When idle instances sleep and end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<Idle>,
    /// When an instance that works counts as stuck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) watchdog: Option<Watchdog>,
    /// When instances are replaced though nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotation: Option<Rotation>,
    /// How fast an idle instance must serve again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<Latency>,
    /// How a start and a wake are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) canary: Option<Canary>,
    /// How the number of instances follows the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scaling: Option<Scaling>,
    /// Which free instance takes a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dispatch: Option<DispatchKeyword>,
    /// What an instance speaks; HTTP/1.1, and HTTP/2 for gRPC, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<ProtocolKeyword>,
    /// How bodies of unknown length go to an instance over HTTP/1.1; `measured` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_body: Option<RequestBodyKeyword>,
    /// What executes a `model`: `auto` (ONNX Runtime where it is found, else tract), `tract`, `onnxruntime`, or the absolute path
    /// of a library of ONNX Runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^(auto|tract|onnxruntime|/.*)$"))]
    pub(crate) runtime: Option<String>,
    /// Shares that instances see: the path in an instance, and the name of the share (`SERVER:/PATH` or `oss://BUCKET/PATH`). Read-only unless the map says
    /// `writable: true`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    #[schemars(length(max = 16))]
    pub(crate) data: BTreeMap<String, DataEntry>,
    /// Further names by which callers ask for its model in `/v1` and `/v2`, such as `Qwen/Qwen3-8B` or `qwen2.5:7b`; or maps with what a name does to a
    /// request.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 100))]
    pub(crate) names: Vec<NameEntry>,
    /// The port that the program listens on, whatever `PORT` says. The function has one instance then, and functions with the same port take
    /// turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub(crate) port: Option<u16>,
    /// Names of further ports: each instance gets a free one for each, in `PORT_<NAME>`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16), inner(length(max = 32), regex(pattern = r"^[A-Za-z][A-Za-z0-9_-]*$")))]
    pub(crate) ports: Vec<String>,
    /// Where the program listens: on the port `${PORT}`, or on the Unix socket `${KIPWAKE_SOCKET}`, which no other user of the host can
    /// reach. `port` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<ListenKeyword>,
    /// The user of the host that its processes run as, by name or number. It takes a server of root, and a key with the role `admin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub(crate) user: Option<Scalar>,
    /// How a new version takes over from the one that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deploy: Option<Deploy>,
    /// What calls the function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trigger: Option<Trigger>,
    /// Where requests without a qualifier go: aliases, published versions and LATEST with shares in percent that add up to 100.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) traffic: BTreeMap<String, Scalar>,
    /// The rollout that each deployment begins; it makes no revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollout: Option<Rollout>,
}

/// One path, or several.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "files are merged into `env` when a manifest is read; this is for the schema")]
pub(crate) enum Paths {
    /// One.
    One(String),
    /// Several; a later one wins.
    Several(Vec<String>),
}

/// What each instance reserves.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resources {
    /// Cores: `2`, `0.5` or `500m`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(schema_with = "wire_text::cpu")]
    pub(crate) cpu: Option<MilliCpu>,
    /// Host memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Size>,
    /// Devices: a share of one, or whole ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<Gpu>,
}

/// What each instance reserves of devices: `memory` of one, or so many `cards`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gpu {
    /// So much memory of one device, which others may share; `auto`: as much as an instance is measured to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<SizeOrAuto>,
    /// Whole devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub(crate) cards: Option<u8>,
    /// The type of device by its declared name; `any` if left out.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<Scalar>,
    /// What keeps an instance to its share: the ledger alone, the caps of frameworks, or a library of the operator; `account` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) isolation: Option<GpuIsolationKeyword>,
}

/// What keeps an instance to its share of a device.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GpuIsolationKeyword {
    /// The share is counted.
    Account,
    /// Variables set the caps that frameworks have.
    Framework,
    /// A library that the operator installed refuses what exceeds the share.
    Preload,
}

/// Counts of instances.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Instances {
    /// Kept alive always, asleep when idle.
    #[schemars(range(min = 0, max = 10_000))]
    pub(crate) min: Option<u32>,
    /// Never more than this many.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) max: Option<u32>,
    /// Requests at once in one instance.
    pub(crate) concurrency: Option<Concurrency>,
    /// Whether its instances keep their devices and memory until they end by themselves; false if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pin: Option<bool>,
    /// Who waits less for memory and devices, and is evicted later, where there is not enough for all; normal if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<PriorityKeyword>,
}

/// Requests at once in one instance: one number, or both limits.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "both limits are written; the short form is for the schema")]
pub(crate) enum Concurrency {
    /// For both limits.
    One(#[schemars(range(min = 1, max = 100_000))] u32),
    /// One by one.
    Both(Limits),
}

/// Hard and soft limit.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Never exceeded.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) hard: u32,
    /// What scaling aims at; at most `hard`, which is the default.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) soft: Option<u32>,
}

/// Calls around an instance's life.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lifecycle {
    /// `POST` once before any request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) initialize: Option<Hook>,
    /// `GET` before the instance is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pre_stop: Option<Hook>,
    /// How its end is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop: Option<Stop>,
    /// How it gives its device memory back and takes it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sleep: Option<Sleep>,
}

/// The signal that asks an instance to end.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stop {
    /// `term`, `int`, `quit`, `hup`, `usr1` or `usr2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<StopSignalKeyword>,
    /// `main`: the main process first, then whatever is left; `group`: all of its process group at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<StopTargetKeyword>,
}

/// A signal that asks a program to end.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StopSignalKeyword {
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

/// Which processes get it first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StopTargetKeyword {
    /// The main process.
    Main,
    /// The process group.
    Group,
}

/// A call: its path alone, or path and timeout.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "path and timeout are written; the short form is for the schema")]
pub(crate) enum Hook {
    /// The path.
    Path(PathOnInstance),
    /// Path and timeout.
    Full(Call),
}

/// A call with its timeout.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    /// Path on the instance.
    pub(crate) path: PathOnInstance,
    /// How long it may take.
    pub(crate) timeout: Option<Duration>,
}

/// Limits in time.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// From the start of an instance to its readiness.
    pub(crate) startup: Option<Duration>,
    /// A request's wait for an instance, start or wake included.
    pub(crate) queue: Option<Duration>,
    /// From sending a request to the first byte of the answer.
    pub(crate) first_byte: Option<Duration>,
    /// Between two pieces of an answer.
    pub(crate) idle: Option<Duration>,
    /// From arrival to the end of the answer.
    pub(crate) total: Option<Duration>,
    /// From SIGTERM to SIGKILL; 1.2 times the longest request seen and at least 10s if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grace: Option<Duration>,
}

/// Waiting requests.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Queue {
    /// Requests that may wait at once; one more is refused with 429.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) depth: Option<u32>,
}

/// When idle instances sleep and end.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Idle {
    /// Idle for this long: paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pause: Option<DurationOrNever>,
    /// When it gives its device memory back, where its program or the driver can; `when-needed` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) park: Option<DurationOrKeyword>,
    /// When it gives its host memory back, where the host can; `when-needed` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spill: Option<DurationOrKeyword>,
    /// Idle or asleep for this long: stopped, unless among the kept minimum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop: Option<DurationOrNever>,
    /// Whether an idle instance that uses CPU counts as working and is not paused; true if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<bool>,
}

/// How a new version takes over.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deploy {
    /// In which order; `rolling` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) strategy: Option<StrategyKeyword>,
}

/// In which order a new version starts and the one before ends.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StrategyKeyword {
    /// The new version starts beside the one that serves.
    Rolling,
    /// The version that serves ends first.
    Recreate,
}

/// When an instance that works counts as stuck.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Watchdog {
    /// Requests in flight and not a byte for this long: the instance is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stall: Option<DurationOrNever>,
}

/// When instances are replaced though nothing is wrong.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// Past this age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_age: Option<DurationOrNever>,
    /// Past this much memory in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_memory: Option<Size>,
}

/// How the number of instances follows the load.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scaling {
    /// Which policy.
    pub(crate) mode: Option<ScalingMode>,
    /// Of mode kpa: Knative's annotations, without their prefix, such as `target: 5` and `window: 60s`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) annotations: BTreeMap<String, Scalar>,
    /// Of mode kpa: keys of Knative's `config-autoscaler`, such as `max-scale-up-rate: 10`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) config: BTreeMap<String, Scalar>,
    /// Of mode fc: Function Compute's provision input: `defaultTarget`, `targetTrackingPolicies`, `scheduledActions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provision: Option<ProvisionInput>,
    /// Of mode fc: how long a metric is averaged; 1s if left out, 60s is Function Compute's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) period: Option<Duration>,
    /// Of mode fc: periods in a row that a metric must be off its target; 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub(crate) hold: Option<u32>,
    /// Of mode fc: what part of a surplus goes at once, above 0 and at most 1, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) coefficient: Option<f64>,
    /// Of mode fc: requests start no instances; false if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disable_ondemand: Option<bool>,
    /// Of mode auto: how much is paid for short waits; `balanced` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<ClassKeyword>,
    /// Of mode auto: the first instance, and those of whose use too little is known, stay for so long at least; 0 if `mode` is written, else
    /// 12h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep: Option<Duration>,
}

/// How much is paid for short waits.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClassKeyword {
    /// Few instances; callers wait for wakes and starts.
    Economy,
    /// Spare instances where there is steady load.
    Balanced,
    /// More of them, and sleepers are kept for longer.
    Latency,
}

/// Ways of scaling.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScalingMode {
    /// Waiting requests start instances up to the maximum.
    Fixed,
    /// As Function Compute: provisioned instances by policies and schedules, more on demand.
    Fc,
    /// As Knative: averages over two windows, decided every two seconds.
    Kpa,
    /// Kipwake's own policy: by the measured load, and by what starts, wakes and waits cost.
    Auto,
}

/// Provision input as Function Compute takes it: an object, or a list of policies or actions.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct ProvisionInput(pub(crate) serde_json::Value);

impl JsonSchema for ProvisionInput {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ProvisionInput".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["object", "array"] })
    }
}

/// How important a function is where not all that are wanted have room.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PriorityKeyword {
    /// It waits longer, and is evicted first.
    Low,
    /// The default.
    Normal,
    /// It is served before others, and evicted last.
    High,
}

/// Which free instance takes a request.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DispatchKeyword {
    /// Few instances are kept busy, so that the others sleep.
    Packed,
    /// All instances share the load.
    Balanced,
}

/// Where a program listens.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ListenKeyword {
    /// On the port `${PORT}`.
    Port,
    /// On the Unix socket `${KIPWAKE_SOCKET}`.
    Socket,
}

/// What an instance speaks.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProtocolKeyword {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, begun with its preface.
    H2c,
}

/// An alias that moves to each new version in steps.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rollout {
    /// The alias that moves. Where there is none of this name, the first deployment makes it.
    pub(crate) alias: String,
    /// Shares of the new version in percent; they ascend to 100. `[10, 30, 60, 100]` if left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub(crate) steps: Vec<Scalar>,
    /// How long each step is observed; 5m if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) every: Option<Duration>,
    /// How long instances of the old version sleep after the last step; 10m if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep: Option<Duration>,
    /// A version is judged by so many requests at least; 20 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) least: Option<u32>,
    /// It is aborted when so many more of a thousand requests fail than with the old version; 20 if left out, 1000 never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000))]
    pub(crate) max_errors: Option<u32>,
    /// It is aborted when the 99th percentile exceeds that of the old version by so many percent; 100 if left out, 0 never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub(crate) max_slower: Option<u32>,
    /// It is aborted when so many starts in a row fail; 3 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub(crate) max_failed_starts: Option<u32>,
    /// Where the new version finds no room, the old version's instances sleep or end before it is ready; false if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) park_old: Option<bool>,
}

/// Whether a version holds its code.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CodeKeyword {
    /// The files are captured at the deployment.
    Snapshot,
    /// Instances run what is there when they start.
    Live,
}

/// How bodies of unknown length go to an instance.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RequestBodyKeyword {
    /// With their length, if they end within 64 KiB.
    Measured,
    /// As they come.
    Stream,
}

/// What calls the function.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trigger {
    /// Callers of the gateway.
    pub(crate) http: Option<Http>,
}

/// Callers of the gateway.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    /// Whether callers need a key.
    pub(crate) auth: Option<Auth>,
    /// Whether callers need a key to submit tasks; `key` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tasks: Option<Auth>,
    /// Methods let through; all if left out.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) methods: Vec<Method>,
    /// Paths whose requests neither wake an instance nor keep it awake; `*` at the end stands for anything.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) exempt: Vec<PathOnInstance>,
    /// Which web pages of other origins may call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cors: Option<Cors>,
}

/// Which web pages may call a function, and what they may send and see.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cors {
    /// Origins such as `https://chat.example.com`, or `*` for all.
    pub(crate) origins: Vec<String>,
    /// Request headers that pages may send; those that they ask for, if left out.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) headers: Vec<String>,
    /// Headers of answers that pages may read beyond the usual ones.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) expose: Vec<String>,
    /// Whether pages may send cookies; false if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<bool>,
    /// How long a browser may remember the answer to a preflight; 10m if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_age: Option<Duration>,
}

/// Whether callers need a key.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Auth {
    /// Anyone who reaches the gateway.
    Anonymous,
    /// A key of this server.
    Key,
}

/// A further name of a model.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum NameEntry {
    /// It changes nothing.
    Plain(NameText),
    /// It changes bodies of requests.
    Rewrite(NameMap),
}

/// A name of a model.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct NameText(
    #[schemars(regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._:+/-]{0,198}[A-Za-z0-9])?$"))] pub(crate) String,
);

/// A name, and what it does to the body of a request: a JSON object or a form.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Name", deny_unknown_fields)]
pub(crate) struct NameMap {
    /// The name by which callers ask.
    pub(crate) name: NameText,
    /// The name that the program gets as `model`; the caller's if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// Parameters that get these values, whatever the caller sends.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) set: BTreeMap<String, serde_json::Value>,
    /// Parameters that are taken out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) strip: Vec<String>,
}

/// A share that a function mounts.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum DataEntry {
    /// Read-only.
    Name(String),
    /// As the map says.
    Map(DataMap),
}

/// A share, and whether instances write to it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Data", deny_unknown_fields)]
pub(crate) struct DataMap {
    /// The name of the share.
    pub(crate) share: String,
    /// Instances write to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) writable: bool,
}
