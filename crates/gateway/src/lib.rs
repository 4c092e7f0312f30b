//! The data plane: one current-thread runtime per core, each accepting from the same listener with its own connections
//! to instances. A request is routed, authorised and handed to the relay on the thread that read it.
//!
//! This room knows how requests come in and where they are to go; it never chooses an instance and never touches a disk.

mod admission;
mod authorise;
mod connection;
mod decode;
mod dialect;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod listen;
mod lists;
mod model;
mod model_names;
mod origin;
mod place;
mod rewrite;
mod route;
mod serve;
mod tasks;
mod workers;

pub use kip_spec::origin::Names;
pub use listen::{Error, ListenerAccess, adopt, bind};
pub use serve::{Entry, Gateway, Limits, Options};
