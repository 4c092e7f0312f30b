//! What touches the machine: the clock, named tasks and threads, the environment, files and the data-directory lock,
//! who listens on which port, and one small HTTP client.
//!
//! Bans in `clippy.toml` keep these out of every other room. Nothing here knows what a function is.

pub mod clock;
pub mod connections;
pub mod directory;
pub mod disk;
pub mod endpoint;
pub mod environment;
pub mod failpoint;
pub mod http_client;
pub mod limits;
pub mod log;
pub mod log_file;
pub mod processes;
pub mod random;
pub mod sockets;
pub mod tasks;
#[cfg(feature = "tls")]
pub mod tls;
#[expect(unsafe_code, reason = "a descriptor passed by the parent can only be taken by its number")]
mod unsafe_inherited;
pub mod usage;
