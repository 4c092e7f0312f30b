//! Single values: units, counts, words and paths of an instance's web server.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use kip_spec::units::UnitError;
use kip_spec::{Code, Millis, Problem, code};

use crate::keys;
use crate::report::{Report, shown};
use crate::section::Field;
use crate::tree::{Kind, Position};

/// A longer duration is a slip of the pen, and sums of such stay far from overflow.
const LONGEST: Millis = Millis::from_secs(366 * 24 * 3_600);
/// Characters of a path on an instance.
const LONGEST_PATH: usize = 2_048;

/// Methods that a function may take; the two others of HTTP are for proxies and for debugging servers.
pub(crate) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A value that was refused, for the report.
pub(crate) fn refuse(field: &Field<'_>, code: Code, what: impl Display) -> Problem {
    Problem::new(code, format!("`{}`: {what}", field.path))
}

/// A quantity with a unit. `what` goes on after "must be".
pub(crate) fn quantity<T>(field: &Field<'_>, what: &str, report: &mut Report<'_>) -> Option<T>
where
    T: FromStr<Err = UnitError>,
{
    let (Kind::Number(text) | Kind::Text(text)) = &field.node.kind else {
        wrong_type(field, what, report);
        return None;
    };
    let parsed = if text.chars().count() > 40 {
        Err(format!("`{}` is too long", shown(text)))
    } else {
        text.parse().map_err(|error: UnitError| error.to_string())
    };
    parsed.map_err(|error| report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, error))).ok()
}

/// A duration, or `None` for one that must not be zero and is.
pub(crate) fn duration(field: &Field<'_>, may_be_zero: bool, report: &mut Report<'_>) -> Option<Millis> {
    let value: Millis = quantity(field, "a duration such as 500ms, 5s or 12h", report)?;
    if value > LONGEST {
        let message = format!("{value} is longer than a year");
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message));
        return None;
    }
    if value == Millis(0) && !may_be_zero {
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, "must be longer than 0s"));
        return None;
    }
    Some(value)
}

/// A duration or `never`, which is `Some(None)`.
pub(crate) fn duration_or_never(field: &Field<'_>, report: &mut Report<'_>) -> Option<Option<Millis>> {
    if field.node.scalar() == Some("never") {
        return Some(None);
    }
    if !matches!(field.node.kind, Kind::Number(_) | Kind::Text(_)) {
        wrong_type(field, "a duration such as 5s or 12h, or `never`", report);
        return None;
    }
    duration(field, true, report).map(Some)
}

/// A whole number within a range.
pub(crate) fn count(field: &Field<'_>, range: RangeInclusive<u32>, report: &mut Report<'_>) -> Option<u32> {
    let Kind::Number(text) = &field.node.kind else {
        wrong_type(field, "a whole number", report);
        return None;
    };
    let value = text.parse().ok().filter(|value| range.contains(value));
    if value.is_none() {
        let message = format!("`{}` is not a whole number from {} to {}", shown(text), range.start(), range.end());
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message));
    }
    value
}

/// One of a few words; `later` are those of the design that do not work yet.
pub(crate) fn word<T: Copy>(
    field: &Field<'_>,
    words: &[(&'static str, T)],
    later: &[(&'static str, &'static str)],
    report: &mut Report<'_>,
) -> Option<T> {
    let list = words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    let Some(text) = field.node.scalar() else {
        wrong_type(field, &list, report);
        return None;
    };
    if let Some((_, hint)) = later.iter().find(|(word, _)| *word == text) {
        report.add(field.node.at, keys::not_yet(&format!("{}: {text}", field.path), hint));
        return None;
    }
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let message = format!("`{}` is not one of the choices", shown(text));
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message).hint(format!("write {list}")));
    }
    found
}

/// A path on the instance's web server.
pub(crate) fn path(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let Kind::Text(text) = &field.node.kind else {
        wrong_type(field, "a path such as /healthz", report);
        return None;
    };
    path_of(text, field, field.node.at, report)
}

/// A path, or one in a list, that is written here.
pub(crate) fn path_of(text: &str, field: &Field<'_>, at: Position, report: &mut Report<'_>) -> Option<String> {
    let fault = if !text.starts_with('/') {
        Some("does not begin with `/`")
    } else if text.len() > LONGEST_PATH {
        Some("is longer than 2,048 characters")
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some("has a character that a URL cannot have: write it in %-form")
    } else if text.contains('#') {
        Some("has a `#`, which is never sent to a server")
    } else {
        None
    };
    if let Some(fault) = fault {
        let message = format!("`{}` {fault}", shown(text));
        report.add(at, refuse(field, code::MANIFEST_BAD_VALUE, message));
        return None;
    }
    Some(text.to_owned())
}

/// Says what a value must be and what it is.
pub(crate) fn wrong_type(field: &Field<'_>, what: &str, report: &mut Report<'_>) {
    let message = format!("`{}` must be {what}; here it is {}", field.path, field.node.described());
    let mut problem = Problem::new(code::MANIFEST_WRONG_TYPE, message);
    if let Kind::Text(text) = &field.node.kind
        && text.parse::<u32>().is_ok()
    {
        problem = problem.hint("remove the quotes");
    }
    report.add(field.node.at, problem);
}

pub(crate) fn flag(field: &Field<'_>, report: &mut Report<'_>) -> bool {
    match field.node.kind {
        Kind::Flag(flag) => flag,
        _ => {
            wrong_type(field, "true or false", report);
            false
        }
    }
}

/// A list of texts that fit.
pub(crate) fn texts(
    field: &Field<'_>,
    fits: fn(&str) -> bool,
    hint: &'static str,
    report: &mut Report<'_>,
) -> Vec<String> {
    let Kind::List(items) = &field.node.kind else {
        wrong_type(field, "a list", report);
        return Vec::new();
    };
    let mut taken: Vec<String> = Vec::new();
    for item in items {
        let text = item.scalar().unwrap_or_default();
        if !fits(text) {
            let message = format!("`{}` does not belong here", shown(text));
            report.add(item.at, refuse(field, code::MANIFEST_BAD_VALUE, message).hint(hint));
        } else if !taken.iter().any(|known| known == text) {
            taken.push(text.to_owned());
        }
    }
    taken
}
