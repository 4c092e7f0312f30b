//! A trace of requests through a function's core in virtual time: the same code that decides in the server decides here. What an
//! instance does is given: how long it starts and wakes, and how long each request takes.

mod bounds;
mod delays;
mod driver;
mod report;
mod request;
pub mod trace;

pub use bounds::{Bounds, bounds};
pub use delays::Delays;
pub use driver::{Outcome, replay};
pub use report::{Costs, Prices};
pub use request::{InstanceTimes, TraceRequest};
