//! Scalers choose how many instances are hot and how many asleep. Which rung of sleep is not theirs to say.

pub mod fc;
mod fixed;
pub mod kpa;
pub mod session;

use serde::{Deserialize, Serialize};

pub use fixed::Fixed;

/// What a scaler sees of a version. Times are boot-time milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that wait.
    pub queued: u32,
    /// Instances with requests in flight.
    pub busy: u32,
    /// Hot instances without: since when each rests, longest first.
    pub idle_since: &'a [u64],
    /// Instances asleep: since when each is unused, longest first.
    pub asleep_since: &'a [u64],
    /// Instances that are kept, by the version's own declaration and by aliases.
    pub minimum: u32,
    /// Never more than this many.
    pub maximum: u32,
}

/// What a scaler wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Instances that should be hot or on the way there.
    pub hot: u32,
    /// Instances that should be asleep.
    pub asleep: u32,
}

/// A scaling policy. It is told what is, and says what should be; it does nothing itself.
pub trait Scaler {
    /// What should be, given what is.
    fn decide(&mut self, now: u64, observation: &Observation<'_>) -> Desired;
    /// When it wants to decide again even if nothing happens, boot time.
    fn next_tick(&self) -> Option<u64>;
}

/// The scalers there are. An enum, so that a core can be cloned and written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scalers {
    /// By backlog, between two bounds.
    Fixed(Fixed),
}

impl Scaler for Scalers {
    fn decide(&mut self, now: u64, observation: &Observation<'_>) -> Desired {
        match self {
            Self::Fixed(scaler) => scaler.decide(now, observation),
        }
    }

    fn next_tick(&self) -> Option<u64> {
        match self {
            Self::Fixed(scaler) => scaler.next_tick(),
        }
    }
}
