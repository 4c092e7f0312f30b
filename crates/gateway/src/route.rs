//! From a request's head to a function: by host name first, then by path. Pure.

use http::uri::PathAndQuery;
use http::{Uri, header};

/// Where a request is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// To a function by the first label of its host name, the path as it is.
    Host { label: String, target: Uri },
    /// To a function by `/f/{function}/…`, the rest of the path.
    Path { function: String, target: Uri, prefix: String },
    /// To the function of the model that the request names, in the style of OpenAI, `/v1/…`, or of Ollama, `/api/chat`.
    Named,
    /// To the function of the model in the path, KServe's style: `/v2/models/{model}/…`. The name may have slashes, so it is all that
    /// follows `models/`.
    Model { rest: String },
    /// What KServe's clients ask a server itself: `/v2`, its health and its list.
    Server,
    /// To a function by the path that earlier clients of Function Compute use: `/2016-08-15/proxy/{service}/{function}/…`.
    Proxy { service: String, function: String, target: Uri, prefix: String },
    /// `/f/{function}` without a slash: relative links would break.
    AddSlash { location: String },
    /// Nowhere we know.
    Unknown,
    /// Not acceptable HTTP, for this reason.
    Bad(&'static str),
}

/// The domain under which every function has a host name; browsers and resolvers send `*.localhost` to loopback.
const DOMAIN: &str = ".localhost";

/// Finds the route of a request.
pub(crate) fn route(uri: &Uri, headers: &http::HeaderMap) -> Route {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Route::Bad("it has two Host headers"),
        (Some(host), None) => match host.to_str() {
            Ok(host) => Some(host),
            Err(_) => return Route::Bad("its Host header is not text"),
        },
        (None, None) => None,
    };
    // A target in absolute form says the host itself (RFC 9112, section 3.2.2).
    let host = uri.authority().map(http::uri::Authority::as_str).or(host);
    let Some(target) = uri.path_and_query() else { return Route::Bad("its target has no path") };
    if !target.path().starts_with('/') {
        return Route::Bad("its target is not a path");
    }
    if let Some(label) = host.and_then(function_label) {
        return Route::Host { label, target: Uri::from(target.clone()) };
    }
    if let Some(rest) = target.path().strip_prefix(PROXY) {
        return proxy(rest, target);
    }
    let Some(rest) = target.path().strip_prefix("/f/") else { return by_model(target.path()) };
    let Some((function, _)) = rest.split_once('/') else {
        if rest.is_empty() {
            return Route::Unknown;
        }
        let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
        return Route::AddSlash { location: format!("/f/{rest}/{query}") };
    };
    if function.is_empty() {
        return Route::Unknown;
    }
    let prefix = format!("/f/{function}");
    let after = &target.as_str()[prefix.len()..];
    match after.parse::<PathAndQuery>() {
        Ok(target) => Route::Path { function: function.to_owned(), target: Uri::from(target), prefix },
        Err(_) => Route::Bad("its path cannot be read"),
    }
}

/// Where earlier clients of Function Compute call functions of services.
const PROXY: &str = "/2016-08-15/proxy/";

fn proxy(rest: &str, target: &PathAndQuery) -> Route {
    let mut parts = rest.splitn(3, '/');
    let (Some(service), Some(function)) = (parts.next(), parts.next()) else { return Route::Unknown };
    if service.is_empty() || function.is_empty() {
        return Route::Unknown;
    }
    let prefix = format!("{PROXY}{service}/{function}");
    let after = &target.as_str()[prefix.len()..];
    let after = if after.starts_with('/') { after.to_owned() } else { format!("/{after}") };
    match after.parse::<PathAndQuery>() {
        Ok(target) => {
            let (service, function) = (service.to_owned(), function.to_owned());
            Route::Proxy { service, function, target: Uri::from(target), prefix }
        }
        Err(_) => Route::Bad("its path cannot be read"),
    }
}

/// Whether Ollama's clients send this path.
pub(crate) fn is_ollama(path: &str) -> bool {
    const PATHS: [&str; 7] = ["chat", "generate", "embed", "embeddings", "show", "tags", "version"];
    path.strip_prefix("/api/").is_some_and(|name| PATHS.contains(&name))
}

/// Paths that belong to a style of calling models, whatever the function.
fn by_model(path: &str) -> Route {
    if path.starts_with("/v1/") || is_ollama(path) {
        return Route::Named;
    }
    match path.strip_prefix("/v2") {
        Some("" | "/" | "/health/live" | "/health/ready" | "/repository/index") => Route::Server,
        Some(rest) => match rest.strip_prefix("/models/") {
            Some(rest) if !rest.is_empty() && !rest.starts_with('/') => Route::Model { rest: rest.to_owned() },
            _ => Route::Unknown,
        },
        None => Route::Unknown,
    }
}

/// `digits` of `digits.localhost:5470`, in lower case.
fn function_label(host: &str) -> Option<String> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.to_ascii_lowercase();
    let label = name.strip_suffix('.').unwrap_or(&name).strip_suffix(DOMAIN)?;
    (!label.is_empty() && !label.contains('.')).then(|| label.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    fn find(uri: &str, host: &str) -> Route {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        route(&uri.parse().unwrap(), &headers)
    }

    fn by_path(function: &str, target: &str) -> Route {
        let prefix = format!("/f/{function}");
        Route::Path { function: function.to_owned(), target: target.parse().unwrap(), prefix }
    }

    #[test]
    fn hosts_come_before_paths() {
        let host = |target: &str| Route::Host { label: "digits".to_owned(), target: target.parse().unwrap() };
        assert_eq!(find("/a?b=c", "digits.localhost:5470"), host("/a?b=c"));
        assert_eq!(find("/f/other/x", "Digits.LOCALHOST"), host("/f/other/x"));
        assert_eq!(find("http://digits.localhost/x", "other.localhost"), host("/x"));
    }

    #[test]
    fn paths_keep_their_bytes() {
        for (uri, expected) in [
            ("/f/digits/", by_path("digits", "/")),
            ("/f/digits/a%2Fb/../c?x=%20&y", by_path("digits", "/a%2Fb/../c?x=%20&y")),
            ("/f/digits//x", by_path("digits", "//x")),
            ("/f/digits", Route::AddSlash { location: "/f/digits/".to_owned() }),
            ("/f/digits?q", Route::AddSlash { location: "/f/digits/?q".to_owned() }),
            ("/f/", Route::Unknown),
            ("/f//digits/x", Route::Unknown),
            ("/", Route::Unknown),
            ("/v1/models", Route::Named),
            ("/v1", Route::Unknown),
            ("/v2/models/digits/infer?x", Route::Model { rest: "digits/infer".to_owned() }),
            ("/v2/models/digits", Route::Model { rest: "digits".to_owned() }),
            ("/v2/health/ready", Route::Server),
            ("/v2", Route::Server),
            ("/v2/models/", Route::Unknown),
            ("/v2x", Route::Unknown),
            ("/./f/digits/", Route::Unknown),
            ("//f/digits/", Route::Unknown),
            ("/f/../digits/", by_path("..", "/digits/")),
            ("/f/%64igits/", by_path("%64igits", "/")),
        ] {
            assert_eq!(find(uri, "127.0.0.1:5470"), expected, "{uri}");
        }
    }

    #[test]
    fn services_and_functions_of_earlier_clients() {
        let by_proxy = |target: &str| Route::Proxy {
            service: "shop.prod".to_owned(),
            function: "web".to_owned(),
            target: target.parse().unwrap(),
            prefix: "/2016-08-15/proxy/shop.prod/web".to_owned(),
        };
        for (uri, target) in [("/web/a/b?c", "/a/b?c"), ("/web/", "/"), ("/web", "/"), ("/web?x=1", "/?x=1")] {
            assert_eq!(find(&format!("/2016-08-15/proxy/shop.prod{uri}"), "127.0.0.1"), by_proxy(target), "{uri}");
        }
        for uri in ["/2016-08-15/proxy/", "/2016-08-15/proxy/shop", "/2016-08-15/proxy//web/", "/2016-08-15/services"] {
            assert_eq!(find(uri, "127.0.0.1"), Route::Unknown, "{uri}");
        }
    }

    #[test]
    fn doubled_hosts_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("a"));
        headers.append(header::HOST, HeaderValue::from_static("b"));
        assert!(matches!(route(&"/".parse().unwrap(), &headers), Route::Bad(_)));
    }
}
