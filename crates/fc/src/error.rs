//! Errors in the vendor's form: `{"Code", "Message", "RequestId"}`, from every layer, with our own code in a header.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode};
use kip_spec::{Code, Problem, RequestId, code};
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
        Self { retry_after, ..Self::new(own, vendor_code(own), message) }
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

/// The vendor's code for one of ours.
pub(crate) fn vendor_code(own: Code) -> &'static str {
    match own {
        code::FUNCTION_NOT_FOUND | code::FUNCTION_REMOVED => "FunctionNotFound",
        code::VERSION_NOT_FOUND => "VersionNotFound",
        code::ALIAS_NOT_FOUND => "AliasNotFound",
        code::TRIGGER_NOT_FOUND => "TriggerNotFound",
        code::TRIGGER_EXISTS => "TriggerAlreadyExists",
        code::FUNCTION_EXISTS | code::FUNCTION_NAME_CASE => "FunctionAlreadyExists",
        code::ALIAS_EXISTS => "AliasAlreadyExists",
        code::LAYER_NOT_FOUND => "LayerNotFound",
        code::DOMAIN_NOT_FOUND => "DomainNameNotFound",
        code::DOMAIN_EXISTS => "DomainNameAlreadyExists",
        code::TASK_NOT_FOUND => "AsyncTaskNotFound",
        code::TASK_CONFIG_MISSING => "AsyncConfigNotFound",
        code::TASK_CONFLICT => "AsyncTaskAlreadyExists",
        code::CODE_ARCHIVE => "InvalidArgument",
        _ => match own.status() {
            400 => "InvalidArgument",
            401 | 403 => "AccessDenied",
            404 | 405 => "PathNotSupported",
            409 => "ResourceConflict",
            412 => "PreconditionFailed",
            413 => "EntityTooLarge",
            429 => "ResourceExhausted",
            503 => "ServiceUnavailable",
            _ => "InternalServerError",
        },
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
        assert_eq!(vendor_code(code::FUNCTION_NOT_FOUND), "FunctionNotFound");
        assert_eq!(vendor_code(code::STORE_FULL), "InternalServerError");
        assert_eq!(vendor_code(code::ROLE_TOO_LOW), "AccessDenied");
    }
}
