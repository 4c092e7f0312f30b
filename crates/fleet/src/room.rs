//! Room: what an instance needs of a host, what a state keeps of it, and where it is.

use std::fmt;

use kip_spec::Bytes;
use kip_spec::function::{FunctionPriority, GpuNeed, Resources};
use serde::{Deserialize, Serialize};

use crate::state::{Rung, State};

/// What one instance reserves on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RoomNeed {
    /// Thousandths of a CPU; 0 where nothing is declared.
    pub cpu: u64,
    /// Host memory in bytes; 0 where nothing is declared.
    pub memory: u64,
    /// Devices.
    pub gpu: Gpu,
    /// The kind of device asked for.
    pub kind: DeviceKind,
    /// A port of the host that it alone has; 0 where any will do.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub port: u16,
    /// Pools in which it cannot run, a bit for each in the order of the inventory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub barred: u64,
    /// How important it is that it gets this, and keeps it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: FunctionPriority,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// What one instance needs of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gpu {
    /// Nothing.
    #[default]
    None,
    /// So many bytes of one device's memory.
    Slice(u64),
    /// Whole devices.
    Cards(u8),
}

/// A type of device by its name, or any type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceKind(u64);

impl DeviceKind {
    /// Any type.
    pub const ANY: Self = Self(0);

    /// By name; case does not matter. `any` is any type.
    pub fn named(name: &str) -> Self {
        if name.eq_ignore_ascii_case("any") || name.is_empty() {
            return Self::ANY;
        }
        // FNV-1a: the same name is the same kind in every run and on every machine.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, step).max(1))
    }

    /// Whether a device of the kind `offered` will do.
    pub fn accepts(self, offered: Self) -> bool {
        self == Self::ANY || self == offered
    }
}

impl From<&Resources> for RoomNeed {
    fn from(resources: &Resources) -> Self {
        let gpu = resources.gpu.as_ref();
        Self {
            cpu: resources.cpu.map_or(0, |cpu| cpu.0),
            memory: resources.memory.map_or(0, |bytes| bytes.0),
            gpu: match gpu.map(|gpu| &gpu.need) {
                None => Gpu::None,
                Some(GpuNeed::Memory(bytes)) => Gpu::Slice(bytes.0),
                Some(GpuNeed::Cards(cards)) => Gpu::Cards(*cards),
                // Until it is measured it has a device alone.
                Some(GpuNeed::Measured) => Gpu::Cards(1),
            },
            kind: gpu.and_then(|gpu| gpu.kind.as_deref()).map_or(DeviceKind::ANY, DeviceKind::named),
            port: resources.port.unwrap_or(0),
            barred: 0,
            priority: FunctionPriority::default(),
        }
    }
}

impl RoomNeed {
    /// Whether it can run in a pool, by its number in the inventory.
    pub fn may_be_in(&self, pool: u16) -> bool {
        self.barred.checked_shr(pool.into()).unwrap_or(0) & 1 == 0
    }

    /// Whether it needs nothing that is counted.
    pub fn is_nothing(&self) -> bool {
        self.cpu == 0 && self.memory == 0 && self.gpu == Gpu::None && self.port == 0
    }

    /// What is kept of it in a state.
    pub fn kept_in(&self, state: State) -> Self {
        let holds = state.holds();
        self.kept(holds.cpu, holds.gpu, holds.ram)
    }

    /// What is kept of it on a rung.
    pub fn kept_on(&self, rung: Rung) -> Self {
        self.kept_in(rung.state())
    }

    fn kept(&self, cpu: bool, gpu: bool, ram: bool) -> Self {
        Self {
            cpu: if cpu { self.cpu } else { 0 },
            memory: if ram { self.memory } else { 0 },
            gpu: if gpu { self.gpu } else { Gpu::None },
            kind: self.kind,
            // A sleeper listens still.
            port: self.port,
            barred: self.barred,
            priority: self.priority,
        }
    }
}

/// Where an instance is. The default is the local pool's host without a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// Its pool, in the order of priority.
    pub pool: u16,
    /// Its host within the pool.
    pub host: u32,
    /// Its devices on that host, a bit for each.
    pub devices: u64,
}

impl Place {
    /// The numbers of its devices, ascending.
    pub fn devices(self) -> impl Iterator<Item = usize> {
        (0..64usize).filter(move |device| self.devices >> device & 1 == 1)
    }
}

/// What there is not enough of for an instance that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shortage {
    /// CPU.
    pub cpu: bool,
    /// Host memory.
    pub memory: bool,
    /// Device memory or devices.
    pub gpu: bool,
    /// The quota over all functions, or a pool's maximum.
    pub quota: bool,
    /// The port that it listens on.
    #[serde(default)]
    pub port: bool,
    /// All devices that would do are yielded: until when, boot time; `u64::MAX` where nobody knows.
    #[serde(default)]
    pub yielded: Option<u64>,
    /// No pool in which it can run answers.
    #[serde(default)]
    pub pool: bool,
}

impl Shortage {
    /// Whether nothing is missing.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.yielded.is_some() {
            return f.write_str("a device that is yielded");
        }
        if self.pool {
            return f.write_str("a pool that answers");
        }
        let words = [
            (self.gpu, "device memory"),
            (self.memory, "memory"),
            (self.cpu, "CPU"),
            (self.quota, "quota"),
            (self.port, "its port"),
        ];
        let mut first = true;
        for (_, word) in words.iter().filter(|(lacks, _)| *lacks) {
            f.write_str(if first { "" } else { " and " })?;
            f.write_str(word)?;
            first = false;
        }
        if first { f.write_str("room") } else { Ok(()) }
    }
}

impl fmt::Display for RoomNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match self.gpu {
            Gpu::None => {}
            Gpu::Slice(bytes) => parts.push(format!("{} of a device", Bytes(bytes))),
            Gpu::Cards(1) => parts.push("1 device".to_owned()),
            Gpu::Cards(cards) => parts.push(format!("{cards} devices")),
        }
        if self.memory > 0 {
            parts.push(format!("{} of memory", Bytes(self.memory)));
        }
        if self.cpu > 0 {
            parts.push(format!("{}.{:03} CPU", self.cpu / 1_000, self.cpu % 1_000));
        }
        if self.port > 0 {
            parts.push(format!("port {}", self.port));
        }
        if parts.is_empty() { f.write_str("nothing") } else { f.write_str(&parts.join(", ")) }
    }
}

/// What there is: pools in the order of their priority, and what all functions together may take.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inventory {
    /// Filled in this order, released in the reverse one.
    pub pools: Vec<Pool>,
    /// Over everything.
    pub quota: Quota,
    /// How long an instance may keep its room while another one waits for it.
    #[serde(default)]
    pub turns: Turns,
}

impl Inventory {
    /// Whether any host has a device.
    pub fn has_devices(&self) -> bool {
        self.pools.iter().flat_map(|pool| &pool.hosts).any(|host| !host.devices.is_empty())
    }
}

/// How long instances keep their room while others wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// No turn is longer, in milliseconds; 0: no instance has a turn.
    pub longest: u64,
}

impl Turns {
    /// Where nothing is set.
    pub const DEFAULT: Self = Self { longest: 60_000 };
}

impl Default for Turns {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Hosts of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Instances in it at most.
    pub max: Option<u32>,
    /// Its hosts.
    pub hosts: Vec<Host>,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Host {
    /// Thousandths of a CPU.
    pub cpu: u64,
    /// Bytes of memory for instances.
    pub memory: u64,
    /// Its devices; 64 at most are used.
    pub devices: Vec<Device>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Bytes of its memory for instances.
    pub memory: u64,
}

/// What all functions together may take; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Devices; a slice counts as the share of its device, rounded up over all slices.
    pub cards: Option<u32>,
    /// Instances, asleep or awake.
    pub instances: Option<u32>,
}

impl Inventory {
    /// The host of a place, if there is such a one.
    pub fn host(&self, place: Place) -> Option<&Host> {
        self.pools.get(usize::from(place.pool))?.hosts.get(usize::try_from(place.host).ok()?)
    }

    /// One machine with this much memory, any CPU and no device.
    pub fn of_memory(memory: u64) -> Self {
        let host = Host { cpu: u64::MAX, memory, devices: Vec::new() };
        let pool = Pool { name: "local".to_owned(), max: None, hosts: vec![host] };
        Self { pools: vec![pool], ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_go_by_name_and_any_accepts_all() {
        let (a, b) = (DeviceKind::named("H100"), DeviceKind::named("L4"));
        assert!(a == DeviceKind::named("h100") && a != b && !a.accepts(b) && a.accepts(a));
        assert!(DeviceKind::ANY.accepts(a) && DeviceKind::named("Any") == DeviceKind::ANY);
    }

    #[test]
    fn each_rung_keeps_less() {
        let need = RoomNeed { cpu: 500, memory: 7, gpu: Gpu::Slice(9), ..RoomNeed::default() };
        assert_eq!(need.kept_in(State::Busy), need);
        assert_eq!(need.kept_on(Rung::Paused), RoomNeed { cpu: 0, ..need });
        assert_eq!(need.kept_on(Rung::Parked), RoomNeed { cpu: 0, gpu: Gpu::None, ..need });
        assert!(need.kept_on(Rung::Spilled).is_nothing());
        assert_eq!(need.to_string(), "9B of a device, 7B of memory, 0.500 CPU");
    }
}
