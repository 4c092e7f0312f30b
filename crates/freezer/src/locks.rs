//! Where operations on devices are taken: a resident helper, a spare beside it, and one operation at a time a device.
//!
//! A helper does one thing at a time. Two devices are served by two helpers; one that hangs takes nothing with it but its
//! own operation, because the next one takes the spare and another spare is started.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kip_host::tasks;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Gate, OwnedMutexGuard};

use crate::client::{Helper, Options};
use crate::driver::{Call, State};
use crate::error::{Error, HelperLoss};
use crate::report::Report;
use crate::wire::{Answer, Ask};

/// Ready helpers that are kept: the one that works and the spare.
const KEPT: usize = 2;

/// How long a look may take. NVML answers in milliseconds, but in seconds while a device is being initialised.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// The desk; a cheap handle.
#[derive(Debug, Clone)]
pub struct DeviceLocks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    idle: Mutex<Vec<Helper>>,
    /// Helpers that are being started to be spares.
    coming: Mutex<usize>,
    gates: Mutex<BTreeMap<String, Arc<Gate<()>>>>,
}

/// The right to operate on some devices, until it is dropped.
#[derive(Debug)]
pub struct DeviceGuard {
    _held: Vec<OwnedMutexGuard<()>>,
}

impl DeviceLocks {
    /// Starts the first helper and, beside, the spare.
    ///
    /// # Errors
    /// When no helper can be started.
    pub async fn open(options: Options) -> Result<Self, HelperLoss> {
        let desk = Self::single(options).await?;
        desk.refill();
        Ok(desk)
    }

    /// A desk for one look, without a spare.
    ///
    /// # Errors
    /// When no helper can be started.
    pub async fn single(options: Options) -> Result<Self, HelperLoss> {
        let first = Helper::start(&options).await?;
        let inner =
            Inner { options, idle: Mutex::new(vec![first]), coming: Mutex::new(0), gates: Mutex::new(BTreeMap::new()) };
        Ok(Self(Arc::new(inner)))
    }

    /// Process ids of the helpers that wait for work.
    pub fn helpers(&self) -> Vec<u32> {
        self.idle().iter().filter_map(Helper::pid).collect()
    }

    /// What the last initialisation of CUDA took, of the helpers that wait.
    pub fn started_in(&self) -> Option<Duration> {
        self.idle().last().map(|helper| helper.started_in)
    }

    /// Waits until nobody else operates on any of these devices. They are taken in one order, so that two who want the
    /// same never wait for each other.
    pub async fn turn(&self, devices: &[String]) -> DeviceGuard {
        let mut wanted = devices.to_vec();
        wanted.sort();
        wanted.dedup();
        let mut held = Vec::new();
        for device in wanted {
            let gate = {
                let mut gates = self.0.gates.lock();
                Arc::clone(gates.entry(device).or_default())
            };
            held.push(gate.lock_owned().await);
        }
        DeviceGuard { _held: held }
    }

    /// Asks a helper. If it is lost, so is what it did; the next question goes to another one.
    ///
    /// # Errors
    /// When no helper could be had, and when it ended or hung.
    pub async fn ask(&self, ask: Ask, limit: Duration) -> Result<(Answer, Duration), HelperLoss> {
        let is_look = !matches!(ask, Ask::Act { .. });
        // As many as can have been killed while they waited, and one more.
        for _ in 0..=KEPT {
            match self.ask_one(ask, limit).await {
                // Nothing was done, or nothing that matters: another one may be asked.
                Err(HelperLoss::NotAsked(_)) => {}
                Err(HelperLoss::Ended(_)) if is_look => {}
                other => return other,
            }
        }
        self.ask_one(ask, limit).await
    }

    async fn ask_one(&self, ask: Ask, limit: Duration) -> Result<(Answer, Duration), HelperLoss> {
        let mut helper = match self.take() {
            Some(helper) => helper,
            None => Helper::start(&self.0.options).await?,
        };
        let result = helper.ask(ask, limit).await;
        match result {
            Ok(_) => self.0.keep(helper, true),
            Err(ref lost) => {
                tracing::warn!(error = %lost, "a GPU helper was replaced");
                drop(helper);
                self.refill();
            }
        }
        result
    }

    /// Driver, devices and holders.
    ///
    /// # Errors
    /// When the helper is lost.
    pub async fn report(&self) -> Result<Report, Error> {
        match self.ask(Ask::Report, LOOK_LIMIT).await?.0 {
            Answer::Report(report) => Ok(*report),
            other => Err(unexpected(&other)),
        }
    }

    /// How far a process is.
    ///
    /// # Errors
    /// When the driver cannot tell, or the helper is lost.
    pub async fn state(&self, pid: u32, limit: Duration) -> Result<State, Error> {
        match self.ask(Ask::State { pid }, limit).await?.0 {
            Answer::State(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether a process uses CUDA.
    ///
    /// # Errors
    /// When the driver cannot tell, or the helper is lost.
    pub async fn uses_cuda(&self, pid: u32, limit: Duration) -> Result<bool, Error> {
        match self.ask(Ask::RestoreThread { pid }, limit).await?.0 {
            Answer::RestoreThread(_) => Ok(true),
            Answer::Failed(failed) if failed.advice(Call::RestoreThread) == crate::driver::Advice::Gone => Ok(false),
            other => Err(unexpected(&other)),
        }
    }

    fn idle(&self) -> parking_lot::MutexGuard<'_, Vec<Helper>> {
        self.0.idle.lock()
    }

    /// The resident helper, or the spare; those that have ended meanwhile are thrown away.
    fn take(&self) -> Option<Helper> {
        let mut taken = None;
        let mut ended = false;
        {
            let mut idle = self.idle();
            while let Some(mut helper) = idle.pop() {
                if !helper.has_ended() {
                    taken = Some(helper);
                    break;
                }
                ended = true;
            }
        }
        if ended {
            self.refill();
        }
        taken
    }

    /// Starts what is missing, in the background.
    fn refill(&self) {
        let missing = {
            let mut coming = self.0.coming.lock();
            let missing = KEPT.saturating_sub(self.idle().len() + *coming);
            *coming += missing;
            missing
        };
        for _ in 0..missing {
            let inner = Arc::downgrade(&self.0);
            let options = self.0.options.clone();
            tasks::spawn("gpu helper spare", async move {
                let started = Helper::start(&options).await;
                // The desk may be gone by now; then so is the helper.
                let Some(inner) = inner.upgrade() else { return };
                *inner.coming.lock() -= 1;
                match started {
                    // The one that was used last is used next.
                    Ok(helper) => inner.keep(helper, false),
                    Err(error) => tracing::warn!(%error, "there is no spare GPU helper"),
                }
            });
        }
    }
}

impl Inner {
    /// Keeps a helper for later. One too many is let go: it was started while others were.
    fn keep(&self, helper: Helper, is_next: bool) {
        let mut idle = self.idle.lock();
        if idle.len() < KEPT {
            let at = if is_next { idle.len() } else { 0 };
            idle.insert(at, helper);
        }
    }
}

/// An answer that is not the one to the question, as an error.
pub(crate) fn unexpected(answer: &Answer) -> Error {
    match answer {
        Answer::Failed(failed) => Error::Driver(failed.clone()),
        Answer::NoDriver(why) => Error::NoDriver(why.clone()),
        other => Error::Probe(format!("the helper answered something else: {other:?}")),
    }
}
