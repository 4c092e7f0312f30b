//! Rollouts in the server: each is kept beside its alias, moves it by the same commits as a caller would, and is looked at as long as
//! it is open. The rules are in `kip_fleet::rollout`.

use std::sync::Arc;
use std::time::Duration;

use kip_fleet::alias::split;
use kip_fleet::rollout::{
    AbortReason, InstanceSample, RolloutMove, RolloutPlan, RolloutSample, RolloutStage, RolloutState, TrafficSample,
    WHOLE,
};
use kip_fleet::{Event, FunctionCore, Qualifier};
use kip_host::clock::wall_millis;
use kip_host::failpoint::reached;
use kip_records::metrics::{Evidence, Histogram};
use kip_spec::qualifier::share;
use kip_spec::scaling::{Fc, Provision};
use kip_spec::{AliasName, FunctionName, QualifierName, VersionId};
use kip_store::{AliasTarget, Author, Change, CommitTurn, Effect, Object, StoredAlias, StoredSetting};
use kip_wire::{RolloutAction, RolloutInfo, RolloutSettings, RolloutTraffic};

use crate::cell::Cell;
use crate::control::Control;
use crate::error::Error;
use crate::qualifiers::{noted, percent};
use crate::rollout_table::{Rollout, RolloutEntry, RolloutKey};
use crate::shared::Shared;

/// The kind of setting that a rollout is stored as, by the name of its alias.
pub(crate) const KIND: &str = "rollout";
/// A step is observed for so long, milliseconds.
const SHORTEST: u64 = 1_000;
const LONGEST: u64 = 30 * 86_400_000;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

impl Shared {
    /// Takes up the rollouts of an earlier server, before decisions begin.
    pub(crate) async fn remember_rollouts(&self) -> Result<(), Error> {
        for setting in self.changes.read().settings(KIND, None).await? {
            let read = serde_json::from_str::<Rollout>(&setting.config);
            let (Ok(rollout), Ok(alias)) = (read, setting.qualifier.parse::<AliasName>()) else {
                self.disk.report(format!(
                    "the rollout of {}@{} is stored in a form that this version cannot read, and does not go on",
                    setting.function, setting.qualifier
                ));
                continue;
            };
            if let Some(cell) = self.cell_named(setting.function.as_str())
                && let Some(version) = self.version_of(&cell, rollout.to).await?
            {
                if rollout.state.is_open() {
                    cell.remember_called(version);
                    if rollout.state.aside {
                        let old = rollout.old(&cell).into_iter();
                        old.for_each(|version| cell.remember(&Event::SetAside { version, aside: true }));
                    }
                }
                // Counters begin anew with each server.
                let held = RolloutEntry { rollout, base: Default::default(), keep_until: None };
                self.rollouts.all.lock().insert((setting.function, alias), held);
            }
        }
        Ok(())
    }

    /// Looks at open rollouts, for ever.
    pub(crate) async fn run_rollouts(self: Arc<Self>) {
        loop {
            let due: Vec<RolloutKey> = {
                let all = self.rollouts.all.lock();
                let due = all.iter().filter(|(_, held)| held.rollout.state.is_open() || held.keep_until.is_some());
                due.map(|(key, _)| key.clone()).collect()
            };
            if due.is_empty() {
                self.rollouts.changed.notified().await;
                continue;
            }
            for key in due {
                self.look_at(&key).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look_at(self: &Arc<Self>, key: &RolloutKey) {
        let Some(cell) = self.cell_named(key.0.as_str()) else {
            self.rollouts.all.lock().remove(key);
            return;
        };
        let Some(held) = self.rollouts.all.lock().get(key).cloned() else { return };
        // Nothing is kept for an alias that points elsewhere by now.
        let points = |alias: &StoredAlias| alias.targets.iter().any(|target| target.revision == Some(held.rollout.to));
        let kept = cell.lock().qualifiers().and_then(|named| named.alias(key.1.as_str())).is_some_and(points);
        if held.keep_until.is_some_and(|until| until <= wall_millis() || !kept) {
            if !kept {
                cell.uncall(held.rollout.to);
            }
            held.rollout.before.iter().filter_map(|target| target.revision).for_each(|old| cell.uncall(old));
            self.prepare(&cell, held.rollout.to, 0);
            self.with(key, |held| held.keep_until = None);
        }
        let seen = self.sample(&cell, &held);
        let mut rollout = held.rollout.clone();
        let next = rollout.state.look(&rollout.plan, &seen, wall_millis());
        match next {
            RolloutMove::Wait if rollout == held.rollout => {}
            RolloutMove::Prepare { instances } => {
                self.prepare(&cell, rollout.to, instances);
                if rollout != held.rollout {
                    self.advance(key, held.rollout, rollout, next).await;
                }
            }
            _ => self.advance(key, held.rollout, rollout, next).await,
        }
    }

    /// Commits a move that the machine made by itself. Nothing, if somebody changed the rollout meanwhile.
    async fn advance(self: &Arc<Self>, key: &RolloutKey, from: Rollout, to: Rollout, next: RolloutMove) {
        let (shared, owned) = (self.clone(), key.clone());
        let unit = self.changes.unit(move |turn| async move {
            let unchanged = shared.rollouts.all.lock().get(&owned).is_some_and(|held| held.rollout == from);
            if !unchanged {
                return Ok(());
            }
            shared.carry_on(&turn, &owned, to, next, &Author::default()).await.map(drop)
        });
        if let Err(error) = unit.await {
            tracing::error!(function = %key.0, alias = %key.1, %error, "a step of a rollout is not stored; it is tried again");
        }
    }

    /// Stores the state, moves the alias in the same commit, and does what the move asks for.
    async fn carry_on(
        self: &Arc<Self>,
        turn: &CommitTurn,
        key: &RolloutKey,
        rollout: Rollout,
        next: RolloutMove,
        author: &Author,
    ) -> Result<(), Error> {
        let (function, alias) = key;
        let missing = || Error::NoAlias { function: function.to_string(), alias: alias.to_string() };
        let cell = self.cell_named(function.as_str()).ok_or_else(missing)?;
        let held = {
            let inner = cell.lock();
            inner.qualifiers().and_then(|named| named.alias(alias.as_str())).cloned().ok_or_else(missing)?
        };
        let targets = match next {
            RolloutMove::Shift { share } => targets_at(&rollout, share),
            RolloutMove::Abort(_) => rollout.before.clone(),
            _ => held.targets.clone(),
        };
        let config = serde_json::to_string(&rollout).unwrap_or_default();
        let (qualifier, kind, rev) = (alias.to_string(), KIND.to_owned(), kip_store::Seq::default());
        let setting = StoredSetting { function: function.clone(), qualifier, kind, config, rev };
        let change = Change::PutAlias {
            function: function.clone(),
            name: alias.clone(),
            targets: targets.clone(),
            description: held.description.clone(),
            sticky: held.sticky.clone(),
            rollout: Some(Box::new(setting)),
        };
        let moved = targets != held.targets;
        let versions = self.versions_of(&cell, &targets).await?;
        let object = Object::Alias(function.clone(), alias.clone());
        let committed = turn.commit(author.proposal(object, change)).await?;
        let Effect::Alias(stored) = committed.effect else { return Err(missing()) };
        reached(match next {
            RolloutMove::Shift { share: WHOLE } => "rollout: whole",
            RolloutMove::Shift { .. } => "rollout: shifted",
            RolloutMove::Complete => "rollout: completed",
            RolloutMove::Abort(_) => "rollout: aborted",
            RolloutMove::ParkOld => "rollout: old set aside",
            RolloutMove::Wait | RolloutMove::Prepare { .. } => "rollout: begun",
        });
        if moved {
            if matches!(next, RolloutMove::Shift { share: WHOLE }) {
                self.keep_old(&cell, &rollout).await?;
            }
            cell.point(stored, versions);
        } else {
            cell.hold_stored_alias(stored);
        }
        self.set_aside(&cell, &rollout);
        // Those of a complete rollout stay until the old version's go: they would end with the next idle moment.
        if matches!(rollout.state.stage, RolloutStage::Aborted(_)) {
            self.prepare(&cell, rollout.to, 0);
            cell.uncall(rollout.to);
        }
        let (to, why) = rollout_line(&cell, alias, &rollout, next);
        let why = if why.is_empty() || !author.by.is_empty() { noted("", &author.by) } else { why };
        self.note_named(&cell, to, why);
        let base = self.counted(&cell, &rollout);
        let keep = i64::try_from(rollout.plan.keep).unwrap_or(i64::MAX);
        let mut all = self.rollouts.all.lock();
        let known = all.get(key);
        let step_begins = known.is_none_or(|known| {
            (known.rollout.state.step, known.rollout.state.since) != (rollout.state.step, rollout.state.since)
        });
        let base = if step_begins { base } else { known.map(|known| known.base.clone()).unwrap_or_default() };
        let keep_until = matches!(next, RolloutMove::Complete).then(|| wall_millis().saturating_add(keep));
        all.insert(key.clone(), RolloutEntry { rollout, base, keep_until });
        drop(all);
        self.rollouts.changed.notify_one();
        Ok(())
    }

    /// The old versions stay known, so that their idle instances sleep in place of ending.
    async fn keep_old(self: &Arc<Self>, cell: &Arc<Cell>, rollout: &Rollout) -> Result<(), Error> {
        if rollout.plan.keep > 0 {
            for version in self.versions_of(cell, &rollout.before).await? {
                cell.call_by_itself(version);
            }
        }
        Ok(())
    }

    /// The old versions give their room up, or serve again.
    fn set_aside(&self, cell: &Arc<Cell>, rollout: &Rollout) {
        if rollout.plan.park_old {
            let aside = rollout.state.aside;
            rollout.old(cell).into_iter().for_each(|version| cell.step(Event::SetAside { version, aside }));
        }
    }

    fn with(&self, key: &RolloutKey, change: impl FnOnce(&mut RolloutEntry)) {
        if let Some(held) = self.rollouts.all.lock().get_mut(key) {
            change(held);
        }
    }

    /// Asks for so many instances of a version beside what its requests start; 0 leaves it to them.
    fn prepare(&self, cell: &Arc<Cell>, version: VersionId, instances: u32) {
        let settings = (instances > 0).then(|| {
            let provision = Provision { default_target: instances, always_allocate_cpu: false, ..Provision::default() };
            Arc::new(Fc::new(provision))
        });
        let declared = cell.lock().provision_of(version);
        let settings = settings.or(declared);
        cell.step(Event::Provision { qualifier: Qualifier::Version(version), settings });
    }

    fn counted(&self, cell: &Cell, rollout: &Rollout) -> [Evidence; 2] {
        let of = |version: VersionId| self.options.metrics.evidence(cell.number(), version.0).unwrap_or_default();
        let mut old = Evidence::default();
        for target in &rollout.before {
            let evidence = of(target.revision.unwrap_or_else(|| cell.serving().id));
            old.requests += evidence.requests;
            old.failed += evidence.failed;
            merge(&mut old.latencies.total, &evidence.latencies.total);
        }
        [of(rollout.to), old]
    }

    fn sample(&self, cell: &Cell, held: &RolloutEntry) -> RolloutSample {
        let rollout = &held.rollout;
        let [new, old] = self.counted(cell, rollout);
        let since = |now: &Evidence, base: &Evidence| TrafficSample {
            requests: now.requests.saturating_sub(base.requests),
            failed: now.failed.saturating_sub(base.failed),
            p99: less(&now.latencies.total, &base.latencies.total).quantile(0.99),
        };
        let old_versions = rollout.old(cell);
        let look = |core: &FunctionCore| InstanceSample::of(core, rollout.to, &old_versions);
        let InstanceSample { busy, ready, waits_for_room, has_room, old_is_awake, failed_starts } =
            cell.look(&cell.lock(), look).unwrap_or_default();
        let most = cell.lock().held_version(rollout.to).map_or(1, |version| version.policy().max);
        let (new, old) = (since(&new, &held.base[0]), since(&old, &held.base[1]));
        let need = cell.lock().held_version(rollout.to).map(|version| version.policy().need);
        let has_room = has_room || need.is_none_or(|need| self.with_placer(|placer| placer.has_room(need)));
        RolloutSample { new, old, busy, ready, most, waits_for_room, has_room, old_is_awake, failed_starts }
    }

    /// The versions that rollouts of a function need: they must not be collected.
    pub(crate) fn versions_in_rollouts(&self, function: &FunctionName) -> Vec<VersionId> {
        let all = self.rollouts.all.lock();
        let own = all.iter().filter(|((name, _), _)| name == function).map(|(_, held)| &held.rollout);
        own.flat_map(|rollout| rollout.before.iter().filter_map(|target| target.revision).chain([rollout.to])).collect()
    }

    /// Whether a rollout of an alias is open.
    pub(crate) fn open_rollout(&self, function: &FunctionName, alias: &AliasName) -> bool {
        let all = self.rollouts.all.lock();
        all.get(&(function.clone(), alias.clone())).is_some_and(|held| held.rollout.state.is_open())
    }

    /// Where an alias pointed before its last rollout began.
    pub(crate) fn before_rollout(&self, alias: &StoredAlias) -> Option<Vec<AliasTarget>> {
        let all = self.rollouts.all.lock();
        let held = all.get(&(alias.function.clone(), alias.name.clone()))?;
        let moved = matches!(held.rollout.state.stage, RolloutStage::Completed);
        (moved && alias.targets == targets_at(&held.rollout, WHOLE)).then(|| held.rollout.before.clone())
    }

    /// Nobody asks for the rollout of an alias that is gone.
    pub(crate) fn forget_rollout(&self, function: &FunctionName, alias: &AliasName) {
        self.rollouts.all.lock().remove(&(function.clone(), alias.clone()));
    }
}

impl Control {
    /// Whether a rollout of an alias is open.
    pub fn rollout_is_open(&self, function: &FunctionName, alias: &AliasName) -> bool {
        self.shared.open_rollout(function, alias)
    }

    /// Starts a rollout of an alias.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoAlias`], [`Error::NoQualifier`], [`Error::RolloutOpen`], [`Error::RolloutInvalid`],
    /// [`Error::AliasInvalid`] or [`Error::Store`].
    pub async fn start_rollout(
        &self,
        name: &str,
        alias: &str,
        settings: &RolloutSettings,
        author: Author,
    ) -> Result<RolloutInfo, Error> {
        let to: QualifierName =
            settings.to.parse().map_err(|error| Error::RolloutInvalid { detail: format!("{error}") })?;
        let plan = plan_of(settings)?;
        let (control, name, alias) = (self.clone(), name.to_owned(), alias.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let shared = &control.shared;
            let cell = control.require(&name)?;
            let held = control.held_alias(&cell, &alias)?;
            let key = (cell.name().clone(), held.name.clone());
            if shared.open_rollout(&key.0, &key.1) {
                return Err(Error::RolloutOpen { function: name, alias });
            }
            let [AliasTarget { revision: Some(revision), .. }] =
                control.targets(&cell, &[(to.clone(), WHOLE)]).await?[..]
            else {
                return Err(Error::AliasInvalid {
                    detail: "LATEST changes with each deployment, and cannot be rolled out to".to_owned(),
                    hint: format!("name a version, such as 4: kip version publish {name}"),
                });
            };
            let serving = cell.serving().id;
            if held.targets.iter().any(|target| target.revision.unwrap_or(serving) == revision) {
                return Err(Error::AliasInvalid {
                    detail: format!("the alias `{}` sends requests to {to} already", held.name),
                    hint: format!(
                        "point it at the old version alone first: kip alias set {name} {} VERSION",
                        held.name
                    ),
                });
            }
            if let Some(version) = shared.version_of(&cell, revision).await? {
                cell.call_by_itself(version);
            }
            let now = wall_millis();
            let (state, by) = (RolloutState::begin(now), author.by.clone());
            let rollout = Rollout { to: revision, before: held.targets, plan, state, by, started: now };
            shared.carry_on(&turn, &key, rollout, RolloutMove::Wait, &author).await?;
            control.rollout(&name, &alias)
        });
        unit.await
    }

    /// Pauses, resumes, promotes or aborts a rollout.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoAlias`], [`Error::NoRollout`] or [`Error::Store`].
    pub async fn direct_rollout(
        &self,
        name: &str,
        alias: &str,
        command: RolloutAction,
        author: Author,
    ) -> Result<RolloutInfo, Error> {
        let (control, name, alias) = (self.clone(), name.to_owned(), alias.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let cell = control.require(&name)?;
            let held = control.held_alias(&cell, &alias)?;
            let key = (cell.name().clone(), held.name);
            let known = control.shared.rollouts.all.lock().get(&key).map(|held| held.rollout.clone());
            let none = || Error::NoRollout { function: name.clone(), alias: alias.clone() };
            let mut rollout = known.filter(|rollout| rollout.state.is_open()).ok_or_else(none)?;
            let now = wall_millis();
            let next = match command {
                RolloutAction::Pause | RolloutAction::Resume => {
                    rollout.state.pause(command == RolloutAction::Pause, now);
                    RolloutMove::Wait
                }
                RolloutAction::Promote => rollout.state.promote(&rollout.plan, now),
                RolloutAction::Abort => rollout.state.abort(AbortReason::Asked, now),
            };
            let (to, paused) = (rollout.to, rollout.state.paused);
            control.shared.carry_on(&turn, &key, rollout, next, &author).await?;
            if paused {
                // What starts for it would hold room that the old version needs again.
                control.shared.prepare(&cell, to, 0);
            }
            control.rollout(&name, &alias)
        });
        unit.await
    }

    /// The last rollout of an alias.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoAlias`] or [`Error::NoRollout`].
    pub fn rollout(&self, name: &str, alias: &str) -> Result<RolloutInfo, Error> {
        let cell = self.require(name)?;
        let key = (cell.name().clone(), self.held_alias(&cell, alias)?.name);
        let held = self.shared.rollouts.all.lock().get(&key).cloned();
        let none = || Error::NoRollout { function: name.to_owned(), alias: alias.to_owned() };
        let held = held.ok_or_else(none)?;
        let seen = self.shared.sample(&cell, &held);
        let Rollout { to, before, plan, state, by, started } = &held.rollout;
        let inner = cell.lock();
        let (stage, why) = match state.stage {
            RolloutStage::Preparing => ("preparing", None),
            RolloutStage::Observing => ("observing", None),
            RolloutStage::Completed => ("completed", None),
            RolloutStage::Aborted(why) => ("aborted", Some(why.to_string())),
        };
        let part = |target: &AliasTarget| {
            let label = target.revision.map_or_else(|| kip_spec::qualifier::LATEST.to_owned(), |one| inner.label(one));
            format!("{label}={}", percent(target.millionths.into()))
        };
        let traffic = |of: &TrafficSample| RolloutTraffic {
            requests: of.requests,
            failed: of.failed,
            p99_ms: of.p99.map(|micros| micros.div_ceil(1_000)),
        };
        Ok(RolloutInfo {
            function: cell.name().clone(),
            alias: key.1.to_string(),
            to: inner.label(*to),
            before: before.iter().map(part).collect::<Vec<_>>().join(","),
            steps: plan.steps.iter().map(|share| percent(u64::from(*share))).collect(),
            every_ms: plan.every,
            stage: stage.to_owned(),
            paused: state.paused,
            step: state.step,
            percent: percent(state.share(plan).into()),
            started: *started,
            since: state.since,
            by: by.clone(),
            ready: seen.ready,
            waits_for_room: seen.waits_for_room,
            old_is_parked: state.aside,
            new: traffic(&seen.new),
            old: traffic(&seen.old),
            why,
        })
    }
}

/// A plan as it is asked for.
fn plan_of(settings: &RolloutSettings) -> Result<RolloutPlan, Error> {
    let invalid = |detail: String| Error::RolloutInvalid { detail };
    let mut plan = RolloutPlan::default();
    if let Some(text) = &settings.steps {
        let read = |part: &str| {
            let part = part.trim().trim_end_matches('%').trim();
            share(part).filter(|share| *share > 0).ok_or_else(|| {
                invalid(format!("`{part}` is no share: write a percentage above 0 with at most four places"))
            })
        };
        plan.steps = text.split(',').map(read).collect::<Result<_, _>>()?;
        if !plan.steps.is_sorted_by(|one, next| one < next) || plan.steps.last() != Some(&WHOLE) {
            return Err(invalid(format!("the steps `{text}` do not ascend to 100")));
        }
    }
    plan.every = settings.every_ms.unwrap_or(plan.every);
    plan.keep = settings.keep_ms.unwrap_or(plan.keep);
    plan.park_old = settings.park_old;
    if plan.every < SHORTEST || plan.every > LONGEST || plan.keep > LONGEST {
        return Err(invalid(
            "a step is observed from 1 s to 30 days, and the old version is kept for 30 days at most".to_owned(),
        ));
    }
    let limits = &mut plan.limits;
    limits.least = settings.least_requests.unwrap_or(limits.least);
    limits.starts = settings.max_failed_starts.unwrap_or(limits.starts);
    if let Some(errors) = settings.max_errors_per_mille {
        limits.errors = (errors < 1_000).then_some(errors);
    }
    if let Some(slower) = settings.max_slower_percent {
        limits.slower = (slower > 0).then_some(slower);
    }
    Ok(plan)
}

/// Where an alias points when the new version has a share: the old ones keep their proportions.
fn targets_at(rollout: &Rollout, share: u32) -> Vec<AliasTarget> {
    let weights: Vec<u32> = rollout.before.iter().map(|target| target.millionths).collect();
    let parts = split(WHOLE - share.min(WHOLE), &weights);
    let old = rollout.before.iter().zip(parts).map(|(target, millionths)| AliasTarget { millionths, ..*target });
    let new = AliasTarget { revision: Some(rollout.to), millionths: share.min(WHOLE) };
    old.chain([new]).filter(|target| target.millionths > 0).collect()
}

/// A move, for the decision log.
fn rollout_line(cell: &Cell, alias: &AliasName, rollout: &Rollout, next: RolloutMove) -> (String, String) {
    let label = cell.lock().label(rollout.to);
    let to = match next {
        RolloutMove::Shift { share } => format!("rollout of {alias}: {label} has {} %", percent(share.into())),
        RolloutMove::Complete => format!("rollout of {alias} to {label} is complete"),
        RolloutMove::Abort(_) => format!("rollout of {alias} to {label} is aborted"),
        RolloutMove::Prepare { instances } => format!("rollout of {alias}: {instances} of {label} start"),
        RolloutMove::ParkOld => {
            format!("rollout of {alias}: the old version sleeps or ends, and requests wait for {label}")
        }
        RolloutMove::Wait if rollout.state.paused => format!("rollout of {alias} to {label} is paused"),
        RolloutMove::Wait => format!("rollout of {alias} to {label} goes on"),
    };
    let why = match (next, rollout.state.stage) {
        (RolloutMove::Abort(why), _) => why.to_string(),
        (RolloutMove::Shift { .. }, _) => "its instances are ready".to_owned(),
        (RolloutMove::Complete, _) => "the last step was observed".to_owned(),
        (RolloutMove::Prepare { .. }, _) => "the step was observed".to_owned(),
        (RolloutMove::ParkOld, _) => "the new version finds no room beside it".to_owned(),
        (RolloutMove::Wait, _) => String::new(),
    };
    (to, why)
}

fn merge(sum: &mut Histogram, more: &Histogram) {
    sum.buckets.iter_mut().zip(more.buckets).for_each(|(sum, more)| *sum += more);
    sum.sum = sum.sum.saturating_add(more.sum);
}

fn less(now: &Histogram, base: &Histogram) -> Histogram {
    let mut left = now.clone();
    left.buckets.iter_mut().zip(base.buckets).for_each(|(now, base)| *now = now.saturating_sub(base));
    left.sum = left.sum.saturating_sub(base.sum);
    left
}
