//! What tells whether a second submission asks for the same as the first: a digest of all that the function would have seen.

use sha2::{Digest, Sha256};

use crate::envelope::Call;

/// Headers that differ between two tries of one request: they name the try, its path through the network or its time. They are not
/// part of the fingerprint, so that a client that tries again is recognised.
const OF_THE_TRY: [&str; 16] = [
    "b3",
    "baggage",
    "date",
    "forwarded",
    "idempotency-key",
    "traceparent",
    "tracestate",
    "user-agent",
    "via",
    "x-amzn-trace-id",
    "x-client-request-id",
    "x-correlation-id",
    "x-real-ip",
    "x-request-id",
    "x-request-start",
    "x-stainless-retry-count",
];

fn is_of_the_try(name: &str) -> bool {
    OF_THE_TRY.contains(&name) || ["x-b3-", "x-datadog-", "x-forwarded-"].iter().any(|prefix| name.starts_with(prefix))
}

/// A host without its port: a server that starts anew may have another one.
fn host_name(host: &str) -> String {
    let end = host.rfind(':').filter(|colon| !host[*colon..].contains(']')).unwrap_or(host.len());
    host[..end].to_ascii_lowercase()
}

/// The digest of a submission: of its qualifier, method, path, host, headers and payload.
pub(crate) fn fingerprint(qualifier: &str, call: &Call, payload: &[u8]) -> [u8; 32] {
    // A client may write its headers in another order; the values of one name keep theirs.
    let mut headers: Vec<&(String, String)> = call.headers.iter().filter(|(name, _)| !is_of_the_try(name)).collect();
    headers.sort_by(|one, other| one.0.cmp(&other.0));
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    };
    let host = host_name(call.origin.host.as_deref().unwrap_or_default());
    for part in [qualifier, &call.method, &call.path, &host] {
        add(part.as_bytes());
    }
    add(&(headers.len() as u64).to_le_bytes());
    for (name, value) in headers {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    add(payload);
    digest.finalize().into()
}

/// The digest as schema 3 of the store had it: of method, path and payload.
pub(crate) fn earlier(call: &Call, payload: &[u8]) -> [u8; 16] {
    let mut digest = Sha256::new();
    for part in [call.method.as_bytes(), call.path.as_bytes(), payload] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&digest.finalize()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(headers: &[(&str, &str)]) -> Call {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Call { headers, ..Call::event(None) }
    }

    fn of(headers: &[(&str, &str)]) -> [u8; 32] {
        fingerprint("LATEST", &call(headers), b"{}")
    }

    #[test]
    fn whatever_the_function_would_have_seen_counts() {
        let first = of(&[("x-user", "alpha"), ("accept", "a"), ("accept", "b")]);
        assert_eq!(first, of(&[("accept", "a"), ("x-user", "alpha"), ("accept", "b")]), "the order of names does not");
        assert_ne!(first, of(&[("x-user", "beta"), ("accept", "a"), ("accept", "b")]));
        assert_ne!(first, of(&[("x-user", "alpha"), ("accept", "b"), ("accept", "a")]));
        assert_ne!(first, of(&[("x-user", "alpha"), ("accept", "a")]));
        assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
        let one = call(&[]);
        let mut other = one.clone();
        other.origin.host = Some("b.example".to_owned());
        assert_ne!(fingerprint("LATEST", &one, b""), fingerprint("LATEST", &other, b""));
        let with_port = |host: &str| {
            let mut call = one.clone();
            call.origin.host = Some(host.to_owned());
            fingerprint("LATEST", &call, b"")
        };
        assert_eq!(with_port("b.example:81"), with_port("B.example"), "a port is none of the function's business");
        assert_ne!(with_port("[::1]:81"), with_port("[::2]:81"));
        assert_ne!(fingerprint("LATEST", &one, b""), fingerprint("3", &one, b""));
        assert_ne!(fingerprint("LATEST", &one, b""), fingerprint("LATEST", &one, b"x"));
        other = Call { path: "/other".to_owned(), ..one.clone() };
        assert_ne!(fingerprint("LATEST", &one, b""), fingerprint("LATEST", &other, b""));
    }

    #[test]
    fn what_names_the_try_does_not() {
        let first = of(&[("x-user", "alpha"), ("traceparent", "00-1"), ("x-stainless-retry-count", "0")]);
        let second =
            [("x-user", "alpha"), ("traceparent", "00-2"), ("x-stainless-retry-count", "1"), ("x-b3-spanid", "9")];
        assert_eq!(first, of(&second));
        assert_eq!(first, of(&[("x-user", "alpha")]));
    }
}
