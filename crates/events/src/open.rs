//! Opens the room.

use std::sync::Arc;

use kip_control::Control;
use kip_tasks::Tasks;

use crate::error::Error;
use crate::queue::DeliveryQueue;
use crate::service::{Events, Options, Shared};
use crate::timers::Jobs;

impl Events {
    /// Opens the room on the current runtime: deliveries that an earlier server left are sent, and schedules begin.
    ///
    /// # Errors
    /// What the store says.
    pub async fn open(control: Control, tasks: Tasks, options: Options) -> Result<Self, Error> {
        let (jobs, unreadable) = Jobs::read(tasks.timers().await?);
        for timer in unreadable {
            control.report(format!("{timer} is stored in a form that this version cannot read, and does not hold"));
        }
        let shared = Arc::new(Shared { control, tasks, options, queue: DeliveryQueue::default(), jobs });
        crate::deliveries::start(&shared);
        crate::jobs::start(&shared);
        Ok(Self { shared })
    }
}
