//! What room `events` needs of tasks: deliveries that are committed, and what is kept for schedules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kip_store::tasks::{Delivery, DeliveryOutcome, TaskNumber, TaskReader};

use crate::error::Error;
use crate::outbox::TIMER;
use crate::shared::{Receipt, Submission, Tasks};

impl Tasks {
    /// Waits for committed deliveries and takes them. They stay in the store until their outcome is noted.
    pub async fn deliveries(&self) -> Vec<Delivery> {
        let outbox = &self.shared.outbox;
        loop {
            let taken = std::mem::take(&mut *outbox.committed.lock());
            if !taken.is_empty() {
                return taken;
            }
            outbox.more.notified().await;
        }
    }

    /// Notes what became of an attempt. A delivery that is done is forgotten.
    ///
    /// # Errors
    /// What the store says; the delivery may be sent twice for that, never too seldom.
    pub async fn delivered(&self, task: TaskNumber, id: u64, outcome: DeliveryOutcome) -> Result<(), Error> {
        let done = matches!(outcome, DeliveryOutcome::Done { .. });
        let shared = self.shared.clone();
        let unit = self.shared.commits.unit("outcome of a delivery", move |store| async move {
            store.delivered(id, outcome).await?;
            if done {
                shared.outbox.open.fetch_sub(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let noted = unit.await;
        self.shared.tell(task);
        noted
    }

    /// Takes a notification as a task, however large it is: it is made of what was taken before.
    ///
    /// # Errors
    /// As [`Tasks::submit`].
    pub async fn submit_notification(&self, submission: Submission) -> Result<Receipt, Error> {
        self.submit_up_to(submission, usize::MAX).await
    }

    /// Questions to the store.
    pub fn reader(&self) -> Arc<dyn TaskReader> {
        self.shared.commits.reader()
    }

    /// Tasks of a function that are not over.
    pub fn open_tasks(&self, function: &str) -> u64 {
        let counts = self.shared.book().counts(function);
        counts.queued() + counts.running
    }

    /// What is kept for schedules, by job.
    ///
    /// # Errors
    /// What the store says.
    pub async fn timers(&self) -> Result<BTreeMap<String, String>, Error> {
        let rows = self.shared.read().configs().await?;
        let timer =
            |(function, qualifier, text): (String, String, String)| (qualifier == TIMER).then_some((function, text));
        Ok(rows.into_iter().filter_map(timer).collect())
    }

    /// Changes what is kept for a job's schedule. `change` makes the text to store, none forgets it, and a value; after the commit `apply`
    /// brings memory along. Both run in the order of commits, so that no change is made of a state that another one replaces.
    ///
    /// # Errors
    /// What the store says; `apply` is not called then.
    pub async fn keep_timer<T: Send + 'static>(
        &self,
        job: String,
        change: impl FnOnce() -> (Option<String>, T) + Send + 'static,
        apply: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), Error> {
        let unit = self.shared.commits.ordered("timer of a job", move |store| async move {
            let (text, value) = change();
            store.put_config(job, TIMER.to_owned(), text).await?;
            apply(value);
            Ok(())
        });
        unit.await
    }

    /// Whether no more work is begun.
    pub fn is_closing(&self) -> bool {
        self.shared.is_closing()
    }
}
