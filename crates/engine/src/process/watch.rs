//! The ends of main processes: a process file descriptor becomes readable when its process ends. How it ended only its
//! parent is told, so not of those that an earlier server started.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kip_spec::InstanceId;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};

use super::unsafe_readable::readable;
use crate::body::{BodyEvent, InstanceEnd, Liveness};

/// Who is told of an end.
#[derive(Debug)]
pub(super) struct Watcher<Memory> {
    pub(super) instance: InstanceId,
    pub(super) ended: watch::Sender<Option<InstanceEnd>>,
    pub(super) life: watch::Sender<Liveness>,
    pub(super) report: mpsc::Sender<BodyEvent>,
    pub(super) out_of_memory: Memory,
}

impl<Memory: Fn() -> Option<u64> + Send + Sync + 'static> Watcher<Memory> {
    /// Watches the main process of an instance that an earlier server started.
    pub(super) fn adopted(self, process: u32) -> io::Result<()> {
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let descriptor = open(pid)?;
        kip_host::tasks::spawn("wait for adopted instance", async move {
            match descriptor.readable().await {
                Ok(_) => self.tell((None, None)).await,
                Err(error) => tracing::error!(instance = %self.instance, %error, "its end will not be noticed"),
            }
        });
        Ok(())
    }

    /// Watches a child of ours, and lets the kernel forget it once it has ended.
    pub(super) fn own(self, child: Pid) {
        let end = end_of(child);
        kip_host::tasks::spawn("wait for instance", async move { self.tell(end.await).await });
    }

    async fn tell(&self, (code, signal): (Option<i32>, Option<i32>)) {
        let end = InstanceEnd { instance: self.instance, code, signal, out_of_memory: (self.out_of_memory)() };
        self.life.send_replace(Liveness::Ended);
        let _ = self.ended.send(Some(end));
        let _ = self.report.send(BodyEvent::Ended(end)).await;
    }
}

/// Waits for the end of a child of ours, and lets the kernel forget it. The child is watched from this call on.
pub(super) fn end_of(child: Pid) -> impl Future<Output = (Option<i32>, Option<i32>)> + Send {
    let descriptor = open(child);
    async move {
        let seen = match &descriptor {
            Ok(descriptor) => descriptor.readable().await.is_ok(),
            Err(_) => false,
        };
        if seen { reap(child) } else { on_a_thread(child).await }
    }
}

fn open(process: Pid) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    readable(Arc::new(rustix::process::pidfd_open(process, PidfdFlags::NONBLOCK)?))
}

/// Waits for the end of a child: its exit code, or the signal that ended it.
fn reap(child: Pid) -> (Option<i32>, Option<i32>) {
    let wait = || rustix::process::waitid(WaitId::Pid(child), WaitIdOptions::EXITED);
    let status = rustix::io::retry_on_intr(wait).ok().flatten();
    status.map_or((None, None), |status| (status.exit_status(), status.terminating_signal()))
}

/// For old kernels, and where no file descriptor is left.
async fn on_a_thread(child: Pid) -> (Option<i32>, Option<i32>) {
    let (tell, told) = oneshot::channel();
    let wait = move || {
        let _ = tell.send(reap(child));
    };
    if let Err(error) = kip_host::tasks::thread("wait-instance", wait) {
        tracing::error!(%error, process = child.as_raw_nonzero(), "its end will not be noticed");
        std::future::pending::<()>().await;
    }
    told.await.unwrap_or_default()
}
