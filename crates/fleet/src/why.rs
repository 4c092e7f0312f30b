//! Reasons. They are small values inside the core and become sentences at the edge, through `Display`.

use std::fmt;

use kip_spec::{Bytes, Code, Millis, code};
use serde::{Deserialize, Serialize};

use crate::{CoreNumber, ProbeFailure, RoomNeed, Shortage, Work};

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramExit {
    /// Exit code, if it ended by itself.
    pub code: Option<i32>,
    /// Signal, if it was ended by one.
    pub signal: Option<i32>,
}

/// Why an instance did not become ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartFailure {
    /// No such program.
    CommandNotFound,
    /// Not allowed, or not a program.
    CommandNotExecutable,
    /// The folder to start in is not there.
    WorkingDirectory,
    /// A file that its version needs is not as it was when it was deployed.
    CodeChanged,
    /// The files of its version are not there, or cannot be shown to it.
    CodeMissing,
    /// It writes into its folder, which is read-only.
    CodeReadOnly,
    /// The host gives it no mounts, and it needs some.
    MountImpossible,
    /// The folder of a share is not there.
    ShareMissing,
    /// A secret that it needs cannot be read.
    SecretMissing,
    /// The files of its model are not there, or not yet.
    ModelMissing,
    /// The operating system refused otherwise.
    SpawnFailed,
    /// It ended first.
    Exited(ProgramExit),
    /// It was ready and ended soon after.
    ExitedSoon(ProgramExit),
    /// It was killed because it reached its memory limit.
    OutOfMemory {
        /// The limit in bytes.
        limit: u64,
    },
    /// It ran and was not ready in time.
    NeverReady,
    /// It ran and listened elsewhere.
    WrongPort {
        /// Where it does listen.
        port: u16,
    },
    /// Somebody else answers on its port.
    PortTaken,
    /// No container engine answers.
    EngineUnavailable,
    /// The container engine does not have the image.
    ImageMissing,
    /// The image is for another architecture.
    ImagePlatform,
    /// The container engine refused to make or to start the container.
    ContainerRefused,
    /// A device of the instance is not in its container.
    DeviceMissing,
    /// Programs of others hold the memory of its device.
    DeviceTaken,
    /// It needs more room than there is in all.
    NoRoom,
    /// No room became free in time.
    NoRoomInTime,
    /// The hook answered with this status, or 0 for no answer.
    InitializeFailed {
        /// HTTP status, 0 for none.
        status: u16,
    },
    /// It did not answer the canary as expected.
    CanaryFailed,
}

/// Why an instance is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Asked to.
    Stopped,
    /// It did not become ready.
    StartFailed,
    /// It ended by itself.
    Exited,
    /// It never got room.
    NoRoom,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// As many wait already as may.
    QueueFull {
        /// How many wait.
        depth: u32,
    },
    /// It waited as long as it may.
    QueueTimeout {
        /// How long it waited.
        waited: u64,
    },
    /// The instance it waited for did not become ready.
    StartFailed(StartFailure),
    /// Starts failed lately; the next try is not due.
    Backoff {
        /// When it is due, in milliseconds from now.
        retry_in: u64,
        /// The last failure.
        failure: StartFailure,
    },
    /// The host has no room.
    NoCapacity,
    /// An instance needs more than there is in all.
    NeverFits {
        /// What it needs.
        need: RoomNeed,
    },
    /// All devices that would do are yielded.
    DeviceYielded {
        /// For how long yet, milliseconds; none where nobody knows.
        left: Option<u64>,
    },
    /// The function has no such version any more.
    NoVersion,
    /// The function is gone.
    Removed,
    /// The function takes no invocations any more.
    Disabled,
    /// The server ends.
    ShuttingDown,
    /// A fault of the server's own ended what decides for the function, and it begins anew.
    CoreFailed,
    /// That happened twice within a minute.
    Quarantined,
    /// The instance that was named is gone, or ends.
    InstanceGone,
}

/// Why an instance changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Requests wait and nothing hot is free.
    RequestsWait {
        /// How many.
        queued: u32,
    },
    /// Requests come at equal intervals, and the next ones are due.
    RequestsExpected {
        /// That interval, milliseconds.
        every: u64,
    },
    /// `instances.min` wants it.
    KeepMinimum,
    /// Provisioned instances are wanted.
    Provisioned {
        /// How many.
        target: u32,
    },
    /// There are more than the provisioned target.
    Released {
        /// How many there are to be.
        target: u32,
    },
    /// Knative's autoscaler wants so many.
    Autoscaled {
        /// How many.
        to: u32,
    },
    /// A new version must prove itself before it serves.
    NewVersion,
    /// The placer gave room.
    RoomGranted,
    /// The placer gave room, after a wait.
    RoomAfter {
        /// How long it waited, milliseconds.
        waited: u64,
        /// For what.
        lack: Shortage,
        /// The function that gave it up.
        from: Option<CoreNumber>,
    },
    /// Somebody asked for an instance, though no request waits.
    AskedFor,
    /// A new version for which its room was given up has failed.
    CandidateFailed,
    /// The probe succeeded.
    ProgramReady,
    /// The hook succeeded.
    Initialized,
    /// `idle.pause` is over.
    IdleForPause {
        /// How long it was idle.
        idle: u64,
    },
    /// `idle.stop` is over.
    IdleForStop {
        /// How long it was unused.
        idle: u64,
    },
    /// The operation ended well.
    Done,
    /// Pausing failed; it stays hot.
    PauseFailed,
    /// It works, though no request is in flight; it stays hot.
    Working(Work),
    /// Waking failed.
    WakeFailed,
    /// An operation took too long.
    Deadline,
    /// It did not become ready.
    StartFailed(StartFailure),
    /// It ended by itself.
    Exited(ProgramExit),
    /// It did not end within the grace, and was killed.
    GraceOver {
        /// From the signal to SIGKILL, milliseconds.
        grace: u64,
    },
    /// A newer version serves.
    VersionReplaced,
    /// The function was removed.
    Removed,
    /// The server ends.
    ShuttingDown,
    /// Somebody else waits for what it holds.
    Evicted {
        /// What that is.
        lack: Shortage,
        /// Which function.
        #[serde(default)]
        by: Option<CoreNumber>,
    },
    /// An operator wants its device back.
    DeviceYielded,
    /// A new version starts when this one has ended (`deploy.strategy: recreate`).
    MakesWay,
    /// A rollout's new version finds no room beside it (`rollout.park_old`).
    SetAside,
    /// The task it worked on was told to stop.
    TaskStopped,
    /// It was asked for by `kip rotate`.
    Rotated,
    /// It is older than `rotation.max_age`.
    TooOld {
        /// How old, milliseconds.
        age: u64,
    },
    /// It uses more memory than `rotation.max_memory`.
    Outgrown,
    /// The folder of its function was deleted, moved or replaced, which takes the files of its version out of its sight.
    CodeLost,
    /// It uses more of its device than it declares.
    OverusesDevice,
    /// Its successor is ready.
    Succeeded,
    /// There is no room for a successor beside it.
    ReplacedInPlace,
    /// Its requests gave no byte for longer than `watchdog.stall`.
    Stalled {
        /// For how long, milliseconds.
        silent: u64,
    },
    /// The function was disabled, and what it did was to end.
    Aborted,
    /// Its live probe failed.
    NotLive(ProbeFailure),
    /// Requests of an earlier server did not end in time.
    NeverSettled,
    /// Giving memory back failed.
    ParkFailed,
    /// Giving memory back failed in a way that leaves its state unknown.
    ParkUnknown,
    /// It answered the canary wrongly after a wake.
    CanaryFailed,
    /// `idle.park` is over.
    IdleForPark {
        /// How long it was idle.
        idle: u64,
    },
    /// `idle.spill` is over.
    IdleForSpill {
        /// How long it was idle.
        idle: u64,
    },
    /// The need passed before it had room.
    NoLongerNeeded,
    /// It can never fit.
    NoCapacity,
    /// Requests came while it was falling asleep or asleep.
    WokenForRequests {
        /// How many wait.
        queued: u32,
    },
    /// An earlier server started it.
    Adopted,
    /// A fault of the server's own left its state unknown.
    CoreFailed,
    /// Such a fault came twice within a minute.
    Quarantined,
}

impl Refusal {
    /// The stable code that callers see.
    pub const fn code(self) -> Code {
        match self {
            Self::QueueFull { .. } => code::QUEUE_FULL,
            Self::QueueTimeout { .. } => code::QUEUE_TIMEOUT,
            Self::StartFailed(failure) => failure.code(),
            Self::Backoff { .. } => code::START_BACKOFF,
            Self::NoCapacity | Self::NeverFits { .. } => code::NO_CAPACITY,
            Self::DeviceYielded { .. } => code::DEVICE_YIELDED,
            Self::NoVersion => code::VERSION_NOT_FOUND,
            Self::InstanceGone => code::INSTANCE_NOT_FOUND,
            Self::Removed => code::FUNCTION_REMOVED,
            Self::Disabled => code::INVOCATION_DISABLED,
            Self::ShuttingDown => code::SHUTTING_DOWN,
            Self::CoreFailed => code::CORE_FAILED,
            Self::Quarantined => code::QUARANTINED,
        }
    }

    /// When to try again, in whole seconds, where that can help.
    pub const fn retry_after_seconds(self) -> Option<u64> {
        match self {
            Self::QueueFull { .. } | Self::NoCapacity | Self::CoreFailed => Some(1),
            Self::Backoff { retry_in, .. } => Some(retry_in.div_ceil(1_000)),
            Self::DeviceYielded { left: Some(left) } => Some(left / 1_000 + 1),
            Self::ShuttingDown => Some(5),
            Self::Quarantined => Some(60),
            _ => None,
        }
    }
}

impl Reason {
    /// Whether somebody else wants what it holds.
    pub const fn is_eviction(self) -> bool {
        matches!(self, Self::Evicted { .. } | Self::DeviceYielded | Self::SetAside)
    }
}

impl StartFailure {
    /// The stable code that callers see.
    pub const fn code(self) -> Code {
        match self {
            Self::CommandNotFound => code::COMMAND_NOT_FOUND,
            Self::CommandNotExecutable => code::COMMAND_NOT_EXECUTABLE,
            Self::WorkingDirectory => code::WORKING_DIRECTORY,
            Self::CodeChanged => code::CODE_CHANGED,
            Self::CodeMissing => code::CODE_MISSING,
            Self::CodeReadOnly => code::CODE_READ_ONLY,
            Self::MountImpossible => code::MOUNT_IMPOSSIBLE,
            Self::ShareMissing => code::SHARE_MISSING,
            Self::SecretMissing => code::SECRET_MISSING,
            Self::ModelMissing => code::MODEL_MISSING,
            Self::SpawnFailed => code::SPAWN_FAILED,
            Self::Exited(_) => code::EXITED_BEFORE_READY,
            Self::ExitedSoon(_) => code::CRASH_LOOP,
            Self::OutOfMemory { .. } => code::OUT_OF_MEMORY,
            Self::NeverReady => code::NEVER_READY,
            Self::WrongPort { .. } => code::WRONG_PORT,
            Self::PortTaken => code::INSTANCE_PORT_TAKEN,
            Self::EngineUnavailable => code::ENGINE_UNAVAILABLE,
            Self::ImageMissing => code::IMAGE_MISSING,
            Self::ImagePlatform => code::IMAGE_PLATFORM,
            Self::ContainerRefused => code::CONTAINER_REFUSED,
            Self::DeviceMissing => code::DEVICE_NOT_IN_CONTAINER,
            Self::DeviceTaken => code::DEVICE_TAKEN,
            Self::NoRoom | Self::NoRoomInTime => code::NO_CAPACITY,
            Self::InitializeFailed { .. } => code::INITIALIZE_FAILED,
            Self::CanaryFailed => code::CANARY_FAILED,
        }
    }
}

impl fmt::Display for ProgramExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("an unknown cause"),
        }
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandNotFound => f.write_str("the command does not exist"),
            Self::CommandNotExecutable => f.write_str("the command cannot be executed"),
            Self::WorkingDirectory => f.write_str("the working directory does not exist"),
            Self::CodeChanged => f.write_str("a file that the version needs changed since it was deployed"),
            Self::CodeMissing => f.write_str("the files of the version are not there"),
            Self::CodeReadOnly => f.write_str("the program writes into its folder, which is read-only"),
            Self::MountImpossible => f.write_str("this host gives the instance no mounts"),
            Self::ShareMissing => f.write_str("the folder of a share is not there"),
            Self::SecretMissing => f.write_str("a secret that the instance needs cannot be read"),
            Self::ModelMissing => f.write_str("the files of the model that the instance needs are not there yet"),
            Self::SpawnFailed => f.write_str("the operating system refused to start the program"),
            Self::Exited(exit) => write!(f, "the program ended before it was ready, with {exit}"),
            Self::ExitedSoon(exit) => write!(f, "the program ended soon after it was ready, with {exit}"),
            Self::OutOfMemory { limit } => {
                write!(f, "the program was killed for memory before it was ready, at its limit of {}", Bytes(*limit))
            }
            Self::NeverReady => f.write_str("the program did not become ready in time"),
            Self::WrongPort { port } => {
                write!(f, "the program listens on port {port} instead of the one in the variable PORT")
            }
            Self::PortTaken => f.write_str("another program listens on the instance's port"),
            Self::EngineUnavailable => f.write_str("no container engine answers"),
            Self::ImageMissing => f.write_str("the container engine does not have the image"),
            Self::ImagePlatform => f.write_str("the image is for another architecture than the container engine's"),
            Self::ContainerRefused => f.write_str("the container engine refused to start the container"),
            Self::DeviceMissing => f.write_str("a device of the instance is not in its container"),
            Self::DeviceTaken => f.write_str("programs that are not of this server hold the memory of its device"),
            Self::NoRoom => f.write_str("no host has what an instance needs, or the quota forbids it"),
            Self::NoRoomInTime => f.write_str("no room for an instance became free in time"),
            Self::InitializeFailed { status: 0 } => f.write_str("the initialize hook did not answer"),
            Self::InitializeFailed { status } => write!(f, "the initialize hook answered {status}"),
            Self::CanaryFailed => f.write_str("the program did not answer the canary as expected"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueFull { depth } => write!(f, "{depth} requests wait already, as many as the function lets wait"),
            Self::QueueTimeout { waited } => write!(f, "no instance became free within {}", Millis(*waited)),
            Self::StartFailed(failure) => failure.fmt(f),
            Self::Backoff { retry_in, failure } => {
                write!(f, "{failure}; the next start is tried in {}", Millis(*retry_in))
            }
            Self::NoCapacity => f.write_str("the host has no room for an instance"),
            Self::NeverFits { need } => {
                write!(f, "no host has what an instance needs ({need}), or the quota forbids it")
            }
            Self::DeviceYielded { left: Some(left) } => {
                write!(
                    f,
                    "the device that an instance needs is yielded (kip device yield) for another {}",
                    Millis(*left)
                )
            }
            Self::DeviceYielded { left: None } => {
                f.write_str("the device that an instance needs is yielded (kip device yield)")
            }
            Self::NoVersion => f.write_str("the function has no such version any more"),
            Self::InstanceGone => f.write_str("the instance is gone, or ends"),
            Self::Removed => f.write_str("the function was removed"),
            Self::Disabled => f.write_str("the function was disabled and takes no invocations"),
            Self::ShuttingDown => f.write_str("the server is shutting down"),
            Self::CoreFailed => {
                f.write_str("the server made a fault while it decided for the function, and began anew")
            }
            Self::Quarantined => {
                f.write_str("the server made two faults within a minute for the function, and takes no requests for it")
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestsWait { queued: 0 } => f.write_str("a task is due and no hot instance is free"),
            Self::RequestsWait { queued: 1 } => f.write_str("1 request waits and no hot instance is free"),
            Self::RequestsWait { queued } => write!(f, "{queued} requests wait and no hot instance is free"),
            Self::RequestsExpected { every } => {
                write!(f, "requests come every {}, and the next are due", Millis(*every))
            }
            Self::KeepMinimum => f.write_str("instances.min asks for it"),
            Self::Provisioned { target } => write!(f, "{target} are to be provisioned"),
            Self::Released { target } => write!(f, "no more than {target} are to be provisioned"),
            Self::Autoscaled { to } => write!(f, "the autoscaler wants {to}"),
            Self::NewVersion => f.write_str("a new version proves itself before it serves"),
            Self::RoomGranted => f.write_str("the host has room"),
            Self::RoomAfter { waited, lack, from } => {
                write!(f, "it waited {} for {lack}", Millis(*waited))?;
                if from.is_some() { f.write_str(", which another function gave up") } else { Ok(()) }
            }
            Self::AskedFor => f.write_str("an instance was asked for"),
            Self::CandidateFailed => f.write_str("it stopped for a new version, and that one failed"),
            Self::ProgramReady => f.write_str("the ready probe succeeded"),
            Self::Initialized => f.write_str("the initialize hook succeeded"),
            Self::IdleForPause { idle } => write!(f, "idle for {}, past idle.pause", Millis(*idle)),
            Self::IdleForStop { idle } => write!(f, "unused for {}, past idle.stop", Millis(*idle)),
            Self::Done => f.write_str("done"),
            Self::GraceOver { grace } => {
                write!(
                    f,
                    "the program did not end within {} of the stop signal, and was killed with SIGKILL",
                    Millis(*grace)
                )
            }
            Self::Working(Work::Request) => f.write_str("it is not paused: a request came"),
            Self::Working(Work::Asked(left)) => {
                write!(f, "it is not paused: it asked to stay awake for {} more (x-kip-keep-awake)", Millis(*left))
            }
            Self::Working(Work::Cpu(per_mille)) => write!(
                f,
                "it is not paused: no request is in flight, and it uses {} % of a CPU (idle.cpu)",
                per_mille.div_ceil(10)
            ),
            Self::PauseFailed => f.write_str("pausing failed, it stays hot"),
            Self::WakeFailed => f.write_str("waking failed, it is replaced"),
            Self::Deadline => f.write_str("the operation took too long"),
            Self::StartFailed(failure) => failure.fmt(f),
            Self::Exited(exit) => write!(f, "the program ended by itself, with {exit}"),
            Self::VersionReplaced => f.write_str("a newer version serves"),
            Self::Removed => f.write_str("the function was removed"),
            Self::ShuttingDown => f.write_str("the server is shutting down"),
            Self::Evicted { lack, .. } => write!(f, "evicted: another instance waits for {lack}"),
            Self::DeviceYielded => f.write_str("its device is yielded (kip device yield)"),
            Self::SetAside => f.write_str("the new version of a rollout finds no room beside it (rollout.park_old)"),
            Self::MakesWay => f.write_str("a new version starts when this one has ended (deploy.strategy: recreate)"),
            Self::TaskStopped => f.write_str("the task it worked on was told to stop"),
            Self::Rotated => f.write_str("it was asked to be replaced"),
            Self::TooOld { age } => write!(f, "it is {} old, past rotation.max_age", Millis(*age)),
            Self::CodeLost => {
                f.write_str("its folder was deleted, moved or replaced, and its files are shown to it no more")
            }
            Self::Outgrown => f.write_str("it uses more memory than rotation.max_memory"),
            Self::OverusesDevice => {
                f.write_str("it uses more of its device than resources.gpu.memory (sharing.over_use)")
            }
            Self::Succeeded => f.write_str("its successor is ready"),
            Self::ReplacedInPlace => f.write_str("there is no room for a successor beside it, so it goes first"),
            Self::Stalled { silent } => {
                write!(f, "requests are in flight and no byte came for {}, past watchdog.stall", Millis(*silent))
            }
            Self::NotLive(ProbeFailure::Refused) => f.write_str("the live probe failed"),
            Self::NotLive(ProbeFailure::Slow) => f.write_str("the live probe was not answered, and it has no work"),
            Self::Aborted => f.write_str("the function was disabled, and its requests were aborted"),
            Self::NeverSettled => f.write_str("requests of an earlier server did not end in time"),
            Self::ParkFailed => f.write_str("giving memory back failed, it stays paused"),
            Self::ParkUnknown => f.write_str("giving memory back failed and its state is not known, it is replaced"),
            Self::CanaryFailed => f.write_str("it did not answer the canary as expected, it is replaced"),
            Self::IdleForPark { idle } => write!(f, "idle for {}, past idle.park", Millis(*idle)),
            Self::IdleForSpill { idle } => write!(f, "idle for {}, past idle.spill", Millis(*idle)),
            Self::NoLongerNeeded => f.write_str("nothing waits for it any more"),
            Self::NoCapacity => f.write_str("the host has no room for it"),
            Self::CoreFailed => f.write_str("a fault of the server left its state unknown"),
            Self::Quarantined => f.write_str("the server made two faults within a minute for its function"),
            Self::Adopted => f.write_str("an earlier server started it and it lives"),
            Self::WokenForRequests { queued: 1 } => f.write_str("1 request waits"),
            Self::WokenForRequests { queued } => write!(f, "{queued} requests wait"),
        }
    }
}
