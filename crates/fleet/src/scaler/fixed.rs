//! Between two bounds, by backlog: one step out as soon as requests wait, asleep after `idle.pause`, gone after `idle.stop`.

use serde::{Deserialize, Serialize};

use super::{Desired, Load, Observation, Scaler};
use crate::{Now, Policy};

/// The scaler of `scaling: {mode: fixed}`, and of `fc`, where what is provisioned moves the bounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fixed {
    soft: u32,
    pause: Option<u64>,
    stop: Option<u64>,
    next_tick: Option<u64>,
}

impl Fixed {
    /// By a version's declaration.
    pub fn new(policy: &Policy) -> Self {
        Self {
            soft: policy.concurrency.soft.max(1),
            pause: policy.idle.pause.map(|pause| pause.0),
            stop: policy.idle.stop.map(|stop| stop.0),
            next_tick: None,
        }
    }
}

impl Scaler for Fixed {
    fn observe(&mut self, _: u64, _: Load) {}

    fn decide(&mut self, now: Now, seen: &Observation<'_>) -> Desired {
        let now = now.boot;
        let most = if seen.on_demand { seen.maximum } else { seen.minimum };
        let demand = seen.in_flight.saturating_add(seen.queued).div_ceil(self.soft).min(most);
        let resting = |since: u64, limit: Option<u64>| limit.is_some_and(|limit| now >= since.saturating_add(limit));
        let rest = || seen.idle_since.iter().chain(seen.asleep_since).copied();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);

        let fresh = |since: &&u64| !resting(**since, self.pause) && !resting(**since, self.stop);
        let warm = count(seen.idle_since.iter().filter(fresh).count());
        let kept_hot = if self.pause.is_none() { seen.minimum } else { seen.kept_hot };
        let hot = demand.max(seen.busy.saturating_add(warm)).max(kept_hot);

        // One that wakes has left the sleepers, and must not cost another of them its life.
        let unexpired = count(rest().filter(|since| !resting(*since, self.stop)).count());
        let kept = unexpired.saturating_add(seen.busy).saturating_add(seen.starting);
        let asleep = kept.max(seen.minimum).saturating_sub(hot);

        let pause_at = seen.idle_since.iter().filter_map(|since| Some(since.saturating_add(self.pause?)));
        let stop_at = rest().filter_map(|since| Some(since.saturating_add(self.stop?)));
        self.next_tick = pause_at.chain(stop_at).filter(|at| *at > now).min();
        let (kind, why) = seen.reason(hot);
        Desired { hot, asleep, decided: false, kind, why }
    }

    fn next_tick(&self) -> Option<u64> {
        self.next_tick
    }

    fn is_at_rest(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::why::Reason;

    fn fixed(soft: u32, pause: Option<u64>, stop: Option<u64>) -> Fixed {
        Fixed { soft, pause, stop, next_tick: None }
    }

    #[test]
    fn decisions() {
        type Row<'a> = (&'a str, Fixed, Observation<'a>, (u32, u32), Option<u64>);
        let rows: [Row<'_>; 9] = [
            ("zero stays zero", fixed(1, Some(10), Some(50)), seen(0, 5, 0, 0, 0, &[], &[]), (0, 0), None),
            ("the first request starts one", fixed(4, Some(10), Some(50)), seen(0, 5, 0, 1, 0, &[], &[]), (1, 0), None),
            ("a backlog scales out in one step", fixed(4, None, None), seen(0, 50, 0, 41, 0, &[], &[]), (11, 0), None),
            ("never above max", fixed(1, None, None), seen(0, 5, 3, 90, 3, &[], &[]), (5, 0), None),
            (
                "a fresh idle one stays hot",
                fixed(1, Some(10), Some(50)),
                seen(0, 5, 0, 0, 0, &[95], &[]),
                (1, 0),
                Some(105),
            ),
            (
                "idle past pause sleeps",
                fixed(1, Some(10), Some(50)),
                seen(0, 5, 0, 0, 0, &[90], &[]),
                (0, 1),
                Some(140),
            ),
            (
                "asleep past stop ends",
                fixed(1, Some(10), Some(50)),
                seen(0, 5, 0, 0, 0, &[], &[50, 60]),
                (0, 1),
                Some(110),
            ),
            ("the minimum is kept asleep", fixed(1, Some(10), Some(50)), seen(2, 5, 0, 0, 0, &[], &[50]), (0, 2), None),
            (
                "the minimum is kept hot without pause",
                fixed(1, None, Some(50)),
                seen(2, 5, 0, 0, 0, &[1], &[]),
                (2, 0),
                None,
            ),
        ];
        for (name, mut scaler, observation, (hot, asleep), tick) in rows {
            let desired = scaler.decide(Now { boot: 100, wall: 0 }, &observation);
            assert_eq!((desired.hot, desired.asleep), (hot, asleep), "{name}");
            assert_eq!(scaler.next_tick(), tick, "{name}");
        }
    }

    #[test]
    fn one_that_wakes_costs_no_sleeper_its_life() {
        let mut scaler = fixed(1, Some(10), Some(1_000));
        let mut decide = |asleep: &[u64], starting: u32| {
            let seen = Observation { starting, ..seen(0, 5, 0, 1, 0, &[], asleep) };
            let desired = scaler.decide(Now { boot: 100, wall: 0 }, &seen);
            (desired.hot, desired.asleep)
        };
        assert_eq!(decide(&[50, 60, 70], 0), (1, 2));
        assert_eq!(decide(&[50, 60], 1), (1, 2), "the third one wakes");
    }

    #[test]
    fn reasons() {
        let scaler = || fixed(1, None, None);
        let reason = |observation: Observation<'_>| {
            let desired = scaler().decide(Now { boot: 100, wall: 0 }, &observation);
            (desired.kind, desired.why)
        };
        let kept = Kind::Provisioned;
        assert_eq!(reason(seen(2, 5, 0, 3, 0, &[], &[])), (Kind::OnDemand, Reason::RequestsWait { queued: 3 }));
        assert_eq!(reason(seen(2, 5, 0, 0, 0, &[], &[])), (kept, Reason::KeepMinimum));
        let provisioned = Observation { provisioned: 2, ..seen(2, 5, 0, 0, 0, &[], &[]) };
        assert_eq!(reason(provisioned), (kept, Reason::Provisioned { target: 2 }));
        assert_eq!(reason(seen(1, 5, 3, 0, 3, &[], &[])), (Kind::OnDemand, Reason::RequestsWait { queued: 0 }));
    }

    fn seen<'a>(
        minimum: u32,
        maximum: u32,
        in_flight: u32,
        queued: u32,
        busy: u32,
        idle_since: &'a [u64],
        asleep_since: &'a [u64],
    ) -> Observation<'a> {
        let (kept_hot, on_demand, provisioned) = (0, true, 0);
        Observation {
            in_flight,
            queued,
            busy,
            idle_since,
            asleep_since,
            minimum,
            maximum,
            kept_hot,
            on_demand,
            provisioned,
            starting: 0,
            waiting_since: None,
            start: 0,
            wake: 0,
        }
    }
}
