//! Our own answers to gRPC callers, in their words: a status in the head of an answer without a body.

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::response::Parts;
use kip_spec::Problem;

/// Statuses of gRPC by their numbers (its `statuscodes` document).
mod status {
    pub(super) const INVALID_ARGUMENT: u8 = 3;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const UNAUTHENTICATED: u8 = 16;
}

/// Writes a problem into the head of an answer.
pub(super) fn render(head: &mut Parts, problem: &Problem) {
    let number = number_of(head.status);
    head.status = StatusCode::OK;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert("grpc-status", HeaderValue::from(u16::from(number)));
    let message = format!("{} {}", problem.code, problem.message);
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(message.trim_end())) {
        head.headers.insert("grpc-message", message);
    }
    if let Some(seconds) = problem.retry_after {
        head.headers.insert("grpc-retry-pushback-ms", HeaderValue::from(seconds.saturating_mul(1_000)));
    }
}

fn number_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 | 411 | 413 | 414 | 431 => status::INVALID_ARGUMENT,
        401 => status::UNAUTHENTICATED,
        403 => status::PERMISSION_DENIED,
        404 | 405 | 501 => status::UNIMPLEMENTED,
        408 | 504 => status::DEADLINE_EXCEEDED,
        429 => status::RESOURCE_EXHAUSTED,
        502 | 503 => status::UNAVAILABLE,
        _ => status::INTERNAL,
    }
}

/// As gRPC wants messages: printable ASCII but for the percent sign.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut all, byte| {
        match byte {
            b' '..=b'~' if byte != b'%' => all.push(char::from(byte)),
            _ => all.push_str(&format!("%{byte:02X}")),
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_printable() {
        assert_eq!(percent_encoded("voll: 100 % — später"), "voll: 100 %25 %E2%80%94 sp%C3%A4ter");
    }
}
