//! Which task runs next, and what becomes of it after a run: the pure half of durable work, for the server and the simulator.
//!
//! This room never reads a clock, touches a file or a store, or rolls dice: times and dice are handed in. Whoever keeps tasks
//! on a disk asks here what to write, writes it, and says so afterwards.

#![forbid(unsafe_code)]

pub mod book;
pub mod rules;

pub use book::{Book, Counts, Entry, Wait};
pub use rules::{Allowance, RunOutcome, after};
