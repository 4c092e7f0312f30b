//! What happens to a function core.

use std::sync::Arc;

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::why::{Exit, StartFailure};
use crate::{FromPlacer, OperationNumber, Place, Policy, Ticket};

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
    /// The function is removed: waiting requests are refused, instances drain and stop.
    Remove,
    /// The server ends: as [`Event::Remove`], with another reason.
    Shutdown,
    /// A request wants an instance.
    Arrive {
        /// Its number.
        ticket: Ticket,
    },
    /// A request is over, or its caller left: queued or in flight, its place is free.
    Leave {
        /// Its number.
        ticket: Ticket,
    },
    /// An operation ended.
    Observed {
        /// On which instance.
        instance: InstanceId,
        /// Which operation.
        operation: OperationNumber,
        /// How.
        seen: Seen,
    },
    /// An instance's program ended, whatever was going on.
    Exited {
        /// Which.
        instance: InstanceId,
        /// How.
        exit: Exit,
    },
    /// An earlier server started this instance and it lives; comes after the [`Event::Deploy`] of the version that serves.
    Adopt {
        /// Which.
        instance: InstanceId,
        /// Of which version.
        version: VersionId,
        /// How that version wants to be treated.
        policy: Arc<Policy>,
        /// What it was found to be.
        found: Found,
    },
    /// The requests that an earlier server left on an adopted instance are over.
    Settled {
        /// On which instance.
        instance: InstanceId,
    },
    /// The placer speaks.
    Placer(FromPlacer),
    /// The time of the last [`crate::Effect::WakeAt`] has come.
    Tick,
}

/// What an instance of an earlier server was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// It gets no CPU.
    pub asleep: bool,
    /// Requests of the earlier server are still with it.
    pub busy: bool,
    /// When its program was started, boot time.
    pub born: u64,
    /// It was kept by policy, not started by requests.
    pub provisioned: bool,
    /// Where it is.
    pub place: Place,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
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
    /// It runs again.
    Resumed,
    /// It could not be resumed.
    ResumeFailed,
    /// Nothing of it is left.
    Stopped,
}
