//! Which notifications the end of a task causes. They are committed with it; room `events` sends them.

use kip_store::tasks::{NewDelivery, Task, TaskProgress, TaskState};
use serde::{Deserialize, Serialize};

use crate::config::Destination;
use crate::envelope::Envelope;
use kip_queue::rules::{AGE_EXCEEDED, RETRIES_EXHAUSTED};

/// A word, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notification {
    /// Why it is sent.
    pub condition: String,
    /// Whom to.
    pub to: Destination,
}

/// What a task was submitted with, if it can be read.
pub fn envelope(task: &Task) -> Option<Envelope> {
    serde_json::from_str(&task.envelope).ok()
}

/// What is to be sent when a task becomes this.
pub(crate) fn caused(envelope: &Envelope, to: &TaskProgress) -> Vec<NewDelivery> {
    let destinations = &envelope.destinations;
    let (condition, whom) = match to.state {
        TaskState::Succeeded => ("Success", &destinations.on_success),
        TaskState::Failed => (RETRIES_EXHAUSTED, &destinations.on_failure),
        TaskState::Expired => (AGE_EXCEEDED, &destinations.on_failure),
        TaskState::Invalid => ("FunctionNotFound", &destinations.on_failure),
        _ => return Vec::new(),
    };
    let Some(destination) = whom else { return Vec::new() };
    let word = Notification { condition: condition.to_owned(), to: destination.clone() };
    vec![NewDelivery { target: serde_json::to_string(&word).unwrap_or_default(), run_at: to.ended }]
}
