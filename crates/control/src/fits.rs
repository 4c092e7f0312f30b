//! Whether an instance of a function could ever be placed here, whatever else runs: known before anything waits for it.

use kip_fleet::DeviceKind;
use kip_fleet::room::{Device, Inventory};
use kip_spec::function::{FunctionSpec, GpuNeed};
use kip_spec::people;

use crate::control::Control;

impl Control {
    /// Why no instance of this function can ever be placed here; none if one can.
    pub fn never_fits(&self, spec: &FunctionSpec) -> Option<String> {
        never_fits(&self.shared.options.inventory, spec)
    }
}

fn never_fits(inventory: &Inventory, spec: &FunctionSpec) -> Option<String> {
    let hosts = || inventory.pools.iter().flat_map(|pool| &pool.hosts);
    let resources = &spec.resources;
    let most = hosts().map(|host| host.memory).max().unwrap_or_default();
    if let Some(memory) = resources.memory.filter(|memory| memory.0 > most) {
        return Some(format!(
            "it needs {} of memory; instances may take {}",
            people::size(memory.0),
            people::size(most)
        ));
    }
    let most = hosts().map(|host| host.cpu).max().unwrap_or_default();
    if let Some(cpu) = resources.cpu.filter(|cpu| cpu.0 > most) {
        return Some(format!("it needs {cpu} cores; instances may take {}", kip_spec::MilliCpu(most)));
    }
    let gpu = resources.gpu.as_ref()?;
    let all: Vec<&Device> = hosts().flat_map(|host| &host.devices).collect();
    if all.is_empty() {
        return Some("it needs a device, and kipwake.toml declares none".to_owned());
    }
    let kind = gpu.kind.as_deref().map_or(DeviceKind::ANY, DeviceKind::named);
    let of_kind: Vec<&&Device> = all.iter().filter(|device| kind.accepts(device.kind)).collect();
    if of_kind.is_empty() {
        let names: Vec<String> =
            all.iter().map(|device| format!("{} ({})", device.name, people::size(device.memory))).collect();
        let wanted = gpu.kind.as_deref().unwrap_or("any");
        return Some(format!("there is no device of type {wanted}; the devices are: {}", names.join(", ")));
    }
    match gpu.need {
        GpuNeed::Memory(memory) => {
            let largest = of_kind.iter().map(|device| device.memory).max().unwrap_or_default();
            (memory.0 > largest).then(|| {
                format!("it needs {} of one device; the largest has {}", people::size(memory.0), people::size(largest))
            })
        }
        GpuNeed::Cards(cards) => {
            let on_one =
                |host: &kip_fleet::room::Host| host.devices.iter().filter(|one| kind.accepts(one.kind)).count();
            let most = hosts().map(on_one).max().unwrap_or_default();
            (usize::from(cards) > most)
                .then(|| format!("it needs {cards} devices of one host; a host has {most} at most"))
        }
    }
}

#[cfg(test)]
mod tests {
    use kip_fleet::room::{Host, Pool};
    use kip_spec::Bytes;
    use kip_spec::function::{GpuResources, Program, Resources};

    use super::*;

    fn why(gpu: Option<(GpuNeed, Option<&str>)>, memory: Option<u64>, devices: Vec<Device>) -> Option<String> {
        let host = Host { cpu: 2_000, memory: 8 << 30, devices };
        let pool = Pool { name: "local".to_owned(), max: None, hosts: vec![host] };
        let inventory = Inventory { pools: vec![pool], ..Inventory::default() };
        let program = Program::Command { argv: vec!["x".to_owned()], dir: "/".into() };
        let mut spec = FunctionSpec::new("f".parse().unwrap(), program);
        let gpu = gpu.map(|(need, kind)| GpuResources { need, kind: kind.map(str::to_owned) });
        spec.resources = Resources { cpu: None, memory: memory.map(Bytes), gpu };
        never_fits(&inventory, &spec)
    }

    #[test]
    fn what_no_host_has_is_named() {
        let device = || Device { name: "gpu0".to_owned(), kind: DeviceKind::named("L4"), memory: 24 << 30 };
        let of =
            |gibibytes: u64, kind| why(Some((GpuNeed::Memory(Bytes(gibibytes << 30)), kind)), None, vec![device()]);
        assert_eq!(of(4, None), None);
        assert_eq!(of(4, Some("l4")), None);
        assert_eq!(of(40, None).unwrap(), "it needs 40 GiB of one device; the largest has 24 GiB");
        assert_eq!(of(4, Some("H100")).unwrap(), "there is no device of type H100; the devices are: gpu0 (24 GiB)");
        let none = why(Some((GpuNeed::Cards(1), None)), None, Vec::new());
        assert_eq!(none.unwrap(), "it needs a device, and kipwake.toml declares none");
        assert!(why(Some((GpuNeed::Cards(2), None)), None, vec![device()]).unwrap().contains("2 devices"));
        assert!(why(None, Some(9 << 30), Vec::new()).unwrap().contains("9 GiB of memory"));
        assert_eq!(why(None, Some(8 << 30), Vec::new()), None);
    }
}
