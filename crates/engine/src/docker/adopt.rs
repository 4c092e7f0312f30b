//! What an earlier server of this data directory left on the engine: found by label, and either offered for adoption or ended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kip_host::clock::{boot_millis, wall_millis};
use kip_host::sockets::{self, Connection};
use kip_spec::InstanceId;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::connect::Engine;
use super::inspect::{self, Listed};
use super::instance::Instance;
use super::journal::Journal;
use super::labels::Labels;
use super::{Shared, follow};
use crate::adoption::{Adoption, AliveInstance, ENDED, FoundInstance, LeftConnections};
use crate::body::Liveness;
use crate::contract;
use crate::process::exec::{is_of_session, kill};

impl Shared {
    /// Looks for containers of earlier servers and takes hold of all of them.
    pub(super) async fn find_left(self: &Arc<Self>) -> Adoption {
        let mut adoption = Adoption::default();
        let mut known = BTreeSet::new();
        // Without an engine nothing of them runs; what it brings back later is removed, because nobody owns it then.
        if let Ok(engine) = self.engine_at_start().await {
            match follow::list(&engine, &self.options.server).await {
                Ok(found) => {
                    for (container, labels) in found {
                        known.insert(labels.instance);
                        self.take_hold(&engine, container, labels, &mut adoption).await;
                    }
                }
                Err(error) => tracing::error!(%error, "containers of an earlier server cannot be listed"),
            }
        }
        self.forget_folders(&known);
        adoption
    }

    async fn take_hold(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        container: Listed,
        labels: Labels,
        adoption: &mut Adoption,
    ) {
        let id = labels.instance;
        let journal = Journal::read(&self.folder_of(id));
        let instance = Arc::new(Instance {
            id,
            container: container.id,
            port: labels.port,
            function: labels.function.as_ref().map(ToString::to_string).unwrap_or_default(),
            version: labels.version,
            process: Mutex::new(None),
            route: Mutex::new(None),
            given_up: AtomicBool::new(false),
            folder: self.folder_of(id),
            address: Mutex::new(journal.as_ref().and_then(|journal| journal.address)),
            headers: contract::read_headers(journal.as_ref().map_or(&[], |journal| journal.headers.as_slice())),
            journal: Mutex::new(journal.clone().unwrap_or_default()),
            life: watch::Sender::new(Liveness::Alive),
            ended: watch::Sender::new(None),
            output: Mutex::new(None),
            stopping: tokio::sync::Mutex::default(),
        });
        self.roster.add(id, instance.clone());
        let found = self.alive(engine, &instance, &container.state, journal.as_ref(), &labels).await;
        let memo = journal.as_ref().and_then(|journal| journal.memo.clone()).unwrap_or(labels.memo);
        let has_grace = journal
            .and_then(|journal| journal.ending)
            .is_some_and(|ending| ending.until.is_none_or(|until| until > boot_millis()));
        let mut found = FoundInstance {
            instance: id,
            function: labels.function,
            version: labels.version,
            devices: labels.devices,
            memo,
            state: found,
            has_grace,
        };
        if instance.has_ended() {
            // Nothing runs any more, but its last words are there to be read.
            let left = instance.clone();
            let (shared, engine) = (self.clone(), engine.clone());
            kip_host::tasks::spawn("remove ended container", async move {
                if let Err(error) = shared.end_by_force(&engine, &left).await {
                    tracing::warn!(instance = %left.id, %error, "an ended container is still there");
                }
                shared.forget(left.id);
            });
        }
        if let Ok(alive) = &mut found.state
            && !alive.asleep
        {
            let (process, open) = inherited(&instance);
            if !open.is_empty() {
                alive.busy = u32::try_from(open.len()).unwrap_or(u32::MAX);
                adoption.inherited.0.insert(id, LeftConnections::Tcp(process, open));
            }
        }
        adoption.found.push(found);
    }

    async fn alive(
        self: &Arc<Self>,
        engine: &Engine,
        instance: &Arc<Instance>,
        state: &str,
        journal: Option<&Journal>,
        labels: &Labels,
    ) -> Result<AliveInstance, String> {
        self.read_output(engine, instance);
        let asleep = match state {
            "paused" => true,
            "running" => false,
            _ => {
                self.look_at_end(engine, instance).await;
                // One that was made and never started is removed as well.
                self.finish(instance, (None, None), false).await;
                return Err(ENDED.to_owned());
            }
        };
        let found = inspect::inspect(engine, &instance.container).await.map_err(|error| error.to_string())?;
        self.located(instance, &found);
        end_sessions(instance);
        let Some(journal) = journal else { return Err("nothing is written down of it".to_owned()) };
        if let Some(reason) = journal.unfit(labels.initialize) {
            return Err(reason.to_owned());
        }
        if self.is_elsewhere() {
            // The ports of this host that led to it ended with the earlier server.
            self.locate(instance, &found, found.reached_by(instance.port)).await?;
        }
        let address = *instance.address.lock();
        let Some(address) = address.filter(|_| journal.address.is_some()) else {
            return Err("it listened nowhere".to_owned());
        };
        let started = found.state.started_at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
        let age = started.map_or(0, |at| u64::try_from(wall_millis() - at).unwrap_or(0));
        let born = boot_millis().saturating_sub(age);
        let life = instance.life.subscribe();
        let token = contract::token_of(&instance.headers);
        Ok(AliveInstance { endpoint: address.into(), life, token, asleep, busy: 0, born })
    }

    /// Folders of instances of which the engine has nothing.
    fn forget_folders(&self, known: &BTreeSet<InstanceId>) {
        let entries = std::fs::read_dir(&self.options.instances).into_iter().flatten().flatten();
        for entry in entries {
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if id.is_some_and(|id| !known.contains(&id)) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Ends what exec sessions of the earlier server have left: nobody reads it any more.
fn end_sessions(instance: &Instance) {
    let process = instance.process.lock();
    let processes = process.as_ref().map(|(_, cgroups)| cgroups.processes()).unwrap_or_default();
    processes.into_iter().filter(|process| is_of_session(*process, None)).for_each(kill);
}

/// Connections that the earlier server left on an instance: seen in the network namespace of its main process.
fn inherited(instance: &Instance) -> (Option<u32>, Vec<Connection>) {
    let process = instance.process.lock().as_ref().map(|(process, _)| *process);
    let Some(process) = process else { return (None, Vec::new()) };
    let all = sockets::connections_of(process).unwrap_or_default();
    (Some(process), all.into_iter().filter(|connection| connection.local.port() == instance.port).collect())
}
