//! Reasons that speak of other functions: the brain knows them by number, users by name.

use kip_fleet::room::{Gpu, Quota, RoomNeed};
use kip_fleet::{CoreNumber, Now, Place, Reason, Shortage};
use kip_spec::{Bytes, InstanceId, Millis};

use crate::cell::now;
use crate::devices;
use crate::shared::Shared;

impl Shared {
    /// Why an instance changed, with the names of functions and devices. `place` is where it is.
    pub(crate) fn reason(&self, why: Reason, place: Option<Place>) -> String {
        let devices = || {
            let names = place.map(|place| devices::names(&self.options.inventory, place)).unwrap_or_default();
            if names.is_empty() { String::new() } else { format!(" of {}", names.join(", ")) }
        };
        match why {
            Reason::Evicted { lack, by: Some(by) } => match self.function_name(by) {
                Some(name) => format!("evicted for `{name}`, which waits for {lack}{}", devices()),
                None => why.to_string(),
            },
            Reason::RoomAfter { waited, lack, from: Some(from) } => match self.function_name(from) {
                Some(name) => {
                    format!("it waited {} for {lack}{}, which `{name}` gave up", Millis(waited), devices())
                }
                None => why.to_string(),
            },
            why => why.to_string(),
        }
    }

    /// What an instance needs of what there is too little of, and how much of that is free.
    pub(crate) fn missing(&self, need: RoomNeed, lack: Shortage) -> String {
        let (devices, (used, memory, _), granted) =
            self.with_placer(|placer| (placer.devices(), placer.ledger(), placer.granted()));
        let inventory = &self.options.inventory;
        let mut parts = Vec::new();
        if lack.gpu || lack.yielded.is_some() {
            let asked = match need.gpu {
                Gpu::Slice(bytes) => format!("{} of one device", Bytes(bytes)),
                Gpu::Cards(1) => "a whole device".to_owned(),
                Gpu::Cards(cards) => format!("{cards} whole devices"),
                Gpu::None => "a device".to_owned(),
            };
            let free = devices.iter().map(|device| {
                let free = device.memory.saturating_sub(device.granted);
                format!("{} {} of {}", device.name, Bytes(free), Bytes(device.memory))
            });
            parts.push(format!("{asked}; free: {}", free.collect::<Vec<_>>().join(", ")));
        }
        if lack.memory {
            let free = Bytes(memory.saturating_sub(used));
            parts.push(format!("{} of memory; free: {free} of {}", Bytes(need.memory), Bytes(memory)));
        }
        if lack.cpu {
            parts.push(format!("{}.{:03} CPU", need.cpu / 1_000, need.cpu % 1_000));
        }
        if lack.quota {
            let Quota { instances, cards } = inventory.quota;
            let limit = |name: &str, most: Option<u32>| most.map(|most| format!("{most} {name}"));
            let limits: Vec<String> = limit("instances", instances).into_iter().chain(limit("cards", cards)).collect();
            let limits = if limits.is_empty() { "the maximum of its pool".to_owned() } else { limits.join(" and ") };
            parts.push(format!("the quota, {limits}; {granted} instances have room"));
        }
        parts.join(", and ")
    }

    /// What keeps an instance from the room that it waits for; nothing where nobody holds any.
    pub(crate) fn in_the_way(&self, instance: InstanceId) -> Option<String> {
        let (functions, in_vain) =
            self.with_placer(|placer| (placer.in_the_way(instance), placer.thrash_in_vain(now())));
        let (mut parts, mut protected) = (Vec::new(), false);
        for function in functions {
            let Some(cell) = self.cell_of(function) else { continue };
            let now: Now = now();
            let offers = cell.look(&cell.lock(), |core| core.offers_in(now)).flatten();
            protected |= offers.is_some_and(|(_, protects)| protects);
            parts.push(match offers {
                Some((0, _)) => format!("`{}` has it and stops", cell.name()),
                Some((left, _)) => format!("`{}` has it for {} more at most", cell.name(), Millis(left)),
                None => format!("`{}` has it", cell.name()),
            });
        }
        if parts.is_empty() {
            return None;
        }
        let mut text = parts.join(", ");
        if protected {
            let percent = in_vain / 10;
            text.push_str(&format!(
                "; idle instances have turns, because {percent} % of the time went into evictions in vain (sharing.longest_turn)"
            ));
        }
        Some(text)
    }

    fn function_name(&self, number: CoreNumber) -> Option<String> {
        self.cell_of(number).map(|cell| cell.name().to_string())
    }
}
