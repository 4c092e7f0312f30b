//! A trace of requests through functions' cores in virtual time: the same code that decides in the server decides here. What an
//! instance does is given: how long it starts and wakes, and how long each request takes.

mod bounds;
mod delays;
mod driver;
mod pool;
mod report;
mod request;
mod series;
pub mod trace;

pub use bounds::{Bounds, BoundsMeter, bounds};
pub use delays::Delays;
pub use kip_fleet::Policy;

pub use driver::{FunctionExplanation, Outcome, Replay, Setup, replay};
pub use report::{Costs, Prices};
pub use request::{InstanceTimes, OperationTime, TraceRequest};
pub use series::{Interval, Series};
