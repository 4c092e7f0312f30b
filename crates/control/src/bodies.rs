//! The bodies by pool: what runs the instances of each.

use std::collections::HashMap;
use std::sync::Arc;

use kip_engine::{Adoption, Body, ContainerEngine, Measure};
use kip_fleet::Place;
use kip_spec::InstanceId;

/// The bodies, and which of them runs the instances of each pool of the inventory.
#[derive(Debug, Clone)]
pub struct Bodies {
    local: Arc<dyn Body>,
    /// Each with the number of its pool. A pool without one is this host, or a part of it.
    others: Vec<(u16, Arc<dyn Body>)>,
    /// The first pool that is this host.
    home: u16,
}

impl From<Arc<dyn Body>> for Bodies {
    fn from(local: Arc<dyn Body>) -> Self {
        Self { local, others: Vec::new(), home: 0 }
    }
}

impl Bodies {
    /// The body of one more pool, by the number of that in the inventory.
    #[must_use]
    pub fn with(mut self, pool: u16, body: Arc<dyn Body>) -> Self {
        self.others.push((pool, body));
        self.home = (0..).find(|pool| !self.others.iter().any(|(other, _)| other == pool)).unwrap_or(0);
        self
    }

    /// The body of the pool that a place is in. A pool without one of its own is a part of the local host.
    pub(crate) fn at(&self, place: Place) -> &Arc<dyn Body> {
        self.others.iter().find(|(pool, _)| *pool == place.pool).map_or(&self.local, |(_, body)| body)
    }

    /// Each body with a place in its pool.
    fn all(&self) -> impl Iterator<Item = (Place, &Arc<dyn Body>)> {
        let others = self.others.iter().map(|(pool, body)| (*pool, body));
        let pools = std::iter::once((self.home, &self.local)).chain(others);
        pools.map(|(pool, body)| (Place { pool, ..Place::default() }, body))
    }

    /// Whether two places have the same body.
    pub(crate) fn are_one(&self, a: Place, b: Place) -> bool {
        Arc::ptr_eq(self.at(a), self.at(b))
    }

    /// What all bodies find of earlier servers.
    pub(crate) async fn adopt(&self) -> Vec<(Place, Adoption)> {
        let mut all = Vec::new();
        for (place, body) in self.all() {
            all.push((place, body.adopt().await));
        }
        all
    }

    /// Ends everything that an earlier server left, and says how many instances were still there.
    ///
    /// # Errors
    /// The first instance that could not be ended.
    pub async fn end_left(&self) -> Result<usize, kip_engine::Error> {
        let (mut there, mut failed) = (0, None);
        for (_, body) in self.all() {
            let left = body.adopt().await.found;
            let ending = left.iter().map(|found| body.kill(found.instance));
            let ended = futures_util::future::join_all(ending).await;
            failed = failed.or_else(|| ended.into_iter().find_map(Result::err));
            there += left.iter().filter(|found| found.was_there()).count();
            body.clean_up().await;
        }
        failed.map_or(Ok(there), Err)
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

    /// The engines of the other pools, with the numbers of those.
    pub(crate) fn engines(&self) -> impl Iterator<Item = (u16, &dyn ContainerEngine)> {
        self.others.iter().filter_map(|(pool, body)| Some((*pool, body.engine()?)))
    }

    /// Removes what was made for all instances, once none is left.
    pub(crate) async fn clean_up(&self) {
        for (_, body) in self.all() {
            body.clean_up().await;
        }
    }
}
