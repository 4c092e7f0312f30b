//! What can be asked about functions, instances and the host.

use kip_fleet::function::WaitReason;
use kip_fleet::placer::DeviceUse;
use kip_fleet::{Class, Kind, Now, Placer, State};
use kip_spec::function::FunctionSpec;
use kip_spec::{Code, FunctionName, InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::cell::{Cell, now};
use crate::devices;
use crate::disk::DiskInfo;
use crate::scaling::ScalingInfo;

/// What became of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum VersionStatus {
    /// It is proving itself.
    Candidate,
    /// It serves, or has served.
    Serving,
    /// A newer one was deployed before it served.
    Replaced {
        /// Which.
        by: VersionId,
    },
    /// It did not become ready; what served before goes on serving.
    Failed {
        /// The stable code.
        code: Code,
        /// In a sentence.
        why: String,
        /// The detail and the program's last lines.
        detail: String,
    },
}

/// What became of deployments, the latest few, in the order of versions. Nearly every function has one.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(Vec<(VersionId, VersionStatus)>);

impl Outcomes {
    /// Deployments that are remembered.
    const MOST: usize = 16;

    pub(crate) fn set(&mut self, version: VersionId, status: VersionStatus) {
        match self.0.binary_search_by_key(&version, |(id, _)| *id) {
            Ok(place) => self.0[place].1 = status,
            Err(place) => {
                // No more than is needed: this is held for each of thousands of functions.
                self.0.reserve_exact(1);
                self.0.insert(place, (version, status));
            }
        }
        if self.0.len() > Self::MOST {
            self.0.remove(0);
        }
    }

    /// Candidates have been overtaken.
    pub(crate) fn overtaken(&mut self, by: VersionId) {
        for (_, status) in self.0.iter_mut().filter(|(_, status)| *status == VersionStatus::Candidate) {
            *status = VersionStatus::Replaced { by };
        }
    }

    pub(crate) fn all(&self) -> Vec<(VersionId, VersionStatus)> {
        self.0.clone()
    }
}

/// A function as users see it.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FunctionInfo {
    /// Its name.
    pub name: FunctionName,
    /// The version that serves.
    pub version: VersionId,
    /// Instances that can serve now.
    pub hot: u32,
    /// Instances on the way there.
    pub starting: u32,
    /// Instances that sleep.
    pub asleep: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that wait.
    pub queued: u32,
    /// How long the oldest of them has waited, in milliseconds.
    pub oldest_waiting_ms: Option<u64>,
    /// What requests wait for, by version; only versions for which some do.
    #[serde(default)]
    pub waits: Vec<WaitInfo>,
    /// What scaling policies want, and why.
    #[serde(default)]
    pub scaling: Vec<ScalingInfo>,
    /// That nobody has used its provisioned instances for hours, and what releases them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminder: Option<String>,
    /// Starts that failed in a row.
    pub failed_starts: u32,
    /// A version of which starts fail, or instances end, again and again.
    #[serde(default)]
    pub crash_loop: Option<VersionId>,
    /// What is known of the last failed start.
    pub last_failure: Option<String>,
    /// The stable code of the last failed start.
    #[serde(default)]
    pub last_failure_code: Option<Code>,
    /// What became of the latest versions.
    pub outcomes: Vec<(VersionId, VersionStatus)>,
    /// The declaration, every default filled in.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub spec: FunctionSpec,
}

/// Requests of a version that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WaitInfo {
    /// The version.
    pub version: VersionId,
    /// How many.
    pub queued: u32,
    /// How long the oldest has waited, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// For what, in a sentence.
    pub why: String,
}

/// An instance as users see it.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InstanceInfo {
    /// Its id.
    pub id: InstanceId,
    /// Its function.
    pub function: FunctionName,
    /// Its version.
    pub version: VersionId,
    /// provisioned or on-demand.
    #[serde(default)]
    pub kind: String,
    /// Where it is in its life.
    pub state: String,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// The names of its devices.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Its ready probe fails: it gets no requests.
    #[serde(default)]
    pub unready: bool,
    /// Why it is to be replaced, if it is.
    #[serde(default)]
    pub replace: Option<String>,
    /// What it waits for, if it waits for room.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// Requests it has now.
    pub in_flight: u32,
    /// Requests it was given in all.
    pub served: u64,
    /// Its main process, once it runs.
    pub process: Option<u32>,
    /// Where it listens, once it is ready.
    pub address: Option<String>,
    /// The most memory that it ever used, in bytes; only where one instance is asked for and where it is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

/// The host as users see it.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostInfo {
    /// Bytes of memory that instances have reserved.
    pub reserved_memory: u64,
    /// Bytes of memory there are for them.
    pub memory: u64,
    /// Thousandths of a CPU there are for them.
    #[serde(default)]
    pub cpu: u64,
    /// Devices that were declared.
    #[serde(default)]
    pub devices: Vec<DeviceInfo>,
    /// What all functions together may take.
    #[serde(default)]
    pub quota: QuotaInfo,
    /// The share of the last ten minutes, in a thousand, that the worst place spent on changing hands.
    #[serde(default)]
    pub thrash_per_mille: u32,
    /// The part of it that was in vain: who lost its place wanted it back before the other one served.
    #[serde(default)]
    pub thrash_in_vain_per_mille: u32,
    /// Instances that wait for room.
    pub waiting_for_room: usize,
    /// Records dropped because the disk did not keep up, or left out because there were enough of their kind.
    pub dropped_records: u64,
    /// Lines of the server's log that could not be written.
    #[serde(default)]
    pub dropped_log_lines: u64,
    /// Of these, records left out because the disk is nearly full.
    pub shed_records: u64,
    /// The disk that state is on.
    pub disk: DiskInfo,
}

/// A device as users see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeviceInfo {
    /// Its number on the host, as in `CUDA_VISIBLE_DEVICES`.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Bytes of its memory that are granted.
    pub granted: u64,
    /// Bytes of its memory for instances.
    pub memory: u64,
}

/// What all functions together may take; nothing is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct QuotaInfo {
    /// Devices.
    pub cards: Option<u32>,
    /// Instances.
    pub instances: Option<u32>,
}

impl HostInfo {
    /// The ledger's part of it.
    pub(crate) fn of_placer(placer: &Placer, now: Now) -> Self {
        let (reserved_memory, memory, waiting_for_room) = placer.ledger();
        let inventory = placer.inventory();
        let hosts = inventory.pools.iter().flat_map(|pool| &pool.hosts);
        let device = |device: DeviceUse| DeviceInfo {
            number: device.device,
            name: device.name,
            granted: device.granted,
            memory: device.memory,
        };
        Self {
            reserved_memory,
            memory,
            cpu: hosts.fold(0, |sum, host| sum.saturating_add(host.cpu)),
            devices: placer.devices().into_iter().map(device).collect(),
            quota: QuotaInfo { cards: inventory.quota.cards, instances: inventory.quota.instances },
            thrash_per_mille: placer.thrash(now),
            thrash_in_vain_per_mille: placer.thrash_in_vain(now),
            waiting_for_room,
            dropped_records: 0,
            dropped_log_lines: 0,
            shed_records: 0,
            disk: DiskInfo::default(),
        }
    }
}

impl Cell {
    /// The function as users see it.
    pub fn info(&self) -> FunctionInfo {
        let inner = self.lock();
        let serving = inner.serving().clone();
        let mut info = FunctionInfo {
            name: self.name().clone(),
            version: serving.id,
            hot: 0,
            starting: 0,
            asleep: 0,
            in_flight: 0,
            queued: 0,
            oldest_waiting_ms: None,
            waits: Vec::new(),
            scaling: Vec::new(),
            reminder: inner.unused.as_ref().map(|unused| unused.tell(now().wall)),
            failed_starts: 0,
            crash_loop: None,
            last_failure: None,
            last_failure_code: None,
            outcomes: inner.outcomes.all(),
            spec: serving.spec.clone(),
        };
        let failure = Self::last_failure(&inner);
        // Each instance that waits for room, by the place of its text.
        let mut for_room: Vec<(usize, InstanceId)> = Vec::new();
        let now = now();
        self.look(&inner, |core| {
            info.scaling = Self::scaling_infos(core);
            for instance in core.instances() {
                info.in_flight += instance.in_flight;
                match instance.state.class() {
                    Class::Hot => info.hot += 1,
                    Class::Starting => info.starting += 1,
                    Class::Asleep => info.asleep += 1,
                    Class::Leaving | Class::Gone => {}
                }
            }
            for (version, revision) in core.revisions() {
                if let (Some(waits), Some((queued, oldest_ms))) = (core.waits(version, now), core.queue(version, now)) {
                    if let WaitReason::Room { instance, .. } = waits {
                        for_room.push((info.waits.len(), instance));
                    }
                    info.waits.push(WaitInfo { version, queued, oldest_ms, why: waits.to_string() });
                }
                if revision.backoff.is_crash_loop() {
                    info.crash_loop = Some(version);
                }
                info.queued += revision.queue.depth();
                let age = revision.queue.oldest().map(|since| now.boot.saturating_sub(since));
                info.oldest_waiting_ms = info.oldest_waiting_ms.max(age);
                info.failed_starts = info.failed_starts.max(revision.backoff.failures());
                info.last_failure_code =
                    revision.backoff.last().map(|failure| failure.code()).or(info.last_failure_code);
                info.last_failure =
                    revision.backoff.last().map(|failure| failure.to_string()).or_else(|| info.last_failure.take());
            }
        });
        drop(inner);
        for (at, instance) in for_room {
            if let Some(text) = self.in_the_way(instance) {
                info.waits[at].why.push_str(&format!("; {text}"));
            }
        }
        if info.failed_starts > 0 {
            info.last_failure =
                failure.filter(|text| !text.is_empty()).map_or(info.last_failure, |text| Some(text.to_string()));
        }
        info
    }

    /// Why an instance is there; none once it is gone.
    pub fn kind_of(&self, instance: InstanceId) -> Option<Kind> {
        let inner = self.lock();
        let find = |core: &kip_fleet::FunctionCore| {
            core.instances().find(|known| known.id == instance).map(|known| known.kind)
        };
        self.look(&inner, find).flatten()
    }

    /// Its instances as users see them.
    pub fn instance_infos(&self) -> Vec<InstanceInfo> {
        let inner = self.lock();
        let now = now();
        let inventory = self.inventory();
        let bodies = self.bodies();
        let list = |core: &kip_fleet::FunctionCore| {
            let info = |instance: &kip_fleet::instance::Instance| {
                let link = inner.links.get(&instance.id);
                InstanceInfo {
                    id: instance.id,
                    function: self.name().clone(),
                    version: instance.version,
                    kind: instance.kind.name().to_owned(),
                    state: instance.state.name().to_owned(),
                    devices: inventory.as_ref().map(|all| devices::names(all, instance.place)).unwrap_or_default(),
                    unready: instance.unready,
                    replace: instance.replace.map(|why| why.to_string()),
                    waits_for: instance.waits_for.map(|lack| lack.to_string()),
                    for_ms: now.boot.saturating_sub(instance.since),
                    in_flight: instance.in_flight,
                    served: instance.served,
                    process: bodies.as_ref().and_then(|bodies| bodies.process(instance.id)),
                    address: link.map(|link| link.endpoint.to_string()),
                    peak_memory: None,
                }
            };
            core.instances().filter(|instance| !matches!(instance.state, State::Gone(_))).map(info).collect()
        };
        self.look(&inner, list).unwrap_or_default()
    }
}
