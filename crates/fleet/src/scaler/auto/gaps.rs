//! For how long instances are worth keeping, by the gaps between their uses.
//!
//! Instances are used like a stack: the one at depth 3 works only while there are four requests at once or more. So each depth has
//! gaps of its own: from the moment when the load falls below it to the moment when it is reached again. Depths of about the same
//! size share their gaps.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Gaps that are remembered for each group of depths.
const GAPS: usize = 48;
/// With fewer gaps than this nothing is known of the next one.
const FEW: usize = 4;
/// No more depths are distinguished.
const DEEPEST: usize = 10_000;
/// Depths whose last use is remembered over the end of a core.
const REMEMBERED: usize = 512;
/// The price of an instance asleep as a share of an active one (Function Compute's idle GPU: 0.5 / 2.1).
pub(super) const ASLEEP: f64 = 0.5 / 2.1;

/// What a start, a wake and a caller's wait cost, milliseconds and shares.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Worth {
    pub(super) start: u64,
    pub(super) wake: u64,
    /// Seconds of an active instance that a second of a caller's wait is worth.
    pub(super) waiting: f64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Group {
    gaps: VecDeque<u64>,
    /// For how long a depth was needed at a time, milliseconds: the mean, the latest counting most.
    use_time: f64,
    /// What keeping is worth, milliseconds, and by which costs it was found; nothing after a new gap.
    limit: Option<(u64, Worth)>,
}

/// All numbers are finite.
impl Eq for Group {}
impl Eq for Worth {}

/// Gaps by depth.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct DepthGaps {
    /// When each depth was last left, boot time; 0 where it never was.
    left: Vec<u64>,
    /// Since when each depth below the present one is needed, boot time.
    reached: Vec<u64>,
    depth: usize,
    groups: Vec<Group>,
    /// Depths from this one on are known not to be worth keeping, by these costs, until one of them is used or its gaps change.
    #[serde(skip)]
    expired: Option<(usize, Worth)>,
}

/// Small depths are apart; larger ones share a group with those up to a quarter more.
fn group(depth: usize) -> usize {
    const APART: usize = 8;
    if depth < APART {
        return depth;
    }
    let power = depth.ilog2() as usize;
    let quarter = (depth >> (power - 2)) & 3;
    APART + (power - 3) * 4 + quarter
}

impl Group {
    fn add(&mut self, gap: u64) {
        self.gaps.push_back(gap);
        if self.gaps.len() > GAPS {
            self.gaps.pop_front();
        }
        self.limit = None;
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds of days")]
    fn used(&mut self, time: u64) {
        let time = time as f64;
        self.use_time = if self.use_time == 0.0 { time } else { self.use_time * 0.9 + time * 0.1 };
    }

    /// What it costs to be without an instance at a depth when it is needed. At the first depth a request must wait for a start. At
    /// others it may wait until one of the rest is free, or for as long as the depth is needed, and half a wake longer than a sleeper
    /// would have taken. `service` is the mean service time, milliseconds.
    fn begin(&self, depth: usize, worth: Worth, service: f64) -> f64 {
        let (begin, resume) = costs(worth);
        let Ok(others @ 1..) = u32::try_from(depth) else { return begin };
        let wait = self.use_time.max(service / f64::from(others)) + float(worth.wake) / 2.0;
        begin.min(resume + worth.waiting * wait)
    }
}

impl DepthGaps {
    /// Whether no depth was ever left.
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// What is known of them if nothing is needed from now on. Of a deep fleet, only the first depths are kept one by one.
    pub(super) fn at_rest(&self, now: u64) -> Self {
        let mut rests = self.clone();
        rests.follow(now, 0);
        rests.left.truncate(REMEMBERED);
        rests.reached.clear();
        rests.expired = None;
        rests.groups.iter_mut().for_each(|group| group.limit = None);
        rests
    }

    /// So many instances were found, of whose use nothing is known: they count as just used.
    pub(super) fn found(&mut self, now: u64, instances: usize) {
        self.left.resize(self.left.len().max(instances.min(DEEPEST)), 0);
        self.left.iter_mut().take(instances).filter(|left| **left == 0).for_each(|left| *left = now);
        self.expired = None;
    }

    /// Counts boot times by another clock; 0 stays what was never left.
    pub(super) fn shift(&mut self, by: &impl Fn(u64) -> u64) {
        let times = self.left.iter_mut().chain(&mut self.reached);
        times.filter(|time| **time > 0).for_each(|time| *time = by(*time).max(1));
    }

    /// So many instances are needed from now on.
    pub(super) fn follow(&mut self, now: u64, depth: usize) {
        let (before, after) = (self.depth, depth.min(DEEPEST));
        for depth in before..after {
            let left = self.left.get(depth).copied().unwrap_or(0);
            if left > 0 {
                self.group(depth).add(now.saturating_sub(left));
                // The limits of all depths of its group change with it.
                self.expired.take_if(|(from, _)| group(depth) >= group(from.saturating_sub(1)));
            }
        }
        self.reached.resize(self.reached.len().max(after), 0);
        if after > before {
            self.reached[before..after].fill(now);
        }
        for depth in after..before {
            let used = now.saturating_sub(self.reached[depth]);
            self.group(depth).used(used);
        }
        if after < before {
            self.left.resize(self.left.len().max(before), 0);
            self.left[after..before].fill(now);
            if let Some((from, _)) = &mut self.expired {
                *from = before.max(*from);
            }
        }
        self.depth = after;
    }

    fn group(&mut self, depth: usize) -> &mut Group {
        let index = group(depth);
        if self.groups.len() <= index {
            self.groups.resize_with(index + 1, Group::default);
        }
        &mut self.groups[index]
    }

    /// For how long an unused instance at this depth is worth keeping asleep, milliseconds. A limit holds until its gaps change.
    /// `service` is the mean service time; where too little is known, it is `least` or more.
    pub(super) fn limit(&mut self, depth: usize, worth: Worth, (service, least): (f64, u64)) -> u64 {
        match self.groups.get_mut(group(depth)) {
            None => rent(costs(worth).0, worth).max(least),
            Some(group) if group.gaps.len() < FEW => rent(group.begin(depth, worth, service), worth).max(least),
            Some(group) => match group.limit {
                Some((limit, by)) if by == worth => limit,
                _ => {
                    let limit = limit(&group.gaps, group.begin(depth, worth, service), worth);
                    group.limit = Some((limit, worth));
                    limit
                }
            },
        }
    }

    /// How many instances are worth keeping, and until when the last of them is.
    pub(super) fn kept(&mut self, now: u64, worth: Worth, known: (f64, u64)) -> (u32, Option<u64>) {
        let mut depth = match self.expired {
            Some((from, by)) if by == worth => from,
            _ => self.left.len(),
        };
        let mut until = None;
        while depth > self.depth {
            let left = self.left[depth - 1];
            let ends = left.saturating_add(self.limit(depth - 1, worth, known));
            if left > 0 && ends > now {
                until = Some(ends);
                break;
            }
            depth -= 1;
        }
        self.expired = Some((depth, worth));
        (u32::try_from(depth.max(self.depth)).unwrap_or(u32::MAX), until)
    }
}

/// A sleeper costs as much in this time as a start, the wait of its caller included.
fn rent(begin: f64, worth: Worth) -> u64 {
    let (_, resume) = costs(worth);
    whole(((begin - resume).max(0.0) / ASLEEP).min(1e12))
}

/// Of a start and of a wake, with the wait of the caller.
fn costs(worth: Worth) -> (f64, f64) {
    (float(worth.start) * (1.0 + worth.waiting), float(worth.wake) * (1.0 + worth.waiting))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of days")]
fn float(number: u64) -> f64 {
    number as f64
}

/// The time that costs least over these gaps.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of days")]
fn limit(gaps: &VecDeque<u64>, begin: f64, worth: Worth) -> u64 {
    if gaps.len() < FEW {
        return rent(begin, worth);
    }
    let (_, resume) = costs(worth);
    let mut gaps: Vec<u64> = gaps.iter().copied().collect();
    gaps.sort_unstable();
    let (mut best, mut least, mut slept) = (0, f64::INFINITY, 0.0);
    let count = gaps.len() as f64;
    for (covered, limit) in std::iter::once(0).chain(gaps.iter().copied()).enumerate() {
        slept += limit as f64;
        let covered = covered as f64;
        let cost = covered * resume + ASLEEP * slept + (count - covered) * (ASLEEP * limit as f64 + begin);
        if cost < least {
            (best, least) = (limit, cost);
        }
    }
    // A gap that is a little longer than the longest that paid is no surprise.
    best.saturating_add(best / 8)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "finite, and not negative")]
fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORTH: Worth = Worth { start: 30_000, wake: 3_000, waiting: 30.0 };
    const SERVICE: (f64, u64) = (30_000.0, 0);

    #[test]
    fn each_depth_has_gaps_of_its_own() {
        let mut gaps = DepthGaps::default();
        // One request a minute, and two at once every half an hour.
        let mut now = 1_000_000;
        for minute in 0..600 {
            let together = if minute % 30 == 0 { 2 } else { 1 };
            gaps.follow(now, together);
            gaps.follow(now + 1_000, 0);
            now += 60_000;
        }
        let shallow = gaps.limit(0, WORTH, SERVICE);
        assert!((59_000..70_000).contains(&shallow), "{shallow}");
        let deep = gaps.limit(1, WORTH, SERVICE);
        assert!((1_799_000..2_100_000).contains(&deep), "{deep}");
        assert_eq!(gaps.kept(now, WORTH, SERVICE).0, 2, "the second one comes again soon");
        assert_eq!(gaps.kept(now + 120_000, WORTH, SERVICE), (2, Some(gaps.left[1] + deep)));
        assert_eq!(gaps.kept(now + 3 * 3_600_000, WORTH, SERVICE), (0, None), "neither came");
    }

    #[test]
    fn without_a_history_sleep_may_cost_as_much_as_a_start() {
        let mut gaps = DepthGaps::default();
        gaps.follow(5_000, 1);
        gaps.follow(6_000, 0);
        let (kept, until) = gaps.kept(6_000, WORTH, SERVICE);
        // 27 s of start beyond a wake, 31 times, at a price of 0.238.
        assert_eq!((kept, until.map(|at| at / 1_000)), (1, Some(6 + 3_515)));
    }

    #[test]
    fn groups_widen_with_depth() {
        let groups: Vec<usize> = (0..200).map(group).collect();
        assert!(groups.is_sorted() && groups[7] == 7 && groups[8] == 8 && groups[9] == 8 && groups[199] < 32);
    }
}
