//! What happens to a function core.

use std::sync::Arc;

use kip_spec::scaling::Fc;
use kip_spec::{Finite, InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::function::Backlog;
use crate::room::Gpu;
use crate::why::{ProgramExit, Reason, StartFailure};
use crate::{AliasNumber, Draw, FromPlacer, OperationNumber, Place, Policy, Qualifier, Rung, Target, Ticket};

/// An input of a [`crate::FunctionCore`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A version is to serve. It does at once if nothing of the function runs; else it proves itself first.
    Deploy {
        /// Which.
        version: VersionId,
        /// How it wants to be treated.
        policy: Arc<Policy>,
    },
    /// This version served before and goes on: a core made anew, after the [`Event::Adopt`] of every instance that lives.
    Serve {
        /// Which.
        version: VersionId,
        /// How it wants to be treated.
        policy: Arc<Policy>,
    },
    /// The function is removed: waiting requests are refused, instances drain and stop.
    Remove,
    /// The server ends: as [`Event::Remove`], with another reason.
    Shutdown,
    /// An alias points at these versions from now on; at none: it is gone.
    Alias {
        /// Which.
        alias: AliasNumber,
        /// Where to, with weights.
        targets: Vec<Target>,
        /// The weight of the version that serves, whichever that is.
        latest: u32,
        /// Instances kept for it, split over the versions by weight.
        provisioned: u32,
        /// Where its draw begins.
        draw: Draw,
    },
    /// Requests may ask for this version by itself from now on.
    Name {
        /// Which.
        version: VersionId,
        /// How it wants to be treated.
        policy: Arc<Policy>,
    },
    /// Requests may not ask for this version by itself any more. What it has is served.
    Unname {
        /// Which.
        version: VersionId,
    },
    /// A version gives its room up for another one and starts nothing, or serves again. Its requests wait meanwhile.
    SetAside {
        /// Which.
        version: VersionId,
        /// Whether it gives its room up.
        aside: bool,
    },
    /// What is provisioned for whoever is meant, from now on; nothing: what the version declares itself.
    Provision {
        /// For whom.
        qualifier: Qualifier,
        /// What.
        settings: Option<Arc<Fc>>,
    },
    /// So many were wanted for whoever is meant before this core began anew. Its policies go on from there.
    Reached {
        /// For whom.
        qualifier: Qualifier,
        /// How many.
        target: u32,
    },
    /// What the version that serves has learnt before this core began. It goes on from there.
    Learnt {
        /// What.
        history: Box<crate::History>,
    },
    /// What instances of a version use, as a share of what they declare; what is not measured is left out.
    Measured {
        /// Which version.
        version: VersionId,
        /// CPU time.
        cpu: Option<Finite>,
        /// Device memory.
        gpu_memory: Option<Finite>,
    },
    /// What instances of a version need of a device, where nobody declared it: it was measured.
    Sized {
        /// Which version.
        version: VersionId,
        /// What an instance needs.
        gpu: Gpu,
    },
    /// An instance uses more of its device than its version declares, and is to be replaced.
    Overused {
        /// Which.
        instance: InstanceId,
    },
    /// A request wants an instance.
    Arrive {
        /// Its number.
        ticket: Ticket,
        /// What it asks for.
        call: Call,
    },
    /// So many tasks are ready for a version outside of the core, those that were offered a place not among them.
    Backlog {
        /// Which version.
        version: VersionId,
        /// How many, and since when.
        backlog: Backlog,
    },
    /// A request is over, or its caller left: queued or in flight, its place is free.
    Leave {
        /// Its number.
        ticket: Ticket,
    },
    /// Work was told to stop: its instance gets nothing new, and ends when the place is given back. Where others work beside it,
    /// the instance stays, and the end of the connection has to be word enough.
    Halt {
        /// The work's place.
        ticket: Ticket,
    },
    /// The function takes no invocations any more and those it has are to end: requests that wait are refused, and each instance that works
    /// is ended by force.
    Abort,
    /// Work that an earlier server gave to an instance goes on there, and somebody holds it: it has a place like any other. Before
    /// [`Event::Serve`].
    Occupy {
        /// The number of its place.
        ticket: Ticket,
        /// Which instance.
        instance: InstanceId,
    },
    /// An operation ended.
    Observed {
        /// On which instance.
        instance: InstanceId,
        /// Which operation.
        operation: OperationNumber,
        /// How.
        seen: OperationOutcome,
    },
    /// An instance's program ended, whatever was going on.
    Exited {
        /// Which.
        instance: InstanceId,
        /// How.
        exit: ProgramExit,
    },
    /// An earlier server started this instance and it lives. Nothing is decided before [`Event::Serve`].
    Adopt {
        /// Which.
        instance: InstanceId,
        /// Of which version.
        version: VersionId,
        /// How that version wants to be treated.
        policy: Arc<Policy>,
        /// What it was found to be.
        found: FoundState,
    },
    /// The requests that an earlier server left on an adopted instance are over.
    Settled {
        /// On which instance.
        instance: InstanceId,
    },
    /// The version's ready probe of a hot instance has another answer than before.
    Readiness {
        /// Of which instance.
        instance: InstanceId,
        /// Whether it succeeds.
        ready: bool,
    },
    /// The body of an instance has lost touch with it, or is in touch with it again.
    Touch {
        /// Which instance.
        instance: InstanceId,
        /// Whether it is lost.
        lost: bool,
    },
    /// The live probe of an instance failed as often as it may.
    Unhealthy {
        /// Of which instance.
        instance: InstanceId,
        /// How.
        how: ProbeFailure,
    },
    /// The answer to [`crate::Effect::AskProgress`].
    Progress {
        /// Of which instance.
        instance: InstanceId,
        /// When a byte last came from it or a request was last given to it, boot time.
        last: u64,
    },
    /// One instance is to start though no request waits, if none is there.
    Start {
        /// Of which version.
        version: VersionId,
    },
    /// Replace every instance there is by a new one.
    Rotate,
    /// An instance is to be replaced, when its successor is ready.
    Replace {
        /// Which.
        instance: InstanceId,
        /// Why.
        why: Reason,
    },
    /// The placer speaks.
    Placer(FromPlacer),
    /// The time of the last [`crate::Effect::WakeAt`] has come.
    Tick,
    /// Somebody wants a session in an instance, beside its requests: the answer is a [`crate::Effect::Dispatch`] or a
    /// [`crate::Effect::Refuse`], and [`Event::Leave`] ends it.
    Attach {
        /// The number of its place.
        ticket: Ticket,
        /// Of which version the instance is to be, where none is named.
        to: Qualifier,
        /// In this instance and no other; a sleeping one wakes.
        instance: Option<InstanceId>,
    },
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Call {
    /// Which version.
    pub to: Qualifier,
    /// Who goes first.
    pub priority: Priority,
    /// How long it waits at most, milliseconds, where that is less than the function's own limit.
    pub patience: Option<u64>,
    /// Who calls, where an alias keeps its callers on their version: a number that is the same for each request of one caller.
    #[serde(default)]
    pub caller: Option<u64>,
}

/// Who goes first: a lower number does, until the other has waited [`Priority::STEP`] longer for each step between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(pub u8);

impl Priority {
    /// Somebody waits for the answer.
    pub const SYNC: Self = Self(0);
    /// Nobody does.
    pub const ASYNC: Self = Self(1);
    /// What one step of priority is worth, in milliseconds of waiting.
    pub const STEP: u64 = 10_000;
}

/// How an instance failed its live probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeFailure {
    /// It answered that it is not well, or nobody listens.
    Refused,
    /// It did not answer in time; a busy one may just be busy.
    Slow,
}

/// What an instance of an earlier server was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundState {
    /// It sleeps, and on which rung.
    pub asleep: Option<Rung>,
    /// Requests of the earlier server that may still be with it.
    pub busy: u32,
    /// When its program was started, boot time.
    pub born: u64,
    /// It was kept by policy, not started by requests.
    pub provisioned: bool,
    /// Where it is.
    pub place: Place,
}

/// What an instance does though no request is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// It uses CPU: so much, in a thousand of one.
    Cpu(u32),
    /// It asked to stay awake, for so many more milliseconds.
    Asked(u64),
    /// A request came at this moment.
    Request,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationOutcome {
    /// The program runs and its probe succeeded.
    Started,
    /// It does not.
    StartFailed(StartFailure),
    /// The hook succeeded.
    Initialized,
    /// It gets no CPU any more.
    Paused,
    /// It could not be paused.
    PauseFailed,
    /// It was not paused, because it works though no request is in flight.
    Working(Work),
    /// It runs again, with all its memory.
    Resumed,
    /// It could not be resumed.
    ResumeFailed,
    /// It runs again, and answered the canary wrongly or too late.
    CanaryFailed,
    /// Its device memory is given back.
    Parked,
    /// It could not be given back; it is paused as before.
    ParkFailed,
    /// Whether it is given back is not known, or its program does not run on: it must not serve any more.
    ParkUnknown,
    /// Its host memory is given back.
    Spilled,
    /// It could not be given back; it is parked as before.
    SpillFailed,
    /// Nothing of it is left.
    Stopped,
    /// The same, but the grace was over and SIGKILL ended it.
    Killed,
}
