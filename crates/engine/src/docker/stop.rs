//! How a container ends: hook, signal, grace, force, removal. The signal goes to its main process, which is the first of its process
//! namespace: when that ends, the kernel ends the others.

use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::KillContainerOptionsBuilder;
use kip_host::clock::boot_millis;
use kip_host::failpoint::reached;
use kip_spec::function::StopSignal;

use super::connect::Engine;
use super::failure::{Failure, failure};
use super::instance::Instance;
use super::journal::{Stage, StopRecord};
use super::{Shared, start};
use crate::body::{Error, StopOrder, Termination};

/// Tries of a removal that the engine refuses, and the pause between two.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// The engine's name of a signal.
fn name(signal: Option<StopSignal>) -> &'static str {
    match signal.unwrap_or(StopSignal::Term) {
        StopSignal::Term => "SIGTERM",
        StopSignal::Int => "SIGINT",
        StopSignal::Quit => "SIGQUIT",
        StopSignal::Hup => "SIGHUP",
        StopSignal::Usr1 => "SIGUSR1",
        StopSignal::Usr2 => "SIGUSR2",
    }
}

/// Whether a process has a say in what a signal does: a handler, or a reason to see it ignored or held back.
pub(super) fn takes(process: u32, signal: Option<StopSignal>) -> bool {
    let number = match signal.unwrap_or(StopSignal::Term) {
        StopSignal::Hup => libc::SIGHUP,
        StopSignal::Int => libc::SIGINT,
        StopSignal::Quit => libc::SIGQUIT,
        StopSignal::Usr1 => libc::SIGUSR1,
        StopSignal::Usr2 => libc::SIGUSR2,
        StopSignal::Term => libc::SIGTERM,
    };
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { return true };
    let set = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    // Not the first of a namespace: it gets what it gets anywhere.
    let is_first = status.lines().any(|line| line.starts_with("NSpid:") && line.split_whitespace().last() == Some("1"));
    let bit = 1_u64 << (number - 1);
    !is_first || ["SigCgt:", "SigIgn:", "SigBlk:"].iter().any(|name| set(name).is_none_or(|mask| mask & bit != 0))
}

impl Shared {
    /// Hook, signal, grace. Returns early when it has ended.
    pub(super) async fn end_gently(&self, engine: &Engine, instance: &Instance, order: &StopOrder) -> Termination {
        // One at a time: a program must not get its signal twice.
        let _turn = instance.stopping.lock().await;
        if let Err(error) = self.unpause(engine, instance).await {
            tracing::warn!(instance = %instance.id, %error, "it could not be resumed before its stop");
        }
        let begun = instance.journal.lock().ending;
        let ending = match begun {
            Some(ending) => ending,
            None => {
                let ending = StopRecord { signal: order.stop.signal, grace: order.grace.0, until: None };
                instance.note(|journal| (journal.stage, journal.ending) = (Stage::Ending, Some(ending)));
                reached("stop: noted");
                if let Some(hook) = order.pre_stop.as_ref().filter(|_| !instance.has_ended())
                    && let Err(error) = instance.call_hook("pre_stop", http::Method::GET, hook).await
                {
                    tracing::warn!(instance = %instance.id, %error, "its stop goes on");
                }
                ending
            }
        };
        let until = match ending.until {
            Some(until) => until,
            None => self.signal(engine, instance, ending).await,
        };
        let left = Duration::from_millis(until.saturating_sub(boot_millis()));
        let mut ended = instance.ended.subscribe();
        if tokio::time::timeout(left, ended.wait_for(Option::is_some)).await.is_ok() {
            return Termination::Graceful;
        }
        let asked_in_vain = boot_millis() < instance.journal.lock().ending.and_then(|ending| ending.until).unwrap_or(0);
        // It had no handler: its end is what the signal means.
        if asked_in_vain { Termination::Graceful } else { Termination::Killed }
    }

    /// Sends the signal, from which the grace counts.
    async fn signal(&self, engine: &Engine, instance: &Instance, ending: StopRecord) -> u64 {
        let until = boot_millis().saturating_add(ending.grace);
        // Before the signal: a program must not get it twice because a server ended in between.
        instance.note(|journal| journal.ending = Some(StopRecord { until: Some(until), ..ending }));
        let options = KillContainerOptionsBuilder::default().signal(name(ending.signal)).build();
        if let Err(error) = engine.docker.kill_container(&instance.container, Some(options)).await {
            // It has ended already, or was removed.
            tracing::debug!(instance = %instance.id, error = %failure(&error), "it takes no signal");
            self.look_at_end(engine, instance).await;
        }
        reached("stop: signalled");
        let process = instance.process.lock().as_ref().map(|(process, _)| *process);
        if process.is_some_and(|process| !takes(process, ending.signal)) {
            // The kernel keeps a signal without a handler from the first process of a namespace; any other program would end.
            return boot_millis();
        }
        until
    }

    /// Ends it by force and removes what is left of it.
    pub(super) async fn end_by_force(&self, engine: &Engine, instance: &Arc<Instance>) -> Result<(), Error> {
        let running = !instance.has_ended();
        if running {
            let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
            let killed = engine.docker.kill_container(&instance.container, Some(options)).await;
            // A frozen process takes its end only when it goes on.
            let _ = self.unpause(engine, instance).await;
            if killed.is_ok() {
                let mut ended = instance.ended.subscribe();
                let _ = tokio::time::timeout(PAUSE, ended.wait_for(Option::is_some)).await;
            }
            self.look_at_end(engine, instance).await;
        }
        // Its last words are in the engine's files, which go with it.
        let output = instance.output.lock().clone();
        if let Some(output) = output {
            output.rest().await;
        }
        let mut tries = 0;
        while let Err(error) = self.remove_container(engine, instance).await {
            tries += 1;
            if tries == TRIES {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.finish(instance, (None, None), false).await;
        Ok(())
    }

    /// Freezes it.
    pub(super) async fn pause(&self, engine: &Engine, instance: &Instance) -> Result<(), Error> {
        match engine.docker.pause_container(&instance.container).await.map_err(|error| failure(&error)) {
            Ok(()) => Ok(()),
            Err(Failure::Conflict(reason)) if reason.contains("already paused") => Ok(()),
            Err(failed) => Err(Error::Engine { what: "pause", instance: instance.id, reason: failed.to_string() }),
        }
    }

    /// Lets it go on; one that is not frozen does.
    pub(super) async fn unpause(&self, engine: &Engine, instance: &Instance) -> Result<(), Error> {
        match engine.docker.unpause_container(&instance.container).await.map_err(|error| failure(&error)) {
            Ok(()) | Err(Failure::Conflict(_)) => Ok(()),
            // Docker's answer about one that runs.
            Err(Failure::Refused(reason)) if reason.contains("not paused") => Ok(()),
            Err(failed) => Err(Error::Engine { what: "resume", instance: instance.id, reason: failed.to_string() }),
        }
    }

    /// Removes containers of this server that no instance stands for.
    pub(super) async fn sweep(&self, engine: &Engine) {
        for (container, labels) in super::follow::list(engine, &self.options.server).await.unwrap_or_default() {
            if !self.roster.has(labels.instance) {
                let _ = start::remove(engine, &container.id).await;
            }
        }
    }
}
