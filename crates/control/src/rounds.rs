//! What is asked of instances for as long as they are awake: whether they are ready, whether they are well, how much memory
//! they use. One task does it for all of them; while all sleep it waits and costs nothing.
//!
//! An instance is listed when it becomes hot and crossed out when it leaves that state, under its cell's lock. What was
//! found out about it meanwhile is dropped.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use kip_fleet::{Event, Place, ProbeFailure, Reason};
use kip_spec::InstanceId;
use kip_spec::probe::Probing;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::cell::Cell;
use crate::link::Link;

/// Between two looks at memory, which all instances have at the same time.
const MEMORY_PERIOD: u64 = 10_000;
/// Between two looks at the memory of devices, which all instances have at the same time.
const DEVICE_PERIOD: u64 = 5_000;
/// Between two looks at the folder that an instance sees.
const CODE_PERIOD: u64 = 5_000;
/// From being awake to the first look at the libraries that a program loaded, and between two.
const DRIVER_FIRST: u64 = 5_000;
const DRIVER_PERIOD: u64 = 60_000;
/// Less than this is no change that the placer is told of, bytes.
const MEMORY_STEP: u64 = 1 << 20;
/// Questions under way at once.
pub(crate) const AT_ONCE: usize = 64;

/// Who is awake, and what is due when.
#[derive(Debug, Default)]
pub(crate) struct CheckSchedule {
    list: Mutex<List>,
    changed: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct List {
    pub(crate) entries: HashMap<InstanceId, Entry>,
    due: BTreeSet<(u64, InstanceId, CheckKind)>,
    last_number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CheckKind {
    Ready,
    Live,
    Memory,
    Device,
    /// Whether it still finds the files of its version.
    Code,
    /// Whether it has loaded the driver of devices, though it asks for none.
    Driver,
}

/// An instance that is awake.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Tells this time of being awake from others.
    number: u64,
    link: Arc<Link>,
    pub(crate) cell: Weak<Cell>,
    ready_failures: u32,
    /// It was told that it is not ready; successes in a row since.
    unready: Option<u32>,
    live_failures: u32,
    /// What the placer was told last.
    memory: u64,
}

/// Something to find out.
#[derive(Debug, Clone)]
pub(crate) struct DueCheck {
    pub(crate) instance: InstanceId,
    pub(crate) number: u64,
    pub(crate) look: CheckKind,
    pub(crate) link: Arc<Link>,
}

/// What was found out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CheckResult {
    Well,
    Refused,
    Slow,
    Uses(u64),
    Holds(u64),
    Sees(bool),
    LoadsDriver,
}

impl CheckSchedule {
    /// The instance is hot from now on.
    /// `devices`: the server has some.
    pub(crate) fn awake(&self, link: &Arc<Link>, cell: Weak<Cell>, place: Option<Place>, devices: bool) {
        let spec = &link.version.spec;
        let now = kip_host::clock::boot_millis();
        let wanted = [
            link.version.ready_path().map(|_| (now + spec.probes.ready.as_ready().period, CheckKind::Ready)),
            spec.live.as_ref().map(|_| (now + first_live(spec.probes.live.as_live()), CheckKind::Live)),
            (spec.rotation.max_memory.is_some() || spec.resources.memory.is_some())
                .then(|| (next_sweep(now, MEMORY_PERIOD), CheckKind::Memory)),
            place.filter(|place| place.devices != 0).map(|_| (next_sweep(now, DEVICE_PERIOD), CheckKind::Device)),
            spec.code.snapshot.as_ref().map(|_| (now, CheckKind::Code)),
            (devices && spec.resources.gpu.is_none() && !link.version.loads_driver.load(Ordering::Relaxed))
                .then_some((now + DRIVER_FIRST, CheckKind::Driver)),
        ];
        if wanted.iter().all(Option::is_none) {
            return;
        }
        let mut list = self.list();
        list.last_number += 1;
        let entry = Entry {
            number: list.last_number,
            link: link.clone(),
            cell,
            ready_failures: 0,
            unready: None,
            live_failures: 0,
            memory: 0,
        };
        list.cross_out(link.instance);
        list.entries.insert(link.instance, entry);
        list.due.extend(wanted.into_iter().flatten().map(|(at, look)| (at, link.instance, look)));
        drop(list);
        self.changed.notify_one();
    }

    /// The instance sleeps or ends: nothing is asked of it.
    pub(crate) fn asleep(&self, instance: InstanceId) {
        self.list().cross_out(instance);
    }

    /// Waits for what is due. Nothing is taken off the list before it returns.
    pub(crate) async fn next(&self) -> Vec<DueCheck> {
        loop {
            let wait = {
                let mut list = self.list();
                let now = kip_host::clock::boot_millis();
                let due = list.take(now);
                if !due.is_empty() {
                    return due;
                }
                list.due.first().map(|(at, ..)| Duration::from_millis(at.saturating_sub(now)))
            };
            match wait {
                Some(wait) => drop(tokio::time::timeout(wait, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }

    pub(crate) fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock()
    }
}

/// What follows from a look.
pub(crate) enum CheckVerdict {
    Event(Event),
    Uses { memory: u64, outgrown: bool },
    Holds(u64),
    LoadsDriver,
}

impl List {
    fn cross_out(&mut self, instance: InstanceId) {
        if self.entries.remove(&instance).is_some() {
            self.due.retain(|(_, other, _)| *other != instance);
        }
    }

    fn take(&mut self, now: u64) -> Vec<DueCheck> {
        let mut taken = Vec::new();
        while let Some((at, instance, look)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            if let Some(entry) = self.entries.get(&instance) {
                taken.push(DueCheck { instance, number: entry.number, look, link: entry.link.clone() });
            }
        }
        taken
    }

    /// Takes an answer in; those about an earlier time of being awake are dropped.
    pub(crate) fn found(&mut self, due: &DueCheck, found: CheckResult, busy: bool, now: u64) -> Option<CheckVerdict> {
        let instance = due.instance;
        let entry = self.entries.get_mut(&instance).filter(|entry| entry.number == due.number)?;
        let probes = entry.link.version.spec.probes;
        let (ready, live) = (probes.ready.as_ready(), probes.live.as_live());
        let next = match due.look {
            CheckKind::Ready => now + ready.period,
            CheckKind::Live => now + live.period,
            CheckKind::Memory => next_sweep(now, MEMORY_PERIOD),
            CheckKind::Device => next_sweep(now, DEVICE_PERIOD),
            CheckKind::Code => now + CODE_PERIOD,
            CheckKind::Driver => now + DRIVER_PERIOD,
        };
        self.due.insert((next, instance, due.look));
        match (due.look, found) {
            (CheckKind::Ready, CheckResult::Well) => {
                entry.ready_failures = 0;
                let successes = entry.unready.map(|successes| successes.saturating_add(1));
                let again = successes.is_some_and(|successes| successes >= ready.successes);
                entry.unready = successes.filter(|_| !again);
                again.then_some(CheckVerdict::Event(Event::Readiness { instance, ready: true }))
            }
            // Many programs answer one request at a time: then silence says nothing of readiness.
            (CheckKind::Ready, CheckResult::Slow) if busy => None,
            (CheckKind::Ready, CheckResult::Refused | CheckResult::Slow) => {
                entry.ready_failures = entry.ready_failures.saturating_add(1);
                let counts = entry.ready_failures >= ready.failures && entry.unready.is_none();
                if counts || entry.unready.is_some() {
                    entry.unready = Some(0);
                }
                counts.then_some(CheckVerdict::Event(Event::Readiness { instance, ready: false }))
            }
            (CheckKind::Live, CheckResult::Well) => {
                entry.live_failures = 0;
                None
            }
            (CheckKind::Live, CheckResult::Refused | CheckResult::Slow) => {
                entry.live_failures = entry.live_failures.saturating_add(1);
                let how = if matches!(found, CheckResult::Slow) { ProbeFailure::Slow } else { ProbeFailure::Refused };
                // Told again with each failure: the core lets a busy one that is only slow alone.
                (entry.live_failures >= live.failures)
                    .then_some(CheckVerdict::Event(Event::Unhealthy { instance, how }))
            }
            (_, CheckResult::Uses(memory)) => {
                entry.link.uses(memory);
                let limit = entry.link.version.spec.rotation.max_memory;
                let outgrown = limit.is_some_and(|limit| memory > limit.0);
                let declared = entry.link.version.spec.resources.memory.is_some();
                let changed = declared && memory.abs_diff(entry.memory) >= MEMORY_STEP;
                if changed {
                    entry.memory = memory;
                }
                (changed || outgrown).then_some(CheckVerdict::Uses { memory: entry.memory, outgrown })
            }
            (_, CheckResult::Sees(sees)) => {
                let event = Event::Replace { instance, why: Reason::CodeLost };
                entry.link.loses_code(sees).then_some(CheckVerdict::Event(event))
            }
            (_, CheckResult::LoadsDriver) => {
                let known = entry.link.version.loads_driver.swap(true, Ordering::Relaxed);
                (!known).then_some(CheckVerdict::LoadsDriver)
            }
            (_, CheckResult::Holds(held)) => Some(CheckVerdict::Holds(held)),
            (CheckKind::Memory | CheckKind::Device | CheckKind::Code | CheckKind::Driver, _) => None,
        }
    }
}

/// From being awake to the first look at life, milliseconds: the delay, where that is longer than a period.
fn first_live(live: Probing) -> u64 {
    live.period.max(live.delay)
}

/// All instances are looked at together: without cgroups one look reads all of `/proc`.
fn next_sweep(now: u64, period: u64) -> u64 {
    (now / period + 1) * period
}

#[cfg(test)]
pub(crate) use tests::spec as tests_spec;

#[cfg(test)]
mod tests;
