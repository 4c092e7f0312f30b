//! What is replayed: requests, and how instances behave.

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
