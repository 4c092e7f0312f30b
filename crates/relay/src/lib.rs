//! The one exchange with an instance, used by everything that calls functions: ask the core for a permit, take a
//! pooled connection, stream both ways, give the permit back, write one record.
//!
//! A [`Relay`] belongs to one thread with a current-thread runtime, and so do its connections: a request to a hot
//! instance crosses no thread. This room never decides where a request goes; the core's permit says so.

mod answer;
mod body;
mod exchange;
mod headers;
pub mod limits;
pub mod metrics;
mod pool;
mod prefix;
mod trace;

pub use answer::{Answer, problem, refusal};
pub use body::Body;
pub use exchange::{Call, Relay};
pub use trace::{Caller, Refused};
