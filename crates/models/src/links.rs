//! Links to files of other programs, which the folder of an adopted model consists of.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use kip_host::directory::open_regular;
use rustix::fs::{AtFlags, CWD, linkat};

/// Links a file of another program into the folder of a model: the file itself where both are on one file system, else by its path. What is not the
/// regular file of this size any more is not linked.
pub(crate) fn link(place: &Path, link: &Path, size: u64) -> io::Result<()> {
    let file = open_regular(place, fs::OpenOptions::new().read(true))?;
    let data = file.metadata()?;
    if data.len() != size {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has another size now"));
    }
    // The file that was opened, whatever has its name now.
    let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(CWD, opened.as_str(), CWD, link, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(()),
        Err(
            rustix::io::Errno::XDEV | rustix::io::Errno::PERM | rustix::io::Errno::MLINK | rustix::io::Errno::ACCESS,
        ) => std::os::unix::fs::symlink(place, link),
        Err(error) => Err(error.into()),
    }
}

/// Whether a link is the file of this name.
pub(crate) fn is_same(link: &Path, origin: &Path) -> bool {
    let both = fs::metadata(link).ok().zip(fs::symlink_metadata(origin).ok());
    both.is_some_and(|(link, origin)| link.ino() == origin.ino() && link.dev() == origin.dev())
}
