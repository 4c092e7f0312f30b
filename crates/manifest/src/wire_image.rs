//! What belongs to `image` in `kip.yaml` as types, as [`crate::wire`] has functions.

use schemars::JsonSchema;
use serde::Serialize;

use crate::wire_text::{Scalar, Size};

/// When an image is pulled.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PullKeyword {
    /// If the engine does not have it.
    Missing,
    /// Each time a version is made.
    Always,
    /// Never: the engine must have it.
    Never,
}

/// What a container is made with.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContainerInput {
    /// The port that the program listens on; the one that the image exposes if left out, else 8080.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub(crate) port: Option<u16>,
    /// User, or `user:group`; the image's if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Scalar>,
    /// Size of `/dev/shm`; 64 MiB if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shm: Option<Size>,
    /// `bridge`, or `host` for the network of this host; `bridge` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<NetworkKeyword>,
    /// No capabilities, and a root file system that cannot be written; `/tmp` is in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hardened: Option<bool>,
    /// More names of hosts, each `name:address`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) hosts: Vec<String>,
    /// Folders of this host, each `folder:path`, with `:rw` behind it if the container may write to it. Only below the folders of the
    /// setting containers.mounts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) mounts: Vec<String>,
}

/// The network of a container.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NetworkKeyword {
    /// One of its own, behind the engine's bridge.
    Bridge,
    /// That of this host.
    Host,
}
