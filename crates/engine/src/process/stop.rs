//! How an instance ends, and how we know that nothing of it is left.

use std::time::Duration;

use rustix::process::Signal;

use super::{Process, cgroup, contract, limits, members};
use crate::body::{Error, StopOrder};

/// After SIGKILL the kernel needs a moment, longer if memory must be written or freed.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Process {
    /// Hook, SIGTERM, grace. Returns early when the main process has ended.
    pub(super) async fn end_gently(&self, order: &StopOrder) {
        if self.ended.borrow().is_some() {
            return;
        }
        if let Err(error) = self.thaw() {
            tracing::warn!(instance = %self.id, %error, "it could not be resumed before its stop");
        }
        if let Some(hook) = &order.pre_stop
            && let Err(error) = contract::call_hook(self, "pre_stop", http::Method::GET, hook).await
        {
            tracing::warn!(instance = %self.id, %error, "its stop goes on");
        }
        if self.signal_group(Signal::TERM).is_ok() {
            let mut ended = self.ended.clone();
            let _ = tokio::time::timeout(order.grace.to_std(), ended.wait_for(Option::is_some)).await;
        }
    }

    /// SIGKILL to everything of it, until nothing is left.
    pub(super) async fn end_by_force(&self, server: &str) -> Result<(), Error> {
        let mut pause = Duration::from_millis(1);
        let give_up = tokio::time::timeout(KILL_LIMIT, async {
            loop {
                self.kill_all(server);
                if self.ended.borrow().is_some() && self.leftover(server).is_empty() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        });
        if give_up.await.is_err() {
            return Err(Error::Slow { what: "end", instance: self.id });
        }
        let journal = self.journal.lock();
        if let Some(peak) = limits::peak_memory(&journal.cgroups()) {
            tracing::info!(instance = %self.id, peak_memory = peak, "nothing of it is left");
        }
        journal.cgroups().into_iter().for_each(cgroup::remove);
        Ok(())
    }

    fn kill_all(&self, server: &str) {
        match &self.cgroup {
            // One write ends everything in it, frozen or not, and whatever it forks meanwhile.
            Some(folder) => drop(cgroup::kill(folder)),
            None => {
                if self.ended.borrow().is_none() || !self.members().is_empty() {
                    let _ = self.signal_group(Signal::KILL);
                }
                self.leftover(server).into_iter().for_each(members::kill);
            }
        }
    }

    /// What is still there of it, in its cgroup or, without one, anywhere by the mark in its environment.
    fn leftover(&self, server: &str) -> Vec<u32> {
        match &self.cgroup {
            Some(folder) => cgroup::processes(folder),
            None => members::marked_instance(server, &self.id.to_string()),
        }
    }
}
