//! The bodies by pool: what runs the instances of each.

use std::collections::HashMap;
use std::sync::Arc;

use kip_engine::{Adoption, Body, ContainerEngine, Measure};
use kip_fleet::Place;
use kip_spec::InstanceId;

/// A body for each pool, in the order of the inventory.
#[derive(Debug, Clone)]
pub struct Bodies {
    local: Arc<dyn Body>,
    others: Vec<Arc<dyn Body>>,
}

impl From<Arc<dyn Body>> for Bodies {
    fn from(local: Arc<dyn Body>) -> Self {
        Self { local, others: Vec::new() }
    }
}

impl Bodies {
    /// One more pool, behind those there are.
    #[must_use]
    pub fn with(mut self, body: Arc<dyn Body>) -> Self {
        self.others.push(body);
        self
    }

    /// The body of the pool that a place is in. A pool without one of its own is a part of the local host.
    pub(crate) fn at(&self, place: Place) -> &Arc<dyn Body> {
        usize::from(place.pool).checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.local)
    }

    /// Each body with a place in its pool.
    fn all(&self) -> impl Iterator<Item = (Place, &Arc<dyn Body>)> {
        let pools = std::iter::once(&self.local).chain(&self.others);
        pools.zip(0..).map(|(body, pool)| (Place { pool, ..Place::default() }, body))
    }

    /// What all bodies find of earlier servers.
    pub(crate) async fn adopt(&self) -> Vec<(Place, Adoption)> {
        let mut all = Vec::new();
        for (place, body) in self.all() {
            all.push((place, body.adopt().await));
        }
        all
    }

    /// Waits until what a function's instances, or one of them, wrote up to now is in the log store.
    pub(crate) async fn settle_logs(&self, function: &str, instance: Option<InstanceId>) {
        for (_, body) in self.all() {
            body.settle_logs(function, instance).await;
        }
    }

    /// Measures instances, whichever bodies they have.
    pub(crate) async fn measure(&self, instances: &[InstanceId], what: Measure) -> HashMap<InstanceId, u64> {
        let mut measured = HashMap::new();
        for (_, body) in self.all() {
            measured.extend(body.measure(instances, what).await);
        }
        measured
    }

    /// The processes of instances that are processes of this host. May read much of `/proc`.
    pub(crate) fn members(&self, instances: &[InstanceId]) -> HashMap<InstanceId, Vec<u32>> {
        self.all().filter_map(|(_, body)| body.local()).flat_map(|local| local.members(instances)).collect()
    }

    /// The main process of an instance that is a process of this host.
    pub(crate) fn process(&self, instance: InstanceId) -> Option<u32> {
        self.all().find_map(|(_, body)| body.local()?.process(instance))
    }

    /// The container engine of this host; none where no body has one.
    pub(crate) fn engine(&self) -> Option<&dyn ContainerEngine> {
        self.local.engine()
    }

    /// Removes what was made for all instances, once none is left.
    pub(crate) async fn clean_up(&self) {
        for (_, body) in self.all() {
            body.clean_up().await;
        }
    }
}
