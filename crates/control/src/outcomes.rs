//! What became of a function's deployments.

use kip_spec::VersionId;
use kip_wire::VersionStatus;

/// What became of deployments, the latest few, in the order of versions. Nearly every function has one.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(Vec<DeploymentOutcome>);

#[derive(Debug)]
struct DeploymentOutcome {
    version: VersionId,
    /// The place of the revision among those of its function; 0 if nobody said.
    ordinal: u64,
    status: VersionStatus,
}

impl Outcomes {
    /// Deployments that are remembered.
    const MOST: usize = 16;

    pub(crate) fn set(&mut self, version: VersionId, ordinal: u64, status: VersionStatus) {
        match self.0.binary_search_by_key(&version, |known| known.version) {
            Ok(place) => self.0[place].status = status,
            Err(place) => {
                // No more than is needed: this is held for each of thousands of functions.
                self.0.reserve_exact(1);
                self.0.insert(place, DeploymentOutcome { version, ordinal, status });
            }
        }
        if self.0.len() > Self::MOST {
            self.0.remove(0);
        }
    }

    /// Candidates have been overtaken.
    pub(crate) fn overtaken(&mut self, by: VersionId) {
        for known in self.0.iter_mut().filter(|known| known.status == VersionStatus::Candidate) {
            known.status = VersionStatus::Replaced { by };
        }
    }

    pub(crate) fn all(&self) -> Vec<(VersionId, VersionStatus)> {
        self.0.iter().map(|known| (known.version, known.status.clone())).collect()
    }

    /// What became of a version.
    pub(crate) fn of(&self, version: VersionId) -> Option<&VersionStatus> {
        self.0.iter().find(|known| known.version == version).map(|known| &known.status)
    }

    /// The ordinal of a version that may be gone.
    pub(crate) fn ordinal(&self, version: VersionId) -> Option<u64> {
        self.0.iter().find(|known| known.version == version).map(|known| known.ordinal).filter(|ordinal| *ordinal > 0)
    }

    pub(crate) fn versions(&self) -> impl Iterator<Item = VersionId> {
        self.0.iter().map(|known| known.version)
    }
}
