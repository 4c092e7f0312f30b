//! What the YAML parser refuses, in our words and codes.

use kip_spec::{Problem, code};
use serde_saphyr::Error;
use serde_saphyr::budget::BudgetBreach;

use crate::LARGEST;
use crate::report::shortened;
use crate::tree::Position;

/// Characters of the parser's own sentence.
const LONGEST_SENTENCE: usize = 160;

/// A text that is not even looked at.
pub(crate) fn too_large(length: usize) -> Problem {
    let message = format!("the manifest has {length} bytes; the most that is read is {LARGEST} (1 MiB)");
    Problem::new(code::MANIFEST_TOO_LARGE, message).hint("split it into several files")
}

/// Why there is no tree, and where. `line_at` is the text of a line.
pub(crate) fn explain<'a>(error: &Error, line_at: impl FnOnce(Position) -> Option<&'a str>) -> (Position, Problem) {
    let place = error.location().filter(|location| location.line() > 0);
    let at =
        place.map_or(Position { line: 1, column: 1 }, |place| Position { line: place.line(), column: place.column() });
    let problem = problem(error);
    let opened_by_brace = problem.message.contains("flow mapping") || problem.message.contains("flow sequence");
    // `{run: serve ${PORT}}`: the most frequent slip of all.
    if opened_by_brace && line_at(at).is_some_and(|line| line.contains("${")) {
        return (at, problem.hint("within {…} and […], put quotes around text that contains `${…}`"));
    }
    (at, problem)
}

fn problem(error: &Error) -> Problem {
    let syntax = |message: &str| Problem::new(code::MANIFEST_SYNTAX, message);
    let too_much = |message: &str| Problem::new(code::MANIFEST_TOO_LARGE, message);
    match error {
        Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => problem(error),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            too_much("the manifest is nested too deeply").hint("no key of a manifest needs more than 6 levels")
        }
        Error::Budget { .. } => too_much("the manifest grows too large once its aliases (`*name`) are followed")
            .hint("repeat less through anchors and aliases; `defaults:` gives all functions the same values"),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => {
            too_much("aliases (`*name`) within aliases make the manifest too large")
                .hint("repeat less through anchors and aliases; `defaults:` gives all functions the same values")
        }
        Error::MultipleDocuments { .. } => syntax("a second document begins here; a manifest is one document")
            .hint("put all functions below one `functions:` and remove the `---`"),
        Error::UnknownAnchor { .. } => syntax("this alias (`*name`) has no anchor (`&name`) before it")
            .hint("text that begins with `*` needs quotes"),
        Error::RecursiveReferencesRequireWeakTypes { .. } => syntax("this alias contains itself"),
        Error::MergeValueNotMapOrSeqOfMaps { .. } => {
            syntax("`<<` merges maps; its value must be a map or a list of maps")
        }
        Error::InvalidBinaryBase64 { .. } => syntax("the value after `!!binary` is not base64"),
        // The scanner's own limit on brackets has no variant of its own.
        Error::Message { msg, .. } | Error::ExternalMessage { msg, .. } if msg.contains("recursion limit") => {
            too_much("the manifest is nested too deeply").hint("no key of a manifest needs more than 6 levels")
        }
        Error::Message { msg, .. } | Error::ExternalMessage { msg, .. } => with_advice(msg),
        other => {
            let mut text = other.to_string();
            if let Some(end) = text.find(" at line ") {
                text.truncate(end);
            }
            with_advice(&text)
        }
    }
}

/// The scanner's sentence, and what it mostly means for the person who wrote the text.
fn with_advice(message: &str) -> Problem {
    let problem =
        Problem::new(code::MANIFEST_SYNTAX, format!("not valid YAML: {}", shortened(message, LONGEST_SENTENCE)));
    if message.contains("mapping values are not allowed") {
        problem.hint("check the indentation, and put quotes around text that contains `: `")
    } else if message.contains("tab") {
        problem.hint("indent with spaces")
    } else if message.contains("unclosed") {
        problem.hint("close what is opened here")
    } else if message.contains("unexpected character") {
        problem.hint("put quotes around text that begins with one of @ ` % & * ! | > # [ ] { } ,")
    } else if message.contains("did not find expected") {
        problem.hint("check the indentation of this line and of the one above, and that brackets and quotes are closed")
    } else {
        problem
    }
}
