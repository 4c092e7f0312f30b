//! The data directory: its lock, its private files, and writes that are whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Making or reading it failed.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Its lock is held.
    #[error("{} is used by the server with process id {owner}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Process id of the holder, or `unknown`.
        owner: String,
    },
}

/// How often, and after what pause, a lock is tried whose owner is dead.
const TRIES: u32 = 200;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// A data directory that this process alone uses, until dropped or killed.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory if need be (mode 0700) and locks it.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process holds the lock, [`Error::Io`] when it cannot be made or written.
    pub fn lock(path: &Path) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        create_private(path).map_err(failed(path))?;
        let path = path.canonicalize().map_err(failed(path))?;
        let file = path.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&file)
            .map_err(failed(&file))?;
        let mut tries = 0;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut owner = String::new();
            let _ = lock.read_to_string(&mut owner);
            let owner = if owner.trim().is_empty() { "unknown".to_owned() } else { owner.trim().to_owned() };
            // A child that the dead server was just starting holds the lock until it has become its program.
            tries += 1;
            if tries > TRIES || owner == "unknown" || Path::new("/proc").join(&owner).exists() {
                return Err(Error::InUse { path, owner });
            }
            std::thread::sleep(PAUSE);
            lock.rewind().map_err(failed(&file))?;
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(failed(&file))?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Who holds a data directory's lock: the process id, or `unknown`. `None` if nobody does, or there is no lock to look at.
pub fn owner(path: &Path) -> Option<String> {
    let mut lock = File::open(path.join("lock")).ok()?;
    if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let mut owner = String::new();
    lock.read_to_string(&mut owner).ok()?;
    Some(if owner.trim().is_empty() { "unknown".to_owned() } else { owner.trim().to_owned() })
}

/// Makes a directory and its parents, readable by the owner only.
///
/// # Errors
/// What the operating system says.
pub fn create_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file by way of a synced temporary one beside it (mode 0600): readers see the old or the new content.
///
/// # Errors
/// What the operating system says.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// The same for what each start writes anew: a full disk still has the room that the last one's took.
///
/// # Errors
/// What the operating system says.
pub fn write_again(path: &Path, content: &[u8]) -> io::Result<()> {
    match write_whole(path, content) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            let mut file = OpenOptions::new().write(true).open(path).map_err(|_| error)?;
            file.write_all(content)?;
            file.set_len(content.len() as u64)
        }
        written => written,
    }
}

/// The same without the sync, for what need not outlive the host: readers see the old or the new content, and after a
/// loss of power perhaps neither.
///
/// # Errors
/// What the operating system says.
pub fn write_unsynced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataDirectory::lock(folder.path()).unwrap();
        match DataDirectory::lock(folder.path()) {
            Err(Error::InUse { owner, .. }) => assert_eq!(owner, std::process::id().to_string()),
            other => panic!("expected InUse, got {other:?}"),
        }
        drop(held);
        assert!(DataDirectory::lock(folder.path()).is_ok());
    }

    #[test]
    fn a_whole_write_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        write_whole(&file, b"one").unwrap();
        write_whole(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
