//! What the brain needs of a version's declaration; everything else of it is the shell's business.

use kip_spec::function::{Concurrency, Dispatch, FunctionSpec, Idle};
use serde::{Deserialize, Serialize};

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
    /// When idle instances sleep and end.
    pub idle: Idle,
    /// Which free instance takes a request.
    pub dispatch: Dispatch,
    /// What one instance reserves.
    pub need: Need,
    /// Whether there is an initialize hook.
    pub initialize: bool,
    /// How long each operation may take.
    pub limits: Limits,
}

/// Room that one instance reserves on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Need {
    /// Host memory in bytes; 0 where nothing is declared.
    pub memory: u64,
}

/// Where an instance is. The default is the local pool's host without a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// Its pool, in the order of priority.
    pub pool: u8,
    /// Its host within the pool.
    pub host: u8,
    /// Its devices on that host, a bit for each.
    pub devices: u64,
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
    /// Stop: hook, grace and kill.
    pub stop: u64,
    /// A request, from its arrival to its end.
    pub request: u64,
}

/// What the shell may take beyond the limits that the user set, so that its own, better explained, timeouts fire first.
const MARGIN: u64 = 5_000;
/// Pausing and resuming take under a millisecond; a host that needs this long is in trouble.
const SLEEP_LIMIT: u64 = 10_000;

impl From<&FunctionSpec> for Policy {
    fn from(spec: &FunctionSpec) -> Self {
        let hook = |hook: &Option<kip_spec::function::Hook>| hook.as_ref().map_or(0, |hook| hook.timeout.0);
        Self {
            min: spec.instances.min,
            max: spec.instances.max,
            concurrency: spec.instances.concurrency,
            queue_depth: spec.queue_depth,
            queue_timeout: spec.timeouts.queue.0,
            idle: spec.idle,
            dispatch: spec.dispatch,
            need: Need { memory: spec.resources.memory.map_or(0, |bytes| bytes.0) },
            initialize: spec.lifecycle.initialize.is_some(),
            limits: Limits {
                start: spec.timeouts.startup.0.saturating_add(MARGIN),
                initialize: hook(&spec.lifecycle.initialize).saturating_add(MARGIN),
                sleep: SLEEP_LIMIT,
                request: spec.timeouts.total.0,
                stop: hook(&spec.lifecycle.pre_stop).saturating_add(spec.timeouts.grace.0).saturating_add(MARGIN),
            },
        }
    }
}
