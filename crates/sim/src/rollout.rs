//! Rollouts in the simulated world: the machine of the product, looked at as the server looks at it, over versions that fail and servers
//! that are killed.

use std::sync::Arc;

use kip_fleet::alias::split;
use kip_fleet::instance::Instance;
use kip_fleet::rollout::{
    AbortReason, InstanceSample, RolloutLimits, RolloutMove, RolloutPlan, RolloutSample, RolloutState, TrafficSample,
    WHOLE,
};
use kip_fleet::{Draw, Event, Policy, Qualifier, State, Target};
use kip_spec::VersionId;
use kip_spec::scaling::{Fc, Provision};

use crate::moving::{MOVING, Rollout};
use crate::plant::PlantedBug;
use crate::world::{World, WorldEvent};

/// Between two looks, milliseconds.
const LOOK: u64 = 250;
/// The 99th percentile of the time of a request, microseconds.
const TIME: u64 = 100_000;

impl World {
    /// A rollout begins, if there is a version to go to, and none is under way.
    pub(crate) fn roll_out(&mut self, function: usize, plan: RolloutPlan) {
        let cell = &self.cells[function];
        if cell.closed || cell.rollout.as_ref().is_some_and(|held| held.state.is_open() || held.keep_until.is_some()) {
            return;
        }
        let targets = cell.aliases.get(&MOVING).map(|(targets, _)| targets.clone()).unwrap_or_default();
        let before: Vec<(VersionId, Arc<Policy>, u32)> =
            targets.into_iter().map(|target| (target.version, target.policy, target.weight)).collect();
        if before.is_empty() {
            // It is made first, so that it stays behind when the next version is deployed.
            let (version, policy) = (cell.serving, cell.versions.get(&cell.serving).cloned());
            let Some(policy) = policy else { return };
            let targets = vec![Target { version, policy, weight: WHOLE }];
            let alias = Event::Alias { alias: MOVING, targets, latest: 0, provisioned: 0, draw: Draw::Begin(0) };
            return self.step(function, alias);
        }
        let newest = cell.versions.iter().next_back().map(|(version, policy)| (*version, policy.clone()));
        let Some((to, policy)) = newest.filter(|(to, _)| before.iter().all(|(version, ..)| version != to)) else {
            return;
        };
        let state = RolloutState::begin(self.wall());
        let rollout =
            Rollout { state, plan, to, before, policy: policy.clone(), base: [(0, 0); 2], keep_until: None, given: 0 };
        self.cells[function].rollout = Some(rollout);
        self.point_moving(function, 0);
        self.step(function, Event::Name { version: to, policy });
        self.count_anew(function);
        self.plan(self.now + LOOK, function, WorldEvent::Rollout);
    }

    /// Rounded to milliseconds since some beginning, as the server's clock is.
    fn wall(&self) -> i64 {
        i64::try_from(self.now).unwrap_or(i64::MAX)
    }

    /// The server looks at it again and again while it is open, and until what it keeps may go.
    pub(crate) fn look_at_rollout(&mut self, function: usize) {
        let Some(held) = self.cells[function].rollout.clone() else { return };
        if !held.state.is_open() && held.keep_until.is_none() {
            return;
        }
        self.plan(self.now + LOOK, function, WorldEvent::Rollout);
        if held.keep_until.is_some_and(|until| until <= self.now) {
            if let Some(rollout) = &mut self.cells[function].rollout {
                rollout.keep_until = None;
            }
            for version in held.old() {
                self.step(function, Event::Unname { version });
            }
            self.prepare(function, held.to, 0);
            return;
        }
        let seen = self.sample(function, &held);
        let (mut next, now) = (held, self.wall());
        let (before, aside) = ((next.state.step, next.state.since), next.state.aside);
        let what = next.state.look(&next.plan, &seen, now);
        let begins = (next.state.step, next.state.since) != before;
        self.cells[function].rollout = Some(next.clone());
        if !matches!(what, RolloutMove::Wait | RolloutMove::Prepare { .. }) {
            let (name, to) = (self.cells[function].name.clone(), next.to);
            self.trace.tell(self.now, || format!("{name} rollout to {to}: {what:?}"));
        }
        match what {
            RolloutMove::Wait => {}
            RolloutMove::Prepare { instances } => self.prepare(function, next.to, instances),
            RolloutMove::ParkOld => {}
            RolloutMove::Shift { share } => {
                self.check_shift(function, &next, share, &seen);
                if share == WHOLE && next.plan.keep > 0 {
                    for (version, policy, _) in next.before.clone() {
                        self.step(function, Event::Name { version, policy });
                    }
                }
                self.point_moving(function, share);
            }
            RolloutMove::Complete => {
                if let Some(rollout) = &mut self.cells[function].rollout {
                    rollout.keep_until = Some(self.now + rollout.plan.keep);
                }
            }
            RolloutMove::Abort(why) => {
                self.check_abort(&next, why);
                self.point_moving(function, 0);
                self.prepare(function, next.to, 0);
                self.step(function, Event::Unname { version: next.to });
            }
        }
        if aside || next.state.aside {
            for version in next.old() {
                self.step(function, Event::SetAside { version, aside: next.state.aside });
            }
        }
        if begins {
            self.count_anew(function);
        }
    }

    fn count_anew(&mut self, function: usize) {
        let Some(held) = self.cells[function].rollout.clone() else { return };
        let base = self.counted(function, &held);
        if let Some(rollout) = &mut self.cells[function].rollout {
            rollout.base = base;
        }
    }

    fn counted(&self, function: usize, held: &Rollout) -> [(u64, u64); 2] {
        let of = |version: VersionId| self.cells[function].counts.get(&version).copied().unwrap_or_default();
        let old = held.old().into_iter().map(of).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        [of(held.to), old]
    }

    fn sample(&self, function: usize, held: &Rollout) -> RolloutSample {
        let [new, old] = self.counted(function, held);
        let since = |now: (u64, u64), base: (u64, u64), p99: u64| TrafficSample {
            requests: now.0.saturating_sub(base.0),
            failed: now.1.saturating_sub(base.1),
            p99: Some(p99),
        };
        // Some versions are slower than the one before.
        let slow = if held.to.0.is_multiple_of(5) { 3 * TIME } else { TIME };
        let core = self.cells[function].core();
        let seen = core.map(|core| InstanceSample::of(core, held.to, &held.old())).unwrap_or_default();
        let InstanceSample { busy, ready, waits_for_room, has_room, old_is_awake, failed_starts } = seen;
        let has_room = has_room || self.placer.has_room(held.policy.need);
        let (new, old) = (since(new, held.base[0], slow), since(old, held.base[1], TIME));
        RolloutSample {
            new,
            old,
            busy,
            ready,
            most: held.policy.max,
            waits_for_room,
            has_room,
            old_is_awake,
            failed_starts,
        }
    }

    fn prepare(&mut self, function: usize, version: VersionId, instances: u32) {
        if self.plant == Some(PlantedBug::ForgottenPrepare) {
            return;
        }
        let settings = (instances > 0).then(|| {
            let provision = Provision { default_target: instances, always_allocate_cpu: false, ..Provision::default() };
            Arc::new(Fc::new(provision))
        });
        if !self.cells[function].closed {
            self.step(function, Event::Provision { qualifier: Qualifier::Version(version), settings });
        }
    }

    /// Gives the new version a share; the old ones keep their proportions.
    fn point_moving(&mut self, function: usize, share: u32) {
        let Some(rollout) = &mut self.cells[function].rollout else { return };
        rollout.given = share;
        let rollout = rollout.clone();
        let weights: Vec<u32> = rollout.before.iter().map(|(_, _, weight)| *weight).collect();
        let parts = split(WHOLE - share, &weights);
        let old = rollout.before.into_iter().zip(parts);
        let old = old.map(|((version, policy, _), weight)| Target { version, policy, weight });
        let new = Target { version: rollout.to, policy: rollout.policy, weight: share };
        let targets = old.chain([new]).filter(|target| target.weight > 0).collect();
        self.step(function, Event::Alias { alias: MOVING, targets, latest: 0, provisioned: 0, draw: Draw::Begin(0) });
    }

    /// A share grows, and something of the new version is there before it does.
    fn check_shift(&mut self, function: usize, rollout: &Rollout, share: u32, seen: &RolloutSample) {
        if share <= rollout.given || seen.ready == 0 {
            let (name, given) = (&self.cells[function].name, rollout.given);
            self.fail("rollout", format!("{name} moves from {given} to {share} with {} ready", seen.ready));
        }
    }

    /// It goes back for a reason that its limits name.
    fn check_abort(&mut self, rollout: &Rollout, why: AbortReason) {
        let RolloutLimits { errors, slower, starts, .. } = rollout.plan.limits;
        let named = match why {
            AbortReason::Starts { failures } => failures >= starts,
            AbortReason::NoRoom => rollout.plan.park_old,
            AbortReason::Errors { new, old } => errors.is_some_and(|most| new > old + most),
            AbortReason::Slower { new, old } => slower.is_some() && new > old,
            _ => false,
        };
        if !named {
            self.fail("rollout", format!("it is aborted by {why:?} with {:?}", rollout.plan));
        }
    }

    /// A rollout that does not end once nothing goes wrong any more, though its new version has what it needs.
    pub(crate) fn rollout_unrest(&self, function: usize) -> Option<String> {
        let cell = &self.cells[function];
        let held = cell.rollout.as_ref().filter(|held| held.state.is_open())?;
        let core = cell.core().filter(|_| !cell.closed)?;
        // What others keep for ever can leave it nothing: then it waits, as its status says.
        let asks = |one: &Instance| one.state == State::Requested || one.wants_room;
        let waits = core.instances().any(|one| one.version == held.to && asks(one));
        // What is set aside for it does not wait for ever.
        (!waits || held.state.aside).then(|| format!("its rollout to {} does not end: {:?}", held.to, held.state))
    }
}
