//! The unsafe part of a start: the child between clone and exec.
//!
//! Moving a process between cgroups takes the kernel's write lock over all threads, which waits for an RCU grace period: 8 to
//! 20 ms, measured on two busy cores with Linux 6.18. A child that is cloned into its cgroup takes the read side only. In v1 hierarchies, which
//! cannot be cloned into, a thread that moves itself alone takes no such lock either.
#![expect(
    unsafe_code,
    reason = "clone, fork and exec are unsafe: only async-signal-safe calls may come between them in a threaded process"
)]

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};

use super::unsafe_isolate::Steps;

/// As in the kernel's `linux/sched.h`. The constants of `libc` are too narrow for them.
const CLEAR_HANDLERS: u64 = 0x1_0000_0000;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Everything that a child needs; it can allocate nothing.
#[derive(Debug)]
pub(super) struct Plan {
    /// Where it may be, in the order in which they are tried.
    pub(super) programs: Vec<CString>,
    /// Our own program, opened before the child could not find it any more.
    pub(super) own: Option<OwnedFd>,
    /// What keeps the child from its server.
    pub(super) steps: Steps,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    pub(super) directory: CString,
    /// Standard input, output and error.
    pub(super) streams: [File; 3],
    /// Whether it leads a session of its own, and whether its standard input is the terminal of that; else it leads a group.
    pub(super) session: Session,
    /// The limit on open files.
    pub(super) files: Rlimit,
    /// Its cgroup of v2.
    pub(super) cgroup: Option<Cgroup>,
    /// The `tasks` of its cgroups of v1.
    pub(super) tasks: Vec<File>,
}

/// A cgroup of v2, in both the ways in which it can be joined.
#[derive(Debug)]
pub(super) struct Cgroup {
    pub(super) folder: File,
    /// Its `cgroup.procs`, for where the kernel or a filter on system calls refuses to clone into it.
    pub(super) procs: File,
}

/// What a child leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// A process group.
    Group,
    /// A session without a terminal.
    Own,
    /// A session whose terminal is its standard input.
    Terminal,
}

/// Where a child can fail before its program begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Streams,
    Directory,
    Group,
    Cgroup,
    Limits,
    Isolation,
    Program,
}

impl Step {
    pub(super) const ALL: [Self; 7] =
        [Self::Streams, Self::Directory, Self::Group, Self::Cgroup, Self::Limits, Self::Isolation, Self::Program];
}

/// Words as exec wants them: pointers with a null at the end. They are good for as long as the words are.
fn pointers<'word>(words: impl IntoIterator<Item = &'word CString>) -> Vec<*const c_char> {
    words.into_iter().map(|word| word.as_ptr()).chain(std::iter::once(ptr::null())).collect()
}

/// Starts a child that becomes the program. What hinders it is written to `report`: the number of the step, and the error's.
/// That end closes without a word when the program begins.
pub(super) fn start(plan: &Plan, report: BorrowedFd<'_>) -> io::Result<Pid> {
    let shell = c"/bin/sh";
    let arguments = pointers(&plan.arguments);
    let script = |program: &CString| {
        let mut script = vec![shell.as_ptr(), program.as_ptr()];
        script.extend(pointers(plan.arguments.iter().skip(1)));
        script
    };
    let scripts: Vec<Vec<*const c_char>> = plan.programs.iter().map(script).collect();
    let environment = pointers(&plan.environment);

    let mut how = libc::clone_args {
        flags: CLEAR_HANDLERS,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = &plan.cgroup {
        how.flags |= INTO_CGROUP;
        how.cgroup = u64::from(cgroup.folder.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `how` has the layout and the size that are told to the kernel, asks for no memory to be shared and names no
    // memory to be written. The child has a copy of this stack, makes only the system calls below and never returns.
    let cloned = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of::<libc::clone_args>()) };
    let (child, inside) = match cloned {
        // Whatever the reason, the old way either works or gives an error that says more.
        -1 => {
            // SAFETY: as above; the child makes only async-signal-safe calls and never returns.
            (i64::from(unsafe { libc::fork() }), false)
        }
        child => (child, true),
    };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let (step, error) = match set_up(plan, inside) {
                // SAFETY: the three arrays end with a null, and point to words that `plan` holds.
                Ok(()) => (Step::Program, unsafe { exec(plan, shell, &arguments, &scripts, &environment) }),
                Err(failed) => failed,
            };
            let [a, b, c, d] = error.raw_os_error().to_ne_bytes();
            let _ = rustix::io::write(report, &[step as u8, a, b, c, d]);
            // SAFETY: async-signal-safe; nothing of the parent's is tidied up.
            unsafe { libc::_exit(127) }
        }
        child => i32::try_from(child)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("a child without a number")),
    }
}

/// In the child. Makes system calls only; neither allocates nor locks nor panics.
fn set_up(plan: &Plan, inside: bool) -> Result<(), (Step, Errno)> {
    let at = |step: Step| move |error: Errno| (step, error);
    let [stdin, stdout, stderr] = &plan.streams;
    rustix::stdio::dup2_stdin(stdin).map_err(at(Step::Streams))?;
    rustix::stdio::dup2_stdout(stdout).map_err(at(Step::Streams))?;
    rustix::stdio::dup2_stderr(stderr).map_err(at(Step::Streams))?;
    match plan.session {
        Session::Group => rustix::process::setpgid(None, None).map_err(at(Step::Group))?,
        Session::Own | Session::Terminal => drop(rustix::process::setsid().map_err(at(Step::Group))?),
    }
    if plan.session == Session::Terminal {
        rustix::process::ioctl_tiocsctty(stdin).map_err(at(Step::Streams))?;
    }
    // SAFETY: async-signal-safe calls on a set of signals that lives on this stack. Rust's runtime ignores SIGPIPE, which
    // exec would pass on.
    unsafe {
        let mut none = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    // "0" stands for the writing thread, the only one of this process. Before exec, so that nothing it starts is outside.
    let late = plan.cgroup.iter().filter(|_| !inside).map(|cgroup| &cgroup.procs);
    for file in late.chain(&plan.tasks) {
        rustix::io::write(file.as_fd(), b"0").map_err(at(Step::Cgroup))?;
    }
    rustix::process::setrlimit(Resource::Nofile, plan.files).map_err(at(Step::Limits))?;
    plan.steps.enter().map_err(at(Step::Isolation))?;
    // Where it is seen from inside.
    rustix::process::chdir(plan.directory.as_c_str()).map_err(at(Step::Directory))?;
    plan.steps.drop_rights().map_err(at(Step::Isolation))
}

/// Becomes the program; gives the reason if that fails. A file that is no program is run by the shell, as `execvp` does.
///
/// # Safety
/// The arrays must end with a null and their other pointers point to C strings.
unsafe fn exec(
    plan: &Plan,
    shell: &CStr,
    arguments: &[*const c_char],
    scripts: &[Vec<*const c_char>],
    environment: &[*const c_char],
) -> Errno {
    let why = || Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL);
    if let Some(own) = &plan.own {
        let (file, nothing, flags) = (own.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH);
        // SAFETY: the caller's promise.
        unsafe { libc::syscall(libc::SYS_execveat, file, nothing, arguments.as_ptr(), environment.as_ptr(), flags) };
        return why();
    }
    let mut refused = Errno::NOENT;
    for (program, script) in plan.programs.iter().zip(scripts) {
        // SAFETY: the caller's promise.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        match why() {
            Errno::NOEXEC => {
                // SAFETY: the caller's promise.
                unsafe { libc::execve(shell.as_ptr(), script.as_ptr(), environment.as_ptr()) };
                return why();
            }
            Errno::NOENT | Errno::NOTDIR => {}
            // One that may not be run is no reason to stop looking, as in `execvp`.
            error @ Errno::ACCESS => refused = error,
            error => return error,
        }
    }
    refused
}
