//! Roles of Function Compute on the wire, with the secrets that hold their credentials.

use serde::{Deserialize, Serialize};

/// A role that is mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RoleInfo {
    /// Its name, or its whole ARN.
    pub role: String,
    /// What the secrets of its credentials begin with: `NAME.id`, `NAME.secret`, `NAME.token`.
    pub secret: String,
}

/// What a role is mapped to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleSettings {
    /// What the secrets of its credentials begin with.
    pub secret: String,
}
