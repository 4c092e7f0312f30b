//! What happens to a task, as values. They are stored as JSON, with the names of Function Compute; the sentence for people is part of
//! the value where there is one.

use kip_store::tasks::{NewEvent, StoredEvent, TaskProgress, TaskState};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something that happened to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// It waits for its first run, again.
    Enqueued {
        /// Somebody asked for all its runs once more.
        again: bool,
    },
    /// A place was found for it.
    Dequeued,
    /// A run begins.
    Running {
        /// The instance.
        instance: String,
        /// Counts its runs.
        epoch: u32,
    },
    /// The function reported its progress.
    Progress {
        /// In its words.
        text: String,
    },
    /// It was told to stop while it ran.
    Stopping,
    /// A run failed, and it waits for the next.
    Retrying(Option<Failure>),
    /// It is over.
    Succeeded,
    /// It is over.
    Failed(Option<Failure>),
    /// It is over.
    Stopped(Option<Failure>),
    /// It is over.
    Expired(Option<Failure>),
    /// It is over.
    Invalid(Option<Failure>),
}

/// What went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// What kind of failure it is.
    #[serde(rename = "Error", default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// In a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// When it is run again, milliseconds since 1970.
    #[serde(rename = "runAt", default, skip_serializing_if = "Option::is_none")]
    pub(crate) run_at: Option<i64>,
    /// The instance that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
}

impl Event {
    /// What a task became, by its state and failure.
    pub(crate) fn became(to: &TaskProgress) -> Self {
        let failure = to.error_kind.clone().map(|error| Failure {
            error: Some(error),
            message: to.error.clone(),
            run_at: (!to.state.is_terminal()).then_some(to.run_at),
            instance: None,
        });
        match to.state {
            TaskState::Enqueued => Self::Enqueued { again: true },
            TaskState::Running => {
                Self::Running { instance: to.instance.as_deref().unwrap_or_default().to_owned(), epoch: to.epoch }
            }
            TaskState::Stopping => Self::Stopping,
            TaskState::Retrying => Self::Retrying(failure),
            TaskState::Succeeded => Self::Succeeded,
            TaskState::Failed => Self::Failed(failure),
            TaskState::Stopped => Self::Stopped(failure),
            TaskState::Expired => Self::Expired(failure),
            TaskState::Invalid => Self::Invalid(failure),
        }
    }

    /// As it is stored.
    pub(crate) fn at(&self, at: i64) -> NewEvent {
        NewEvent { at, value: serde_json::to_string(self).unwrap_or_default() }
    }

    /// A stored one; none if this version does not know it.
    pub(crate) fn read(stored: &StoredEvent) -> Option<Self> {
        serde_json::from_str(&stored.value).ok()
    }
}

/// The name and the details of a stored event, as they are shown. Those of a newer version are shown too.
pub(crate) fn shown(stored: &StoredEvent) -> (String, String) {
    match serde_json::from_str(&stored.value) {
        Ok(Value::String(name)) => (name, String::new()),
        Ok(Value::Object(map)) => {
            let (name, detail) = map.into_iter().next().unwrap_or_default();
            (name, if detail.is_null() { String::new() } else { detail.to_string() })
        }
        _ => (stored.value.clone(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_and_shown_as_ever() {
        let failure = Failure { error: Some("NoCapacity".to_owned()), run_at: Some(7), ..Failure::default() };
        let cases = [
            (Event::Dequeued, "Dequeued", ""),
            (Event::Enqueued { again: true }, "Enqueued", r#"{"again":true}"#),
            (Event::Running { instance: "i".to_owned(), epoch: 2 }, "Running", r#"{"epoch":2,"instance":"i"}"#),
            (Event::Progress { text: "50 %".to_owned() }, "Progress", r#"{"text":"50 %"}"#),
            (Event::Retrying(Some(failure)), "Retrying", r#"{"Error":"NoCapacity","runAt":7}"#),
            (Event::Stopped(None), "Stopped", ""),
        ];
        for (event, name, detail) in cases {
            let stored = StoredEvent { number: 2, at: 5, value: event.at(5).value };
            assert_eq!(Event::read(&stored), Some(event));
            assert_eq!(shown(&stored), (name.to_owned(), detail.to_owned()));
        }
        let newer = StoredEvent { number: 2, at: 5, value: r#"{"Suspended":{"why":1}}"#.to_owned() };
        assert_eq!(Event::read(&newer), None);
        assert_eq!(shown(&newer), ("Suspended".to_owned(), r#"{"why":1}"#.to_owned()));
    }

    #[test]
    fn those_of_earlier_versions_are_read() {
        for (value, expected) in [
            (r#"{"Dequeued":null}"#, Event::Dequeued),
            (r#"{"Stopped":null}"#, Event::Stopped(None)),
            (r#"{"Succeeded":null}"#, Event::Succeeded),
            (r#"{"Enqueued":{"again":true}}"#, Event::Enqueued { again: true }),
        ] {
            let stored = StoredEvent { number: 2, at: 5, value: value.to_owned() };
            assert_eq!(Event::read(&stored), Some(expected), "{value}");
        }
    }
}
