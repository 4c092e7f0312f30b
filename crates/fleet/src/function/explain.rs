//! Why a version has as many instances as it has: what its scaler goes by at a moment, what it wants, and what holds it back.

use std::fmt;

use kip_spec::{Millis, VersionId};
use serde::{Deserialize, Serialize};

use super::{FunctionCore, Role};
use crate::scaler::{AutoFigures, Observation, Scaler, Scalers};
use crate::why::{Reason, StartFailure};
use crate::{Now, Rung, Shortage, State};

/// What a scaler sees and wants. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalingExplanation {
    /// The mode of its policy.
    pub mode: String,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests and tasks that wait.
    pub queued: u32,
    /// For how long the first of them has waited.
    pub waited: Option<u64>,
    /// Instances with requests in flight.
    pub busy: u32,
    /// For how long each hot instance without requests has been idle, longest first.
    pub idle: Vec<u64>,
    /// For how long each instance asleep has been unused, longest first.
    pub asleep: Vec<u64>,
    /// Instances that start or wake.
    pub starting: u32,
    /// Kept always.
    pub minimum: u32,
    /// Never more.
    pub maximum: u32,
    /// Instances that should be hot.
    pub wants_hot: u32,
    /// Instances that should be asleep.
    pub wants_asleep: u32,
    /// Why so many should be hot.
    pub reason: Reason,
    /// Why there are not more, where requests wait.
    pub held_by: Option<HoldReason>,
    /// What `auto` computed.
    pub figures: Option<AutoFigures>,
    /// When it decides again though nothing happens.
    pub next_in: Option<u64>,
}

/// What keeps the number of instances from growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// `instances.max` is reached.
    Maximum,
    /// Requests start no instances beside those that are provisioned.
    OnDemandOff,
    /// Starts failed, and the next one is not due.
    Backoff {
        /// Milliseconds until it is.
        retry_in: u64,
        /// The last failure.
        failure: StartFailure,
    },
    /// There is no room.
    Room {
        /// What is missing.
        lack: Shortage,
    },
    /// Instances start or wake already.
    OnTheWay {
        /// How many.
        instances: u32,
    },
    /// The instances that are there serve what waits sooner than a start would.
    ServedSooner,
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maximum => f.write_str("instances.max is reached"),
            Self::OnDemandOff => f.write_str("requests start no instances beside provisioned ones"),
            Self::Backoff { retry_in, failure } => {
                write!(f, "starts failed ({failure}); the next one is due in {}", Millis(*retry_in))
            }
            Self::Room { lack } => write!(f, "there is not enough {lack}"),
            Self::OnTheWay { instances } => write!(f, "{instances} already on the way"),
            Self::ServedSooner => {
                f.write_str("the instances that are there serve what waits sooner than a start would")
            }
        }
    }
}

impl FunctionCore {
    /// Why a version has so many instances. Changes nothing.
    pub fn explain(&self, version: VersionId, now: Now) -> Option<ScalingExplanation> {
        let mut copy = self.clone();
        copy.wall = now.wall;
        let desired = copy.desired(now.boot, version);
        let revision = copy.revisions.get(&version).filter(|it| matches!(it.role, Role::Serving | Role::Named))?;
        let tasks = copy.tasks_waiting(version);
        let own = || self.instances.values().filter(move |instance| instance.version == version);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let busy = count(own().filter(|instance| instance.state == State::Busy).count());
        let on_the_way = |state: State| matches!(state, State::Starting | State::Initializing | State::Waking);
        let starting = count(own().filter(|instance| on_the_way(instance.state)).count());
        let in_flight = own().fold(0u32, |sum, instance| sum.saturating_add(instance.in_flight));
        let queued = revision.queue.depth().saturating_add(tasks.count);
        let waiting_since = revision.queue.oldest().into_iter().chain((tasks.count > 0).then_some(tasks.oldest)).min();
        let pause = revision.policy.idle.pause.map_or(0, |pause| pause.0);
        let mut scratch = super::Scratch::default();
        scratch.gather(own(), queued, pause);
        let (idle, asleep) = (scratch.idle, scratch.asleep);
        let seen = Observation {
            in_flight,
            queued,
            waiting_since,
            busy,
            idle_since: &idle,
            asleep_since: &asleep,
            minimum: revision.minimum(),
            maximum: revision.maximum(),
            kept_hot: revision.kept_hot,
            on_demand: revision.on_demand(),
            provisioned: revision.provisioned,
            starting,
            start: revision.costs.start,
            wake: revision.costs.wake(Rung::Paused),
        };
        let mut scaler = revision.scaler.clone();
        let figures = match &mut scaler {
            Scalers::Auto(auto) => Some(auto.figures(now.boot, &seen)),
            Scalers::Fixed(_) | Scalers::Knative(_) => None,
        };
        let lack = own().find_map(|instance| instance.waits_for);
        let alive = busy.saturating_add(starting).saturating_add(count(idle.len() + asleep.len()));
        let backoff = revision.backoff.blocks(now.boot);
        let held_by = match (backoff, lack) {
            _ if queued == 0 => None,
            (Some((retry_in, failure)), _) => Some(HoldReason::Backoff { retry_in, failure }),
            (None, Some(lack)) => Some(HoldReason::Room { lack }),
            (None, None) if starting > 0 => Some(HoldReason::OnTheWay { instances: starting }),
            (None, None) if alive >= seen.maximum => Some(HoldReason::Maximum),
            (None, None) if !seen.on_demand => Some(HoldReason::OnDemandOff),
            (None, None) => figures.filter(|it| it.enough < it.demand).map(|_| HoldReason::ServedSooner),
        };
        let age = |since: &u64| now.boot.saturating_sub(*since);
        Some(ScalingExplanation {
            mode: revision.policy.scaling.name().to_owned(),
            in_flight,
            queued,
            waited: waiting_since.map(|since| age(&since)),
            busy,
            idle: idle.iter().map(age).collect(),
            asleep: asleep.iter().map(age).collect(),
            starting,
            minimum: seen.minimum,
            maximum: seen.maximum,
            wants_hot: desired.hot,
            wants_asleep: desired.asleep,
            reason: desired.why,
            held_by,
            figures,
            next_in: revision.scaler.next_tick().map(|at| at.saturating_sub(now.boot)),
        })
    }
}
