//! How an instance ends, and how we know that nothing of it is left.
//!
//! One rule for functions and jobs. The signal goes to the main process, which knows what its children are and ends them in its own
//! order; to the whole group, if the main process is a shell or launcher that waits for a child and hands no signals on. When the main
//! process has ended, whatever is left gets one SIGTERM and the rest of the grace. SIGKILL comes when the grace is over.

use std::fs;
use std::io;
use std::time::Duration;

use kip_host::clock::boot_millis;
use kip_host::failpoint::reached;
use kip_spec::function::{Stop, StopSignal, StopTarget};
use rustix::process::{Pid, Signal};

use super::journal::StopRecord;
use super::namespace::Namespace;
use super::{Process, cgroup, limits, members};
use crate::body::{Error, StopOrder, Termination};

/// After SIGKILL the kernel needs a moment, longer if memory must be written or freed.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at what is left of an instance: quick at first.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Programs that start another one, wait for it, and do not hand signals on to it. `uv run` does.
const LAUNCHERS: [&str; 13] =
    ["sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox", "make", "time", "conda", "script", "watch"];
/// The same of programs that put the script's name behind theirs.
const SCRIPT_RUNNERS: [&str; 4] = ["npm", "npx", "yarn", "pnpm"];

/// Which processes of a group should be asked to end first, by what its main process is.
pub fn target_of(main: u32) -> StopTarget {
    let name = fs::read_to_string(format!("/proc/{main}/comm")).unwrap_or_default();
    let name = name.trim_end();
    let first = name.split(' ').next().unwrap_or_default();
    let launches = LAUNCHERS.contains(&name) || SCRIPT_RUNNERS.contains(&first);
    if launches && has_children(main) { StopTarget::Group } else { StopTarget::Main }
}

/// A shell that runs its own script and nothing else now is asked as any program is.
fn has_children(main: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{main}/task")).into_iter().flatten().flatten();
    threads.into_iter().any(|thread| {
        fs::read_to_string(thread.path().join("children")).is_ok_and(|children| !children.trim().is_empty())
    })
}

fn signal_of(stop: Stop) -> Signal {
    match stop.signal.unwrap_or(StopSignal::Term) {
        StopSignal::Term => Signal::TERM,
        StopSignal::Int => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
        StopSignal::Hup => Signal::HUP,
        StopSignal::Usr1 => Signal::USR1,
        StopSignal::Usr2 => Signal::USR2,
    }
}

impl Process {
    /// Hook, signal, grace. Returns early when nothing is left. A stop that an earlier server began goes on where it was.
    pub(super) async fn end_gently(&self, order: &StopOrder, server: &str) -> Termination {
        // One at a time: a program must not get its signal twice.
        let _turn = self.stopping.lock().await;
        if let Err(error) = self.thaw() {
            tracing::warn!(instance = %self.id, %error, "it could not be resumed before its stop");
        }
        let begun = self.journal.lock().ending;
        let ending = match begun {
            Some(ending) => ending,
            None => self.announce_end(order).await,
        };
        let ending = if ending.to.is_some() { ending } else { self.ask_to_end(ending) };
        let left = || Duration::from_millis(ending.until.saturating_sub(boot_millis()));
        let mut ended = self.ended.clone();
        if tokio::time::timeout(left(), ended.wait_for(Option::is_some)).await.is_err() {
            return Termination::Killed;
        }
        self.end_rest(ending, server).await
    }

    /// Writes down what is to come and calls the hook.
    async fn announce_end(&self, order: &StopOrder) -> StopRecord {
        let (stop, grace) = (order.stop, order.grace.0);
        let ending = StopRecord { stop, grace, to: None, until: 0, rest_signalled: false };
        self.note(|journal| journal.ending = Some(ending));
        if let Some(hook) = order.pre_stop.as_ref().filter(|_| self.ended.borrow().is_none())
            && let Err(error) = self.call_hook("pre_stop", http::Method::GET, hook).await
        {
            tracing::warn!(instance = %self.id, %error, "its stop goes on");
        }
        ending
    }

    /// Sends the signal, from which the grace counts. A main process that has ended by itself leaves the rest to be asked.
    fn ask_to_end(&self, ending: StopRecord) -> StopRecord {
        let to = ending.stop.to.unwrap_or_else(|| target_of(self.pid));
        let until = boot_millis().saturating_add(ending.grace);
        let ending = StopRecord { to: Some(to), until, ..ending };
        // Before the signal: a program must not get it twice because a server ended in between.
        self.note(|journal| journal.ending = Some(ending));
        let signal = signal_of(ending.stop);
        let sent = match to {
            StopTarget::Group => self.signal_group(signal),
            StopTarget::Main => self.signal_main(signal),
        };
        if let Err(error) = sent {
            tracing::debug!(instance = %self.id, %error, "it has ended already");
        }
        reached("stop: signalled");
        ending
    }

    /// The main process has ended: whatever is left gets SIGTERM, unless it got the signal with its group, and the rest of the grace.
    async fn end_rest(&self, ending: StopRecord, server: &str) -> Termination {
        let mut rest = self.leftover(server);
        if !rest.is_empty() && !ending.rest_signalled {
            self.note(|journal| journal.ending = Some(StopRecord { rest_signalled: true, ..ending }));
            let had_it = |process: &u32| ending.to == Some(StopTarget::Group) && self.is_in_group(*process);
            rest.iter().copied().filter(|process| !had_it(process)).for_each(members::terminate);
        }
        let mut pause = FIRST_PAUSE;
        while !rest.is_empty() && boot_millis() < ending.until {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            rest = self.leftover(server);
        }
        if rest.is_empty() { Termination::Graceful } else { Termination::Killed }
    }

    /// Whether a process is in the group of the main process.
    fn is_in_group(&self, process: u32) -> bool {
        let process = i32::try_from(process).ok().and_then(Pid::from_raw);
        let group = process.and_then(|process| rustix::process::getpgid(Some(process)).ok());
        group.is_some_and(|group| group.as_raw_nonzero().get().unsigned_abs() == self.pid)
    }

    fn signal_main(&self, signal: Signal) -> io::Result<()> {
        if self.ended.borrow().is_some() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let main = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(rustix::process::kill_process(main, signal)?)
    }

    /// SIGKILL to everything of it, until nothing is left.
    pub(super) async fn end_by_force(&self, server: &str) -> Result<(), Error> {
        let mut pause = Duration::from_millis(1);
        let give_up = tokio::time::timeout(KILL_LIMIT, async {
            loop {
                self.kill_all(server);
                if self.ended.borrow().is_some() && self.leftover(server).is_empty() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        if give_up.await.is_err() {
            return Err(Error::Slow { what: "end", instance: self.id });
        }
        let journal = self.journal.lock();
        if let Some(peak) = limits::peak_memory(&journal.cgroups()) {
            tracing::info!(instance = %self.id, peak_memory = peak, "nothing of it is left");
        }
        journal.cgroups().into_iter().for_each(cgroup::remove);
        Ok(())
    }

    fn kill_all(&self, server: &str) {
        match &self.cgroup {
            // One write ends everything in it, frozen or not, and whatever it forks meanwhile.
            Some(folder) => {
                let _ = cgroup::kill(folder);
                self.strays().into_iter().for_each(members::kill);
            }
            None => {
                if self.ended.borrow().is_none() || !self.members().is_empty() {
                    let _ = self.signal_group(Signal::KILL);
                }
                self.leftover(server).into_iter().for_each(members::kill);
            }
        }
    }

    /// What is still there of it: in its cgroup and what has left that, or, without one, anywhere by the mark in its environment.
    fn leftover(&self, server: &str) -> Vec<u32> {
        match &self.cgroup {
            Some(folder) => {
                let mut left = cgroup::processes(folder);
                left.extend(self.strays());
                left
            }
            None => {
                let mut left = members::marked_instance(server, &self.id.to_string());
                // What has cleared its environment and left its group is still in its namespace.
                left.extend(self.namespace.iter().flat_map(Namespace::processes));
                left.sort_unstable();
                left.dedup();
                left
            }
        }
    }
}
