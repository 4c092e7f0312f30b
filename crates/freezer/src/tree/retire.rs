//! Before a kill: a process that was ever restored is frozen once more. On some drivers killing one that is alive and
//! was restored hangs the whole host half a minute later; with nothing on the device it is a process like any other.

use super::step::{StepOutcome, call, settled};
use super::{Order, Times, all, note};
use crate::driver::{Call, State};
use crate::error::Error;
use crate::journal::{Journal, Step};
use crate::locks::DeviceLocks;

/// How it ended. The tree is to be killed in each case.
#[derive(Debug)]
pub enum RetireOutcome {
    /// It was never restored, so a kill does no harm.
    NotNeeded,
    /// Nothing of it is on a device any more.
    Empty,
    /// It could not be frozen: the kill comes over a process that still holds this much, `None` if nobody can tell.
    Holds(Option<u64>, Option<Error>),
}

/// Prepares a tree for its kill. Processes must get CPU.
pub async fn retire(desk: &DeviceLocks, order: &Order, journal: &dyn Journal) -> RetireOutcome {
    if !order.was_restored {
        return RetireOutcome::NotNeeded;
    }
    let _turn = desk.turn(&order.devices).await;
    let mut times = Times::default();
    let limit = all(order, Call::Lock) + all(order, Call::Checkpoint);
    // It is going to be killed, so a journal that cannot be written changes nothing.
    let _ = note(journal, order, Step::Retiring, limit).await;
    let mut trouble = None;
    for next in [Call::Lock, Call::Checkpoint] {
        for member in order.members.iter().filter(|member| member.lives()) {
            let state = desk.state(member.pid, order.limits.look).await;
            let is_due = match next {
                Call::Lock => matches!(state, Ok(State::Running)),
                _ => matches!(state, Ok(State::Locked)),
            };
            if is_due
                && let StepOutcome::Untouched(error) | StepOutcome::Unknown(error) =
                    call(desk, order, next, *member, &mut times).await
            {
                trouble.get_or_insert(error);
            }
        }
    }
    match settled(desk, order, |bytes| bytes == 0).await {
        Some(0) => RetireOutcome::Empty,
        held => RetireOutcome::Holds(held, trouble),
    }
}
