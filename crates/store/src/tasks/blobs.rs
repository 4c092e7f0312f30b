//! What is too large for a row: files named by the SHA-256 of their content, synced before a row refers to them.
//!
//! How often a file is referred to is counted in the database, in the transaction that changes the referring row. A file
//! goes after the commit that took its last reference, unless somebody is about to refer to it (a pin) or a backup is
//! being made (a hold).

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};

/// What is larger goes into a file of its own, bytes.
pub(crate) const INLINE: usize = 64 << 10;

/// The files of a store. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    folder: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    pins: HashMap<String, u32>,
    holds: u32,
    /// What lost its last reference while it was pinned or held.
    doomed: Vec<String>,
}

/// Keeps a file until the row that refers to it is committed.
#[derive(Debug)]
pub(crate) struct Pin {
    blobs: Blobs,
    /// The file's name.
    pub(crate) hash: String,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut shared = self.blobs.lock();
        if let Some(count) = shared.pins.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                shared.pins.remove(&self.hash);
            }
        }
    }
}

/// Keeps all files for as long as it lives.
#[derive(Debug)]
pub struct BlobRetention(Blobs);

impl BlobRetention {
    /// The folder with the files.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }
}

impl Drop for BlobRetention {
    fn drop(&mut self) {
        self.0.lock().holds -= 1;
    }
}

impl Blobs {
    /// Files in this folder, which is made if need be.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => {
                other?;
                sync_folder(parent(folder))?;
            }
        }
        Ok(Self { folder: folder.to_owned(), shared: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock()
    }

    /// Writes a file and pins it; file and folder are synced. One that exists may be another caller's of this moment, so
    /// the folder is synced even then.
    pub(crate) fn put(&self, bytes: &[u8]) -> io::Result<Pin> {
        let hash = HEXLOWER.encode(&Sha256::digest(bytes));
        *self.lock().pins.entry(hash.clone()).or_default() += 1;
        let pin = Pin { blobs: self.clone(), hash };
        let path = self.folder.join(&pin.hash);
        if !fs::metadata(&path).is_ok_and(|file| file.len() == bytes.len() as u64) {
            let new = self.folder.join(format!("new-{:032x}", kip_host::random::unique()));
            let written = write_synced(&new, bytes).and_then(|()| fs::rename(&new, &path));
            if let Err(error) = written {
                let _ = fs::remove_file(&new);
                return Err(error);
            }
        }
        sync_folder(&self.folder)?;
        Ok(pin)
    }

    /// How large a file is; 0 if it is not there.
    pub(crate) fn bytes_of(&self, hash: &str) -> u64 {
        fs::metadata(self.folder.join(hash)).map_or(0, |about| about.len())
    }

    /// What a file holds.
    pub(crate) fn get(&self, hash: &str) -> io::Result<Bytes> {
        fs::read(self.folder.join(hash)).map(Bytes::from)
    }

    /// Removes files that nothing refers to any more, and those that had to stay before. Called by the thread that commits:
    /// a new reference can only have come in through it, or be on its way under a pin.
    pub(crate) fn remove(&self, hashes: Vec<String>, is_referred_to: impl Fn(&str) -> bool) {
        let mut shared = self.lock();
        let mut doomed = std::mem::take(&mut shared.doomed);
        doomed.extend(hashes);
        for hash in doomed {
            if shared.holds > 0 || shared.pins.contains_key(&hash) {
                shared.doomed.push(hash);
            } else if !is_referred_to(&hash) {
                let _ = fs::remove_file(self.folder.join(hash));
            }
        }
    }

    /// Keeps all files until the answer is dropped.
    pub(crate) fn hold(&self) -> BlobRetention {
        self.lock().holds += 1;
        BlobRetention(self.clone())
    }

    /// Removes what no row refers to: files whose row was never committed. Only before anybody else uses the store.
    pub(crate) fn sweep(&self, is_known: impl Fn(&str) -> bool) -> io::Result<u64> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_str().is_some_and(&is_known) {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A new or renamed file is only there after a loss of power if its folder was synced.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}
