//! One instance as its function's core sees it.

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::placer::{Offer, Urgency};
use crate::state::{Rung, STATES};
use crate::why::Reason;
use crate::{Kind, OperationNumber, Place, Shortage, StartKind, State, Usage};

/// An operation that is under way. There is at most one for each instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What observations echo.
    pub number: OperationNumber,
    /// When it is called failed, boot time; `None` while room is awaited.
    pub deadline: Option<u64>,
}

/// Where an instance is to come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Asleep on this rung.
    Sleep(Rung),
    /// Gone.
    Stop,
}

/// An instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its version.
    pub version: VersionId,
    /// Why it is there.
    pub kind: Kind,
    /// Where it is in its life.
    pub state: State,
    /// Since when, boot time.
    pub since: u64,
    /// When it was made, boot time; of an adopted one, when its program was started.
    pub born: u64,
    /// Where it has room.
    pub place: Place,
    /// What is under way on it.
    pub operation: Option<Operation>,
    /// Asleep, and room for its wake is asked for.
    pub wants_room: bool,
    /// For what its room is asked.
    pub urgency: Urgency,
    /// The number of the latest ask for room.
    pub ask: OperationNumber,
    /// What there is too little of for it.
    pub waits_for: Option<Shortage>,
    /// When its start or wake began, boot time.
    pub moving_since: u64,
    /// The rung it wakes from.
    pub slept_on: Option<Rung>,
    /// Where it is going, while it drains or sinks.
    pub goal: Option<(Goal, Reason)>,
    /// Requests it has now.
    pub in_flight: u32,
    /// Sessions of people in it, beside its requests.
    #[serde(default)]
    pub attached: u32,
    /// Places that requests of an earlier server take, and until when they may, boot time; part of `in_flight`.
    pub inherited: Option<(u32, u64)>,
    /// Requests it was given in all.
    pub served: u64,
    /// Of those, so many before it last became hot.
    #[serde(default)]
    pub served_before: u64,
    /// When it last had work, or became hot, boot time.
    pub last_used: u64,
    /// When it last became hot, boot time, and from what.
    pub hot_since: u64,
    /// How it last became hot.
    pub hot_from: StartKind,
    /// After a failed pause: not tried again before this boot time.
    pub pause_not_before: u64,
    /// Its ready probe fails: it gets no requests.
    pub unready: bool,
    /// Its body has lost touch with it: it may live, gets no requests and counts as nothing until it is found or has ended.
    #[serde(default)]
    pub lost: bool,
    /// When its progress is asked for, boot time; only while it works.
    pub watch: Option<u64>,
    /// It is to be replaced, and why.
    pub replace: Option<Reason>,
    /// It was provisioned and is not any more: it ends when it is idle.
    pub released: bool,
    /// What the placer was told it could have, while somebody waits for room.
    pub offered: Option<Offer>,
    /// When the present span of time began that is not in `times` yet, boot time.
    counted: u64,
    /// Milliseconds by kind and state up to `counted`.
    times: [[u64; STATES]; 2],
}

impl Instance {
    /// A new instance that asks for room.
    pub fn new(id: InstanceId, version: VersionId, kind: Kind, now: u64, operation: Operation) -> Self {
        Self {
            id,
            version,
            kind,
            state: State::Requested,
            since: now,
            born: now,
            place: Place::default(),
            operation: Some(operation),
            wants_room: false,
            urgency: Urgency::Demand,
            ask: operation.number,
            waits_for: None,
            moving_since: now,
            slept_on: None,
            goal: None,
            in_flight: 0,
            attached: 0,
            inherited: None,
            served: 0,
            served_before: 0,
            last_used: now,
            hot_since: now,
            hot_from: StartKind::Cold,
            pause_not_before: 0,
            unready: false,
            lost: false,
            watch: None,
            replace: None,
            released: false,
            offered: None,
            counted: now,
            times: [[0; STATES]; 2],
        }
    }

    /// An instance of an earlier server, ready until its core says otherwise.
    pub fn adopted(id: InstanceId, version: VersionId, kind: Kind, place: Place, now: u64) -> Self {
        let nothing = Operation { number: OperationNumber(0), deadline: None };
        let new = Self::new(id, version, kind, now, nothing);
        Self { state: State::Ready, operation: None, place, served: 1, ..new }
    }

    /// Moves to a state and settles the time spent in the one before.
    pub fn enter(&mut self, state: State, now: u64) {
        self.count(now);
        self.state = state;
        self.since = now;
    }

    /// Becomes an instance of another kind; the time so far stays with the one before.
    pub fn become_kind(&mut self, kind: Kind, now: u64) {
        self.count(now);
        self.kind = kind;
    }

    /// Moves between ready and busy, as its requests and attachments say.
    pub fn settle(&mut self, now: u64) {
        let state = if self.in_flight > 0 || self.attached > 0 { State::Busy } else { State::Ready };
        if self.state != state {
            self.enter(state, now);
        }
        self.last_used = now;
    }

    /// Since when it rests for the purpose of pausing, boot time.
    pub fn resting_since(&self, pause: u64) -> u64 {
        self.last_used.max(self.pause_not_before.saturating_sub(pause))
    }

    /// What its time was spent on up to now.
    pub fn usage(&self, now: u64) -> Usage {
        let mut times = self.times;
        times[self.kind.index()][self.state.index()] += now.saturating_sub(self.counted);
        let since = self.counted - self.lifetime(self.counted);
        Usage { instance: self.id, version: self.version, since, until: now, served: self.served, times }
    }

    /// How long it has lived up to now, as its times say, milliseconds.
    pub fn lifetime(&self, now: u64) -> u64 {
        let times = self.times.as_flattened().iter();
        times.fold(0, |sum: u64, time| sum.wrapping_add(*time)) + now.saturating_sub(self.counted)
    }

    fn count(&mut self, now: u64) {
        self.times[self.kind.index()][self.state.index()] += now.saturating_sub(self.counted);
        self.counted = now.max(self.counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_kinds_and_states_add_up_to_the_lifetime() {
        let operation = Operation { number: OperationNumber(1), deadline: None };
        let id = InstanceId { boot: 1, core: 1, sequence: 1 };
        let mut instance = Instance::new(id, VersionId(1), Kind::OnDemand, 1_000, operation);
        instance.enter(State::Starting, 1_007);
        instance.enter(State::Ready, 1_100);
        instance.become_kind(Kind::Provisioned, 1_150);
        instance.enter(State::Busy, 1_200);
        let usage = instance.usage(1_333);
        let times = |kind: Kind, state: State| usage.times[kind.index()][state.index()];
        assert_eq!(times(Kind::OnDemand, State::Requested), 7);
        assert_eq!((times(Kind::OnDemand, State::Ready), times(Kind::Provisioned, State::Ready)), (50, 50));
        assert_eq!(times(Kind::Provisioned, State::Busy), 133);
        assert_eq!(usage.times.iter().flatten().sum::<u64>(), usage.until - usage.since);
        assert_eq!((usage.since, usage.until), (1_000, 1_333));
    }
}
