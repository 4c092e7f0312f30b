//! The whole path on the stand-in driver: real helper processes, real processes with "device memory", real kills. Nothing
//! here says anything about a GPU.
#![expect(clippy::unwrap_used, reason = "this crate is a test as a whole; the linter only knows functions marked so")]

mod bench;
mod faults;
#[path = "../../examples/gpu_bench/group.rs"]
mod group;
mod helper;
mod journal;
mod qualify;
mod support;
mod tree;
