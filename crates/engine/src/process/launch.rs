//! The parent's side of a start: prepares what the child needs, and waits until its program has begun.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::unsafe_isolate::Steps;
use super::unsafe_spawn::{self, Cgroup, Plan, Session, Step};

/// A program and where it is to run.
#[derive(Debug)]
pub(super) struct Launch<'order> {
    pub(super) program: &'order Path,
    /// It is our own program, which the child may not find by its path any more.
    pub(super) is_own: bool,
    pub(super) arguments: &'order [String],
    pub(super) environment: &'order BTreeMap<String, String>,
    pub(super) directory: &'order Path,
    /// What keeps it from the server.
    pub(super) steps: Steps,
    pub(super) stdout: File,
    pub(super) stderr: File,
    pub(super) cgroup: Option<&'order Path>,
    /// Its folders in the hierarchies of v1.
    pub(super) limits: &'order [PathBuf],
}

/// Why no program began.
#[derive(Debug)]
pub(super) struct LaunchFailure {
    pub(super) step: Step,
    pub(super) error: io::Error,
}

impl Launch<'_> {
    /// Allocates and opens all that the child needs.
    pub(super) fn plan(self) -> io::Result<Plan> {
        let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
        let write = |file: PathBuf| OpenOptions::new().write(true).open(file);
        let variable = |(name, value): (&String, &String)| text(OsStr::new(&format!("{name}={value}")));
        let cgroup = |folder: &Path| {
            Ok::<_, io::Error>(Cgroup { folder: File::open(folder)?, procs: write(folder.join("cgroup.procs"))? })
        };
        Ok(Plan {
            programs: vec![text(self.program.as_os_str())?],
            own: self
                .is_own
                .then(|| rustix::fs::open(self.program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))
                .transpose()?,
            steps: self.steps,
            arguments: self.arguments.iter().map(|word| text(OsStr::new(word))).collect::<io::Result<_>>()?,
            environment: self.environment.iter().map(variable).collect::<io::Result<_>>()?,
            directory: text(self.directory.as_os_str())?,
            streams: [File::open("/dev/null")?, self.stdout, self.stderr],
            session: Session::Group,
            files: kip_host::limits::open_files_at_start(),
            cgroup: self.cgroup.map(cgroup).transpose()?,
            tasks: self.limits.iter().map(|folder| write(folder.join("tasks"))).collect::<io::Result<_>>()?,
        })
    }
}

/// Starts the program and waits until it has begun. The plan ends with it, for it holds our copies of the child's ends of its
/// pipes, which would keep them from ever ending.
pub(super) fn launch(plan: Plan) -> Result<Pid, LaunchFailure> {
    let failed = |error: io::Error| LaunchFailure { step: Step::Program, error };
    let (reports, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let child = unsafe_spawn::start(&plan, report.as_fd()).map_err(failed)?;
    drop((report, plan));
    let mut said = Vec::new();
    // Ends without a word when the program begins, or when the child was killed before; then its end is seen as any other.
    let _ = File::from(reports).read_to_end(&mut said);
    let [step, a, b, c, d] = *said.as_slice() else { return Ok(child) };
    let _ = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(child), WaitIdOptions::EXITED));
    let step = Step::ALL.into_iter().find(|known| *known as u8 == step).unwrap_or(Step::Program);
    Err(LaunchFailure { step, error: io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d])) })
}

#[cfg(test)]
#[path = "launch_tests.rs"]
mod tests;
