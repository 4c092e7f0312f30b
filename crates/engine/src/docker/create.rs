//! From an order to what the engine is asked to make. Pure: what is sent is a value, and tests compare it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding,
    RestartPolicy, RestartPolicyNameEnum,
};
use kip_spec::container::{Container, DEFAULT_PORT, Network};

use super::images::ImageFacts;
use super::{gpu, labels};
use crate::body::Order;
use crate::containers::{EngineInfo, EngineKind};
use crate::{contract, expand};

/// Bytes of a container's output that the engine keeps until a server has read them, in files of this size.
const LOG_SIZE: &str = "16m";
/// And how many of them, where the engine turns them over.
const LOG_FILES: &str = "4";
/// Bytes of `/tmp` in memory, where the root file system cannot be written.
const TMPFS: &str = "rw,noexec,nosuid,size=64m";

/// What is to be made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) body: ContainerCreateBody,
    /// Devices by their names in specifications (CDI).
    pub(super) cdi: Vec<String>,
    /// The port that the program is told to listen on.
    pub(super) port: u16,
    /// Whether the port is published on loopback: the container has no address that this host reaches.
    pub(super) published: bool,
    /// At which address of its host.
    pub(super) host_ip: String,
}

/// What a plan is made of beside the order.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlanInput<'a> {
    pub(super) server: &'a str,
    pub(super) info: &'a EngineInfo,
    pub(super) image: &'a ImageFacts,
    /// Free ports of the host, where the container is in the host's network: the first one is its own.
    pub(super) ports: &'a [u16],
    /// The name of each device of the host in device specifications (CDI).
    pub(super) devices: &'a [String],
    /// The address at which ports are published, where that is not loopback.
    pub(super) publish: Option<IpAddr>,
}

/// The port that the program listens on.
pub(super) fn port_of(container: &Container, image: &ImageFacts) -> u16 {
    container.port.or(image.port).unwrap_or(DEFAULT_PORT)
}

/// What the engine is asked to make.
///
/// # Errors
/// In words, what the engine cannot give.
pub(super) fn plan(order: &Order, container: &Container, around: PlanInput<'_>) -> Result<Plan, String> {
    let PlanInput { server, info, image, ports, devices, publish } = around;
    let in_host = container.network == Network::Host;
    let (port, more) = match (in_host, ports) {
        (true, [first, more @ ..]) => (*first, more),
        (true, []) => return Err("it got no port of the host".to_owned()),
        // In a network of its own nobody else has a port.
        (false, more) => (port_of(container, image), more),
    };
    let mut env = contract::in_container(order, (port, more), &image.env);
    let published = !in_host && (publish.is_some() || !info.has_addresses());
    let key = format!("{port}/tcp");
    let host_ip = publish.map_or_else(|| "127.0.0.1".to_owned(), |address| address.to_string());
    let mut host = host_config(order, container, info);
    if published {
        let binding = PortBinding { host_ip: Some(host_ip.clone()), host_port: None };
        host.port_bindings = Some(HashMap::from([(key.clone(), Some(vec![binding]))]));
    }
    let given = gpu::given(order.devices.as_ref(), info, devices)?;
    env.extend(given.variables);
    host.device_requests = given.requests.clone();
    let expanded = |words: &[String]| {
        let words: Vec<String> = words.iter().map(|word| expand::expand(word, &env)).collect();
        (!words.is_empty()).then_some(words)
    };
    let body = ContainerCreateBody {
        image: Some(image.id.clone()),
        entrypoint: expanded(&container.entrypoint),
        cmd: expanded(&order.argv),
        env: Some(pairs(&env)),
        labels: Some(labels::write(order, server, port)),
        working_dir: container.dir.clone(),
        user: container.user.clone(),
        exposed_ports: published.then(|| vec![key]),
        // We probe ourselves, and a paused container would count as sick.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    };
    Ok(Plan { body, cdi: given.cdi, port, published, host_ip })
}

fn host_config(order: &Order, container: &Container, info: &EngineInfo) -> HostConfig {
    let bytes = |size: kip_spec::Bytes| i64::try_from(size.0).unwrap_or(i64::MAX);
    let mounts: Vec<Mount> = container
        .mounts
        .iter()
        .map(|mount| Mount {
            typ: Some(MountType::BIND),
            source: Some(mount.source.clone()),
            target: Some(mount.target.clone()),
            read_only: Some(!mount.writable),
            ..Mount::default()
        })
        .collect();
    HostConfig {
        memory: order.memory.map(bytes),
        // Memory and swap together: else it would crawl instead of failing.
        memory_swap: order.memory.map(bytes),
        nano_cpus: order.cpu.map(|cpu| i64::try_from(cpu.0.saturating_mul(1_000_000)).unwrap_or(i64::MAX)),
        shm_size: container.shm.map(bytes),
        network_mode: Some(if container.network == Network::Host { "host" } else { "bridge" }.to_owned()),
        // Ours is the decision whether another one is started.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(log_config(info.kind)),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        cap_drop: container.hardened.then(|| vec!["ALL".to_owned()]),
        readonly_rootfs: container.hardened.then_some(true),
        tmpfs: container.hardened.then(|| HashMap::from([("/tmp".to_owned(), TMPFS.to_owned())])),
        extra_hosts: (!container.hosts.is_empty()).then(|| container.hosts.clone()),
        mounts: (!mounts.is_empty()).then_some(mounts),
        ..HostConfig::default()
    }
}

/// Output is kept in bounded files that can be read again, whatever the engine's own default is.
fn log_config(kind: EngineKind) -> HostConfigLogConfig {
    let mut options = HashMap::from([("max-size".to_owned(), LOG_SIZE.to_owned())]);
    if kind == EngineKind::Docker {
        options.insert("max-file".to_owned(), LOG_FILES.to_owned());
    }
    // Podman takes this name for its own format of files.
    HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(options) }
}

fn pairs(env: &BTreeMap<String, String>) -> Vec<String> {
    env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// A request for devices by their names in specifications, in Docker's words.
pub(super) fn cdi_request(names: &[String]) -> DeviceRequest {
    DeviceRequest { driver: Some("cdi".to_owned()), device_ids: Some(names.to_vec()), ..DeviceRequest::default() }
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;
