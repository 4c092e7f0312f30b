//! The sockets that a server listens on: its own, or those that whoever started it holds open for it over restarts.

use std::net::{SocketAddr, TcpListener};

use kip_gateway::{Entry, ListenerAccess};
use kip_host::sockets::Peers;
use kip_host::tls::{Certificate, NamedCertificates};
use kip_spec::{Problem, code};

use crate::config::Config;

/// What a server listens on.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) doors: Vec<Entry>,
    pub(crate) api: TcpListener,
    /// Who may connect to the API.
    pub(crate) peers: Peers,
}

/// Opens them all.
pub(crate) fn open(config: &Config, named: &NamedCertificates) -> Result<Listeners, Problem> {
    // What a proxy in front passes on has been through its TLS.
    let clear = if config.proxies.is_empty() { ListenerAccess::Loopback } else { ListenerAccess::Everywhere };
    let peers = Peers::of_this_machine_and(&config.proxies);
    let mut inherited = kip_host::sockets::inherited();
    let mut listen = |name: &str, address: SocketAddr, reach: ListenerAccess| match inherited.remove(name) {
        Some(listener) => kip_gateway::adopt(listener, reach),
        None => kip_gateway::bind(address, reach),
    };
    let entry = |listener: TcpListener, certificate: Option<Certificate>| {
        let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        // A proxy on this machine makes a loopback listener public.
        let keyed = config.require_keys.unwrap_or(!local || !config.proxies.is_empty());
        // In the clear, only the proxies that were named speak for others.
        let peers = if certificate.is_some() { Peers::everybody() } else { peers.clone() };
        Entry { listener, certificate, keyed, peers }
    };
    let mut doors = vec![entry(listen("gateway", config.gateway, clear)?, None)];
    if let Some(tls) = &config.tls {
        let certificate = Certificate::open(tls.files.clone(), named.clone()).map_err(unusable)?;
        if certificate.key_is_open() {
            let key = tls.files.key.display();
            tracing::warn!("all users of this machine can read the TLS key {key}: `chmod o= {key}` closes it");
        }
        drop(kip_host::tasks::spawn("certificate", certificate.clone().watch()));
        doors.push(entry(listen("tls", tls.listen, ListenerAccess::Everywhere)?, Some(certificate)));
    }
    let api = listen("api", config.api, clear)?;
    Ok(Listeners { doors, api, peers })
}

fn unusable(error: kip_host::tls::Error) -> Problem {
    Problem::new(code::TLS_UNUSABLE, error.to_string()).hint(
        "tls.certificate and tls.key name PEM files that belong together; `kip config show` tells where they are set",
    )
}
