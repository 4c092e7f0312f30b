//! JSON of Function Compute, for callers who sign their requests as its clients do: `Code`, `Message`, `RequestId`, and the names of version 2.0
//! for those who use its scheme.

use http::header::WWW_AUTHENTICATE;
use http::response::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use kip_spec::{Problem, fc_code};
use serde_json::json;

/// How clients of the vendor know that the platform answers and not the function.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-fc-error-type");
const PLATFORM: HeaderValue = HeaderValue::from_static("FcCommonError");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-fc-request-id");

pub(super) fn render(head: &mut Parts, problem: Problem, is_legacy: bool) -> String {
    // The vendor knows no 401.
    if head.status == StatusCode::UNAUTHORIZED {
        head.status = StatusCode::FORBIDDEN;
        head.headers.remove(WWW_AUTHENTICATE);
    }
    let Problem { code, message, cause, hint, request_id, .. } = problem;
    let message = std::iter::once(message).chain(cause).chain(hint).collect::<Vec<_>>().join("; ");
    let id = request_id.unwrap_or_default();
    head.headers.insert(ERROR_TYPE, PLATFORM);
    head.headers.extend(HeaderValue::from_str(&id).ok().map(|id| (REQUEST_ID, id)));
    let names = if is_legacy { ["ErrorCode", "ErrorMessage"] } else { ["Code", "Message"] };
    json!({names[0]: fc_code::of(code), names[1]: message, "RequestId": id}).to_string()
}
