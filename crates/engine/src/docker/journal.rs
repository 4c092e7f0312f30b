//! How far a container has come: what its labels cannot say because it changes. A small file in the instance's folder, not synced,
//! because containers do not outlive their host either.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use kip_spec::function::StopSignal;
use serde::{Deserialize, Serialize};

/// The file's name.
const FILE: &str = "container.json";
/// Bytes of it at most.
const LARGEST: u64 = 1 << 20;

/// How far an instance had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// Made, not ready.
    #[default]
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
    /// The signal as ordered; none is SIGTERM.
    pub(super) signal: Option<StopSignal>,
    /// The whole grace, milliseconds.
    pub(super) grace: u64,
    /// When it is over, boot time; none before the signal was sent, while a hook is called.
    pub(super) until: Option<u64>,
}

/// What is written down of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The host's boot that it belongs to.
    pub(super) host_boot: String,
    pub(super) stage: Stage,
    /// Its end was asked for.
    pub(super) ending: Option<StopRecord>,
    /// Where it listens, once ready.
    pub(super) address: Option<SocketAddr>,
    /// Its memory limit in bytes.
    pub(super) memory: Option<u64>,
    /// What the control room wants to be told again, where that is not the label's any more.
    #[serde(default)]
    pub(super) memo: Option<String>,
    /// What hooks are called with.
    pub(super) headers: Vec<(String, String)>,
}

impl Journal {
    /// Reads an instance's journal; none if there is none of this boot of the host that can be understood.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let bytes = kip_host::directory::read_regular(&folder.join(FILE), LARGEST).ok()?;
        let journal: Self = serde_json::from_slice(&bytes).ok()?;
        Some(journal).filter(|journal| journal.host_boot == kip_host::clock::boot_id().unwrap_or_default())
    }

    /// Writes it down for the next server.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        kip_host::directory::write_unsynced(&folder.join(FILE), &text)
    }

    /// Why it cannot go on serving; none if it can.
    pub(super) fn unfit(&self, initialize: bool) -> Option<&'static str> {
        match self.stage {
            Stage::Starting => Some("it was starting when its server ended"),
            Stage::Ready if initialize => Some("it was being initialized when its server ended"),
            Stage::Ending => Some("it was being stopped when its server ended"),
            Stage::Ready | Stage::Initialized => None,
        }
    }
}
