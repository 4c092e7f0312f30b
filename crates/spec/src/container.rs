//! What a container of an image is made with, as declared.

use serde::{Deserialize, Serialize};

use crate::Bytes;

/// The port that a container listens on where neither the function nor its image names one.
pub const DEFAULT_PORT: u16 = 8_080;

/// A container of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The image as declared, such as `ghcr.io/team/ocr:3`.
    pub image: String,
    /// The id of the image that the reference meant when the version was made, `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The same as a registry knows it, `name@sha256:…`; `None` of an image that came from none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When the image is pulled.
    #[serde(default)]
    pub pull: PullPolicy,
    /// Takes the place of the image's entrypoint, if it is not empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Takes the place of the image's command, if it is not empty. `${PORT}` and other `${NAME}` are replaced by the instance's
    /// environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Working directory inside the container, absolute; `None` is the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// The port that the program listens on inside the container; `None` is the one that the image exposes, else [`DEFAULT_PORT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// User, or user and group with `:`; `None` is the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Size of `/dev/shm`; `None` is the engine's default, 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm: Option<Bytes>,
    /// The network that it is in.
    #[serde(default)]
    pub network: Network,
    /// No capabilities, and a root file system that cannot be written; `/tmp` is in memory.
    #[serde(default)]
    pub hardened: bool,
    /// More names for `/etc/hosts`, each `name:address`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Folders of the host that it sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
}

impl Container {
    /// The image to start from: the one that was meant when the version was made, else as declared.
    pub fn reference(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.image)
    }

    /// What to pull if the engine does not have that one any more.
    pub fn source(&self) -> Option<&str> {
        match (&self.digest, &self.id) {
            (Some(digest), _) => Some(digest),
            (None, Some(_)) => None,
            (None, None) => Some(&self.image),
        }
    }
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// If the engine does not have it.
    #[default]
    Missing,
    /// Each time a version is made, so that a tag that moved is followed.
    Always,
    /// Never: the engine must have it.
    Never,
}

/// The network of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// One of its own, behind the engine's bridge.
    #[default]
    Bridge,
    /// The host's: each instance gets a free port in `PORT`.
    Host,
}

/// A folder of the host inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The folder on the host, absolute.
    pub source: String,
    /// Where the container sees it, absolute.
    pub target: String,
    /// Whether the container may write to it.
    #[serde(default)]
    pub writable: bool,
}
