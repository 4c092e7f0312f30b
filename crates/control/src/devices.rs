//! Devices by their place in the ledger and by their names: instances know them by number and name, the journal of an
//! instance keeps the names, because the list in the settings may be another one after a restart.

use kip_engine::Devices;
use kip_fleet::{Inventory, Place};

/// The names of the devices of a place.
pub(crate) fn names(inventory: &Inventory, place: Place) -> Vec<String> {
    let Some(host) = inventory.host(place) else { return Vec::new() };
    place.devices().filter_map(|number| Some(host.devices.get(number)?.name.clone())).collect()
}

/// Bytes of all devices of a place; nothing where it has none.
pub(crate) fn memory(inventory: &Inventory, place: Place) -> Option<u64> {
    let devices = &inventory.host(place)?.devices;
    let bytes = place.devices().filter_map(|number| Some(devices.get(number)?.memory));
    Some(bytes.fold(0, u64::saturating_add)).filter(|bytes| *bytes > 0)
}

/// What an instance is told of its devices; nothing where its host has none.
pub(crate) fn of_place(inventory: &Inventory, place: Place) -> Option<Devices> {
    let any = inventory.host(place).is_some_and(|host| !host.devices.is_empty());
    any.then(|| Devices { numbers: place.devices().collect(), names: names(inventory, place) })
}

/// Where an instance of an earlier server is.
///
/// # Errors
/// The name of a device that is not declared any more.
pub(crate) fn place_of(inventory: &Inventory, pool: Place, names: &[String]) -> Result<Place, String> {
    // All of them are of its first host: no other is known yet.
    let mut place = pool;
    let devices = inventory.host(place).map(|host| host.devices.as_slice()).unwrap_or_default();
    for name in names {
        let number = devices.iter().position(|device| device.name == *name).ok_or_else(|| name.clone())?;
        place.devices |= 1 << number;
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_fleet::Device;
    use kip_fleet::room::{Host, Pool};

    fn inventory(names: &[&str]) -> Inventory {
        let devices = names.iter().map(|name| Device { name: (*name).to_owned(), ..Device::default() }).collect();
        let host = Host { cpu: 1, memory: 1, devices };
        let pool = Pool { name: "local".to_owned(), max: None, hosts: vec![host] };
        Inventory { pools: vec![pool], quota: kip_fleet::room::Quota::default() }
    }

    #[test]
    fn a_place_is_found_again_by_names_though_the_list_has_changed() {
        let before = inventory(&["a", "b", "c"]);
        let place = Place { devices: 0b110, ..Place::default() };
        let told = of_place(&before, place).unwrap();
        assert_eq!((told.numbers, told.names.clone()), (vec![1, 2], vec!["b".to_owned(), "c".to_owned()]));
        assert_eq!(place_of(&before, Place::default(), &told.names), Ok(place));
        let after = inventory(&["c", "b"]);
        assert_eq!(place_of(&after, Place::default(), &told.names), Ok(Place { devices: 0b11, ..Place::default() }));
        assert_eq!(place_of(&inventory(&["c"]), Place::default(), &told.names), Err("b".to_owned()));
    }

    #[test]
    fn a_host_without_devices_says_nothing_of_them() {
        assert_eq!(of_place(&inventory(&[]), Place::default()), None);
        assert_eq!(of_place(&inventory(&["a"]), Place::default()), Some(Devices::default()));
    }
}
