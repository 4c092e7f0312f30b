//! Who gave room up for whom, for as long as the other one does not serve yet: whether that was in vain, and who comes back
//! when it fails.

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use super::Urgency;
use crate::CoreNumber;

/// One instance was asked for its room.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Loss {
    /// Of which function.
    pub(super) function: CoreNumber,
    /// Of which version.
    pub(super) version: VersionId,
    /// Which instance.
    pub(super) instance: InstanceId,
    /// For which other one.
    pub(super) winner: InstanceId,
    /// For what that one asked.
    pub(super) urgency: Urgency,
    /// Its function wanted room again before the winner served.
    pub(super) in_vain: bool,
}

/// All of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Losses(Vec<Loss>);

impl Losses {
    pub(super) fn add(&mut self, loss: Loss) {
        // Asked again for another one: it is lost to that one.
        self.0.retain(|other| other.instance != loss.instance);
        self.0.push(loss);
    }

    /// It keeps its room.
    pub(super) fn declined(&mut self, instance: InstanceId) {
        self.0.retain(|loss| loss.instance != instance);
    }

    /// A function that lost room has requests that wait for it.
    pub(super) fn wanted_back(&mut self, function: CoreNumber) {
        self.0.iter_mut().filter(|loss| loss.function == function).for_each(|loss| loss.in_vain = true);
    }

    /// The function that gave room up for an instance.
    pub(super) fn loser(&self, winner: InstanceId) -> Option<CoreNumber> {
        self.0.iter().find(|loss| loss.winner == winner).map(|loss| loss.function)
    }

    /// The winner serves. Whether any of what it cost was in vain.
    pub(super) fn served(&mut self, winner: InstanceId) -> bool {
        let in_vain = self.0.iter().any(|loss| loss.winner == winner && loss.in_vain);
        self.0.retain(|loss| loss.winner != winner);
        in_vain
    }

    /// The winner is gone. If it was to prove a new version and never served, those that made room for it come back.
    pub(super) fn never_served(&mut self, winner: InstanceId) -> Vec<(CoreNumber, VersionId)> {
        let back = self.0.iter().filter(|loss| loss.winner == winner && loss.urgency == Urgency::Candidate);
        let mut back: Vec<(CoreNumber, VersionId)> = back.map(|loss| (loss.function, loss.version)).collect();
        back.sort_unstable();
        back.dedup();
        self.0.retain(|loss| loss.winner != winner);
        back
    }
}
