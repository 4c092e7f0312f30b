//! What is used where, and where something fits.

use std::collections::BTreeMap;

use kip_spec::InstanceId;
use serde::{Deserialize, Serialize};

use super::{Holding, Placer, Waiter};
use crate::room::{DeviceKind, Gpu, Inventory, Place, RoomNeed, Shortage};

/// Devices of one host that are looked at; more would not fit into [`Place::devices`].
const DEVICES: usize = 64;

/// What is granted, by pool and host.
#[derive(Debug, Clone, Default)]
pub(super) struct PoolUsage {
    hosts: BTreeMap<(u16, u32), HostUse>,
    /// Instances by pool.
    pools: BTreeMap<u16, u32>,
    /// Instances in all.
    pub(super) instances: u32,
}

#[derive(Debug, Clone, Default)]
struct HostUse {
    cpu: u128,
    memory: u128,
    devices: BTreeMap<usize, DeviceGrants>,
    /// How often each port is given away: more than once only among adopted instances.
    ports: BTreeMap<u16, u32>,
}

impl HostUse {
    /// Whether somebody has a port; nobody has 0.
    fn has_port(&self, port: u16) -> bool {
        port > 0 && self.ports.get(&port).is_some_and(|count| *count > 0)
    }
}

/// What is granted of one device.
#[derive(Debug, Clone, Copy, Default)]
struct DeviceGrants {
    bytes: u128,
    /// How often it is given away whole: more than once only among adopted instances.
    whole: u32,
}

impl DeviceGrants {
    /// Bytes of a device with so many.
    fn of(self, memory: u64) -> u64 {
        if self.whole > 0 { memory } else { u64::try_from(self.bytes).unwrap_or(u64::MAX) }
    }
}

/// A device and what is granted of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceUse {
    /// The pool's name.
    pub pool: String,
    /// The host within the pool.
    pub host: usize,
    /// The device within the host.
    pub device: usize,
    /// Its name.
    pub name: String,
    /// Bytes granted.
    pub granted: u64,
    /// Bytes there are.
    pub memory: u64,
}

impl PoolUsage {
    pub(super) fn add_holding(&mut self, holding: &Holding) {
        self.add(holding.place, &holding.room());
        *self.pools.entry(holding.place.pool).or_default() += 1;
        self.instances += 1;
    }

    /// Takes out exactly what was added.
    pub(super) fn remove_holding(&mut self, holding: &Holding) {
        let (place, room) = (holding.place, holding.room());
        if let Some(host) = self.hosts.get_mut(&(place.pool, place.host)) {
            host.cpu -= u128::from(room.cpu);
            host.memory -= u128::from(room.memory);
            if room.port > 0 {
                *host.ports.entry(room.port).or_insert(1) -= 1;
            }
            for device in place.devices() {
                let granted = host.devices.entry(device).or_default();
                match room.gpu {
                    Gpu::None => {}
                    Gpu::Slice(bytes) => granted.bytes -= u128::from(bytes),
                    Gpu::Cards(_) => granted.whole -= 1,
                }
            }
        }
        if let Some(instances) = self.pools.get_mut(&place.pool) {
            *instances -= 1;
        }
        self.instances -= 1;
    }

    /// Adds what an instance is to have at a place, beyond what it has.
    pub(super) fn reserve(&mut self, place: Place, missing: &RoomNeed, is_there: bool) {
        self.add(place, missing);
        if !is_there {
            *self.pools.entry(place.pool).or_default() += 1;
            self.instances += 1;
        }
    }

    /// Adds what an instance takes at a place.
    pub(super) fn add(&mut self, place: Place, room: &RoomNeed) {
        let host = self.hosts.entry((place.pool, place.host)).or_default();
        host.cpu += u128::from(room.cpu);
        host.memory += u128::from(room.memory);
        if room.port > 0 {
            *host.ports.entry(room.port).or_default() += 1;
        }
        for device in place.devices() {
            let granted = host.devices.entry(device).or_default();
            match room.gpu {
                Gpu::None => {}
                Gpu::Slice(bytes) => granted.bytes += u128::from(bytes),
                Gpu::Cards(_) => granted.whole += 1,
            }
        }
    }

    fn host(&self, place: Place) -> &HostUse {
        const NOTHING: &HostUse = &HostUse { cpu: 0, memory: 0, devices: BTreeMap::new(), ports: BTreeMap::new() };
        self.hosts.get(&(place.pool, place.host)).unwrap_or(NOTHING)
    }

    /// Devices in use over everything, slices added up and rounded up.
    fn cards(&self, inventory: &Inventory, more: &RoomNeed) -> u64 {
        let mut parts = 0u64;
        for ((pool, host), used) in &self.hosts {
            let place = Place { pool: *pool, host: *host, devices: 0 };
            let Some(host) = inventory.host(place) else { continue };
            for (index, granted) in &used.devices {
                let Some(device) = host.devices.get(*index) else { continue };
                let share = granted.bytes * 1_000 / u128::from(device.memory.max(1));
                let share = u64::try_from(share).unwrap_or(u64::MAX);
                parts = parts.saturating_add(if granted.whole > 0 { 1_000 } else { share });
            }
        }
        let largest = inventory.pools.iter().flat_map(|pool| &pool.hosts).flat_map(|host| &host.devices);
        let memory = largest.map(|device| device.memory).max().unwrap_or(1).max(1);
        let more = match more.gpu {
            Gpu::None => 0,
            Gpu::Slice(bytes) => bytes.saturating_mul(1_000) / memory,
            Gpu::Cards(cards) => u64::from(cards) * 1_000,
        };
        parts.saturating_add(more).div_ceil(1_000)
    }

    /// Of one pool: instances, bytes of memory, thousandths of CPU.
    pub(super) fn in_pool(&self, pool: u16) -> (u32, u64, u64) {
        let hosts = || self.hosts.iter().filter(move |((other, _), _)| *other == pool).map(|(_, used)| used);
        let sum = |of: fn(&HostUse) -> u128| u64::try_from(hosts().map(of).sum::<u128>()).unwrap_or(u64::MAX);
        (self.pools.get(&pool).copied().unwrap_or(0), sum(|host| host.memory), sum(|host| host.cpu))
    }

    /// Bytes of host memory.
    pub(super) fn memory(&self) -> u64 {
        let sum: u128 = self.hosts.values().map(|host| host.memory).sum();
        u64::try_from(sum).unwrap_or(u64::MAX)
    }

    pub(super) fn devices(&self, inventory: &Inventory) -> Vec<DeviceUse> {
        let mut all = Vec::new();
        for (pool, declared) in (0u16..).zip(&inventory.pools) {
            for (host, machine) in (0u32..).zip(&declared.hosts) {
                let used = self.host(Place { pool, host, devices: 0 });
                for (index, device) in machine.devices.iter().enumerate() {
                    let granted = used.devices.get(&index).copied().unwrap_or_default();
                    all.push(DeviceUse {
                        pool: declared.name.clone(),
                        host: host as usize,
                        device: index,
                        name: device.name.clone(),
                        granted: granted.of(device.memory),
                        memory: device.memory,
                    });
                }
            }
        }
        all
    }
}

impl Shortage {
    /// Both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            cpu: self.cpu || other.cpu,
            memory: self.memory || other.memory,
            gpu: self.gpu || other.gpu,
            quota: self.quota || other.quota,
            port: self.port || other.port,
            yielded: self.yielded.or(other.yielded),
            pool: self.pool || other.pool,
        }
    }

    /// What of this is touched by something that needs so much, and counts as one more or not.
    fn touched_by(self, need: &RoomNeed, new: bool) -> Self {
        Self {
            cpu: self.cpu && need.cpu > 0,
            memory: self.memory && need.memory > 0,
            gpu: self.gpu && need.gpu != Gpu::None,
            quota: self.quota && new,
            // Whoever waits for another port is not touched, and for one port all wait in line.
            port: false,
            yielded: self.yielded.filter(|_| need.gpu != Gpu::None),
            pool: self.pool,
        }
    }

    fn count(self) -> u32 {
        [self.cpu, self.memory, self.gpu, self.quota, self.port].into_iter().map(u32::from).sum()
    }
}

impl Placer {
    /// The memory of the device that an instance has a part of.
    pub(super) fn device_memory(&self, instance: InstanceId) -> u64 {
        let place = self.holdings.get(instance).map(|holding| holding.place).unwrap_or_default();
        let device = place.devices().next().and_then(|index| self.inventory.host(place)?.devices.get(index));
        device.map_or(0, |device| device.memory)
    }

    /// What a waiter needs beyond what it holds.
    pub(super) fn missing(&self, waiter: &Waiter) -> RoomNeed {
        let holding = self.holdings.get(waiter.instance);
        let kept = holding.map(Holding::room).unwrap_or_default();
        RoomNeed {
            cpu: waiter.need.cpu.saturating_sub(kept.cpu),
            memory: waiter.need.memory.saturating_sub(kept.memory),
            gpu: match holding {
                Some(holding) => match (kept.gpu, holding.charged(waiter.need.gpu)) {
                    (Gpu::None, need) => need,
                    (Gpu::Slice(kept), Gpu::Slice(need)) if kept < need => Gpu::Slice(need - kept),
                    _ => Gpu::None,
                },
                None => waiter.need.gpu,
            },
            kind: waiter.need.kind,
            port: if kept.port == waiter.need.port { 0 } else { waiter.need.port },
            barred: waiter.need.barred,
            priority: waiter.need.priority,
        }
    }

    /// Whether it could ever fit on an empty host.
    pub(super) fn fits_somewhere(&self, instance: InstanceId, need: RoomNeed) -> bool {
        self.holdings.contains(instance) || self.fits_empty(need)
    }

    /// Whether it could fit if nothing else were there.
    pub(super) fn fits_empty(&self, need: RoomNeed) -> bool {
        let quota = self.inventory.quota;
        let empty = PoolUsage::default();
        let within = quota.cards.is_none_or(|cards| empty.cards(&self.inventory, &need) <= u64::from(cards))
            && quota.instances != Some(0);
        within
            && self.hosts().any(|place| {
                need.may_be_in(place.pool)
                    && self.inventory.pools[usize::from(place.pool)].max != Some(0)
                    && self.fit(place, &need, &empty, 0).is_ok()
            })
    }

    /// Devices of a host that are yielded, a bit each.
    pub(super) fn yielded_on(&self, host: Place) -> u64 {
        let here = self.yielded.iter().filter(|((pool, number, _), _)| (*pool, *number) == (host.pool, host.host));
        here.fold(0, |bits, ((_, _, device), _)| bits | 1 << device)
    }

    /// Where nothing but yielded devices would do for so much: until when the first of them is, boot time.
    pub(super) fn yielded_until(&self, need: &RoomNeed) -> Option<u64> {
        let first = self.yielded.values().min()?;
        let empty = PoolUsage::default();
        let elsewhere = self.open_to(need).any(|host| self.fit(host, need, &empty, self.yielded_on(host)).is_ok());
        (need.gpu != Gpu::None && !elsewhere).then_some(*first)
    }

    /// Every host, in the order of the pools.
    pub(super) fn hosts(&self) -> impl Iterator<Item = Place> {
        (0u16..).zip(&self.inventory.pools).flat_map(|(pool, declared)| {
            (0u32..).zip(&declared.hosts).map(move |(host, _)| Place { pool, host, devices: 0 })
        })
    }

    /// The hosts of pools that answer, in which so much may be.
    pub(super) fn open_to(&self, need: &RoomNeed) -> impl Iterator<Item = Place> {
        let may = |place: &Place| need.may_be_in(place.pool) && !self.lost.contains(&place.pool);
        self.hosts().filter(move |place| may(place))
    }

    /// Where a waiter fits now. `closed`: what nobody may take, because somebody has waited too long for it, and of which
    /// type of device that is.
    ///
    /// # Errors
    /// What it lacks where it lacks least.
    pub(super) fn place(
        &self,
        waiter: &Waiter,
        used: &PoolUsage,
        closed: &[(Shortage, DeviceKind)],
    ) -> Result<Place, Shortage> {
        let missing = self.missing(waiter);
        if let Some(until) = self.yielded_until(&RoomNeed { gpu: missing.gpu, ..waiter.need }) {
            return Err(Shortage { gpu: true, yielded: Some(until), ..Shortage::default() });
        }
        let over = self.over_quota(waiter, &missing, used);
        if !over.is_nothing() {
            return Err(over);
        }
        let holding = self.holdings.get(waiter.instance);
        let kind = missing.kind;
        let closed = closed.iter().fold(Shortage::default(), |all, (lack, other)| {
            let same = other.accepts(kind) || kind.accepts(*other) || kind == DeviceKind::ANY;
            all.and(Shortage { gpu: lack.gpu && same, ..*lack }.touched_by(&missing, holding.is_none()))
        });
        if !closed.is_nothing() {
            return Err(closed);
        }
        if let Some(holding) = holding {
            // It wakes where it sleeps.
            return self.lack_at(holding.place, &missing, used).map_or(Ok(holding.place), Err);
        }
        if self.open_to(&missing).next().is_none() && self.hosts().any(|host| missing.may_be_in(host.pool)) {
            return Err(Shortage { pool: true, ..Shortage::default() });
        }
        let mut least: Option<Shortage> = None;
        for host in self.open_to(&missing).filter(|host| waiter.chosen.is_none_or(|chosen| same_host(chosen, *host))) {
            let full = self.inventory.pools[usize::from(host.pool)]
                .max
                .is_some_and(|max| used.pools.get(&host.pool).copied().unwrap_or(0) >= max);
            let fit = match waiter.chosen {
                _ if full => Err(Shortage { quota: true, ..Shortage::default() }),
                // Others leave this very place for it.
                Some(chosen) => self.lack_at(chosen, &missing, used).map_or(Ok(chosen), Err),
                None => self.fit(host, &missing, used, self.yielded_on(host)),
            };
            match fit {
                Ok(place) => return Ok(place),
                Err(lack) if least.is_none_or(|least| lack.count() < least.count()) => least = Some(lack),
                Err(_) => {}
            }
        }
        Err(least.unwrap_or_else(|| Shortage { quota: true, ..Shortage::default() }))
    }

    /// What the quota over everything forbids at present, told as what others would have to give up.
    fn over_quota(&self, waiter: &Waiter, missing: &RoomNeed, used: &PoolUsage) -> Shortage {
        let quota = self.inventory.quota;
        let new = !self.holdings.contains(waiter.instance);
        let instances = new && quota.instances.is_some_and(|most| used.instances >= most);
        let cards = missing.gpu != Gpu::None
            && quota.cards.is_some_and(|most| used.cards(&self.inventory, missing) > u64::from(most));
        Shortage { gpu: cards, quota: instances || cards, ..Shortage::default() }
    }

    /// What is lacking for this much at a place whose devices are settled.
    pub(super) fn lack_at(&self, place: Place, missing: &RoomNeed, used: &PoolUsage) -> Option<Shortage> {
        let host = self.inventory.host(place)?;
        let taken = used.host(place);
        let yielded = self.yielded_on(place);
        let gpu = place.devices().any(|index| match (host.devices.get(index), missing.gpu) {
            (_, Gpu::None) => false,
            (None, _) => true,
            _ if yielded >> index & 1 == 1 => true,
            (Some(device), need) => !device_has(device.memory, taken.devices.get(&index).copied(), need),
        });
        let lack = Shortage {
            cpu: missing.cpu > 0 && taken.cpu + u128::from(missing.cpu.min(host.cpu)) > u128::from(host.cpu),
            memory: missing.memory > 0 && taken.memory + u128::from(missing.memory) > u128::from(host.memory),
            gpu,
            port: taken.has_port(missing.port),
            ..Shortage::default()
        };
        (!lack.is_nothing()).then_some(lack)
    }

    /// Where on a host it fits: of several devices the fullest that has room, so that large pieces stay free.
    /// `barred`: devices that are not to be looked at, a bit each.
    fn fit(&self, host: Place, missing: &RoomNeed, used: &PoolUsage, barred: u64) -> Result<Place, Shortage> {
        let Some(machine) = self.inventory.host(host) else {
            return Err(Shortage { quota: true, ..Shortage::default() });
        };
        let rest = self.lack_at(host, &RoomNeed { gpu: Gpu::None, ..*missing }, used).unwrap_or_default();
        let taken = used.host(host);
        let mut free: Vec<(u64, usize)> = machine
            .devices
            .iter()
            .enumerate()
            .take(DEVICES)
            .filter(|(index, device)| barred >> index & 1 == 0 && missing.kind.accepts(device.kind))
            .filter(|(index, device)| device_has(device.memory, taken.devices.get(index).copied(), missing.gpu))
            .map(|(index, device)| {
                let bytes = taken.devices.get(&index).map_or(0, |granted| granted.bytes);
                (device.memory.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX)), index)
            })
            .collect();
        free.sort_unstable();
        let wanted = match missing.gpu {
            Gpu::None => 0,
            Gpu::Slice(_) => 1,
            Gpu::Cards(cards) => usize::from(cards),
        };
        let lack = Shortage { gpu: free.len() < wanted, ..rest };
        if !lack.is_nothing() {
            return Err(lack);
        }
        let devices = free.iter().take(wanted).fold(0, |bits, (_, index)| bits | 1 << index);
        Ok(Place { devices, ..host })
    }

    /// Sets of devices on a host that could be cleared for this much, each with the holdings in the way.
    pub(super) fn device_choices(&self, host: Place, missing: &RoomNeed) -> Vec<u64> {
        let Some(machine) = self.inventory.host(host) else { return Vec::new() };
        let barred = self.yielded_on(host);
        let fitting = machine.devices.iter().enumerate().take(DEVICES).filter(|(index, device)| {
            barred >> index & 1 == 0
                && missing.kind.accepts(device.kind)
                && device_has(device.memory, None, missing.gpu)
        });
        fitting.map(|(index, _)| 1 << index).collect()
    }

    /// Whether somebody has the port that is missing at a place.
    pub(super) fn port_is_taken(place: Place, missing: &RoomNeed, used: &PoolUsage) -> bool {
        used.host(place).has_port(missing.port)
    }

    /// How many bytes of a resource are too few at a place: CPU, memory, device memory.
    pub(super) fn deficits(&self, place: Place, missing: &RoomNeed, used: &PoolUsage) -> Option<(u64, u64, u64)> {
        let host = self.inventory.host(place)?;
        let taken = used.host(place);
        let over = |taken: u128, more: u64, there: u64| {
            let over = (taken + u128::from(more)).saturating_sub(u128::from(there));
            if more == 0 { 0 } else { u64::try_from(over).unwrap_or(u64::MAX) }
        };
        let gpu = place.devices().map(|index| {
            let device = host.devices.get(index).map_or(0, |device| device.memory);
            let granted = taken.devices.get(&index).copied().unwrap_or_default();
            let bytes = granted.of(device);
            match missing.gpu {
                Gpu::None => 0,
                Gpu::Slice(need) => over(u128::from(bytes), need, device),
                Gpu::Cards(_) => bytes,
            }
        });
        let gpu = gpu.sum();
        Some((
            over(taken.cpu, missing.cpu.min(host.cpu), host.cpu),
            over(taken.memory, missing.memory, host.memory),
            gpu,
        ))
    }

    /// What a device grant of this holding amounts to in bytes, on the devices of a place.
    pub(super) fn device_bytes(&self, holding: &Holding, place: Place) -> u64 {
        let shared = Place { devices: holding.place.devices & place.devices, ..holding.place };
        let Some(host) = self.inventory.host(holding.place) else { return 0 };
        let bytes = shared.devices().map(|index| match holding.room().gpu {
            Gpu::None => 0,
            Gpu::Slice(bytes) => bytes,
            Gpu::Cards(_) => host.devices.get(index).map_or(0, |device| device.memory),
        });
        bytes.sum()
    }

    /// Whether so much keeps to the quota of cards.
    pub(super) fn within_cards(&self, used: &PoolUsage) -> bool {
        let most = self.inventory.quota.cards;
        most.is_none_or(|most| used.cards(&self.inventory, &RoomNeed::default()) <= u64::from(most))
    }

    /// Whether a pool has as many instances as it may.
    pub(super) fn pool_is_full(&self, pool: u16, used: &PoolUsage) -> bool {
        let max = self.inventory.pools.get(usize::from(pool)).and_then(|pool| pool.max);
        max.is_some_and(|max| used.pools.get(&pool).copied().unwrap_or(0) >= max)
    }

    /// Whether the quota over everything is in a waiter's way.
    pub(super) fn quota_lack(&self, waiter: &Waiter, used: &PoolUsage) -> Shortage {
        self.over_quota(waiter, &self.missing(waiter), used)
    }
}

pub(super) fn same_host(a: Place, b: Place) -> bool {
    (a.pool, a.host) == (b.pool, b.host)
}

fn device_has(memory: u64, granted: Option<DeviceGrants>, need: Gpu) -> bool {
    let granted = granted.unwrap_or_default();
    match need {
        Gpu::None => true,
        Gpu::Slice(bytes) => granted.whole == 0 && granted.bytes + u128::from(bytes) <= u128::from(memory),
        Gpu::Cards(_) => granted.whole == 0 && granted.bytes == 0,
    }
}
