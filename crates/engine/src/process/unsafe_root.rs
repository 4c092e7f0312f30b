//! The unsafe part of a root of its own: what the child mounts, and how it enters it.
#![expect(unsafe_code, reason = "mounts and roots have no safe calls that allocate nothing")]

use std::ffi::CString;
use std::io;
use std::ptr;

use rustix::io::Errno;

use super::unsafe_folder::{self, OwnFolder};
use super::view::Source;

/// Folders that a root can show.
pub(super) const MOST_TREES: usize = 512;

/// What is made in a new root, in this order.
#[derive(Debug)]
pub(super) enum RootStep {
    /// An empty folder.
    Folder(CString),
    /// A folder of the host, with what is mounted below it.
    Tree { source: Source, target: CString },
    /// A link.
    Link { target: CString, path: CString },
}

/// A root that is put together on a folder of the host.
#[derive(Debug)]
pub(super) struct PrivateRoot {
    pub(super) base: CString,
    pub(super) steps: Vec<RootStep>,
}

fn last() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

fn done(result: libc::c_long) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(last()) }
}

impl PrivateRoot {
    /// A folder in it that the instance may write though it is somebody else's.
    pub(super) fn own(&self) -> Option<&OwnFolder> {
        self.steps.iter().find_map(|step| match step {
            RootStep::Tree { source: Source::Own(folder), .. } => Some(folder),
            _ => None,
        })
    }

    /// In the child, while it has the rights of its server and a mount namespace of its own, and after all other mounts.
    pub(super) fn enter(&self) -> Result<(), Errno> {
        let mut trees: [libc::c_long; MOST_TREES] = [-1; MOST_TREES];
        // All of them first: the base covers one of them.
        let mut slots = trees.iter_mut();
        for step in &self.steps {
            let RootStep::Tree { source, .. } = step else { continue };
            let Some(slot) = slots.next() else { return Err(Errno::MFILE) };
            *slot = source.open()?;
        }
        let (kind, data, own) = (c"tmpfs", c"mode=0755,size=64k,nr_inodes=512", libc::MS_NOSUID | libc::MS_NODEV);
        let base = self.base.as_ptr();
        // SAFETY: all are C strings.
        done(unsafe { libc::mount(c"kipwake".as_ptr(), base, kind.as_ptr(), own, data.as_ptr().cast()) }.into())?;
        let mut opened = trees.iter();
        for step in &self.steps {
            match step {
                // SAFETY: the path is a C string.
                RootStep::Folder(path) => done(unsafe { libc::mkdir(path.as_ptr(), 0o755) }.into())?,
                RootStep::Link { target, path } => {
                    // SAFETY: both are C strings.
                    done(unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) }.into())?;
                }
                RootStep::Tree { target, .. } => {
                    let Some(tree) = opened.next() else { return Err(Errno::MFILE) };
                    unsafe_folder::attach(*tree, target)?;
                }
            }
        }
        let flags = own | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        // SAFETY: C strings and nulls.
        unsafe {
            done(libc::mount(ptr::null(), base, ptr::null(), flags, ptr::null()).into())?;
            done(libc::chdir(base).into())?;
            done(libc::mount(c".".as_ptr(), c"/".as_ptr(), ptr::null(), libc::MS_MOVE, ptr::null()).into())?;
            done(libc::chroot(c".".as_ptr()).into())?;
            done(libc::chdir(c"/".as_ptr()).into())
        }
    }
}
