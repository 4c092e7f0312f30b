//! What is provisioned for a function, as Function Compute declares it: a default, tracking policies, scheduled actions,
//! and which of them holds at a moment.

use std::fmt;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{Cron, zone};
use crate::Finite;

/// Provisioned instances and the policies that move their number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provision {
    /// Where no policy is active.
    pub default_target: u32,
    /// Idle provisioned instances keep their CPU; if not, they sleep.
    pub always_allocate_cpu: bool,
    /// Idle provisioned instances keep their device; if not, they sleep.
    pub always_allocate_gpu: bool,
    /// Policies that follow a metric.
    pub tracking: Vec<Tracking>,
    /// Targets that begin at certain times.
    pub scheduled: Vec<ScheduledAction>,
}

impl Default for Provision {
    /// Nothing.
    fn default() -> Self {
        let (tracking, scheduled) = (Vec::new(), Vec::new());
        Self { default_target: 0, always_allocate_cpu: true, always_allocate_gpu: true, tracking, scheduled }
    }
}

/// The most that can be provisioned.
pub const MOST: u32 = 10_000;

/// A policy that follows a metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracking {
    /// Its name.
    pub name: String,
    /// When it is valid.
    pub window: Window,
    /// What it follows.
    pub metric: Metric,
    /// What the metric is kept at, above 0 and at most 1.
    pub target: Finite,
    /// Never fewer, while it is active.
    pub min: u32,
    /// Never more by this policy.
    pub max: u32,
}

/// What a tracking policy follows; a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Requests in flight on provisioned instances, of what these can take.
    Concurrency,
    /// CPU time used, of what is declared.
    Cpu,
    /// Device memory used, of what is declared.
    GpuMemory,
}

impl Metric {
    /// All, in the order of [`Metric::index`].
    pub const ALL: [Self; 3] = [Self::Concurrency, Self::Cpu, Self::GpuMemory];

    /// Its name in Function Compute.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "ProvisionedConcurrencyUtilization",
            Self::Cpu => "CPUUtilization",
            Self::GpuMemory => "GPUMemUtilization",
        }
    }

    /// Its place in arrays by metric.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A target that begins at certain times and holds until another scheduled action fires, or until its window ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledAction {
    /// Its name.
    pub name: String,
    /// When it is valid.
    pub window: Window,
    /// When it fires.
    pub when: FireTime,
    /// The target from then on.
    pub target: u32,
}

/// When a scheduled action fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FireTime {
    /// Again and again.
    Cron(Cron),
    /// Once, milliseconds since 1970.
    At(i64),
}

/// From when to when a policy is valid, in which time zone its times are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WindowText", into = "WindowText")]
pub struct Window {
    /// Milliseconds since 1970, inclusive; `None` is always.
    pub start: Option<i64>,
    /// Milliseconds since 1970, exclusive; `None` is for ever.
    pub end: Option<i64>,
    name: String,
    zone: TimeZone,
}

#[derive(Serialize, Deserialize)]
struct WindowText {
    start: Option<i64>,
    end: Option<i64>,
    zone: String,
}

impl TryFrom<WindowText> for Window {
    type Error = UnknownZone;

    fn try_from(text: WindowText) -> Result<Self, UnknownZone> {
        Self::new(text.start, text.end, &text.zone)
    }
}

impl From<Window> for WindowText {
    fn from(window: Window) -> Self {
        Self { start: window.start, end: window.end, zone: window.name }
    }
}

/// A time zone that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time zone: write one such as Asia/Shanghai, Europe/Berlin or UTC")]
pub struct UnknownZone(pub String);

impl Window {
    /// From when to when, in a zone by name; no name is UTC.
    pub fn new(start: Option<i64>, end: Option<i64>, name: &str) -> Result<Self, UnknownZone> {
        let zone = zone::find(name).ok_or_else(|| UnknownZone(name.to_owned()))?;
        Ok(Self { start, end, name: name.to_owned(), zone })
    }

    /// The name of its time zone; nothing is UTC.
    pub fn zone_name(&self) -> &str {
        &self.name
    }

    /// Its time zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Whether a moment lies outside, and on which side.
    pub fn outside(&self, wall: i64) -> Option<InactiveReason> {
        match (self.start, self.end) {
            (_, Some(end)) if wall >= end => Some(InactiveReason::Over { end }),
            (Some(start), _) if wall < start => Some(InactiveReason::NotYet { start }),
            _ => None,
        }
    }
}

/// Why a policy does not count now. Times in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InactiveReason {
    /// Its window has not begun.
    NotYet {
        /// When it will.
        start: i64,
    },
    /// Its window is over.
    Over {
        /// When it ended.
        end: i64,
    },
    /// It has not fired since its window began.
    NotFired {
        /// When it will.
        next: i64,
    },
    /// It does not fire within its window.
    NeverFires,
    /// Another scheduled action fired after it.
    Replaced,
}

impl fmt::Display for InactiveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet { start } => write!(f, "its window begins at {}", shown(*start)),
            Self::Over { end } => write!(f, "its window ended at {}", shown(*end)),
            Self::NotFired { next } => write!(f, "it fires first at {}", shown(*next)),
            Self::NeverFires => f.write_str("it does not fire within its window any more"),
            Self::Replaced => f.write_str("another scheduled action fired after it"),
        }
    }
}

/// A moment as people read it, in UTC.
pub fn shown(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

impl ScheduledAction {
    /// When it fired last and still counts, were it alone; or why it does not.
    pub fn fired(&self, wall: i64) -> Result<i64, InactiveReason> {
        if let Some(outside) = self.window.outside(wall) {
            return Err(outside);
        }
        let since = self.window.start.unwrap_or(i64::MIN);
        let last = match &self.when {
            FireTime::Cron(cron) => cron.last(wall, since, self.window.zone()),
            FireTime::At(at) => (since..=wall).contains(at).then_some(*at),
        };
        last.ok_or_else(|| self.next(wall).map_or(InactiveReason::NeverFires, |next| InactiveReason::NotFired { next }))
    }

    /// When it fires next within its window.
    pub fn next(&self, wall: i64) -> Option<i64> {
        let from = wall.max(self.window.start.map_or(i64::MIN, |start| start.saturating_sub(1)));
        let next = match &self.when {
            FireTime::Cron(cron) => cron.next(from, self.window.zone()),
            FireTime::At(at) => Some(*at).filter(|at| *at > from),
        };
        next.filter(|next| self.window.end.is_none_or(|end| *next < end))
    }
}

impl Provision {
    /// The scheduled action that holds: the one that fired last; of those that fired at once, the one with the largest target.
    pub fn schedule(&self, wall: i64) -> Option<usize> {
        let fired = self.scheduled.iter().enumerate().filter_map(|(at, action)| Some((action.fired(wall).ok()?, at)));
        fired.max_by_key(|(fired, at)| (*fired, self.scheduled[*at].target, std::cmp::Reverse(*at))).map(|(_, at)| at)
    }

    /// Whether a scheduled action holds now, or why not.
    pub fn standing(&self, index: usize, wall: i64) -> Result<(), InactiveReason> {
        let Some(action) = self.scheduled.get(index) else { return Err(InactiveReason::NeverFires) };
        action.fired(wall)?;
        if self.schedule(wall) == Some(index) { Ok(()) } else { Err(InactiveReason::Replaced) }
    }

    /// When something of it changes by the calendar alone, after `wall`: a window's edge, or a scheduled action.
    pub fn next_change(&self, wall: i64) -> Option<i64> {
        let windows = self.tracking.iter().map(|policy| &policy.window).chain(self.scheduled.iter().map(|a| &a.window));
        let edges = windows.flat_map(|window| [window.start, window.end]).flatten().filter(|edge| *edge > wall);
        edges.chain(self.scheduled.iter().filter_map(|action| action.next(wall))).min()
    }

    /// Whether idle provisioned instances sleep.
    pub fn idle_mode(&self) -> bool {
        !self.always_allocate_cpu || !self.always_allocate_gpu
    }

    /// The most instances that it may ever ask for.
    pub fn most(&self) -> u32 {
        let tracked = self.tracking.iter().map(|policy| policy.max);
        tracked.chain(self.scheduled.iter().map(|action| action.target)).max().unwrap_or(0).max(self.default_target)
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.default_target == 0 && self.tracking.is_empty() && self.scheduled.is_empty()
    }
}
