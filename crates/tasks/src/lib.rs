//! Work that nobody waits for: accepted once it is on the disk, run until it is over, told about afterwards.
//!
//! A task is run at least once, and at most once more than its instance or the server crashed under it and it may be retried.
//! It ends in exactly one state, and the words about that are stored with it. [`kip_queue`]
//! says what becomes of a task and whose turn it is, and is pure. The rest asks the brain for places, sends work through the relay, and keeps everything in
//! the store before anybody hears of it.
//!
//! This room decides nothing about instances: it tells the brain how much waits and takes the places that it is offered.

mod commits;
pub mod config;
mod configs;
mod destination_rules;
mod dispatch;
pub mod envelope;
mod error;
mod event;
mod fingerprint;
mod for_events;
mod headers;
mod hold;
pub mod holder;
pub mod notification;
mod operations;
mod outbox;
mod placing;
mod progress;
mod receive;
mod recover;
mod results;
mod retry_after;
mod room;
mod rounds;
mod service;
mod shared;
pub mod sign;
mod stats;
pub mod tenant;
#[cfg(test)]
mod tests;
pub mod view;

pub use destination_rules::DestinationRules;
pub use dispatch::{EXIT, INTERRUPTED};
pub use error::Error;
pub use headers::is_async;
pub use hold::instances as held_instances;
pub use operations::{Bulk, BulkAction, FunctionTasks, Summary};
pub use receive::{ReceiveError, Received, drain};
pub use shared::{LEASE, Receipt, Submission, Tasks};

/// What lists are filtered by, and the states there are.
pub use kip_store::tasks::{TaskFilter, TaskNumber, TaskState};
