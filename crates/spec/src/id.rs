//! Names and numbers of things.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a name or id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a function name.
    #[error("`{0}` is not a function name: 1 to 64 letters, digits, `-` or `_`, beginning with a letter or `_`")]
    FunctionName(String),
    /// Not an instance id.
    #[error("`{0}` is not an instance id: they look like i-1-4-2")]
    Instance(String),
}

/// A function's name: 1 to 64 ASCII letters, digits, `-` or `_`, beginning with a letter or `_`, as in Function Compute. It is part of
/// paths and, see [`crate::qualifier::host_label`], of host names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(Arc<str>);

impl FunctionName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FunctionName {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if first && rest && text.len() <= 64 { Ok(Self(text.into())) } else { Err(IdError::FunctionName(text)) }
    }
}

impl FromStr for FunctionName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl From<FunctionName> for String {
    fn from(name: FunctionName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for FunctionName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The number of an immutable version in the store; unique over all functions and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionId(pub u64);

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// An instance: (boot counter of the server, core, sequence within the core). Never reused, and made without dice or locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId {
    /// How often this data directory's server had been started when the instance was made.
    pub boot: u32,
    /// Which function core of that boot made it.
    pub core: u32,
    /// The core's running number.
    pub sequence: u32,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i-{}-{}-{}", self.boot, self.core, self.sequence)
    }
}

impl FromStr for InstanceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Instance(text.to_owned());
        let mut parts = text.strip_prefix("i-").ok_or_else(bad)?.split('-').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(boot)), Some(Ok(core)), Some(Ok(sequence)), None) => Ok(Self { boot, core, sequence }),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for InstanceId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.to_string()
    }
}

/// A request's id, ours or the caller's: up to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes a caller's id if it is fit for headers and logs, and is no secret by its form.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
        (fits && !crate::secret::is_value(text)).then(|| Self(text.into()))
    }

    /// An id of ours from 128 bits that the caller drew.
    pub fn from_bits(bits: u128) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"r-00000000000000000000000000000000";
        // By hand: every request has one.
        for (place, digit) in text[2..].iter_mut().rev().enumerate() {
            *digit = DIGITS[usize::try_from((bits >> (4 * place)) & 15).unwrap_or(0)];
        }
        Self(std::str::from_utf8(&text).unwrap_or_default().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_names_fit_paths_and_hosts() {
        for good in ["a", "digits", "My_fn-2", "_x", &"a".repeat(64)] {
            assert!(good.parse::<FunctionName>().is_ok(), "{good}");
        }
        for bad in ["", "2x", "-a", "a.b", "a/b", "é", "a@b", &"a".repeat(65)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn instance_ids_round_trip() {
        let id = InstanceId { boot: 3, core: 14, sequence: 7 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["i-1-2", "i-1-2-3-4", "x-1-2-3", "i-1-2-x"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn request_ids_of_callers_are_checked() {
        assert_eq!(RequestId::from_bits(0xab1).as_str(), format!("r-{:032x}", 0xab1));
        assert_eq!(RequestId::from_bits(u128::MAX - 1).as_str(), format!("r-{:032x}", u128::MAX - 1));
        assert!(RequestId::parse("abc-1").is_some());
        for bad in ["", "a b", "a\r\nx", &"a".repeat(129)] {
            assert!(RequestId::parse(bad).is_none());
        }
    }
}
