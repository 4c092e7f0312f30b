//! The rollouts of all functions, as they are stored and held.

use std::collections::BTreeMap;

use kip_fleet::rollout::{RolloutPlan, RolloutState};
use kip_records::metrics::Evidence;
use kip_spec::{AliasName, FunctionName, VersionId};
use kip_store::AliasTarget;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::cell::Cell;

/// A rollout as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rollout {
    /// The new version.
    pub(crate) to: VersionId,
    /// Where the alias pointed.
    pub(crate) before: Vec<AliasTarget>,
    pub(crate) plan: RolloutPlan,
    pub(crate) state: RolloutState,
    /// The key that asked; empty for the server.
    pub(crate) by: String,
    /// When, milliseconds since 1970.
    pub(crate) started: i64,
}

impl Rollout {
    /// The versions that the alias pointed at.
    pub(crate) fn old(&self, cell: &Cell) -> Vec<VersionId> {
        let serving = cell.serving().id;
        self.before.iter().map(|target| target.revision.unwrap_or(serving)).collect()
    }
}

pub(crate) type RolloutKey = (FunctionName, AliasName);

/// The rollouts of all functions: the last one of each alias.
#[derive(Debug, Default)]
pub(crate) struct Rollouts {
    pub(crate) all: Mutex<BTreeMap<RolloutKey, RolloutEntry>>,
    pub(crate) changed: Notify,
}

/// The last rollout of an alias, in memory.
#[derive(Debug, Clone)]
pub(crate) struct RolloutEntry {
    pub(crate) rollout: Rollout,
    /// What had been counted of both when the step began.
    pub(crate) base: [Evidence; 2],
    /// Until when the old version's instances are kept, once the new one has everything.
    pub(crate) keep_until: Option<i64>,
}
