//! Errors on their way out.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use kip_spec::{Problem, code};
use kip_wire::Errors;

/// One problem or several.
#[derive(Debug)]
pub(crate) struct ApiError(Vec<Problem>);

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// The first problem, which stands for all where only one can be told.
    pub(crate) fn into_problem(self) -> Problem {
        self.0.into_iter().next().unwrap_or_else(|| Problem::new(code::API_BAD_REQUEST, "the request failed"))
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl From<Vec<Problem>> for ApiError {
    fn from(problems: Vec<Problem>) -> Self {
        Self(problems)
    }
}

impl From<kip_control::Error> for ApiError {
    fn from(error: kip_control::Error) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut problems = self.0;
        let first =
            problems.first().cloned().unwrap_or_else(|| Problem::new(code::API_BAD_REQUEST, "the request failed"));
        if problems.len() == 1 {
            problems.clear();
        }
        let status = StatusCode::from_u16(first.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // What is not implemented yet is no fault of the server.
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            tracing::error!(code = %first.code, problem = %first, "the API answers with an error");
        }
        let (code, retry_after) = (first.code, first.retry_after);
        let mut response = (status, Json(Errors { error: first, errors: problems })).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For the audit record.
        response.extensions_mut().insert(code);
        response
    }
}
