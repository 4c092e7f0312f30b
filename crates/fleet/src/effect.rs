//! What a function core wants done, with the reasons inside.

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::state::STATES;
use crate::why::{Reason, Refusal, StartFailure};
use crate::{OperationNumber, Place, Qualifier, Rung, State, Ticket, ToPlacer};

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
    /// A task of the backlog may go to the instance; the shell reports its end, or that none takes it, with `Leave`.
    Offer {
        /// The place's own ticket.
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
    /// Report when a byte last came from the instance, with `Progress`.
    AskProgress {
        /// Which.
        instance: InstanceId,
    },
    /// Giving memory back, or taking it again, failed several times in a row for the version: its instances only pause.
    RungsDisabled {
        /// Which version.
        version: VersionId,
    },
    /// Starts of the version fail again and again; told once, until one stays.
    CrashLoop {
        /// Which.
        version: VersionId,
        /// How many in a row.
        failures: u32,
        /// The last one.
        failure: StartFailure,
    },
    /// An instance is gone; this is all that its time was spent on.
    Ended(Usage),
    /// A scaling policy of a version decided: [`crate::FunctionCore::revisions`] knows what.
    Scaled {
        /// Which version.
        version: VersionId,
    },
    /// What is provisioned was looked at: [`crate::FunctionCore::provisions`] knows with which result.
    Provisioned {
        /// For whom.
        qualifier: Qualifier,
    },
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
    /// Start the program there and wait until it is ready.
    Start {
        /// Where.
        place: Place,
    },
    /// Call the initialize hook.
    Initialize,
    /// Take its CPU away.
    Pause,
    /// Give it back what it lacks, from the rung it rests on, and its CPU last.
    Resume {
        /// Where it rests.
        from: Rung,
    },
    /// Give its device memory back; it is paused.
    Park,
    /// Give its host memory back; it is parked.
    Spill,
    /// End it: hook, SIGTERM, grace, SIGKILL, and make sure nothing is left.
    Stop {
        /// From SIGTERM to SIGKILL, milliseconds.
        grace: u64,
    },
    /// End it at once, and make sure nothing is left.
    Kill {
        /// Keep its last log lines and the stacks of its processes first.
        autopsy: bool,
    },
}

/// Why an instance is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Kept by policy.
    Provisioned,
    /// Started by requests.
    #[default]
    OnDemand,
}

impl Kind {
    /// Its name as users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provisioned => "provisioned",
            Self::OnDemand => "on-demand",
        }
    }

    /// Its place in arrays by kind.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What the time of an instance was spent on. The milliseconds of both kinds and all states add up to its lifetime exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Which.
    pub instance: InstanceId,
    /// Of which version.
    pub version: VersionId,
    /// When it was made, boot time.
    pub since: u64,
    /// When it was gone, or the time of asking, boot time.
    pub until: u64,
    /// Requests it was given.
    pub served: u64,
    /// Milliseconds by [`Kind::index`] and [`State::index`].
    pub times: [[u64; STATES]; 2],
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
    pub why: Reason,
}
