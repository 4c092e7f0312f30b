//! Answers and error answers.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use kip_spec::Problem;
use kip_spec::problem::Envelope;
use serde::Serialize;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The code of an error in text, for clients that want `error` to be a string.
const ERROR_HEADER: &str = "x-kip-error";

/// An answer with a body of a type.
pub(crate) fn with_type(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A value as JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    // Maps here have text keys and nothing else can fail; an empty object would still be JSON.
    with_type(status, JSON, serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec()))
}

fn status(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn with_code(mut response: Response<Full<Bytes>>, problem: &Problem) -> Response<Full<Bytes>> {
    if let Ok(code) = HeaderValue::from_str(&problem.code.to_string()) {
        response.headers_mut().insert(ERROR_HEADER, code);
    }
    response
}

/// An error as everywhere in Kipwake.
pub(crate) fn error(problem: Problem) -> Response<Full<Bytes>> {
    let envelope = Envelope { error: problem };
    let response = json(status(&envelope.error), &envelope);
    with_code(response, &envelope.error)
}

/// An error as KServe v2 clients expect it: `error` is a string.
pub(crate) fn text_error(problem: &Problem) -> Response<Full<Bytes>> {
    let hint = problem.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let response = json(status(problem), &serde_json::json!({ "error": format!("{problem}{hint}") }));
    with_code(response, problem)
}

/// An error as clients of the OpenAI API expect it. They show `message` alone, so it has the way out too.
pub(crate) fn openai_error(problem: &Problem) -> Response<Full<Bytes>> {
    let hint = problem.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
    let kind = if status(problem).is_client_error() { "invalid_request_error" } else { "server_error" };
    let error = serde_json::json!({
        "message": format!("{}{hint}", problem.message),
        "type": kind,
        "param": null,
        "code": problem.code.to_string(),
        "cause": problem.cause,
    });
    with_code(json(status(problem), &serde_json::json!({ "error": error })), problem)
}
