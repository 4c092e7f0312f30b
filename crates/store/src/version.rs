//! Published versions, aliases, and the traffic of functions, as stored.

use kip_spec::sticky::Sticky;
use kip_spec::{AliasName, FunctionName, QualifierName, VersionId};
use serde::{Deserialize, Serialize};

use crate::ids::Seq;

/// A published version: a number that its function never gives again, for one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVersion {
    /// Its function.
    pub function: FunctionName,
    /// Its number, from 1.
    pub number: u64,
    /// The revision.
    pub revision: VersionId,
    /// The place of the revision among those of its function.
    pub ordinal: u64,
    /// The publisher's note.
    pub description: String,
    /// When it was published, milliseconds since 1970.
    pub created: i64,
}

/// A target of an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasTarget {
    /// The revision; none for the version that serves.
    pub revision: Option<VersionId>,
    /// Its share of the requests.
    pub millionths: u32,
}

/// An alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAlias {
    /// Its number, never given again.
    pub id: u64,
    /// Its function.
    pub function: FunctionName,
    /// Its name.
    pub name: AliasName,
    /// Where it points; the shares add up to a million.
    pub targets: Vec<AliasTarget>,
    /// The note of the caller that set it.
    pub description: String,
    /// The commit that changed it last.
    pub rev: Seq,
    /// Where it pointed before; nothing if it never moved.
    pub before: Vec<AliasTarget>,
    /// By what its callers stay on their version; none if each request is drawn by itself.
    pub sticky: Option<Sticky>,
}

/// A part of a function's traffic without a qualifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficShare {
    /// The qualifier that gets it.
    pub to: QualifierName,
    /// Its share of the requests; the shares of a function add up to a million.
    pub millionths: u32,
}

/// A function's traffic as stored, where it is not the version that serves alone.
pub type StoredTraffic = (FunctionName, Vec<TrafficShare>);
