//! Why requests wait, for whoever asks.

use std::fmt;

use kip_spec::{InstanceId, Millis, VersionId};

use super::FunctionCore;
use crate::scaler::Scaler;
use crate::why::StartFailure;
use crate::{Class, Now, Shortage, State};

/// What the requests of a version wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// All instances are busy, and there may be no more.
    AtMaximum {
        /// How many there are.
        instances: u32,
    },
    /// An instance starts.
    Starting {
        /// For how long already, milliseconds.
        since: u64,
    },
    /// An instance wakes.
    Waking,
    /// An instance has no room.
    Room {
        /// Which.
        instance: InstanceId,
        /// What there is too little of.
        lack: Shortage,
        /// For how long already, milliseconds.
        since: u64,
    },
    /// The next start is not due.
    Backoff {
        /// Milliseconds until it is.
        retry_in: u64,
        /// The last failure.
        failure: StartFailure,
    },
    /// Every hot instance fails its ready probe.
    Unready,
    /// Instances are on their way out, and others follow when they are gone.
    Leaving,
    /// All instances are busy, and Knative's autoscaler wants no more before its next tick.
    Autoscaler {
        /// How many it wants.
        wants: u32,
        /// How long until it decides again, milliseconds.
        tick_in: Option<u64>,
    },
    /// All provisioned instances are busy, and requests start none beside them.
    Provisioned {
        /// How many there are to be.
        target: u32,
    },
    /// All instances are busy.
    Busy,
}

impl FunctionCore {
    /// Why requests of a version wait; `None` if none do.
    pub fn waits(&self, version: VersionId, now: Now) -> Option<WaitReason> {
        let revision = self.revisions.get(&version).filter(|revision| !revision.queue.is_empty())?;
        let own = || self.instances.values().filter(move |instance| instance.version == version);
        let since = |since: u64| now.boot.saturating_sub(since);
        if own().any(|instance| instance.state == State::Waking) {
            return Some(WaitReason::Waking);
        }
        if let Some(instance) = own().find(|i| matches!(i.state, State::Starting | State::Initializing)) {
            return Some(WaitReason::Starting { since: since(instance.since) });
        }
        if let Some((instance, lack)) = own().find_map(|instance| Some((instance, instance.waits_for?))) {
            let asked = if instance.wants_room { instance.last_used } else { instance.since };
            return Some(WaitReason::Room { instance: instance.id, lack, since: since(asked) });
        }
        if let Some((retry_in, failure)) = revision.backoff.blocks(now.boot) {
            return Some(WaitReason::Backoff { retry_in, failure });
        }
        let hot = || own().filter(|instance| instance.state.class() == Class::Hot && !instance.lost);
        if hot().next().is_some() && hot().all(|instance| instance.unready) {
            return Some(WaitReason::Unready);
        }
        let instances = u32::try_from(own().filter(|instance| !instance.lost).count()).unwrap_or(u32::MAX);
        Some(match () {
            () if hot().next().is_none() && revision.on_demand() => WaitReason::Leaving,
            () if !revision.on_demand() && instances >= revision.minimum() => {
                WaitReason::Provisioned { target: revision.minimum() }
            }
            () if instances >= revision.maximum() => WaitReason::AtMaximum { instances },
            () => match revision.scaler.applied() {
                Some(wants) => {
                    let tick = revision.scaler.next_tick();
                    WaitReason::Autoscaler { wants, tick_in: tick.map(|at| at.saturating_sub(now.boot)) }
                }
                None => WaitReason::Busy,
            },
        })
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMaximum { instances: 1 } => {
                f.write_str("its only instance is busy, and instances.max allows no more")
            }
            Self::AtMaximum { instances } => {
                write!(f, "all {instances} instances are busy, and instances.max allows no more")
            }
            Self::Starting { since } => write!(f, "an instance starts since {}", Millis(*since)),
            Self::Waking => f.write_str("an instance wakes"),
            Self::Room { lack, since, .. } => write!(f, "an instance waits since {} for {lack}", Millis(*since)),
            Self::Backoff { retry_in, failure } => {
                write!(f, "{failure}; the next start is tried in {}", Millis(*retry_in))
            }
            Self::Unready => f.write_str("every hot instance fails its ready probe"),
            Self::Leaving => f.write_str("an instance is ending, and the next one follows"),
            Self::Autoscaler { wants, tick_in } => {
                write!(f, "all instances are busy, and the autoscaler wants {wants}")?;
                tick_in.map_or(Ok(()), |tick| write!(f, "; it decides again in {}", Millis(tick)))
            }
            Self::Provisioned { target: 0 } => {
                f.write_str("nothing is provisioned, and scaling.disable_ondemand starts nothing for a request")
            }
            Self::Provisioned { target } => {
                write!(
                    f,
                    "the {target} provisioned instances are busy, and scaling.disable_ondemand starts none beside them"
                )
            }
            Self::Busy => f.write_str("all instances are busy"),
        }
    }
}
