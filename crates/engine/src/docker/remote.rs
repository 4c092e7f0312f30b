//! A named engine: a pool of its own, whose containers are elsewhere, or at least not for sure here.
//!
//! An engine that does not answer has not ended its containers: they are unreachable until it answers, or until a limit has passed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kip_spec::container::Network;

use super::Shared;
use super::connect::Engine;
use super::inspect::Inspected;
use super::instance::{Instance, Route};
use super::ready;
use crate::body::{BodyEvent, Liveness};

/// Between two looks for an engine that has not answered yet.
const LOOK: Duration = Duration::from_millis(500);
/// How long the start of a server waits for a named engine, to take over what an earlier server left there.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is special about a named engine.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// The number of its pool in the inventory.
    pub pool: u16,
    /// The pool's name.
    pub name: String,
    /// The address of its host at which the ports of instances are published. Without one, ssh carries them, or they are reached as on
    /// this host.
    pub address: Option<IpAddr>,
    /// How long the engine may be away until its instances count as ended.
    pub lost_after: Duration,
}

impl Shared {
    /// The address of this host at which ports are published; none where containers are reached otherwise.
    pub(super) fn publishes_on(&self) -> Option<IpAddr> {
        self.options.remote.as_ref()?.address
    }

    /// Whether containers are surely not processes of this host.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.tunnel.is_some()
    }

    /// Where an instance is reached from here. What is behind ssh gets a port of this host that leads there.
    ///
    /// # Errors
    /// In words, why there is no such port.
    pub(super) async fn locate(
        &self,
        instance: &Instance,
        found: &Inspected,
        (network, published): (Network, bool),
    ) -> Result<(), String> {
        let there = ready::address(found, (network, self.publishes_on()), instance.port, published);
        let (Some(tunnel), Some(to), None) = (&self.tunnel, there, self.publishes_on()) else {
            *instance.address.lock() = there;
            return Ok(());
        };
        let to = to.to_string();
        let ports = self.options.ports.reserve_more(instance.id).map_err(|error| format!("no free port: {error}"))?;
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ports);
        tunnel.forward(local, &to).await?;
        *instance.route.lock() = Some(Route { local, to });
        *instance.address.lock() = Some(local);
        Ok(())
    }

    /// The engine is back behind another ssh: its instances get their ports again.
    pub(super) async fn forward_again(&self) {
        let Some(tunnel) = &self.tunnel else { return };
        for instance in self.roster.all().iter().filter(|instance| !instance.has_ended()) {
            let route = instance.route.lock().clone();
            if let Some(Route { local, to }) = route
                && let Err(reason) = tunnel.forward(local, &to).await
            {
                // It is there already where this ssh never ended.
                tracing::debug!(instance = %instance.id, reason, "its port is not forwarded again");
            }
        }
    }

    /// The port of an instance that has ended leads nowhere any more.
    pub(super) fn close_route(&self, instance: &Instance) {
        let route = instance.route.lock().take();
        if let (Some(tunnel), Some(Route { local, to })) = (self.tunnel.clone(), route) {
            kip_host::tasks::spawn("close forwarded port", async move { tunnel.cancel(local, &to).await });
        }
    }

    /// Tells whether the pool of a named engine answers.
    pub(super) async fn tell_pool(&self, there: bool) {
        let Some(remote) = &self.options.remote else { return };
        if self.there.swap(there, Ordering::AcqRel) == there {
            return;
        }
        let event = if there { BodyEvent::PoolFound(remote.pool) } else { BodyEvent::PoolLost(remote.pool) };
        match there {
            true => tracing::info!(pool = remote.name, "the engine of a pool answers"),
            false => {
                tracing::warn!(pool = remote.name, "the engine of a pool does not answer; nothing new is started there")
            }
        }
        let _ = self.events.send(event).await;
    }

    /// The engine of a pool has been away for so long that its instances count as ended.
    pub(super) async fn give_up(&self, away_since: u64) {
        let Some(remote) = &self.options.remote else { return };
        let away = kip_host::clock::boot_millis().saturating_sub(away_since);
        if u128::from(away) < remote.lost_after.as_millis() {
            return;
        }
        for instance in self.roster.all() {
            let here = instance.process.lock().is_some();
            if !here && !instance.given_up.swap(true, Ordering::AcqRel) {
                tracing::warn!(instance = %instance.id, pool = remote.name, "it counts as ended: its engine was away for too long");
                self.finish(&instance, (None, None), false).await;
            }
        }
    }

    /// Waits for a named engine at the start of a server.
    pub(super) async fn engine_at_start(self: &Arc<Self>) -> Result<Arc<Engine>, String> {
        let first = self.engine().await;
        if self.options.remote.is_none() || first.is_ok() {
            return first;
        }
        let looking = async {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Ok(engine) = self.engine().await {
                    return engine;
                }
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.map_err(|_| first.err().unwrap_or_default())
    }

    /// Looks for a named engine that has not answered yet, for as long as the body is there.
    pub(super) fn look_for_engine(self: &Arc<Self>) {
        let body = Arc::downgrade(self);
        kip_host::tasks::spawn("look for engine", async move {
            while let Some(shared) = body.upgrade() {
                match shared.engine().await {
                    Ok(_) => return,
                    Err(_) => shared.tell_pool(false).await,
                }
                drop(shared);
                tokio::time::sleep(LOOK).await;
            }
        });
    }

    /// An instance that its body gave up has nothing that could be asked to end.
    pub(super) fn forget_if_given_up(&self, instance: &Instance) -> bool {
        let given_up = instance.given_up.load(Ordering::Acquire);
        if given_up {
            self.forget(instance.id);
        }
        given_up
    }
}

impl Instance {
    /// Whether its body has lost touch with it.
    pub(super) fn is_lost(&self) -> bool {
        *self.life.borrow() == Liveness::Unreachable
    }
}
