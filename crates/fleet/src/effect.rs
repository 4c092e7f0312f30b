//! What a function core wants done, with the reasons inside.

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::why::{Refusal, StartFailure, Why};
use crate::{OperationNumber, State, Ticket, ToPlacer};

/// An output of a [`crate::FunctionCore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The request may go to the instance; the shell reports its end with `Leave`.
    Dispatch {
        /// Which request.
        ticket: Ticket,
        /// Where to.
        instance: InstanceId,
        /// What it had to wait for.
        start: StartKind,
    },
    /// The request is over.
    Refuse {
        /// Which request.
        ticket: Ticket,
        /// Why.
        refusal: Refusal,
    },
    /// Do this to an instance and report how it ended, with the operation's number.
    Operate {
        /// On which instance.
        instance: InstanceId,
        /// Of which version.
        version: VersionId,
        /// To be echoed.
        operation: OperationNumber,
        /// What.
        what: Operate,
    },
    /// For the placer, by way of the router.
    Tell(ToPlacer),
    /// Call `Tick` at this boot time. Replaces an earlier call.
    WakeAt(u64),
    /// For the decision log.
    Changed(Change),
    /// The version serves from now on.
    Promoted {
        /// Which.
        version: VersionId,
    },
    /// The version did not prove itself; what served before goes on serving.
    VersionFailed {
        /// Which.
        version: VersionId,
        /// Why.
        failure: StartFailure,
    },
}

/// An operation on an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operate {
    /// Start the program and wait until it is ready.
    Start,
    /// Call the initialize hook.
    Initialize,
    /// Take its CPU away.
    Pause,
    /// Give its CPU back.
    Resume,
    /// End it: hook, SIGTERM, grace, SIGKILL, and make sure nothing is left.
    Stop,
    /// End it at once, and make sure nothing is left.
    Kill,
}

/// What a request had to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// Nothing, or its turn.
    Warm,
    /// A paused instance's wake.
    Woken,
    /// An instance's start.
    Cold,
}

impl StartKind {
    /// Its name as users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Woken => "woken",
            Self::Cold => "cold",
        }
    }
}

/// An instance changed its state, other than between ready and busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub instance: InstanceId,
    /// Of which version.
    pub version: VersionId,
    /// From where; `None` when it was made.
    pub from: Option<State>,
    /// To where.
    pub to: State,
    /// For what reason.
    pub why: Why,
}
