//! The rung of the CUDA driver: device memory moved to the host and back without the program's help, on devices that have proved
//! that it works (`kip device qualify`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use kip_engine::Body;
use kip_fleet::Place;
use kip_freezer::journal::{Entry, Journal, Step};
use kip_freezer::recovery::{Decision, MemberState, decide};
use kip_freezer::tree::{self, FreezeOutcome, Limits, Order, RetireOutcome, WakeOutcome};
use kip_freezer::{DeviceLocks, Options, Qualifications};
use kip_host::clock;
use kip_spec::InstanceId;

use crate::memo::{Memo, MemoryState};

/// Between two looks at a tree whose step may still go on inside its processes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The driver, and the devices that it may freeze processes on.
#[derive(Debug, Clone)]
pub struct DriverRung {
    helpers: DeviceLocks,
    /// What names each device of this host for ever, by its number.
    devices: Vec<String>,
}

/// What became of a tree that an earlier server was freezing or waking.
#[derive(Debug)]
pub(crate) enum RecoveredTree {
    /// It is frozen, whole.
    Parked(Entry),
    /// It runs. The entry is that of one that was restored once.
    Running(Option<Entry>),
}

/// What a freeze came to.
#[derive(Debug)]
pub(crate) enum FreezeResult {
    /// Its memory is on the host. `held` is what it keeps on the devices, if the driver shows that.
    Parked { entry: Option<Entry>, held: Option<u64> },
    /// It runs as before.
    Running(String),
    /// It must be ended.
    Lost(String),
}

impl DriverRung {
    /// The rung of this host: there is one if each of its `devices` is qualified with the driver that runs now.
    pub async fn find(data: &Path, program: PathBuf, devices: usize) -> Option<Self> {
        let qualifications = Qualifications::read(data);
        if devices == 0 || qualifications == Qualifications::default() {
            return None;
        }
        let helpers = match DeviceLocks::open(Options::new(program)).await {
            Ok(helpers) => helpers,
            Err(error) => {
                tracing::warn!(%error, "devices are qualified for freezing, and no helper starts: instances are not frozen by the driver");
                return None;
            }
        };
        let report = helpers.report().await.ok()?;
        if let Some(why) = report.cannot_freeze() {
            tracing::warn!(why, "instances are not frozen by the driver");
            return None;
        }
        let of = |number: usize| report.devices.iter().find(|device| device.index as usize == number);
        let mut known = Vec::new();
        for number in 0..devices {
            match of(number).filter(|device| !device.partitioned && qualifications.is_qualified(&report, device)) {
                Some(device) => known.push(device.uuid.clone()),
                None => {
                    tracing::info!(
                        device = number,
                        "the device is not qualified on this driver: no instance is frozen by it (kip device qualify)"
                    );
                    return None;
                }
            }
        }
        Some(Self { helpers, devices: known })
    }

    fn names(&self, place: Place) -> Vec<String> {
        place.devices().filter_map(|number| self.devices.get(number).cloned()).collect()
    }

    /// Moves the device memory of processes that get CPU to the host.
    pub(crate) async fn freeze(
        &self,
        instance: InstanceId,
        place: Place,
        processes: &[u32],
        was_restored: bool,
        notes: &EntryNotes<'_>,
    ) -> FreezeResult {
        let limits = Limits::default();
        let devices = self.names(place);
        let members = match tree::find(&self.helpers, processes, limits.look).await {
            Ok(members) => members,
            Err(error) => return FreezeResult::Running(error.problem().to_string()),
        };
        if members.is_empty() {
            return FreezeResult::Parked { entry: None, held: Some(0) };
        }
        let bytes = match tree::held(&self.helpers, &members, &devices).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return FreezeResult::Running("the driver does not show how much it holds".to_owned()),
            Err(error) => return FreezeResult::Running(error.problem().to_string()),
        };
        let order = Order { instance, operation: 0, members, devices, bytes, was_restored, limits };
        match tree::freeze(&self.helpers, &order, notes).await {
            FreezeOutcome::Parked { residue, .. } => {
                let entry = entry_of(&order, Step::Parked);
                FreezeResult::Parked { entry: Some(entry), held: Some(residue.unwrap_or(bytes)) }
            }
            FreezeOutcome::Unlocked(error) => FreezeResult::Running(error.problem().to_string()),
            FreezeOutcome::MustDie(error) => FreezeResult::Lost(error.problem().to_string()),
        }
    }

    /// Moves it back. The processes get CPU.
    ///
    /// # Errors
    /// Why it must be ended.
    pub(crate) async fn wake(&self, entry: &Entry, notes: &EntryNotes<'_>) -> Result<Entry, String> {
        let order = order_of(entry);
        match tree::wake(&self.helpers, &order, notes).await {
            WakeOutcome::Awake { .. } => Ok(Entry { was_restored: true, ..entry_of(&order, Step::Unlocking) }),
            WakeOutcome::Parked(error) | WakeOutcome::MustDie(error) => Err(error.problem().to_string()),
        }
    }

    /// Before a kill of processes that were restored once: with some drivers the host hangs if they hold memory then.
    pub(crate) async fn retire(&self, entry: &Entry, notes: &EntryNotes<'_>) {
        if let RetireOutcome::Holds(held, error) = tree::retire(&self.helpers, &order_of(entry), notes).await {
            let error = error.map(|error| error.problem().to_string());
            tracing::warn!(instance = %entry.instance, held, error, "it is killed with memory on a device");
        }
    }

    /// What a tree is like that an earlier server was freezing or waking: still frozen, which is its entry, or running.
    ///
    /// # Errors
    /// Why it must be ended.
    pub(crate) async fn recover(&self, entry: &Entry) -> Result<RecoveredTree, &'static str> {
        // Once it was restored, it must give its memory back before it is killed.
        let restored = entry.was_restored || matches!(entry.step, Step::Restoring | Step::Unlocking);
        let running = || {
            let entry = Entry { was_restored: true, step: Step::Unlocking, ..entry.clone() };
            RecoveredTree::Running(restored.then_some(entry))
        };
        let boot = clock::boot_id().unwrap_or_default();
        loop {
            let mut seen = Vec::new();
            for member in &entry.members {
                seen.push(match member.lives() {
                    false => MemberState::Ended,
                    true => match self.helpers.state(member.pid, Limits::default().look).await {
                        Ok(state) => MemberState::Is(state),
                        Err(_) => MemberState::Unknown,
                    },
                });
            }
            match decide(entry, &seen, clock::boot_millis(), &boot) {
                Decision::Forget => return Ok(RecoveredTree::Running(None)),
                Decision::Serve => return Ok(running()),
                Decision::Keep => return Ok(RecoveredTree::Parked(Entry { step: Step::Parked, ..entry.clone() })),
                Decision::Unlock(_) => {
                    let unlocked = tree::unlock(&self.helpers, &order_of(entry)).await;
                    return unlocked.map(|()| running()).map_err(|_| "its processes could not be unlocked");
                }
                Decision::LookAgain => tokio::time::sleep(LOOK_AGAIN).await,
                Decision::Kill(why) => return Err(why),
            }
        }
    }
}

fn order_of(entry: &Entry) -> Order {
    Order {
        instance: entry.instance,
        operation: entry.operation,
        members: entry.members.clone(),
        devices: entry.devices.clone(),
        bytes: entry.bytes,
        was_restored: entry.was_restored,
        limits: Limits::default(),
    }
}

fn entry_of(order: &Order, step: Step) -> Entry {
    Entry {
        instance: order.instance,
        operation: order.operation,
        step,
        members: order.members.clone(),
        devices: order.devices.clone(),
        bytes: order.bytes,
        was_restored: order.was_restored,
        boot_id: clock::boot_id().unwrap_or_default(),
        until: clock::boot_millis(),
    }
}

/// Where the steps of the driver are written down: in the body's journal of the instance.
#[derive(Debug)]
pub(crate) struct EntryNotes<'a> {
    pub(crate) body: &'a dyn Body,
    pub(crate) memo: Memo,
}

#[async_trait]
impl Journal for EntryNotes<'_> {
    async fn write(&self, entry: &Entry) -> Result<(), String> {
        let memo = Memo { memory: MemoryState::Unknown, tree: Some(Box::new(entry.clone())), ..self.memo.clone() };
        self.body.remember(entry.instance, &memo.to_string()).await.map_err(|error| error.to_string())
    }
}
