//! Bodies: what an instance is made of. One trait, [`Body`]; child processes today, containers and Pods later.
//!
//! This room starts, probes, pauses, wakes and ends what it is told to, and reports what it saw. It never decides when,
//! and it knows nothing of queues, versions or requests.

pub mod body;
pub mod process;

pub use body::{Body, Devices, Ended, Error, Order, Running, StartError, StartProblem, StopOrder};
pub use process::{Alive, Capabilities, Found, Inherited, LogFile, Options, ProcessBody, Record};
