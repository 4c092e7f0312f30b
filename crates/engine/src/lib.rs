//! Bodies: what an instance is made of. One trait, [`Body`]; child processes and containers today, Pods later.
//!
//! This room starts, probes, pauses, wakes and ends what it is told to, and reports what it saw. It never decides when,
//! and it knows nothing of queues, versions or requests.

mod adoption;
pub mod body;
pub mod containers;
mod contract;
#[cfg(feature = "docker")]
pub mod docker;
pub mod exec;
mod expand;
#[cfg(feature = "fake")]
pub mod fake;
#[cfg(feature = "docker")]
mod host_body;
mod logs;
pub mod mounts;
mod ports;
pub mod process;
mod roster;
mod sight;

pub use adoption::{Adoption, AliveInstance, FoundInstance, InheritedConnections};
pub use body::{
    Body, BodyEvent, CallAnswer, CodeView, Devices, Error, Health, InstanceEnd, LivePath, Liveness, LocalBody, Measure,
    Order, ReadyInstance, StartError, StartProblem, StopOrder, Termination,
};
pub use containers::{ContainerEngine, EngineError, EngineInfo, EngineKind, ImageInfo, PullProgress};
#[cfg(feature = "docker")]
pub use docker::{DockerBody, DockerOptions, EngineAddress, RemoteOptions, SshTarget};
pub use exec::{ExecError, ExecExit, ExecOrder, ExecProcess, ExecStream, TerminalSize};
#[cfg(feature = "docker")]
pub use host_body::HostBody;
pub use logs::{LogFile, Record};
pub use ports::Ports;
pub use process::check::check as check_start;
pub use process::stop::target_of as stop_target_of;
pub use process::{Capabilities, InstanceUser, IsolationOptions, Options, ProcessBody};
