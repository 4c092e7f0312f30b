//! What scaling policies are told of requests: how many there are, from one step to the next.

use kip_spec::VersionId;

use super::FunctionCore;
use crate::Class;
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
    pub(super) fn load(&self, version: VersionId) -> Load {
        let Some(revision) = self.revisions.get(&version).filter(|revision| revision.scaler.counts()) else {
            return Load::default();
        };
        let waiting = revision.queue.depth().saturating_add(self.tasks_waiting(version).count);
        let mut load = Load { requests: waiting, in_flight: 0, arrivals: revision.arrivals, ready: 0 };
        for instance in self.instances.values().filter(|instance| instance.version == version) {
            load.in_flight = load.in_flight.saturating_add(instance.in_flight);
            load.ready += u32::from(instance.state.class() == Class::Hot && !instance.unready);
        }
        load.requests = load.requests.saturating_add(load.in_flight);
        load
    }

    /// Before anything changes: up to now it was as it is still noted.
    pub(super) fn count_until(&mut self, now: u64) {
        self.provisions.iter_mut().for_each(|provisioned| provisioned.count(now));
    }

    /// After everything has changed: from now on it is so.
    pub(super) fn count_from(&mut self, now: u64) {
        let versions: Vec<VersionId> = self.revisions.keys().copied().collect();
        for version in versions {
            let load = self.load(version);
            if let Some(revision) = self.revisions.get_mut(&version).filter(|revision| revision.scaler.counts()) {
                revision.scaler.observe(now, load);
            }
        }
        self.count_provisioned(now);
    }
}
