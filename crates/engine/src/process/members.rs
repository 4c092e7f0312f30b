//! Which processes belong to an instance, and what is done to all of them at once.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal};

use super::{FREEZE_LIMIT, Process, cgroup};
use crate::body::Error;
use crate::contract;

impl Process {
    /// Its processes that have left its cgroup, or without one its group: those in its namespace, else those with its mark.
    pub(super) fn strays(&self) -> Vec<u32> {
        let found = match (&self.namespace, &self.cgroup) {
            (Some(namespace), _) => namespace.processes(),
            // Its user may write no file of a cgroup.
            (None, Some(_)) if self.is_other_user => return Vec::new(),
            // Without a cgroup a search for marks would be all that a pause costs.
            (None, None) => return Vec::new(),
            (None, Some(_)) => marked_instance(&self.server, &self.id.to_string()),
        };
        let members = self.members();
        found.into_iter().filter(|process| !members.contains(process)).collect()
    }

    /// Stops those that no freezer and no signal to the group reaches.
    fn stop_strays(&self) {
        let strays = self.strays();
        strays.iter().for_each(|process| signal(*process, Signal::STOP));
        *self.stopped_strays.lock() = strays;
    }

    /// Its processes: those of its cgroup, else of its process group.
    pub(super) fn members(&self) -> Vec<u32> {
        match &self.cgroup {
            Some(folder) => cgroup::processes(folder),
            None if !self.leads_group => Vec::new(),
            None => kip_host::sockets::processes_by_group().remove(&self.pid).unwrap_or_default(),
        }
    }

    /// Takes the CPU away from all of them and waits until that is so.
    pub(super) async fn freeze(&self) -> Result<(), Error> {
        let failed = |source| Error::Io { what: "pause", instance: self.id, source };
        let Some(folder) = &self.cgroup else {
            self.signal_group(Signal::STOP).map_err(failed)?;
            self.stop_strays();
            return Ok(());
        };
        cgroup::set_frozen(folder, true).map_err(failed)?;
        let frozen = async {
            let mut pause = std::time::Duration::from_micros(100);
            while !cgroup::is_frozen(folder)? {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(std::time::Duration::from_millis(20));
            }
            Ok(())
        };
        match tokio::time::timeout(FREEZE_LIMIT, frozen).await {
            Ok(result) => result.map_err(failed).map(|()| self.stop_strays()),
            Err(_) => {
                let _ = cgroup::set_frozen(folder, false);
                Err(Error::Slow { what: "pause", instance: self.id })
            }
        }
    }

    /// Gives them their CPU back.
    pub(super) fn thaw(&self) -> Result<(), Error> {
        let failed = |source| Error::Io { what: "resume", instance: self.id, source };
        match &self.cgroup {
            Some(folder) => cgroup::set_frozen(folder, false).map_err(failed)?,
            None => self.signal_group(Signal::CONT).map_err(failed)?,
        }
        // Those that were stopped with it: a search would make it wake late.
        std::mem::take(&mut *self.stopped_strays.lock()).into_iter().for_each(|process| signal(process, Signal::CONT));
        Ok(())
    }

    /// Sends a signal to its process group. No such group is an error of kind `NotFound`.
    pub(super) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if !self.leads_group {
            return Err(io::ErrorKind::NotFound.into());
        }
        let group = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        rustix::process::kill_process_group(group, signal).map_err(|error| match error {
            rustix::io::Errno::SRCH => io::ErrorKind::NotFound.into(),
            other => other.into(),
        })
    }
}

/// Processes that carry this variable in the environment they were started with: they find even what left its group.
pub(super) fn marked(variable: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{variable}={value}");
    kip_host::sockets::all_processes()
        .into_iter()
        .filter(|process| {
            fs::read(format!("/proc/{process}/environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
        })
        .collect()
}

/// Processes of one instance of one server.
pub(super) fn marked_instance(server: &str, instance: &str) -> Vec<u32> {
    let of_server = marked(contract::SERVER, server);
    if of_server.is_empty() {
        return of_server;
    }
    let of_instance = marked(contract::INSTANCE, instance);
    of_server.into_iter().filter(|process| of_instance.contains(process)).collect()
}

fn signal(process: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Asks a process to end; one that is gone already is fine.
pub(super) fn terminate(process: u32) {
    signal(process, Signal::TERM);
}

/// Ends a process by force; one that is gone already is fine.
pub(super) fn kill(process: u32) {
    signal(process, Signal::KILL);
}
