//! The container engine that answers on this host: where it is looked for, and what it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum, SystemVersion};
use bollard::{API_DEFAULT_VERSION, Docker};

use super::tunnel::{SshTarget, Tunnel};
use crate::containers::{EngineInfo, EngineKind};

/// How long the engine may take to answer a call, seconds. Making a container on a loaded host takes some.
const CALL_LIMIT: u64 = 120;
/// How long an engine on another host may take to say what it is.
const OPEN_LIMIT: Duration = Duration::from_secs(20);
/// Sockets of engines that run as root, the usual ones.
const ROOT_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];
/// And of those that run as the user, below `XDG_RUNTIME_DIR`.
const USER_SOCKETS: [&str; 2] = ["docker.sock", "podman/podman.sock"];

/// Where the engine is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EngineAddress {
    /// `DOCKER_HOST`, then the usual sockets of Docker and Podman.
    #[default]
    Auto,
    /// This socket and no other.
    Socket(PathBuf),
    /// On another host, by ssh.
    Ssh(SshTarget),
    /// Nowhere: functions with an image are refused.
    Off,
}

/// An engine that answered.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) docker: Docker,
    pub(super) info: EngineInfo,
}

/// Connects to the first engine that answers.
///
/// # Errors
/// What was tried and why each did not do, in words.
pub(super) async fn connect(address: &EngineAddress, tunnel: Option<&Tunnel>) -> Result<Engine, String> {
    if let Some(tunnel) = tunnel {
        return match tokio::time::timeout(OPEN_LIMIT, open(&tunnel.socket())).await {
            Ok(Ok(engine)) => Ok(engine),
            Ok(Err(reason)) => Err(format!("{reason}; {}", tunnel.why())),
            Err(_) => Err(format!("it does not answer; {}", tunnel.why())),
        };
    }
    let sockets = match address {
        EngineAddress::Ssh(target) => return Err(format!("no ssh to {} is kept up", target.host)),
        EngineAddress::Off => return Err("containers.engine is off".to_owned()),
        EngineAddress::Socket(path) => vec![path.clone()],
        EngineAddress::Auto => usual()?,
    };
    let mut reasons = Vec::new();
    for socket in sockets {
        match open(&socket).await {
            Ok(engine) => return Ok(engine),
            Err(reason) => reasons.push(format!("{}: {reason}", socket.display())),
        }
    }
    Err(reasons.join("; "))
}

/// The sockets to try: the one that `DOCKER_HOST` names alone, else the usual ones.
fn usual() -> Result<Vec<PathBuf>, String> {
    if let Some(host) = kip_host::environment::read("DOCKER_HOST").filter(|host| !host.is_empty()) {
        return match host.strip_prefix("unix://") {
            Some(path) => Ok(vec![path.into()]),
            None => Err(format!("DOCKER_HOST is `{host}`, and only sockets of this host (unix://…) can be used")),
        };
    }
    let own = kip_host::environment::read("XDG_RUNTIME_DIR").map(PathBuf::from);
    let user = own.iter().flat_map(|folder| USER_SOCKETS.iter().map(|name| folder.join(name)));
    Ok(ROOT_SOCKETS.iter().map(PathBuf::from).chain(user).collect())
}

async fn open(socket: &Path) -> Result<Engine, String> {
    if !socket.exists() {
        return Err("there is no such socket".to_owned());
    }
    // Looked at beforehand, because the client's own words do not say what the system said.
    tokio::net::UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let text = socket.to_string_lossy();
    let client =
        Docker::connect_with_unix(&text, CALL_LIMIT, API_DEFAULT_VERSION).map_err(|error| error.to_string())?;
    let docker = client.negotiate_version().await.map_err(|error| error.to_string())?;
    let version = docker.version().await.map_err(|error| error.to_string())?;
    let said = docker.info().await.map_err(|error| error.to_string())?;
    let info = described(&version, &said, docker.client_version().to_string(), socket);
    Ok(Engine { docker, info })
}

fn described(version: &SystemVersion, said: &SystemInfo, api: String, socket: &Path) -> EngineInfo {
    let components = version.components.iter().flatten();
    let podman = components.clone().any(|component| component.name.starts_with("Podman"));
    let options = said.security_options.iter().flatten();
    let kind = if podman { EngineKind::Podman } else { EngineKind::Docker };
    EngineInfo {
        kind,
        version: version.version.clone().unwrap_or_default(),
        api,
        socket: socket.to_owned(),
        storage: said.driver.clone().unwrap_or_default(),
        cgroup: if said.cgroup_version == Some(SystemInfoCgroupVersionEnum::_2) { 2 } else { 1 },
        rootless: options.clone().any(|option| option.contains("rootless")),
        elsewhere: said.operating_system.as_deref().is_some_and(|system| system.contains("Docker Desktop")),
        architecture: architecture(version.arch.as_deref().or(said.architecture.as_deref()).unwrap_or_default()),
        nvidia: said.runtimes.iter().flatten().any(|(name, _)| name.starts_with("nvidia")),
        cdi: match kind {
            EngineKind::Docker => said.cdi_spec_dirs.clone().unwrap_or_default(),
            // It does not say so; these are built in.
            EngineKind::Podman => ["/etc/cdi", "/var/run/cdi"].map(str::to_owned).to_vec(),
        },
    }
}

/// An architecture as images name it: kernels have other names for the same.
pub(super) fn architecture(name: &str) -> String {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, said: &str) -> EngineInfo {
        let version = serde_json::from_str(version).expect("a version");
        let said = serde_json::from_str(said).expect("an info");
        described(&version, &said, "1.41".to_owned(), Path::new("/s"))
    }

    #[test]
    fn engines_are_told_apart_by_what_they_say() {
        let docker = info(
            r#"{"Version":"20.10.24","Arch":"amd64","Components":[{"Name":"Engine","Version":"20.10.24"}]}"#,
            r#"{"Driver":"overlay2","CgroupVersion":"1","SecurityOptions":["name=seccomp"],"Runtimes":{"runc":{},"nvidia":{}}}"#,
        );
        assert_eq!((docker.kind, docker.version.as_str(), docker.cgroup), (EngineKind::Docker, "20.10.24", 1));
        assert!(docker.nvidia && docker.has_addresses() && docker.cdi.is_empty());
        assert_eq!(docker.gpu_support(), "devices by the NVIDIA runtime");
        let podman = info(
            r#"{"Version":"4.3.1","Arch":"arm64","Components":[{"Name":"Podman Engine","Version":"4.3.1"}]}"#,
            r#"{"Driver":"overlay","CgroupVersion":"2","SecurityOptions":["name=rootless"]}"#,
        );
        assert_eq!((podman.kind, podman.architecture.as_str(), podman.cgroup), (EngineKind::Podman, "arm64", 2));
        assert!(!podman.has_addresses() && podman.gpu_support().contains("/etc/cdi"));
        let desktop = info("{}", r#"{"OperatingSystem":"Docker Desktop","Architecture":"x86_64"}"#);
        assert!(!desktop.has_addresses() && desktop.architecture == "amd64");
    }

    #[tokio::test]
    async fn what_was_tried_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("none.sock");
        let error = connect(&EngineAddress::Socket(path.clone()), None).await.expect_err("nobody is there");
        assert_eq!(error, format!("{}: there is no such socket", path.display()));
        let left = folder.path().join("left.sock");
        drop(std::os::unix::net::UnixListener::bind(&left).expect("a socket"));
        let error = connect(&EngineAddress::Socket(left), None).await.expect_err("nobody listens");
        assert!(error.contains("refused"), "{error}");
        assert!(connect(&EngineAddress::Off, None).await.is_err());
    }
}
