//! Which runs of a timer are due: the one place where that is decided. Pure.

use jiff::tz::TimeZone;
use kip_spec::job::{MissedRuns, Timer};

/// A run that is so late is still in time: the server was busy or was just being replaced, milliseconds.
pub(crate) const IN_TIME: i64 = 60_000;
/// Missed runs that are made up for, at most.
const MOST: usize = 100;

/// What is due by a timer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct DueRun {
    /// Times to be run now, oldest first, milliseconds since 1970.
    pub(crate) runs: Vec<i64>,
    /// The latest time that is left out, and why.
    pub(crate) left_out: Option<(i64, SkipReason)>,
}

/// Why a time is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// No server ran, and such runs are not made up for, or not so many.
    Missed,
    /// Its deadline is over.
    TooLate,
}

/// What is due of a timer whose times up to `behind` have been looked at. Both are milliseconds since 1970.
pub(crate) fn due(timer: &Timer, zone: &TimeZone, behind: i64, now: i64) -> DueRun {
    let mut due = DueRun::default();
    let mut before = now;
    // From the last to the first, so that a timer of every second is no work after a year.
    while let Some(at) = timer.cron.last(before, behind.saturating_add(1), zone) {
        before = at - 1;
        let late = now - at;
        let is_last = due.runs.is_empty() && due.left_out.is_none();
        let too_late = timer.deadline.is_some_and(|deadline| late > i64::try_from(deadline.0).unwrap_or(i64::MAX));
        let wanted = match timer.missed {
            MissedRuns::Skip => is_last && late <= IN_TIME,
            MissedRuns::Once => is_last,
            MissedRuns::Each => due.runs.len() < MOST,
        };
        if wanted && !too_late {
            due.runs.push(at);
            continue;
        }
        let why = if too_late { SkipReason::TooLate } else { SkipReason::Missed };
        due.left_out.get_or_insert((at, why));
        // What came before is later still, or as superfluous.
        break;
    }
    due.runs.reverse();
    due
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_spec::Millis;
    use kip_spec::job::{Overlap, times};

    const HOUR: i64 = 3_600_000;

    fn timer(text: &str, missed: MissedRuns, deadline: Option<u64>) -> Timer {
        let cron = times(text).expect(text);
        let deadline = deadline.map(Millis::from_secs);
        Timer { cron, zone: String::new(), overlap: Overlap::Forbid, missed, deadline, paused: false }
    }

    fn at(timer: &Timer, behind: i64, now: i64) -> DueRun {
        due(timer, &TimeZone::UTC, behind, now)
    }

    #[test]
    fn a_time_comes_once() {
        let hourly = timer("0 * * * *", MissedRuns::Once, None);
        assert_eq!(at(&hourly, 0, HOUR - 1), DueRun::default());
        assert_eq!(at(&hourly, 0, HOUR).runs, [HOUR]);
        assert_eq!(at(&hourly, HOUR, HOUR + 5), DueRun::default(), "it has been looked at");
        assert_eq!(at(&hourly, HOUR, HOUR - 5), DueRun::default(), "nor again after the clock is put back");
    }

    #[test]
    fn what_came_while_no_server_ran_is_made_up_for_as_said() {
        let now = 5 * HOUR + HOUR / 2;
        let skip = at(&timer("0 * * * *", MissedRuns::Skip, None), 0, now);
        assert_eq!(skip, DueRun { runs: Vec::new(), left_out: Some((5 * HOUR, SkipReason::Missed)) });
        let soon = at(&timer("0 * * * *", MissedRuns::Skip, None), 0, 5 * HOUR + 2_000);
        assert_eq!(soon, DueRun { runs: vec![5 * HOUR], left_out: Some((4 * HOUR, SkipReason::Missed)) }, "in time");
        let once = at(&timer("0 * * * *", MissedRuns::Once, None), 0, now);
        assert_eq!(once, DueRun { runs: vec![5 * HOUR], left_out: Some((4 * HOUR, SkipReason::Missed)) });
        let each = at(&timer("0 * * * *", MissedRuns::Each, None), 0, now);
        assert_eq!((each.runs.len(), each.runs[0], each.left_out), (5, HOUR, None));
        let many = at(&timer("* * * * * *", MissedRuns::Each, None), 0, 365 * 24 * HOUR);
        assert_eq!((many.runs.len(), many.left_out.map(|(_, why)| why)), (MOST, Some(SkipReason::Missed)));
        assert_eq!(many.runs[MOST - 1], 365 * 24 * HOUR);
    }

    #[test]
    fn a_deadline_leaves_out_what_is_too_late() {
        let now = 5 * HOUR + HOUR / 2;
        let all_late = at(&timer("0 * * * *", MissedRuns::Once, Some(60)), 0, now);
        assert_eq!(all_late, DueRun { runs: Vec::new(), left_out: Some((5 * HOUR, SkipReason::TooLate)) });
        let some = at(&timer("0 * * * *", MissedRuns::Each, Some(2 * 3_600)), 0, now);
        assert_eq!(some, DueRun { runs: vec![4 * HOUR, 5 * HOUR], left_out: Some((3 * HOUR, SkipReason::TooLate)) });
    }
}
