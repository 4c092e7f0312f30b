//! The data directory: its lock, its private files, and writes that are whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

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
    /// It is somebody else's, who could put anything in it.
    #[error("{} belongs to user {owner}, and this process runs as user {own}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        own: u32,
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
    /// The mode that it had, where others could read or write it.
    was_open: Option<u32>,
}

impl DataDirectory {
    /// Makes the directory if need be (mode 0700) and locks it.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process holds the lock, [`Error::Foreign`] when it is somebody else's, [`Error::Io`] when it cannot
    /// be made or written.
    pub fn lock(path: &Path) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        create_private(path).map_err(failed(path))?;
        let path = path.canonicalize().map_err(failed(path))?;
        let was_open = keep_to_ourselves(&path)?;
        let file = path.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut lock = open_regular(&file, &mut options).map_err(failed(&file))?;
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
        Ok(Self { path, _lock: lock, was_open })
    }

    /// The mode that the directory had before it was closed to others; none if it was closed.
    pub fn was_open(&self) -> Option<u32> {
        self.was_open
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Closes a directory of ours to others. Gives the mode that it had, if that let others in.
fn keep_to_ourselves(path: &Path) -> Result<Option<u32>, Error> {
    let failed = |source: io::Error| Error::Io { path: path.to_owned(), source };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let found = rustix::fs::fstat(&directory).map_err(|error| failed(error.into()))?;
    let own = rustix::process::geteuid().as_raw();
    if found.st_uid != own {
        return Err(Error::Foreign { path: path.to_owned(), owner: found.st_uid, own });
    }
    let mode = found.st_mode & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(None);
    }
    rustix::fs::fchmod(directory, Mode::RWXU).map_err(|error| failed(error.into()))?;
    Ok(Some(mode))
}

/// Opens a file where somebody could have put something else: a link is not followed, and a device, a pipe or a folder is not opened, nor
/// waited for.
///
/// # Errors
/// What the operating system says; `InvalidInput` for what is no regular file.
pub fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path).map_err(|error| {
        match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::LOOP) => {
                io::Error::new(io::ErrorKind::InvalidInput, "it is a link, which is not followed")
            }
            // A pipe that nobody reads.
            Some(rustix::io::Errno::NXIO) => io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"),
            _ => error,
        }
    })?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

/// Reads a file of ours, of at most so many bytes, as [`open_regular`] opens it.
///
/// # Errors
/// What the operating system says; `InvalidData` if it is larger.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path, OpenOptions::new().read(true))?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than any file of its kind"));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// As [`read_regular`]; `InvalidData` if it is no text.
pub fn read_regular_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read_regular(path, most)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Who holds a data directory's lock: the process id, or `unknown`. `None` if nobody does, or there is no lock to look at.
pub fn owner(path: &Path) -> Option<String> {
    let mut lock = open_regular(&path.join("lock"), OpenOptions::new().read(true)).ok()?;
    if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let mut owner = String::new();
    lock.read_to_string(&mut owner).ok()?;
    Some(if owner.trim().is_empty() { "unknown".to_owned() } else { owner.trim().to_owned() })
}

/// Whether this process holds a data directory's lock. Looks at it without touching it where the kernel lists locks.
pub fn is_held_by(path: &Path, process: u32) -> bool {
    let inode = fs::symlink_metadata(path.join("lock")).map(|lock| std::os::unix::fs::MetadataExt::ino(&lock));
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let listed = inode.is_ok_and(|inode| locks.lines().any(|line| is_lock_of(line, process, inode)));
    listed || owner(path).is_some_and(|owner| owner == process.to_string())
}

/// `1: FLOCK  ADVISORY  WRITE 812 fd:01:1234 0 EOF`. Devices are not compared: some file systems name them in two ways.
fn is_lock_of(line: &str, process: u32, inode: u64) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", holder, place, ..] = words[..] else { return false };
    holder.parse() == Ok(process) && place.rsplit(':').next().is_some_and(|number| number.parse() == Ok(inode))
}

/// Makes a directory and its parents, readable by the owner only.
///
/// # Errors
/// What the operating system says.
pub fn create_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The same for a folder into which instances write, or what is theirs: a link in its place leads to a folder that somebody else chose.
///
/// # Errors
/// What the operating system says, and for a link.
pub fn create_own(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()) {
        return Err(io::Error::other(format!("{} is a link, and links are not followed there", path.display())));
    }
    create_private(path)
}

/// Replaces a file by way of a synced temporary one beside it (mode 0600): readers see the old or the new content.
///
/// # Errors
/// What the operating system says.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let mut file = make(Path::new(&temporary))?;
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
            let mut file = open_regular(path, OpenOptions::new().write(true)).map_err(|_| error)?;
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
    let mut file = make(Path::new(&temporary))?;
    file.write_all(content)?;
    fs::rename(&temporary, path)
}

/// Makes a file anew: what a crash left under this name, or somebody put there, is not written into.
fn make(path: &Path) -> io::Result<File> {
    let new = || OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    match new() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            new()
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_that_others_may_enter_is_closed_and_said_to_have_been_open() {
        let folder = tempfile::tempdir().unwrap();
        let open = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        let mode = || fs::metadata(folder.path()).unwrap().mode() & 0o777;
        for was in [0o777, 0o755, 0o710] {
            open(was);
            assert_eq!(DataDirectory::lock(folder.path()).unwrap().was_open(), Some(was));
            assert_eq!(mode(), 0o700);
        }
        assert_eq!(DataDirectory::lock(folder.path()).unwrap().was_open(), None);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(65_534), None).unwrap();
            assert!(matches!(DataDirectory::lock(folder.path()), Err(Error::Foreign { owner: 65_534, own: 0, .. })));
        }
    }

    #[test]
    fn what_is_planted_in_the_place_of_a_file_is_neither_followed_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        for name in ["link", "dangling", "fifo", "device", "."] {
            let append = open_regular(&at(name), OpenOptions::new().create(true).append(true));
            assert!(append.is_err(), "{name}");
            assert!(read_regular(&at(name), 10).is_err(), "{name}");
        }
        symlink(at("victim"), at("lock")).unwrap();
        assert!(DataDirectory::lock(folder.path()).is_err());
        fs::remove_file(at("lock")).unwrap();
        // What is written anew goes past links under its temporary names.
        symlink(at("victim"), at("x.new")).unwrap();
        symlink(at("victim"), at(&format!("x.{}.new", std::process::id()))).unwrap();
        write_whole(&at("x"), b"one").unwrap();
        write_unsynced(&at("x"), b"two").unwrap();
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "precious");
        assert_eq!(read_regular(&at("x"), 3).unwrap(), b"two");
        assert_eq!(read_regular(&at("x"), 2).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_second_lock_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataDirectory::lock(folder.path()).unwrap();
        match DataDirectory::lock(folder.path()) {
            Err(Error::InUse { owner, .. }) => assert_eq!(owner, std::process::id().to_string()),
            other => panic!("expected InUse, got {other:?}"),
        }
        assert!(is_held_by(folder.path(), std::process::id()) && !is_held_by(folder.path(), 1));
        drop(held);
        assert!(!is_held_by(folder.path(), std::process::id()));
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
