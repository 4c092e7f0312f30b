//! A request whose caller is known, and the answers that operations give.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use kip_auth::{Access, Author, Key};
use kip_spec::{Problem, QualifierName, RequestId};
use kip_wire::Role;
use serde_json::{Map, Value};

use crate::error::{FcError, FcResult};
use crate::query::QueryFields;

/// A request whose signature or key was checked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) key: Arc<Key>,
    pub(crate) peer: Option<IpAddr>,
    /// What stands in the path for its parameters, decoded.
    pub(crate) parameters: Vec<String>,
    pub(crate) query: QueryFields,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// A parameter of the path.
    pub(crate) fn parameter(&self, number: usize) -> &str {
        self.parameters.get(number).map(String::as_str).unwrap_or_default()
    }

    /// The function that the path names.
    pub(crate) fn function(&self) -> &str {
        self.parameter(0)
    }

    /// The caller of a change.
    pub(crate) fn author(&self) -> Author {
        Author { by: self.key.name().to_string(), if_match: None }
    }

    /// Whether the caller may touch a function that stands in the body.
    pub(crate) fn require_function(&self, function: &str) -> FcResult<()> {
        let access = Access { role: Role::Invoke, function: Some(function) };
        Ok(self.key.allows(access).map_err(Problem::from)?)
    }

    /// The body as an object. An empty one has no fields.
    pub(crate) fn object(&self) -> FcResult<Map<String, Value>> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        let read: Result<Map<String, Value>, _> = serde_json::from_slice(&self.body);
        let mut object = read.map_err(|error| FcError::invalid(format!("the body is no object in JSON: {error}")))?;
        object.retain(|_, value| !value.is_null());
        Ok(object)
    }

    /// A header; quotes around its value are left out, which some clients add.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?.to_str().ok()?.trim();
        Some(value.trim_matches('"')).filter(|value| !value.is_empty())
    }
}

/// A qualifier as it is written.
pub(crate) fn qualifier(text: &str) -> FcResult<QualifierName> {
    text.parse().map_err(|error: kip_spec::qualifier::QualifierError| FcError::invalid(error.to_string()))
}

/// An answer with JSON.
pub(crate) fn json(value: Value) -> Response {
    Json(value).into_response()
}

/// An answer without a body.
pub(crate) fn empty() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// A text field of an object.
pub(crate) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> FcResult<Option<&'a str>> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(FcError::invalid(format!("{name} is text"))),
    }
}

/// A text field that must be there.
pub(crate) fn required<'a>(object: &'a Map<String, Value>, name: &str) -> FcResult<&'a str> {
    text(object, name)?.filter(|text| !text.is_empty()).ok_or_else(|| FcError::invalid(format!("{name} is required")))
}

/// Milliseconds since 1970 as the vendor writes times.
pub(crate) fn time(millis: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    format!("{time:.3}")
}
