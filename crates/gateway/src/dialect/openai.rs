//! Errors as clients of the OpenAI API read them: `message`, `type`, `param`, `code`. Ours beyond these are members that such clients
//! pass over.

use kip_spec::{Problem, code};
use serde_json::{Value, json};

pub(super) fn render(problem: &Problem) -> String {
    let (name, param) = match problem.code {
        code::MODEL_UNKNOWN => ("model_not_found".to_owned(), Some("model")),
        code::MODEL_NOT_NAMED => (problem.code.to_string(), Some("model")),
        other => (other.to_string(), None),
    };
    let mut error = json!({
        "message": message(problem),
        "type": kind(problem.code.status()),
        "param": param,
        "code": name,
    });
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            error[name] = Value::from(value);
        }
    };
    add("cause", problem.cause.as_deref());
    add("hint", problem.hint.as_deref());
    add("request_id", problem.request_id.as_deref());
    json!({"error": error}).to_string()
}

/// Clients show the message alone: it says the way out as well.
fn message(problem: &Problem) -> String {
    match &problem.hint {
        Some(hint) => format!("{}; {hint}", problem.message),
        None => problem.message.clone(),
    }
}

/// The types that the official clients know.
fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}
