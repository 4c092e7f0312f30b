//! Provisioned instances: whose they are, what policies and calendars want of them, and how busy they are.

use std::sync::Arc;

use kip_spec::scaling::provision::{Metric, Tracking};
use kip_spec::scaling::{Fc, Scaling};
use kip_spec::{Finite, VersionId};
use serde::{Deserialize, Serialize};

use super::{FunctionCore, Role};
use crate::scaler::fc::{FcReason, Metrics, Tracker};
use crate::{Class, Effect, Kind, Qualifier};

/// Clocks may be set: a calendar is looked at again after this long, milliseconds.
const CALENDAR: u64 = 60_000;
/// What was measured of an instance from outside is good for this long, milliseconds.
const FRESH: u64 = 60_000;

/// What is provisioned for a qualifier.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProvisionedTarget {
    /// For whom.
    pub qualifier: Qualifier,
    /// By which policies.
    pub settings: Arc<Fc>,
    /// The version that declares it; `None` if it was put from outside.
    pub declared_by: Option<VersionId>,
    tracker: Tracker,
    target: u32,
    /// What its policies begin with, until the first look.
    begins: Option<Option<u32>>,
    last: Option<ProvisionObservation>,
    /// When the period began, boot time.
    period: u64,
    /// A period is under way: policies follow something that may change.
    under_way: bool,
    /// When it is looked at next, boot time.
    due: Option<u64>,
    /// Requests in flight on its provisioned instances, and what these can take.
    in_flight: u32,
    places: u32,
    current: u32,
    /// Requests at once that one of its instances takes.
    concurrency: u32,
    /// The least and the most instances that the version means to have, where it is for one version.
    bounds: Option<(u32, u32)>,
    /// Instances of it that are awake: only they use anything anew.
    awake: u32,
    /// Since when, boot time.
    since: u64,
    /// Requests times milliseconds since the period began.
    used: u64,
    /// CPU and device memory, each with the time it was measured.
    cpu: Option<(u64, f64)>,
    gpu_memory: Option<(u64, f64)>,
}

/// A look at what is provisioned: what was seen, and what it led to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProvisionObservation {
    /// When, milliseconds since 1970.
    pub wall: i64,
    /// It is the first: the policies begin with this, or with what there is.
    pub began: Option<Option<u32>>,
    /// No period ended; the calendar had something new.
    pub calendar: bool,
    /// What the period measured.
    pub metrics: Metrics,
    /// Provisioned instances there were.
    pub current: u32,
    /// What is wanted.
    pub target: u32,
    /// Why.
    pub why: FcReason,
}

impl ProvisionedTarget {
    fn new(qualifier: Qualifier, settings: Arc<Fc>, declared_by: Option<VersionId>, now: u64) -> Self {
        Self {
            qualifier,
            tracker: Tracker::new(&settings.provision),
            settings,
            declared_by,
            target: 0,
            begins: Some(None),
            last: None,
            period: now,
            under_way: false,
            due: Some(now),
            in_flight: 0,
            places: 0,
            current: 0,
            concurrency: 1,
            bounds: None,
            awake: 0,
            since: now,
            used: 0,
            cpu: None,
            gpu_memory: None,
        }
    }

    /// Its policies begin with this, if it is known.
    fn begin(&mut self, target: Option<u32>) {
        self.tracker.begin(target);
        self.begins = Some(target);
    }

    /// When it is looked at next, boot time.
    pub fn due(&self) -> Option<u64> {
        self.due
    }

    /// What is wanted.
    pub fn target(&self) -> u32 {
        self.target
    }

    /// Provisioned instances there are.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// Requests at once that its instances take.
    pub fn concurrency(&self) -> u32 {
        self.concurrency
    }

    /// The least and the most instances that its version means to have; none for an alias, which has several.
    pub fn bounds(&self) -> Option<(u32, u32)> {
        self.bounds
    }

    /// What of the target is kept: never more than `instances.max`.
    pub fn wanted(&self) -> u32 {
        self.bounds.map_or(self.target, |(_, max)| self.target.min(max))
    }

    /// Why so many are wanted, with the version's own bounds if they matter.
    pub fn tell(&self) -> String {
        let why = self.last.map(|looked| looked.why.tell(&self.settings)).unwrap_or_default();
        match self.bounds {
            Some((_, max)) if self.target > max => format!("{why}; instances.max limits it to {max}"),
            Some((min, _)) if self.target < min => format!("{why}; instances.min keeps {min}"),
            _ => why,
        }
    }

    /// What is remembered of its policies.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// The latest look.
    pub fn last(&self) -> Option<&ProvisionObservation> {
        self.last.as_ref()
    }

    /// Whether a policy that was active at the latest look follows this.
    pub fn follows(&self, metric: Metric) -> bool {
        let Some(looked) = self.last else { return false };
        let active = |policy: &Tracking| policy.metric == metric && policy.window.outside(looked.wall).is_none();
        self.settings.provision.tracking.iter().any(active)
    }

    /// Whether nothing is wanted and nothing will be.
    pub fn is_at_rest(&self) -> bool {
        self.due.is_none() && self.target == 0
    }

    pub(super) fn count(&mut self, now: u64) {
        let passed = now.saturating_sub(self.since);
        self.used += u64::from(self.in_flight) * passed;
        self.since = now.max(self.since);
    }

    fn metrics(&self, now: u64) -> Metrics {
        let fresh = |measured: Option<(u64, f64)>| {
            measured.filter(|(at, _)| at.saturating_add(FRESH) > now).map(|(_, value)| value)
        };
        let mut metrics = Metrics::default();
        // By the instances that there are now, which is what the next count is reckoned from.
        let could = u64::from(self.places) * now.saturating_sub(self.period);
        metrics[Metric::Concurrency.index()] = (could > 0).then(|| self.used as f64 / could as f64);
        metrics[Metric::Cpu.index()] = fresh(self.cpu);
        metrics[Metric::GpuMemory.index()] = fresh(self.gpu_memory);
        metrics
    }

    /// Looks at period and calendar.
    fn look(&mut self, now: u64, wall: i64) {
        let settings = self.settings.clone();
        let over = now >= self.period.saturating_add(settings.period.0);
        let metrics = if over { self.metrics(now) } else { Metrics::default() };
        let decided = match over {
            true => self.tracker.period(&settings, wall, metrics, self.current),
            false => self.tracker.look(&settings, wall, metrics, self.current),
        };
        let before = std::mem::replace(&mut self.target, decided.target);
        let (current, target, why) = (self.current, decided.target, decided.why);
        let began = self.begins.take();
        self.last = Some(ProvisionObservation { wall, began, calendar: !over, metrics, current, target, why });
        let tracking = &settings.provision.tracking;
        let active = || tracking.iter().filter(|policy| policy.window.outside(wall).is_none());
        // With nothing to do and nothing new, the next period would say the same.
        let idle = self.in_flight == 0 && self.used == 0 && over;
        // Who sleeps uses no CPU, and holds what it held.
        let unchanged = active().all(|policy| policy.metric == Metric::Concurrency) || self.awake == 0;
        let steady = before == self.target && self.tracker.is_settled();
        let rests = idle && unchanged && steady;
        if over {
            (self.period, self.used) = (now, 0);
        }
        self.under_way = active().next().is_some() && !rests;
        let follows = self.under_way.then(|| self.period.saturating_add(settings.period.0));
        let changes = settings
            .provision
            .next_change(wall)
            .map(|at| now.saturating_add(u64::try_from(at.saturating_sub(wall)).unwrap_or(0).clamp(1, CALENDAR)));
        self.due = follows.into_iter().chain(changes).min();
    }

    /// Something is to do again, or there is another number of instances.
    fn resume(&mut self, now: u64, changed: bool) {
        let period = self.settings.period.0;
        if self.settings.provision.tracking.is_empty() || self.in_flight == 0 && !changed {
            return;
        }
        // One that is over and was not looked at yet stays: what it measured is wanted.
        if !std::mem::replace(&mut self.under_way, true) {
            (self.period, self.used) = (now, 0);
        }
        let end = self.period.saturating_add(period);
        self.due = Some(self.due.map_or(end, |due| due.min(end)));
    }
}

impl FunctionCore {
    /// What is provisioned for a qualifier is put, or taken away.
    pub(super) fn put_provision(&mut self, now: u64, qualifier: Qualifier, settings: Option<Arc<Fc>>) {
        self.provisions.retain(|provisioned| provisioned.qualifier != qualifier);
        if self.closing.is_some() {
            return;
        }
        if let Some(settings) = settings {
            let mut provisioned = ProvisionedTarget::new(qualifier, settings, None, now);
            provisioned.begin(self.reached.remove(&qualifier));
            self.provisions.push(provisioned);
            self.provisions.sort_by_key(|provisioned| provisioned.qualifier);
        }
    }

    /// What was measured of a version's instances.
    pub(super) fn measured(&mut self, now: u64, version: VersionId, cpu: Option<Finite>, gpu_memory: Option<Finite>) {
        for index in 0..self.provisions.len() {
            if self.share(&self.provisions[index], version, 1_000) == 0 {
                continue;
            }
            let provisioned = &mut self.provisions[index];
            provisioned.cpu = cpu.map(|value| (now, value.get())).or(provisioned.cpu);
            provisioned.gpu_memory = gpu_memory.map(|value| (now, value.get())).or(provisioned.gpu_memory);
        }
    }

    /// What the serving version declares itself, unless something else was put for it.
    fn declare(&mut self, now: u64) {
        let serving = self.revisions.iter().find(|(_, revision)| revision.role == Role::Serving);
        let declared = serving.and_then(|(version, revision)| match &revision.policy.scaling {
            Scaling::Fc(fc) if self.closing.is_none() => Some((*version, fc)),
            _ => None,
        });
        let put = self.provisions.iter().any(|p| p.qualifier == Qualifier::Latest && p.declared_by.is_none());
        let wanted = declared.filter(|_| !put);
        let by = wanted.as_ref().map(|(version, _)| *version);
        if self.provisions.iter().any(|p| p.declared_by.is_some() && p.declared_by == by) {
            return;
        }
        let settings = wanted.map(|(version, fc)| (version, Arc::new(Fc::clone(fc))));
        let before = self.provisions.iter().find(|p| p.declared_by.is_some()).map(|p| p.target);
        let before = before.or_else(|| self.reached.remove(&Qualifier::Latest).filter(|_| settings.is_some()));
        self.provisions.retain(|provisioned| provisioned.declared_by.is_none());
        if let Some((version, settings)) = settings {
            let mut provisioned = ProvisionedTarget::new(Qualifier::Latest, settings, Some(version), now);
            // A new version begins with as many as the one before had.
            provisioned.begin(before);
            self.provisions.insert(0, provisioned);
        }
    }

    /// How many of so many instances for a qualifier are of a version.
    fn share(&self, provisioned: &ProvisionedTarget, version: VersionId, total: u32) -> u32 {
        let role = self.revisions.get(&version).map(|revision| revision.role);
        match provisioned.qualifier {
            Qualifier::Latest if role == Some(Role::Serving) => total,
            Qualifier::Version(named) if named == version && matches!(role, Some(Role::Serving | Role::Named)) => total,
            Qualifier::Alias(alias) => {
                self.aliases.get(&alias).map_or(0, |alias| alias.share(total, version, self.serving()))
            }
            _ => 0,
        }
    }

    /// Looks at what is due, and tells versions what is wanted of them.
    pub(super) fn provision(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.declare(now);
        if self.provisions.is_empty() && self.revisions.values().all(|r| r.provisioned == 0 && r.kept_hot == 0) {
            return;
        }
        self.count_provisioned(now);
        let wall = self.wall;
        for provisioned in
            self.provisions.iter_mut().filter(|provisioned| provisioned.due.is_some_and(|due| due <= now))
        {
            provisioned.look(now, wall);
            effects.push(Effect::Provisioned { qualifier: provisioned.qualifier });
        }
        let versions: Vec<VersionId> = self.revisions.keys().copied().collect();
        for version in versions {
            let parts =
                self.provisions.iter().map(|p| (self.share(p, version, p.wanted()), p.settings.provision.idle_mode()));
            let (all, hot) = parts.fold((0u32, 0u32), |(all, hot), (part, sleeps)| {
                (all.saturating_add(part), hot.saturating_add(if sleeps { 0 } else { part }))
            });
            if let Some(revision) = self.revisions.get_mut(&version) {
                let (all, hot) = (all.min(revision.policy.max), hot.min(revision.policy.max));
                revision.shrunk |= all < revision.provisioned;
                (revision.provisioned, revision.kept_hot) = (all, hot);
            }
        }
    }

    /// What the versions of a qualifier say that matters to it.
    fn know(&mut self, index: usize) {
        let one = !matches!(self.provisions[index].qualifier, Qualifier::Alias(_));
        let of =
            |(version, _): &(&VersionId, &super::Revision)| self.share(&self.provisions[index], **version, 1_000) > 0;
        let Some((_, revision)) = self.revisions.iter().find(of) else { return };
        let policy = &revision.policy;
        let (concurrency, bounds) = (policy.concurrency.hard, one.then_some((policy.min, policy.max)));
        (self.provisions[index].concurrency, self.provisions[index].bounds) = (concurrency, bounds);
    }

    /// What is provisioned now, and how busy it is, from now on.
    pub(super) fn count_provisioned(&mut self, now: u64) {
        for index in 0..self.provisions.len() {
            self.know(index);
            let (mut in_flight, mut places, mut current, mut awake) = (0u32, 0u32, 0u32, 0u32);
            for instance in self.instances.values().filter(|instance| instance.kind == Kind::Provisioned) {
                let alive = matches!(instance.state.class(), Class::Hot | Class::Asleep);
                if !alive || self.share(&self.provisions[index], instance.version, 1_000) == 0 {
                    continue;
                }
                current += 1;
                awake += u32::from(instance.state.class() == Class::Hot);
                in_flight += instance.in_flight;
                let revision = self.revisions.get(&instance.version);
                places += revision.map_or(0, |revision| revision.policy.concurrency.hard);
            }
            let provisioned = &mut self.provisions[index];
            provisioned.count(now);
            let changed = provisioned.current != current;
            // One that woke for something else than a request uses CPU as well.
            let woke = provisioned.awake == 0 && awake > 0;
            (provisioned.in_flight, provisioned.places) = (in_flight, places);
            (provisioned.current, provisioned.awake) = (current, awake);
            provisioned.resume(now, changed || woke);
        }
    }
}
