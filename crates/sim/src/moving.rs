//! What is known of a rollout in the simulated world, and how one moves.

use std::sync::Arc;

use kip_fleet::rollout::{RolloutLimits, RolloutPlan, RolloutState, WHOLE};
use kip_fleet::{AliasNumber, Policy};
use kip_spec::VersionId;

use crate::random::Random;

/// The alias that moves. Faults point the other one elsewhere.
pub(crate) const MOVING: AliasNumber = AliasNumber(1);
/// A rollout of a function's alias. It is on the disk, and so outlives the server.
#[derive(Debug, Clone)]
pub(crate) struct Rollout {
    pub(crate) state: RolloutState,
    pub(crate) plan: RolloutPlan,
    pub(crate) to: VersionId,
    pub(crate) before: Vec<(VersionId, Arc<Policy>, u32)>,
    pub(crate) policy: Arc<Policy>,
    /// Counts when the step began, of the new version and of the old ones.
    pub(crate) base: [(u64, u64); 2],
    /// Until when the old versions are kept asleep.
    pub(crate) keep_until: Option<u64>,
    /// The share that the alias was given last.
    pub(crate) given: u32,
}

impl Rollout {
    /// Whether it needs a version.
    pub(crate) fn names(&self, version: VersionId) -> bool {
        self.to == version || self.before.iter().any(|(before, ..)| *before == version)
    }

    pub(crate) fn old(&self) -> Vec<VersionId> {
        self.before.iter().map(|(version, ..)| *version).collect()
    }
}

/// How one moves, drawn.
pub(crate) fn plan(random: &mut Random) -> RolloutPlan {
    let steps: &[u32] = random.pick(&[&[100][..], &[50, 100], &[10, 30, 60, 100], &[1, 99, 100]]);
    let errors = random.pick(&[None, Some(20), Some(500)]);
    RolloutPlan {
        steps: steps.iter().map(|share| share * (WHOLE / 100)).collect(),
        every: random.scale(1_000, 30_000),
        keep: random.pick(&[0, 5_000, 60_000]),
        park_old: random.per_mille(500),
        limits: RolloutLimits {
            least: random.scale(1, 50),
            errors,
            slower: errors.map(|_| 100),
            starts: random.pick(&[1, 3, 10]),
        },
    }
}
