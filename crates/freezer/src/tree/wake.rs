//! Waking a tree: see that there is room, restore all, unlock all.

use kip_spec::{Problem, code};

use super::step::{StepOutcome, all_run, call, settled, unlock_all};
use super::{Order, Times, all, note, told};
use crate::driver::Call;
use crate::error::Error;
use crate::journal::{Journal, Step};
use crate::locks::DeviceLocks;

/// How a wake ended.
#[derive(Debug)]
pub enum WakeOutcome {
    /// All run.
    Awake {
        /// How long the calls took.
        times: Times,
        /// What they hold on the devices now; `None` if NVML cannot tell.
        held: Option<u64>,
    },
    /// Nothing was touched: it is parked as before.
    Parked(Error),
    /// It must be ended: a restore is never repeated.
    MustDie(Error),
}

impl WakeOutcome {
    /// What a person is told of a wake that was not to be.
    pub fn problem(&self) -> Option<Problem> {
        match self {
            Self::Awake { .. } => None,
            Self::Parked(error) => Some(error.problem()),
            Self::MustDie(error) => Some(told(code::FREEZE_LOST, "it was lost while it was woken", error)),
        }
    }
}

/// What must be free beside what the tree held: a restore that finds no room costs the instance, and the driver itself
/// takes some.
pub(super) const MARGIN: u64 = 64 << 20;

/// Wakes a parked tree whose processes get CPU again and whose memory is reserved.
pub async fn wake(desk: &DeviceLocks, order: &Order, journal: &dyn Journal) -> WakeOutcome {
    let _turn = desk.turn(&order.devices).await;
    let mut times = Times::default();
    for check in [all_run(order), room(desk, order).await] {
        if let Err(error) = check {
            return WakeOutcome::Parked(error);
        }
    }
    if let Err(error) = note(journal, order, Step::Restoring, all(order, Call::Restore)).await {
        return WakeOutcome::Parked(error);
    }
    let mut restored = 0;
    for member in &order.members {
        match call(desk, order, Call::Restore, *member, &mut times).await {
            StepOutcome::Done => restored += 1,
            StepOutcome::Untouched(error) if restored == 0 => return WakeOutcome::Parked(error),
            StepOutcome::Untouched(error) | StepOutcome::Unknown(error) => return WakeOutcome::MustDie(error),
        }
    }
    let held = settled(desk, order, |bytes| bytes > 0).await;
    if let Err(error) = note(journal, order, Step::Unlocking, all(order, Call::Unlock)).await {
        // The entry before this one, together with locked processes, leads to the same.
        tracing::warn!(instance = %order.instance, %error, "that it was restored could not be written down");
    }
    match unlock_all(desk, order, &mut times).await {
        Ok(()) => WakeOutcome::Awake { times, held },
        Err(error) => WakeOutcome::MustDie(error),
    }
}

/// Whether the devices show as much free memory as is needed. What was reserved in a ledger is not what is free.
async fn room(desk: &DeviceLocks, order: &Order) -> Result<(), Error> {
    let report = desk.report().await?;
    if let Some(why) = &report.nvml_missing {
        return Err(Error::CannotFreeze(format!("whether there is room cannot be verified: {why}")));
    }
    let devices: Vec<_> = report.devices.iter().filter(|device| order.devices.contains(&device.uuid)).collect();
    let free: u64 = devices.iter().map(|device| device.memory.free).sum();
    let wanted = order.bytes.saturating_add(MARGIN);
    if devices.len() < order.devices.len() || free < wanted {
        return Err(Error::NoRoom { device: order.devices.join(", "), wanted, free });
    }
    Ok(())
}
