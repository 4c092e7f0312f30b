//! What a notification says. The shape is that of Function Compute.

use kip_store::tasks::{Output, Task};
use kip_tasks::notification::envelope;
use kip_tasks::view::{head_of, id_of, text_of};
use serde_json::{Value, json};

/// Bytes of a payload or result that a word carries; of a longer one, the task is to be asked.
const CARRIED: usize = 128 << 10;

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
