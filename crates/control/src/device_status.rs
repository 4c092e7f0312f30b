//! What there is to say of each device: its memory by instance, what its driver shows, and who would be evicted next.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use kip_fleet::room::Gpu;
use kip_fleet::{Now, Place};
use kip_freezer::Report;
use kip_spec::{Bytes, InstanceId};
use kip_wire::{DeviceReading, DeviceStatus, DeviceUser, OtherProgram};

use crate::cell::now;
use crate::control::Control;
use crate::shared::Shared;

impl Control {
    /// The devices that the server uses, by number.
    pub async fn device_statuses(&self) -> Vec<DeviceStatus> {
        let shared = &self.shared;
        let devices = shared.with_placer(kip_fleet::Placer::devices);
        if devices.is_empty() {
            return Vec::new();
        }
        let report = shared.meter.report(shared.options.kip.clone()).await;
        let yielded = shared.devices.yielded();
        let mut all: Vec<DeviceStatus> = Vec::new();
        let mut users: BTreeMap<String, Vec<DeviceUser>> = BTreeMap::new();
        let mut local: HashSet<String> = HashSet::new();
        let mut own: Vec<InstanceId> = Vec::new();
        for device in &devices {
            let Some(place) = shared.device_place(&device.name) else { continue };
            let found = shared.users_of(place, device.memory);
            own.extend(found.iter().map(|user| user.instance));
            if shared.is_local(place.pool) {
                local.insert(device.name.clone());
            }
            users.insert(device.name.clone(), found);
        }
        let ours = shared.processes_of(&own).await;
        for device in devices {
            let yielded = yielded.get(&device.name);
            all.push(DeviceStatus {
                number: device.device,
                memory: device.memory,
                granted: device.granted,
                yielded: yielded.is_some(),
                yielded_until: yielded.and_then(|yielded| yielded.until),
                // The driver of this host knows nothing of devices elsewhere.
                seen: report
                    .as_ref()
                    .filter(|_| local.contains(&device.name))
                    .and_then(|report| reading(report, device.device, &ours)),
                instances: users.remove(&device.name).unwrap_or_default(),
                name: device.name,
            });
        }
        all
    }
}

impl Shared {
    fn users_of(&self, place: Place, memory: u64) -> Vec<DeviceUser> {
        let now: Now = now();
        let on: Vec<(InstanceId, Gpu)> = self.with_placer(|placer| placer.on_device(place).collect());
        let mut found = Vec::new();
        for (id, gpu) in on {
            let Some(cell) = self.owner(id) else { continue };
            let inner = cell.lock();
            let look = |core: &kip_fleet::FunctionCore| Some((core.instance(id)?.state, core.eviction_rank(now, id)));
            let Some((state, rank)) = cell.look(&inner, look).flatten() else { continue };
            let held = inner.links.get(&id).and_then(|link| link.device_memory());
            drop(inner);
            let charged = match gpu {
                Gpu::None => 0,
                Gpu::Slice(bytes) => bytes,
                Gpu::Cards(_) => memory,
            };
            let user = DeviceUser {
                function: cell.name().clone(),
                instance: id,
                state: state.name().to_owned(),
                charged,
                held: held.filter(|_| charged > 0),
                evictable: rank.is_some() && charged > 0,
            };
            found.push(((!user.evictable, rank, id), user));
        }
        found.sort_by_key(|(rank, _)| *rank);
        found.into_iter().map(|(_, user)| user).collect()
    }

    /// Who holds the memory of a device that an instance was granted, where nobody of this server does: an instance that starts would fail
    /// when it loads. `None` where there is room, or the driver does not say.
    pub(crate) async fn taken_by_others(&self, place: Place, gpu: Gpu) -> Option<String> {
        let (Gpu::Slice(share), Some(number)) = (gpu, place.devices().next()) else { return None };
        let report = self.meter.report(self.options.kip.clone()).await?;
        let device = report.devices.iter().find(|device| device.index as usize == number)?;
        let missing = share.checked_sub(device.memory.free).filter(|missing| *missing > 0)?;
        let own: Vec<InstanceId> = self.with_placer(|placer| placer.on_device(place).map(|(id, _)| id).collect());
        let ours = self.processes_of(&own).await;
        let there = |process: u32| Path::new("/proc").join(process.to_string()).exists();
        let others: Vec<(u32, u64)> = device
            .holders
            .iter()
            .filter(|holder| !ours.contains(&holder.pid) && there(holder.pid))
            .filter_map(|holder| Some((holder.pid, holder.bytes?)))
            .collect();
        // What our own instances hold beyond their shares is another matter.
        if others.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes)) < missing {
            return None;
        }
        let list: Vec<String> =
            others.iter().map(|(process, bytes)| format!("process {process} holds {}", Bytes(*bytes))).collect();
        Some(format!(
            "it needs {} of the device, {} are free, and {}; `kip device ls -v` shows them",
            Bytes(share),
            Bytes(device.memory.free),
            list.join(", ")
        ))
    }

    async fn processes_of(&self, instances: &[InstanceId]) -> HashSet<u32> {
        let (bodies, ids) = (self.bodies.clone(), instances.to_vec());
        let members = kip_host::tasks::blocking("look at processes", move || bodies.members(&ids)).await;
        members.unwrap_or_default().into_values().flatten().collect()
    }
}

fn reading(report: &Report, number: usize, ours: &HashSet<u32>) -> Option<DeviceReading> {
    let device = report.devices.iter().find(|device| device.index as usize == number)?;
    let others = device.holders.iter().filter(|holder| !ours.contains(&holder.pid));
    Some(DeviceReading {
        total: device.memory.total,
        free: device.memory.free,
        utilization: device.load.utilization,
        milliwatts: device.load.milliwatts,
        celsius: device.load.celsius,
        others: others.map(|holder| OtherProgram { process: holder.pid, held: holder.bytes }).collect(),
    })
}
