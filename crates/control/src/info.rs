//! What can be asked about functions, instances and the host.

use kip_fleet::function::WaitReason;
use kip_fleet::placer::DeviceUse;
use kip_fleet::{Class, Kind, Now, Placer, State};
use kip_spec::InstanceId;
use kip_wire::{DeviceInfo, DiskInfo, FunctionInfo, HostInfo, InstanceInfo, QuotaInfo, WaitInfo};

use crate::cell::{Cell, now};
use crate::devices;
use crate::qualifiers::{Qualifiers, percent};

fn traffic_of(named: &Qualifiers) -> Vec<(String, String)> {
    let shares = named.traffic().iter();
    shares.map(|share| (share.to.to_string(), percent(share.millionths.into()))).collect()
}

/// The ledger's part of the host.
pub(crate) fn host_of(placer: &Placer, now: Now) -> HostInfo {
    let (reserved_memory, memory, waiting_for_room) = placer.ledger();
    let inventory = placer.inventory();
    let hosts = inventory.pools.iter().flat_map(|pool| &pool.hosts);
    let device = |device: DeviceUse| DeviceInfo {
        number: device.device,
        name: device.name,
        granted: device.granted,
        memory: device.memory,
    };
    HostInfo {
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

impl Cell {
    /// The function as users see it.
    pub fn info(&self) -> FunctionInfo {
        let inner = self.lock();
        let serving = inner.serving().clone();
        let mut info = FunctionInfo {
            name: self.name().clone(),
            version: serving.id,
            label: inner.label(serving.id),
            traffic: inner.qualifiers().map(traffic_of).unwrap_or_default(),
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
            missing: None,
            crash_loop: None,
            last_failure: None,
            last_failure_code: None,
            outcomes: inner.outcomes.all(),
            labels: inner.outcomes.versions().map(|version| (version.0, inner.label(version))).collect(),
            spec: serving.spec.clone(),
        };
        let failure = Self::last_failure(&inner);
        // Each instance that waits for room, by the place of its text.
        let mut for_room: Vec<(usize, InstanceId)> = Vec::new();
        let now = now();
        // The first instance that lacks something.
        let mut lacks = None;
        self.look(&inner, |core| {
            info.scaling = Self::scaling_infos(&inner, core);
            lacks = core.instances().find_map(|instance| {
                let (_, revision) = core.revisions().find(|(version, _)| *version == instance.version)?;
                Some((instance.id, revision.policy.need, instance.waits_for?))
            });
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
                    info.waits.push(WaitInfo {
                        version,
                        label: inner.label(version),
                        queued,
                        oldest_ms,
                        why: waits.to_string(),
                    });
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
        if let Some((instance, need, lack)) = lacks {
            let holders = self.in_the_way(instance).map(|text| format!("; {text}")).unwrap_or_default();
            info.missing = self.missing(need, lack).map(|missing| missing + &holders);
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
                    label: inner.label(instance.version),
                    kind: instance.kind.name().to_owned(),
                    state: instance.state.name().to_owned(),
                    devices: inventory.as_ref().map(|all| devices::names(all, instance.place)).unwrap_or_default(),
                    pool: inventory
                        .as_ref()
                        .filter(|all| all.pools.len() > 1)
                        .and_then(|all| all.pools.get(usize::from(instance.place.pool)))
                        .filter(|_| instance.state != State::Requested)
                        .map(|pool| pool.name.clone()),
                    lost: instance.lost,
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
