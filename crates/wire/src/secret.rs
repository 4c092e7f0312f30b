//! Secrets on the wire. A value goes to the server and never comes back.

use serde::{Deserialize, Serialize};

/// A secret as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SecretInfo {
    /// Its name.
    pub name: String,
    /// Counts its values, from 1.
    pub generation: u64,
    /// When its value was set, milliseconds since 1970.
    pub changed: i64,
    /// Whether this server can open it; false after a restore without the key that sealed it.
    pub readable: bool,
    /// Its revision: the number of the commit that changed it last.
    pub rev: u64,
    /// The functions whose serving version names it.
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// `PUT /api/v1/secrets/{name}`.
#[derive(Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretValue {
    /// The value, 1 to 65,536 bytes of text.
    pub value: String,
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(kip_spec::secret::MASK)
    }
}
