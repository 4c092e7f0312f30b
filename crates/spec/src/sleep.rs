//! How an instance gives its memory back while it is idle, and how its way back is checked.

use serde::{Deserialize, Serialize};

use crate::{Finite, Millis};

/// A request that Kipwake sends to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceCall {
    /// Its method.
    #[serde(default)]
    pub method: CallMethod,
    /// Path and query, with a leading slash.
    pub path: String,
    /// Its body, sent as JSON; `None` is an empty body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How long it may take.
    pub timeout: Millis,
}

/// The method of such a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallMethod {
    /// GET.
    Get,
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
}

impl CallMethod {
    /// As HTTP writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// The requests by which a program gives its device memory back and takes it again. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SleepCalls {
    /// Sent in this order, while no request is in flight.
    pub down: Vec<InstanceCall>,
    /// Sent in this order before the next request.
    pub up: Vec<InstanceCall>,
}

impl SleepCalls {
    /// The longest time that one direction may take, milliseconds.
    pub fn longest(&self) -> u64 {
        let sum = |calls: &[InstanceCall]| calls.iter().fold(0u64, |sum, call| sum.saturating_add(call.timeout.0));
        sum(&self.down).max(sum(&self.up))
    }

    /// Whether a caller's path is one of these, in whichever way it is written: programs decode `%73`, and many merge slashes.
    pub fn names(&self, path: &str) -> bool {
        let asked = plain(path);
        self.down.iter().chain(&self.up).any(|call| plain(&call.path) == asked)
    }
}

/// A path without its query, decoded, with single slashes and none at the end.
fn plain(path: &str) -> Vec<u8> {
    let mut plain = crate::escape::unescaped(path.split(['?', '#']).next().unwrap_or_default());
    plain.dedup_by(|next, before| *next == b'/' && *before == b'/');
    while plain.len() > 1 && plain.last() == Some(&b'/') {
        plain.pop();
    }
    plain
}

/// When an idle instance goes down to a rung below paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RungUse {
    /// Never.
    Never,
    /// When another instance needs what it gives back.
    #[default]
    WhenNeeded,
    /// After so long without a request, and when another instance needs it.
    After(Millis),
}

impl RungUse {
    /// After how long without a request, where nothing else asks for it.
    pub const fn after(self) -> Option<Millis> {
        match self {
            Self::After(time) => Some(time),
            Self::Never | Self::WhenNeeded => None,
        }
    }
}

/// A known request that an instance must answer as expected, after its start and after each wake that restored memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// The request. A slow answer counts as a wrong one.
    pub call: InstanceCall,
    /// The status of the answer.
    pub status: u16,
    /// Values of the answer's JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<CanaryValue>,
    /// By which part of the expected number an answered number may differ.
    pub tolerance: Finite,
}

/// A value that the answer must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryValue {
    /// A JSON pointer (RFC 6901).
    pub pointer: String,
    /// What stands there.
    pub expected: Scalar,
}

/// A value of JSON that is neither a list nor an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// null.
    Null,
    /// true or false.
    Flag(bool),
    /// A number.
    Number(Finite),
    /// Text.
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_however_it_is_written() {
        let call = |path: &str| InstanceCall {
            method: CallMethod::Post,
            path: path.to_owned(),
            body: None,
            timeout: Millis::from_secs(2),
        };
        let calls = SleepCalls { down: vec![call("/sleep?level=1"), call("/x")], up: vec![call("/wake_up")] };
        for path in ["/sleep", "/sleep/", "//sleep", "/%73leep", "/sl%65ep?level=2", "/wake_up", "/sleep%2F", "/x"] {
            assert!(calls.names(path), "{path}");
        }
        for path in ["/", "/sleeps", "/v1/sleep", "/Sleep", "/%7", "/sleep%"] {
            assert!(!calls.names(path), "{path}");
        }
        assert_eq!(calls.longest(), 4_000);
    }
}
