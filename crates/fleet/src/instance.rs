//! One instance as its function's core sees it.

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::state::STATES;
use crate::{OperationNumber, StartKind, State};

/// An operation that is under way. There is at most one for each instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What observations echo.
    pub number: OperationNumber,
    /// When it is called failed, boot time; `None` while room is awaited.
    pub deadline: Option<u64>,
}

/// An instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its version.
    pub version: VersionId,
    /// Where it is in its life.
    pub state: State,
    /// Since when, boot time.
    pub since: u64,
    /// What is under way on it.
    pub operation: Option<Operation>,
    /// Requests it has now.
    pub in_flight: u32,
    /// Places that requests of an earlier server take, and until when they may, boot time; part of `in_flight`.
    pub inherited: Option<(u32, u64)>,
    /// Requests it was given in all.
    pub served: u64,
    /// When it last had work, or became hot, boot time.
    pub last_used: u64,
    /// When it last became hot, boot time, and from what.
    pub hot_since: u64,
    /// How it last became hot.
    pub hot_from: StartKind,
    /// After a failed pause: not tried again before this boot time.
    pub pause_not_before: u64,
    /// Milliseconds in each state so far, the present one excluded, by [`State::index`].
    pub times: [u64; STATES],
}

impl Instance {
    /// A new instance that asks for room.
    pub fn new(id: InstanceId, version: VersionId, now: u64, operation: Operation) -> Self {
        Self {
            id,
            version,
            state: State::Requested,
            since: now,
            operation: Some(operation),
            in_flight: 0,
            inherited: None,
            served: 0,
            last_used: now,
            hot_since: now,
            hot_from: StartKind::Cold,
            pause_not_before: 0,
            times: [0; STATES],
        }
    }

    /// An instance of an earlier server, ready until its core says otherwise.
    pub fn adopted(id: InstanceId, version: VersionId, now: u64) -> Self {
        let nothing = Operation { number: OperationNumber(0), deadline: None };
        Self { state: State::Ready, operation: None, served: 1, ..Self::new(id, version, now, nothing) }
    }

    /// Moves to a state and settles the time spent in the one before.
    pub fn enter(&mut self, state: State, now: u64) {
        self.times[self.state.index()] += now.saturating_sub(self.since);
        self.state = state;
        self.since = now;
    }

    /// Moves between ready and busy, as its requests say.
    pub fn settle(&mut self, now: u64) {
        let state = if self.in_flight > 0 { State::Busy } else { State::Ready };
        if self.state != state {
            self.enter(state, now);
        }
        self.last_used = now;
    }

    /// Since when it rests for the purpose of pausing, boot time.
    pub fn resting_since(&self, pause: u64) -> u64 {
        self.last_used.max(self.pause_not_before.saturating_sub(pause))
    }
}
