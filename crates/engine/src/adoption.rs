//! What an earlier server of this data directory left, as a body found it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use http::HeaderValue;
use kip_host::endpoint::Endpoint;
use kip_host::sockets::{self, Connection};
use kip_spec::{FunctionName, InstanceId, VersionId};
use tokio::sync::watch;

use crate::body::Liveness;

/// All that was found.
#[derive(Debug, Default)]
pub struct Adoption {
    /// The instances, those included that cannot go on.
    pub found: Vec<FoundInstance>,
    /// Connections of the earlier server to instances that go on.
    pub inherited: InheritedConnections,
}

/// Said of an instance of which nothing is left.
pub(crate) const ENDED: &str = "it ended while no server ran";

/// An instance of an earlier server.
#[derive(Debug, Clone)]
pub struct FoundInstance {
    /// Its id.
    pub instance: InstanceId,
    /// Its function, as far as it is known.
    pub function: Option<FunctionName>,
    /// Its version, as far as it is known.
    pub version: Option<VersionId>,
    /// The names of its devices.
    pub devices: Vec<String>,
    /// What its order asked to be told again.
    pub memo: String,
    /// How it is, or why it cannot go on.
    pub state: Result<AliveInstance, String>,
    /// It was asked to end and has a rest of its grace: it is to be stopped, not killed.
    pub has_grace: bool,
}

impl FoundInstance {
    /// Whether some process of it was still there.
    pub fn was_there(&self) -> bool {
        !self.state.as_ref().is_err_and(|reason| reason == ENDED)
    }
}

/// How an instance that can go on was found.
#[derive(Debug, Clone)]
pub struct AliveInstance {
    /// Where it is reached.
    pub endpoint: Endpoint,
    /// Whether it lives; the body changes it.
    pub life: watch::Receiver<Liveness>,
    /// What is said with each request to it; none to one of a server that said nothing.
    pub token: Option<HeaderValue>,
    /// It gets no CPU.
    pub asleep: bool,
    /// Connections that the earlier server closed by ending and that are still open on its side.
    pub busy: u32,
    /// When its program was started, boot time.
    pub born: u64,
}

/// Connections that an earlier server left on instances.
#[derive(Debug, Default)]
pub struct InheritedConnections(pub(crate) BTreeMap<InstanceId, LeftConnections>);

/// Those of one instance.
#[derive(Debug)]
pub(crate) enum LeftConnections {
    /// Over TCP, in a network namespace of its own with a process that is in it.
    Tcp(Option<u32>, Vec<Connection>),
    /// Over its Unix socket: the numbers of the instance's ends.
    Unix(PathBuf, BTreeSet<u64>),
}

impl InheritedConnections {
    /// Whether there are none any more.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The instances that have closed the last of theirs since the last look.
    pub fn settled(&mut self) -> Vec<InstanceId> {
        let Ok(open) = sockets::connections() else { return Vec::new() };
        let open: BTreeSet<Connection> = open.into_iter().collect();
        let mut settled = Vec::new();
        self.0.retain(|instance, left| {
            let is_settled = match left {
                LeftConnections::Tcp(None, connections) => {
                    connections.retain(|connection| open.contains(connection));
                    connections.is_empty()
                }
                LeftConnections::Tcp(Some(process), connections) => {
                    // Of one that has ended, none is open.
                    let own = sockets::connections_of(*process).unwrap_or_default();
                    connections.retain(|connection| own.contains(connection));
                    connections.is_empty()
                }
                LeftConnections::Unix(path, connections) => {
                    let own = sockets::unix_sockets(path).connected;
                    connections.retain(|connection| own.contains(connection));
                    connections.is_empty()
                }
            };
            if is_settled {
                settled.push(*instance);
            }
            !is_settled
        });
        settled
    }
}
