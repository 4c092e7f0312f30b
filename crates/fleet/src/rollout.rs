//! A rollout moves an alias from one version to another in steps, and back if the new version is worse. Pure: what was seen goes in,
//! the next move comes out; who carries it out writes it down first.
//!
//! The rules are those that Knative's users follow on scarce devices: the old version serves until the new one is ready, a step first
//! starts what its share needs, and only then moves requests.

use std::fmt;

use kip_spec::VersionId;
use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::{Class, FunctionCore, State};

/// All requests, in millionths.
pub const WHOLE: u32 = 1_000_000;
/// For so long a new version waits for room after the old one gave its own up, milliseconds.
const ROOM_LIMIT: u64 = 60_000;
/// How much more than its share needs a step starts, in tenths.
const SPARE_TENTHS: u64 = 12;

/// How a rollout is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPlan {
    /// Shares of the new version in millionths, ascending; the last is [`WHOLE`].
    pub steps: Vec<u32>,
    /// How long each step is observed, milliseconds.
    pub every: u64,
    /// How long the old version's instances stay asleep afterwards, milliseconds.
    pub keep: u64,
    /// Where the new version finds no room beside the old one, the old one gives its own up before the new one is ready.
    #[serde(default)]
    pub park_old: bool,
    /// What ends it.
    pub limits: RolloutLimits,
}

/// What ends a rollout by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutLimits {
    /// A version is judged by this many requests at least.
    pub least: u64,
    /// Failed requests of the new version beyond those of the old one, in a thousand; `None` does not look.
    pub errors: Option<u32>,
    /// By how much the new version's 99th percentile may exceed the old one's, in percent; `None` does not look.
    pub slower: Option<u32>,
    /// Starts in a row that may fail.
    pub starts: u32,
}

impl Default for RolloutLimits {
    fn default() -> Self {
        Self { least: 20, errors: Some(20), slower: Some(100), starts: 3 }
    }
}

impl Default for RolloutPlan {
    fn default() -> Self {
        let steps = vec![100_000, 300_000, 600_000, WHOLE];
        Self { steps, every: 300_000, keep: 600_000, park_old: false, limits: RolloutLimits::default() }
    }
}

/// How far a rollout has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutState {
    /// Steps whose share the new version has.
    pub step: u32,
    /// Whether its instances are prepared, or its answers observed.
    pub stage: RolloutStage,
    /// Since when, milliseconds since 1970.
    pub since: i64,
    /// It stands still.
    pub paused: bool,
    /// The old version is set aside: its instances sleep or end, and its requests wait for the new version.
    #[serde(default)]
    pub aside: bool,
}

/// A stage of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutStage {
    /// Instances for the next step start.
    Preparing,
    /// The step's answers are observed.
    Observing,
    /// The new version has everything.
    Completed,
    /// The alias is as it was before.
    Aborted(AbortReason),
}

/// Why a rollout went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortReason {
    /// Somebody asked for it.
    Asked,
    /// The new version does not start.
    Starts {
        /// So many starts failed in a row.
        failures: u32,
    },
    /// The new version found no room after the old one gave its own up.
    NoRoom,
    /// The new version fails more often. Failed requests in a thousand.
    Errors {
        /// Of the new version.
        new: u32,
        /// Of the old one.
        old: u32,
    },
    /// The new version is slower. 99th percentiles in microseconds.
    Slower {
        /// Of the new version.
        new: u64,
        /// Of the old one.
        old: u64,
    },
}

/// Requests of a version since the step began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficSample {
    /// How many ended.
    pub requests: u64,
    /// Those that were answered with a status of 500 or more.
    pub failed: u64,
    /// The 99th percentile of their time in microseconds, where it is known.
    pub p99: Option<u64>,
}

/// What is seen at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RolloutSample {
    /// Of the new version.
    pub new: TrafficSample,
    /// Of the old one.
    pub old: TrafficSample,
    /// Instances that all requests of the alias keep busy.
    pub busy: u32,
    /// Instances of the new version that can serve: hot or asleep.
    pub ready: u32,
    /// The most instances that the new version may have.
    pub most: u32,
    /// Another instance of the new version waits for room.
    pub waits_for_room: bool,
    /// There is room for an instance of the new version beside the old ones, or one has it.
    pub has_room: bool,
    /// An instance of an old version works or is on its way to rest.
    pub old_is_awake: bool,
    /// Starts of the new version that failed in a row.
    pub failed_starts: u32,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutMove {
    /// Nothing.
    Wait,
    /// So many instances of the new version are to be there.
    Prepare {
        /// How many.
        instances: u32,
    },
    /// The old version is set aside.
    ParkOld,
    /// The new version gets this share of the requests, in millionths.
    Shift {
        /// The share.
        share: u32,
    },
    /// It is over; the new version has everything.
    Complete,
    /// The alias goes back.
    Abort(AbortReason),
}

/// What a core knows of both versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InstanceSample {
    /// As [`RolloutSample::busy`].
    pub busy: u32,
    /// As [`RolloutSample::ready`].
    pub ready: u32,
    /// As [`RolloutSample::waits_for_room`].
    pub waits_for_room: bool,
    /// An instance of the new version has all its room.
    pub has_room: bool,
    /// As [`RolloutSample::old_is_awake`].
    pub old_is_awake: bool,
    /// As [`RolloutSample::failed_starts`].
    pub failed_starts: u32,
}

impl InstanceSample {
    /// Of a rollout from these versions to another one.
    pub fn of(core: &FunctionCore, to: VersionId, before: &[VersionId]) -> Self {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let ours = |version: VersionId| version == to || before.contains(&version);
        let new = || core.instances().filter(|one| one.version == to);
        let rests = |one: &&Instance| matches!(one.state.class(), Class::Hot | Class::Asleep) && !one.wants_room;
        let can = |one: &&Instance| rests(one) && !one.lost;
        let revision = core.revisions().find(|(version, _)| *version == to).map(|(_, revision)| revision);
        Self {
            busy: count(core.instances().filter(|one| ours(one.version) && one.state == State::Busy).count()),
            ready: count(new().filter(can).count()),
            waits_for_room: new().any(|one| one.waits_for.is_some()),
            has_room: new().any(|one| one.state.class() == Class::Hot && !one.lost),
            old_is_awake: core
                .instances()
                .any(|one| before.contains(&one.version) && !matches!(one.state.class(), Class::Asleep | Class::Gone)),
            failed_starts: revision.map_or(0, |revision| revision.backoff.failures()),
        }
    }
}

impl RolloutState {
    /// One that begins now.
    pub fn begin(now: i64) -> Self {
        Self { step: 0, stage: RolloutStage::Preparing, since: now, paused: false, aside: false }
    }

    /// Whether it goes on.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, RolloutStage::Preparing | RolloutStage::Observing)
    }

    /// The share that the new version has, in millionths.
    pub fn share(&self, plan: &RolloutPlan) -> u32 {
        match self.stage {
            RolloutStage::Aborted(_) => 0,
            _ => self.step.checked_sub(1).and_then(|step| plan.steps.get(step as usize)).copied().unwrap_or(0),
        }
    }

    /// Looks at what was seen and moves on.
    pub fn look(&mut self, plan: &RolloutPlan, seen: &RolloutSample, now: i64) -> RolloutMove {
        if self.paused || !self.is_open() {
            return RolloutMove::Wait;
        }
        if let Some(why) = judge(&plan.limits, seen) {
            return self.abort(why, now);
        }
        let passed = u64::try_from(now.saturating_sub(self.since)).unwrap_or(0);
        let next = plan.steps.get(self.step as usize).copied();
        match (self.stage, next) {
            (RolloutStage::Preparing, Some(share)) => {
                let wanted = wanted(share, seen);
                if self.aside && seen.ready >= 1 {
                    // The two do not run side by side, so there is no step between.
                    return self.promote(plan, now);
                }
                // Before it asks for room: an idle old version would be evicted for it, and its next request would evict the new one.
                if plan.park_old && !self.aside && !seen.has_room {
                    (self.aside, self.since) = (true, now);
                    return RolloutMove::ParkOld;
                }
                if self.aside && seen.waits_for_room && !seen.old_is_awake && passed >= ROOM_LIMIT {
                    return self.abort(AbortReason::NoRoom, now);
                }
                // What finds no room cannot be waited for: the old version gives its own up only when requests have moved.
                if seen.ready >= wanted || seen.ready >= 1 && seen.waits_for_room {
                    (self.step, self.stage, self.since) = (self.step + 1, RolloutStage::Observing, now);
                    return RolloutMove::Shift { share };
                }
                RolloutMove::Prepare { instances: wanted }
            }
            (RolloutStage::Observing, next) if passed >= plan.every => match next {
                Some(share) => {
                    (self.stage, self.since) = (RolloutStage::Preparing, now);
                    RolloutMove::Prepare { instances: wanted(share, seen) }
                }
                // It was promoted before anything of it could serve.
                None if seen.ready == 0 => RolloutMove::Prepare { instances: wanted(WHOLE, seen) },
                None => {
                    (self.stage, self.since) = (RolloutStage::Completed, now);
                    RolloutMove::Complete
                }
            },
            _ => RolloutMove::Wait,
        }
    }

    /// Goes to the last step at once.
    pub fn promote(&mut self, plan: &RolloutPlan, now: i64) -> RolloutMove {
        if !self.is_open() {
            return RolloutMove::Wait;
        }
        self.step = u32::try_from(plan.steps.len()).unwrap_or(u32::MAX);
        (self.stage, self.since, self.paused, self.aside) = (RolloutStage::Observing, now, false, false);
        RolloutMove::Shift { share: WHOLE }
    }

    /// Goes back.
    pub fn abort(&mut self, why: AbortReason, now: i64) -> RolloutMove {
        if !self.is_open() {
            return RolloutMove::Wait;
        }
        (self.stage, self.since, self.paused, self.aside) = (RolloutStage::Aborted(why), now, false, false);
        RolloutMove::Abort(why)
    }

    /// Stands still, or goes on. What was observed before a pause does not count, and the old version serves during it.
    pub fn pause(&mut self, paused: bool, now: i64) {
        if self.is_open() && self.paused != paused {
            (self.paused, self.since, self.aside) = (paused, now, false);
        }
    }
}

/// Instances that a share of the requests needs, with some to spare.
fn wanted(share: u32, seen: &RolloutSample) -> u32 {
    let tenths = u64::from(seen.busy).saturating_mul(u64::from(share)).saturating_mul(SPARE_TENTHS);
    let needs = tenths.div_ceil(u64::from(WHOLE) * 10);
    u32::try_from(needs).unwrap_or(u32::MAX).clamp(1, seen.most.max(1))
}

/// Of fewer requests, the 99th percentile is the longest of all.
const FOR_A_PERCENTILE: u64 = 100;
/// Hosts differ by so much from one moment to the next, microseconds.
const NOISE: u64 = 10_000;

fn judge(limits: &RolloutLimits, seen: &RolloutSample) -> Option<AbortReason> {
    if seen.failed_starts >= limits.starts.max(1) {
        return Some(AbortReason::Starts { failures: seen.failed_starts });
    }
    if seen.new.requests < limits.least.max(1) {
        return None;
    }
    let per_mille = |of: &TrafficSample| {
        let rate = of.failed.saturating_mul(1_000) / of.requests.max(1);
        u32::try_from(rate).unwrap_or(1_000)
    };
    let (new, old) = (per_mille(&seen.new), per_mille(&seen.old));
    if limits.errors.is_some_and(|most| new > old.saturating_add(most)) {
        return Some(AbortReason::Errors { new, old });
    }
    if seen.new.requests.min(seen.old.requests) < limits.least.max(FOR_A_PERCENTILE) {
        return None;
    }
    let (slower, new, old) = (limits.slower?, seen.new.p99?, seen.old.p99?);
    let most = old.saturating_mul(100 + u64::from(slower)) / 100;
    (new > most.max(old + NOISE)).then_some(AbortReason::Slower { new, old })
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |per_mille: &u32| f64::from(*per_mille) / 10.0;
        let millis = |micros: &u64| kip_spec::Millis(micros.div_ceil(1_000));
        match self {
            Self::Asked => f.write_str("it was aborted by a command"),
            Self::Starts { failures } => write!(f, "{failures} starts of the new version failed in a row"),
            Self::NoRoom => f.write_str("the new version found no room after the old one gave its own up"),
            Self::Errors { new, old } => write!(
                f,
                "{} % of the new version's requests failed, and {} % of the old version's",
                percent(new),
                percent(old)
            ),
            Self::Slower { new, old } => write!(
                f,
                "the 99th percentile of the new version is {}, and that of the old version {}",
                millis(new),
                millis(old)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> RolloutPlan {
        RolloutPlan { every: 1_000, ..RolloutPlan::default() }
    }

    fn calm(ready: u32) -> RolloutSample {
        RolloutSample { busy: 10, ready, most: 1_000, has_room: true, ..RolloutSample::default() }
    }

    #[test]
    fn each_step_prepares_what_its_share_needs_and_then_moves() {
        let (plan, mut state) = (plan(), RolloutState::begin(0));
        let mut now = 0;
        for (share, needs) in [(100_000, 2), (300_000, 4), (600_000, 8), (WHOLE, 12)] {
            assert_eq!(state.look(&plan, &calm(needs - 1), now), RolloutMove::Prepare { instances: needs });
            assert_eq!(state.look(&plan, &calm(needs), now), RolloutMove::Shift { share });
            assert_eq!(state.share(&plan), share);
            assert_eq!(state.look(&plan, &calm(needs), now + 999), RolloutMove::Wait);
            now += 1_000;
            if share < WHOLE {
                assert!(matches!(state.look(&plan, &calm(needs), now), RolloutMove::Prepare { .. }));
            }
        }
        assert_eq!(state.look(&plan, &calm(12), now), RolloutMove::Complete);
        assert_eq!(state.look(&plan, &calm(12), now + 10_000), RolloutMove::Wait);
    }

    #[test]
    fn a_function_that_sleeps_is_rolled_out_with_one_instance() {
        let (plan, mut state) = (plan(), RolloutState::begin(0));
        let idle = |ready| RolloutSample { ready, most: 3, ..RolloutSample::default() };
        assert_eq!(state.look(&plan, &idle(0), 0), RolloutMove::Prepare { instances: 1 });
        assert_eq!(state.look(&plan, &idle(1), 0), RolloutMove::Shift { share: 100_000 });
    }

    #[test]
    fn an_old_version_is_set_aside_only_for_a_new_one_without_room_and_not_for_longer_than_that() {
        let plan = RolloutPlan { park_old: true, ..plan() };
        let full = RolloutSample { waits_for_room: true, has_room: false, ..calm(0) };
        let mut state = RolloutState::begin(0);
        assert_eq!(
            state.look(&RolloutPlan { park_old: false, ..plan.clone() }, &full, 0),
            RolloutMove::Prepare { instances: 2 }
        );
        assert_eq!(state.look(&plan, &calm(0), 0), RolloutMove::Prepare { instances: 2 }, "there is room");
        assert_eq!(state.look(&plan, &full, 1), RolloutMove::ParkOld);
        assert!(state.aside);
        assert_eq!(state.look(&plan, &full, 2), RolloutMove::Prepare { instances: 2 });
        let mut back = state.clone();
        let failed = RolloutSample { failed_starts: 3, ..full };
        assert_eq!(back.look(&plan, &failed, 3), RolloutMove::Abort(AbortReason::Starts { failures: 3 }));
        assert!(!back.aside);
        let mut full_still = state.clone();
        assert_eq!(
            full_still.look(&plan, &RolloutSample { old_is_awake: true, ..full }, 90_000),
            RolloutMove::Prepare { instances: 2 }
        );
        assert_eq!(full_still.look(&plan, &full, 60_001), RolloutMove::Abort(AbortReason::NoRoom));
        let mut still = state.clone();
        still.pause(true, 3);
        assert!(!still.aside, "the old version serves during a pause");
        assert_eq!(state.look(&plan, &calm(1), 4), RolloutMove::Shift { share: WHOLE });
        assert!(!state.aside);
        assert_eq!(state.look(&plan, &calm(1), 1_004), RolloutMove::Complete);
    }

    /// 500 instances of the old version, and room for 300 more: the example of the practice that the rules come from.
    #[test]
    fn a_step_that_finds_no_room_for_all_goes_on_with_what_there_is() {
        let (plan, mut state) = (plan(), RolloutState::begin(0));
        let (mut old, mut new, mut now) = (500u32, 0u32, 0i64);
        for _ in 0..10_000 {
            let wants = wanted(
                plan.steps.get(state.step as usize).copied().unwrap_or(WHOLE),
                &RolloutSample { busy: 500, most: 1_000, ..RolloutSample::default() },
            );
            let room = 800 - old - new;
            let seen = RolloutSample {
                busy: 500,
                ready: new,
                most: 1_000,
                waits_for_room: room == 0 && new < wants,
                ..RolloutSample::default()
            };
            match state.look(&plan, &seen, now) {
                RolloutMove::Prepare { instances } => new += instances.saturating_sub(new).min(room).min(50),
                // The old version's idle instances end.
                RolloutMove::Shift { share } => {
                    old = old.min(500 - 500 * (share / 1_000) / 1_000);
                    assert!(u64::from(new) * 10 >= u64::from(500 * (share / 1_000) / 1_000) * 6, "{new} of {share}");
                }
                RolloutMove::Complete => return assert_eq!(old, 0),
                RolloutMove::Wait => {}
                other => panic!("{other:?}"),
            }
            now += 100;
        }
        panic!("it never ends: {state:?}");
    }

    #[test]
    fn it_goes_back_when_the_new_version_is_worse_and_not_before_enough_was_seen() {
        let traffic = |requests, failed, p99| TrafficSample { requests, failed, p99: Some(p99) };
        let rows = [
            (traffic(19, 19, 1_000), traffic(1_000, 0, 1_000), 0, None),
            (traffic(20, 1, 1_000), traffic(1_000, 0, 1_000), 0, Some(AbortReason::Errors { new: 50, old: 0 })),
            (traffic(1_000, 50, 1_000), traffic(1_000, 40, 1_000), 0, None),
            (traffic(1_000, 0, 200_000), traffic(1_000, 0, 100_000), 0, None),
            (
                traffic(100, 0, 200_001),
                traffic(100, 0, 100_000),
                0,
                Some(AbortReason::Slower { new: 200_001, old: 100_000 }),
            ),
            (traffic(99, 0, 900_000), traffic(1_000, 0, 100_000), 0, None),
            (traffic(1_000, 0, 900_000), traffic(99, 0, 100_000), 0, None),
            // Within what hosts differ by.
            (traffic(1_000, 0, 10_900), traffic(1_000, 0, 1_000), 0, None),
            (traffic(0, 0, 0), traffic(0, 0, 0), 3, Some(AbortReason::Starts { failures: 3 })),
        ];
        for (new, old, failed_starts, why) in rows {
            let mut state =
                RolloutState { step: 1, stage: RolloutStage::Observing, since: 0, paused: false, aside: false };
            let seen = RolloutSample { new, old, failed_starts, ..calm(5) };
            let expected = why.map_or(RolloutMove::Wait, RolloutMove::Abort);
            assert_eq!(state.look(&plan(), &seen, 10), expected, "{new:?} {old:?}");
            assert_eq!(state.is_open(), why.is_none());
        }
    }

    #[test]
    fn one_that_is_paused_does_nothing_and_counts_anew_afterwards() {
        let (plan, mut state) = (plan(), RolloutState::begin(0));
        assert_eq!(state.look(&plan, &calm(5), 0), RolloutMove::Shift { share: 100_000 });
        state.pause(true, 900);
        assert_eq!(state.look(&plan, &calm(5), 50_000), RolloutMove::Wait);
        state.pause(false, 60_000);
        assert_eq!(state.look(&plan, &calm(5), 60_999), RolloutMove::Wait);
        assert!(matches!(state.look(&plan, &calm(5), 61_000), RolloutMove::Prepare { .. }));
        assert_eq!(state.promote(&plan, 61_001), RolloutMove::Shift { share: WHOLE });
        assert_eq!(state.abort(AbortReason::Asked, 61_002), RolloutMove::Abort(AbortReason::Asked));
        assert_eq!(state.abort(AbortReason::Asked, 61_003), RolloutMove::Wait, "it is over");
        assert_eq!(state.share(&plan), 0);
    }

    #[test]
    fn one_that_is_promoted_before_it_can_serve_is_complete_only_when_it_does() {
        let (plan, mut state) = (plan(), RolloutState::begin(0));
        assert_eq!(state.promote(&plan, 0), RolloutMove::Shift { share: WHOLE });
        assert_eq!(state.look(&plan, &calm(0), 1_000), RolloutMove::Prepare { instances: 12 });
        let failed = RolloutSample { failed_starts: 3, ..calm(0) };
        assert_eq!(state.clone().look(&plan, &failed, 1_250), RolloutMove::Abort(AbortReason::Starts { failures: 3 }));
        assert_eq!(state.look(&plan, &calm(1), 1_500), RolloutMove::Complete);
    }
}
