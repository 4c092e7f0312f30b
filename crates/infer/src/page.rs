//! The page at `/`: one file, nothing from elsewhere, relative addresses only, because it is also served below a path.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::http::answer;

const PAGE: &str = include_str!("page.html");

/// The page with headers that keep it to itself.
pub(crate) fn page() -> Response<Full<Bytes>> {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let mut response = answer::with_type(StatusCode::OK, kind, PAGE);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'",
        ),
    );
    response
}
