//! Devices of a container: by names in device specifications (CDI) first, by a device request second, by the variable of the NVIDIA
//! runtime third. An engine that offers none of these refuses by name: an instance must not fall back to the CPU in silence.

use std::fs;
use std::path::Path;

use bollard::models::DeviceRequest;
use serde_json::Value;

use super::create::cdi_request;
use crate::body::Devices;
use crate::containers::{EngineInfo, EngineKind};

/// Bytes of a device specification that are read.
const LARGEST: u64 = 1 << 20;

/// How a container gets its devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct DeviceAccess {
    /// Requests, in Docker's words.
    pub(super) requests: Option<Vec<DeviceRequest>>,
    /// Names in device specifications, for Podman's own call.
    pub(super) cdi: Vec<String>,
    /// Variables that runtimes read.
    pub(super) variables: Vec<(String, String)>,
}

/// How the devices of an instance are given to its container. `names` are the names of all devices of the host in specifications.
///
/// # Errors
/// In words, that the engine offers no devices.
pub(super) fn given(devices: Option<&Devices>, info: &EngineInfo, names: &[String]) -> Result<DeviceAccess, String> {
    let Some(devices) = devices.filter(|devices| !devices.numbers.is_empty()) else {
        return Ok(DeviceAccess::default());
    };
    if kip_host::failpoint::cards_are_pretended() {
        return Ok(DeviceAccess::default());
    }
    let numbers: Vec<String> = devices.numbers.iter().map(usize::to_string).collect();
    let of_host = |number: &usize| names.get(*number).cloned().unwrap_or_else(|| format!("nvidia.com/gpu={number}"));
    let cdi: Vec<String> = devices.numbers.iter().map(of_host).collect();
    match (info.kind, info.cdi.is_empty(), info.nvidia) {
        // Its Docker-compatible call ignores device requests without a word.
        (EngineKind::Podman, _, _) => Ok(DeviceAccess { cdi, ..DeviceAccess::default() }),
        (EngineKind::Docker, false, _) => {
            Ok(DeviceAccess { requests: Some(vec![cdi_request(&cdi)]), cdi, variables: Vec::new() })
        }
        (EngineKind::Docker, true, true) => {
            let request = DeviceRequest {
                driver: Some("nvidia".to_owned()),
                device_ids: Some(numbers.clone()),
                capabilities: Some(vec![vec!["gpu".to_owned()]]),
                ..DeviceRequest::default()
            };
            let variables = vec![
                ("NVIDIA_VISIBLE_DEVICES".to_owned(), numbers.join(",")),
                ("NVIDIA_DRIVER_CAPABILITIES".to_owned(), "compute,utility".to_owned()),
            ];
            Ok(DeviceAccess { requests: Some(vec![request]), cdi: Vec::new(), variables })
        }
        (EngineKind::Docker, true, false) => Err(format!(
            "it needs {}, and the engine at {} offers {}",
            devices.names.join(" and "),
            info.socket.display(),
            info.gpu_support()
        )),
    }
}

/// The device files that a container lacks, as seen from this host through its main process. Those that specifications name are
/// looked for; of the NVIDIA runtime, as many device files as it was given devices.
pub(super) fn lacking(process: u32, given: &DeviceAccess, count: usize, folders: &[String]) -> Vec<String> {
    let root = Path::new("/proc").join(process.to_string()).join("root");
    if !root.join("dev").exists() {
        // Not a process of this host, or one that cannot be looked into.
        return Vec::new();
    }
    let there = |path: &str| root.join(path.trim_start_matches('/')).exists();
    if !given.cdi.is_empty() {
        let files = given.cdi.iter().flat_map(|name| device_files(name, folders));
        return files.filter(|file| !there(file)).collect();
    }
    let entries = fs::read_dir(root.join("dev")).into_iter().flatten().flatten();
    let is_card = |name: &str| {
        name.strip_prefix("nvidia")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let cards = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_card)).count();
    if cards < count { vec!["/dev/nvidia*".to_owned()] } else { Vec::new() }
}

/// The device files that a specification names for a device. Specifications in YAML are not read here; the engine reads them.
fn device_files(name: &str, folders: &[String]) -> Vec<String> {
    let Some((kind, device)) = name.split_once('=') else { return Vec::new() };
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let mut files = Vec::new();
    for entry in entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json")) {
        let Ok(bytes) = kip_host::directory::read_regular(&entry.path(), LARGEST) else { continue };
        let Ok(specification) = serde_json::from_slice::<Value>(&bytes) else { continue };
        if specification["kind"] != kind {
            continue;
        }
        let of_device = specification["devices"].as_array().into_iter().flatten().filter(|one| one["name"] == device);
        for one in of_device {
            let nodes = one["containerEdits"]["deviceNodes"].as_array().into_iter().flatten();
            files.extend(nodes.filter_map(|node| Some(node["path"].as_str()?.to_owned())));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_made_up_specification_are_looked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = r#"{"cdiVersion":"0.5.0","kind":"kip.test/card","devices":[
            {"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/null"}]}},
            {"name":"1","containerEdits":{"deviceNodes":[{"path":"/dev/null"},{"path":"/dev/no-such-card"}]}}]}"#;
        fs::write(folder.path().join("card.json"), text).expect("written");
        fs::write(folder.path().join("other.yaml"), "kind: kip.test/card").expect("written");
        let folders = [folder.path().to_string_lossy().into_owned()];
        let of = |name: &str| DeviceAccess { cdi: vec![name.to_owned()], ..DeviceAccess::default() };
        let own = std::process::id();
        assert_eq!(lacking(own, &of("kip.test/card=0"), 1, &folders), Vec::<String>::new());
        assert_eq!(lacking(own, &of("kip.test/card=1"), 1, &folders), ["/dev/no-such-card"]);
        let runtime = DeviceAccess { requests: Some(Vec::new()), ..DeviceAccess::default() };
        assert_eq!(lacking(own, &runtime, 100, &folders), ["/dev/nvidia*"]);
    }
}
