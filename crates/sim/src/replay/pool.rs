//! The devices that instances share, if their number is limited.

use kip_fleet::room::{Device, DeviceKind, Gpu, Host, Inventory, RoomNeed};
use kip_fleet::{Placer, Policy};

/// Devices of one host: a place names them by the bits of a number.
const PER_HOST: u32 = 64;

/// The room there is.
#[derive(Debug)]
pub(super) struct Pool {
    placer: Option<Placer>,
}

impl Pool {
    /// So many devices, one for each instance that is not asleep. An instance asleep gives its device up when another one needs it.
    pub(super) fn new(devices: Option<u32>, policy: &mut Policy) -> Self {
        let Some(devices) = devices else { return Self { placer: None } };
        policy.need = RoomNeed { gpu: Gpu::Cards(1), kind: DeviceKind::ANY, ..RoomNeed::default() };
        policy.rungs.park = true;
        let mut hosts = Vec::new();
        let mut left = devices;
        while left > 0 {
            let count = left.min(PER_HOST);
            let device = Device { memory: 1 << 40, ..Device::default() };
            hosts.push(Host { cpu: u64::MAX, memory: u64::MAX, devices: vec![device; count as usize] });
            left -= count;
        }
        let pools = vec![kip_fleet::room::Pool { hosts, ..kip_fleet::room::Pool::default() }];
        Self { placer: Some(Placer::new(Inventory { pools, ..Inventory::default() })) }
    }

    pub(super) fn placer(&mut self) -> Option<&mut Placer> {
        self.placer.as_mut()
    }
}
