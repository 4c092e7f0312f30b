//! What the next server cannot see of an instance: a small file in the instance's folder. It is a hint: what is found of
//! the processes themselves decides. It is not synced, because instances do not outlive their host either.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kip_spec::function::{Stop, StopTarget};
use kip_spec::{FunctionName, VersionId};
use serde::{Deserialize, Serialize};

use super::limits;

/// The file's name.
const FILE: &str = "journal.json";
/// Bytes of it at most.
const LARGEST: u64 = 4 << 20;

/// How far an instance had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// Started, not ready.
    Starting,
    /// Its probe succeeded.
    Ready,
    /// Its initialize hook succeeded as well.
    Initialized,
    /// It was told to end.
    Ending,
}

/// A stop that is under way: the next server goes on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StopRecord {
    /// The signal and its target, as ordered.
    pub(super) stop: Stop,
    /// The whole grace, milliseconds.
    pub(super) grace: u64,
    /// Which processes got the signal; none before it was sent, while a hook is called.
    pub(super) to: Option<StopTarget>,
    /// When the grace is over, boot time, once the signal was sent.
    pub(super) until: u64,
    /// What was left after the end of the main process got its SIGTERM.
    pub(super) rest_signalled: bool,
}

/// What is written down of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The host's boot that it belongs to.
    pub(super) host_boot: String,
    pub(super) function: FunctionName,
    pub(super) version: VersionId,
    /// Its main process.
    pub(super) process: u32,
    /// When that was started, in the kernel's ticks; another process of the same id is a stranger.
    pub(super) started: u64,
    pub(super) port: u16,
    /// Further ones, by the names that its function gives them.
    #[serde(default)]
    pub(super) more_ports: Vec<u16>,
    pub(super) cgroup: Option<PathBuf>,
    /// Where it was started, as it sees it.
    #[serde(default)]
    pub(super) directory: Option<PathBuf>,
    /// Folders in other hierarchies, for limits.
    #[serde(default)]
    pub(super) limits: Vec<PathBuf>,
    /// Its memory limit in bytes, where it is enforced.
    #[serde(default)]
    pub(super) memory: Option<u64>,
    /// The names of its devices.
    #[serde(default)]
    pub(super) devices: Vec<String>,
    /// Whether it must be initialized before it may serve.
    pub(super) initialize: bool,
    pub(super) stage: Stage,
    /// Its end was asked for.
    #[serde(default)]
    pub(super) ending: Option<StopRecord>,
    /// Where it listens, once ready.
    pub(super) address: Option<SocketAddr>,
    /// The Unix socket that it listens on, in the place of an address.
    #[serde(default)]
    pub(super) socket: Option<PathBuf>,
    /// Who it is, where its function names a user.
    #[serde(default)]
    pub(super) user: Option<String>,
    /// The number of its function.
    #[serde(default)]
    pub(super) owner: u64,
    /// What the control room wants to be told again.
    #[serde(default)]
    pub(super) memo: String,
    /// What hooks are called with.
    pub(super) headers: Vec<(String, String)>,
}

impl Journal {
    /// Reads an instance's journal; none if there is none that can be understood.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&kip_host::directory::read_regular(&folder.join(FILE), LARGEST).ok()?).ok()
    }

    /// Writes it down for the next server.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        kip_host::directory::write_unsynced(&folder.join(FILE), &text)
    }

    /// Every cgroup that is its own.
    pub(super) fn cgroups(&self) -> Vec<&Path> {
        self.cgroup.iter().chain(&self.limits).map(PathBuf::as_path).collect()
    }

    /// Its memory limit, if it was ended for reaching it.
    pub(super) fn out_of_memory(&self) -> Option<u64> {
        self.memory.filter(|_| limits::out_of_memory(&self.cgroups()) > 0)
    }

    /// Whether it had come as far as serving requests, and nobody has told it to end since.
    pub(super) fn may_serve(&self) -> bool {
        match self.stage {
            Stage::Initialized => true,
            Stage::Ready => !self.initialize,
            Stage::Starting | Stage::Ending => false,
        }
    }

    /// The step in which its server ended, in words.
    pub(super) fn caught_in(&self) -> &'static str {
        match self.stage {
            Stage::Starting => "it was starting when its server ended",
            Stage::Ready => "it was being initialized when its server ended",
            Stage::Ending => "it was being stopped when its server ended",
            Stage::Initialized => "it was serving when its server ended",
        }
    }
}
