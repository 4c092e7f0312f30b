//! Paths below a folder that somebody else may change at the same time: no link is followed on the way, and none at the end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// Opens a file or folder below a folder, as a place only: it can be shown elsewhere, and not be read.
///
/// # Errors
/// Where it is not there, or a link is on the way or at the end.
pub fn open_inside(folder: &Path, path: &str) -> io::Result<OwnedFd> {
    walk(folder, path, |_, _, error| Err(error))
}

/// The same, and makes folders that are missing. They belong to the owner of the folder.
///
/// # Errors
/// As [`open_inside`], and where a folder cannot be made.
pub fn make_inside(folder: &Path, path: &str) -> io::Result<OwnedFd> {
    let owner = rustix::fs::stat(folder)?;
    walk(folder, path, |parent, name, error| {
        if error != Errno::NOENT {
            return Err(error);
        }
        rustix::fs::mkdirat(parent, name, Mode::from_bits_truncate(0o777))?;
        let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        // Only root can give it away, and nobody else needs to.
        let _ = rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        Ok(())
    })
}

fn walk(
    folder: &Path,
    path: &str,
    missing: impl Fn(&OwnedFd, &str, Errno) -> Result<(), Errno>,
) -> io::Result<OwnedFd> {
    const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(folder, directory, Mode::empty())?;
    for part in Path::new(path).components() {
        let Component::Normal(name) = part else { return Err(Errno::INVAL.into()) };
        let name = name.to_str().ok_or(Errno::INVAL)?;
        let open = || rustix::fs::openat(at.as_fd(), name, PLACE, Mode::empty());
        let next = match open() {
            Ok(next) => next,
            Err(error) => {
                missing(&at, name, error)?;
                open()?
            }
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) == FileType::Symlink {
            return Err(io::Error::other(format!("`{name}` is a link, which is not followed: name what it leads to")));
        }
        at = next;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_is_followed_and_what_is_missing_is_made() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = folder.path();
        assert!(open_inside(at, "a/b").is_err());
        assert!(make_inside(at, "a/b").is_ok() && at.join("a/b").is_dir());
        fs::write(at.join("a/file"), "x").unwrap();
        assert!(open_inside(at, "a/file").is_ok() && open_inside(at, "a").is_ok());
        symlink(outside.path(), at.join("link")).unwrap();
        for path in ["link", "link/x", "a/../a", "/a", "a/file/x"] {
            assert!(open_inside(at, path).is_err() && make_inside(at, path).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "nothing is made behind a link");
    }
}
