//! What scaling policies decided, written down so that it can be repeated, and what is provisioned from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_fleet::function::Provisioned;
use kip_fleet::scaler::session::{FcDecision, FcLine, KpaDecision, KpaLine};
use kip_fleet::scaler::{Knative, Scaler as _};
use kip_fleet::{Class, Event, FunctionCore, Qualifier};
use kip_spec::scaling::provision::{Metric, shown};
use kip_spec::scaling::{Fc, Scaling};
use kip_spec::{FunctionName, VersionId};
use kip_store::{DecisionRecord, Record, ScalingRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cell::{Cell, Inner, now};
use crate::control::{Control, Error, Shared};

/// The qualifier that means whatever serves.
pub const LATEST: &str = "LATEST";

/// A scaling policy as users see it: what it wants, what there is, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalingInfo {
    /// The version it decides about, or for whom it provisions.
    pub whom: String,
    /// `kpa` or `fc`.
    pub mode: String,
    /// What it wants before bounds.
    pub desired: Option<i64>,
    /// What it wants in the end.
    pub target: u32,
    /// Instances there are for it.
    pub current: u32,
    /// The averages it goes by: over the stable and the panic window, or of the period.
    pub averages: BTreeMap<String, f64>,
    /// Whether it panics.
    pub panic: bool,
    /// When it looked last, milliseconds since 1970.
    pub at: Option<i64>,
    /// Why.
    pub why: String,
}

/// What is provisioned, as users see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProvisionInfo {
    /// The function.
    pub function: FunctionName,
    /// For whom.
    pub qualifier: String,
    /// It is the version's own declaration, not put from outside.
    pub declared: bool,
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

/// For whom, by its name: `LATEST`, or a version such as `v3` or `3`.
pub(crate) fn qualifier(name: &str) -> Option<Qualifier> {
    if name.eq_ignore_ascii_case(LATEST) {
        return Some(Qualifier::Latest);
    }
    let number: u64 = name.strip_prefix('v').unwrap_or(name).parse().ok()?;
    Some(Qualifier::Version(VersionId(number)))
}

pub(crate) fn name_of(qualifier: Qualifier) -> String {
    match qualifier {
        Qualifier::Latest => LATEST.to_owned(),
        Qualifier::Version(version) => version.to_string(),
        Qualifier::Alias(alias) => format!("alias {}", alias.0),
    }
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

/// A look at what is provisioned, as lines for `kip scaler decide`.
fn fc_lines(provisioned: &Provisioned) -> Option<(Option<Value>, Value, FcDecision)> {
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

/// Which policy looked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Looked {
    Version(VersionId),
    Qualifier(Qualifier),
}

/// What was last written into the decision log, by policy: only changes are.
pub(crate) type Told = BTreeMap<String, (i64, u32)>;

impl Cell {
    /// Writes down what a policy decided. Called under the cell's lock, right after the step.
    pub(crate) fn note_scaling(&self, shared: &Shared, core: &FunctionCore, told: &mut Told, looked: Looked) {
        let (mut hot, mut in_flight) = (0, 0);
        let mut queued = 0;
        let concerns = |version: VersionId| !matches!(looked, Looked::Version(own) if own != version);
        for instance in core.instances().filter(|instance| concerns(instance.version)) {
            hot += u32::from(instance.state.class() == Class::Hot);
            in_flight += instance.in_flight;
        }
        for (_, revision) in core.revisions().filter(|(version, _)| concerns(*version)) {
            queued += revision.queue.depth();
        }
        let at = now().wall;
        let lines = match looked {
            Looked::Version(version) => core.revisions().find(|(id, _)| *id == version).and_then(|(_, revision)| {
                let (header, line, decision) = kpa_lines(revision.scaler.knative()?)?;
                let change = (i64::from(decision.desired.unwrap_or(-1)), decision.applied);
                let why = decision.reason.clone();
                Some((header, line, json!(decision), change, why, Some(version.0), None, hot))
            }),
            Looked::Qualifier(qualifier) => {
                let provisioned = core.provisions().iter().find(|provisioned| provisioned.qualifier == qualifier);
                provisioned.into_iter().for_each(|provisioned| shared.meter.arm(self.number, provisioned));
                provisioned.and_then(|provisioned| {
                    let (header, line, decision) = fc_lines(provisioned)?;
                    let (change, why) = ((i64::from(decision.target), decision.target), decision.reason.clone());
                    let actual = provisioned.current();
                    Some((header, line, json!(decision), change, why, None, Some(name_of(qualifier)), actual))
                })
            }
        };
        let Some((header, line, decision, change, why, version, qualifier, actual)) = lines else { return };
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
        if let Some(header) = header {
            record(header, Value::Null);
        }
        record(line, decision);
        let key = qualifier.clone().unwrap_or_else(|| format!("v{}", version.unwrap_or_default()));
        if told.insert(key, change) != Some(change) {
            shared.recorder.record(Record::Decision(DecisionRecord {
                at,
                function: self.name().to_string(),
                version: version.unwrap_or(0),
                instance: qualifier,
                from: None,
                to: format!("scale to {}", change.1),
                why,
                detail: None,
            }));
        }
    }

    /// What scaling policies want, as users see it.
    pub(crate) fn scaling_infos(core: &FunctionCore) -> Vec<ScalingInfo> {
        let wall = |boot: u64| {
            let now = now();
            now.wall - i64::try_from(now.boot.saturating_sub(boot)).unwrap_or(0)
        };
        let kpa = core.revisions().filter_map(|(version, revision)| {
            let scaler = revision.scaler.knative()?;
            let ready = core.instances().filter(|i| i.version == version && i.state.class() == Class::Hot).count();
            let mut info = ScalingInfo {
                whom: version.to_string(),
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
            Some(info)
        });
        let fc = core.provisions().iter().map(|provisioned| {
            let looked = provisioned.last();
            let metrics = looked.map(|looked| looked.metrics).unwrap_or_default();
            let named = Metric::ALL.into_iter().zip(metrics);
            ScalingInfo {
                whom: name_of(provisioned.qualifier),
                mode: "fc".to_owned(),
                desired: Some(i64::from(provisioned.target())),
                target: provisioned.target(),
                current: provisioned.current(),
                averages: named.filter_map(|(metric, value)| Some((metric.name().to_owned(), value?))).collect(),
                panic: false,
                at: looked.map(|looked| looked.wall),
                why: looked.map(|looked| looked.why.tell(&provisioned.settings)).unwrap_or_default(),
            }
        });
        kpa.chain(fc).collect()
    }

    /// What is provisioned.
    pub fn provisions(&self) -> Vec<ProvisionInfo> {
        let inner = self.lock();
        let waits = |core: &FunctionCore| {
            let lacks = core.instances().find_map(|instance| instance.waits_for);
            let failure = core.revisions().find_map(|(_, revision)| revision.backoff.last());
            lacks
                .map(|lack| format!("an instance waits for {lack}"))
                .or_else(|| failure.map(|failure| failure.to_string()))
                .unwrap_or_else(|| "instances are starting".to_owned())
        };
        let of_core = self.look(&inner, |core| {
            let info = |provisioned: &Provisioned| ProvisionInfo {
                function: self.name().clone(),
                qualifier: name_of(provisioned.qualifier),
                declared: provisioned.declared_by.is_some(),
                settings: Fc::clone(&provisioned.settings),
                target: provisioned.target(),
                current: provisioned.current(),
                current_error: (provisioned.current() < provisioned.target()).then(|| waits(core)),
                why: provisioned.last().map(|looked| looked.why.tell(&provisioned.settings)).unwrap_or_default(),
                reminder: inner
                    .unused
                    .as_ref()
                    .filter(|unused| unused.qualifier == name_of(provisioned.qualifier))
                    .map(|unused| unused.tell(now().wall)),
            };
            core.provisions().iter().map(info).collect::<Vec<_>>()
        });
        if let Some(infos) = of_core.filter(|infos| !infos.is_empty()) {
            return infos;
        }
        // A function at rest has none of it in memory but what was put and what its version declares.
        let rests = |qualifier: &str, declared: bool, settings: &Fc| ProvisionInfo {
            function: self.name().clone(),
            qualifier: qualifier.to_owned(),
            declared,
            settings: settings.clone(),
            target: 0,
            current: 0,
            current_error: None,
            why: "nothing of it is active".to_owned(),
            reminder: None,
        };
        let mut infos: Vec<ProvisionInfo> =
            inner.provisions.iter().map(|(name, settings)| rests(name, false, settings)).collect();
        if let Scaling::Fc(fc) = &inner.serving().policy.scaling
            && !inner.provisions.contains_key(LATEST)
        {
            infos.push(rests(LATEST, true, fc));
        }
        infos
    }

    /// Puts what is provisioned for whom, or takes it away.
    fn provision(self: &Arc<Self>, name: &str, settings: Option<Arc<Fc>>) {
        let Some(qualifier) = qualifier(name) else { return };
        {
            let mut inner = self.lock();
            match &settings {
                Some(settings) => drop(inner.provisions.insert(name.to_owned(), settings.clone())),
                None => drop(inner.provisions.remove(name)),
            }
        }
        self.step(Event::Provision { qualifier, settings });
    }
}

/// What a core made anew is told of what was put.
pub(crate) fn events(inner: &Inner) -> Vec<Event> {
    let event = |(name, settings): (&String, &Arc<Fc>)| {
        let qualifier = qualifier(name)?;
        Some(Event::Provision { qualifier, settings: Some(settings.clone()) })
    };
    inner.provisions.iter().filter_map(event).collect()
}

/// Whether a function wants instances without being asked.
pub(crate) fn wants_by_itself(inner: &Inner) -> bool {
    let policy = &inner.serving().policy;
    let scales = match &policy.scaling {
        Scaling::Fixed => false,
        Scaling::Fc(fc) => !fc.provision.is_empty(),
        Scaling::Kpa(kpa) => !kpa.scale_to_zero,
    };
    policy.min > 0 || scales || !inner.provisions.is_empty()
}

impl Control {
    /// Provisions instances for a function's qualifier by these policies.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoQualifier`] or [`Error::Store`].
    pub async fn put_provision(&self, name: &str, whom: &str, settings: Fc) -> Result<ProvisionInfo, Error> {
        let _changing = self.shared.changes.lock().await;
        let cell = self.require(name)?;
        let whom = self.known(&cell, whom)?;
        self.shared.store.put_provision(cell.name().clone(), whom.clone(), Some(settings.clone())).await?;
        cell.provision(&whom, Some(Arc::new(settings)));
        self.provision(name, &whom)
    }

    /// Takes away what was put for a function's qualifier. False if there was nothing.
    ///
    /// # Errors
    /// As [`Control::put_provision`].
    pub async fn remove_provision(&self, name: &str, whom: &str) -> Result<bool, Error> {
        let _changing = self.shared.changes.lock().await;
        let cell = self.require(name)?;
        let whom = self.known(&cell, whom)?;
        let removed = self.shared.store.put_provision(cell.name().clone(), whom.clone(), None).await?;
        if removed {
            cell.provision(&whom, None);
        }
        Ok(removed)
    }

    /// What is provisioned for a function's qualifier.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::NoQualifier`]; the latter too if nothing is provisioned for it.
    pub fn provision(&self, name: &str, whom: &str) -> Result<ProvisionInfo, Error> {
        let cell = self.require(name)?;
        let whom = self.known(&cell, whom)?;
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
        Ok(self.records().scaling(name.to_owned(), most).await?)
    }

    /// A qualifier as it is kept: in one spelling.
    fn known(&self, cell: &Cell, whom: &str) -> Result<String, Error> {
        let unknown = || Error::NoQualifier { function: cell.name().to_string(), qualifier: whom.to_owned() };
        let qualifier = qualifier(whom).ok_or_else(unknown)?;
        if let Qualifier::Version(version) = qualifier
            && cell.lock().serving().id != version
        {
            return Err(unknown());
        }
        Ok(name_of(qualifier))
    }
}
