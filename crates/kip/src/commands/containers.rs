//! What `kip doctor` finds of the container engine.

use crate::arguments::Connection;

/// The engine of this host, in words.
#[derive(Debug)]
pub(super) struct EngineReport {
    /// Whether one answers.
    pub(super) usable: bool,
    pub(super) detail: String,
    pub(super) hint: Option<String>,
}

#[cfg(feature = "docker")]
pub(super) async fn finding(connection: &Connection) -> Option<EngineReport> {
    use crate::config::containers::EngineSetting;
    use crate::config::{Config, Flags};
    use kip_engine::docker::describe;

    let data = crate::client::data_directory(connection).ok()?;
    // Settings that cannot be used have a line of their own.
    let config = Config::read(&data, None, &Flags::default()).ok()?;
    if config.containers.engine == EngineSetting::Off {
        let detail = "off (containers.engine): functions with an image are refused".to_owned();
        return Some(EngineReport { usable: false, detail, hint: None });
    }
    Some(match describe(&crate::body::address(&config)).await {
        Ok(info) => {
            let rootless = if info.rootless { ", rootless" } else { "" };
            let detail = format!(
                "{} {} at {} (API {}), storage {}, cgroup v{}{rootless}, {}",
                info.kind.name(),
                info.version,
                info.socket.display(),
                info.api,
                info.storage,
                info.cgroup,
                info.gpu_support(),
            );
            EngineReport { usable: true, detail, hint: None }
        }
        Err(reason) => {
            let hint = "functions with an image need Docker or Podman: install docker.io or podman and start it (docs/containers.md)";
            let detail = format!("no engine answers: {reason}");
            EngineReport { usable: false, detail, hint: Some(hint.to_owned()) }
        }
    })
}

#[cfg(not(feature = "docker"))]
pub(super) async fn finding(_: &Connection) -> Option<EngineReport> {
    None
}
