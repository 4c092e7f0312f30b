//! What others ask of a function's core. Nothing here changes what it decides.

use kip_fleet::{Class, FunctionCore, Now, Place, Recording, Ticket};
use kip_spec::{InstanceId, VersionId};

use super::Cell;

impl Cell {
    /// Whether the version that serves is a job.
    pub(crate) fn is_job(&self) -> bool {
        self.lock().serving().spec.job.is_some()
    }

    /// Whether it has an instance.
    pub(crate) fn has(&self, instance: InstanceId) -> bool {
        self.look(&self.lock(), |core| core.instance(instance).is_some()).unwrap_or(false)
    }

    /// Whether one of its instances is hot.
    pub(crate) fn has_hot(&self) -> bool {
        let hot = |core: &FunctionCore| core.instances().any(|instance| instance.state.class() == Class::Hot);
        self.look(&self.lock(), hot).unwrap_or(false)
    }

    /// The revisions of which instances live.
    pub(crate) fn living_versions(&self) -> Vec<VersionId> {
        let inner = self.lock();
        let mut living: Vec<VersionId> = inner.links.values().map(|link| link.version.id).collect();
        living.sort_unstable();
        living.dedup();
        living
    }

    /// Whether some instance is neither asleep nor gone.
    pub(crate) fn is_awake(&self) -> bool {
        let any = |core: &FunctionCore| core.instances().any(|instance| instance.state.class() != Class::Asleep);
        self.look(&self.lock(), any).unwrap_or(false)
    }

    /// What its policy has learnt of the traffic, if it learns.
    pub(crate) fn history(&self, now: Now) -> Option<kip_fleet::History> {
        self.lock().host.history(now)
    }

    /// Records what is handed to what decides, and what is decided, from here on; or ends that. False if there was nothing to end.
    pub fn record(&self, on: bool) -> bool {
        let mut inner = self.lock();
        if !on {
            return inner.host.end_recording();
        }
        inner.host.record();
        true
    }

    /// What was recorded, if anything is.
    pub fn recording(&self) -> Option<Recording> {
        self.lock().host.recording().cloned()
    }

    /// Requests that instances have.
    pub(crate) fn in_flight(&self) -> u32 {
        let sum = |core: &FunctionCore| core.instances().map(|instance| instance.in_flight).sum();
        self.look(&self.lock(), sum).unwrap_or(0)
    }

    /// Where an instance is; the local pool, if the function does not know it.
    pub(crate) fn place_of(&self, instance: InstanceId) -> Place {
        let place = self.look(&self.lock(), |core| core.instance(instance).map(|instance| instance.place));
        place.flatten().unwrap_or_default()
    }

    /// Whether a request still has its place on an instance.
    pub(crate) fn is_placed(&self, ticket: Ticket) -> bool {
        self.look(&self.lock(), |core| core.is_placed(ticket)).unwrap_or(false)
    }

    /// Whether nothing of a closed function is left.
    pub(crate) fn is_finished(&self) -> bool {
        let inner = self.lock();
        inner.closing && inner.host.core().is_none_or(|core| core.instances().next().is_none())
    }
}
