//! From started to ready: where the container is reached, the probe, and what went wrong if it is not ready in time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use kip_host::sockets;
use kip_spec::container::Network;
use kip_spec::function::ReadyProbe;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::inspect::Inspected;
use super::instance::Instance;
use crate::body::{InstanceEnd, Order, ReadyInstance, StartProblem};
use crate::contract;

/// Between two probes: quick at first, then a fifth longer each time.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// What takes a connection before the program listens, and breaks it off at once then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxy {
    /// Nothing: whoever takes a connection is the program.
    None,
    /// The engine's own.
    Engine,
    /// An ssh to another host.
    Ssh,
}

impl Proxy {
    /// How soon it breaks a connection off.
    fn breaks(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Engine => Some(Duration::from_millis(30)),
            Self::Ssh => Some(Duration::from_millis(300)),
        }
    }
}

type Failure = (StartProblem, String);

/// Where a container is reached, by what the engine says of it.
pub(super) fn address(
    found: &Inspected,
    (network, publish): (Network, Option<IpAddr>),
    port: u16,
    published: bool,
) -> Option<SocketAddr> {
    let loopback = publish.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if network == Network::Host {
        return Some(SocketAddr::new(loopback, port));
    }
    if published {
        return Some(SocketAddr::new(loopback, found.published(port)?));
    }
    Some(SocketAddr::new(found.address()?, port))
}

/// Waits until the instance is ready, or has ended, or has had its time.
pub(super) async fn wait(
    instance: &Instance,
    order: &Order,
    (network, proxy): (Network, Proxy),
) -> Result<ReadyInstance, Failure> {
    let mut ended = instance.ended.subscribe();
    tokio::select! {
        end = ended.wait_for(Option::is_some) => {
            let problem = match end.ok().and_then(|end| *end) {
                Some(InstanceEnd { out_of_memory: Some(limit), .. }) => StartProblem::OutOfMemory { limit },
                Some(end) => StartProblem::Exited { code: end.code, signal: end.signal },
                None => StartProblem::Exited { code: None, signal: None },
            };
            Err((problem, String::new()))
        }
        checked = tokio::time::timeout(order.startup.to_std(), probe(instance, order, (network, proxy))) => {
            checked.unwrap_or_else(|_| Err(explain(instance, order)))
        }
    }
}

async fn probe(
    instance: &Instance,
    order: &Order,
    (network, proxy): (Network, Proxy),
) -> Result<ReadyInstance, Failure> {
    let mut pause = FIRST_PAUSE;
    let mut successes = 0;
    if order.probing.delay > 0 {
        tokio::time::sleep(Duration::from_millis(order.probing.delay)).await;
    }
    loop {
        let address = *instance.address.lock();
        let answering = match address {
            Some(address) => answers(order, address, proxy).await.then_some(address),
            None => None,
        };
        successes = if answering.is_some() { successes + 1 } else { 0 };
        if let Some(address) = answering.filter(|_| successes >= order.probing.successes) {
            match network {
                Network::Host => check_owner(instance, address)?,
                // Somebody else answers: the address has nobody behind it any more, and leads elsewhere.
                Network::Bridge if !listens(instance) => {
                    tokio::time::sleep(LONGEST_PAUSE).await;
                    continue;
                }
                Network::Bridge => {}
            }
            let token = contract::token_of(&instance.headers);
            let life = instance.life.subscribe();
            return Ok(ReadyInstance { endpoint: address.into(), life, token, exposed: None });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 6 / 5).min(LONGEST_PAUSE);
    }
}

async fn answers(order: &Order, address: SocketAddr, proxy: Proxy) -> bool {
    // A model that is loading often accepts and does not answer.
    let wait = Duration::from_millis(order.probing.timeout);
    match &order.ready {
        ReadyProbe::Tcp | ReadyProbe::Exec { .. } => {
            let connected = tokio::time::timeout(wait, TcpStream::connect(address)).await;
            let Ok(Ok(mut stream)) = connected else { return false };
            // A program that listens waits for the first byte of a request.
            match proxy.breaks() {
                None => true,
                Some(limit) => tokio::time::timeout(limit, stream.read_u8()).await.is_err(),
            }
        }
        ReadyProbe::Http { path } => {
            let headers = contract::probe_headers(&order.token);
            let status =
                kip_host::http_client::status_of(http::Method::GET, &address.into(), path, &headers, wait).await;
            status.is_ok_and(|status| (200..400).contains(&status))
        }
    }
}

/// Whether a process of the container listens on its port, as far as this host can see.
fn listens(instance: &Instance) -> bool {
    let process = instance.process.lock().as_ref().map(|(process, _)| *process);
    let Some(process) = process else { return true };
    let listeners = sockets::listeners_of(process).unwrap_or_default();
    listeners.iter().any(|listener| listener.address.port() == instance.port)
}

/// In the network of the host, whoever answers must be the instance, or requests would go to a stranger.
fn check_owner(instance: &Instance, address: SocketAddr) -> Result<(), Failure> {
    let processes = instance.process.lock().as_ref().map(|(_, cgroups)| cgroups.processes()).unwrap_or_default();
    if processes.is_empty() {
        return Ok(());
    }
    let inodes = sockets::inodes_of(&processes);
    let listeners = sockets::listeners().unwrap_or_default();
    let own =
        listeners.iter().any(|listener| listener.address.port() == address.port() && inodes.contains(&listener.inode));
    if own {
        return Ok(());
    }
    let owner = sockets::owner_of_port(address.port()).unwrap_or_else(|| "an unknown process".to_owned());
    Err((StartProblem::PortTaken, format!("port {} is held by {owner}", address.port())))
}

/// It had its time: does it listen elsewhere?
fn explain(instance: &Instance, order: &Order) -> Failure {
    let (port, startup) = (instance.port, order.startup);
    let process = instance.process.lock().as_ref().map(|(process, _)| *process);
    let listeners = process.and_then(|process| sockets::listeners_of(process).ok()).unwrap_or_default();
    let on_port = listeners.iter().filter(|listener| listener.address.port() == port);
    let outside = on_port.clone().any(|listener| !listener.address.ip().is_loopback());
    match (on_port.clone().next(), outside, listeners.first()) {
        (Some(_), true, _) => {
            let probe = match &order.ready {
                ReadyProbe::Tcp | ReadyProbe::Exec { .. } => "it did not accept a connection".to_owned(),
                ReadyProbe::Http { path } => format!("GET {path} did not answer 200 to 399"),
            };
            (StartProblem::NeverReady, format!("it listens on its port {port}, but {probe} within {startup}"))
        }
        (Some(inside), false, _) => {
            let detail = format!(
                "it listens on {} inside its container, where only the container itself reaches it: let it listen on 0.0.0.0:{port}",
                inside.address
            );
            (StartProblem::NeverReady, detail)
        }
        (None, _, Some(other)) => {
            let detail = format!(
                "it listens on {} and was told to listen on port {port}: let it read PORT, or name its port under `container.port`",
                other.address
            );
            (StartProblem::WrongPort { port: other.address.port() }, detail)
        }
        (None, _, None) => {
            (StartProblem::NeverReady, format!("it listened on no port within {startup}; it was given port {port}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_containers_own_or_the_published_port() {
        let found: Inspected = serde_json::from_str(
            r#"{"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"49153"}]},
                "Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}"#,
        )
        .expect("a container");
        let at =
            |network, published| address(&found, (network, None), 80, published).map(|address| address.to_string());
        assert_eq!(at(Network::Bridge, false).as_deref(), Some("172.17.0.2:80"));
        assert_eq!(at(Network::Bridge, true).as_deref(), Some("127.0.0.1:49153"));
        assert_eq!(at(Network::Host, false).as_deref(), Some("127.0.0.1:80"));
        let ended: Inspected =
            serde_json::from_str(r#"{"NetworkSettings":{"Networks":{"bridge":{"IPAddress":""}}}}"#).expect("one");
        assert_eq!(address(&ended, (Network::Bridge, None), 80, false), None);
    }
}
