//! Our own answers to gRPC callers, in their words: a status in the head of an answer without a body.

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use kip_relay::{Answer, Body};

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

/// A problem as a gRPC caller understands it; an instance's answer as it is.
pub(crate) fn told(answer: Answer) -> Answer {
    let Some(code) = answer.headers().get("x-kip-error").cloned() else { return answer };
    let (mut head, body) = answer.into_parts();
    let number = number_of(head.status);
    let reason = match &body {
        Body::Text(Some(text)) => reason_of(text),
        _ => String::new(),
    };
    let message = format!("{} {reason}", code.to_str().unwrap_or_default());
    head.status = StatusCode::OK;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert("grpc-status", HeaderValue::from(u16::from(number)));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(message.trim_end())) {
        head.headers.insert("grpc-message", message);
    }
    if let Some(seconds) = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok()) {
        head.headers.insert("grpc-retry-pushback-ms", HeaderValue::from(seconds.saturating_mul(1_000)));
    }
    Response::from_parts(head, Body::Text(None))
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

fn reason_of(text: &[u8]) -> String {
    let read: Option<serde_json::Value> = serde_json::from_slice(text).ok();
    read.and_then(|value| Some(value.get("error")?.get("message")?.as_str()?.to_owned())).unwrap_or_default()
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
    use kip_spec::{Problem, RequestId, code};

    #[test]
    fn problems_are_told_in_the_words_of_grpc() {
        let id = RequestId::from_bits(7);
        let answer = told(kip_relay::problem(Problem::new(code::QUEUE_FULL, "voll: 100 % — später"), &id));
        assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &HeaderValue::from(8)));
        let message = answer.headers()["grpc-message"].to_str().unwrap();
        assert_eq!(message, "KW-2004 voll: 100 %25 %E2%80%94 sp%C3%A4ter");
        let own = Response::new(Body::text("x"));
        assert_eq!(told(own).status().as_u16(), 200);
    }
}
