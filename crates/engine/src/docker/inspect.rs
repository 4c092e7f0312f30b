//! What the engine says of containers, read leniently: each engine has states and fields of its own, and a word that is not known must
//! not hide the rest.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use kip_host::http_client;
use kip_spec::container::Network;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::connect::Engine;
use super::failure::{Failure, refusal};

const LIMIT: Duration = Duration::from_secs(60);

/// One container of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Listed {
    pub(super) id: String,
    /// `created`, `running`, `paused`, `exited` and others.
    pub(super) state: String,
    pub(super) labels: Option<HashMap<String, String>>,
}

impl Listed {
    /// Whether it runs or may come to that.
    pub(super) fn lives(&self) -> bool {
        ["created", "configured", "initialized", "running", "paused", "restarting"].contains(&self.state.as_str())
    }
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Inspected {
    pub(super) state: ContainerState,
    network_settings: NetworkSettings,
}

/// How it is, or how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ContainerState {
    pub(super) running: bool,
    pub(super) pid: u32,
    pub(super) exit_code: Option<i64>,
    #[serde(rename = "OOMKilled")]
    pub(super) oom_killed: bool,
    pub(super) error: String,
    pub(super) started_at: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    networks: Option<HashMap<String, NetworkEndpoint>>,
    ports: Option<HashMap<String, Option<Vec<Binding>>>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct NetworkEndpoint {
    #[serde(rename = "IPAddress")]
    ip: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Binding {
    host_port: String,
}

impl Inspected {
    /// Its address in a network of the engine.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.network_settings.networks.as_ref()?.values().find_map(|network| network.ip.parse().ok())
    }

    /// The port of this host at which a port of it is published.
    pub(super) fn published(&self, port: u16) -> Option<u16> {
        let bindings = self.network_settings.ports.as_ref()?.get(&format!("{port}/tcp"))?.as_ref()?;
        bindings.iter().find_map(|binding| binding.host_port.parse().ok())
    }

    /// The network that it is in, and whether its port is published.
    pub(super) fn reached_by(&self, port: u16) -> (Network, bool) {
        let published = self.published(port).is_some();
        match published || self.address().is_some() {
            true => (Network::Bridge, published),
            false => (Network::Host, false),
        }
    }

    /// Whether it was ever started.
    pub(super) fn was_started(&self) -> bool {
        !self.state.started_at.is_empty() && !self.state.started_at.starts_with("0001-") || !self.state.error.is_empty()
    }
}

/// The containers that have a label.
pub(super) async fn list(engine: &Engine, label: &str) -> Result<Vec<Listed>, Failure> {
    // Names of labels and ids of servers need no escape but the quotes and brackets around them.
    get(engine, &format!("/containers/json?all=true&filters=%7B%22label%22%3A%5B%22{label}%22%5D%7D")).await
}

/// One container.
pub(super) async fn inspect(engine: &Engine, container: &str) -> Result<Inspected, Failure> {
    get(engine, &format!("/containers/{container}/json")).await
}

async fn get<T: DeserializeOwned>(engine: &Engine, path: &str) -> Result<T, Failure> {
    let request = http::Request::get(format!("/v{}{path}", engine.info.api));
    let request = request.body(Full::new(Bytes::new())).map_err(|error| Failure::Refused(error.to_string()))?;
    let answer = http_client::call_socket(&engine.info.socket, request, LIMIT).await;
    let answer = answer.map_err(|error| Failure::Unreachable(error.to_string()))?;
    if !(200..300).contains(&answer.status) {
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        return Err(refusal(answer.status, said["message"].as_str().unwrap_or_default()));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::Refused(format!("its answer is not understood: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_either_engine_are_read() {
        let text = r#"{"State":{"Status":"stopped","Running":false,"OOMKilled":false,"Pid":0,"ExitCode":5,"Error":"","StartedAt":"2026-11-29T13:31:20.3Z"},
            "NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"49153"}],"81/tcp":null},"Networks":{"podman":{"IPAddress":"10.88.0.2"}}}}"#;
        let found: Inspected = serde_json::from_str(text).expect("a container");
        assert_eq!((found.state.exit_code, found.published(80), found.published(81)), (Some(5), Some(49_153), None));
        assert_eq!(found.address().map(|ip| ip.to_string()).as_deref(), Some("10.88.0.2"));
        assert!(found.was_started());
        let created = r#"{"State":{"StartedAt":"0001-01-01T00:00:00Z"},"NetworkSettings":{"Ports":null,"Networks":{"bridge":{"IPAddress":""}}}}"#;
        let created: Inspected = serde_json::from_str(created).expect("a container");
        assert!(!created.was_started() && created.address().is_none());
        let listed: Vec<Listed> =
            serde_json::from_str(r#"[{"Id":"a","State":"configured","Labels":null},{"Id":"b","State":"stopped"}]"#)
                .expect("a list");
        assert!(listed[0].lives() && !listed[1].lives());
    }
}
