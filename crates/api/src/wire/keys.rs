//! Keys on the wire.

use kip_auth::KeyInfo;
use kip_spec::Problem;
use serde::{Deserialize, Deserializer, Serialize};

/// `POST /api/v1/keys` with a name and a role, `PATCH /api/v1/keys/{name}` without a name. What is left out stays as it is, or
/// is no limit for a new key; null takes a limit away.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// Its name, for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// invoke, operate, deploy or admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The only functions it is for; none of them means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<Vec<String>>,
    /// How many requests it may send, such as `10/s`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub rate: Option<Option<String>>,
    /// How many of them at once.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub burst: Option<Option<u32>>,
    /// How many it may have in flight.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub concurrency: Option<Option<u32>>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When it ends: a duration from now such as `30d`, or milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub expires: Option<Option<String>>,
    /// Whether it is not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// `POST /api/v1/keys/{name}/rotate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRotation {
    /// How long the earlier secret is taken too, such as `1h`; not at all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
}

/// The answer to a change of a key.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct KeyAnswer {
    /// The key as it is now.
    #[serde(flatten)]
    pub key: KeyInfo,
    /// Its secret, if it has a new one. It is not shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// What is worth a look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

/// Tells null from what was left out.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
