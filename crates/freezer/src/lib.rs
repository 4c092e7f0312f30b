//! Freezing processes that use a GPU, and waking them: their device memory goes to the host and back, while they know
//! nothing of it.
//!
//! [`driver`] is NVIDIA's driver, loaded at run time; [`helper`] the process that alone may load it; [`DeviceLocks`] where the
//! server asks helpers; [`tree`] whole trees of processes; [`halt`] whether they get CPU; [`journal`] and [`recovery`] what must be written down and what
//! is made of it; [`spill`] pages of paused processes; [`probe`] and [`qualify`] how a device proves that all this works on it.
//!
//! This room freezes and wakes what it is told to and says what came of it. It never decides whom or when, and knows
//! nothing of functions, queues or ledgers.

mod client;
pub mod driver;
mod error;
pub mod halt;
pub mod helper;
pub mod journal;
mod locks;
pub mod probe;
pub mod qualification;
pub mod qualify;
pub mod recovery;
pub mod report;
pub mod spill;
pub mod tree;
mod unsafe_pages;
mod unsafe_prefault;
mod wire;

pub use client::Options;
pub use error::{Error, HelperLoss};
pub use locks::{DeviceGuard, DeviceLocks};
pub use qualification::Qualifications;
pub use report::Report;
pub use wire::{Answer, Ask};
