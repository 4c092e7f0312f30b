//! Shares on the wire: paths of NAS servers and buckets, and their folders on this machine.

use serde::{Deserialize, Serialize};

/// A share with its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ShareInfo {
    /// `SERVER:/PATH` of a NAS server, `oss://BUCKET/PATH` of a bucket.
    pub name: String,
    /// Its folder on the machine of the server.
    pub folder: String,
    /// Whether the folder was set; otherwise it is below the storage root.
    pub is_set: bool,
    /// Whether the folder is there.
    pub exists: bool,
}

/// The folder of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareSettings {
    /// The folder on the machine of the server, absolute.
    pub folder: String,
}
