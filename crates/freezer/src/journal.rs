//! What must be written down before each step, so that whoever comes after a crash knows what may have been done.
//!
//! An entry is written *before* its step and says what is about to happen; the one before it is replaced. It need not be
//! synced: processes die with the host, so an entry that a power cut took away speaks of nobody.

use async_trait::async_trait;
use kip_spec::InstanceId;
use serde::{Deserialize, Serialize};

/// A process of a tree. The number alone may be given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Its process id.
    pub pid: u32,
    /// When it was started, in the kernel's ticks since boot.
    pub started: u64,
}

impl Member {
    /// The process of this id as it is now; `None` if there is none.
    pub fn now(pid: u32) -> Option<Self> {
        let process = kip_host::processes::look(pid).filter(|process| !process.has_ended())?;
        Some(Self { pid, started: process.started })
    }

    /// Whether it still lives.
    pub fn lives(self) -> bool {
        Self::now(self.pid) == Some(self)
    }
}

/// What is about to be done, or was last done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// All are being locked; nothing was given up yet.
    Locking,
    /// All are locked and are being checkpointed. From here on an abort costs the instance.
    Checkpointing,
    /// All are checkpointed, and that was verified.
    Parked,
    /// All are being restored. This is never done twice.
    Restoring,
    /// All were restored and are being unlocked.
    Unlocking,
    /// The tree is frozen once more only so that it can be killed without harm to the host.
    Retiring,
}

/// One entry: all that recovery needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The instance.
    pub instance: InstanceId,
    /// The number of the operation; what is observed of an older one is out of date.
    pub operation: u64,
    /// What is about to be done.
    pub step: Step,
    /// The processes that use CUDA, all of them.
    pub members: Vec<Member>,
    /// The devices that they use, by UUID.
    pub devices: Vec<String>,
    /// What the tree held on them before it was frozen; what a wake must reserve.
    pub bytes: u64,
    /// Whether it was ever restored: then it is retired before it is killed.
    pub was_restored: bool,
    /// The host's boot, without which process ids and times mean nothing.
    pub boot_id: String,
    /// When the step is given up, in boot-time milliseconds. Until then it may still be going on inside the processes,
    /// though its server and helper are gone.
    pub until: u64,
}

/// Where entries are kept.
#[async_trait]
pub trait Journal: Sync {
    /// Replaces the entry of the instance.
    async fn write(&self, entry: &Entry) -> Result<(), String>;
}

/// A journal for work that nobody would recover: the processes are one's own and end with it.
#[derive(Debug, Clone, Copy)]
pub struct NullJournal;

#[async_trait]
impl Journal for NullJournal {
    async fn write(&self, _: &Entry) -> Result<(), String> {
        Ok(())
    }
}
