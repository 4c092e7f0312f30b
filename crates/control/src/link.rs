//! What the data plane needs of an instance, and how it learns that its connections must go.

use std::net::SocketAddr;
use std::sync::Arc;

use kip_spec::InstanceId;
use tokio::sync::watch;

use crate::Version;

/// An instance that can be reached. Shared by everything that talks to it.
#[derive(Debug)]
pub struct Link {
    /// Its id.
    pub instance: InstanceId,
    /// Its version.
    pub version: Arc<Version>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its main process.
    pub process: u32,
    /// Counts its sleeps. Connections of an earlier count are closed: a paused instance must have none that look alive.
    epoch: watch::Sender<u64>,
}

impl Link {
    pub(crate) fn new(instance: InstanceId, version: Arc<Version>, address: SocketAddr, process: u32) -> Self {
        Self { instance, version, address, process, epoch: watch::Sender::new(0) }
    }

    /// The present epoch, and a way to wait for its end. Idle connections close when it ends.
    pub fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Ends the epoch: the instance is about to sleep or to end.
    pub(crate) fn end_epoch(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }
}
