//! Keys on the wire.

use std::fmt;
use std::str::FromStr;

use kip_spec::{Problem, Rate, code};
use serde::{Deserialize, Deserializer, Serialize};

/// What a key may do. Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Call functions through the gateway.
    Invoke,
    /// See everything through the API, and replace instances.
    Operate,
    /// Deploy and remove functions.
    Deploy,
    /// Keys, backups, the audit record, the end of the server.
    Admin,
}

impl Role {
    /// All of them, the lowest first.
    pub const ALL: [Self; 4] = [Self::Invoke, Self::Operate, Self::Deploy, Self::Admin];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invoke => "invoke",
            Self::Operate => "operate",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| {
            Problem::new(code::KEY_INVALID, format!("`{text}` is not a role"))
                .hint("roles are invoke, operate, deploy and admin; each includes those before it")
        })
    }
}

/// A key as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct KeyInfo {
    /// Its name.
    pub name: String,
    /// Its number, never given again.
    pub id: u64,
    /// Its revision: the number of the commit that changed it last.
    #[serde(default)]
    pub rev: u64,
    /// What it may do.
    pub role: Role,
    /// `active`, `disabled` or `expired`.
    pub state: String,
    /// The only functions it is for; null means all, and an empty list none.
    pub functions: Option<Vec<String>>,
    /// How many requests it may send.
    pub rate: Option<Rate>,
    /// How many of them at once.
    pub burst: Option<u32>,
    /// How many it may have in flight.
    pub concurrency: Option<u32>,
    /// Whose it is.
    pub tenant: String,
    /// When it was made, milliseconds since 1970.
    pub created: i64,
    /// When it ends, milliseconds since 1970.
    pub expires: Option<i64>,
    /// When it was last used, milliseconds since 1970.
    pub last_use: Option<i64>,
    /// When its secret was last replaced, milliseconds since 1970.
    pub rotated: Option<i64>,
    /// Until when the secret before that is taken too, milliseconds since 1970.
    pub previous_until: Option<i64>,
    /// The access-key id of an access-key pair; none for a bearer key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
}

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
    /// The only functions it is for. An empty list is none; null takes the list away.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub functions: Option<Option<Vec<String>>>,
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
    /// Makes an access-key pair in place of a bearer key; for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<bool>,
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
