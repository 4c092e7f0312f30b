//! What crosses the wire, for the API and its clients alike.

use std::net::SocketAddr;

use kip_control::{HostInfo, ServerEvent};
use kip_spec::{FunctionName, Problem, VersionId};
use serde::{Deserialize, Serialize};

/// Who the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
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
}

/// `GET /api/v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Who the server is.
    #[serde(flatten)]
    pub about: About,
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
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// The file to write, an absolute path on the server's machine.
    pub file: String,
    /// Whether a file of this name is overwritten.
    #[serde(default)]
    pub force: bool,
}

/// `POST /api/v1/restore`.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
}

/// `GET /readyz`, without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
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
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeploymentMade {
    /// What was made.
    pub deployed: Vec<VersionMade>,
    /// What is worth a look.
    pub warnings: Vec<Problem>,
}

/// A new version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VersionMade {
    /// Of which function.
    pub function: FunctionName,
    /// Its number.
    pub version: VersionId,
}

/// One line of `GET /api/v1/functions/{name}/logs`, which answers one JSON value a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Which instance wrote it.
    pub instance: String,
    /// `out` or `err`.
    pub stream: String,
    /// What it wrote; bytes that are not UTF-8 are replaced.
    pub line: String,
}

/// The body of an error: the first problem, and all of them where there are several.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Errors {
    /// The first.
    pub error: Problem,
    /// All, where a document has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Problem>,
}
