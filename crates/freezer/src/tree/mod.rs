//! Whole trees of processes: found, frozen, woken and retired together.
//!
//! All are locked before any is checkpointed, and all are restored before any is unlocked: processes of one engine wait
//! for each other. Whatever goes wrong ends in one of two ways: the tree is unlocked and goes on, or it must die.
//! Processes must run while the driver works, because it works inside them: freeze the GPU first and the CPU second, and
//! wake in the opposite order.

mod freeze;
mod retire;
mod step;
mod wake;

use std::time::Duration;

use kip_host::clock;
use kip_spec::{Code, InstanceId, Problem};
use serde::{Deserialize, Serialize};

use crate::driver::Call;
use crate::error::Error;
use crate::journal::{Entry, Journal, Member, Step};
use crate::locks::DeviceLocks;

pub use freeze::{FreezeOutcome, freeze};
pub use retire::{RetireOutcome, retire};
pub use wake::{WakeOutcome, wake};

const GIB: u64 = 1 << 30;

/// What an operation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The instance.
    pub instance: InstanceId,
    /// The number of the operation.
    pub operation: u64,
    /// Its processes that use CUDA, as [`find`] found them.
    pub members: Vec<Member>,
    /// The devices, by UUID.
    pub devices: Vec<String>,
    /// What it holds, or will hold again, on them together.
    pub bytes: u64,
    /// Whether it was ever restored.
    pub was_restored: bool,
    /// How long steps may take.
    pub limits: Limits,
}

/// How long steps may take, for each process. The defaults are those of the failure table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A lock, by the driver's own timeout.
    pub lock: Duration,
    /// How much longer the helper may take over a lock than that.
    pub lock_grace: Duration,
    /// A checkpoint of nothing.
    pub checkpoint: Duration,
    /// And each GiB of it.
    pub checkpoint_per_gib: Duration,
    /// A restore of nothing.
    pub restore: Duration,
    /// And each GiB of it.
    pub restore_per_gib: Duration,
    /// An unlock.
    pub unlock: Duration,
    /// A question about a state.
    pub look: Duration,
    /// Until NVML must show what was done.
    pub verify: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self {
            lock: 5 * second,
            lock_grace: second,
            checkpoint: second,
            checkpoint_per_gib: second,
            restore: 2 * second,
            restore_per_gib: second / 2,
            unlock: 2 * second,
            look: 2 * second,
            verify: 2 * second,
        }
    }
}

impl Limits {
    /// How long a call on behalf of a process of so many bytes may take.
    pub fn of(&self, call: Call, bytes: u64) -> Duration {
        let gib = u32::try_from(bytes.div_ceil(GIB)).unwrap_or(u32::MAX);
        match call {
            Call::Lock => self.lock.saturating_add(self.lock_grace),
            Call::Checkpoint => self.checkpoint.saturating_add(self.checkpoint_per_gib.saturating_mul(gib)),
            Call::Restore => self.restore.saturating_add(self.restore_per_gib.saturating_mul(gib)),
            Call::Unlock => self.unlock,
            Call::Init | Call::State | Call::RestoreThread => self.look,
        }
    }
}

/// How long each call took, without the way to the helper and back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// All locks.
    pub lock_us: u64,
    /// All checkpoints.
    pub checkpoint_us: u64,
    /// All restores.
    pub restore_us: u64,
    /// All unlocks.
    pub unlock_us: u64,
}

impl Times {
    fn add(&mut self, call: Call, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match call {
            Call::Lock => self.lock_us += took,
            Call::Checkpoint => self.checkpoint_us += took,
            Call::Restore => self.restore_us += took,
            Call::Unlock => self.unlock_us += took,
            Call::Init | Call::State | Call::RestoreThread => {}
        }
    }
}

/// Those of some processes that use CUDA. Asked is whether the driver has a thread to restore them by: a state is told
/// of wrapper processes too, and NVML lists what only watches devices.
///
/// # Errors
/// When the driver cannot tell: then nothing of the tree may be touched.
pub async fn find(desk: &DeviceLocks, processes: &[u32], limit: Duration) -> Result<Vec<Member>, Error> {
    let mut found = Vec::new();
    for process in processes {
        let Some(member) = Member::now(*process) else { continue };
        if desk.uses_cuda(*process, limit).await? {
            found.push(member);
        }
    }
    Ok(found)
}

/// Bytes that these processes hold on these devices, as NVML tells; `None` where it cannot.
pub async fn held(desk: &DeviceLocks, members: &[Member], devices: &[String]) -> Result<Option<u64>, Error> {
    let report = desk.report().await?;
    let there: Vec<_> = report.devices.iter().filter(|device| devices.contains(&device.uuid)).collect();
    // A device that NVML does not show holds nobody knows what.
    if there.len() < devices.len() {
        return Ok(None);
    }
    let mut sum = 0;
    for device in there {
        for holder in device.holders.iter().filter(|holder| members.iter().any(|member| member.pid == holder.pid)) {
            let Some(bytes) = holder.bytes else { return Ok(None) };
            sum += bytes;
        }
    }
    Ok(Some(sum))
}

/// Unlocks whatever of a tree is locked, for a server that did not do that before it ended.
///
/// # Errors
/// When one of its processes stays locked: it must be ended.
pub async fn unlock(desk: &DeviceLocks, order: &Order) -> Result<(), Error> {
    let _turn = desk.turn(&order.devices).await;
    step::unlock_all(desk, order, &mut Times::default()).await
}

/// Writes down what comes next.
async fn note(journal: &dyn Journal, order: &Order, step: Step, limit: Duration) -> Result<(), Error> {
    let entry = Entry {
        instance: order.instance,
        operation: order.operation,
        step,
        members: order.members.clone(),
        devices: order.devices.clone(),
        bytes: order.bytes,
        was_restored: order.was_restored,
        boot_id: clock::boot_id().map_err(|error| Error::Journal(error.to_string()))?,
        until: clock::boot_millis() + u64::try_from(limit.as_millis()).unwrap_or(u64::MAX / 2),
    };
    journal.write(&entry).await.map_err(Error::Journal)
}

/// An end of an operation for people, with the error behind it as its cause.
fn told(code: Code, message: &str, error: &Error) -> Problem {
    let inner = error.problem();
    let cause = inner.cause.map_or_else(|| inner.message.clone(), |cause| format!("{}: {cause}", inner.message));
    Problem::new(code, message).cause(cause).hint("`kip doctor` says what this host can do")
}

/// How long a call may take for all members, one after the other.
fn all(order: &Order, call: Call) -> Duration {
    let members = u32::try_from(order.members.len()).unwrap_or(u32::MAX);
    order.limits.of(call, order.bytes).saturating_mul(members)
}
