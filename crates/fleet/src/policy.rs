//! What the brain needs of a version's declaration; everything else of it is the shell's business.

use kip_spec::function::{Concurrency, Dispatch, FunctionSpec, Idle, Strategy, defaults};
use kip_spec::scaling::Scaling;
use kip_spec::sleep::RungUse;
use serde::{Deserialize, Serialize};

use crate::room::{Gpu, RoomNeed};

/// A version as the brain sees it. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Kept alive always.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// Requests at once in one instance.
    pub concurrency: Concurrency,
    /// Requests that may wait.
    pub queue_depth: u32,
    /// How long a request may wait.
    pub queue_timeout: u64,
    /// How the number of instances follows the load.
    pub scaling: Scaling,
    /// When idle instances sleep and end.
    pub idle: Idle,
    /// Which free instance takes a request.
    pub dispatch: Dispatch,
    /// What one instance reserves.
    pub need: RoomNeed,
    /// Whether there is an initialize hook.
    pub initialize: bool,
    /// Rungs below paused that the host offers and the version is qualified for.
    pub rungs: Rungs,
    /// Its instances keep their room until they end by themselves.
    #[serde(default)]
    pub pinned: bool,
    /// The longest time in which an idle instance must serve again: it gives back only what it can have again in that time.
    #[serde(default)]
    pub wake: Option<u64>,
    /// From SIGTERM to SIGKILL, where it is set; else it follows the longest request.
    pub grace: Option<u64>,
    /// Work in flight without a byte for this long makes an instance suspect.
    pub stall: Option<u64>,
    /// An instance of this age is replaced.
    pub max_age: Option<u64>,
    /// A new version serves at once: there is nothing to be learned by starting it first.
    #[serde(default)]
    pub unproven: bool,
    /// A new version starts when nothing of the one before is left.
    #[serde(default)]
    pub recreate: bool,
    /// How long each operation may take.
    pub limits: Limits,
}

impl Policy {
    /// One instance at most, with one request at a time, started when it is asked for and never paused or ended; any number of requests
    /// may wait for it. For simulated worlds and tests, which set what they are about.
    pub fn plain(limits: Limits) -> Self {
        Self {
            min: 0,
            max: 1,
            concurrency: Concurrency { hard: 1, soft: 1 },
            queue_depth: u32::MAX,
            queue_timeout: limits.request,
            scaling: Scaling::Fixed,
            idle: Idle { pause: None, stop: None, ..defaults::IDLE },
            dispatch: Dispatch::Packed,
            need: RoomNeed::default(),
            initialize: false,
            rungs: Rungs::default(),
            pinned: false,
            wake: None,
            grace: None,
            stall: None,
            max_age: None,
            unproven: false,
            recreate: false,
            limits,
        }
    }
}

/// Rungs below paused that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rungs {
    /// Device memory can be given back.
    pub park: bool,
    /// Host memory can be given back.
    pub spill: bool,
}

/// Rungs below paused that a host offers to every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RungOffer {
    /// The driver moves device memory to the host and back.
    pub driver: bool,
    /// Pages of a paused program can be taken out.
    pub spill: bool,
}

/// How long each operation on an instance may take before the brain calls it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Start, probe included.
    pub start: u64,
    /// The initialize hook.
    pub initialize: u64,
    /// Pause or resume.
    pub sleep: u64,
    /// Giving device or host memory back, and getting it again.
    pub park: u64,
    /// Stop: hook and kill; the grace between comes on top.
    pub stop: u64,
    /// A request, from its arrival to its end.
    pub request: u64,
}

impl Limits {
    /// The same for each, milliseconds.
    pub const fn all(limit: u64) -> Self {
        Self { start: limit, initialize: limit, sleep: limit, park: limit, stop: limit, request: limit }
    }
}

impl Policy {
    /// With what the host offers. An instance without a device goes down as well, if its host memory can be taken; on the way it
    /// has no device memory to give back.
    #[must_use]
    pub fn offering(mut self, offer: RungOffer) -> Self {
        let parks = match self.need.gpu {
            Gpu::None => offer.spill,
            // Groups of devices have never been frozen on real cards.
            Gpu::Slice(_) | Gpu::Cards(1) => offer.driver,
            Gpu::Cards(_) => false,
        };
        self.rungs.park |= parks && self.idle.park != RungUse::Never;
        self.rungs.spill = offer.spill && self.rungs.park && self.idle.spill != RungUse::Never;
        self
    }
}

/// What the shell may take beyond the limits that the user set, so that its own, better explained, timeouts fire first.
const MARGIN: u64 = 5_000;
/// Pausing and resuming take under a millisecond; a host that needs this long is in trouble.
const SLEEP_LIMIT: u64 = 10_000;
/// 48 GiB to the disk and back, with much to spare.
const PARK_LIMIT: u64 = 180_000;
/// From SIGTERM to SIGKILL at least, where nothing is set.
pub(crate) const GRACE: u64 = 10_000;
/// And at most: no request is known to need more.
pub(crate) const LONGEST_GRACE: u64 = 600_000;
/// By how much the grace exceeds the longest request, in tenths.
pub(crate) const GRACE_TENTHS: u64 = 12;

impl From<&FunctionSpec> for Policy {
    fn from(spec: &FunctionSpec) -> Self {
        let hook = |hook: &Option<kip_spec::function::Hook>| hook.as_ref().map_or(0, |hook| hook.timeout.0);
        Self {
            min: spec.instances.min,
            max: spec.instances.max,
            concurrency: spec.instances.concurrency,
            queue_depth: spec.queue_depth,
            queue_timeout: spec.timeouts.queue.0,
            scaling: spec.scaling.clone(),
            idle: spec.idle,
            dispatch: spec.dispatch,
            need: RoomNeed { priority: spec.priority, ..RoomNeed::from(&spec.resources) },
            initialize: spec.lifecycle.initialize.is_some(),
            rungs: Rungs {
                park: spec.lifecycle.sleep.is_some() && spec.idle.park != RungUse::Never,
                // The host must offer it; see [`Policy::offering`].
                spill: false,
            },
            pinned: spec.pinned,
            wake: spec.wake.map(|wake| wake.0),
            grace: spec.timeouts.grace.map(|grace| grace.0),
            stall: spec.watchdog.stall.map(|stall| stall.0),
            max_age: spec.rotation.max_age.map(|age| age.0),
            // What is ready is our own program, whatever the job's is like.
            unproven: spec.job.is_some(),
            recreate: spec.deploy.strategy == Strategy::Recreate,
            limits: Limits {
                start: spec.timeouts.startup.0.saturating_add(MARGIN),
                initialize: hook(&spec.lifecycle.initialize).saturating_add(MARGIN),
                sleep: SLEEP_LIMIT,
                park: PARK_LIMIT
                    .max(spec.lifecycle.sleep.as_ref().map_or(0, |sleep| sleep.longest().saturating_add(MARGIN))),
                stop: hook(&spec.lifecycle.pre_stop).saturating_add(MARGIN),
                request: spec.timeouts.total.0,
            },
        }
    }
}
