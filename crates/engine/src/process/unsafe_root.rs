//! The unsafe part of a root of its own: what the child mounts, and how it enters it.
#![expect(unsafe_code, reason = "mounts and roots have no safe calls that allocate nothing")]

use std::ffi::CString;
use std::io;
use std::ptr;

use rustix::io::Errno;

/// Folders that a root can show.
pub(super) const MOST_TREES: usize = 64;

/// What is made in a new root, in this order.
#[derive(Debug, Clone)]
pub(super) enum RootStep {
    /// An empty folder.
    Folder(CString),
    /// A folder of the host, with what is mounted below it.
    Tree { source: CString, target: CString, writable: bool },
    /// A link.
    Link { target: CString, path: CString },
}

/// A root that is put together on a folder of the host.
#[derive(Debug, Clone)]
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
    /// In the child, while it has the rights of its server and a mount namespace of its own, and after all other mounts.
    pub(super) fn enter(&self) -> Result<(), Errno> {
        /// As in the kernel's `linux/mount.h`.
        const OPEN_TREE_CLONE: i32 = 1;
        const EMPTY_PATH: u32 = 4;
        let mut trees: [libc::c_long; MOST_TREES] = [-1; MOST_TREES];
        let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_RECURSIVE;
        // All of them first: the base covers one of them.
        let mut slots = trees.iter_mut();
        for step in &self.steps {
            let RootStep::Tree { source, .. } = step else { continue };
            let Some(slot) = slots.next() else { return Err(Errno::MFILE) };
            // SAFETY: the path is a C string.
            *slot = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags) };
            if *slot < 0 {
                return Err(last());
            }
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
                RootStep::Tree { target, writable, .. } => {
                    let Some(tree) = opened.next() else { return Err(Errno::MFILE) };
                    if !writable {
                        protect(*tree)?;
                    }
                    // SAFETY: both paths are C strings.
                    done(unsafe {
                        let (empty, target) = (c"".as_ptr(), target.as_ptr());
                        libc::syscall(libc::SYS_move_mount, *tree, empty, libc::AT_FDCWD, target, EMPTY_PATH)
                    })?;
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

/// Lets nobody write a mount that is not attached yet.
fn protect(tree: libc::c_long) -> Result<(), Errno> {
    /// As in the kernel's `linux/mount.h`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        namespace: u64,
    }
    const READ_ONLY: u64 = 1;
    let attributes = Attributes { set: READ_ONLY, clear: 0, propagation: 0, namespace: 0 };
    // SAFETY: the attributes live on this stack, and their size is told.
    done(unsafe {
        let (size, empty) = (size_of::<Attributes>(), c"".as_ptr());
        libc::syscall(libc::SYS_mount_setattr, tree, empty, libc::AT_EMPTY_PATH, &raw const attributes, size)
    })
}
