//! Bodies: what an instance is made of. One trait, [`Body`]; child processes today, containers and Pods later.
//!
//! This room starts, probes, pauses, wakes and ends what it is told to, and reports what it saw. It never decides when,
//! and it knows nothing of queues, versions or requests.

mod adoption;
pub mod body;
#[cfg(feature = "fake")]
pub mod fake;
pub mod process;

pub use adoption::{Adoption, AliveInstance, FoundInstance, InheritedConnections};
pub use body::{
    Body, BodyEvent, Devices, Error, Health, InstanceEnd, Liveness, LocalBody, Measure, Order, ReadyInstance,
    StartError, StartProblem, StopOrder, Termination,
};
pub use process::check::check as check_start;
pub use process::stop::target_of as stop_target_of;
pub use process::{Capabilities, InstanceUser, IsolationOptions, LogFile, Options, ProcessBody, Record};
