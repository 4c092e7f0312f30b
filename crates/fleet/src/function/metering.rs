//! What scaling policies are told of requests: how many there are, from one step to the next.

use kip_spec::VersionId;

use super::FunctionCore;
use crate::scaler::{Load, Scaler};

impl FunctionCore {
    /// Whether some policy counts requests.
    pub(super) fn counts_requests(&self) -> bool {
        !self.provisions.is_empty() || self.revisions.values().any(|revision| revision.scaler.counts())
    }

    /// Whether counting alone may bring a decision forward. `auto` sets its time when it decides, and then the timer is set anyway.
    pub(super) fn counting_sets_timers(&self) -> bool {
        !self.provisions.is_empty() || self.revisions.values().any(|revision| revision.scaler.knative().is_some())
    }

    /// What a version has to do now.
    pub(super) fn load(&mut self, version: VersionId) -> Load {
        self.refresh();
        let Some(revision) = self.revisions.get(&version).filter(|revision| revision.scaler.counts()) else {
            return Load::default();
        };
        let waiting = revision.queue.depth().saturating_add(self.tasks_waiting(version).count);
        let totals = self.instances.totals(version);
        let in_flight = totals.in_flight;
        let requests = waiting.saturating_add(in_flight);
        Load { requests, in_flight, arrivals: revision.arrivals, ready: totals.hot - totals.unready }
    }

    /// Before anything changes: up to now it was as it is still noted.
    pub(super) fn count_until(&mut self, now: u64) {
        self.provisions.iter_mut().for_each(|provisioned| provisioned.count(now));
    }

    /// After everything has changed: from now on it is so.
    pub(super) fn count_from(&mut self, now: u64) {
        let versions = self.versions();
        for version in versions.iter().copied() {
            let load = self.load(version);
            if let Some(revision) = self.revisions.get_mut(&version).filter(|revision| revision.scaler.counts()) {
                revision.scaler.observe(now, load);
            }
        }
        self.scratch.versions = versions;
        self.count_provisioned(now);
    }
}
