//! Which names this server may be called by, and which web pages may call it. Pure.
//!
//! A web page of elsewhere can send requests to a loopback port: by name, if its own name is made to mean 127.0.0.1 (DNS rebinding),
//! or across origins. So a caller without a key must use a name that nobody else can own, and a page of another origin must be
//! one that is let in. The allowed names are made here, from what the server listens on and from its settings.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use kip_relay::{Answer, Body};
use kip_spec::function::{Cors, defaults};
use kip_spec::origin::{Names, is_own_page, name_of};
use kip_spec::{Problem, code};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

fn text(headers: &HeaderMap, name: http::HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// The origin of the page that sends a request, if it is another one than what it calls.
fn foreign_origin(headers: &HeaderMap) -> Option<&str> {
    let origin = text(headers, ORIGIN)?;
    (!is_own_page(origin, text(headers, HOST).unwrap_or_default())).then_some(origin)
}

/// Whether a browser asks what a page may send.
pub(crate) fn is_preflight<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The method that a request is judged by. A preflight asks for another one; a WebSocket over HTTP/2 is what a GET begins over HTTP/1.1.
pub(crate) fn method<B>(request: &Request<B>) -> &str {
    match request.method() {
        &Method::CONNECT => "GET",
        &Method::OPTIONS if is_preflight(request) => {
            let asked = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD);
            asked.and_then(|asked| asked.to_str().ok()).unwrap_or_default()
        }
        method => method.as_str(),
    }
}

fn takes(names: &Names, cors: Option<&Cors>, origin: &str) -> bool {
    match cors {
        Some(cors) => cors.origins.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin)),
        None => names.takes_origin(origin),
    }
}

/// Looks at the name by which a caller without a key comes, unless that `is_named` by a custom domain, and at the page that sends it.
///
/// # Errors
/// What is answered in place of it.
pub(crate) fn check(
    names: &Names,
    cors: Option<&Cors>,
    request: &Request<impl Sized>,
    is_named: bool,
) -> Result<(), Problem> {
    let headers = request.headers();
    if let Some(host) = text(headers, HOST).filter(|host| !is_named && !names.takes_host(host)) {
        let name = name_of(host);
        return Err(Problem::new(code::HOST_UNKNOWN, format!("this server is not called `{name}`")).hint(format!(
            "call it by its address, send a key, or allow the name in kipwake.toml: gateway.hosts = \"{name}\""
        )));
    }
    if let Some(origin) = foreign_origin(headers).filter(|origin| !takes(names, cors, origin)) {
        return Err(Problem::new(code::ORIGIN_REFUSED, format!("web pages of `{origin}` may not call this"))
            .hint("allow the origin in kip.yaml (trigger.http.cors.origins) or in kipwake.toml (gateway.origins), or send a key"));
    }
    // Pages can send some requests without an Origin. Following a link is not among what is refused.
    let fetch = |name: HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    if fetch(SEC_FETCH_SITE) == Some(b"cross-site")
        && fetch(SEC_FETCH_MODE) != Some(b"navigate")
        && !headers.contains_key(ORIGIN)
        && !cors.map_or(&names.origins, |cors| &cors.origins).iter().any(|known| known == "*")
    {
        return Err(Problem::new(code::ORIGIN_REFUSED, "web pages of another site may not call this")
            .hint("let the page ask with CORS: trigger.http.cors in kip.yaml, or gateway.origins in kipwake.toml"));
    }
    Ok(())
}

/// The answer to a preflight. It carries no key, and none is needed to be told what may be sent with one.
pub(crate) fn preflight<B>(names: &Names, cors: Option<&Cors>, methods: &[String], request: &Request<B>) -> Answer {
    let mut answer = Response::new(Body::text(""));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let asked = request.headers();
    let headers = answer.headers_mut();
    headers.insert(
        VARY,
        HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers"),
    );
    let Some(origin) = text(asked, ORIGIN).filter(|origin| takes(names, cors, origin)) else { return answer };
    allow_origin(headers, cors, origin);
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    match methods {
        [] => set(ACCESS_CONTROL_ALLOW_METHODS, text(asked, ACCESS_CONTROL_REQUEST_METHOD).unwrap_or("GET")),
        methods => set(ACCESS_CONTROL_ALLOW_METHODS, &methods.join(", ")),
    }
    match cors.map(|cors| cors.headers.as_slice()) {
        None | Some([]) => {
            if let Some(wanted) = text(asked, ACCESS_CONTROL_REQUEST_HEADERS) {
                set(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
            }
        }
        Some(allowed) => set(ACCESS_CONTROL_ALLOW_HEADERS, &allowed.join(", ")),
    }
    let max_age = cors.map_or(defaults::CORS_MAX_AGE, |cors| cors.max_age);
    set(ACCESS_CONTROL_MAX_AGE, &(max_age.0 / 1_000).to_string());
    answer
}

/// What an answer must say for a page of another origin to read it; nothing, if the instance has said it already.
pub(crate) fn allow(names: &Names, cors: Option<&Cors>, asked: &HeaderMap, headers: &mut HeaderMap) {
    if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let Some(origin) = foreign_origin(asked).filter(|origin| takes(names, cors, origin)) else { return };
    allow_origin(headers, cors, origin);
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(Ok(expose)) =
        cors.filter(|cors| !cors.expose.is_empty()).map(|cors| HeaderValue::from_str(&cors.expose.join(", ")))
    {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose);
    }
}

/// Removes what would reach over a function's own path, such as `/f/ocr`: to a browser, all functions below `/f/` are one origin.
pub(crate) fn keep_to_own_path(headers: &mut HeaderMap, prefix: &str) {
    headers.remove("service-worker-allowed");
    headers.remove("clear-site-data");
    if !headers.contains_key(SET_COOKIE) {
        return;
    }
    let cookies: Vec<HeaderValue> =
        headers.get_all(SET_COOKIE).iter().filter_map(|cookie| own_cookie(cookie, prefix)).collect();
    headers.remove(SET_COOKIE);
    headers.extend(cookies.into_iter().map(|cookie| (SET_COOKIE, cookie)));
}

/// A cookie that browsers send to this function only: its path is the function's as it saw that, and it is for no other host. None if
/// it cannot be read.
fn own_cookie(cookie: &HeaderValue, prefix: &str) -> Option<HeaderValue> {
    let text = std::str::from_utf8(cookie.as_bytes()).ok()?;
    let mut parts = text.split(';');
    let mut own = parts.next()?.trim().to_owned();
    // The last one of a name counts (RFC 6265, section 5.3).
    let mut path = None;
    for part in parts.map(str::trim) {
        let (name, value) = part.split_once('=').map_or((part, ""), |(name, value)| (name.trim(), value.trim()));
        match () {
            () if name.eq_ignore_ascii_case("path") => path = Some(value),
            () if name.eq_ignore_ascii_case("domain") => {}
            () => own.extend(["; ", part]),
        }
    }
    // Without a path, or with one that is none, it would be that of the request: always the function's.
    if let Some(path) = path.filter(|path| path.starts_with('/')) {
        let is_own = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let (before, path) = if is_own { ("", path) } else { (prefix, path) };
        own.extend(["; Path=", before, path]);
    }
    HeaderValue::from_str(&own).ok()
}

fn allow_origin(headers: &mut HeaderMap, cors: Option<&Cors>, origin: &str) {
    let all = cors.is_some_and(|cors| !cors.credentials && cors.origins.iter().any(|known| known == "*"));
    let value = if all { Ok(HeaderValue::from_static("*")) } else { HeaderValue::from_str(origin) };
    if let Ok(value) = value {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
    }
    if cors.is_some_and(|cors| cors.credentials) {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method("POST").uri("/f/x/");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn refused(names: &Names, cors: Option<&Cors>, pairs: &[(&str, &str)]) -> Option<kip_spec::Code> {
        check(names, cors, &request(pairs), false).err().map(|problem| problem.code)
    }

    #[test]
    fn a_name_that_somebody_else_can_own_is_refused() {
        let names = Names::default();
        for host in [
            "127.0.0.1:5470",
            "localhost",
            "LOCALHOST.:5470",
            "digits.localhost:1",
            "[::1]:5470",
            "10.0.0.7",
            "gpu-box",
            "gpu.local",
        ] {
            assert_eq!(refused(&names, None, &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.nip.io:5470", "localhost.evil.example", "xlocalhost.com", "a.locals"] {
            assert_eq!(refused(&names, None, &[("host", host)]), Some(code::HOST_UNKNOWN), "{host}");
        }
        let named = Names { hosts: vec!["ai.example.com".to_owned()], ..Names::default() };
        assert_eq!(refused(&named, None, &[("host", "AI.example.com:443")]), None);
    }

    #[test]
    fn a_cookie_is_its_functions_own() {
        let own = |cookie: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(SET_COOKIE, HeaderValue::from_static(cookie));
            headers.append(SET_COOKIE, HeaderValue::from_static("second=2; Path=/"));
            keep_to_own_path(&mut headers, "/f/ocr");
            let all: Vec<&str> = headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(all.len(), 2, "{all:?}");
            assert_eq!(all[1], "second=2; Path=/f/ocr/");
            all[0].to_owned()
        };
        for (cookie, expected) in [
            ("a=1", "a=1"),
            ("a=1; Path=/; HttpOnly; Secure", "a=1; HttpOnly; Secure; Path=/f/ocr/"),
            ("a=1; path = /login ;SameSite=Lax", "a=1; SameSite=Lax; Path=/f/ocr/login"),
            ("a=1; Path=/f/ocr/x", "a=1; Path=/f/ocr/x"),
            ("a=1; Path=/f/ocr", "a=1; Path=/f/ocr"),
            ("a=1; Path=/f/ocr2", "a=1; Path=/f/ocr/f/ocr2"),
            ("a=1; Path=/f/other; Path=/", "a=1; Path=/f/ocr/"),
            ("a=1; Path=x", "a=1"),
            ("a=1; Domain=localhost; Path=/", "a=1; Path=/f/ocr/"),
            ("a=1; PATH=/; DOMAIN=example.com", "a=1; Path=/f/ocr/"),
        ] {
            assert_eq!(own(cookie), expected, "{cookie}");
        }
    }

    #[test]
    fn pages_of_elsewhere_are_refused_unless_they_are_let_in() {
        let names = Names::default();
        let page = |origin| refused(&names, None, &[("host", "localhost:5470"), ("origin", origin)]);
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://x.localhost:8443",
            "http://[::1]:3000",
            "http://localhost:5470",
        ] {
            assert_eq!(page(origin), None, "{origin}");
        }
        for origin in
            ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://localhost.evil", "file://"]
        {
            assert_eq!(page(origin), Some(code::ORIGIN_REFUSED), "{origin}");
        }
        let own = [("host", "gpu-box:5470"), ("origin", "http://gpu-box:5470")];
        assert_eq!(refused(&names, None, &own), None, "its own page");
        let cors = Cors { origins: vec!["https://chat.example".to_owned()], ..Cors::default() };
        let from = |origin| refused(&names, Some(&cors), &[("host", "localhost"), ("origin", origin)]);
        assert_eq!(from("https://chat.example"), None);
        assert_eq!(from("http://localhost:3000"), Some(code::ORIGIN_REFUSED), "what is declared is all");
        let silent = [("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
        assert_eq!(refused(&names, None, &silent), Some(code::ORIGIN_REFUSED), "an image or script");
        let link = [("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(refused(&names, None, &link), None);
    }

    #[test]
    fn a_preflight_is_answered_as_it_is_declared() {
        let asked = request(&[
            ("host", "localhost"),
            ("origin", "https://chat.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization, x-a"),
        ]);
        let answer = preflight(&Names::default(), None, &[], &asked);
        assert_eq!(answer.status(), 204);
        assert!(!answer.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "not let in");
        let cors = Cors {
            origins: vec!["https://chat.example".to_owned()],
            credentials: true,
            max_age: kip_spec::Millis(5_000),
            ..Cors::default()
        };
        let answer = preflight(&Names::default(), Some(&cors), &["GET".to_owned(), "POST".to_owned()], &asked);
        let header = |name| answer.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap());
        assert_eq!(header(ACCESS_CONTROL_ALLOW_ORIGIN), Some("https://chat.example"));
        assert_eq!(header(ACCESS_CONTROL_ALLOW_METHODS), Some("GET, POST"));
        assert_eq!(header(ACCESS_CONTROL_ALLOW_HEADERS), Some("authorization, x-a"));
        assert_eq!(header(ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(header(ACCESS_CONTROL_MAX_AGE), Some("5"));
    }

    #[test]
    fn an_instance_that_speaks_for_itself_is_left_to_it() {
        let asked = request(&[("host", "localhost"), ("origin", "http://localhost:3000")]);
        let mut headers = HeaderMap::new();
        allow(&Names::default(), None, asked.headers(), &mut headers);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "http://localhost:3000");
        let mut own = HeaderMap::new();
        own.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        allow(&Names::default(), None, asked.headers(), &mut own);
        assert_eq!(own[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }
}
