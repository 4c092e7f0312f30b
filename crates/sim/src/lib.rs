//! The simulator: whole worlds of functions and their tasks around the brain and the queue, in virtual time.
//!
//! It hands [`kip_fleet`]'s cores what a server would hand them, only worse: operations that fail, hang or answer late,
//! programs that die, callers that leave, messages that overtake each other. After each step it compares what the cores
//! believe with what it knows to be true. A run is drawn from a seed; the same seed gives the same run on every machine.
//!
//! This room never reads a clock, touches a file, starts a thread or looks inside a core by other ways than users have.

#![forbid(unsafe_code)]

mod body;
mod carry;
mod cell;
mod fate;
mod fault;
mod invariant;
mod moving;
mod plant;
mod random;
pub mod replay;
mod restart;
mod rollout;
mod room;
mod run;
mod scaling;
mod script;
mod settle;
mod setup;
mod shared_card;
mod shrink;
mod task;
mod task_check;
mod task_restart;
mod trace;
mod workload;
mod world;

pub use fault::{FAULTS, Fault};
pub use invariant::Failure;
pub use plant::{PLANTS, PlantedBug};
pub use run::{Outcome, run, steady};
pub use script::{ScriptError, play};
pub use setup::Reduction;
pub use shared_card::{SharedCard, shared_card};
pub use shrink::shrink;
pub use trace::Detail;
