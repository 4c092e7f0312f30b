//! Signatures of the scheme `FC`, which clients use for three things: temporary places for code, programs in instances, and calls of functions
//! as version 2.0 makes them.
//!
//! Source of the format: the shared reference on the FC 3.0 API, section 1.3.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use kip_auth::{Access, Key};
use kip_spec::{Problem, RequestId};
use kip_wire::Role;
use serde_json::json;

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::sign_fc::time;
use crate::signatures::{self, Repetition, authorization, head_of};

/// How far the time of a request may be from ours, seconds: as the vendor has it.
const WINDOW: i64 = 900;

/// The key that signed a request, or that it brings, if the key has the role.
///
/// # Errors
/// Why it is not let through.
pub(crate) fn authenticate(fc: &Fc, head: &Parts, role: Role, function: Option<&str>) -> FcResult<Arc<Key>> {
    let key = match authorization(&head.headers) {
        // The places that it gives are worth nothing without the credentials in the answer.
        Some((signatures::FC, parameters)) => fc.signatures.scheme_fc(&head_of(head), parameters, Repetition::Allowed),
        _ => fc.keys.check(kip_auth::credential(&head.headers)),
    };
    // The vendor knows no 401.
    let key = key.map_err(FcError::forbidden)?;
    key.allows(Access { role, function }).map_err(Problem::from)?;
    Ok(key)
}

/// Refuses a time that is too far from ours. `date` is as in HTTP.
///
/// # Errors
/// Where it is no time, or too far.
pub(crate) fn require_recent(date: &str) -> FcResult<()> {
    let now = kip_host::clock::wall_millis().div_euclid(1_000);
    if (time(date)? - now).abs() > WINDOW {
        return Err(FcError::denied("the request's time differs from the server's by more than 15 minutes"));
    }
    Ok(())
}

/// An error as clients of that scheme read it.
pub(crate) fn render(error: FcError, request: &RequestId) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(json!({"ErrorCode": error.code, "ErrorMessage": error.message}))).into_response();
    if let Ok(value) = HeaderValue::from_str(&error.own.to_string()) {
        response.headers_mut().insert("x-kip-error", value);
    }
    if let Ok(value) = HeaderValue::from_str(request.as_str()) {
        response.headers_mut().insert("x-fc-request-id", value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_far_from_ours_are_refused() {
        let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
        let text =
            |hours: i64| jiff::fmt::rfc2822::to_string(&(&now + jiff::SignedDuration::from_hours(hours))).unwrap();
        assert!(require_recent(&text(0)).is_ok());
        for wrong in [text(1), text(-1), String::new(), "yesterday".to_owned()] {
            assert!(require_recent(&wrong).is_err(), "{wrong}");
        }
    }
}
