//! The unsafe part of isolation: what a child does to itself between clone and exec so that the server is out of its reach.
//!
//! Everything here is prepared by the parent. The child makes system calls only, in this order: namespaces and mounts while it still has
//! the rights of its server, then limits, then the ids, then the domain from which it cannot reach other processes.
#![expect(
    unsafe_code,
    reason = "namespaces, ids and mounts have no safe calls that allocate nothing, and a trial needs a child of its own"
)]

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::entrance::Entrance;
use super::unsafe_folder::{self, OwnFolder};
use super::unsafe_root::PrivateRoot;
use super::view::Views;

/// Folders that one cover can show.
pub(super) const MOST_SHOWN: usize = 24;

/// A folder that is covered, with what is shown of it all the same.
#[derive(Debug, Clone)]
pub(super) struct Cover {
    pub(super) folder: CString,
    /// Folders to make below it, outermost first.
    pub(super) made: Vec<CString>,
    /// What is shown at its own path; each is among those made.
    pub(super) shown: Vec<CString>,
}

/// The maps of a user namespace in which its user is who it was.
#[derive(Debug, Clone)]
pub(super) struct Maps {
    pub(super) uid: CString,
    pub(super) gid: CString,
}

/// Who the child becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// What a child does to itself.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) user_namespace: Option<Maps>,
    pub(super) covers: Vec<Cover>,
    /// Folders that it may look at only, with what is mounted below them.
    pub(super) read_only: Vec<CString>,
    /// Soft and hard limits, by the numbers of the resources.
    pub(super) limits: Vec<(u32, u64)>,
    /// What is written into its `oom_score_adj`.
    pub(super) oom_score: Option<CString>,
    pub(super) ids: Option<Ids>,
    /// A folder that it may write.
    pub(super) folder: Option<OwnFolder>,
    /// What it sees in the place of files of the host.
    pub(super) views: Views,
    /// A root of its own.
    pub(super) root: Option<PrivateRoot>,
    /// The namespaces of an instance that it joins, in the place of ones of its own.
    pub(super) entrance: Option<Entrance>,
    /// A filter on system calls, where there is no folder that brings it.
    pub(super) filter: Vec<libc::sock_filter>,
    /// A Landlock ruleset.
    pub(super) domain: Option<OwnedFd>,
}

fn last() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

fn done(result: c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(last()) }
}

fn write(path: &CStr, text: &CStr) -> Result<(), Errno> {
    let file =
        rustix::fs::open(path, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    rustix::io::write(&file, text.to_bytes()).map(drop)
}

impl Steps {
    /// While the rights of the server are still there: namespaces, and what is covered in them.
    pub(super) fn enter(&self) -> Result<(), Errno> {
        if let Some(entrance) = &self.entrance {
            return entrance.join();
        }
        let has_mounts = self.folder.is_some() || self.root.is_some() || !self.views.is_empty();
        if self.user_namespace.is_none() && self.covers.is_empty() && !has_mounts {
            return Ok(());
        }
        let user = if self.user_namespace.is_some() { libc::CLONE_NEWUSER } else { 0 };
        // SAFETY: the child has one thread, and shares no memory.
        done(unsafe { libc::unshare(user | libc::CLONE_NEWNS) })?;
        if let Some(maps) = &self.user_namespace {
            write(c"/proc/self/setgroups", c"deny")?;
            write(c"/proc/self/uid_map", &maps.uid)?;
            write(c"/proc/self/gid_map", &maps.gid)?;
        }
        // SAFETY: the paths are C strings, the other pointers are null.
        done(unsafe {
            libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), libc::MS_REC | libc::MS_SLAVE, ptr::null())
        })?;
        // Before they are covered.
        let views = self.views.open()?;
        self.covers.iter().try_for_each(Cover::put)?;
        self.read_only.iter().try_for_each(|folder| protect(folder))?;
        self.folder.as_ref().map_or(Ok(()), OwnFolder::mount)?;
        self.views.attach(&views)?;
        // Last: it shows what was mounted before.
        self.root.as_ref().map_or(Ok(()), PrivateRoot::enter)
    }

    /// Gives up what the server may and the child must not. Nothing of it can be taken back.
    pub(super) fn drop_rights(&self) -> Result<(), Errno> {
        if let Some(score) = &self.oom_score {
            write(c"/proc/self/oom_score_adj", score)?;
        }
        for (resource, most) in &self.limits {
            let limit = libc::rlimit64 { rlim_cur: *most, rlim_max: *most };
            // SAFETY: the limit lives on this stack.
            done(unsafe { libc::setrlimit64(*resource, &raw const limit) })?;
        }
        if let Some(ids) = &self.ids {
            // The calls of the kernel: those of the C library would tell other threads, of which a child has none.
            // SAFETY: the list lives in `self`; numbers are all that the others take.
            let all = unsafe {
                [
                    libc::syscall(libc::SYS_setgroups, ids.groups.len(), ids.groups.as_ptr()),
                    libc::syscall(libc::SYS_setresgid, ids.gid, ids.gid, ids.gid),
                    libc::syscall(libc::SYS_setresuid, ids.uid, ids.uid, ids.uid),
                ]
            };
            if all.iter().any(|result| *result != 0) {
                return Err(last());
            }
        }
        rustix::thread::set_no_new_privs(true)?;
        // Their filters are the same.
        let own = self.folder.as_ref().or_else(|| self.views.own()).or_else(|| self.root.as_ref()?.own());
        own.map_or(Ok(()), OwnFolder::restrict)?;
        if !self.filter.is_empty() {
            unsafe_folder::restrict(&self.filter)?;
        }
        if let Some(domain) = &self.domain {
            // SAFETY: numbers only.
            let restricted = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, domain.as_raw_fd(), 0) };
            if restricted != 0 {
                return Err(last());
            }
        }
        Ok(())
    }
}

/// Shows a folder in its own place so that nobody can write it there.
fn protect(folder: &CStr) -> Result<(), Errno> {
    let tree = unsafe_folder::open(folder)?;
    unsafe_folder::change(tree, unsafe_folder::READ_ONLY, 0, libc::AT_RECURSIVE)?;
    unsafe_folder::attach(tree, folder)
}

impl Cover {
    fn put(&self) -> Result<(), Errno> {
        let mut trees = [-1; MOST_SHOWN];
        for (tree, shown) in trees.iter_mut().zip(&self.shown) {
            *tree = unsafe_folder::open(shown)?;
        }
        let (kind, data) = (c"tmpfs", c"mode=0711,size=64k,nr_inodes=128");
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        let folder = self.folder.as_ptr();
        // SAFETY: all are C strings.
        done(unsafe { libc::mount(c"kipwake".as_ptr(), folder, kind.as_ptr(), flags, data.as_ptr().cast()) })?;
        for made in &self.made {
            // SAFETY: the path is a C string.
            done(unsafe { libc::mkdir(made.as_ptr(), 0o711) })?;
        }
        for (tree, shown) in trees.iter().zip(&self.shown) {
            unsafe_folder::attach(*tree, shown)?;
        }
        let flags = flags | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        // SAFETY: as above, and nulls.
        done(unsafe { libc::mount(ptr::null(), folder, ptr::null(), flags, ptr::null()) })
    }
}

/// The user namespace around another one, of which an open file is handed in; none for the outermost.
pub(super) fn around(namespace: &OwnedFd) -> Option<OwnedFd> {
    /// As in the kernel's `linux/nsfs.h`.
    const GET_PARENT: libc::c_ulong = 0xb702;
    // SAFETY: the call takes no argument.
    let file = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_PARENT) };
    // SAFETY: the kernel has just opened it for us.
    (file >= 0).then(|| unsafe { OwnedFd::from_raw_fd(file) })
}

/// Does all of it in a child that ends at once.
///
/// # Errors
/// What the first step failed with that is not possible here.
pub(super) fn try_out(steps: &Steps) -> io::Result<()> {
    // SAFETY: the child makes only async-signal-safe calls and ends without tidying up anything of ours.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let failed = steps.enter().and_then(|()| steps.drop_rights()).err();
        // Numbers of errors are below 256 where it matters; whatever is not is a failure still.
        let code = failed.map_or(0, |error| error.raw_os_error().clamp(1, 255));
        // SAFETY: as above.
        unsafe { libc::_exit(code) }
    }
    let child = Pid::from_raw(child).ok_or_else(io::Error::last_os_error)?;
    let status = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(child), WaitIdOptions::EXITED))?;
    match status.and_then(|status| status.exit_status()) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error)),
        None => Err(io::Error::other("the trial was ended by a signal")),
    }
}

/// A Landlock ruleset that keeps whoever is in it from looking at and signalling processes outside. It restricts no files.
///
/// # Errors
/// Where the kernel has none, or one that is switched off.
pub(super) fn domain() -> io::Result<(OwnedFd, bool)> {
    /// As in the kernel's `linux/landlock.h`.
    #[repr(C)]
    struct Attributes {
        files: u64,
        net: u64,
        scoped: u64,
    }
    const VERSION: u32 = 1;
    /// The version that knows scopes.
    const SCOPES: i64 = 6;
    const SIGNALS: u64 = 1 << 1;
    /// Block devices, which nobody without rights can make anyway: a ruleset must have something in it.
    const MAKE_BLOCK: u64 = 1 << 11;
    // SAFETY: a null and no size ask for the version.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0usize, VERSION) };
    if version < 1 {
        return Err(io::Error::last_os_error());
    }
    let scopes = version >= SCOPES;
    let attributes = Attributes { files: MAKE_BLOCK, net: 0, scoped: if scopes { SIGNALS } else { 0 } };
    let size = if scopes { size_of::<Attributes>() } else { size_of::<u64>() };
    // SAFETY: the attributes live on this stack, and their size is told.
    let made = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0) };
    let made = i32::try_from(made).unwrap_or(-1);
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    Ok((unsafe { OwnedFd::from_raw_fd(made) }, scopes))
}
