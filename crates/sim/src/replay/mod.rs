//! A trace of requests through a function's core in virtual time: the same code that decides in the server decides here. What an
//! instance does is given: how long it starts and wakes, and how long each request takes.

mod bounds;
mod delays;
mod driver;
mod report;
pub mod trace;

pub use bounds::{Bounds, bounds};
pub use delays::Delays;
pub use driver::{Outcome, replay};
pub use report::{Costs, Prices};

/// A request of a trace. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceRequest {
    /// When it comes, from the beginning of the trace.
    pub at: u64,
    /// How long an instance works on it.
    pub service: u64,
}

/// How instances of the simulated function behave. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceTimes {
    /// From the decision to start one until it serves.
    pub cold: u64,
    /// From the decision to wake one until it serves.
    pub wake: u64,
}
