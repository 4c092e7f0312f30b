//! The keys of `sleep.rs` as types, for the schema and for writing.

use std::collections::BTreeMap;

use kip_spec::sleep::{self, CallMethod, RungUse};
use schemars::JsonSchema;
use serde::Serialize;

use crate::wire_text::{Duration, DurationOrKeyword, PathOnInstance};

/// The requests by which an instance gives its device memory back and takes it again.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sleep {
    /// Sent while no request is in flight.
    pub(crate) down: Calls,
    /// Sent before the next request.
    pub(crate) up: Calls,
}

/// A path, a request, or several in their order.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the list is written; the short forms are for the schema")]
pub(crate) enum Calls {
    /// The path of a POST without a body.
    Path(PathOnInstance),
    /// One request.
    One(Request),
    /// Several.
    Several(#[schemars(length(max = 16))] Vec<PathOrRequest>),
}

/// A path, or a request.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the request is written; the short form is for the schema")]
pub(crate) enum PathOrRequest {
    /// The path of a POST without a body.
    Path(PathOnInstance),
    /// The request.
    Full(Request),
}

/// A request to an instance.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// Path and query on the instance.
    pub(crate) path: PathOnInstance,
    /// `POST` if left out.
    pub(crate) method: Option<MethodKeyword>,
    /// Its body: text, or a map or list that is sent as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Body>")]
    pub(crate) body: Option<String>,
    /// How long it may take; 60s if left out.
    pub(crate) timeout: Option<Duration>,
}

/// Text, or a map or list that is sent as JSON.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "text is written; the other forms are for the schema")]
pub(crate) enum Body {
    /// As it is.
    Text(String),
    /// As JSON.
    Map(BTreeMap<String, serde_json::Value>),
    /// As JSON.
    List(Vec<serde_json::Value>),
}

/// The method of a request to an instance.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum MethodKeyword {
    Get,
    Post,
    Put,
    Delete,
}

/// How fast an idle instance must serve again.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latency {
    /// An idle instance gives back only what it can have again within this time.
    pub(crate) wake: Option<Duration>,
}

/// A request that an instance must answer as expected after its start, and after each wake that restored its memory.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Canary {
    /// Path and query on the instance.
    pub(crate) path: PathOnInstance,
    /// `GET` if left out, or `POST` with a body.
    pub(crate) method: Option<MethodKeyword>,
    /// Its body: text, or a map or list that is sent as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Body>")]
    pub(crate) body: Option<String>,
    /// The status of the answer; 200 if left out.
    #[schemars(range(min = 100, max = 599))]
    pub(crate) status: Option<u16>,
    /// Values of the answer's JSON, by JSON pointer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "Option<BTreeMap<String, ScalarValue>>")]
    pub(crate) json: BTreeMap<String, sleep::Scalar>,
    /// By which part of the expected number an answered number may differ; 0 if left out.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) tolerance: Option<f64>,
    /// An answer that takes longer counts as wrong; 10s if left out.
    pub(crate) timeout: Option<Duration>,
}

/// Text, a number, true, false or null.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "for the schema")]
pub(crate) enum ScalarValue {
    Null(()),
    Flag(bool),
    Number(f64),
    Text(String),
}

impl From<CallMethod> for MethodKeyword {
    fn from(method: CallMethod) -> Self {
        match method {
            CallMethod::Get => Self::Get,
            CallMethod::Post => Self::Post,
            CallMethod::Put => Self::Put,
            CallMethod::Delete => Self::Delete,
        }
    }
}

impl From<&sleep::SleepCalls> for Sleep {
    fn from(calls: &sleep::SleepCalls) -> Self {
        let request = |call: &sleep::InstanceCall| {
            PathOrRequest::Full(Request {
                path: PathOnInstance(call.path.clone()),
                method: Some(call.method.into()),
                body: call.body.clone(),
                timeout: Some(Duration(call.timeout)),
            })
        };
        let list = |calls: &[sleep::InstanceCall]| Calls::Several(calls.iter().map(request).collect());
        Self { down: list(&calls.down), up: list(&calls.up) }
    }
}

impl From<&sleep::Canary> for Canary {
    fn from(canary: &sleep::Canary) -> Self {
        let pair = |value: &sleep::CanaryValue| (value.pointer.clone(), value.expected.clone());
        Self {
            path: PathOnInstance(canary.call.path.clone()),
            method: Some(canary.call.method.into()),
            body: canary.call.body.clone(),
            status: Some(canary.status),
            json: canary.values.iter().map(pair).collect(),
            tolerance: Some(canary.tolerance.get()),
            timeout: Some(Duration(canary.call.timeout)),
        }
    }
}

impl From<RungUse> for DurationOrKeyword {
    fn from(rung: RungUse) -> Self {
        match rung {
            RungUse::Never => Self::Keyword("never"),
            RungUse::WhenNeeded => Self::Keyword("when-needed"),
            RungUse::After(time) => Self::Time(Duration(time)),
        }
    }
}
