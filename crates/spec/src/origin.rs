//! Host names of this server, and origins of web pages (RFC 6454): which of them belong to this machine.

use std::net::Ipv4Addr;

/// The host without its port. Some clients send a whole address as their `Host`; its scheme is no part of it.
pub fn name_of(host: &str) -> &str {
    let host = authority_of(host).unwrap_or(host);
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The host and port of an origin; none for `null`, which pages without an origin have.
fn authority_of(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default())
}

/// Whether a page of this origin calls the very host that it was served from, as `Host` names it.
pub fn is_own_page(origin: &str, host: &str) -> bool {
    let own = authority_of(host).unwrap_or(host);
    authority_of(origin).is_some_and(|authority| authority.eq_ignore_ascii_case(own))
}

/// Whether a page was served from loopback.
pub fn is_of_this_machine(origin: &str) -> bool {
    authority_of(origin).is_some_and(|authority| {
        let name = name_of(authority).to_ascii_lowercase();
        name == "localhost"
            || name.ends_with(".localhost")
            || name == "[::1]"
            || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
    })
}

/// Names and origins beyond those that belong to this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Host names, in lower case: `gateway.hosts`.
    pub hosts: Vec<String>,
    /// Origins: `gateway.origins`.
    pub origins: Vec<String>,
}

/// Suffixes of names that no public name server answers for (RFC 6761, 6762, 8375, and the private-use `internal`).
const PRIVATE: [&str; 6] = [".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test"];

impl Names {
    /// Whether a request without a key may come by this name. A name of one label has no owner elsewhere, and an address is none.
    pub fn takes_host(&self, host: &str) -> bool {
        let name = name_of(host).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let is_address = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
        is_address
            || !name.contains('.')
            || PRIVATE.iter().any(|suffix| name.ends_with(suffix))
            || self.hosts.iter().any(|known| known == name)
    }

    /// Whether a page of this origin may call what belongs to no function.
    pub fn takes_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin))
            || is_of_this_machine(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_a_scheme_is_the_host_that_it_names() {
        assert_eq!(name_of("http://127.0.0.1:5471"), "127.0.0.1");
        assert_eq!(name_of("https://evil.example/x:80"), "evil.example");
        assert!(is_own_page("http://gpu-box:5471", "http://gpu-box:5471/"));
        assert!(is_own_page("http://gpu-box:5471", "GPU-box:5471"));
        for (origin, host) in [
            ("http://evil.example", "http://127.0.0.1:5471"),
            ("http://127.0.0.1:80", "http://127.0.0.1:5471"),
            ("null", "null"),
            ("null", ""),
        ] {
            assert!(!is_own_page(origin, host), "{origin} {host}");
        }
        let names = Names::default();
        assert!(names.takes_host("http://localhost:1"));
        assert!(!names.takes_host("http://evil.example:1") && !names.takes_host("http://evil.example/localhost"));
    }
}
