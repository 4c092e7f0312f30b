//! The one exchange with an instance, used by everything that calls functions: ask the core for a permit, take a
//! pooled connection, stream both ways, give the permit back, write one record.
//!
//! A [`Relay`] belongs to one thread with a current-thread runtime, and so do its connections: a request to a hot
//! instance crosses no thread. This room never decides where a request goes; the core's permit says so.

mod answer;
mod body;
mod deliver;
mod exchange;
pub mod exec;
mod headers;
mod pool;
mod prefix;
mod sticky;
mod trace;
mod tunnel;
#[expect(unsafe_code, reason = "hyper owns the socket that is looked at")]
mod unsafe_peek;
mod upgrade;

#[cfg(test)]
mod tests;

pub use answer::{Answer, foreign_peer, in_the_clear, problem, refusal, refused_connection};
pub use body::{Body, StreamError};
pub use deliver::{Delivery, DeliveryError, compose};
pub use exchange::{BodySource, Call, Relay};
#[cfg(any(test, feature = "fuzzing"))]
pub use headers::fuzz as fuzz_headers;
pub use prefix::take_rest;
pub use sticky::caller;
pub use trace::{Caller, RefusedRequest};
pub use upgrade::{asked as asked_upgrade, is_grpc};
