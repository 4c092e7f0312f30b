//! The proof that a device can freeze and wake on this host and driver, with a process of its own: what is frozen leaves
//! the device, and what is woken is what was frozen.

use std::time::Duration;

use kip_host::clock;
use kip_spec::InstanceId;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::Error;
use crate::journal::NullJournal;
use crate::locks::DeviceLocks;
use crate::probe::{Probe, ProbeOptions};
use crate::qualification::Qualification;
use crate::report::{Device, Report};
use crate::tree::{self, FreezeOutcome, Limits, Order, RetireOutcome, Times, WakeOutcome};

/// What the probe holds, if the device has twice as much free.
pub const BYTES: u64 = 1 << 30;
/// And at least.
const FEWEST_BYTES: u64 = 64 << 20;
/// How often it is frozen and woken.
pub const CYCLES: u32 = 3;
/// How long the probe may take for anything while it is awake.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// What to qualify, and how.
#[derive(Debug, Clone)]
pub struct Task {
    /// How the probe is started; the bytes it is to hold are added to its arguments.
    pub probe: ProbeOptions,
    /// How long steps may take.
    pub limits: Limits,
}

/// Qualifies a device. The result is worth keeping also when it did not pass.
///
/// # Errors
/// When it could not even be tried: no driver, no such ability, no room.
pub async fn qualify(
    desk: &DeviceLocks,
    uuid: &str,
    task: &Task,
    mut say: impl FnMut(&str),
) -> Result<Qualification, Error> {
    let report = desk.report().await?;
    let device = pick(&report, uuid)?;
    let driver = report.driver.clone().unwrap_or_default();
    let bytes = BYTES.min(device.memory.free / 2) & !0xfff;
    if bytes < FEWEST_BYTES {
        return Err(Error::NoRoom { device: device.label(), wanted: 2 * FEWEST_BYTES, free: device.memory.free });
    }
    say(&format!("{}: a probe process takes {} MiB", device.label(), bytes >> 20));
    let mut options = task.probe.clone();
    options.arguments.push(bytes.to_string().into());
    let probe = Probe::start(&options, Some(uuid), PROBE_LIMIT).await?;
    let mut run =
        Run { desk, device: &device, limits: task.limits, bytes, times: Times::default(), was_restored: false };
    let result = run.all(probe, &mut say).await;
    let failed = result.err().map(|error| error.problem()).map(|problem| match problem.cause {
        Some(cause) => format!("{}: {cause}", problem.message),
        None => problem.message,
    });
    Ok(Qualification {
        uuid: uuid.to_owned(),
        name: device.name.clone(),
        driver,
        at: clock::wall_millis(),
        failed,
        bytes,
        cycles: CYCLES,
        times: run.times,
    })
}

fn pick(report: &Report, uuid: &str) -> Result<Device, Error> {
    if let Some(why) = &report.cuda_missing {
        return Err(Error::NoDriver(why.clone()));
    }
    if let Some(why) = report.cannot_freeze() {
        return Err(Error::CannotFreeze(why));
    }
    let device = report.devices.iter().find(|device| device.uuid == uuid);
    let device = device.ok_or_else(|| Error::CannotFreeze(format!("there is no device {uuid}")))?;
    if device.partitioned {
        return Err(Error::CannotFreeze("the device is partitioned (MIG)".to_owned()));
    }
    Ok(device.clone())
}

#[derive(Debug)]
struct Run<'a> {
    desk: &'a DeviceLocks,
    device: &'a Device,
    limits: Limits,
    bytes: u64,
    times: Times,
    was_restored: bool,
}

impl Run<'_> {
    async fn all(&mut self, mut probe: Probe, say: &mut impl FnMut(&str)) -> Result<(), Error> {
        let process = probe.pid();
        let result = self.cycles(&mut probe, say).await;
        // Whatever happened, it ends as gently as it can.
        let members = journal_member(process);
        let _ = signal(process, Signal::CONT);
        let retired = tree::retire(self.desk, &self.order(members, 0), &NullJournal).await;
        probe.kill(PROBE_LIMIT).await?;
        result?;
        if let RetireOutcome::Holds(bytes, error) = retired {
            let error = error.map(|error| format!(": {error}")).unwrap_or_default();
            return Err(not(
                "its end",
                format!("it could not be emptied before its kill, {bytes:?} bytes left{error}"),
            ));
        }
        say("its end: emptied, killed");
        self.given_back(process).await
    }

    async fn cycles(&mut self, probe: &mut Probe, say: &mut impl FnMut(&str)) -> Result<(), Error> {
        let process = probe.pid();
        let sum = probe.tell("sum", PROBE_LIMIT).await?.sum;
        let members = tree::find(self.desk, &[process], self.limits.look).await?;
        if members.len() != 1 {
            return Err(not("look", "the driver does not see that the probe uses CUDA".to_owned()));
        }
        let devices = [self.device.uuid.clone()];
        let held = tree::held(self.desk, &members, &devices).await?;
        let Some(held) = held.filter(|held| *held >= self.bytes) else {
            return Err(not("look", format!("the probe holds {} bytes and NVML shows {held:?}", self.bytes)));
        };
        for cycle in 1..=CYCLES {
            let order = self.order(members.clone(), held);
            let frozen = match tree::freeze(self.desk, &order, &NullJournal).await {
                FreezeOutcome::Parked { times, residue: Some(0) } => times,
                FreezeOutcome::Parked { residue: Some(bytes), .. } => {
                    return Err(not("freeze", format!("NVML still shows {bytes} bytes of it")));
                }
                FreezeOutcome::Parked { residue: None, .. } => {
                    return Err(not("freeze", "that its memory is free cannot be verified".to_owned()));
                }
                FreezeOutcome::Unlocked(error) | FreezeOutcome::MustDie(error) => return Err(error),
            };
            // As it is with an instance: the CPU after the GPU, and back in the opposite order.
            signal(process, Signal::STOP)?;
            signal(process, Signal::CONT)?;
            self.was_restored = true;
            let woken = match tree::wake(self.desk, &order, &NullJournal).await {
                WakeOutcome::Awake { times, .. } => times,
                WakeOutcome::Parked(error) | WakeOutcome::MustDie(error) => return Err(error),
            };
            self.times = Times {
                lock_us: frozen.lock_us,
                checkpoint_us: frozen.checkpoint_us,
                restore_us: woken.restore_us,
                unlock_us: woken.unlock_us,
            };
            let after = probe.tell("sum", PROBE_LIMIT).await?.sum;
            if after != sum {
                return Err(not("wake", format!("content has changed: {sum:016x} before, {after:016x} after")));
            }
            say(&format!(
                "cycle {cycle} of {CYCLES}: frozen in {} ms, woken in {} ms, content as before",
                (frozen.lock_us + frozen.checkpoint_us) / 1_000,
                (woken.restore_us + woken.unlock_us) / 1_000
            ));
        }
        Ok(())
    }

    /// Nothing of the probe may be left on the device.
    async fn given_back(&self, process: u32) -> Result<(), Error> {
        let report = self.desk.report().await?;
        let device = report.devices.iter().find(|device| device.uuid == self.device.uuid);
        match device.and_then(|device| device.held_by(process)) {
            Some(bytes @ 1..) => Err(not("its end", format!("it is gone and NVML still shows {bytes} bytes of it"))),
            _ => Ok(()),
        }
    }

    fn order(&self, members: Vec<crate::journal::Member>, bytes: u64) -> Order {
        Order {
            instance: InstanceId { boot: 0, core: 0, sequence: 0 },
            operation: 0,
            members,
            devices: vec![self.device.uuid.clone()],
            bytes: bytes.max(self.bytes),
            was_restored: self.was_restored,
            limits: self.limits,
        }
    }
}

fn journal_member(process: u32) -> Vec<crate::journal::Member> {
    crate::journal::Member::now(process).into_iter().collect()
}

fn signal(process: u32, signal: Signal) -> Result<(), Error> {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or(Error::Ended(process))?;
    kill_process(process, signal).map_err(|error| Error::Probe(error.to_string()))
}

fn not(step: &'static str, what: String) -> Error {
    Error::NotQualified { step, what }
}
