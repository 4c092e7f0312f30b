//! Durable state. Three SQLite files and an async trait for each: *control* (functions, versions, keys; every
//! acknowledged write is synced), *tasks* (the same promise, made for many writes) and *records* (requests, decisions; the
//! last second may be lost with the power).
//!
//! This room stores values and gives them back. It decides nothing and knows no other room.

pub mod backup;
mod change;
mod changes;
mod control;
mod database;
mod facade;
mod fair_share;
mod filter;
#[cfg(any(test, feature = "gate"))]
pub mod gate;
mod health;
mod ids;
mod keys;
mod records;
pub mod schema;
mod secrets;
mod sqlite;
mod staged;
pub mod tasks;
mod time_limit;
mod version;

use std::collections::BTreeMap;

use async_trait::async_trait;
use kip_spec::VersionId;
use serde::{Deserialize, Serialize};

pub use change::{
    Author, Change, CommittedChange, ControlReader, ControlStore, Effect, IfMatch, Proposal, StoredProvision,
    StoredRevision, UnreadableRow,
};
pub use changes::{Changes, CommitTurn, detached};
pub use control::SqliteControl;
pub use database::Error;
pub use facade::{RevisionExtra, SettingChange, StoredResource, StoredSetting, StoredTrigger};
pub use filter::RequestFilter;
pub use health::{Condition, DiskHealth};
pub use ids::{FunctionId, Object, Seq};
pub use keys::{AccessPair, AuditFilter, AuditRecord, StoredKey};
pub use records::SqliteRecords;
pub use secrets::StoredSecret;
pub use sqlite::{ControlFile, RecordsFile, SqliteFile};
pub use version::{AliasTarget, StoredAlias, StoredTraffic, StoredVersion, TrafficShare};

/// Where a version came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VersionSource {
    /// Its number.
    pub id: VersionId,
    /// Counts the revisions of its function, from 1.
    #[serde(default)]
    pub ordinal: u64,
    /// When it was made, milliseconds since 1970.
    pub created: i64,
    /// In whose words it was declared.
    pub facade: String,
    /// The document it was made from.
    pub source: String,
    /// The number of its version, if it was published.
    #[serde(default)]
    pub number: Option<u64>,
    /// The note with which it was published.
    #[serde(default)]
    pub description: String,
}

/// Who this data directory's server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Made with the data directory; in the environment of every instance.
    pub server: String,
    /// How often a server was started on it, this time included.
    pub boot: u32,
}

/// One request, as it is asked for afterwards. Times in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RequestRecord {
    /// Its id.
    pub id: String,
    /// When it arrived, milliseconds since 1970.
    pub at: i64,
    /// Its function.
    pub function: String,
    /// The version that served it, by the number of its revision in the store.
    pub version: Option<u64>,
    /// How that version was shown then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The qualifier it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<String>,
    /// The instance that served it.
    pub instance: Option<String>,
    /// Its method.
    pub method: String,
    /// Its path and query as the instance saw them.
    pub path: String,
    /// The status answered, 0 if the caller left before.
    pub status: u16,
    /// The error code, where the answer was ours.
    pub code: Option<String>,
    /// warm, woken or cold.
    pub start: Option<String>,
    /// Waiting, a start or wake included.
    pub queue_us: u64,
    /// From sending it on to the answer's head.
    pub first_byte_us: u64,
    /// From arrival to the end.
    pub total_us: u64,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// Bytes of the request's body that were sent on.
    #[serde(default)]
    pub bytes_in: u64,
    /// provisioned or on-demand: the instance that served it.
    #[serde(default)]
    pub kind: Option<String>,
    /// The most memory the instance had used when the request ended, in bytes, where that is measured.
    #[serde(default)]
    pub peak_memory: Option<u64>,
    /// How it ended: `done`, `refused`, `broken` or `left`.
    pub outcome: String,
    /// The name of the key that called, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// That key's tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// One decision about an instance, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DecisionRecord {
    /// When, milliseconds since 1970.
    pub at: i64,
    /// About which function.
    pub function: String,
    /// About which version, by the number of its revision in the store.
    pub version: u64,
    /// How that version was shown then, where the decision is about a version and no instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// About which instance; none for decisions about a version.
    pub instance: Option<String>,
    /// Its state before.
    pub from: Option<String>,
    /// Its state after, or what happened to the version.
    pub to: String,
    /// Why, in a sentence.
    pub why: String,
    /// More, where a start failed: the detail and the program's last lines.
    pub detail: Option<String>,
    /// The decision as a value that this store does not read. Null in records of earlier versions.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub decision: serde_json::Value,
}

/// What the time of an instance that is gone was spent on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// Its function.
    pub function: String,
    /// Its version.
    pub version: u64,
    /// Which instance.
    pub instance: String,
    /// When it was made, milliseconds since 1970.
    pub since: i64,
    /// When it was gone, or the time of asking, milliseconds since 1970.
    pub until: i64,
    /// Requests it was given.
    pub served: u64,
    /// Milliseconds by kind (provisioned, on-demand) and state; they add up to its life.
    pub times: BTreeMap<String, BTreeMap<String, u64>>,
}

/// One look of a scaling policy, with everything that is needed to repeat it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ScalingRecord {
    /// When, milliseconds since 1970.
    pub at: i64,
    /// Its function.
    pub function: String,
    /// `kpa` or `fc`.
    pub mode: String,
    /// The version it decides about; none if it decides for a qualifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// For whom it provisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<String>,
    /// What was seen, as a line for `kip scaler decide`.
    pub observation: serde_json::Value,
    /// What was decided, as `kip scaler decide` would answer.
    pub decision: serde_json::Value,
    /// Instances that could serve.
    pub actual: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that waited.
    pub queued: u32,
}

/// The target that a scaling policy has reached for a qualifier. A start of the server goes on from it, so it is no log: there is
/// one for each function and qualifier, the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachedTarget {
    /// The function.
    pub function: String,
    /// The qualifier.
    pub qualifier: String,
    /// Instances.
    pub target: u32,
    /// When, milliseconds since 1970.
    pub at: i64,
}

/// What the version that serves a function has learnt of its traffic. A start of the server goes on from it: there is one for each
/// function, the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearntHistory {
    /// The function.
    pub function: String,
    /// As the brain wrote it.
    pub history: String,
    /// When, milliseconds since 1970.
    pub at: i64,
}

/// Time that instances of a version spent in a state on a day, to be added to what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceTime {
    /// Days since 1970-01-01, UTC.
    pub day: i64,
    /// The function.
    pub function: String,
    /// The version, by the number of its revision in the store.
    pub version: u64,
    /// The state.
    pub state: String,
    /// Milliseconds.
    pub millis: u64,
}

/// Requests of a key that a version served on a day, to be added to what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTime {
    /// Days since 1970-01-01, UTC.
    pub day: i64,
    /// The function.
    pub function: String,
    /// The version, by the number of its revision in the store.
    pub version: u64,
    /// The name of the key; empty for callers without one.
    pub key: String,
    /// How many requests.
    pub requests: u64,
    /// How long instances worked on them, microseconds.
    pub micros: u64,
}

/// What a version is priced by, so that its time has a price when the version is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PricedVersion {
    /// By the number of its revision in the store.
    pub version: u64,
    /// How it is shown.
    pub label: String,
    /// What an instance reserves, as JSON.
    pub resources: String,
    /// Its idle instances are paused.
    pub pauses: bool,
}

/// Time and requests by day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpentDays {
    /// By day, function, version and state.
    pub instances: Vec<InstanceTime>,
    /// By day, function, version and key.
    pub keys: Vec<KeyTime>,
    /// What the versions are priced by.
    pub versions: Vec<PricedVersion>,
}

/// A record of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// What a scaler has learnt.
    Learnt(LearntHistory),
    /// Time of instances.
    InstanceTime(InstanceTime),
    /// Requests of a key.
    KeyTime(KeyTime),
    /// What a version is priced by.
    PricedVersion(PricedVersion),
    /// What a scaling policy has reached.
    Reached(ReachedTarget),
    /// A request.
    Request(RequestRecord),
    /// A decision.
    Decision(DecisionRecord),
    /// The time of an instance.
    Usage(UsageRecord),
    /// A look of a scaling policy.
    Scaling(ScalingRecord),
}

/// How many records stay, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest of each kind that are kept.
    pub count: u32,
    /// Older ones go, in milliseconds.
    pub age: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { count: 100_000, age: 30 * 86_400_000 }
    }
}

/// Requests and decisions, bounded: the oldest go.
#[async_trait]
pub trait RecordStore: Send + Sync + std::fmt::Debug {
    /// Adds a batch in one transaction.
    async fn append(&self, batch: Vec<Record>) -> Result<(), Error>;
    /// The requests that fit, newest first.
    async fn requests(&self, filter: RequestFilter) -> Result<Vec<RequestRecord>, Error>;
    /// The latest decisions about a function, newest first.
    async fn decisions(&self, function: String, most: u32) -> Result<Vec<DecisionRecord>, Error>;
    /// What the instances of a function that are gone spent their time on, oldest first.
    async fn usage(&self, function: String) -> Result<Vec<UsageRecord>, Error>;
    /// The latest looks of a function's scaling policies, newest first.
    async fn scaling(&self, function: String, most: u32) -> Result<Vec<ScalingRecord>, Error>;
    /// What scaling policies have reached, of all functions.
    async fn reached(&self) -> Result<Vec<ReachedTarget>, Error>;
    /// Forgets what the policies of these functions have reached.
    async fn forget_reached(&self, functions: Vec<String>) -> Result<(), Error>;
    /// What scalers have learnt, of all functions.
    async fn learnt(&self) -> Result<Vec<LearntHistory>, Error>;
    /// Forgets what the scalers of these functions have learnt.
    async fn forget_learnt(&self, functions: Vec<String>) -> Result<(), Error>;
    /// Time and requests from one day to another, both included, oldest first.
    async fn spent(&self, from: i64, to: i64) -> Result<SpentDays, Error>;
    /// Forgets what the retention does not keep; `now` is milliseconds since 1970.
    async fn prune(&self, retention: Retention, now: i64) -> Result<(), Error>;
    /// Whether changes are taken.
    fn condition(&self) -> Condition;
}
