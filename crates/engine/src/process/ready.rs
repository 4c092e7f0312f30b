//! From started to ready: the probe, whose port it is, and what went wrong if it is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kip_host::endpoint::Endpoint;
use kip_host::sockets::{self, Listener};
use kip_spec::function::ReadyProbe;

use super::Process;
use crate::body::{InstanceEnd, Order, ReadyInstance, StartProblem};
use crate::contract;

/// Between two probes: quick at first, for programs that start in milliseconds, then a fifth longer each time, so that
/// readiness is seen late by a fifth of the start at most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

type Failure = (StartProblem, String);

/// Where an instance was told to listen.
#[derive(Debug)]
pub(super) enum Place {
    /// On this port of loopback.
    Port(u16),
    /// On this Unix socket.
    Socket(PathBuf),
}

/// Waits until the instance is ready, or has ended, or has had its time.
pub(super) async fn wait(process: &Process, order: &Order, place: Place) -> Result<ReadyInstance, Failure> {
    let mut ended = process.ended.clone();
    tokio::select! {
        end = ended.wait_for(Option::is_some) => {
            let end = end.ok().and_then(|end| *end);
            let problem = match end {
                Some(InstanceEnd { out_of_memory: Some(limit), .. }) => StartProblem::OutOfMemory { limit },
                Some(end) => StartProblem::Exited { code: end.code, signal: end.signal },
                None => StartProblem::Exited { code: None, signal: None },
            };
            Err((problem, String::new()))
        }
        checked = tokio::time::timeout(order.startup.to_std(), probe_and_check(process, order, &place)) => {
            checked.unwrap_or_else(|_| Err(explain(process, order, &place)))
        }
    }
}

async fn probe_and_check(process: &Process, order: &Order, place: &Place) -> Result<ReadyInstance, Failure> {
    let mut stranger_seen = false;
    if order.probing.delay > 0 {
        tokio::time::sleep(Duration::from_millis(order.probing.delay)).await;
    }
    loop {
        let endpoint = probe(order, place).await;
        match check_owner(process, order, endpoint) {
            // Looked at twice: the socket of a process that is just ending belongs to nobody for a moment.
            Err(_) if !stranger_seen => stranger_seen = true,
            checked => return checked,
        }
        tokio::time::sleep(LONGEST_PAUSE).await;
    }
}

async fn probe(order: &Order, place: &Place) -> Endpoint {
    let endpoints: Vec<Endpoint> = match place {
        Place::Port(port) => [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            .map(|ip| SocketAddr::new(ip, *port).into())
            .into(),
        Place::Socket(path) => vec![Endpoint::Unix(path.as_path().into())],
    };
    let mut pause = FIRST_PAUSE;
    let mut successes = 0;
    loop {
        let mut answered = false;
        for endpoint in &endpoints {
            if answers(order, endpoint).await {
                answered = true;
                successes += 1;
                if successes >= order.probing.successes {
                    return endpoint.clone();
                }
                break;
            }
        }
        if !answered {
            successes = 0;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 6 / 5).min(LONGEST_PAUSE);
    }
}

async fn answers(order: &Order, endpoint: &Endpoint) -> bool {
    // A model that is loading often accepts and does not answer.
    let limit = Duration::from_millis(order.probing.timeout);
    match &order.ready {
        ReadyProbe::Tcp | ReadyProbe::Exec { .. } => {
            matches!(tokio::time::timeout(limit, endpoint.connect()).await, Ok(Ok(_)))
        }
        ReadyProbe::Http { path } => {
            let headers = contract::probe_headers(&order.token);
            let status = kip_host::http_client::status_of(http::Method::GET, endpoint, path, &headers, limit).await;
            status.is_ok_and(|status| (200..400).contains(&status))
        }
    }
}

/// The listeners of an instance's own processes.
fn own_listeners(process: &Process) -> Vec<Listener> {
    let inodes = sockets::inodes_of(&process.members());
    let all = sockets::listeners().unwrap_or_default();
    all.into_iter().filter(|listener| inodes.contains(&listener.inode)).collect()
}

/// Somebody answered: it must be the instance, or requests would go to a stranger.
fn check_owner(process: &Process, order: &Order, endpoint: Endpoint) -> Result<ReadyInstance, Failure> {
    let listeners = own_listeners(process);
    match &endpoint {
        Endpoint::Tcp(address) if !listeners.iter().any(|listener| listener.address.port() == address.port()) => {
            let owner = sockets::owner_of_port(address.port()).unwrap_or_else(|| "an unknown process".to_owned());
            return Err((StartProblem::PortTaken, format!("port {} is held by {owner}", address.port())));
        }
        Endpoint::Unix(path) if !is_own_socket(process, path) => {
            return Err((StartProblem::PortTaken, format!("{} is held by another process", path.display())));
        }
        _ => {}
    }
    let exposed = listeners.iter().map(|listener| listener.address).find(|address| !address.ip().is_loopback());
    if let Some(exposed) = exposed {
        tracing::warn!(
            function = %order.function, instance = %process.id, address = %exposed,
            "the instance listens beyond loopback: others on the network can call it past the gateway; let it listen on 127.0.0.1"
        );
    }
    *process.endpoint.lock() = Some(endpoint.clone());
    let token = contract::token_of(&process.headers);
    Ok(ReadyInstance { endpoint, life: process.life.clone(), token, exposed })
}

/// Whether a process of the instance listens on its socket.
pub(super) fn is_own_socket(process: &Process, path: &Path) -> bool {
    !sockets::unix_sockets(path).listening.is_disjoint(&sockets::inodes_of(&process.members()))
}

/// It had its time: does it listen elsewhere?
fn explain(process: &Process, order: &Order, place: &Place) -> Failure {
    let listeners = own_listeners(process);
    let startup = order.startup;
    let port = match place {
        Place::Port(port) => *port,
        Place::Socket(path) => {
            let listens = is_own_socket(process, path);
            return match (listens, listeners.first()) {
                (false, Some(other)) => (
                    StartProblem::WrongPort { port: other.address.port() },
                    format!("it listens on {} and was told to listen on the socket ${{KIPWAKE_SOCKET}}", other.address),
                ),
                (false, None) => (
                    StartProblem::NeverReady,
                    format!(
                        "it did not listen on its socket {} within {startup}; ${{KIPWAKE_SOCKET}} names it",
                        path.display()
                    ),
                ),
                (true, _) => {
                    let detail = format!("it listens on its socket, but its probe did not succeed within {startup}");
                    (StartProblem::NeverReady, detail)
                }
            };
        }
    };
    if listeners.iter().any(|listener| listener.address.port() == port) {
        let probe = match &order.ready {
            ReadyProbe::Tcp | ReadyProbe::Exec { .. } => "it did not accept a connection".to_owned(),
            ReadyProbe::Http { path } => format!("GET {path} did not answer 200 to 399"),
        };
        return (StartProblem::NeverReady, format!("it listens on its port {port}, but {probe} within {startup}"));
    }
    match listeners.first() {
        Some(other) => (
            StartProblem::WrongPort { port: other.address.port() },
            format!("it listens on {} and was told to listen on port {port}", other.address),
        ),
        None => {
            (StartProblem::NeverReady, format!("it listened on no port within {startup}; it was given port {port}"))
        }
    }
}
