//! The one way to change tasks. A change is two steps: the commit, then memory. Both run as one unit in a task of its own, which goes
//! on when its caller leaves. The store's handle is private here and is only given inside such a unit.
//!
//! Units run side by side, because the store commits many changes at once. Memory follows each task in the order of the commits all the
//! same: a step carries its place in that order, and one that memory has passed already changes nothing. Configurations
//! carry no such place; their units run one at a time.

use std::future::Future;
use std::sync::Arc;

use kip_store::detached;
use kip_store::tasks::{TaskReader, TaskStore};
use tokio::sync::Mutex;

/// The store of tasks.
#[derive(Debug)]
pub(crate) struct Commits {
    store: Arc<dyn TaskStore>,
    one_at_a_time: Arc<Mutex<()>>,
}

impl Commits {
    pub(crate) fn new(store: Arc<dyn TaskStore>) -> Self {
        Self { store, one_at_a_time: Arc::default() }
    }

    /// Questions.
    pub(crate) fn read(&self) -> &dyn TaskReader {
        self.store.as_ref()
    }

    /// Questions for a task that outlives its caller.
    pub(crate) fn reader(&self) -> Arc<dyn TaskReader> {
        self.store.clone()
    }

    /// Runs a unit. Dropping the returned future only gives up the answer.
    pub(crate) async fn unit<T, F, W>(&self, name: &'static str, work: W) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        W: FnOnce(Arc<dyn TaskStore>) -> F + Send + 'static,
    {
        detached(name, work(self.store.clone())).await
    }

    /// The same, one unit at a time.
    pub(crate) async fn ordered<T, F, W>(&self, name: &'static str, work: W) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        W: FnOnce(Arc<dyn TaskStore>) -> F + Send + 'static,
    {
        let (store, order) = (self.store.clone(), self.one_at_a_time.clone());
        let unit = async move {
            let _order = order.lock().await;
            work(store).await
        };
        detached(name, unit).await
    }
}
