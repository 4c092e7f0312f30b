//! The unsafe part of a folder that an instance may write though it belongs to somebody else: it is mounted so that its owner's id
//! and the instance's are one within the mount (idmapped mounts, Linux 5.12).
//!
//! What an instance makes there belongs to the owner of the folder outside. So that it makes no program which others would run
//! with the owner's rights, a filter on system calls keeps it from set-user-id and set-group-id bits, as `RestrictSUIDSGID=` of
//! systemd does.
#![expect(unsafe_code, reason = "mounts, user namespaces and filters have no safe calls that allocate nothing")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, WaitIdOptions};

/// The attribute of a mount that nobody can write, as in the kernel's `linux/mount.h`.
pub(super) const READ_ONLY: u64 = 1;

/// Whose files are whose: the ids of the owner on the disk, and those of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Owners {
    pub(super) disk: (u32, u32),
    pub(super) instance: (u32, u32),
}

/// A folder that an instance may write.
#[derive(Debug)]
pub(super) struct OwnFolder {
    pub(super) path: CString,
    /// What of it is meant; without this, all of it. No link is followed below the folder.
    pub(super) below: Option<CString>,
    /// A user namespace with the map of [`Owners`].
    pub(super) namespace: OwnedFd,
    /// The filter that belongs to it.
    pub(super) filter: Vec<libc::sock_filter>,
}

fn last() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

impl OwnFolder {
    /// In the child, while it has the rights of its server and a mount namespace of its own: mounts the folder over itself.
    pub(super) fn mount(&self) -> Result<(), Errno> {
        attach(self.open()?, &self.path)
    }

    /// As [`OwnFolder::mount`], without the place where it is seen.
    pub(super) fn open(&self) -> Result<libc::c_long, Errno> {
        const NOSUID: u64 = 0x2;
        const NODEV: u64 = 0x4;
        const IDMAP: u64 = 0x0010_0000;
        let tree = match &self.below {
            None => open(&self.path)?,
            Some(below) => open_below(&self.path, below)?,
        };
        // What is mounted below the folder stays as it is.
        let namespace = u64::from(self.namespace.as_raw_fd().unsigned_abs());
        change(tree, IDMAP | NOSUID | NODEV, namespace, 0)?;
        Ok(tree)
    }

    /// In the child, after it can gain no privileges any more.
    pub(super) fn restrict(&self) -> Result<(), Errno> {
        restrict(&self.filter)
    }
}

/// In the child, after it can gain no privileges any more: puts a filter on its system calls.
pub(super) fn restrict(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let length = u16::try_from(filter.len()).unwrap_or_default();
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program and its instructions live until the call has copied them.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if set == 0 { Ok(()) } else { Err(last()) }
}

/// A file or folder with what is mounted below it, seen nowhere yet.
pub(super) fn open(path: &CStr) -> Result<libc::c_long, Errno> {
    /// As in the kernel's `linux/mount.h`.
    const OPEN_TREE_CLONE: i32 = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_RECURSIVE;
    // SAFETY: the path is a C string.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if tree < 0 { Err(last()) } else { Ok(tree) }
}

/// The same of a path below a folder, without following a link on the way: somebody else may change what is there.
pub(super) fn open_below(folder: &CStr, path: &CStr) -> Result<libc::c_long, Errno> {
    /// As in the kernel's `linux/openat2.h`.
    #[repr(C)]
    struct How {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    const NO_SYMLINKS: u64 = 0x04;
    const BENEATH: u64 = 0x08;
    const OPEN_TREE_CLONE: i32 = 1;
    let place = libc::O_PATH | libc::O_CLOEXEC;
    let how = How { flags: u64::from(place.unsigned_abs()), mode: 0, resolve: NO_SYMLINKS | BENEATH };
    // SAFETY: the paths are C strings, and the rest lives on this stack with its size told. What is opened ends with the program.
    unsafe {
        let base = libc::open(folder.as_ptr(), place | libc::O_DIRECTORY);
        if base < 0 {
            return Err(last());
        }
        let found = libc::syscall(libc::SYS_openat2, base, path.as_ptr(), &raw const how, size_of::<How>());
        if found < 0 {
            return Err(last());
        }
        let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_RECURSIVE | libc::AT_EMPTY_PATH;
        let tree = libc::syscall(libc::SYS_open_tree, found, c"".as_ptr(), flags);
        if tree < 0 { Err(last()) } else { Ok(tree) }
    }
}

/// Sets attributes of a mount that is seen nowhere yet; with `AT_RECURSIVE` among the flags, of all below it.
pub(super) fn change(tree: libc::c_long, set: u64, namespace: u64, flags: i32) -> Result<(), Errno> {
    /// As in the kernel's `linux/mount.h`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        namespace: u64,
    }
    let attributes = Attributes { set, clear: 0, propagation: 0, namespace };
    // SAFETY: the attributes live on this stack, and their size is told.
    let changed = unsafe {
        let (size, empty) = (size_of::<Attributes>(), c"".as_ptr());
        let flags = flags | libc::AT_EMPTY_PATH;
        libc::syscall(libc::SYS_mount_setattr, tree, empty, flags, &raw const attributes, size)
    };
    if changed == 0 { Ok(()) } else { Err(last()) }
}

/// Shows it at a path.
pub(super) fn attach(tree: libc::c_long, path: &CStr) -> Result<(), Errno> {
    const MOVE_EMPTY_PATH: u32 = 4;
    // SAFETY: both paths are C strings.
    let moved = unsafe {
        let (empty, path) = (c"".as_ptr(), path.as_ptr());
        libc::syscall(libc::SYS_move_mount, tree, empty, libc::AT_FDCWD, path, MOVE_EMPTY_PATH)
    };
    if moved == 0 { Ok(()) } else { Err(last()) }
}

/// A user namespace with such a map. A child makes it, and ends when we hold it.
///
/// # Errors
/// Where the host gives no user namespaces.
pub(super) fn namespace_of(owners: Owners) -> io::Result<OwnedFd> {
    let (ready, made) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (release, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the child makes only async-signal-safe calls and ends without tidying up anything of ours.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(held);
        // SAFETY: numbers only; the child has one thread.
        if unsafe { libc::unshare(libc::CLONE_NEWUSER) } == 0 {
            let _ = rustix::io::write(&made, b"1");
            let _ = rustix::io::read(&release, &mut [0u8; 1]);
        }
        // SAFETY: as above.
        unsafe { libc::_exit(0) }
    }
    drop((made, release));
    let child = Pid::from_raw(child).ok_or_else(io::Error::last_os_error)?;
    let namespace = (|| {
        if rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut [0u8; 1]))? != 1 {
            return Err(io::Error::other("this host gives no user namespaces"));
        }
        let folder = format!("/proc/{}", child.as_raw_nonzero());
        let line = |(disk, instance): (u32, u32)| format!("{disk} {instance} 1");
        let Owners { disk, instance } = owners;
        std::fs::write(format!("{folder}/uid_map"), line((disk.0, instance.0)))?;
        std::fs::write(format!("{folder}/gid_map"), line((disk.1, instance.1)))?;
        Ok(OwnedFd::from(File::open(format!("{folder}/ns/user"))?))
    })();
    drop(held);
    let _ = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(rustix::process::WaitId::Pid(child), WaitIdOptions::EXITED)
    });
    namespace
}

/// Lets everything pass but what sets set-user-id or set-group-id bits, and what such a filter cannot look into: `openat2`, `io_uring`
/// and system calls of other architectures do not exist for the instance.
#[expect(clippy::cast_possible_truncation, reason = "codes of instructions have 16 bits")]
pub(super) fn filter() -> Vec<libc::sock_filter> {
    const BITS: u32 = 0o6000;
    const CREATES: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)).cast_unsigned();
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let has = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    let end = (libc::BPF_RET | libc::BPF_K) as u16;
    let one = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let refuse = |error: i32| one(end, libc::SECCOMP_RET_ERRNO | error.cast_unsigned());
    let allow = one(end, libc::SECCOMP_RET_ALLOW);
    // The lower half of an argument.
    let argument = |number: u32| 16 + 8 * number + if cfg!(target_endian = "big") { 4 } else { 0 };
    let native: u32 = match () {
        () if cfg!(target_arch = "x86_64") => 0xC000_003E,
        () if cfg!(target_arch = "aarch64") => 0xC000_00B7,
        // Nothing is known of its numbers: no folder is opened.
        () => return Vec::new(),
    };
    let mut program = vec![one(load, ARCHITECTURE), jump(equal, native, 1, 0), refuse(libc::ENOSYS), one(load, NUMBER)];
    #[cfg(target_arch = "x86_64")]
    {
        /// Numbers from here on are those of the architecture x32.
        const X32: u32 = 0x4000_0000;
        program.extend([jump((libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16, X32, 0, 1), refuse(libc::ENOSYS)]);
    }
    for call in [libc::SYS_openat2, libc::SYS_io_uring_setup] {
        program.extend([jump(equal, number(call), 0, 1), refuse(libc::ENOSYS)]);
    }
    // The argument with the mode.
    let mut modes = vec![
        (libc::SYS_fchmod, 1),
        (libc::SYS_fchmodat, 2),
        (libc::SYS_fchmodat2, 2),
        (libc::SYS_mkdirat, 2),
        (libc::SYS_mknodat, 2),
    ];
    // The argument with the flags, and the one with the mode.
    let mut opens = vec![(libc::SYS_openat, 2, 3)];
    #[cfg(target_arch = "x86_64")]
    {
        modes.extend([(libc::SYS_chmod, 1), (libc::SYS_creat, 1), (libc::SYS_mkdir, 1), (libc::SYS_mknod, 1)]);
        opens.push((libc::SYS_open, 1, 2));
    }
    for (call, mode) in modes {
        program.extend([
            jump(equal, number(call), 0, 4),
            one(load, argument(mode)),
            jump(has, BITS, 0, 1),
            refuse(libc::EPERM),
            allow,
        ]);
    }
    for (call, flags, mode) in opens {
        program.extend([
            jump(equal, number(call), 0, 6),
            one(load, argument(flags)),
            jump(has, CREATES, 0, 3),
            one(load, argument(mode)),
            jump(has, BITS, 0, 1),
            refuse(libc::EPERM),
            allow,
        ]);
    }
    program.push(allow);
    program
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}
