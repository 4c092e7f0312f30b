//! What of a request's and an answer's head belongs to one connection only, and what nobody outside may say.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http_body::Frame;
use kip_control::Version;
use kip_spec::qualifier::LATEST;
use kip_spec::{QualifierName, RequestId};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");
/// Some servers take a line for a dash.
const X_API_KEY_OF_CGI: HeaderName = HeaderName::from_static("x_api_key");
const API_KEY_OF_CGI: HeaderName = HeaderName::from_static("api_key");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY: HeaderName = HeaderName::from_static("proxy");
const FC_REQUEST_ID: HeaderName = HeaderName::from_static("x-fc-request-id");
const FC_QUALIFIER: HeaderName = HeaderName::from_static("x-fc-qualifier");
const FC_VERSION_ID: HeaderName = HeaderName::from_static("x-fc-version-id");
const KIP_REQUEST_ID: HeaderName = HeaderName::from_static("x-kip-request-id");
const INSTANCE_TOKEN: HeaderName = HeaderName::from_static("x-kip-instance-token");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// What concerns one connection, `Connection` and `TE` apart.
/// `Proxy` is none of them: programs that make variables of headers take it for their own setting.
static HOP_BY_HOP: [HeaderName; 7] =
    [KEEP_ALIVE, PROXY_CONNECTION, PROXY, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TRANSFER_ENCODING, UPGRADE];
/// Headers that every request gets from us.
const OURS: usize = 10;

/// Removes headers that concern one connection (RFC 9110, section 7.6.1), those named by `Connection` included.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // Naming it must not make the request one without a host.
            .filter(|name| *name != HOST)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    // One look at those that are there is cheaper than a search for each that may be.
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
    if headers.get(TE).is_some_and(|value| value != "trailers") {
        headers.remove(TE);
    }
}

/// What an instance may not say to callers.
pub(crate) const OURS_TO_CALLERS: &[&str] = &["x-kip-"];
/// What callers may not say to an instance.
const CLAIMS: &[&str] = &["x-fc-", "x-kip-", "x-forwarded-", "forwarded", "x-real-ip"];

/// Removes headers that begin so, which only we may set. A line in place of a dash makes no difference: some servers take one for
/// the other.
pub(crate) fn strip_ours(headers: &mut HeaderMap, prefixes: &[&str]) {
    let begins = |name: &HeaderName| {
        let name = name.as_str();
        prefixes.iter().any(|prefix| {
            // Most names end this at their first letter.
            let same = |(ours, theirs): (u8, u8)| ours == theirs || (ours == b'-' && theirs == b'_');
            name.len() >= prefix.len() && prefix.bytes().zip(name.bytes()).all(same)
        })
    };
    // No memory is asked for where there are none, as in nearly all requests.
    let ours: Vec<HeaderName> = headers.keys().filter(|name| begins(name)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Trailers of a request, without what only we may say.
pub(crate) fn trailers_toward_instance(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip_hop_by_hop(&mut trailers);
            strip_ours(&mut trailers, CLAIMS);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Trailers of an answer, likewise.
pub(crate) fn trailers_toward_caller(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip_hop_by_hop(&mut trailers);
            strip_ours(&mut trailers, OURS_TO_CALLERS);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Makes a caller's head fit for the instance: what only we may say is removed and said by us.
pub(crate) fn toward_instance(headers: &mut HeaderMap, call: &ForwardedHeaders<'_>) {
    strip_hop_by_hop(headers);
    // Answered here: the body is asked for when there is somebody to take it.
    headers.remove(EXPECT);
    join_cookies(headers);
    strip_ours(headers, CLAIMS);
    let our_key = |value: &HeaderValue| {
        // A key, or a signature with an access-key pair. Bytes: a value that is no text is passed on as well.
        let has = |part: &[u8]| value.as_bytes().windows(part.len()).any(|window| window == part);
        has(b"kw_")
            || has(b"KWAK")
            || value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "))
                && decoded(&value.as_bytes()[6..]).windows(3).any(|three| three == b"kw_")
    };
    // A credential of the function's own goes through.
    for name in [AUTHORIZATION, X_API_KEY, API_KEY, X_API_KEY_OF_CGI, API_KEY_OF_CGI] {
        if headers.get_all(&name).iter().any(our_key) {
            headers.remove(name);
        }
    }
    // One of the contract's, and those below.
    headers.reserve(OURS);
    for (name, value) in &call.version.headers {
        headers.insert(name.clone(), value.clone());
    }
    let qualifier = match call.qualifier {
        None | Some(QualifierName::Latest) => Ok(HeaderValue::from_static(LATEST)),
        Some(QualifierName::Alias(name)) => HeaderValue::from_str(name.as_str()),
        Some(other) => HeaderValue::from_str(&other.to_string()),
    };
    if let Ok(qualifier) = qualifier {
        headers.insert(FC_QUALIFIER, qualifier);
    }
    if let Some(version) = call.version.header() {
        headers.insert(FC_VERSION_ID, version);
    }
    if let Some(token) = call.token {
        headers.insert(INSTANCE_TOKEN, token.clone());
    }
    if let Ok(id) = HeaderValue::from_str(call.request.as_str()) {
        headers.insert(FC_REQUEST_ID, id.clone());
        headers.insert(KIP_REQUEST_ID, id);
    }
    if let Some(peer) = call.peer
        && let Ok(peer) = HeaderValue::try_from(peer.to_string())
    {
        headers.insert(FORWARDED_FOR, peer);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if call.secure { "https" } else { "http" }));
    if let Some(prefix) = call.prefix
        && let Ok(prefix) = HeaderValue::from_str(prefix)
    {
        headers.insert(FORWARDED_PREFIX, prefix);
    }
    let host = headers.get(HOST).cloned();
    if let Some(host) = host {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Base64, as far as it is that: a key of ours may have been sent as the password of Basic authentication.
fn decoded(text: &[u8]) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for six in text.iter().filter_map(|byte| value(*byte)) {
        (bits, held) = ((bits << 6 | u32::from(six)) & 0xfff, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}

/// HTTP/2 may split cookies over several headers; HTTP/1.1 knows one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Makes a request fit for HTTP/2: the host is part of its target there.
pub(crate) fn for_http2<T>(request: &mut http::Request<T>) {
    let host = request.headers_mut().remove(HOST);
    let host = host.as_ref().and_then(|host| host.to_str().ok()).filter(|host| !host.is_empty()).unwrap_or("localhost");
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    if let Ok(uri) = format!("http://{host}{target}").parse() {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = http::Version::HTTP_2;
}

/// What is said to the instance about a call.
pub(crate) struct ForwardedHeaders<'a> {
    pub(crate) version: &'a Version,
    /// What the instance knows its server by.
    pub(crate) token: Option<&'a HeaderValue>,
    pub(crate) qualifier: Option<&'a QualifierName>,
    pub(crate) request: &'a RequestId,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) secure: bool,
    pub(crate) prefix: Option<&'a str>,
}

/// What a fuzz target calls: any headers, and panics if something that must hold does not.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
        let value = value.get(1..).unwrap_or_default();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let before = headers.clone();
    strip_hop_by_hop(&mut headers);
    strip_ours(&mut headers, CLAIMS);
    join_cookies(&mut headers);
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION] {
        assert!(!headers.contains_key(&name), "{name} stays: {before:?}");
    }
    assert_eq!(headers.get_all(HOST).iter().count(), before.get_all(HOST).iter().count(), "{before:?}");
    assert!(headers.get_all(COOKIE).iter().nth(1).is_none());
    assert!(headers.keys().all(|name| !name.as_str().starts_with("x-fc-") && !name.as_str().starts_with("x-kip-")));
    assert!(headers.keys().all(|name| before.contains_key(name)), "nothing is added: {before:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds of coverage fuzzing, and each beginning of each.
    #[test]
    fn seeds_and_their_beginnings_pass() {
        let seed = include_bytes!("../../../fuzz/seeds/headers");
        assert_eq!(seed[0], b'h');
        (1..=seed.len()).for_each(|end| fuzz(&seed[1..end]));
    }

    #[test]
    fn a_key_in_the_password_of_basic_authentication_is_seen() {
        for (text, plain) in
            [("dTprd19zZWNyZXQ=", "u:kw_secret"), ("dXM6a3dfYWI", "us:kw_ab"), ("a3df", "kw_"), ("eDp5", "x:y")]
        {
            assert_eq!(decoded(text.as_bytes()), plain.as_bytes(), "{text}");
        }
        assert_eq!(decoded(b"\xff =!"), b"");
    }

    #[test]
    fn connection_names_headers_to_drop() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["te", "x-kept"]);
    }
}
