//! The sockets that a server listens on: its own, or those that whoever started it holds open for it over restarts.

use std::net::{SocketAddr, TcpListener};

use kip_gateway::{Entry, ListenerAccess};
use kip_host::tls::Certificate;
use kip_spec::{Problem, code};

use crate::config::Config;

/// What a server listens on.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) doors: Vec<Entry>,
    pub(crate) api: TcpListener,
}

/// Opens them all.
pub(crate) fn open(config: &Config) -> Result<Listeners, Problem> {
    // What a proxy in front passes on has been through its TLS.
    let clear = if config.proxies.is_empty() { ListenerAccess::Loopback } else { ListenerAccess::Everywhere };
    let mut inherited = kip_host::sockets::inherited();
    let mut listen = |name: &str, address: SocketAddr, reach: ListenerAccess| match inherited.remove(name) {
        Some(listener) => kip_gateway::adopt(listener, reach),
        None => kip_gateway::bind(address, reach),
    };
    let entry = |listener: TcpListener, certificate: Option<Certificate>| {
        let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        Entry { listener, certificate, keyed: config.require_keys || !local }
    };
    let mut doors = vec![entry(listen("gateway", config.gateway, clear)?, None)];
    if let Some(tls) = &config.tls {
        let certificate = Certificate::open(tls.files.clone()).map_err(unusable)?;
        drop(kip_host::tasks::spawn("certificate", certificate.clone().watch()));
        doors.push(entry(listen("tls", tls.listen, ListenerAccess::Everywhere)?, Some(certificate)));
    }
    let api = listen("api", config.api, clear)?;
    Ok(Listeners { doors, api })
}

fn unusable(error: kip_host::tls::Error) -> Problem {
    Problem::new(code::TLS_UNUSABLE, error.to_string()).hint(
        "tls.certificate and tls.key name PEM files that belong together; `kip config show` tells where they are set",
    )
}
