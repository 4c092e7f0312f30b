//! The user namespace of an instance as its mark: what left its group and cleared its environment is still in it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags};

use super::unsafe_isolate::around;

/// The user namespace of an instance. While it is held, its number is nobody else's.
#[derive(Debug)]
pub(super) struct Namespace {
    inode: u64,
    _held: OwnedFd,
}

impl Namespace {
    /// That of a process; none where it is ours too, or may not be looked at.
    pub(super) fn of(process: u32) -> Option<Self> {
        let held = open_namespace(process)?;
        let inode = rustix::fs::fstat(&held).ok()?.st_ino;
        (inode_of(std::process::id()) != Some(inode)).then_some(Self { inode, _held: held })
    }

    /// The processes in it, and in those that were made within it. Nobody can leave one for another that is around it.
    pub(super) fn processes(&self) -> Vec<u32> {
        /// As deep as the kernel nests them.
        const DEEPEST: usize = 33;
        let own = inode_of(std::process::id());
        let is_within = |process: &u32| {
            let inode = inode_of(*process);
            if inode == own || inode.is_none() || inode == Some(self.inode) {
                return inode == Some(self.inode);
            }
            let mut next = open_namespace(*process);
            (0..DEEPEST).any(|_| {
                next = next.as_ref().and_then(around);
                let about = next.as_ref().and_then(|file| rustix::fs::fstat(file).ok());
                about.is_some_and(|about| about.st_ino == self.inode)
            })
        };
        kip_host::sockets::all_processes().into_iter().filter(is_within).collect()
    }
}

fn inode_of(process: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/user")).ok().map(|about| about.ino())
}

fn open_namespace(process: u32) -> Option<OwnedFd> {
    rustix::fs::open(format!("/proc/{process}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}
