//! How a task is to be run, as it is stored with it: settled when it is accepted, so that a later change of the function's
//! configuration does not touch work that is on its way.

use std::net::IpAddr;

use kip_spec::job::ExitCodes;
use serde::{Deserialize, Serialize};

use crate::config::Destinations;

/// How a task is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The id of the request that brought it.
    pub request: String,
    /// The name of the key that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the function is called with.
    pub call: Call,
    /// Errors after which it is run again.
    pub retries: u32,
    /// How long one run may take, milliseconds.
    pub timeout: u64,
    /// Who is told.
    #[serde(default)]
    pub destinations: Destinations,
    /// Of a job: which exit codes are worth another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exits: Option<ExitCodes>,
    /// Of a job: for which time of its timer, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<i64>,
    /// How many tasks before it led to it, each as the destination of the one before.
    #[serde(default, skip_serializing_if = "is_none")]
    pub depth: u8,
}

fn is_none(depth: &u8) -> bool {
    *depth == 0
}

/// What the function is called with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers, without those that only we may set.
    pub headers: Vec<(String, String)>,
    /// What an instance is told of the connection that it came by; nothing of an event.
    #[serde(default, skip_serializing_if = "Origin::is_unknown")]
    pub origin: Origin,
}

/// The connection that a request came by, as an instance is told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// What the caller took for our name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Who called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// It came over TLS.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub secure: bool,
    /// What of the path was ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

impl Origin {
    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl Call {
    /// An event: the payload is all there is to it.
    pub fn event(content_type: Option<String>) -> Self {
        let content_type = content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        Self {
            method: "POST".to_owned(),
            path: "/invoke".to_owned(),
            headers: vec![("content-type".to_owned(), content_type)],
            origin: Origin::default(),
        }
    }
}

/// The head of a stored answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// Its content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// It was longer than what is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}
