//! One container and what belongs to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use http::HeaderMap;
use kip_spec::function::Hook;
use kip_spec::{InstanceId, VersionId};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::cgroups::Cgroups;
use super::journal::Journal;
use super::output::Output;
use crate::body::{Error, InstanceEnd, Liveness};
use crate::contract;

/// A port of this host that leads to a container on another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// The port here.
    pub(super) local: SocketAddr,
    /// Where it leads to, as the other host sees it.
    pub(super) to: String,
}

/// A container and what belongs to it.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    /// What the engine calls it.
    pub(super) container: String,
    /// The port that the program was told to listen on.
    pub(super) port: u16,
    /// Its function's name.
    pub(super) function: String,
    /// Its version, if its labels say it.
    pub(super) version: Option<VersionId>,
    /// Its main process, where that is a process of this host, and its cgroups.
    pub(super) process: Mutex<Option<(u32, Cgroups)>>,
    /// Its own folder.
    pub(super) folder: PathBuf,
    pub(super) journal: Mutex<Journal>,
    /// The port of this host that leads to it, where it is behind ssh.
    pub(super) route: Mutex<Option<Route>>,
    /// Its engine was away for too long: it counts as ended, whatever it does.
    pub(super) given_up: AtomicBool,
    /// Known once ready.
    pub(super) address: Mutex<Option<SocketAddr>>,
    /// Headers for hooks.
    pub(super) headers: HeaderMap,
    pub(super) life: watch::Sender<Liveness>,
    /// Set once its main process has ended.
    pub(super) ended: watch::Sender<Option<InstanceEnd>>,
    /// What reads its output.
    pub(super) output: Mutex<Option<Output>>,
    /// Held while it is being stopped.
    pub(super) stopping: tokio::sync::Mutex<()>,
}

impl Instance {
    /// Writes down how far it has come. If that fails it serves on, and the next server ends it.
    pub(super) fn note(&self, change: impl FnOnce(&mut Journal)) {
        let mut journal = self.journal.lock();
        change(&mut journal);
        if let Err(error) = journal.write(&self.folder) {
            tracing::error!(instance = %self.id, %error, "its journal is not written; a restart of the server would end it");
        }
    }

    /// Calls a hook on it.
    pub(super) async fn call_hook(&self, name: &'static str, method: http::Method, hook: &Hook) -> Result<(), Error> {
        let address = *self.address.lock();
        contract::call_hook(self.id, (address.map(Into::into), &self.headers), name, method, hook).await
    }

    /// Whether its main process has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }
}
