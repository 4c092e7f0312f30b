//! Errors in the vendor's form: `{"Code", "Message", "RequestId"}`, from every layer, with our own code in a header.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode};
use kip_spec::{Code, Problem, RequestId, code, fc_code};
use serde_json::json;

/// What an operation gives.
pub(crate) type FcResult<T> = Result<T, FcError>;

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FcError {
    pub(crate) status: u16,
    /// The vendor's code.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Ours.
    pub(crate) own: Code,
    /// Seconds.
    pub(crate) retry_after: Option<u64>,
}

impl FcError {
    pub(crate) fn new(own: Code, code: &'static str, message: impl Into<String>) -> Self {
        Self { status: own.status(), code, message: message.into(), own, retry_after: None }
    }

    /// A value that the interface does not allow.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(code::API_BAD_REQUEST, "InvalidArgument", message)
    }

    /// Who asks may not.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(code::FC_SIGNATURE, "AccessDenied", message)
    }

    /// A caller is refused. The vendor knows no 401.
    pub(crate) fn forbidden(problem: Problem) -> Self {
        let error = Self::from(problem);
        Self { status: if error.status == 401 { 403 } else { error.status }, ..error }
    }

    /// What has no counterpart on one's own hardware, or not yet.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(code::FC_REFUSED, "PathNotSupported", message)
    }

    /// The answer, with the id of its request.
    pub(crate) fn render(self, request: &RequestId) -> Response {
        let Self { status, code, message, own, retry_after } = self;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::error!(code = %own, request = request.as_str(), message, "the API of Function Compute answers with an error");
        }
        let body = json!({"Code": code, "Message": message, "RequestId": request.as_str()});
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&own.to_string()) {
            headers.insert("x-kip-error", value);
        }
        if let Some(seconds) = retry_after {
            headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
            headers.insert("x-acs-retry-after", HeaderValue::from(seconds.saturating_mul(1_000)));
        }
        // For the audit record.
        response.extensions_mut().insert(own);
        response
    }
}

impl From<Problem> for FcError {
    fn from(problem: Problem) -> Self {
        let Problem { code: own, message, cause, hint, retry_after, .. } = problem;
        let parts = std::iter::once(message).chain(cause).chain(hint);
        let message = parts.collect::<Vec<_>>().join("; ");
        Self { retry_after, ..Self::new(own, fc_code::of(own), message) }
    }
}

impl From<kip_control::Error> for FcError {
    fn from(error: kip_control::Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<kip_tasks::Error> for FcError {
    fn from(error: kip_tasks::Error) -> Self {
        let retry_after = error.retry_after();
        Self { retry_after, ..Problem::from(error).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_ours_has_one_of_the_vendor_and_a_status() {
        for entry in code::ALL {
            let error = FcError::from(Problem::new(entry.code, "x").hint("y"));
            assert_eq!((error.status, error.message.as_str()), (entry.status, "x; y"));
            assert!(error.code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        }
    }
}
