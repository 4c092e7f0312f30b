//! Freezing a tree: lock all, checkpoint all, see that the device's memory is free.

use kip_spec::{Problem, code};

use super::step::{StepOutcome, all_run, call, settled, unlock_all};
use super::{Order, Times, all, note, told};
use crate::driver::Call;
use crate::error::Error;
use crate::journal::{Journal, Step};
use crate::locks::DeviceLocks;

/// How a freeze ended.
#[derive(Debug)]
pub enum FreezeOutcome {
    /// All are checkpointed. The CPU may be frozen now.
    Parked {
        /// How long the calls took.
        times: Times,
        /// What NVML still shows of them on the devices: nothing, if all is well; charged on, if not. `None` if NVML
        /// cannot tell, and then all that it held is charged on.
        residue: Option<u64>,
    },
    /// It was not frozen; all are unlocked and go on as before.
    Unlocked(Error),
    /// It must be ended: there is no way back.
    MustDie(Error),
}

impl FreezeOutcome {
    /// What a person is told of a freeze that was not to be.
    pub fn problem(&self) -> Option<Problem> {
        match self {
            Self::Parked { .. } => None,
            Self::Unlocked(error) => Some(told(code::FREEZE_ABORTED, "it was not frozen and goes on as before", error)),
            Self::MustDie(error) => Some(told(code::FREEZE_LOST, "it was lost while it was frozen", error)),
        }
    }
}

/// Freezes a tree that has nothing in flight and whose processes get CPU.
pub async fn freeze(desk: &DeviceLocks, order: &Order, journal: &dyn Journal) -> FreezeOutcome {
    let _turn = desk.turn(&order.devices).await;
    let mut times = Times::default();
    if let Err(error) = all_run(order) {
        return FreezeOutcome::Unlocked(error);
    }
    if let Err(error) = note(journal, order, Step::Locking, all(order, Call::Lock)).await {
        return FreezeOutcome::Unlocked(error);
    }
    for member in &order.members {
        match call(desk, order, Call::Lock, *member, &mut times).await {
            StepOutcome::Done => {}
            // A lock that may or may not be held is undone like one that is.
            StepOutcome::Untouched(error) | StepOutcome::Unknown(error) => {
                return back(desk, order, error, &mut times).await;
            }
        }
    }
    if let Err(error) = note(journal, order, Step::Checkpointing, all(order, Call::Checkpoint)).await {
        return back(desk, order, error, &mut times).await;
    }
    let mut checkpointed = 0;
    for member in &order.members {
        match call(desk, order, Call::Checkpoint, *member, &mut times).await {
            StepOutcome::Done => checkpointed += 1,
            // Those before it are on the host already; bringing them back could fail as well.
            StepOutcome::Untouched(error) if checkpointed == 0 => return back(desk, order, error, &mut times).await,
            StepOutcome::Untouched(error) | StepOutcome::Unknown(error) => return FreezeOutcome::MustDie(error),
        }
    }
    let residue = settled(desk, order, |bytes| bytes == 0).await;
    if let Err(error) = note(journal, order, Step::Parked, std::time::Duration::ZERO).await {
        // It is parked all the same, and the entry before this one says so together with the state of the processes.
        tracing::warn!(instance = %order.instance, %error, "that it is parked could not be written down");
    }
    FreezeOutcome::Parked { times, residue }
}

/// Unlocks all. If that cannot be done, the tree waits for ever and must be ended.
async fn back(desk: &DeviceLocks, order: &Order, why: Error, times: &mut Times) -> FreezeOutcome {
    match unlock_all(desk, order, times).await {
        Ok(()) => FreezeOutcome::Unlocked(why),
        Err(error) => {
            tracing::warn!(instance = %order.instance, %why, "its freeze was given up, and it cannot be unlocked");
            FreezeOutcome::MustDie(error)
        }
    }
}
