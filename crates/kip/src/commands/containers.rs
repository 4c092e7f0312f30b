//! What `kip doctor` finds of the container engine.

use super::doctor::Finding;
use crate::arguments::Connection;

#[cfg(feature = "docker")]
pub(super) async fn finding(connection: &Connection) -> Option<Finding> {
    use super::doctor::State;
    use crate::config::{Config, EngineSetting, Flags};
    use kip_engine::docker::describe;

    let what = "containers";
    let data = crate::client::data_directory(connection).ok()?;
    // Settings that cannot be used have a line of their own.
    let config = Config::read(&data, None, &Flags::default()).ok()?;
    if config.containers.engine == EngineSetting::Off {
        let detail = "off (containers.engine): functions with an image are refused".to_owned();
        return Some(Finding { what, state: State::Note, detail, hint: None });
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
            Finding { what, state: State::Ok, detail, hint: None }
        }
        Err(reason) => {
            let hint = "functions with an image need Docker or Podman: install docker.io or podman and start it (docs/containers.md)";
            let detail = format!("no engine answers: {reason}");
            Finding { what, state: State::Note, detail, hint: Some(hint.to_owned()) }
        }
    })
}

#[cfg(not(feature = "docker"))]
pub(super) async fn finding(_: &Connection) -> Option<Finding> {
    None
}
