//! What is added up by the minute: the time of instances and the work for keys, by day; and what policies have learnt, so that the next
//! server goes on from there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kip_fleet::state::{NAMES, STATES};
use kip_fleet::{Event, History, Usage};
use kip_spec::{FunctionName, InstanceId, VersionId};
use kip_store::{InstanceTime, KeyTime, LearntHistory, PricedVersion, Record};
use kip_wire::Budget;
use parking_lot::Mutex;

use crate::Version;
use crate::cell::{Cell, now};
use crate::error::Error;
use crate::shared::Shared;

/// Between two additions.
const PERIOD: Duration = Duration::from_secs(60);
/// Milliseconds of a minute.
const MINUTE: i64 = 60_000;
/// Milliseconds of a day.
pub(crate) const DAY: i64 = 86_400_000;

/// What was added up already.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// Of living instances, milliseconds by state.
    counted: Mutex<HashMap<InstanceId, [u64; STATES]>>,
    /// Versions whose prices are written down.
    priced: Mutex<BTreeSet<VersionId>>,
    /// What was last written of each function's history, as a hash.
    learnt: Mutex<BTreeMap<FunctionName, u64>>,
    /// Budgets as they were last checked.
    pub(crate) budgets: Mutex<Vec<Budget>>,
    /// There may be budgets.
    pub(crate) has_budgets: AtomicBool,
}

impl Accounts {
    /// The time of an instance that was not added up yet, by state.
    fn fresh(&self, usage: &Usage, gone: bool) -> Vec<(usize, u64)> {
        let mut times = [0; STATES];
        for (state, time) in times.iter_mut().enumerate() {
            *time = usage.times.iter().map(|kind| kind[state]).sum();
        }
        let mut counted = self.counted.lock();
        let before = if gone { counted.remove(&usage.instance) } else { counted.insert(usage.instance, times) };
        let before = before.unwrap_or([0; STATES]);
        let fresh = times.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).enumerate();
        fresh.filter(|(_, time)| *time > 0).collect()
    }
}

impl Shared {
    /// Adds up for ever.
    pub(crate) async fn keep_accounts(self: Arc<Self>) {
        let mut minute = 0u32;
        loop {
            tokio::time::sleep(PERIOD).await;
            minute = minute.wrapping_add(1);
            // Sleepers cost a row each: their time is added by the hour, and in the last minute of a day.
            let day_ends = now().wall.rem_euclid(DAY) > DAY - 2 * MINUTE;
            self.account_for(minute.is_multiple_of(60) || day_ends);
            self.watch_budgets().await;
        }
    }

    /// Hands everything that was not added up yet to the recorder.
    pub(crate) fn account(&self) {
        self.account_for(true);
    }

    /// The same, of functions that sleep only if `sleepers` says so.
    fn account_for(&self, sleepers: bool) {
        for cell in self.all_cells() {
            if !sleepers && !cell.is_awake() {
                continue;
            }
            let mut living = Vec::new();
            cell.living(|usage| living.push(*usage));
            living.iter().for_each(|usage| self.spend(cell.name(), usage, false));
            let versions = living.iter().map(|usage| usage.version).collect::<BTreeSet<_>>();
            versions.into_iter().for_each(|version| self.price(&cell, version));
            self.save_history(&cell);
        }
        let day = now().wall / DAY;
        for (version, key, sum) in self.recorder.ledger().take() {
            let (key, function) = (key.as_deref().unwrap_or_default().to_owned(), sum.function.to_string());
            let (requests, micros) = (sum.requests, sum.micros);
            self.recorder.record(Record::KeyTime(KeyTime { day, function, version, key, requests, micros }));
        }
    }

    /// Adds an instance's time to the present day.
    pub(crate) fn spend(&self, function: &FunctionName, usage: &Usage, gone: bool) {
        let day = now().wall / DAY;
        for (state, millis) in self.accounts.fresh(usage, gone) {
            let (function, state) = (function.to_string(), NAMES[state].to_owned());
            let version = usage.version.0;
            self.recorder.record(Record::InstanceTime(InstanceTime { day, function, version, state, millis }));
        }
    }

    /// Writes down what a version is priced by, once for each start of the server.
    pub(crate) fn price(&self, cell: &Cell, version: VersionId) {
        if self.accounts.priced.lock().contains(&version) {
            return;
        }
        let held = cell.lock().held_version(version);
        if let Some(version) = held {
            self.price_version(&version);
        }
    }

    fn price_version(&self, version: &Version) {
        let Ok(resources) = serde_json::to_string(&version.spec.resources) else { return };
        let (label, pauses) = (version.label(), version.spec.idle.pause.is_some());
        let record = PricedVersion { version: version.id.0, label, resources, pauses };
        self.recorder.record(Record::PricedVersion(record));
        self.accounts.priced.lock().insert(version.id);
    }

    /// Writes down what a function's policy has learnt, if that is new.
    pub(crate) fn save_history(&self, cell: &Cell) {
        let time = now();
        let Some(history) = cell.history(time) else { return };
        let mut learnt = self.accounts.learnt.lock();
        let mut hash = DefaultHasher::new();
        // The time of asking is new each time.
        let text = serde_json::to_string(&(&history.costs, &history.auto)).unwrap_or_default();
        text.hash(&mut hash);
        if learnt.insert(cell.name().clone(), hash.finish()) == Some(hash.finish()) {
            return;
        }
        drop(learnt);
        let Ok(history) = serde_json::to_string(&history) else { return };
        let record = LearntHistory { function: cell.name().to_string(), history, at: time.wall };
        self.recorder.record(Record::Learnt(record));
    }

    /// A removed function is forgotten: one of the same name is another one.
    pub(crate) async fn forget_history(&self, function: &FunctionName) {
        if self.accounts.learnt.lock().remove(function).is_none() {
            return;
        }
        self.recorder.flush().await;
        if let Err(error) = self.records.forget_learnt(vec![function.to_string()]).await {
            tracing::warn!(%function, %error, "what was learnt of a removed function stays");
        }
    }

    /// Tells cells what an earlier server has learnt, and forgets it of functions that are gone.
    pub(crate) async fn remember_learnt(&self) -> Result<(), Error> {
        let mut gone = Vec::new();
        let time = now();
        for LearntHistory { function, history, .. } in self.records.learnt().await? {
            let Some(cell) = self.cell_named(&function) else {
                gone.push(function);
                continue;
            };
            match serde_json::from_str::<History>(&history) {
                Ok(history) => {
                    self.accounts.learnt.lock().insert(cell.name().clone(), 0);
                    cell.remember(&Event::Learnt { history: Box::new(history.moved(time)) });
                }
                Err(error) => {
                    tracing::warn!(function, %error, "what its scaling policy has learnt cannot be read; it begins anew");
                    gone.push(function);
                }
            }
        }
        if !gone.is_empty() {
            self.records.forget_learnt(gone).await?;
        }
        Ok(())
    }
}
