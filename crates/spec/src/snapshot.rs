//! Which files a version of a function runs: those that its folder had when it was deployed, or those that are there at a start.

use serde::{Deserialize, Serialize};

/// The files of a version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Code {
    /// As it was declared.
    #[serde(default)]
    pub mode: CodeMode,
    /// Paths below the folder that its instances write: they stay the live ones, shared by all versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writable: Vec<String>,
    /// What was taken of the folder; none where the code is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
}

impl Code {
    /// Whether nothing was declared, and nothing taken: the form of revisions that older servers made.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a version holds its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeMode {
    /// Instances run what is in the folder when they start.
    #[default]
    Live,
    /// The folder is captured at the deployment where that is possible; else the code is live, with a warning.
    Auto,
    /// The folder is captured at the deployment, or the deployment fails.
    Snapshot,
}

/// A folder as it was at a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// By which the server keeps it: SHA-256 over names, kinds and contents, in hexadecimal digits.
    pub digest: String,
    /// Folders below it that are not captured: environments and other large folders that git ignores. Versions share them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub live: Vec<String>,
    /// Large files, which are not captured either, but may not change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<PinnedFile>,
    /// Its instances run in it, because this host cannot show it at the path of its folder.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved: bool,
}

/// A file that a version needs as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedFile {
    /// Below the folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Its number on its file system.
    pub inode: u64,
}
