//! What an instance really is, kept apart from what its core believes.

use kip_fleet::{Operate, OperationNumber, Place, Rung};
use kip_spec::VersionId;

/// The truth about an instance.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) condition: Condition,
    /// Whether its initialize hook has run, where there is one.
    pub(crate) initialized: bool,
    /// When its core made it.
    pub(crate) born: u64,
    /// Requests that really are with it.
    pub(crate) in_flight: u32,
    /// What the core asked for last and has not been answered.
    pub(crate) asked: Option<PendingOperation>,
    /// Its kill was asked for, so that a core which begins anew may ask for it again.
    pub(crate) killed: bool,
    /// News of its end that is under way.
    pub(crate) news: u32,
    /// The core knows that it ended by itself.
    pub(crate) end_known: bool,
    /// When it last gave a byte or was given a request.
    pub(crate) last_byte: u64,
    /// Requests with it that will get none.
    pub(crate) stuck: u32,
    /// Its live probe failed, so that it may be ended with work in flight.
    pub(crate) not_live: bool,
    /// Where it was started.
    pub(crate) place: Place,
    /// Which version it is of.
    pub(crate) version: VersionId,
    /// A wake of it was answered before: for [`crate::PlantedBug::StaleAnswer`].
    pub(crate) woken_before: bool,
}

/// An operation that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingOperation {
    pub(crate) operation: OperationNumber,
    pub(crate) at: u64,
}

/// Where the program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Not yet, or not any more.
    Nothing,
    /// It runs and is not ready.
    Starting,
    /// It answers.
    Up,
    /// It gets no CPU, and perhaps has given memory back.
    Frozen(Rung),
    /// It ended; what it left behind is still there.
    Dead,
}

impl Body {
    pub(crate) fn new(version: VersionId, now: u64) -> Self {
        Self {
            condition: Condition::Nothing,
            initialized: false,
            born: now,
            in_flight: 0,
            asked: None,
            killed: false,
            news: 0,
            end_known: false,
            last_byte: now,
            stuck: 0,
            not_live: false,
            place: Place::default(),
            version,
            woken_before: false,
        }
    }

    /// Does what was asked for. False if it cannot be done to what there is.
    pub(crate) fn apply(&mut self, what: Operate) -> bool {
        let (possible, after) = match what {
            Operate::Start { .. } => (self.condition == Condition::Starting, Condition::Up),
            Operate::Initialize => (self.condition == Condition::Up, Condition::Up),
            Operate::Pause => (self.condition == Condition::Up, Condition::Frozen(Rung::Paused)),
            Operate::Park => (self.condition == Condition::Frozen(Rung::Paused), Condition::Frozen(Rung::Parked)),
            Operate::Spill => (self.condition == Condition::Frozen(Rung::Parked), Condition::Frozen(Rung::Spilled)),
            Operate::Resume { from } => (self.condition == Condition::Frozen(from), Condition::Up),
            Operate::Stop { .. } | Operate::Kill { .. } => (true, Condition::Nothing),
        };
        if possible {
            self.condition = after;
            self.initialized |= what == Operate::Initialize;
        }
        possible
    }
}
