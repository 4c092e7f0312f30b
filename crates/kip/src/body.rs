//! The body of this host: child processes, and containers where this program was built with them.

use std::path::Path;
use std::sync::Arc;

use kip_engine::{Body, BodyEvent, Capabilities, Options, ProcessBody};
use tokio::sync::mpsc;

use crate::config::Config;

/// Opens it. Also gives what the host lets processes do.
#[cfg(feature = "docker")]
pub(crate) fn open(
    options: Options,
    data: &Path,
    config: &Config,
    events: mpsc::Sender<BodyEvent>,
) -> std::io::Result<(Arc<dyn Body>, Capabilities)> {
    use kip_engine::{DockerBody, DockerOptions, HostBody};

    let device = |(number, device): (usize, &crate::devices::Device)| {
        device.cdi.clone().unwrap_or_else(|| format!("nvidia.com/gpu={number}"))
    };
    let containers = DockerOptions {
        server: options.server.clone(),
        address: address(config),
        instances: data.join("containers"),
        logs: options.logs.clone(),
        pressure: options.pressure.clone(),
        ports: options.ports.clone(),
        devices: config.devices.iter().enumerate().map(device).collect(),
        // Shares are for containers too.
        mounts: config.containers.mounts.iter().chain([&config.storage]).cloned().collect(),
    };
    let processes = ProcessBody::new(options, events.clone())?;
    let capabilities = processes.capabilities().clone();
    let body = HostBody::new(processes, DockerBody::new(containers, events)?);
    Ok((Arc::new(body), capabilities))
}

/// Where the settings say that the container engine is.
#[cfg(feature = "docker")]
pub(crate) fn address(config: &Config) -> kip_engine::EngineAddress {
    use crate::config::containers::EngineSetting;
    use kip_engine::EngineAddress;

    match &config.containers.engine {
        EngineSetting::Auto => EngineAddress::Auto,
        EngineSetting::Socket(path) => EngineAddress::Socket(path.clone()),
        EngineSetting::Off => EngineAddress::Off,
    }
}

/// Opens it. Also gives what the host lets processes do.
#[cfg(not(feature = "docker"))]
pub(crate) fn open(
    options: Options,
    _: &Path,
    _: &Config,
    events: mpsc::Sender<BodyEvent>,
) -> std::io::Result<(Arc<dyn Body>, Capabilities)> {
    let processes = ProcessBody::new(options, events)?;
    let capabilities = processes.capabilities().clone();
    Ok((Arc::new(processes), capabilities))
}
