//! Origins of web pages (RFC 6454): which of them belong to this machine.

use std::net::Ipv4Addr;

/// The host without its port.
pub fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The host and port of an origin; none for `null`, which pages without an origin have.
pub fn authority_of(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
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
