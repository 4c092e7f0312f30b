//! What makes work and tells of its end: schedules of jobs make tasks, and deliveries tell destinations how tasks ended.
//!
//! A delivery is committed together with the end that causes it, by room `tasks`; this room sends it until a receiver has taken it or its
//! time is over. A run of a schedule is an ordinary task whose id is made of its time. This room changes no task by itself.

mod deliveries;
mod error;
mod jobs;
mod notification;
mod open;
mod queue;
mod service;
#[cfg(test)]
mod tests;
mod timers;

pub use error::Error;
pub use service::{Events, Options};
