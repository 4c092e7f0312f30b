//! What a body whose instances are containers offers beside instances: its engine, and the images of that.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use kip_spec::container::Container;
use serde::{Deserialize, Serialize};

/// Which engine it is. They speak one API and differ in details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

impl EngineKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        }
    }
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineInfo {
    /// Which one.
    pub kind: EngineKind,
    /// Its own version.
    pub version: String,
    /// The version of the API that is spoken with it.
    pub api: String,
    /// Its socket.
    pub socket: PathBuf,
    /// How it stores images and containers, such as overlay2.
    pub storage: String,
    /// The version of cgroups that it limits containers by: 1 or 2.
    pub cgroup: u8,
    /// It runs without root: containers have no address on this host.
    pub rootless: bool,
    /// It runs containers in a machine of its own, such as Docker Desktop.
    pub elsewhere: bool,
    /// The architecture of its containers, as images name it, such as amd64.
    pub architecture: String,
    /// It has a runtime for NVIDIA devices.
    pub nvidia: bool,
    /// Folders of device specifications (CDI) that it reads.
    pub cdi: Vec<String>,
}

impl EngineInfo {
    /// Whether containers have an address that this host reaches.
    pub fn has_addresses(&self) -> bool {
        !self.rootless && !self.elsewhere
    }

    /// What it can give of devices, in words.
    pub fn gpu_support(&self) -> String {
        match (self.cdi.is_empty(), self.nvidia) {
            (false, _) => format!("devices by CDI specifications in {}", self.cdi.join(" and ")),
            (true, true) => "devices by the NVIDIA runtime".to_owned(),
            (true, false) => "no devices: it has neither CDI nor the NVIDIA runtime".to_owned(),
        }
    }
}

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// Its id, `sha256:…`.
    pub id: String,
    /// Its names with tags.
    pub tags: Vec<String>,
    /// Bytes that it takes, layers that it shares with others included.
    pub size: u64,
    /// When it was made, seconds since 1970.
    pub created: i64,
}

/// How far a pull has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PullProgress {
    /// Bytes of the layers that were received.
    pub received: u64,
    /// Bytes of the layers whose size is known.
    pub total: u64,
}

/// Why a declared container cannot be made, or an image not be handled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The settings of this server switch containers off.
    #[error("containers are switched off on this server: containers.engine is off")]
    Off,
    /// No engine answers.
    #[error("no container engine answers: {0}")]
    NoEngine(String),
    /// The engine does not have it, and it may not be pulled.
    #[error("the engine does not have the image {0}")]
    Missing(String),
    /// The pull failed.
    #[error("the image {image} cannot be pulled: {reason}")]
    Pull {
        /// As it was asked for.
        image: String,
        /// What the engine said.
        reason: String,
    },
    /// It is for another architecture.
    #[error("the image {image} is for {found}, and the engine runs {wanted}")]
    Platform {
        /// As it was asked for.
        image: String,
        /// Its architecture.
        found: String,
        /// That of the engine.
        wanted: String,
    },
    /// The folder is not below those that may be mounted.
    #[error("the folder {folder} may not be mounted: containers.mounts allows {}", listed(.allowed))]
    Mount {
        /// The folder.
        folder: String,
        /// Those below which folders may be mounted.
        allowed: Vec<String>,
    },
    /// Containers use it, or it has other names.
    #[error("the image {image} is in use: {reason}")]
    InUse {
        /// As it was asked for.
        image: String,
        /// What the engine said.
        reason: String,
    },
    /// The engine refused otherwise.
    #[error("the engine refused: {0}")]
    Refused(String),
}

fn listed(folders: &[String]) -> String {
    if folders.is_empty() { "none".to_owned() } else { folders.join(" and ") }
}

/// A container engine, as far as it is not about instances.
#[async_trait]
pub trait ContainerEngine: Send + Sync {
    /// What it is.
    ///
    /// # Errors
    /// What was tried, in words, if none answers.
    async fn describe(&self) -> Result<EngineInfo, String>;
    /// Which image a declaration means now, for its version to keep: `id` and `digest` are filled in. Pulls it if the policy says so.
    ///
    /// # Errors
    /// Any of [`EngineError`].
    async fn resolve(&self, container: &Container) -> Result<Container, EngineError>;
    /// The images that it has.
    ///
    /// # Errors
    /// [`EngineError::NoEngine`] or [`EngineError::Refused`].
    async fn images(&self) -> Result<Vec<ImageInfo>, EngineError>;
    /// Pulls an image.
    ///
    /// # Errors
    /// [`EngineError::NoEngine`] or [`EngineError::Pull`].
    async fn pull(&self, image: &str) -> Result<(), EngineError>;
    /// Removes an image, or the name of it that is given.
    ///
    /// # Errors
    /// [`EngineError::NoEngine`], [`EngineError::Missing`], [`EngineError::InUse`] or [`EngineError::Refused`].
    async fn remove(&self, image: &str) -> Result<(), EngineError>;
    /// Brings the image of a version to this engine, if it is not there: by a pull, or from the engine of this host.
    ///
    /// # Errors
    /// Any of [`EngineError`].
    async fn ensure(&self, container: &Container) -> Result<(), EngineError>;
    /// The names of images that were pulled since this was asked last.
    fn take_pulled(&self) -> Vec<String>;
    /// The pulls that are under way, by image.
    fn pulls(&self) -> BTreeMap<String, PullProgress>;
}
