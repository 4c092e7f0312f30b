//! Devices by their place in the ledger and by their names: instances know them by number and name, the journal of an
//! instance keeps the names, because the list in the settings may be another one after a restart.

use kip_engine::Devices;
use kip_fleet::room::{Gpu, RoomNeed};
use kip_fleet::{Device, Inventory, Place};
use kip_spec::function::GpuIsolation;
use kip_spec::{Bytes, InstanceId};

use crate::Version;
use crate::options::Options;

/// The names of the devices of a place.
pub(crate) fn names(inventory: &Inventory, place: Place) -> Vec<String> {
    let Some(host) = inventory.host(place) else { return Vec::new() };
    place.devices().filter_map(|number| Some(host.devices.get(number)?.name.clone())).collect()
}

/// Why no host meets an ask, with what there is. `kind` is the type of device that was asked for.
pub(crate) fn unmet(inventory: &Inventory, need: RoomNeed, kind: Option<&str>) -> String {
    let hosts = || inventory.pools.iter().flat_map(|pool| &pool.hosts);
    let list = |devices: &mut dyn Iterator<Item = &Device>| {
        let named: Vec<String> = devices.map(|device| format!("{} ({})", device.name, Bytes(device.memory))).collect();
        named.join(", ")
    };
    let all = || hosts().flat_map(|host| &host.devices);
    let fitting = || all().filter(|device| need.kind.accepts(device.kind));
    let fewest = match need.gpu {
        Gpu::Cards(cards) => usize::from(cards),
        _ => 1,
    };
    match need.gpu {
        Gpu::None => {}
        _ if all().next().is_none() => {
            return "it needs a device, and none is declared in kipwake.toml".to_owned();
        }
        _ if fitting().next().is_none() => {
            let kind = kind.unwrap_or("any");
            return format!("there is no device of type {kind}; there are: {}", list(&mut all()));
        }
        Gpu::Slice(bytes) if !fitting().any(|device| device.memory >= bytes) => {
            let there = list(&mut fitting());
            return format!("it needs {} of one device, and there are: {there}", Bytes(bytes));
        }
        Gpu::Cards(_)
            if hosts().all(|host| host.devices.iter().filter(|d| need.kind.accepts(d.kind)).count() < fewest) =>
        {
            return format!("it needs {fewest} devices on one host, and there are: {}", list(&mut fitting()));
        }
        _ => {}
    }
    let most = hosts().map(|host| host.memory).max().unwrap_or(0);
    if need.memory > most {
        return format!("it needs {} of memory, and a host has {} for instances", Bytes(need.memory), Bytes(most));
    }
    format!("it needs {need}, and no host has all of that, or the quota forbids it")
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
    let (numbers, names) = (place.devices().collect(), names(inventory, place));
    any.then(|| Devices { numbers, names, ..Devices::default() })
}

/// The same for an instance of a version, with what keeps it to its share.
///
/// The variables are those that JAX (`XLA_PYTHON_CLIENT_MEM_FRACTION`), TensorFlow (`TF_FORCE_GPU_ALLOW_GROWTH`) and HAMi-core (`CUDA_DEVICE_MEMORY_LIMIT`,
/// `CUDA_DEVICE_MEMORY_SHARED_CACHE`) document.
pub(crate) fn of_instance(options: &Options, version: &Version, instance: InstanceId, place: Place) -> Option<Devices> {
    let mut devices = of_place(&options.inventory, place)?;
    let (Some(gpu), Some(whole)) = (&version.spec.resources.gpu, memory(&options.inventory, place)) else {
        return Some(devices);
    };
    // One that is to be measured has its device alone, as one that asks for whole devices.
    let share = if let Gpu::Slice(share) = version.policy().need.gpu { share } else { whole };
    let part = (share.min(whole) as f64 / whole.max(1) as f64 * 10_000.0).floor() / 10_000.0;
    devices.fixed.insert("KIPWAKE_GPU_MEMORY".to_owned(), share.to_string());
    devices.fixed.insert("KIPWAKE_GPU_MEMORY_FRACTION".to_owned(), format!("{part:.4}"));
    match gpu.isolation {
        GpuIsolation::Account => {}
        GpuIsolation::Framework => {
            devices.offered.insert("XLA_PYTHON_CLIENT_MEM_FRACTION".to_owned(), format!("{part:.4}"));
            devices.offered.insert("TF_FORCE_GPU_ALLOW_GROWTH".to_owned(), "true".to_owned());
        }
        GpuIsolation::Preload => {
            devices.preload.clone_from(&options.limiter);
            devices.fixed.insert("CUDA_DEVICE_MEMORY_LIMIT".to_owned(), format!("{}m", share >> 20));
            // Instances that share the file would share the limit.
            let cache = format!("/tmp/kipwake-{instance}.vgpu");
            devices.fixed.insert("CUDA_DEVICE_MEMORY_SHARED_CACHE".to_owned(), cache);
        }
    }
    Some(devices)
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
    use kip_fleet::room::{DeviceKind, Host, Pool};

    fn inventory(names: &[&str]) -> Inventory {
        let devices = names.iter().map(|name| Device { name: (*name).to_owned(), ..Device::default() }).collect();
        let host = Host { cpu: 1, memory: 1, devices };
        let pool = Pool { name: "local".to_owned(), max: None, hosts: vec![host] };
        Inventory { pools: vec![pool], ..Inventory::default() }
    }

    #[test]
    fn an_ask_that_no_host_meets_is_explained_with_what_there_is() {
        let kind = DeviceKind::named;
        let mut all = inventory(&["gpu0"]);
        let host = &mut all.pools[0].hosts[0];
        (host.devices[0].kind, host.devices[0].memory, host.memory) = (kind("L4"), 24 << 30, 1 << 30);
        let need = |gpu, kind| RoomNeed { gpu, kind, ..RoomNeed::default() };
        let rows = [
            (need(Gpu::Slice(4 << 30), kind("H100")), "there is no device of type H100; there are: gpu0 (24GiB)"),
            (need(Gpu::Slice(40 << 30), kind("L4")), "it needs 40GiB of one device, and there are: gpu0 (24GiB)"),
            (need(Gpu::Cards(2), DeviceKind::ANY), "it needs 2 devices on one host, and there are: gpu0 (24GiB)"),
            (
                RoomNeed { memory: 2 << 30, ..RoomNeed::default() },
                "it needs 2GiB of memory, and a host has 1GiB for instances",
            ),
        ];
        for (need, text) in rows {
            assert_eq!(unmet(&all, need, Some("H100")), text);
        }
        let none = unmet(&inventory(&[]), need(Gpu::Cards(1), DeviceKind::ANY), None);
        assert_eq!(none, "it needs a device, and none is declared in kipwake.toml");
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
