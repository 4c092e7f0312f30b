//! What operators decided about the devices of this host, and how much memory of them versions were measured to use: kept in a file
//! of the data directory, because both belong to the host and not to what is deployed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use kip_spec::VersionId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// The file.
const FILE: &str = "devices.json";
/// The largest file that is read, bytes.
const LARGEST: u64 = 4 << 20;
/// Versions whose sizes are kept; the oldest go first.
const MOST_SIZES: usize = 10_000;
/// What is added to a measured size, as a part of it, and to what it is rounded up, bytes.
const MARGIN: u64 = 16;
const STEP: u64 = 64 << 20;

/// A device that is yielded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Yielded {
    /// Until when, milliseconds since 1970; none is until it is taken back.
    pub until: Option<i64>,
}

/// Limits over all functions that replace those of kipwake.toml. Of each, none keeps the one of kipwake.toml, 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuotaChange {
    /// Devices.
    pub cards: Option<u32>,
    /// Instances.
    pub instances: Option<u32>,
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Content {
    yielded: BTreeMap<String, Yielded>,
    quota: QuotaChange,
    /// Bytes by version.
    sizes: BTreeMap<u64, u64>,
}

/// Yielded devices, the quota and measured sizes.
#[derive(Debug, Default)]
pub(crate) struct DeviceBook {
    file: Option<PathBuf>,
    content: Mutex<Content>,
    pub(crate) changed: Notify,
}

impl DeviceBook {
    /// The one of a data directory; without one, nothing is kept.
    pub(crate) fn open(data: Option<&Path>) -> Self {
        let file = data.map(|data| data.join(FILE));
        let read = |file: &PathBuf| kip_host::directory::read_regular(file, LARGEST).ok();
        let content = file.as_ref().and_then(read).and_then(|bytes| match serde_json::from_slice(&bytes) {
            Ok(content) => Some(content),
            Err(error) => {
                tracing::warn!(%error, "devices.json cannot be read: no device is yielded, and sizes are measured again");
                None
            }
        });
        Self { file, content: Mutex::new(content.unwrap_or_default()), changed: Notify::new() }
    }

    /// The yielded devices, by name.
    pub(crate) fn yielded(&self) -> BTreeMap<String, Yielded> {
        self.content.lock().yielded.clone()
    }

    /// Changes one. True if it was yielded before.
    pub(crate) fn set_yielded(&self, device: &str, yielded: Option<Yielded>) -> io::Result<bool> {
        let before = self.change(|content| match yielded {
            Some(yielded) => content.yielded.insert(device.to_owned(), yielded),
            None => content.yielded.remove(device),
        })?;
        self.changed.notify_one();
        Ok(before.is_some())
    }

    pub(crate) fn quota(&self) -> QuotaChange {
        self.content.lock().quota
    }

    pub(crate) fn set_quota(&self, quota: QuotaChange) -> io::Result<()> {
        self.change(|content| content.quota = quota)
    }

    /// What an instance of a version needs of its device, bytes, if it was measured.
    pub(crate) fn size(&self, version: VersionId) -> Option<u64> {
        self.content.lock().sizes.get(&version.0).copied()
    }

    /// Takes a measurement in. Gives the size from now on, if that has changed.
    pub(crate) fn measured(&self, version: VersionId, held: u64) -> Option<u64> {
        let known = self.size(version);
        if known.is_some_and(|known| held <= known) {
            return None;
        }
        let size = held.saturating_add(held / MARGIN).max(1).next_multiple_of(STEP);
        let kept = self.change(|content| {
            content.sizes.insert(version.0, size);
            while content.sizes.len() > MOST_SIZES {
                content.sizes.pop_first();
            }
        });
        if let Err(error) = kept {
            tracing::warn!(%version, %error, "a measured size is not written down: it is measured again after a restart");
        }
        Some(size)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut content = self.content.lock();
        let mut new = content.clone();
        let result = change(&mut new);
        if let Some(file) = self.file.as_ref().filter(|_| new != *content) {
            kip_host::directory::write_whole(file, &serde_json::to_vec(&new)?)?;
        }
        *content = new;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_decided_and_measured_is_there_after_a_restart() {
        let data = tempfile::tempdir().unwrap();
        let book = DeviceBook::open(Some(data.path()));
        assert!(!book.set_yielded("gpu1", Some(Yielded { until: Some(5) })).unwrap());
        book.set_quota(QuotaChange { cards: Some(2), instances: None }).unwrap();
        let size = book.measured(VersionId(7), 1000 << 20).unwrap();
        assert_eq!(size, 1088 << 20, "a sixteenth more, in steps of 64 MiB");
        assert_eq!(book.measured(VersionId(7), 1070 << 20), None, "it is in the margin");
        let again = DeviceBook::open(Some(data.path()));
        assert_eq!(*again.content.lock(), *book.content.lock());
        assert_eq!(again.size(VersionId(7)), Some(size));
        assert!(again.set_yielded("gpu1", None).unwrap());
        assert_eq!(DeviceBook::open(Some(data.path())).yielded(), BTreeMap::new());
        std::fs::write(data.path().join(FILE), "{").unwrap();
        assert_eq!(DeviceBook::open(Some(data.path())).quota(), QuotaChange::default());
    }

    #[test]
    fn a_version_that_holds_nothing_has_a_size_too() {
        assert_eq!(DeviceBook::default().measured(VersionId(1), 0), Some(STEP));
    }
}
