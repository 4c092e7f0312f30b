//! Names of models as people write them: `Qwen/Qwen3-30B-A3B`, `qwen2.5:7b`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a name does to the body of a request: a JSON object or a form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRewrite {
    /// The value of `model` that the program gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Parameters that get these values, whatever the caller sends.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, serde_json::Value>,
    /// Parameters that are taken out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub strip: BTreeSet<String>,
}

impl NameRewrite {
    /// Whether a body stays as it is.
    pub fn changes_nothing(&self) -> bool {
        self.model.is_none() && self.set.is_empty() && self.strip.is_empty()
    }
}

/// Text that is no name of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a model: 1 to 200 letters, digits, `.`, `_`, `-`, `:`, `+` and `/`, beginning and ending with a letter or digit"
)]
pub struct ModelNameError(String);

/// A name by which callers ask for a model: 1 to 200 ASCII letters, digits, `.`, `_`, `-`, `:`, `+` and single `/`. An `@` begins a
/// qualifier and is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = ModelNameError;

    fn from_str(text: &str) -> Result<Self, ModelNameError> {
        let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:+/".contains(&byte);
        let is_name = text.len() <= 200
            && ends(text.bytes().next())
            && ends(text.bytes().next_back())
            && text.bytes().all(plain)
            && !text.contains("//")
            && !text.split('/').any(|part| part == "." || part == "..");
        if is_name { Ok(Self(text.into())) } else { Err(ModelNameError(text.chars().take(80).collect())) }
    }
}

impl TryFrom<String> for ModelName {
    type Error = ModelNameError;

    fn try_from(text: String) -> Result<Self, ModelNameError> {
        text.parse()
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_people_write_them() {
        for text in ["Qwen/Qwen3-30B-A3B", "qwen2.5:7b", "a", "org/sub/model+lora", "gpt-4o"] {
            assert_eq!(text.parse::<ModelName>().unwrap().as_str(), text);
        }
        for text in ["", "/a", "a/", "a//b", "a/../b", "a b", "a@b", "a%2Fb", "ä", "a?", "-a", &"x".repeat(201)] {
            assert!(text.parse::<ModelName>().is_err(), "{text}");
        }
    }
}
