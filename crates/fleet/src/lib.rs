//! The brain. Every decision (which instance serves, when to start, pause, wake, evict, stop) is made here by pure code.
//!
//! Two kinds of core exchange values and never share memory:
//!
//! * a [`FunctionCore`] holds all versions, the queues and the instances of one function,
//! * the [`Placer`] holds the host's ledger and grants room for instances.
//!
//! Messages between them go through a [`Router`], so that a simulator can delay and reorder them. The shell around the
//! cores (the server's `control` room, or a simulator) calls `step(now, event, &mut effects)`, carries the effects out,
//! and reports what it saw as further events. This room never reads a clock, opens a socket, rolls dice, or knows what
//! a process is.

#![forbid(unsafe_code)]

pub mod alias;
pub mod effect;
pub mod event;
pub mod function;
mod history;
pub mod host;
pub mod instance;
pub mod placer;
pub mod policy;
pub mod queue;
pub mod recording;
pub mod rollout;
pub mod room;
pub mod router;
pub mod scaler;
mod sparse;
pub mod state;
pub mod why;

use serde::{Deserialize, Serialize};

pub use alias::{AliasNumber, Draw, Pointer, Qualifier, Target};
pub use effect::{Change, Effect, Kind, Operate, StartKind, Usage};
pub use event::{Call, Event, FoundState, OperationOutcome, Priority, ProbeFailure, Work};
pub use function::{Backlog, FunctionCore, HoldReason, ScalingExplanation};
pub use history::History;
pub use host::{CoreHost, Recovery, Subject};
pub use placer::{FromPlacer, Placer, ToPlacer};
pub use policy::Policy;
pub use recording::Recording;
pub use room::{Device, DeviceKind, Inventory, Place, RoomNeed, Shortage};
pub use router::Router;
pub use state::{Class, Rung, State};
pub use why::{ProgramExit, Reason, Refusal, StartFailure};

/// The time as the shell hands it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Now {
    /// Milliseconds since the host booted; all deadlines count in these.
    pub boot: u64,
    /// Milliseconds since 1970, for calendars only.
    pub wall: i64,
}

/// A request as its function's core knows it: the shell numbers them upwards, so the order of numbers is the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(pub u64);

impl Ticket {
    /// Places of tasks have numbers from here on; the shell counts requests from zero.
    const OFFERED: u64 = 1 << 63;
    const INHERITED: u64 = Self::OFFERED | 1 << 62;

    /// The place of the core's own offer of this number to a task.
    pub(crate) fn offered(number: u64) -> Self {
        Self(Self::OFFERED | number)
    }

    /// The place of a task that an earlier server began; the shell numbers them.
    pub fn inherited(number: u64) -> Self {
        Self(Self::INHERITED | number)
    }

    /// Whether it is a task's, which may take longer than any request.
    pub(crate) fn is_task(self) -> bool {
        self.0 & Self::OFFERED != 0
    }
}

/// The number of an operation on an instance. Observations echo it; those of another number are late and are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationNumber(pub u64);

/// The number of a function core within one boot of the server; it is part of its instances' ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CoreNumber(pub u32);
