//! What is provisioned, as it crosses the wire.

use kip_spec::{FunctionName, Millis};
use serde::{Deserialize, Serialize};

/// `GET /api/v1/functions/{name}/provision`, and an item of `GET /api/v1/provisions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Provision {
    /// The function.
    pub function: FunctionName,
    /// For whom.
    pub qualifier: String,
    /// It is the version's own declaration, not put from outside.
    pub declared: bool,
    /// It was put, and holds instead of what the version declares.
    #[serde(default)]
    pub overrides: bool,
    /// Provisioned instances that are wanted now.
    pub target: u32,
    /// Those there are.
    pub current: u32,
    /// Why there are fewer, if there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_error: Option<String>,
    /// Why so many are wanted.
    pub why: String,
    /// That nobody has used them for hours, and what releases them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminder: Option<String>,
    /// Policies and scheduled actions, and which of them count now.
    pub policies: Vec<PolicyStatus>,
    /// How long a metric is averaged.
    pub period: Millis,
    /// Periods in a row that it must be off its target.
    pub hold: u32,
    /// What part of a surplus goes at once.
    pub coefficient: f64,
    /// The input, as it would be put.
    pub input: serde_json::Value,
}

/// A policy or action, and whether it counts at a moment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct PolicyStatus {
    /// Its name.
    pub name: String,
    /// Whether it counts.
    pub active: bool,
    /// Why not, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
