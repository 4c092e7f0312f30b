//! Signatures of the scheme `FC`, which clients use for two things only: temporary places for code, and programs in instances.
//!
//! The scheme has no nonce. A signature holds for a time window, so it is taken only where a repetition changes nothing of a function.
//! Source of the format: the shared reference on the FC 3.0 API, section 1.3.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use kip_auth::{Access, Key};
use kip_spec::{Problem, RequestId, code};
use kip_wire::Role;
use ring::hmac;
use serde_json::json;

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::query::decoded;

/// The scheme.
const SCHEME: &str = "FC ";
/// How far the time of a request may be from ours, seconds: as the vendor has it.
const WINDOW: i64 = 900;

/// The text that is signed.
fn canonical(method: &str, path: &str, headers: &HeaderMap) -> String {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let mut own: Vec<(&str, &str)> = headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| name.starts_with("x-fc-"))
        .map(|name| (name, value(name)))
        .collect();
    own.sort_unstable();
    let own: String = own.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let [digest, kind, date] = ["content-md5", "content-type", "date"].map(value);
    format!("{method}\n{digest}\n{kind}\n{date}\n{own}{}", decoded(path, false))
}

/// The key that signed a request, or that it brings, if the key has the role.
///
/// # Errors
/// Why it is not let through.
pub(crate) fn authenticate(fc: &Fc, head: &Parts, role: Role, function: Option<&str>) -> FcResult<Arc<Key>> {
    let sent = head.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = match sent.strip_prefix(SCHEME) {
        Some(parameters) => signer(fc, head, parameters.trim())?,
        None => {
            let checked = fc.keys.check(kip_auth::credential(&head.headers)).map_err(FcError::from);
            // The vendor knows no 401.
            checked
                .map_err(|error| FcError { status: if error.status == 401 { 403 } else { error.status }, ..error })?
        }
    };
    key.allows(Access { role, function }).map_err(Problem::from)?;
    Ok(key)
}

fn signer(fc: &Fc, head: &Parts, parameters: &str) -> FcResult<Arc<Key>> {
    let mismatch = |said: &str| FcError::new(code::FC_SIGNATURE, "SignatureNotMatch", said);
    let (id, signature) = parameters.split_once(':').ok_or_else(|| mismatch("Authorization is FC ID:SIGNATURE"))?;
    let unknown =
        || FcError::new(code::FC_SIGNATURE, "InvalidAccessKeyID", "the access-key id is not known to this server");
    let (key, secret) = fc.keys.pair(id).ok_or_else(unknown)?;
    let sent = BASE64_STANDARD.decode(signature).map_err(|_| mismatch("the signature is not base64"))?;
    let text = canonical(head.method.as_str(), head.uri.path(), &head.headers);
    let own = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    hmac::verify(&own, text.as_bytes(), &sent)
        .map_err(|_| mismatch("the signature is not that of this request and this access key"))?;
    let date = head.headers.get("date").and_then(|value| value.to_str().ok()).unwrap_or_default();
    require_recent(date)?;
    fc.keys.use_pair(&key).map_err(|problem| FcError { status: 403, ..FcError::from(problem) })?;
    Ok(key)
}

/// Refuses a time that is too far from ours. `date` is as in HTTP: `Mon, 30 Nov 2026 12:00:00 GMT`.
///
/// # Errors
/// Where it is no time, or too far.
pub(crate) fn require_recent(date: &str) -> FcResult<()> {
    let at = jiff::fmt::rfc2822::parse(date.trim()).map_err(|_| {
        FcError::new(
            code::FC_SIGNATURE,
            "MissingRequiredHeader",
            "date is a time such as Mon, 30 Nov 2026 12:00:00 GMT",
        )
    })?;
    let now = kip_host::clock::wall_millis().div_euclid(1_000);
    if (at.timestamp().as_second() - now).abs() > WINDOW {
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
    fn the_text_has_the_path_decoded_and_the_headers_of_the_vendor_sorted() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-fc-b", "2"), ("x-fc-a", " 1 "), ("date", "D"), ("content-type", "T"), ("host", "h")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(canonical("GET", "/2016-08-15/a%20b", &headers), "GET\n\nT\nD\nx-fc-a:1\nx-fc-b:2\n/2016-08-15/a b");
    }

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
