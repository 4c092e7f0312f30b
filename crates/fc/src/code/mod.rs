//! Code of functions: archives as they were sent, and the trees that instances run, each by the digest of its archive.

pub(crate) mod archive;
mod crc64;
mod merge;
pub(crate) mod ports;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::bootstrap;

use self::archive::{ArchiveError, unpack};
use self::crc64::crc64;

/// Names of folders that are being made begin so.
const STAGED: &str = ".new-";
/// The folder of uploads that no function names yet.
pub(crate) const UPLOADS: &str = ".uploads";

/// The code of a server's functions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct CodeStore {
    folder: PathBuf,
    /// Kept and not named by a revision yet.
    pending: Arc<Mutex<BTreeSet<String>>>,
}

/// Code that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodeInfo {
    /// The digest of its archive, by which it is kept.
    pub(crate) sha256: String,
    /// Bytes of the archive.
    pub(crate) size: u64,
    /// CRC-64 of the archive, in decimal digits.
    pub(crate) checksum: String,
}

/// The CRC-64 of an archive, in decimal digits.
pub(crate) fn checksum(archive: &[u8]) -> String {
    crc64(archive).to_string()
}

impl CodeStore {
    /// In this folder of the data directory, which is made.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        kip_host::directory::create_private(&folder)?;
        Ok(Self { folder, pending: Arc::default() })
    }

    /// The tree of an archive.
    pub(crate) fn tree(&self, sha256: &str) -> PathBuf {
        self.folder.join(sha256).join("tree")
    }

    /// The archive itself.
    pub(crate) fn archive(&self, sha256: &str) -> PathBuf {
        self.folder.join(sha256).join("archive.zip")
    }

    /// Keeps an archive: unpacked beside, synced, then renamed, so that a tree is there whole or not at all.
    pub(crate) async fn keep(&self, archive: Bytes) -> Result<CodeInfo, ArchiveError> {
        let store = self.clone();
        let kept = kip_host::tasks::blocking("unpack code", move || store.keep_now(&archive)).await;
        kept.unwrap_or_else(|| Err(ArchiveError("the server is about to end".to_owned())))
    }

    fn keep_now(&self, archive: &[u8]) -> Result<CodeInfo, ArchiveError> {
        let sha256 = HEXLOWER.encode(&Sha256::digest(archive));
        let info = CodeInfo { size: archive.len() as u64, checksum: checksum(archive), sha256: sha256.clone() };
        self.pending.lock().insert(sha256.clone());
        let place = self.folder.join(&sha256);
        if place.is_dir() {
            return Ok(info);
        }
        let staged = self.folder.join(format!("{STAGED}{:032x}", kip_host::random::bits()));
        let made = self.stage(archive, &staged).and_then(|()| match fs::rename(&staged, &place) {
            // Somebody else kept the same in this moment.
            Err(_) if place.is_dir() => Ok(fs::remove_dir_all(&staged)?),
            other => Ok(other?),
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&staged);
            self.release(&sha256);
        }
        made.map(|()| info)
    }

    fn stage(&self, archive: &[u8], staged: &Path) -> Result<(), ArchiveError> {
        kip_host::directory::create_private(staged)?;
        // Whoever runs the tree may pass through.
        fs::set_permissions(staged, fs::Permissions::from_mode(0o711))?;
        let tree = staged.join("tree");
        kip_host::directory::create_private(&tree)?;
        unpack(archive, &tree)?;
        if tree.join(bootstrap::FOLDER).exists() {
            return Err(ArchiveError(format!("`{}` is a name that Kipwake uses", bootstrap::FOLDER)));
        }
        bootstrap::write(&tree)?;
        let file = staged.join("archive.zip");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        io::Write::write_all(&mut file, archive)?;
        drop(file);
        rustix::fs::syncfs(fs::File::open(staged)?).map_err(io::Error::from)?;
        Ok(())
    }

    /// A revision names it now, or it is not needed.
    pub(crate) fn release(&self, sha256: &str) {
        self.pending.lock().remove(sha256);
    }

    /// Removes what nothing names, at a start. `used` has digests, and paths that revisions see.
    pub(crate) fn collect(&self, used: &BTreeSet<String>) -> io::Result<usize> {
        let own = |path: &String| {
            let rest = Path::new(path).strip_prefix(&self.folder).ok()?;
            Some(rest.iter().next()?.to_string_lossy().into_owned())
        };
        let used: BTreeSet<String> = used.iter().map(|name| own(name).unwrap_or_else(|| name.clone())).collect();
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Uploads have a folder of their own beside the trees.
            if name != UPLOADS && !used.contains(&name) && !self.pending.lock().contains(&name) {
                fs::remove_dir_all(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::archive::tests::{File, zip};
    use super::*;

    #[tokio::test]
    async fn an_archive_is_kept_once_by_its_digest_and_removed_when_nothing_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = CodeStore::open(folder.path().join("code")).unwrap();
        let archive = Bytes::from(zip(&[File::new("a/b.txt", b"hello")]));
        let first = store.keep(archive.clone()).await.unwrap();
        assert_eq!(first, store.keep(archive.clone()).await.unwrap());
        assert_eq!(fs::read(store.tree(&first.sha256).join("a/b.txt")).unwrap(), b"hello");
        assert_eq!(fs::read(store.archive(&first.sha256)).unwrap(), archive);
        assert_eq!(store.collect(&BTreeSet::new()).unwrap(), 0, "it may be named soon");
        store.release(&first.sha256);
        assert_eq!(store.collect(&[first.sha256.clone()].into()).unwrap(), 0);
        assert_eq!(store.collect(&BTreeSet::new()).unwrap(), 1);
        assert!(store.keep(Bytes::from_static(b"no archive")).await.is_err());
        assert_eq!(fs::read_dir(folder.path().join("code")).unwrap().count(), 0, "nothing is left of it");
    }
}
