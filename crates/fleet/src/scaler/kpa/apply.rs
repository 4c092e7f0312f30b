//! From a wish to a count that is applied: bounds, the first scale, and the steps to zero.

use kip_spec::Millis;
use kip_spec::scaling::Kpa;
use serde::{Deserialize, Serialize};

/// Whether a version is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Activity {
    Activating,
    Active,
    Inactive,
}

/// What of a wish is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Applier {
    activity: Activity,
    /// Since when, boot time.
    since: u64,
    /// Whether the first scale was reached once.
    initialized: bool,
    /// Since when requests go through the buffering proxy, boot time.
    buffered_since: Option<u64>,
    /// What is applied.
    applied: u32,
}

/// What changed a wish on its way, the last that did. Times are milliseconds from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The minimum.
    MinScale,
    /// The first scale, which was not reached yet.
    InitialScale,
    /// The maximum.
    MaxScale,
    /// Zero is not allowed.
    ScaleToZeroDisabled,
    /// It has been active for less than the stable window.
    ActiveTooShort {
        /// How long it is to be kept still.
        left: Millis,
    },
    /// It just became inactive.
    BecameInactive,
    /// The last instance is retained.
    Retention {
        /// For how long still.
        left: Millis,
    },
    /// The way of requests is being moved to the buffering proxy.
    Grace {
        /// How long that may still take.
        left: Millis,
    },
    /// It is not up yet.
    Activating {
        /// When it is given up.
        left: Millis,
    },
    /// It was never up, and is given up.
    GivenUp,
    /// There is no wish.
    Unchanged,
}

impl Applier {
    /// Of a version that has so many ready instances.
    pub(super) fn new(settings: &Kpa, now: u64, ready: u32, reachable: bool) -> Self {
        let mut applier = Self {
            activity: Activity::Activating,
            since: now,
            initialized: false,
            buffered_since: Some(now),
            applied: if ready > 0 { ready } else { bounds(settings, reachable).0.max(settings.initial_scale) },
        };
        applier.settle(settings, now, None, ready, reachable);
        applier
    }

    /// It was up before this was made.
    pub(super) fn was_up(&mut self, settings: &Kpa, now: u64, ready: u32) {
        self.initialized = true;
        if ready == 0 {
            let least = settings.min_scale.max(u32::from(!settings.scale_to_zero));
            (self.activity, self.since, self.applied) = (Activity::Inactive, now, least);
        }
        self.settle(settings, now, None, ready, true);
    }

    /// What is applied.
    pub(super) fn applied(&self) -> u32 {
        self.applied
    }

    /// What remains of a wish (`None`: there is none), and what changed it.
    pub(super) fn apply(
        &mut self,
        settings: &Kpa,
        now: u64,
        wish: Option<i32>,
        excess_burst_capacity: i32,
        ready: u32,
        reachable: bool,
    ) -> Option<Change> {
        let (want, apply, change) = self.scale(settings, now, wish, reachable);
        if let Some(want) = want.filter(|_| apply) {
            self.applied = want;
        }
        let direct = want.is_some_and(|want| want > 0) && excess_burst_capacity >= 0;
        self.buffered_since = if direct { None } else { Some(self.buffered_since.unwrap_or(now)) };
        self.settle(settings, now, want, ready, reachable);
        change
    }

    fn scale(
        &self,
        settings: &Kpa,
        now: u64,
        wish: Option<i32>,
        reachable: bool,
    ) -> (Option<u32>, bool, Option<Change>) {
        let activating = self.activity == Activity::Activating;
        let wish = match wish {
            Some(wish) => u32::try_from(wish).unwrap_or(0),
            None if activating => 0,
            None => return (None, false, Some(Change::Unchanged)),
        };
        let (mut min, max) = bounds(settings, reachable);
        let mut raised = Change::MinScale;
        if settings.initial_scale > 1 && !self.initialized && reachable && settings.initial_scale > min {
            (min, raised) = (settings.initial_scale, Change::InitialScale);
        }
        let (wish, change) = match wish {
            wish if wish < min => (min, Some(raised)),
            wish if max != 0 && wish > max => (max, Some(Change::MaxScale)),
            wish => (wish, None),
        };
        if wish > 0 {
            return (Some(wish), true, change);
        }
        self.to_zero(settings, now, reachable)
    }

    fn to_zero(&self, settings: &Kpa, now: u64, reachable: bool) -> (Option<u32>, bool, Option<Change>) {
        if !settings.scale_to_zero {
            return (Some(1), true, Some(Change::ScaleToZeroDisabled));
        }
        let passed = now.saturating_sub(self.since);
        let left = |limit: Millis, passed: u64| Millis(limit.0.saturating_sub(passed));
        match self.activity {
            Activity::Activating => {
                let limit = Millis(settings.progress_deadline.0.saturating_add(Kpa::ACTIVATION_BUFFER.0));
                if passed > limit.0 {
                    return (Some(0), true, Some(Change::GivenUp));
                }
                (None, false, Some(Change::Activating { left: left(limit, passed) }))
            }
            Activity::Active if passed >= settings.stable_window.0 => (Some(0), false, Some(Change::BecameInactive)),
            Activity::Active => {
                (Some(1), true, Some(Change::ActiveTooShort { left: left(settings.stable_window, passed) }))
            }
            Activity::Inactive => {
                let retention = if reachable { settings.retention } else { Millis(0) };
                if passed >= settings.grace.0.max(retention.0) {
                    return (Some(0), true, None);
                }
                if passed < retention.0 {
                    return (Some(0), false, Some(Change::Retention { left: left(retention, passed) }));
                }
                let buffered = self.buffered_since.map_or(0, |since| now.saturating_sub(since));
                if buffered >= settings.grace.0 {
                    return (Some(0), true, None);
                }
                (Some(0), false, Some(Change::Grace { left: left(settings.grace, buffered.max(passed)) }))
            }
        }
    }

    /// Moves between activating, active and inactive by what is wanted and what is.
    fn settle(&mut self, settings: &Kpa, now: u64, want: Option<u32>, ready: u32, reachable: bool) {
        let min = bounds(settings, reachable).0;
        let enough = min.max(if self.initialized { 1 } else { settings.initial_scale });
        if ready >= enough {
            self.initialized = true;
        }
        let wanted = want.is_some_and(|want| want > 0);
        let to = match () {
            () if want == Some(0) || enough == 0 => Activity::Inactive,
            () if !wanted && self.activity == Activity::Inactive => Activity::Inactive,
            () if ready < enough => Activity::Activating,
            () => Activity::Active,
        };
        if to != self.activity {
            (self.activity, self.since) = (to, now);
        }
    }
}

/// The least and the most, 0 for no most.
fn bounds(settings: &Kpa, reachable: bool) -> (u32, u32) {
    (if reachable { settings.min_scale } else { 0 }, settings.max_scale)
}
