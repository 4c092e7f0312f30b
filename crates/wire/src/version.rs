//! Revisions, versions and aliases of a function.

use kip_spec::function::FunctionSpec;
use kip_spec::{FunctionName, Problem, VersionId};
use serde::{Deserialize, Serialize};

use crate::VersionStatus;

/// A revision of a function, and its version if it was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RevisionInfo {
    /// Its number in the store, as instances and records have it.
    pub id: VersionId,
    /// Its place among the revisions of its function, from 1.
    pub ordinal: u64,
    /// The number of its version, if it was published.
    pub number: Option<u64>,
    /// How it is shown and called: the number, or `r` and the ordinal.
    pub label: String,
    /// The publisher's note.
    pub description: String,
    /// When it was made, milliseconds since 1970.
    pub created: i64,
    /// In whose words it was declared.
    pub facade: String,
    /// Requests for LATEST go to it.
    pub serves: bool,
    /// It was deployed last.
    pub newest: bool,
    /// The outcome of its deployment, if this server saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<VersionStatus>,
    /// The aliases that point at it.
    pub aliases: Vec<String>,
    /// The document it was made from.
    pub source: String,
}

/// A revision with its declaration.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VersionInfo {
    /// The revision.
    #[serde(flatten)]
    pub revision: RevisionInfo,
    /// The declaration, every default filled in.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub spec: FunctionSpec,
}

/// What to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// A note of at most 512 bytes.
    #[serde(default)]
    pub description: String,
    /// A revision such as r12, or LATEST for the revision that serves; the one that was deployed last otherwise.
    #[serde(default)]
    pub revision: Option<String>,
}

/// The version of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Published {
    /// The version.
    pub version: RevisionInfo,
    /// It was made by this call; otherwise the revision had its number already, and nothing was changed.
    pub fresh: bool,
}

/// A field in which two revisions differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FieldChange {
    /// Its name, with dots between its parts.
    pub field: String,
    /// Its value in the first; none where it is not there.
    pub before: Option<String>,
    /// Its value in the second.
    pub after: Option<String>,
}

/// What differs between two revisions of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VersionDiff {
    /// The first.
    pub from: String,
    /// The second.
    pub to: String,
    /// The fields that differ, by name.
    pub fields: Vec<FieldChange>,
}

/// What a deployment would change of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlannedFunction {
    /// The function.
    pub function: FunctionName,
    /// The version that serves; none for a new function.
    pub serving: Option<String>,
    /// The fields in which the new revision differs from it.
    pub fields: Vec<FieldChange>,
    /// What starts and what ends, in sentences.
    pub steps: Vec<String>,
    /// Where requests without a qualifier go now, and would go.
    pub traffic: (String, String),
}

/// What a deployment would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeploymentPlan {
    /// By function, in the order of the manifest.
    pub functions: Vec<PlannedFunction>,
    /// What is worth a look.
    pub warnings: Vec<Problem>,
}

/// What to return to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The alias that points back to where it pointed before; the version that serves otherwise.
    #[serde(default)]
    pub alias: Option<String>,
}

/// What a rollback returned to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RollbackResult {
    /// The version of the function, which serves when an instance of it is ready.
    pub version: Option<crate::DeployedVersion>,
    /// The alias as it is now.
    pub alias: Option<AliasInfo>,
}

/// A target of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TargetInfo {
    /// The version, as it is shown; LATEST for the version that serves.
    pub version: String,
    /// The number of its revision in the store.
    pub revision: Option<VersionId>,
    /// Its share of the requests, in percent.
    pub percent: String,
}

/// An alias of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AliasInfo {
    /// Its function.
    pub function: FunctionName,
    /// Its name.
    pub name: String,
    /// Where it points; the shares add up to 100.
    pub targets: Vec<TargetInfo>,
    /// The note of whoever set it.
    pub description: String,
    /// The number of the commit that changed it last, which is its `ETag`.
    pub rev: u64,
    /// The host name under which it is called.
    pub host: String,
    /// By what its callers stay on their version: `header:NAME`, `cookie:NAME` or `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
}

/// Where an alias is to point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AliasSettings {
    /// A version such as 3, or versions with shares in percent such as 3=90,4=10.
    pub targets: String,
    /// A note of at most 512 bytes; that of before stays if it is left out.
    #[serde(default)]
    pub description: Option<String>,
    /// By what its callers stay on their version: `header:NAME`, `cookie:NAME`, `key`, or `off`; as before if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
}
