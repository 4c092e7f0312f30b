//! The devices of this host as its driver shows them, for a `kipwake.toml` that declares none.

use std::path::{Path, PathBuf};

use kip_freezer::report::Device as FoundDevice;
use kip_freezer::{DeviceLocks, Options};
use kip_spec::Bytes;

use crate::config::Config;
use crate::devices::Device;

/// The file by which NVIDIA's driver is reached. Without it there is no device to ask for.
const DRIVER: &str = "/dev/nvidiactl";
/// What is left of each device for the driver and for contexts of processes, bytes.
const RESERVE: u64 = 512 << 20;

/// Adds the devices that the driver shows, if none is declared and `host.devices` is `auto`.
pub(crate) async fn add(config: &mut Config, program: PathBuf) {
    let replaced = kip_host::environment::read("KIPWAKE_NVML_LIBRARY").is_some();
    if !config.devices.is_empty() || !config.find_devices || !(replaced || Path::new(DRIVER).exists()) {
        return;
    }
    // Both are far from the server: a driver can hang its caller.
    let report = match DeviceLocks::single(Options::new(program)).await {
        Ok(helper) => helper.report().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let report = match report {
        Ok(report) => report,
        Err(why) => {
            tracing::warn!(why, "the devices of this host cannot be found: declare them as [[device]] in kipwake.toml");
            return;
        }
    };
    let found: Vec<Device> = report.devices.iter().filter_map(device).collect();
    for device in &found {
        tracing::info!(device = device.name, described = device.described(), "found a device");
    }
    config.use_devices(found);
}

/// One that instances may use; one that is partitioned is left out, because its parts are not counted.
fn device(found: &FoundDevice) -> Option<Device> {
    let memory = found.memory.total.checked_sub(RESERVE).filter(|_| !found.partitioned)?;
    Some(Device { name: found.label(), memory: Bytes(memory), kind: Some(kind(&found.name)), cdi: None })
}

/// The type by which functions ask for it: the product without its maker and without its form, such as L4, A100 or RTX 4090.
fn kind(product: &str) -> String {
    const LEFT_OUT: [&str; 6] = ["NVIDIA", "GeForce", "Tesla", "Quadro", "Graphics", "Device"];
    const FORMS: [&str; 6] = ["PCIe", "SXM", "SXM2", "SXM4", "SXM5", "NVL"];
    let product = product.split('-').next().unwrap_or(product);
    let words =
        product.split_whitespace().filter(|word| !LEFT_OUT.contains(word)).take_while(|word| !FORMS.contains(word));
    let name = words.collect::<Vec<_>>().join(" ");
    if name.is_empty() { product.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_asked_for_by_their_plain_names() {
        let rows = [
            ("NVIDIA H200", "H200"),
            ("NVIDIA A100-SXM4-80GB", "A100"),
            ("NVIDIA H100 PCIe", "H100"),
            ("NVIDIA GeForce RTX 4090", "RTX 4090"),
            ("Tesla T4", "T4"),
            ("NVIDIA RTX A6000", "RTX A6000"),
            ("stand-in", "stand"),
            ("NVIDIA", "NVIDIA"),
        ];
        for (product, name) in rows {
            assert_eq!(kind(product), name, "{product}");
        }
    }
}
