//! Reasons that speak of other functions: the brain knows them by number, users by name.

use kip_fleet::{CoreNumber, Now, Place, Reason};
use kip_spec::{InstanceId, Millis};

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
