//! The words that are sent when a task is over: to whom, and what they say. The shape is that of Function Compute.

use kip_store::tasks::{NewDelivery, Output, Task, TaskProgress, TaskState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Destination;
use crate::envelope::Envelope;
use crate::view::{head_of, id_of, text_of};
use kip_queue::rules::{AGE_EXCEEDED, RETRIES_EXHAUSTED};

/// Bytes of a payload or result that a word carries; of a longer one, the task is to be asked.
const CARRIED: usize = 128 << 10;

/// A word, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Notification {
    /// Why it is sent.
    pub(crate) condition: String,
    /// Whom to.
    pub(crate) to: Destination,
}

pub(crate) fn envelope(task: &Task) -> Option<Envelope> {
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

/// What a word says.
pub(crate) fn text(task: &Task, condition: &str, payload: &[u8], output: Option<&Output>) -> Value {
    let carried = |bytes: &[u8]| (bytes.len() <= CARRIED).then(|| text_of(bytes));
    let head = output.map(head_of).unwrap_or_default();
    json!({
        "timestamp": task.now.ended,
        "requestContext": {
            "requestId": envelope(task).map(|envelope| envelope.request),
            "functionName": &*task.function,
            "functionArn": format!("acs:fc:local:0:functions/{}/{}", task.function, task.qualifier),
            "qualifier": &*task.qualifier,
            "taskId": id_of(task.number, task.id.as_deref()),
            "condition": condition,
            "approximateInvokeCount": task.now.epoch,
        },
        "requestPayload": carried(payload),
        "responseContext": {
            "statusCode": if task.now.status > 0 { task.now.status } else { head.status },
            "functionError": task.now.error_kind,
            "errorMessage": task.now.error,
        },
        "responsePayload": output.and_then(|output| carried(&output.body)),
    })
}
