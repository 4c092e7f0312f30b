//! The bodies: child processes of this host, and containers of its engine and of named ones where this program was built with them.

use std::path::Path;
use std::sync::Arc;

use kip_control::Bodies;
use kip_engine::{BodyEvent, Capabilities, Options, ProcessBody};
use tokio::sync::mpsc;

use crate::config::Config;

/// Opens it. Also gives what the host lets processes do.
#[cfg(feature = "docker")]
pub(crate) fn open(
    options: Options,
    data: &Path,
    config: &Config,
    events: mpsc::Sender<BodyEvent>,
) -> std::io::Result<(Bodies, Capabilities)> {
    use kip_engine::{Body, DockerBody, DockerOptions, HostBody};

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
        remote: None,
    };
    let processes = ProcessBody::new(options, events.clone())?;
    let capabilities = processes.capabilities().clone();
    let containers_here = DockerBody::new(containers.clone(), events.clone())?;
    let mut named = Vec::new();
    for (number, pool) in (0u16..).zip(&config.pools).filter(|(_, pool)| !pool.is_local()) {
        let options = of_pool(number, pool, containers.clone(), data);
        let body: Arc<dyn Body> = Arc::new(containers_here.another(options, events.clone())?);
        named.push((number, body));
    }
    let body: Arc<dyn Body> = Arc::new(HostBody::new(processes, containers_here));
    let bodies = named.into_iter().fold(Bodies::from(body), |all, (number, body)| all.with(number, body));
    Ok((bodies, capabilities))
}

/// What the body of a named engine is told, made of what that of this host is told.
#[cfg(feature = "docker")]
fn of_pool(
    number: u16,
    pool: &crate::config::pools::PoolSetting,
    own: kip_engine::DockerOptions,
    data: &Path,
) -> kip_engine::DockerOptions {
    use crate::config::pools::PoolEngine;
    use kip_engine::{DockerOptions, EngineAddress, RemoteOptions, SshTarget};

    let folder = data.join("pools").join(&pool.name);
    let device = |(number, device): (usize, &crate::devices::Device)| {
        device.cdi.clone().unwrap_or_else(|| format!("nvidia.com/gpu={number}"))
    };
    DockerOptions {
        address: match &pool.engine {
            PoolEngine::Local => EngineAddress::Off,
            PoolEngine::Socket(path) => EngineAddress::Socket(path.clone()),
            PoolEngine::Ssh { host, port, socket } => EngineAddress::Ssh(SshTarget {
                host: host.clone(),
                port: *port,
                socket: socket.clone(),
                settings: pool.ssh_config.clone(),
                folder: folder.clone(),
            }),
        },
        instances: folder.join("containers"),
        devices: pool.devices.iter().enumerate().map(device).collect(),
        mounts: pool.mounts.clone(),
        remote: Some(RemoteOptions {
            pool: number,
            name: pool.name.clone(),
            address: pool.address,
            lost_after: pool.lost_after.to_std(),
        }),
        ..own
    }
}

/// What the control room is told of the pools.
pub(crate) fn pools(config: &Config) -> Vec<kip_control::PoolOptions> {
    let of = |pool: &crate::config::pools::PoolSetting| kip_control::PoolOptions {
        engine: pool.written.clone(),
        local: pool.is_local(),
        mounts: if pool.is_local() { config.containers.mounts.clone() } else { pool.mounts.clone() },
        priority: pool.priority,
        price: pool.price,
    };
    config.pools.iter().map(of).collect()
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
    config: &Config,
    events: mpsc::Sender<BodyEvent>,
) -> std::io::Result<(Bodies, Capabilities)> {
    if config.pools.iter().any(|pool| !pool.is_local()) {
        return Err(std::io::Error::other("this server was built without containers, and [[pool]] names an engine"));
    }
    let processes = ProcessBody::new(options, events)?;
    let capabilities = processes.capabilities().clone();
    let body: Arc<dyn kip_engine::Body> = Arc::new(processes);
    Ok((Bodies::from(body), capabilities))
}
