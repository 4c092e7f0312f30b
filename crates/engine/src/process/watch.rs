//! The ends of processes that are not our children: a process file descriptor becomes readable when its process ends.

use std::io;
use std::sync::Arc;

use kip_spec::InstanceId;
use rustix::process::{Pid, PidfdFlags};
use tokio::sync::{mpsc, watch};

use super::unsafe_readable::readable;
use crate::body::Ended;

/// Watches the main process of an instance that an earlier server started, and reports its end to both. Whether it ended
/// by itself or by a signal only its parent is told.
pub(super) fn adopted(
    instance: InstanceId,
    process: u32,
    ended: watch::Sender<Option<Ended>>,
    report: mpsc::Sender<Ended>,
    out_of_memory: impl Fn() -> Option<u64> + Send + 'static,
) -> io::Result<()> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    let descriptor = readable(Arc::new(descriptor))?;
    kip_host::tasks::spawn("wait for adopted instance", async move {
        if let Err(error) = descriptor.readable().await {
            tracing::error!(%instance, %error, "its end will not be noticed");
            return;
        }
        let end = Ended { instance, code: None, signal: None, out_of_memory: out_of_memory() };
        let _ = ended.send(Some(end));
        let _ = report.send(end).await;
    });
    Ok(())
}
