//! A task as it is shown. The names are those of Function Compute; what it does not have comes after them.

use kip_store::tasks::{Output, StoredEvent, Task, TaskNumber, TaskProgress, TaskState};
use kip_wire::{Attempt, TaskEvent, TaskInfo};

use crate::envelope::{Envelope, Head};
use crate::event::{self, Event};

/// Results up to this size are shown with their task, bytes.
pub const SHOWN: usize = 1 << 20;

/// The runs that events tell of.
fn attempts_of(events: &[StoredEvent]) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    for stored in events {
        let Some(event) = Event::read(stored) else { continue };
        match event {
            Event::Running { instance, epoch } => attempts.push(Attempt {
                epoch,
                instance_id: Some(instance),
                started_time: stored.at,
                ..Attempt::default()
            }),
            Event::Enqueued { .. } | Event::Dequeued | Event::Stopping | Event::Progress { .. } => {}
            Event::Retrying(_)
            | Event::Succeeded
            | Event::Failed(_)
            | Event::Stopped(_)
            | Event::Expired(_)
            | Event::Invalid(_) => {
                // A task that ends while it waits has no run that could end.
                if let Some(last) = attempts.last_mut().filter(|last| last.end_time.is_none()) {
                    (last.end_time, last.outcome) = (Some(stored.at), Some(event::shown(stored).0));
                }
            }
        }
    }
    attempts
}

/// The id that a task is known by.
pub fn id_of(number: TaskNumber, chosen: Option<&str>) -> String {
    chosen.map_or_else(|| format!("t{}", number.0), str::to_owned)
}

/// The number in a generated id.
pub fn generated(id: &str) -> Option<TaskNumber> {
    let digits = id.strip_prefix('t').filter(|digits| !digits.is_empty() && !digits.starts_with('0'))?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok().map(TaskNumber)).flatten()
}

/// Whether a caller may choose this id: a letter or `_`, then letters, digits, `_` and `-`, at most 128, and none that we
/// make ourselves.
pub fn may_be_chosen(id: &str) -> bool {
    let first = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    first && rest && id.len() <= 128 && generated(id).is_none()
}

/// The events that are stored, with that of its acceptance, which is not.
pub(crate) fn events_of(task: &Task) -> Vec<TaskEvent> {
    let accepted =
        TaskEvent { event_id: 1, status: "Enqueued".to_owned(), timestamp: task.created, event_detail: String::new() };
    let stored = task.events.iter().map(|stored| {
        let (status, event_detail) = event::shown(stored);
        TaskEvent { event_id: stored.number, status, timestamp: stored.at, event_detail }
    });
    std::iter::once(accepted).chain(stored).collect()
}

/// A plain asynchronous invocation, as stored.
pub const INVOCATION: u8 = 0;
/// A stateful task, as stored.
pub const TASK: u8 = 1;
/// A run of a job, as stored.
pub const JOB: u8 = 2;

/// What a kind is called.
pub fn kind_name(kind: u8) -> &'static str {
    match kind {
        TASK => "task",
        JOB => "job",
        _ => "invocation",
    }
}

/// Bytes as text, or as base64 that says so.
pub fn text_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(bytes)),
    }
}

/// A task as it is shown, at a moment (milliseconds since 1970).
pub fn info_of(task: &Task, output: Option<&Output>, payload: Option<&[u8]>, now: i64) -> TaskInfo {
    let envelope: Option<Envelope> = serde_json::from_str(&task.envelope).ok();
    let state = &task.now;
    let set = |at: i64| (at > 0).then_some(at);
    let ended = set(state.ended);
    let events = events_of(task);
    let attempts = attempts_of(&task.events);
    let outcomes: Vec<&str> =
        task.destinations.lines().filter_map(|line| line.split_once(' ').map(|(_, text)| text)).collect();
    TaskInfo {
        task_id: id_of(task.number, task.id.as_deref()),
        status: state.state.name().to_owned(),
        scheduled_time: envelope.as_ref().and_then(|envelope| envelope.due),
        request_id: envelope.map(|envelope| envelope.request).unwrap_or_default(),
        instance_id: state.instance.as_deref().map(str::to_owned),
        qualifier: task.qualifier.to_string(),
        version: None,
        function_name: task.function.to_string(),
        started_time: set(state.started),
        first_started_time: attempts.first().map(|first| first.started_time).or_else(|| set(state.started)),
        attempts,
        end_time: ended,
        duration_ms: set(state.started).map(|started| ended.unwrap_or(now).saturating_sub(started).max(0)),
        already_retried_times: retried(state),
        task_error_message: state.error.clone(),
        task_payload: payload.map(text_of),
        return_payload: output.map(|output| text_of(&output.body[..output.body.len().min(SHOWN)])),
        result_cut: output.is_some_and(|output| head_of(output).cut),
        destination_status: (!outcomes.is_empty()).then(|| outcomes.join("; ")),
        events,
        kind: kind_name(task.kind).to_owned(),
        number: task.number.0,
        tenant: task.tenant.to_string(),
        priority: task.priority,
        ordering_key: task.order.as_deref().map(str::to_owned),
        created_time: task.created,
        run_at: state.run_at,
        expires_at: state.expires_at,
        epoch: state.epoch,
        errors: state.errors,
        crashes: state.crashes,
        refusals: state.refusals,
        error_kind: state.error_kind.clone(),
        status_code: (state.status > 0).then_some(state.status),
        progress: task.progress.clone(),
        ahead: None,
        waits_for: None,
        estimated_wait_ms: None,
    }
}

/// The last error of a task that failed was followed by no run.
fn retried(state: &TaskProgress) -> u32 {
    state.errors.saturating_sub(u32::from(state.state == TaskState::Failed))
}

/// The head of a stored answer.
pub fn head_of(output: &Output) -> Head {
    serde_json::from_str(&output.head).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_told_from_steps() {
        let event = |number: i64, value: &Event| StoredEvent {
            number: number.unsigned_abs(),
            at: number * 10,
            value: value.at(0).value,
        };
        let running = |number, epoch: u32| event(number, &Event::Running { instance: "i".to_owned(), epoch });
        let steps = [
            running(2, 1),
            event(3, &Event::Retrying(None)),
            running(4, 2),
            event(5, &Event::Progress { text: "half".to_owned() }),
            event(6, &Event::Succeeded),
        ];
        let run = |epoch, started_time, end: i64, outcome: &str| Attempt {
            epoch,
            instance_id: Some("i".to_owned()),
            started_time,
            end_time: Some(end),
            outcome: Some(outcome.to_owned()),
        };
        assert_eq!(attempts_of(&steps), [run(1, 20, 30, "Retrying"), run(2, 40, 60, "Succeeded")]);
        assert_eq!(attempts_of(&[event(2, &Event::Stopped(None))]), []);
    }

    #[test]
    fn ids() {
        for good in ["a", "_x", "order-17", "t", "t0", "t01", "t1x", "T5"] {
            assert!(may_be_chosen(good), "{good}");
        }
        for bad in ["", "1a", "-a", "a b", "t5", "t17", &"x".repeat(129)] {
            assert!(!may_be_chosen(bad), "{bad}");
        }
        assert_eq!(generated("t17"), Some(TaskNumber(17)));
        assert_eq!(id_of(TaskNumber(17), None), "t17");
        assert_eq!(id_of(TaskNumber(17), Some("mine")), "mine");
        assert_eq!(generated("t99999999999999999999999"), None);
    }
}
