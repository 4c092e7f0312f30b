//! What became of a function's deployments.

use kip_spec::VersionId;
use kip_wire::VersionStatus;

/// What became of deployments, the latest few, in the order of versions. Nearly every function has one.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(Vec<(VersionId, VersionStatus)>);

impl Outcomes {
    /// Deployments that are remembered.
    const MOST: usize = 16;

    pub(crate) fn set(&mut self, version: VersionId, status: VersionStatus) {
        match self.0.binary_search_by_key(&version, |(id, _)| *id) {
            Ok(place) => self.0[place].1 = status,
            Err(place) => {
                // No more than is needed: this is held for each of thousands of functions.
                self.0.reserve_exact(1);
                self.0.insert(place, (version, status));
            }
        }
        if self.0.len() > Self::MOST {
            self.0.remove(0);
        }
    }

    /// Candidates have been overtaken.
    pub(crate) fn overtaken(&mut self, by: VersionId) {
        for (_, status) in self.0.iter_mut().filter(|(_, status)| *status == VersionStatus::Candidate) {
            *status = VersionStatus::Replaced { by };
        }
    }

    pub(crate) fn all(&self) -> Vec<(VersionId, VersionStatus)> {
        self.0.clone()
    }
}
