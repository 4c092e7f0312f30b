//! The head of an HTTP/1 request, looked at before the parser sees it. Pure.
//!
//! hyper takes some heads that two servers may read in two ways: bare line feeds, a length besides chunks, no host or two.
//! Whoever forwards such a request can be made to forward another one than it authorised, so they end here, each with a
//! reason. What is let through is a subset of what hyper takes.

use memchr::{memchr, memchr_iter};

use super::fault::Fault;

/// What a head may measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of all of it.
    pub head: usize,
    /// Header lines.
    pub headers: usize,
    /// Bytes of the target.
    pub target: usize,
}

/// How a request's body is marked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes follow, perhaps none.
    Length(u64),
    /// Chunks follow.
    Chunked,
    /// No body, and the connection may become something else.
    Upgrade,
}

/// Where a head ends: behind its empty line. Looks from `from` on.
pub(crate) fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(2).min(bytes.len());
    for at in memchr_iter(b'\n', &bytes[from..]) {
        let after = &bytes[from + at + 1..];
        match after {
            // A bare line feed ends a line for hyper too; it is refused when the head is looked at.
            [b'\n', ..] => return Some(from + at + 2),
            [b'\r', b'\n', ..] => return Some(from + at + 3),
            _ => {}
        }
    }
    None
}

/// Looks at a whole head, its empty line included, and says how the body is marked out.
///
/// # Errors
/// [`Fault`] with the first thing that is wrong.
pub(crate) fn check(head: &[u8], limits: &Limits) -> Result<Framing, Fault> {
    if head.len() > limits.head {
        return Err(Fault::HeadTooLarge);
    }
    let mut lines = Lines { rest: head };
    let first = lines.next().ok_or(Fault::RequestLine)??;
    let request = request_line(first, limits)?;
    let mut seen = HeaderSummary::default();
    let mut count = 0;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            return seen.framing(&request);
        }
        count += 1;
        if count > limits.headers {
            return Err(Fault::TooManyHeaders);
        }
        seen.header(line)?;
    }
    Err(Fault::RequestLine)
}

/// Lines that end with CRLF, without it.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at(at);
        self.rest = &rest[1..];
        let Some((b'\r', line)) = line.split_last() else { return Some(Err(Fault::BareLineFeed)) };
        Some(Ok(line))
    }
}

#[derive(Debug)]
struct RequestLine {
    /// HTTP/1.1, not 1.0.
    current: bool,
    get: bool,
}

fn request_line(line: &[u8], limits: &Limits) -> Result<RequestLine, Fault> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Fault::RequestLine);
    };
    if method.is_empty() || method.len() > 32 || !method.iter().all(|byte| is_token(*byte)) {
        return Err(Fault::RequestLine);
    }
    let current = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', ..] => return Err(Fault::Version),
        _ => return Err(Fault::RequestLine),
    };
    if target.len() > limits.target {
        return Err(Fault::TargetTooLong);
    }
    // A fragment belongs to the client; a server that cut it off would see another target than one that does not.
    let fits = |byte: u8| byte > b' ' && byte != 0x7f && byte != b'#';
    if !target.iter().all(|byte| fits(*byte)) {
        return Err(Fault::Target);
    }
    if method == b"CONNECT" {
        return Err(Fault::Connect);
    }
    // What only the guard may say.
    if method == super::guard::REFUSED.as_bytes() {
        return Err(Fault::RequestLine);
    }
    let whole = match target {
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => is_absolute(target),
    };
    if whole { Ok(RequestLine { current, get: method == b"GET" }) } else { Err(Fault::Target) }
}

/// `http://host/path` or with https, without user names.
fn is_absolute(target: &[u8]) -> bool {
    let lower = |prefix: &[u8]| target.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let rest = match (lower(b"http://"), lower(b"https://")) {
        (true, _) => &target[7..],
        (_, true) => &target[8..],
        _ => return false,
    };
    let authority = rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or_default();
    !authority.is_empty() && is_host(authority)
}

/// What of the headers decides about framing and routing.
#[derive(Debug, Default)]
struct HeaderSummary {
    host: bool,
    length: Option<u64>,
    coding: bool,
    upgrade: bool,
    websocket: bool,
}

impl HeaderSummary {
    fn header(&mut self, line: &[u8]) -> Result<(), Fault> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Fault::Folded);
        }
        let colon = memchr(b':', line).ok_or(Fault::HeaderName)?;
        let (name, value) = (&line[..colon], trimmed(&line[colon + 1..]));
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(Fault::HeaderName);
        }
        if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
            return Err(Fault::HeaderValue);
        }
        // By length first: hardly any header has one of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if std::mem::replace(&mut self.host, true) {
                    return Err(Fault::TwoHosts);
                }
                if !is_host(value) {
                    return Err(Fault::Host);
                }
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.websocket |= value.eq_ignore_ascii_case(b"websocket");
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.upgrade |=
                    value.split(|byte| *byte == b',').any(|token| trimmed(token).eq_ignore_ascii_case(b"upgrade"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = digits(value).ok_or(Fault::Length)?;
                if self.length.replace(length).is_some() {
                    return Err(Fault::TwoLengths);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let second = std::mem::replace(&mut self.coding, true);
                if second || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Coding);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, request: &RequestLine) -> Result<Framing, Fault> {
        if request.current && !self.host {
            return Err(Fault::NoHost);
        }
        match (self.coding, self.length) {
            (true, Some(_)) => Err(Fault::LengthAndChunks),
            (true, None) if !request.current => Err(Fault::CodingInOldVersion),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => match length.unwrap_or(0) {
                0 if request.current && request.get && self.upgrade && self.websocket => Ok(Framing::Upgrade),
                length => Ok(Framing::Length(length)),
            },
        }
    }
}

fn digits(value: &[u8]) -> Option<u64> {
    // One digit fewer than the largest number has, so that nothing overflows.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// A host and perhaps a port: a name, an address, or nothing at all, which HTTP allows.
pub(crate) fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'~' | b'%')
    })
}

/// Without blanks around it. Other white space is no blank to HTTP, and is found as what it is.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A character of a method or a header's name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head: 1_000, headers: 5, target: 100 };

    fn of(head: &str) -> Result<Framing, Fault> {
        check(head.as_bytes(), &LIMITS)
    }

    #[test]
    fn framing_is_told() {
        for (head, framing) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", Framing::Length(0)),
            ("GET / HTTP/1.0\r\n\r\n", Framing::Length(0)),
            ("GET http://a/x?y HTTP/1.1\r\nhost: a\r\n\r\n", Framing::Length(0)),
            ("OPTIONS * HTTP/1.1\r\nHOST:\r\n\r\n", Framing::Length(0)),
            ("POST /x HTTP/1.1\r\nHost: a:1\r\nContent-Length: 12\r\n\r\n", Framing::Length(12)),
            ("POST /x HTTP/1.1\r\nHost: [::1]:1\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked),
            ("GET / HTTP/1.1\r\nhost: a\r\nConnection: x, Upgrade\r\nupgrade: WebSocket\r\n\r\n", Framing::Upgrade),
            ("GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n", Framing::Length(0)),
            ("POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", Framing::Length(0)),
        ] {
            assert_eq!(of(head), Ok(framing), "{head:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(100));
        let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(1_000));
        let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: 1\r\n".repeat(5));
        for (head, fault) in [
            ("GET / HTTP/1.1\nhost: a\r\n\r\n", Fault::BareLineFeed),
            ("GET / HTTP/1.1\r\nhost: a\nx: 1\r\n\r\n", Fault::BareLineFeed),
            ("GET / HTTP/1.1\r\nhost: a\r\nx: 1\n\n", Fault::BareLineFeed),
            ("GET / HTTP/1.1\r\nhost: a\r\nx: 1\r2\r\n\r\n", Fault::HeaderValue),
            ("GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n", Fault::HeaderValue),
            ("GET / HTTP/1.1\r\nhost: a\r\nx: \x0c1\r\n\r\n", Fault::HeaderValue),
            ("GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n", Fault::Folded),
            ("GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n", Fault::HeaderName),
            ("GET / HTTP/1.1\r\nhost: a\r\n: 1\r\n\r\n", Fault::HeaderName),
            ("GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n", Fault::HeaderName),
            ("GET / HTTP/1.1\r\n\r\n", Fault::NoHost),
            ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", Fault::TwoHosts),
            ("GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nhost: a, b\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nhost: u@b\r\n\r\n", Fault::Host),
            (
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
                Fault::LengthAndChunks,
            ),
            (
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n",
                Fault::LengthAndChunks,
            ),
            ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", Fault::TwoLengths),
            ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\n", Fault::Length),
            ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\n", Fault::Length),
            ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x1\r\n\r\n", Fault::Length),
            ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n", Fault::Length),
            ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9999999999999999999\r\n\r\n", Fault::Length),
            ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Fault::Coding),
            ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n", Fault::Coding),
            (
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
                Fault::Coding,
            ),
            ("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", Fault::CodingInOldVersion),
            ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", Fault::Version),
            ("GET / HTTP/1.2\r\nhost: a\r\n\r\n", Fault::Version),
            ("GET /\r\nhost: a\r\n\r\n", Fault::RequestLine),
            ("GET  / HTTP/1.1\r\nhost: a\r\n\r\n", Fault::RequestLine),
            ("GET / x HTTP/1.1\r\nhost: a\r\n\r\n", Fault::RequestLine),
            ("G(T / HTTP/1.1\r\nhost: a\r\n\r\n", Fault::RequestLine),
            ("GET / http/1.1\r\nhost: a\r\n\r\n", Fault::RequestLine),
            ("GET a HTTP/1.1\r\nhost: a\r\n\r\n", Fault::Target),
            ("GET * HTTP/1.1\r\nhost: a\r\n\r\n", Fault::Target),
            ("GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n", Fault::Target),
            ("GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n", Fault::Target),
            ("GET http://u@a/ HTTP/1.1\r\nhost: a\r\n\r\n", Fault::Target),
            ("GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", Fault::Target),
            ("GET /\u{7f} HTTP/1.1\r\nhost: a\r\n\r\n", Fault::Target),
            ("GET /\t HTTP/1.1\r\nhost: a\r\n\r\n", Fault::Target),
            (&long, Fault::TargetTooLong),
            (&large, Fault::HeadTooLarge),
            (&many, Fault::TooManyHeaders),
        ] {
            assert_eq!(of(head), Err(fault), "{head:?}");
        }
    }

    #[test]
    fn the_end_is_found_however_the_bytes_come() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nbody";
        for from in 0..head.len() {
            let found = end_of_head(head, from);
            assert_eq!(found, (from <= 26).then_some(27), "{from}");
        }
        assert_eq!(end_of_head(b"GET / HTTP/1.1\n\nx", 0), Some(16));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\nhost: a\r\n\r", 0), None);
    }
}
