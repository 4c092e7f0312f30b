//! Images of the container engine.

use serde::{Deserialize, Serialize};

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ImageInfo {
    /// Its id, `sha256:…`.
    pub id: String,
    /// Its names with tags.
    pub tags: Vec<String>,
    /// Bytes that it takes, layers that it shares with others included.
    pub size: u64,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// Functions whose newest revision uses it.
    pub functions: Vec<String>,
    /// A stored version needs it: it is never removed by itself.
    #[serde(default)]
    pub needed: bool,
    /// It is declared in images.keep.
    #[serde(default)]
    pub kept: bool,
    /// This server pulled it: it goes when nothing needs it and a limit says so.
    #[serde(default)]
    pub pulled: bool,
}

/// A pull that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PullInfo {
    /// The image.
    pub image: String,
    /// Bytes of its layers that were received.
    pub received: u64,
    /// Bytes of the layers whose size is known.
    pub total: u64,
}

/// The images of the engine, and the pulls that are under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ImageList {
    /// The images, by name.
    pub images: Vec<ImageInfo>,
    /// The pulls.
    pub pulls: Vec<PullInfo>,
}

/// The image that is to be pulled or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageName {
    /// A name such as `ghcr.io/team/ocr:3`, or an id.
    pub image: String,
}
