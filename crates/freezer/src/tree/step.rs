//! One call on behalf of one process, and what came of it for certain.

use std::time::Duration;

use super::{Order, Times};
use crate::driver::{Advice, Call, State};
use crate::error::Error;
use crate::journal::Member;
use crate::locks::{DeviceLocks, unexpected};
use crate::wire::{Answer, Ask};

/// What came of a call.
#[derive(Debug)]
pub(super) enum StepOutcome {
    /// It was done, and the state shows that.
    Done,
    /// It was not done, and the process is as it was before.
    Untouched(Error),
    /// It may have been done, or not, or in part.
    Unknown(Error),
}

/// Where a call leads.
fn after(call: Call) -> State {
    match call {
        Call::Lock | Call::Restore => State::Locked,
        Call::Checkpoint => State::Checkpointed,
        Call::Unlock | Call::Init | Call::State | Call::RestoreThread => State::Running,
    }
}

/// Calls, and looks what came of it. A call whose helper was lost is not repeated: the state decides whether it was done.
pub(super) async fn call(
    desk: &DeviceLocks,
    order: &Order,
    call: Call,
    member: Member,
    times: &mut Times,
) -> StepOutcome {
    if !member.lives() {
        return StepOutcome::Unknown(Error::Ended(member.pid));
    }
    let limit = order.limits.of(call, order.bytes);
    let timeout_ms = u32::try_from(order.limits.lock.as_millis()).unwrap_or(u32::MAX);
    let ask = Ask::Act { call, pid: member.pid, timeout_ms };
    let mut answer = desk.ask(ask, limit).await;
    // That speaks of the helper, not of the process: another one may do better.
    if let Ok((Answer::Failed(failed), _)) = &answer
        && failed.advice(call) == Advice::Retry
        && matches!(failed.code, Some(3 | 4))
    {
        answer = desk.ask(ask, limit).await;
    }
    match answer {
        Ok((Answer::Done, took)) => {
            times.add(call, took);
            verify(desk, order, call, member).await
        }
        Ok((Answer::Failed(failed), _)) => {
            let touched = failed.advice(call) == Advice::Kill;
            let error = Error::Driver(failed);
            if touched { StepOutcome::Unknown(error) } else { StepOutcome::Untouched(error) }
        }
        Ok((other, _)) => StepOutcome::Untouched(unexpected(&other)),
        // The helper is gone. What it was at may have come to its end: then that is as good as an answer.
        Err(lost) => match desk.state(member.pid, order.limits.look).await {
            Ok(state) if state == after(call) && member.lives() => StepOutcome::Done,
            _ => StepOutcome::Unknown(Error::Helper(lost)),
        },
    }
}

/// The driver said that it was done.
async fn verify(desk: &DeviceLocks, order: &Order, call: Call, member: Member) -> StepOutcome {
    match desk.state(member.pid, order.limits.look).await {
        Ok(state) if state == after(call) => StepOutcome::Done,
        Ok(state) => StepOutcome::Unknown(Error::NotDone {
            call: call.symbol(),
            process: member.pid,
            state: format!("{state:?}").to_lowercase(),
        }),
        Err(error) => StepOutcome::Unknown(error),
    }
}

/// Unlocks whatever of the tree is locked. It has gone well when all of them run.
pub(super) async fn unlock_all(desk: &DeviceLocks, order: &Order, times: &mut Times) -> Result<(), Error> {
    let mut first = None;
    for member in &order.members {
        if let Err(error) = unlock(desk, order, *member, times).await {
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(()), Err)
}

/// Unlocks a process, and tries once more if that fails: nothing can be lost by it.
async fn unlock(desk: &DeviceLocks, order: &Order, member: Member, times: &mut Times) -> Result<(), Error> {
    for last in [false, true] {
        match desk.state(member.pid, order.limits.look).await {
            Ok(State::Running) => return Ok(()),
            Ok(State::Locked) => {}
            Ok(state) => {
                let state = format!("{state:?}").to_lowercase();
                return Err(Error::NotDone { call: Call::Unlock.symbol(), process: member.pid, state });
            }
            Err(error) if last => return Err(error),
            Err(_) => continue,
        }
        match call(desk, order, Call::Unlock, member, times).await {
            StepOutcome::Done => return Ok(()),
            StepOutcome::Untouched(error) | StepOutcome::Unknown(error) if last => return Err(error),
            StepOutcome::Untouched(_) | StepOutcome::Unknown(_) => {}
        }
    }
    Err(Error::Ended(member.pid))
}

/// Whether all live and get CPU. The driver's work is done inside them and would hang.
pub(super) fn all_run(order: &Order) -> Result<(), Error> {
    for member in &order.members {
        if !member.lives() {
            return Err(Error::Ended(member.pid));
        }
        if crate::halt::is_halted(member.pid) {
            return Err(Error::Stopped(member.pid));
        }
    }
    Ok(())
}

/// What the members hold on the devices, asked until `fits` or the limit; the last answer counts. Right after a call NVML
/// may still show what was before it.
pub(super) async fn settled(desk: &DeviceLocks, order: &Order, fits: impl Fn(u64) -> bool) -> Option<u64> {
    const PAUSE: Duration = Duration::from_millis(10);
    let limit = kip_host::clock::boot_millis() + u64::try_from(order.limits.verify.as_millis()).unwrap_or(0);
    loop {
        let held = super::held(desk, &order.members, &order.devices).await.ok().flatten();
        let late = kip_host::clock::boot_millis() >= limit;
        match held {
            Some(bytes) if fits(bytes) || late => return Some(bytes),
            None if late => return None,
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}
