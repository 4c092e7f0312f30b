//! Who really has what room, counted apart from the placer.

use std::collections::BTreeMap;

use kip_fleet::room::Gpu;
use kip_fleet::{Inventory, Place, RoomNeed, Rung};
use kip_spec::InstanceId;

/// The room of one instance.
#[derive(Debug, Clone, Copy)]
struct Room {
    need: RoomNeed,
    /// Where it was granted; `None` while it waits for its first room.
    place: Option<Place>,
    /// Asleep there, with only what that keeps.
    rung: Option<Rung>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: BTreeMap<InstanceId, Room>,
    /// Adopted instances have what they have, even where it is too much.
    pub(crate) overfull: bool,
}

impl Rooms {
    pub(crate) fn asked(&mut self, instance: InstanceId, need: RoomNeed) {
        self.rooms.entry(instance).or_insert(Room { need, place: None, rung: None });
    }

    pub(crate) fn held(&mut self, instance: InstanceId, need: RoomNeed, place: Place, rung: Option<Rung>) {
        self.rooms.insert(instance, Room { need, place: Some(place), rung });
    }

    /// Whether it lacks its part of a device.
    pub(crate) fn needs_device(&self, instance: InstanceId) -> bool {
        self.rooms.get(&instance).is_some_and(|room| {
            let has = room.place.is_some() && room.rung.is_none_or(|rung| room.need.kept_on(rung).gpu != Gpu::None);
            room.need.gpu != Gpu::None && !has
        })
    }

    pub(crate) fn granted(&mut self, instance: InstanceId, place: Place) {
        if let Some(room) = self.rooms.get_mut(&instance) {
            (room.place, room.rung) = (Some(place), None);
        }
    }

    pub(crate) fn rests(&mut self, instance: InstanceId, rung: Rung) {
        if let Some(room) = self.rooms.get_mut(&instance) {
            room.rung = Some(rung);
        }
    }

    pub(crate) fn serves(&mut self, instance: InstanceId) {
        if let Some(room) = self.rooms.get_mut(&instance) {
            room.rung = None;
        }
    }

    pub(crate) fn released(&mut self, instance: InstanceId) {
        self.rooms.remove(&instance);
    }

    /// Whether it waits for its first room.
    pub(crate) fn waits(&self, instance: InstanceId) -> bool {
        self.rooms.get(&instance).is_some_and(|room| room.place.is_none())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Whether it has been granted all that it needs to run.
    pub(crate) fn may_run(&self, instance: InstanceId) -> bool {
        self.rooms.get(&instance).is_some_and(|room| {
            room.place.is_some() && room.rung.is_none_or(|rung| room.need.kept_on(rung) == room.need)
        })
    }

    /// Bytes of host memory granted.
    pub(crate) fn memory(&self) -> u64 {
        self.granted_needs().map(|(_, need)| need.memory).sum()
    }

    fn granted_needs(&self) -> impl Iterator<Item = (Place, RoomNeed)> {
        self.rooms.values().filter_map(|room| {
            let need = room.rung.map_or(room.need, |rung| room.need.kept_on(rung));
            Some((room.place?, need))
        })
    }

    /// What is given out twice or does not exist, if anything.
    pub(crate) fn excess(&self, inventory: &Inventory) -> Option<String> {
        for (pool, declared) in (0u16..).zip(&inventory.pools) {
            let in_pool = self.granted_needs().filter(|(place, _)| place.pool == pool).count();
            if declared.max.is_some_and(|max| in_pool > max as usize) {
                return Some(format!("{in_pool} instances in pool {}", declared.name));
            }
            for (host, machine) in (0u32..).zip(&declared.hosts) {
                let here = || self.granted_needs().filter(move |(place, _)| (place.pool, place.host) == (pool, host));
                let memory: u64 = here().map(|(_, need)| need.memory).sum();
                let cpu: u64 = here().map(|(_, need)| need.cpu.min(machine.cpu)).sum();
                if memory > machine.memory || cpu > machine.cpu {
                    return Some(format!("{memory} of {} memory, {cpu} of {} CPU", machine.memory, machine.cpu));
                }
                let mut ports: Vec<u16> = here().map(|(_, need)| need.port).filter(|port| *port > 0).collect();
                ports.sort_unstable();
                if let Some(twice) = ports.windows(2).find(|pair| pair[0] == pair[1]) {
                    return Some(format!("port {} twice", twice[0]));
                }
                for (index, device) in machine.devices.iter().enumerate() {
                    let on = || here().filter(move |(place, _)| place.devices >> index & 1 == 1);
                    let slices: u64 =
                        on().map(|(_, need)| if let Gpu::Slice(bytes) = need.gpu { bytes } else { 0 }).sum();
                    let whole = on().filter(|(_, need)| matches!(need.gpu, Gpu::Cards(_))).count();
                    if slices > device.memory || whole > 1 || whole == 1 && slices > 0 {
                        return Some(format!("{slices} of {} of device {index}, {whole} times whole", device.memory));
                    }
                    if on().any(|(_, need)| need.gpu != Gpu::None && !need.kind.accepts(device.kind)) {
                        return Some(format!("device {index} is of another type than asked for"));
                    }
                }
            }
        }
        let instances = self.granted_needs().count();
        inventory
            .quota
            .instances
            .filter(|most| instances > *most as usize)
            .map(|most| format!("{instances} instances, the quota is {most}"))
    }
}
