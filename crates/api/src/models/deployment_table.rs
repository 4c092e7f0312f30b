//! Deployments of models since the server started, and how far each has come.

use std::collections::BTreeMap;

use kip_wire::{DeploymentPhase, ModelDeploymentInfo};
use parking_lot::Mutex;

/// Deployments that are over and still shown.
const SHOWN: usize = 50;
/// The deployments since the server started.
#[derive(Debug, Default)]
pub(super) struct Deployments {
    all: Mutex<BTreeMap<u64, ModelDeploymentInfo>>,
}

impl Deployments {
    /// One by its number.
    pub(super) fn find(&self, id: u64) -> Option<ModelDeploymentInfo> {
        self.all.lock().get(&id).cloned()
    }

    /// All, newest first.
    pub(super) fn list(&self) -> Vec<ModelDeploymentInfo> {
        self.all.lock().values().rev().cloned().collect()
    }

    pub(super) fn begin(&self, source: String) -> ModelDeploymentInfo {
        let mut all = self.all.lock();
        let id = all.last_key_value().map_or(1, |(last, _)| last + 1);
        let over: Vec<u64> = all.values().filter(|one| is_over(one)).map(|one| one.id).collect();
        for old in &over[..over.len().saturating_sub(SHOWN)] {
            all.remove(old);
        }
        let info = ModelDeploymentInfo {
            id,
            source,
            phase: DeploymentPhase::Planning,
            plan: None,
            received: 0,
            total: 0,
            deployed: None,
            question: None,
            warnings: Vec::new(),
            error: None,
        };
        all.insert(id, info.clone());
        info
    }

    pub(super) fn change(&self, id: u64, change: impl FnOnce(&mut ModelDeploymentInfo)) {
        if let Some(info) = self.all.lock().get_mut(&id) {
            change(info);
        }
    }
}

fn is_over(info: &ModelDeploymentInfo) -> bool {
    matches!(info.phase, DeploymentPhase::Deployed | DeploymentPhase::Failed)
}
