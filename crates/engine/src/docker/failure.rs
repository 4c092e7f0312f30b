//! What an engine's refusal means, by its status and its words: the two engines have different ones for the same.

use bollard::errors::Error;

/// A call of the engine that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// There is no such container or image.
    #[error("{0}")]
    Missing(String),
    /// It is so already, or cannot be now.
    #[error("{0}")]
    Conflict(String),
    /// Refused otherwise.
    #[error("{0}")]
    Refused(String),
    /// The engine does not answer.
    #[error("the container engine does not answer: {0}")]
    Unreachable(String),
}

/// Reads an error of the client.
pub(super) fn failure(error: &Error) -> Failure {
    match error {
        Error::DockerResponseServerError { status_code, message } => refusal(*status_code, message),
        Error::DockerStreamError { error } => Failure::Refused(error.trim().to_owned()),
        Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => Failure::Refused(error.to_string()),
        other => Failure::Unreachable(with_causes(other)),
    }
}

/// Reads an answer that is no success.
pub(super) fn refusal(status: u16, message: &str) -> Failure {
    let message = message.trim().to_owned();
    match status {
        404 => Failure::Missing(message),
        304 | 409 => Failure::Conflict(message),
        // Podman answers so where Docker says conflict.
        500 if says_missing(&message) => Failure::Missing(message),
        500 if says_conflict(&message) => Failure::Conflict(message),
        _ => Failure::Refused(message),
    }
}

fn says_missing(message: &str) -> bool {
    ["no such container", "no such image", "image not known"].iter().any(|words| message.contains(words))
}

fn says_conflict(message: &str) -> bool {
    ["is not running", "is already paused", "is not paused", "container state improper", "can only kill running"]
        .iter()
        .any(|words| message.contains(words))
}

/// The client's own words do not say what the system said.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_in_the_words_of_both() {
        let said = |status_code, message: &str| {
            failure(&Error::DockerResponseServerError { status_code, message: message.to_owned() })
        };
        let missing = |failure| matches!(failure, Failure::Missing(_));
        let conflict = |failure| matches!(failure, Failure::Conflict(_));
        assert!(missing(said(404, "No such container: x")));
        assert!(missing(said(500, "no container with ID: no such container")));
        assert!(conflict(said(409, "Container x is not running")));
        assert!(conflict(said(
            500,
            "can only kill running containers. x is in state exited: container state improper"
        )));
        assert!(matches!(said(500, "out of disk"), Failure::Refused(_)));
        assert!(matches!(failure(&Error::RequestTimeoutError), Failure::Unreachable(_)));
    }
}
