//! The one unsafe block of this room: what a child does between fork and exec.
#![expect(
    unsafe_code,
    reason = "pre_exec is unsafe: only async-signal-safe calls may follow a fork in a threaded process"
)]

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::process::{Resource, Rlimit};

/// Makes the child join its cgroups before its program begins, so that nothing it starts can be outside, gives it back the
/// limit on open files that we were started with, and forbids it to gain privileges. `procs` are the cgroups' open
/// `cgroup.procs`.
pub(super) fn before_exec(command: &mut Command, procs: Vec<File>, files: Rlimit) {
    use std::os::unix::process::CommandExt;
    let child_side = move || {
        for procs in &procs {
            // "0" stands for the writing process.
            rustix::io::write(procs.as_fd(), b"0")?;
        }
        rustix::process::setrlimit(Resource::Nofile, files)?;
        rustix::thread::set_no_new_privs(true)?;
        Ok(())
    };
    // SAFETY: the closure runs in the forked child and only makes three system calls (write, setrlimit, prctl) on values made
    // before the fork; it neither allocates nor takes locks.
    unsafe {
        command.pre_exec(child_side);
    }
}
