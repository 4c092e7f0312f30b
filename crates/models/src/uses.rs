//! When models were used and how long they took to load, kept in one file beside the records. A loss of it costs figures and the order of evictions,
//! nothing else: it is written without a sync, at most once in a round.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use kip_wire::{ModelLoads, ModelTier};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Bytes of the file that are read at most.
const LARGEST: u64 = 64 << 20;

/// What is known of the use of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelUse {
    /// When an instance was last started from it, milliseconds since 1970; 0 for never.
    pub used: i64,
    /// Starts, by where the files were.
    pub loads: ModelLoads,
}

/// The uses of all models, by the key of their record.
#[derive(Debug)]
pub(crate) struct UseBook {
    file: PathBuf,
    all: Mutex<BTreeMap<String, ModelUse>>,
    changed: AtomicBool,
}

impl UseBook {
    /// Opens the book; without a file that can be read, it is empty. Blocks.
    pub(crate) fn open(file: PathBuf) -> Self {
        let bytes = kip_host::directory::read_regular(&file, LARGEST).ok();
        let all = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { file, all: Mutex::new(all), changed: AtomicBool::new(false) }
    }

    pub(crate) fn of(&self, key: &str) -> ModelUse {
        self.all.lock().get(key).copied().unwrap_or_default()
    }

    /// An instance is started from the model.
    pub(crate) fn used(&self, key: &str, now: i64) {
        self.all.lock().entry(key.to_owned()).or_default().used = now;
        self.changed.store(true, Ordering::Relaxed);
    }

    /// An instance was ready `took` milliseconds after the order to start it.
    pub(crate) fn loaded(&self, key: &str, tier: ModelTier, took: u64) {
        let mut all = self.all.lock();
        let loads = &mut all.entry(key.to_owned()).or_default().loads;
        let figures = match tier {
            ModelTier::Memory => &mut loads.memory,
            ModelTier::Disk => &mut loads.disk,
            ModelTier::Remote => &mut loads.remote,
        };
        figures.starts = figures.starts.saturating_add(1);
        figures.total_ms = figures.total_ms.saturating_add(took);
        self.changed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn forget(&self, key: &str) {
        self.all.lock().remove(key);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Writes the book if something changed. Blocks.
    pub(crate) fn write(&self) {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return;
        }
        let text = serde_json::to_vec(&*self.all.lock()).unwrap_or_default();
        if let Err(error) = kip_host::directory::write_unsynced(&self.file, &text) {
            tracing::warn!(%error, file = %self.file.display(), "when models were used is not written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_outlive_the_server_and_a_damaged_file_is_an_empty_book() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("uses.json");
        let book = UseBook::open(file.clone());
        book.used("m", 7);
        book.loaded("m", ModelTier::Disk, 1_000);
        book.loaded("m", ModelTier::Disk, 500);
        book.loaded("m", ModelTier::Memory, 20);
        book.write();
        let read = UseBook::open(file.clone()).of("m");
        assert_eq!(read, book.of("m"));
        assert_eq!((read.used, read.loads.disk.starts, read.loads.disk.total_ms), (7, 2, 1_500));
        book.forget("m");
        book.write();
        assert_eq!(UseBook::open(file.clone()).of("m"), ModelUse::default());
        std::fs::write(&file, "{").unwrap();
        assert_eq!(UseBook::open(file).of("m"), ModelUse::default());
    }
}
