//! The handle, and what is behind it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kip_control::Control;
use kip_tasks::Tasks;

use crate::queue::DeliveryQueue;
use crate::timers::Jobs;

/// What bounds deliveries.
#[derive(Debug, Clone)]
pub struct Options {
    /// Attempts of a delivery end after this.
    pub delivery: Duration,
    /// A file of certificates that webhooks are trusted by; none is those of the system.
    pub ca: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { delivery: Duration::from_secs(kip_tasks::config::DAY), ca: None }
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) control: Control,
    pub(crate) tasks: Tasks,
    pub(crate) options: Options,
    pub(crate) queue: DeliveryQueue,
    pub(crate) jobs: Jobs,
}

/// Schedules and deliveries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    pub(crate) shared: Arc<Shared>,
}
