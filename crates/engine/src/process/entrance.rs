//! The way into an instance that runs: its namespaces and its root, opened by the parent and joined by a child between clone and exec.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The namespaces of an instance, as far as they are not its server's.
#[derive(Debug)]
pub(super) struct Entrance {
    user: Option<OwnedFd>,
    mount: Option<OwnedFd>,
    /// Its root, in its mount namespace.
    root: OwnedFd,
}

impl Entrance {
    /// That of a process; none where it has no namespace of its own.
    ///
    /// # Errors
    /// Where it has ended, or may not be looked at.
    pub(super) fn of(process: u32) -> io::Result<Option<Self>> {
        let (user, mount) = (namespace(process, "user")?, namespace(process, "mnt")?);
        if user.is_none() && mount.is_none() {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{process}/root"), flags, Mode::empty())?;
        Ok(Some(Self { user, mount, root }))
    }

    /// In the child. Makes system calls only.
    pub(super) fn join(&self) -> Result<(), Errno> {
        // The namespace of users first: it gives the rights to join the other one.
        if let Some(user) = &self.user {
            move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))?;
        }
        if let Some(mount) = &self.mount {
            move_into_link_name_space(mount.as_fd(), Some(LinkNameSpaceType::Mount))?;
            rustix::process::fchdir(&self.root)?;
            rustix::process::chroot(c".")?;
            rustix::process::chdir(c"/")?;
        }
        Ok(())
    }
}

/// A namespace of a process; none where it is ours too.
fn namespace(process: u32, kind: &str) -> io::Result<Option<OwnedFd>> {
    let path = format!("/proc/{process}/ns/{kind}");
    let own = fs::metadata(format!("/proc/self/ns/{kind}"))?;
    let of = fs::metadata(&path)?;
    if of.ino() == own.ino() {
        return Ok(None);
    }
    Ok(Some(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
}
