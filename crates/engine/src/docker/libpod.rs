//! Podman's own call to make a container. Its Docker-compatible one ignores requests for devices without a word, so containers with
//! devices are made by this one.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use kip_host::http_client;
use serde_json::{Map, Value, json};

use super::create::Plan;
use super::failure::Failure;

/// The oldest API that has all that is asked for.
const CREATE: &str = "/v4.0.0/libpod/containers/create";
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of output that are kept.
const LOG_SIZE: i64 = 16 << 20;
/// The period over which a share of CPU is counted out, in microseconds.
const PERIOD: i64 = 100_000;

/// The plan in Podman's words.
pub(super) fn specification(name: &str, plan: &Plan) -> Value {
    let body = &plan.body;
    let host = body.host_config.clone().unwrap_or_default();
    let env: Map<String, Value> = body
        .env
        .iter()
        .flatten()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    let mounts: Vec<Value> = host
        .mounts
        .iter()
        .flatten()
        .map(|mount| {
            let access = if mount.read_only == Some(true) { "ro" } else { "rw" };
            json!({"destination": mount.target, "source": mount.source, "type": "bind", "options": ["rbind", access]})
        })
        .collect();
    let mut limits = Map::new();
    if let Some(memory) = host.memory {
        limits.insert("memory".to_owned(), json!({"limit": memory, "swap": memory}));
    }
    if let Some(nano) = host.nano_cpus {
        limits.insert("cpu".to_owned(), json!({"period": PERIOD, "quota": (nano / 10_000).max(1_000)}));
    }
    let ports: Vec<Value> = plan
        .published
        .then(|| json!({"container_port": plan.port, "host_ip": plan.host_ip, "protocol": "tcp"}))
        .into_iter()
        .collect();
    let devices: Vec<Value> = plan.cdi.iter().map(|name| json!({"path": name})).collect();
    let mut all = json!({
        "name": name,
        "image": body.image,
        "env": env,
        "labels": body.labels,
        "log_configuration": {"driver": "k8s-file", "size": LOG_SIZE},
        "restart_policy": "no",
        "healthconfig": {"Test": ["NONE"]},
        "resource_limits": limits,
        "no_new_privileges": true,
        "read_only_filesystem": host.readonly_rootfs.unwrap_or(false),
        "netns": {"nsmode": host.network_mode},
        "portmappings": ports,
        "devices": devices,
        "mounts": mounts,
    });
    let given = [
        ("command", body.cmd.as_ref().map(|words| json!(words))),
        ("entrypoint", body.entrypoint.as_ref().map(|words| json!(words))),
        ("work_dir", body.working_dir.as_ref().map(|dir| json!(dir))),
        ("user", body.user.as_ref().map(|user| json!(user))),
        ("shm_size", host.shm_size.map(|size| json!(size))),
        ("cap_drop", host.cap_drop.as_ref().map(|names| json!(names))),
        ("hostadd", host.extra_hosts.as_ref().map(|hosts| json!(hosts))),
    ];
    for (key, value) in given {
        if let Some(value) = value {
            all[key] = value;
        }
    }
    all
}

/// Makes the container; gives its id.
pub(super) async fn create(socket: &Path, name: &str, plan: &Plan) -> Result<String, Failure> {
    let text = serde_json::to_vec(&specification(name, plan)).map_err(|error| Failure::Refused(error.to_string()))?;
    let request = http::Request::post(CREATE)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(text)))
        .map_err(|error| Failure::Refused(error.to_string()))?;
    let answer = http_client::call_socket(socket, request, LIMIT).await;
    let answer = answer.map_err(|error| Failure::Unreachable(error.to_string()))?;
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (answer.status, said["Id"].as_str()) {
        (200..300, Some(id)) => Ok(id.to_owned()),
        (404, _) => Err(Failure::Missing(words(&said))),
        _ => Err(Failure::Refused(words(&said))),
    }
}

fn words(said: &Value) -> String {
    said["message"].as_str().unwrap_or("it gave no reason").to_owned()
}
