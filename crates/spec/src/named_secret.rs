//! Secrets that are kept for functions: their names, and their values while an instance starts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::secret::MASK;

/// Bytes of a value at most: with its name it must fit one variable of an environment.
pub const LONGEST_VALUE: usize = 64 << 10;

/// Text that is no name of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a secret: 1 to 63 letters, digits, `-`, `_` or `.`, beginning with a letter or digit")]
pub struct SecretNameError(String);

/// The name of a secret: 1 to 63 ASCII letters, digits, `-`, `_` or `.`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(Arc<str>);

impl SecretName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = SecretNameError;

    fn from_str(text: &str) -> Result<Self, SecretNameError> {
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if begins && rest && text.len() <= 63 { Ok(Self(text.into())) } else { Err(SecretNameError(text.to_owned())) }
    }
}

impl TryFrom<String> for SecretName {
    type Error = SecretNameError;

    fn try_from(text: String) -> Result<Self, SecretNameError> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value of a secret. It is shown nowhere: no text of ours has it, and it does not serialize.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretText(String);

impl SecretText {
    /// A value.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The value itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Why a secret has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretProblem {
    /// There is no secret of this name.
    #[error("it is not set")]
    Missing,
    /// It was sealed with another key.
    #[error("it is sealed with another key than this server has; set it again")]
    Unreadable,
}

/// What knows the values of secrets.
pub trait SecretSource: Send + Sync + fmt::Debug {
    /// The present value of a secret.
    ///
    /// # Errors
    /// [`SecretProblem`].
    fn reveal(&self, name: &SecretName) -> Result<SecretText, SecretProblem>;
}

/// A source without secrets.
#[derive(Debug, Clone, Copy)]
pub struct NoSecrets;

impl SecretSource for NoSecrets {
    fn reveal(&self, _name: &SecretName) -> Result<SecretText, SecretProblem> {
        Err(SecretProblem::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_values_are_not_shown() {
        for good in ["hf", "HF_TOKEN", "db.prod-2", &"a".repeat(63)] {
            assert_eq!(good.parse::<SecretName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad}");
        }
        assert_eq!(format!("{:?}", SecretText::new("hidden".to_owned())), "***");
    }
}
