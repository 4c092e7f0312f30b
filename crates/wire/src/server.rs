//! The server itself, deployments, logs and errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kip_spec::{FunctionName, Problem, VersionId};
use serde::{Deserialize, Serialize};

use crate::host::{HostInfo, ServerEvent};
use crate::rollout::RolloutInfo;

/// Where functions are called.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Gateway {
    /// The gateway's address.
    pub gateway: SocketAddr,
}

/// Who the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Its data directory.
    pub data_directory: String,
    /// Where requests come in.
    pub gateway: SocketAddr,
    /// Where this API is.
    pub api: SocketAddr,
    /// How often it was started on its data directory.
    pub boot: u32,
    /// How instances are paused on this host.
    pub pause_method: String,
    /// Why there is no cgroup for instances, where there is none.
    pub cgroup_missing: Option<String>,
    /// Which declared limits cannot be enforced, where some cannot.
    #[serde(default)]
    pub limits_missing: Option<String>,
    /// How functions are kept from the server on this host.
    #[serde(default)]
    pub isolation: String,
    /// Why that is less than it could be, where it is.
    #[serde(default)]
    pub isolation_missing: Option<String>,
    /// Whether they are kept from it at all. Else a key with the role `deploy` is the server's user.
    #[serde(default)]
    pub isolated: bool,
    /// Whether an instance can be shown the files of its version in the place of its folder.
    #[serde(default)]
    pub mounts: bool,
    /// Types of devices by the types of Function Compute that they stand for.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub gpu_types: std::collections::BTreeMap<String, String>,
}

/// `GET /api/v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Status {
    /// Who the server is.
    #[serde(flatten)]
    pub about: ServerInfo,
    /// What it has.
    pub host: HostInfo,
    /// How many functions.
    pub functions: usize,
    /// How many instances.
    pub instances: usize,
    /// What happened to the server itself lately, oldest first.
    pub events: Vec<ServerEvent>,
}

/// `POST /api/v1/backup`.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// The file to write, an absolute path on the server's machine.
    pub file: String,
    /// Whether a file of this name is overwritten.
    #[serde(default)]
    pub force: bool,
    /// Whether the code of versions is left out.
    #[serde(default)]
    pub no_code: bool,
}

/// `POST /api/v1/restore`.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The file to read, an absolute path on the server's machine.
    pub file: String,
    /// Whether the backup of another server is taken.
    #[serde(default)]
    pub force: bool,
    /// Whether the records of requests and decisions are put back too.
    #[serde(default)]
    pub records: bool,
    /// Whether keys that this server does not have are taken from the backup. Without an answer, a backup with such keys is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<bool>,
}

/// `GET /readyz`, without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Health {
    /// Whether the server takes requests and changes.
    pub ready: bool,
    /// Whether functions are served.
    pub serving: bool,
    /// `writable`, `full` or `not_durable`.
    pub state: String,
    /// `ok`, `low` or `full`.
    pub disk: String,
    /// What failed, where state is not durable.
    pub detail: Option<String>,
}

/// `POST /api/v1/deployments`.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// The manifest's file as the user named it, for messages.
    pub file: String,
    /// The manifest's text.
    pub text: String,
    /// The absolute folder that its relative paths start from, on the server's machine.
    pub directory: String,
    /// Only these functions of it; empty means all.
    #[serde(default)]
    pub only: Vec<String>,
    /// Start an instance of each function, though no request waits.
    #[serde(default)]
    pub start: bool,
    /// The jobs of it are one-off: each is removed when its task is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// Leave out functions that serve with the same declaration already and whose files did not change since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_unchanged: bool,
    /// The new revisions do not serve: requests go where they went.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_traffic: bool,
    /// The variables that the manifest names as `${NAME}` under `env`, from the environment of the deployer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// The texts of the files that the manifest names under `env_file`, by their paths as written there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_files: BTreeMap<String, String>,
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeploymentResult {
    /// What was made.
    pub deployed: Vec<DeployedVersion>,
    /// What was left out, because it serves unchanged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchanged: Vec<DeployedVersion>,
    /// The rollouts that began with it, because the manifest asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollouts: Vec<RolloutInfo>,
    /// What is worth a look.
    pub warnings: Vec<Problem>,
}

/// A new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeployedVersion {
    /// Of which function.
    pub function: FunctionName,
    /// The number of its revision in the store.
    pub version: VersionId,
    /// How it is shown: r and the ordinal of its revision.
    #[serde(default)]
    pub label: String,
    /// It is a job, which nobody calls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub job: bool,
}

/// The answer of `POST /api/v1/functions/{name}/rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Rotation {
    /// Instances that are being replaced.
    pub replacing: usize,
}

/// One line of `GET /api/v1/functions/{name}/logs`, which answers one JSON value a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LogLine {
    /// When it was read, milliseconds since 1970.
    pub at: i64,
    /// Which instance wrote it; empty for a remark about what follows.
    pub instance: String,
    /// The version of the instance: its number, `r` and the ordinal of its revision, or `v7` where it is removed. Logs of earlier servers
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `out`, `err`, or `kip` for our own remarks.
    pub stream: String,
    /// What it wrote; bytes that are not UTF-8 are replaced.
    pub line: String,
    /// The line is too long and goes on with the next one of its stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// The level that a JSON line names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The message of a JSON line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The request that a JSON line names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl LogLine {
    /// A line as it was written.
    pub fn new(instance: String, at: i64, stream: String, line: String) -> Self {
        Self { at, instance, version: None, stream, line, cut: false, level: None, message: None, request_id: None }
    }

    /// Something about the lines that follow.
    pub fn remark(at: i64, line: String) -> Self {
        Self::new(String::new(), at, "kip".to_owned(), line)
    }

    /// Reads the fields of a JSON line, under the names that loggers give them.
    pub fn recognise(&mut self) {
        if !self.line.starts_with('{') {
            return;
        }
        let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(&self.line) else { return };
        let field = |names: &[&str]| {
            let value = names.iter().find_map(|name| fields.get(*name))?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        self.level = field(&["level", "severity", "levelname", "lvl"]);
        self.message = field(&["message", "msg", "event"]);
        self.request_id = field(&["request_id", "requestId", "RequestId", "request-id", "req_id"]);
    }
}

/// The body of an error: the first problem, and all of them where there are several.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Errors {
    /// The first.
    pub error: Problem,
    /// All, where a document has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Problem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_are_recognised() {
        let mut line = LogLine::new(String::new(), 0, "out".to_owned(), String::new());
        line.line = r#"{"severity":"WARN","msg":"slow","requestId":"r-7","n":1}"#.to_owned();
        line.recognise();
        let found = (line.level.as_deref(), line.message.as_deref(), line.request_id.as_deref());
        assert_eq!(found, (Some("WARN"), Some("slow"), Some("r-7")));
        let mut plain = LogLine::new(String::new(), 0, "out".to_owned(), "{not json".to_owned());
        plain.recognise();
        assert_eq!((plain.level, plain.message), (None, None));
    }
}
