//! The value of a setting, and where it comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use kip_spec::{Problem, code};
use serde::Serialize;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(crate) enum Origin {
    /// Nobody said otherwise.
    Default,
    /// The settings file.
    File { path: PathBuf },
    /// An environment variable.
    Environment { variable: String },
    /// The command line.
    Flag { flag: &'static str },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path } => write!(f, "{}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

/// A value with its origin.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Value {
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// Reads a value; a problem says what is `wanted`, and where the value comes from.
pub(super) fn parse<T: std::str::FromStr>(
    values: &BTreeMap<&'static str, Value>,
    key: &'static str,
    wanted: &str,
) -> Result<T, Problem>
where
    T::Err: fmt::Display,
{
    let Value { value, origin } = &values[key];
    value.parse().map_err(|error: T::Err| {
        invalid(format!("{key}: `{value}` is not {wanted}")).cause(format!("{error} (from {origin})"))
    })
}

pub(super) fn invalid(message: String) -> Problem {
    Problem::new(code::CONFIG_INVALID, message)
}
