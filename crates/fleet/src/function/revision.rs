//! A version within its function's core: its role, its queue, its scaler, its failures, and what was measured of it.

use std::sync::Arc;

use kip_spec::InstanceId;
use kip_spec::scaling::Scaling;
use serde::{Deserialize, Serialize};

use super::backlog::Backlog;
use crate::policy::{GRACE, GRACE_TENTHS, LONGEST_GRACE};
use crate::queue::Queue;
use crate::room::Gpu;
use crate::scaler::Scalers;
use crate::why::{Reason, StartFailure};
use crate::{History, Now, Policy, Rung};

/// What a version is to its function at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Proves itself with one instance; takes no requests yet.
    Candidate,
    /// Takes all new requests that name no other.
    Serving,
    /// Takes the requests that aliases give it, or that ask for it.
    Named,
    /// Serves the requests it has and then ends.
    Retiring,
}

/// A version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revision {
    /// What it is at present.
    pub role: Role,
    /// How it wants to be treated.
    pub policy: Arc<Policy>,
    /// Requests that wait for it.
    pub queue: Queue,
    /// Tasks that wait for it outside.
    pub backlog: Backlog,
    /// Who decides how many instances it has.
    pub scaler: Scalers,
    /// What its failed starts forbid.
    pub backoff: Backoff,
    /// Requests may ask for it by itself.
    #[serde(default)]
    pub called: bool,
    /// Provisioned instances that aliases want of it, on top of its own minimum.
    pub named_minimum: u32,
    /// Provisioned instances that policies and calendars want of it, instead of its own minimum if that is less.
    pub provisioned: u32,
    /// Fewer are to be provisioned than just before.
    pub shrunk: bool,
    /// Of those that are kept, so many do not sleep when they are idle.
    pub kept_hot: u32,
    /// Requests that ever came; it goes round at the end.
    pub arrivals: u32,
    /// What starting and waking it takes.
    pub costs: OperationCosts,
    /// The longest request it has served, milliseconds.
    pub longest: u64,
    /// The instance that is being replaced, and since when, boot time.
    pub rotation: Option<(InstanceId, u64)>,
    /// Between the end of an instance's last request and the next one that it got while it was still hot, milliseconds: the
    /// mean, the latest counting most. Nothing where none came.
    #[serde(default)]
    pub gap: Option<u64>,
    /// Freezes and wakes below paused that failed in a row.
    #[serde(default)]
    pub rung_failures: u8,
    /// One instance starts though no request waits: why, and until when it may wait for room, boot time.
    #[serde(default)]
    pub returns: Option<(Reason, u64)>,
    /// It is being made ready for requests that come at this interval, milliseconds, and do not wait yet.
    #[serde(default)]
    pub expects: Option<u64>,
}

impl Revision {
    /// A version with nothing waiting.
    /// A fresh one was never up before.
    pub fn new(role: Role, policy: Arc<Policy>, fresh: bool) -> Self {
        let scaler = Scalers::new(&policy, fresh);
        Self {
            role,
            policy,
            queue: Queue::default(),
            backlog: Backlog::default(),
            scaler,
            backoff: Backoff::default(),
            called: false,
            named_minimum: 0,
            provisioned: 0,
            shrunk: false,
            kept_hot: 0,
            arrivals: 0,
            costs: OperationCosts::default(),
            longest: 0,
            rotation: None,
            gap: None,
            rung_failures: 0,
            returns: None,
            expects: None,
        }
    }

    /// What it has learnt of its traffic and its instances; nothing where its policy learns nothing.
    pub fn history(&self, now: Now) -> Option<History> {
        let auto = self.scaler.history(now.boot).filter(|auto| !auto.is_empty())?;
        Some(History { at: now, costs: self.costs, auto })
    }

    /// Goes on from what an earlier core, or the version before, has learnt.
    pub fn learn(&mut self, history: &History) {
        if self.scaler.learn(&history.auto) {
            self.costs = history.costs;
        }
    }

    /// How many instances are kept for it.
    pub fn minimum(&self) -> u32 {
        match self.role {
            Role::Serving => self.policy.min.max(self.provisioned).saturating_add(self.named_minimum),
            Role::Named => self.provisioned.saturating_add(self.named_minimum),
            Role::Candidate | Role::Retiring => 0,
        }
    }

    /// How many instances a policy wants to be there whether requests come or not.
    pub fn kept(&self) -> u32 {
        let serves = matches!(self.role, Role::Serving | Role::Named);
        self.minimum().max(self.scaler.applied().filter(|_| serves).unwrap_or(0))
    }

    /// Never more instances than this.
    pub fn maximum(&self) -> u32 {
        self.policy.max.max(self.minimum())
    }

    /// Whether requests may start instances beyond those that are kept.
    pub fn on_demand(&self) -> bool {
        !matches!(&self.policy.scaling, Scaling::Fc(fc) if fc.disable_ondemand)
    }

    /// From SIGTERM to SIGKILL, milliseconds.
    pub fn grace(&self) -> u64 {
        let follows = self.longest.saturating_mul(GRACE_TENTHS) / 10;
        self.policy.grace.unwrap_or_else(|| follows.clamp(GRACE, LONGEST_GRACE))
    }

    /// What it takes to have an instance back after it gave its room up, milliseconds.
    pub fn restore(&self) -> u64 {
        let need = &self.policy.need;
        match (need.memory > 0, need.gpu) {
            (false, Gpu::None) if need.cpu > 0 && self.policy.idle.pause.is_some() => self.costs.wake(Rung::Paused),
            (true, _) if self.offers(Rung::Spilled) => self.costs.wake(Rung::Spilled),
            (false, _) if self.offers(Rung::Parked) => self.costs.wake(Rung::Parked),
            _ => self.costs.start,
        }
    }

    /// Whether its instances may go down to a rung: the host offers it, it has not failed too often, and they can be back in
    /// time.
    pub fn offers(&self, rung: Rung) -> bool {
        let rungs = self.policy.rungs;
        let there = match rung {
            Rung::Paused => self.policy.idle.pause.is_some(),
            Rung::Parked => rungs.park,
            Rung::Spilled => rungs.spill,
        };
        let proven = rung == Rung::Paused || self.rung_failures < RUNG_FAILURES;
        there && proven && self.in_time(self.costs.wake(rung))
    }

    /// The shallowest rest on which an instance gives back all that it needs; `None` where it has to end for that.
    pub fn rung_without_room(&self) -> Option<Rung> {
        let need = &self.policy.need;
        let rung = match (need.memory > 0, need.gpu) {
            // A sleeper listens still.
            (..) if need.port > 0 => return None,
            (true, _) => Rung::Spilled,
            (false, Gpu::None) => Rung::Paused,
            (false, _) => Rung::Parked,
        };
        self.offers(rung).then_some(rung)
    }

    /// Whether sleepers go down by themselves after some time.
    pub fn sinks_by_time(&self) -> bool {
        self.policy.idle.park.after().is_some() || self.policy.idle.spill.after().is_some()
    }

    /// Whether its instances may end to make room: a start is fast enough, and they are not pinned.
    pub fn may_end(&self) -> bool {
        !self.policy.pinned && self.in_time(self.costs.start)
    }

    fn in_time(&self, takes: u64) -> bool {
        self.policy.wake.is_none_or(|limit| takes <= limit)
    }

    /// A freeze or a wake below paused ended so. True if it was the failure that disables these rungs.
    pub fn note_rung(&mut self, well: bool) -> bool {
        let before = self.rung_failures;
        self.rung_failures = if well && before < RUNG_FAILURES { 0 } else { before.saturating_add(u8::from(!well)) };
        !well && self.rung_failures == RUNG_FAILURES
    }
}

/// Freezes and wakes below paused that fail in a row disable these rungs for a version.
pub(crate) const RUNG_FAILURES: u8 = 3;

/// What starting and waking takes, milliseconds: the mean of what was seen, the latest counting most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCosts {
    /// From room to ready.
    pub start: u64,
    wake: [u64; 3],
}

impl Default for OperationCosts {
    /// Before anything was seen.
    fn default() -> Self {
        Self { start: 1_000, wake: [1, 1_000, 5_000] }
    }
}

impl OperationCosts {
    /// From a rung to ready.
    pub fn wake(&self, from: Rung) -> u64 {
        self.wake[from as usize]
    }

    /// A start took so long.
    pub fn started(&mut self, took: u64) {
        self.start = (self.start + took * 3) / 4;
    }

    /// A wake took so long.
    pub fn woke(&mut self, from: Rung, took: u64) {
        self.wake[from as usize] = (self.wake[from as usize] + took * 3) / 4;
    }
}

/// Starts that failed in a row, instances that ended soon after, and when the next start may be tried.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Backoff {
    failures: u32,
    crashes: u32,
    retry_at: Option<u64>,
    last: Option<StartFailure>,
}

/// The pause after the second failure; doubled with each further one.
const FIRST_PAUSE: u64 = 1_000;
/// No pause is longer.
const LONGEST_PAUSE: u64 = 60_000;
/// An instance that was hot for this long has proven that its version works, milliseconds.
pub(crate) const STABLE: u64 = 10_000;
/// So many failed starts in a row are called a crash loop.
const FAILURES: u32 = 3;
/// And so many instances that ended soon after they were ready; before that, starts are not paused for them.
const CRASHES: u32 = 5;

impl Backoff {
    /// Notes a failed start. The first one costs no pause, so that a passing trouble heals with the next request. True if
    /// this makes it a crash loop.
    pub fn failed(&mut self, now: u64, failure: StartFailure) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.pause(now, self.failures, failure);
        self.failures == FAILURES && self.crashes < CRASHES
    }

    /// Notes an instance that ended soon after it was ready. True if this makes it a crash loop.
    pub fn crashed(&mut self, now: u64, failure: StartFailure) -> bool {
        self.crashes = self.crashes.saturating_add(1);
        self.pause(now, (self.crashes + 2).saturating_sub(CRASHES), failure);
        self.crashes == CRASHES && self.failures < FAILURES
    }

    fn pause(&mut self, now: u64, count: u32, failure: StartFailure) {
        let pause = match count {
            0 | 1 => 0,
            count => (FIRST_PAUSE << (count - 2).min(10)).min(LONGEST_PAUSE),
        };
        self.retry_at = (pause > 0).then(|| now.saturating_add(pause));
        self.last = Some(failure);
    }

    /// An instance became ready: starts work.
    pub fn started(&mut self) {
        (self.failures, self.retry_at) = (0, None);
        if self.crashes == 0 {
            self.last = None;
        }
    }

    /// An instance stayed: all is forgiven.
    pub fn stable(&mut self) {
        *self = Self::default();
    }

    /// Whether there is nothing to remember.
    pub fn is_clear(&self) -> bool {
        self.failures == 0 && self.crashes == 0
    }

    /// How many starts failed, or instances ended soon after they were ready, in a row.
    pub fn failures(&self) -> u32 {
        self.failures.max(self.crashes)
    }

    /// Whether it goes on like this.
    pub fn is_crash_loop(&self) -> bool {
        let never_started = self.last == Some(StartFailure::NoRoom);
        !never_started && (self.failures >= FAILURES || self.crashes >= CRASHES)
    }

    /// The last failure, if any.
    pub fn last(&self) -> Option<StartFailure> {
        self.last
    }

    /// When the next start may be tried, boot time.
    pub fn retry_at(&self) -> Option<u64> {
        self.retry_at
    }

    /// Whether a start is forbidden now: for how long, and since which failure.
    pub fn blocks(&self, now: u64) -> Option<(u64, StartFailure)> {
        let remaining = self.retry_at?.checked_sub(now).filter(|remaining| *remaining > 0)?;
        Some((remaining, self.last?))
    }

    /// Lets the pause end; the count of failures stays.
    pub fn expire(&mut self, now: u64) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_the_first_is_free() {
        let mut backoff = Backoff::default();
        let mut pauses = Vec::new();
        for number in 1..=9 {
            assert_eq!(backoff.failed(0, StartFailure::NeverReady), number == 3);
            pauses.push(backoff.blocks(0).map_or(0, |(pause, _)| pause));
        }
        assert_eq!(pauses, [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        backoff.expire(60_000);
        assert_eq!((backoff.blocks(60_000), backoff.failures()), (None, 9));
        backoff.started();
        assert!(backoff.is_clear() && backoff.last().is_none());
    }

    #[test]
    fn crashes_after_ready_are_remembered_over_good_starts_until_one_stays() {
        let mut backoff = Backoff::default();
        let mut pauses = Vec::new();
        for number in 1..=6 {
            backoff.started();
            assert_eq!(backoff.crashed(0, StartFailure::NeverReady), number == 5);
            pauses.push(backoff.blocks(0).map_or(0, |(pause, _)| pause));
        }
        assert_eq!(pauses, [0, 0, 0, 0, 1_000, 2_000]);
        assert!(backoff.is_crash_loop());
        backoff.stable();
        assert!(backoff.is_clear());
    }
}
