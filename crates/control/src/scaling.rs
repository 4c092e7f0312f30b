//! What scaling policies decided, written down so that it can be repeated, and what is provisioned from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kip_fleet::function::ProvisionedTarget;
use kip_fleet::scaler::session::{FcDecision, FcLine, KpaDecision, KpaLine};
use kip_fleet::scaler::{Knative, Scaler as _};
use kip_fleet::{Class, Event, FunctionCore, Qualifier};
use kip_host::failpoint::reached;
use kip_spec::qualifier::LATEST;
use kip_spec::scaling::provision::{Metric, shown};
use kip_spec::scaling::{Fc, Scaling};
use kip_spec::{FunctionName, Millis, QualifierName, VersionId};
use kip_store::{
    Author, Change, DecisionRecord, Effect, Object, ReachedTarget, Record, ScalingRecord, SettingChange,
    StoredProvision, UnreadableRow,
};
use kip_wire::ScalingInfo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cell::{Cell, Inner, LastLogged, LastLook, PolicyObservation, now};
use crate::control::Control;
use crate::error::Error;
use crate::shared::Shared;
use kip_records::decision::Decision;

/// What is provisioned, as users see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProvisionInfo {
    /// The function.
    pub function: FunctionName,
    /// For whom.
    pub qualifier: String,
    /// It is the version's own declaration, not put from outside.
    pub declared: bool,
    /// It holds instead of what the version declares.
    pub overrides: bool,
    /// The policies.
    pub settings: Fc,
    /// What is wanted now.
    pub target: u32,
    /// Provisioned instances there are.
    pub current: u32,
    /// Why there are fewer than wanted, if there are.
    pub current_error: Option<String>,
    /// Why so many are wanted.
    pub why: String,
    /// That nobody has used them for hours, and what releases them.
    pub reminder: Option<String>,
}

/// A tick of Knative's autoscaler as lines for `kip scaler decide`: the first line too, if it is the first tick.
fn kpa_lines(scaler: &Knative) -> Option<(Option<Value>, Value, KpaDecision)> {
    let (taken, decision) = scaler.last()?;
    let header = taken.began.map(|began| {
        json!({"policy": "kpa", "settings": scaler.settings(), "initial_ready": began.ready, "t_ms": began.at, "fresh": began.fresh})
    });
    let line = KpaLine {
        t_ms: taken.at,
        ready: Some(Some(taken.ready)),
        stable: taken.averages.map(|averages| averages.stable),
        panic: taken.averages.map(|averages| averages.panic),
        ..KpaLine::default()
    };
    let decision = KpaDecision {
        t_ms: taken.at,
        desired: decision.desired,
        panic: decision.panic,
        stable: decision.stable,
        panic_average: decision.panic_average,
        excess_burst_capacity: decision.excess_burst_capacity,
        applied: decision.applied,
        reason: decision.why.to_string(),
    };
    Some((header, json!(line), decision))
}

/// A first line from which the lines after this moment can be repeated, whatever went before.
fn kpa_state(scaler: &Knative) -> Option<Value> {
    let (taken, _) = scaler.last()?;
    let (state, ready) = (scaler.state()?, taken.ready);
    Some(
        json!({"policy": "kpa", "settings": scaler.settings(), "initial_ready": ready, "t_ms": taken.at, "state": state}),
    )
}

/// The same of what is provisioned.
fn fc_state(provisioned: &ProvisionedTarget) -> Value {
    let (settings, concurrency) = (&*provisioned.settings, provisioned.concurrency());
    json!({"policy": "fc", "settings": settings, "concurrency": concurrency, "state": provisioned.tracker()})
}

/// A look at what is provisioned, as lines for `kip scaler decide`.
fn fc_lines(provisioned: &ProvisionedTarget) -> Option<(Option<Value>, Value, FcDecision)> {
    let looked = provisioned.last()?;
    let fc = &provisioned.settings;
    let header = looked.began.map(
        |begin| json!({"policy": "fc", "settings": **fc, "concurrency": provisioned.concurrency(), "begin": begin}),
    );
    let metric = |metric: Metric| looked.metrics[metric.index()];
    let line = FcLine {
        t: shown(looked.wall),
        concurrency: metric(Metric::Concurrency),
        cpu: metric(Metric::Cpu),
        gpu_memory: metric(Metric::GpuMemory),
        current: Some(looked.current),
        calendar: looked.calendar,
        ..FcLine::default()
    };
    let decision = FcDecision { t: shown(looked.wall), target: looked.target, reason: looked.why.tell(fc) };
    Some((header, json!(line), decision))
}

/// Requests that an instance of a version is to have at once.
fn core_soft(core: &FunctionCore, version: VersionId) -> u32 {
    let revision = core.revisions().find(|(id, _)| *id == version);
    revision.map_or(1, |(_, revision)| revision.policy.concurrency.soft)
}

/// Looks between two first lines, so that the latest ones can always be repeated.
const LOOKS: u32 = 200;

impl Cell {
    /// Writes down what a policy decided. Called under the cell's lock, right after the step.
    pub(crate) fn note_scaling(
        &self,
        shared: &Shared,
        core: &FunctionCore,
        told: &mut LastLogged,
        (looked, whom): (PolicyObservation, Option<String>),
    ) {
        let (mut hot, mut in_flight) = (0, 0);
        let mut queued = 0;
        let concerns = |version: VersionId| !matches!(looked, PolicyObservation::Version(own) if own != version);
        for instance in core.instances().filter(|instance| concerns(instance.version)) {
            hot += u32::from(instance.state.class() == Class::Hot);
            in_flight += instance.in_flight;
        }
        for (_, revision) in core.revisions().filter(|(version, _)| concerns(*version)) {
            queued += revision.queue.depth();
        }
        let at = now().wall;
        let lines = match looked {
            PolicyObservation::Version(version) => {
                core.revisions().find(|(id, _)| *id == version).and_then(|(_, revision)| {
                    let (header, line, decision) = kpa_lines(revision.scaler.knative()?)?;
                    let (applied, why) = (decision.applied, decision.reason.clone());
                    Some((header, line, json!(decision), applied, why, Some(version.0), None, hot))
                })
            }
            PolicyObservation::Qualifier(qualifier) => {
                let provisioned = core.provisions().iter().find(|provisioned| provisioned.qualifier == qualifier);
                provisioned.into_iter().for_each(|provisioned| shared.meter.arm(self.number, provisioned));
                provisioned.and_then(|provisioned| {
                    let (header, line, decision) = fc_lines(provisioned)?;
                    let (change, why) = (provisioned.wanted(), provisioned.tell());
                    let actual = provisioned.current();
                    Some((header, line, json!(decision), change, why, None, whom.clone(), actual))
                })
            }
        };
        let Some((header, line, decision, change, why, version, qualifier, actual)) = lines else { return };
        let above = matches!(looked, PolicyObservation::Version(own) if Self::is_above(core, own));
        let mode = if qualifier.is_some() { "fc" } else { "kpa" };
        let record = |observation: Value, decision: Value| {
            let record = ScalingRecord {
                at,
                function: self.name().to_string(),
                mode: mode.to_owned(),
                version,
                qualifier: qualifier.clone(),
                observation,
                decision,
                actual,
                in_flight,
                queued,
            };
            shared.recorder.record(Record::Scaling(record));
        };
        if let (PolicyObservation::Qualifier(own), Some(whom)) = (looked, &qualifier)
            && let Some(of) = core.provisions().iter().find(|provisioned| provisioned.qualifier == own)
        {
            let (function, target) = (self.name().to_string(), of.target());
            shared.recorder.record(Record::Reached(ReachedTarget { function, qualifier: whom.clone(), target, at }));
        }
        let key = qualifier.clone().unwrap_or_else(|| format!("v{}", version.unwrap_or_default()));
        let before = told.get(&key).copied();
        let looks = if header.is_some() { 0 } else { before.map_or(0, |before| before.looks + 1) };
        let since = before.and_then(|before| before.above).unwrap_or(at);
        let above = above.then_some(since);
        told.insert(key, LastLook { wanted: change, looks: looks % LOOKS, above });
        if let Some(header) = header {
            record(header, Value::Null);
        }
        record(line, decision);
        if looks == LOOKS {
            let state = match looked {
                PolicyObservation::Version(own) => core
                    .revisions()
                    .find(|(id, _)| *id == own)
                    .and_then(|(_, revision)| kpa_state(revision.scaler.knative()?)),
                PolicyObservation::Qualifier(own) => {
                    core.provisions().iter().find(|one| one.qualifier == own).map(fc_state)
                }
            };
            state.into_iter().for_each(|state| record(state, Value::Null));
        }
        if before.map(|before| before.wanted) != Some(change) {
            shared.recorder.record(Record::Decision(DecisionRecord {
                at,
                function: self.name().to_string(),
                version: version.unwrap_or(0),
                label: None,
                instance: qualifier,
                from: None,
                to: format!("scale to {change}"),
                why,
                detail: None,
                decision: Decision::Scaled { to: change }.value(),
            }));
        }
    }

    /// Whether more is asked of a version's instances than its policy aims at.
    fn is_above(core: &FunctionCore, version: VersionId) -> bool {
        let revision = core.revisions().find(|(id, _)| *id == version).map(|(_, revision)| revision);
        let last = revision.and_then(|revision| revision.scaler.knative()?.last());
        last.is_some_and(|(_, decision)| decision.why.is_above())
    }

    /// What keeps the count of these versions from what is wanted: room, or starts that fail.
    fn held_back(core: &FunctionCore, concerns: impl Fn(VersionId) -> bool) -> Option<String> {
        let of = core.instances().filter(|instance| concerns(instance.version));
        let lacks: Vec<_> = of.filter_map(|instance| instance.waits_for).collect();
        if let Some(lack) = lacks.first() {
            let count = lacks.len();
            return Some(format!("{count} more {} for {lack}", if count == 1 { "waits" } else { "wait" }));
        }
        core.revisions().filter(|(version, _)| concerns(*version)).find_map(|(_, revision)| {
            let failure = revision.backoff.last()?;
            let again = revision.backoff.retry_at().map(|at| at.saturating_sub(now().boot)).filter(|left| *left > 0);
            let again = again.map(|left| format!(", the next is tried in {}", Millis(left))).unwrap_or_default();
            Some(format!("the last start failed ({failure}){again}"))
        })
    }

    /// What scaling policies want, as users see it.
    pub(crate) fn scaling_infos(inner: &Inner, core: &FunctionCore) -> Vec<ScalingInfo> {
        let wall = |boot: u64| {
            let now = now();
            now.wall - i64::try_from(now.boot.saturating_sub(boot)).unwrap_or(0)
        };
        let kpa = core.revisions().filter_map(|(version, revision)| {
            let scaler = revision.scaler.knative()?;
            let ready = core.instances().filter(|i| i.version == version && i.state.class() == Class::Hot).count();
            let mut info = ScalingInfo {
                whom: inner.label(version),
                mode: "kpa".to_owned(),
                desired: None,
                target: scaler.applied(),
                current: u32::try_from(ready).unwrap_or(u32::MAX),
                averages: BTreeMap::new(),
                panic: false,
                at: None,
                why: "the first tick has not come yet".to_owned(),
            };
            if let Some((taken, decision)) = scaler.last() {
                info.desired = decision.desired.map(i64::from);
                let averages = [("stable", decision.stable), ("panic", decision.panic_average)];
                info.averages =
                    averages.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
                (info.panic, info.at, info.why) = (decision.panic, Some(wall(taken.at)), decision.why.to_string());
            }
            if scaler.is_at_rest() {
                info.why = "nothing was asked of it lately; the next request starts it at once".to_owned();
            }
            let max = revision.policy.max;
            if info.target > max {
                (info.target, info.why) = (max, format!("{}; instances.max limits it to {max}", info.why));
            }
            let looked = inner.told.get(&format!("v{}", version.0));
            if let Some(since) = looked.and_then(|looked| looked.above) {
                let age = u64::try_from(now().wall.saturating_sub(since)).unwrap_or(0);
                info.why = format!("{}; above its target for {}", info.why, Millis(age));
            }
            if info.current < info.target
                && let Some(held) = Self::held_back(core, |own| own == version)
            {
                info.why = format!("{}; {held}", info.why);
            }
            Some(info)
        });
        let auto = core.revisions().filter_map(|(version, _)| {
            let time = now();
            let it = core.explain(version, time)?;
            let figures = it.figures?;
            let held = Self::held_back(core, |own| own == version).or_else(|| Some(it.held_by?.to_string()));
            let held = held.filter(|_| it.queued > 0).map(|held| format!("; held back: {held}")).unwrap_or_default();
            let places = u64::from(figures.alive) * u64::from(core_soft(core, version));
            let asked = it.in_flight.saturating_add(it.queued);
            let above = it.waited.filter(|_| it.queued > 0).map(|waited| {
                format!("; in flight and waiting {asked}, places {places}, not enough for {}", Millis(waited))
            });
            let held = above.unwrap_or_default() + &held;
            let seconds = |millis: u64| std::time::Duration::from_millis(millis).as_secs_f64();
            let averages = [
                ("load_6s", figures.load_short),
                ("load_60s", figures.load_long),
                ("service_s", figures.service / 1_000.0),
                ("start_s", seconds(figures.start)),
                ("wake_s", seconds(figures.wake)),
            ];
            Some(ScalingInfo {
                whom: inner.label(version),
                mode: "auto".to_owned(),
                desired: Some(i64::from(figures.demand.saturating_add(figures.spare))),
                target: it.wants_hot,
                current: it.busy.saturating_add(u32::try_from(it.idle.len()).unwrap_or(u32::MAX)),
                averages: averages.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                panic: false,
                at: Some(time.wall),
                why: format!("{figures}{held}"),
            })
        });
        let fc = core.provisions().iter().map(|provisioned| {
            let looked = provisioned.last();
            let metrics = looked.map(|looked| looked.metrics).unwrap_or_default();
            let named = Metric::ALL.into_iter().zip(metrics);
            let held =
                (provisioned.current() < provisioned.wanted()).then(|| Self::held_back(core, |_| true)).flatten();
            let held = held.map(|held| format!("; {held}")).unwrap_or_default();
            ScalingInfo {
                whom: inner.name_of(provisioned.qualifier),
                mode: "fc".to_owned(),
                desired: Some(i64::from(provisioned.target())),
                target: provisioned.wanted(),
                current: provisioned.current(),
                averages: named.filter_map(|(metric, value)| Some((metric.name().to_owned(), value?))).collect(),
                panic: false,
                at: looked.map(|looked| looked.wall),
                why: provisioned.tell() + &held,
            }
        });
        kpa.chain(auto).chain(fc).collect()
    }

    /// What is provisioned.
    pub fn provisions(&self) -> Vec<ProvisionInfo> {
        let inner = self.lock();
        let waits = |core: &FunctionCore| {
            Self::held_back(core, |_| true).unwrap_or_else(|| "instances are starting".to_owned())
        };
        let serving = inner.serving().clone();
        // What is put holds instead of what the version declares.
        let over = |qualifier: &str, declared: bool| {
            let own = matches!(&serving.policy().scaling, Scaling::Fc(fc) if !fc.provision.is_empty());
            own && !declared && qualifier == LATEST
        };
        // Of a version that serves no more, and that nobody can ask for, nothing is kept.
        let named = |version| inner.qualifiers().is_some_and(|named| named.names(version));
        let idle = |qualifier: Qualifier| match qualifier {
            Qualifier::Version(version) => version != serving.id && !named(version),
            _ => false,
        };
        let serves_not = |qualifier: &str| {
            let name = self.name();
            format!(
                "{qualifier} does not serve any more; `kip provision rm {name} --qualifier {qualifier}` removes this"
            )
        };
        let of_core = self.look(&inner, |core| {
            let info = |provisioned: &ProvisionedTarget| ProvisionInfo {
                function: self.name().clone(),
                qualifier: inner.name_of(provisioned.qualifier),
                declared: provisioned.declared_by.is_some(),
                overrides: over(&inner.name_of(provisioned.qualifier), provisioned.declared_by.is_some()),
                settings: Fc::clone(&provisioned.settings),
                target: if idle(provisioned.qualifier) { 0 } else { provisioned.wanted() },
                current: provisioned.current(),
                current_error: (provisioned.current() < provisioned.wanted() && !idle(provisioned.qualifier))
                    .then(|| waits(core)),
                why: match idle(provisioned.qualifier) {
                    true => serves_not(&inner.name_of(provisioned.qualifier)),
                    false => provisioned.tell(),
                },
                reminder: inner
                    .unused
                    .as_ref()
                    .filter(|unused| unused.qualifier == inner.name_of(provisioned.qualifier))
                    .map(|unused| unused.tell(now().wall)),
            };
            core.provisions().iter().map(info).collect::<Vec<_>>()
        });
        if let Some(infos) = of_core.filter(|infos| !infos.is_empty()) {
            return infos;
        }
        // A function at rest has none of it in memory but what was put and what its version declares.
        let rests = |whom: &str, declared: bool, settings: &Fc| ProvisionInfo {
            function: self.name().clone(),
            qualifier: whom.to_owned(),
            declared,
            overrides: over(whom, declared),
            settings: settings.clone(),
            target: 0,
            current: 0,
            current_error: None,
            why: match inner.qualifier(whom).is_some_and(idle) {
                true => serves_not(whom),
                false => "nothing of it is active".to_owned(),
            },
            reminder: None,
        };
        let mut infos: Vec<ProvisionInfo> =
            inner.provisions.iter().map(|(name, settings)| rests(name, false, settings)).collect();
        if let Scaling::Fc(fc) = &inner.serving().policy().scaling
            && !inner.provisions.contains_key(LATEST)
        {
            infos.push(rests(LATEST, true, fc));
        }
        infos
    }

    /// What the store has of what is provisioned.
    pub(crate) fn remember_provision(&self, name: String, settings: Arc<Fc>) {
        let qualifier = self.lock().qualifier(&name);
        if let Some(qualifier) = qualifier {
            self.remember(&Event::Provision { qualifier, settings: Some(settings.clone()) });
        }
        self.lock().provisions.insert(name, settings);
    }

    /// Puts what is provisioned for whom, or takes it away.
    pub(crate) fn provision(self: &Arc<Self>, name: &str, settings: Option<Arc<Fc>>) {
        let qualifier = {
            let mut inner = self.lock();
            let Some(qualifier) = inner.qualifier(name) else { return };
            inner.unused = None;
            match &settings {
                Some(settings) => drop(inner.provisions.insert(name.to_owned(), settings.clone())),
                None => drop(inner.provisions.remove(name)),
            }
            qualifier
        };
        self.step(Event::Provision { qualifier, settings });
    }
}

impl Shared {
    /// Tells cells what an earlier server's policies had reached, and forgets it of functions that are gone.
    pub(crate) async fn remember_reached(&self) -> Result<(), Error> {
        let mut gone = BTreeSet::new();
        for ReachedTarget { function, qualifier: whom, target, .. } in self.records.reached().await? {
            let Some(cell) = self.cell_named(&function) else {
                gone.insert(function);
                continue;
            };
            let qualifier = cell.lock().qualifier(&whom);
            if let Some(qualifier) = qualifier {
                cell.remember(&Event::Reached { qualifier, target });
            }
        }
        if !gone.is_empty() {
            self.records.forget_reached(gone.into_iter().collect()).await?;
        }
        Ok(())
    }

    /// What is provisioned by the store. A row that cannot be read stays there and is reported: it must not be lost in silence.
    pub(crate) async fn stored_provisions(&self) -> Result<Vec<StoredProvision>, Error> {
        let (stored, unreadable) = self.changes.read().provisions().await?;
        for UnreadableRow { object, detail } in unreadable {
            self.disk.report(format!(
                "{object} is stored in a form that this version cannot read, and does not hold: {detail}"
            ));
        }
        Ok(stored)
    }
}

impl Control {
    /// Provisions instances for a function's qualifier by these policies.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoQualifier`] or [`Error::Store`].
    pub async fn put_provision(
        &self,
        name: &str,
        whom: &str,
        settings: Fc,
        author: Author,
    ) -> Result<ProvisionInfo, Error> {
        self.put_provision_with(name, whom, settings, Vec::new(), author).await
    }

    /// The same, with settings that are stored in the same commit.
    ///
    /// # Errors
    /// As [`Control::put_provision`].
    pub async fn put_provision_with(
        &self,
        name: &str,
        whom: &str,
        settings: Fc,
        beside: Vec<SettingChange>,
        author: Author,
    ) -> Result<ProvisionInfo, Error> {
        let (control, name, whom) = (self.clone(), name.to_owned(), whom.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let cell = control.require(&name)?;
            let (function, qualifier) = (cell.name().clone(), control.known(&cell, &whom).await?);
            let object = Object::Provision(function.clone(), qualifier.clone());
            let (shown, held) = (qualifier.clone(), Arc::new(settings.clone()));
            let change = Change::PutProvision { function, qualifier, settings: Box::new(settings) };
            turn.commit(author.proposal(object, change.together(beside))).await?;
            reached("provision: committed");
            cell.provision(&shown, Some(held));
            control.provision(&name, &shown)
        });
        unit.await
    }

    /// Takes away what was put for a function's qualifier. False if there was nothing.
    ///
    /// # Errors
    /// As [`Control::put_provision`].
    pub async fn remove_provision(&self, name: &str, whom: &str, author: Author) -> Result<bool, Error> {
        self.remove_provision_with(name, whom, Vec::new(), author).await
    }

    /// The same, with settings that are changed in the same commit.
    ///
    /// # Errors
    /// As [`Control::put_provision`].
    pub async fn remove_provision_with(
        &self,
        name: &str,
        whom: &str,
        beside: Vec<SettingChange>,
        author: Author,
    ) -> Result<bool, Error> {
        let (control, name, whom) = (self.clone(), name.to_owned(), whom.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let cell = control.require(&name)?;
            let (function, qualifier) = (cell.name().clone(), control.put_for(&cell, &whom)?);
            let declares = matches!(&cell.serving().policy().scaling, Scaling::Fc(fc) if !fc.provision.is_empty());
            if qualifier == LATEST && declares && !cell.lock().provisions.contains_key(LATEST) {
                return Err(Error::Declared { function: name });
            }
            let object = Object::Provision(function.clone(), qualifier.clone());
            let gone = qualifier.clone();
            let change = Change::RemoveProvision { function, qualifier }.together(beside);
            let committed = turn.commit(author.proposal(object, change)).await?;
            let removed = committed.effect != Effect::Nothing;
            if removed {
                cell.provision(&gone, None);
            }
            Ok(removed)
        });
        unit.await
    }

    /// Holds what the store says is provisioned, after it was replaced.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn provision_again(&self) -> Result<(), Error> {
        let stored = self.shared.stored_provisions().await?;
        for cell in self.sorted() {
            let of = stored.iter().filter(|(function, ..)| function == cell.name());
            let wanted: BTreeMap<String, Arc<Fc>> =
                of.map(|(_, whom, settings)| (whom.clone(), Arc::new(settings.clone()))).collect();
            let there = cell.lock().provisions.clone();
            there.keys().filter(|whom| !wanted.contains_key(*whom)).for_each(|whom| cell.provision(whom, None));
            for (whom, settings) in wanted {
                // An alias of another server's backup has another number now.
                let of_alias = matches!(whom.parse(), Ok(QualifierName::Alias(_)));
                if of_alias || there.get(&whom) != Some(&settings) {
                    cell.provision(&whom, Some(settings));
                }
            }
        }
        Ok(())
    }

    /// What is provisioned for a function's qualifier.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::NoQualifier`]; the latter too if nothing is provisioned for it.
    pub fn provision(&self, name: &str, whom: &str) -> Result<ProvisionInfo, Error> {
        let cell = self.require(name)?;
        let whom = self.put_for(&cell, whom)?;
        let found = cell.provisions().into_iter().find(|info| info.qualifier == whom);
        found.ok_or_else(|| Error::NoProvision { function: name.to_owned(), qualifier: whom })
    }

    /// What is provisioned for all functions, by name.
    pub fn provisions(&self) -> Vec<ProvisionInfo> {
        self.sorted().into_iter().flat_map(|cell| cell.provisions()).collect()
    }

    /// The latest looks of a function's scaling policies, newest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn scaling_history(&self, name: &str, most: u32) -> Result<Vec<ScalingRecord>, Error> {
        self.shared.recorder.flush().await;
        let mut records = self.records().scaling(name.to_owned(), most).await?;
        // What is older than the oldest first line of its policy cannot be repeated.
        let whose = |record: &ScalingRecord| (record.mode.clone(), record.version, record.qualifier.clone());
        let mut begins = BTreeMap::new();
        for (place, record) in records.iter().enumerate().filter(|(_, record)| record.decision.is_null()) {
            begins.insert(whose(record), place);
        }
        let mut place = 0;
        records.retain(|record| {
            place += 1;
            begins.get(&whose(record)).is_none_or(|first| place <= first + 1)
        });
        Ok(records)
    }

    /// A qualifier as it is kept, in one spelling. A version that is asked for so becomes known to the core.
    async fn known(&self, cell: &Arc<Cell>, whom: &str) -> Result<String, Error> {
        let unknown = || Error::NoQualifier { function: cell.name().to_string(), qualifier: whom.to_owned() };
        let asked: QualifierName = whom.parse().map_err(|_| unknown())?;
        if !matches!(asked, QualifierName::Latest | QualifierName::Alias(_)) && !self.load_version(cell, &asked).await?
        {
            return Err(unknown());
        }
        let inner = cell.lock();
        let qualifier = inner.qualifier(whom).ok_or_else(unknown)?;
        Ok(inner.name_of(qualifier))
    }

    /// The same of what was put: it can be seen and removed though its version serves no more.
    fn put_for(&self, cell: &Cell, whom: &str) -> Result<String, Error> {
        let inner = cell.lock();
        if inner.provisions.contains_key(whom) {
            return Ok(whom.to_owned());
        }
        let known = |qualifier: &Qualifier| match qualifier {
            // Any number can be read as one of the store.
            Qualifier::Version(version) => {
                inner.held_version(*version).is_some()
                    || inner.qualifiers().is_some_and(|named| named.of_revision(*version).is_some())
            }
            _ => true,
        };
        let qualifier = inner.qualifier(whom).filter(known).map(|qualifier| inner.name_of(qualifier));
        qualifier.ok_or_else(|| Error::NoQualifier { function: cell.name().to_string(), qualifier: whom.to_owned() })
    }
}
