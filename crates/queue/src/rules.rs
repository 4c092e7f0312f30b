//! What becomes of a task after a run: the one place where that is decided. Pure.
//!
//! Three counters are kept apart. *Errors* are answers of the function that say so; a task may have as many as it has
//! retries. *Crashes* are runs that ended with the instance or the server; a task that takes its instance down again and again
//! ends at the cap. *Refusals* are times without room, which cost a task nothing but time: its age decides.

use kip_spec::job::ExitCodes;
use kip_spec::task::{TaskProgress, TaskState};

/// Runs of a task that may end with its instance or the server; the next ends the task.
pub const CRASH_CAP: u32 = 3;
/// The first pause after an error is at most this, milliseconds; each further one may be twice as long.
const BASE: u64 = 1_000;
/// No pause is longer, milliseconds.
const LONGEST: u64 = 300_000;
/// The first pause without room, milliseconds.
const ROOM_BASE: u64 = 500;
/// No pause without room is longer, milliseconds.
const ROOM_LONGEST: u64 = 60_000;
/// So much longer may pauses be for each task of the function that waits to be retried, milliseconds: many that fail at
/// once must not come back at once.
const SPREAD: u64 = 15;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOutcome {
    /// The function answered with success.
    Well {
        /// The status.
        status: u16,
    },
    /// The function answered with an error, or not in time.
    Error {
        /// The status, 0 without an answer.
        status: u16,
        /// What kind of error.
        kind: &'static str,
        /// In a sentence.
        detail: String,
        /// How long the function wants to be left alone, milliseconds.
        retry_after: Option<u64>,
        /// Of a job: what its program ended with.
        exit: Option<u8>,
    },
    /// The instance or the server ended in the midst of it.
    Crashed {
        /// In a sentence.
        detail: String,
    },
    /// It could not be run: no room, or the function says that it has none.
    NoRoom {
        /// In a sentence.
        detail: String,
        /// How long the function wants to be left alone, milliseconds.
        retry_after: Option<u64>,
    },
    /// It was told to stop, and did.
    Stopped,
}

/// What a task may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Errors after which it is run again.
    pub retries: u32,
    /// Not to be begun after, milliseconds since 1970.
    pub expires_at: i64,
}

impl Allowance {
    /// The same without retries if this end is none that is worth one.
    #[must_use]
    pub fn after(self, ended: &RunOutcome, exits: Option<&ExitCodes>) -> Self {
        match (ended, exits) {
            (RunOutcome::Error { exit: Some(code), .. }, Some(exits)) if !exits.retries(*code) => {
                Self { retries: 0, ..self }
            }
            _ => self,
        }
    }
}

/// Why a task failed for good, as a destination is told.
pub const RETRIES_EXHAUSTED: &str = "RetriesExhausted";
/// Why a task expired, as a destination is told.
pub const AGE_EXCEEDED: &str = "EventAgeExceeded";

/// What a task is after a run that ended so. `waiting` tasks of its function wait to be retried; `dice` is any number.
#[must_use]
pub fn after(
    task: &TaskProgress,
    ended: &RunOutcome,
    allowed: Allowance,
    now: i64,
    waiting: u64,
    dice: u64,
) -> TaskProgress {
    let mut next = TaskProgress { error: None, error_kind: None, ..task.clone() };
    let over = |next: &mut TaskProgress, state: TaskState| (next.state, next.ended) = (state, now);
    let mut fail = |kind: &str, detail: &str| {
        next.error_kind = Some(kind.to_owned());
        next.error = Some(detail.to_owned());
    };
    let (pause, asked) = match ended {
        RunOutcome::Well { status } => {
            next.status = *status;
            over(&mut next, TaskState::Succeeded);
            return next;
        }
        RunOutcome::Stopped => {
            over(&mut next, TaskState::Stopped);
            return next;
        }
        RunOutcome::Error { status, kind, detail, retry_after, .. } => {
            fail(kind, detail);
            next.status = *status;
            next.errors += 1;
            if next.errors > allowed.retries {
                over(&mut next, TaskState::Failed);
                return next;
            }
            let window = (BASE << (next.errors - 1).min(20)).max(waiting * SPREAD).min(LONGEST);
            (dice % (window + 1), retry_after.unwrap_or(0))
        }
        RunOutcome::Crashed { detail } => {
            fail("InstanceCrashed", detail);
            next.status = 0;
            next.crashes += 1;
            if next.crashes >= CRASH_CAP {
                over(&mut next, TaskState::Failed);
                return next;
            }
            let window = (BASE << (next.crashes - 1).min(20)).max(waiting * SPREAD).min(LONGEST);
            (dice % (window + 1), 0)
        }
        RunOutcome::NoRoom { detail, retry_after } => {
            fail("NoCapacity", detail);
            next.refusals += 1;
            let window = (ROOM_BASE << (next.refusals - 1).min(20)).max(waiting * SPREAD).min(ROOM_LONGEST);
            (window / 2 + dice % (window / 2 + 1), retry_after.unwrap_or(0))
        }
    };
    // One that was told to stop is not run again, whatever became of this run.
    if task.state == TaskState::Stopping {
        over(&mut next, TaskState::Stopped);
        return next;
    }
    let later = |pause: u64| now.saturating_add(i64::try_from(pause).unwrap_or(i64::MAX));
    if later(asked) > allowed.expires_at {
        over(&mut next, TaskState::Expired);
        return next;
    }
    // The pause that we choose is none that could end it: what may still be run is run, at the last moment if need be.
    next.run_at = later(pause).min(allowed.expires_at).max(later(asked));
    next.state = TaskState::Retrying;
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> TaskProgress {
        TaskProgress {
            state: TaskState::Running,
            epoch: 3,
            server: std::sync::Arc::from(""),
            boot: 1,
            revision: 0,
            lease_until: 9,
            run_at: 0,
            expires_at: 1_000_000,
            started: 5,
            ended: 0,
            errors: 0,
            crashes: 0,
            refusals: 0,
            instance: None,
            status: 0,
            error_kind: None,
            error: None,
        }
    }

    const ALLOWED: Allowance = Allowance { retries: 2, expires_at: 1_000_000 };

    fn error() -> RunOutcome {
        RunOutcome::Error {
            status: 500,
            kind: "UnhandledInvocationError",
            detail: "no".to_owned(),
            retry_after: None,
            exit: None,
        }
    }

    fn crash() -> RunOutcome {
        RunOutcome::Crashed { detail: "it died".to_owned() }
    }

    fn no_room() -> RunOutcome {
        RunOutcome::NoRoom { detail: "full".to_owned(), retry_after: None }
    }

    #[test]
    fn each_counter_has_its_own_limit() {
        let mut task = running();
        for (ended, state) in [
            (error(), TaskState::Retrying),
            (crash(), TaskState::Retrying),
            (no_room(), TaskState::Retrying),
            (error(), TaskState::Retrying),
            (crash(), TaskState::Retrying),
            (no_room(), TaskState::Retrying),
            (error(), TaskState::Failed),
        ] {
            task = after(&task, &ended, ALLOWED, 100, 0, 7);
            assert_eq!(task.state, state, "{ended:?}");
            if state == TaskState::Retrying {
                task.state = TaskState::Running;
            }
        }
        assert_eq!((task.errors, task.crashes, task.refusals, task.ended), (3, 2, 2, 100));
        assert_eq!(task.error_kind.as_deref(), Some("UnhandledInvocationError"));
    }

    #[test]
    fn one_that_takes_its_instance_down_ends_at_the_cap() {
        let mut task = running();
        let mut runs = 0;
        while !task.state.is_terminal() {
            runs += 1;
            task = after(&TaskProgress { state: TaskState::Running, ..task }, &crash(), ALLOWED, 0, 0, 1);
        }
        assert_eq!((runs, task.state), (CRASH_CAP, TaskState::Failed));
    }

    #[test]
    fn without_retries_the_first_error_is_the_last() {
        let allowed = Allowance { retries: 0, ..ALLOWED };
        assert_eq!(after(&running(), &error(), allowed, 0, 0, 1).state, TaskState::Failed);
    }

    #[test]
    fn a_task_that_is_told_to_stop_may_still_end_well_but_is_never_run_again() {
        let stopping = TaskProgress { state: TaskState::Stopping, ..running() };
        let ends = |ended: &RunOutcome| after(&stopping, ended, ALLOWED, 0, 0, 1).state;
        assert_eq!(ends(&RunOutcome::Well { status: 200 }), TaskState::Succeeded);
        for ended in [error(), crash(), no_room(), RunOutcome::Stopped] {
            assert_eq!(ends(&ended), TaskState::Stopped, "{ended:?}");
        }
    }

    #[test]
    fn a_retry_that_would_come_too_late_is_none() {
        let allowed = Allowance { retries: 8, expires_at: 100 };
        let late =
            RunOutcome::Error { status: 503, kind: "x", detail: String::new(), retry_after: Some(5_000), exit: None };
        assert_eq!(after(&running(), &late, allowed, 0, 0, 1).state, TaskState::Expired);
        assert_eq!(after(&running(), &late, ALLOWED, 0, 0, 1).run_at, 5_000, "what the function asks for is honoured");
    }

    #[test]
    fn a_pause_of_ours_ends_no_task_before_its_time() {
        let allowed = Allowance { retries: 8, expires_at: 700 };
        for ended in [error(), crash(), no_room()] {
            for dice in 0..2_000 {
                let next = after(&TaskProgress { errors: 5, ..running() }, &ended, allowed, 100, 0, dice);
                assert_eq!(next.state, TaskState::Retrying, "{ended:?}");
                assert!(next.run_at <= 700, "{ended:?}: {}", next.run_at);
            }
            assert_eq!(after(&running(), &ended, allowed, 701, 0, 1).state, TaskState::Expired, "{ended:?}");
        }
    }

    #[test]
    fn an_exit_code_that_is_not_worth_a_retry_gets_none() {
        let exits = ExitCodes { only: None, never: [2].into() };
        let ended = |code| RunOutcome::Error {
            status: 500,
            kind: "x",
            detail: String::new(),
            retry_after: None,
            exit: Some(code),
        };
        let allowed = Allowance { retries: 3, expires_at: 1_000_000 };
        let state = |code, exits| after(&running(), &ended(code), allowed.after(&ended(code), exits), 0, 0, 1).state;
        assert_eq!(state(2, Some(&exits)), TaskState::Failed);
        assert_eq!(state(3, Some(&exits)), TaskState::Retrying);
        assert_eq!(state(2, None), TaskState::Retrying);
        assert_eq!(allowed.after(&crash(), Some(&exits)), allowed, "an instance that crashed has no exit code");
    }

    /// Ten thousand fail in the same moment; of their retries no second may hold more than a twentieth.
    #[test]
    fn retries_of_many_spread() {
        let mut dice = 0x9E37_79B9_7F4A_7C15u64;
        let mut seconds = std::collections::BTreeMap::new();
        for waiting in 0..10_000 {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let next = after(&running(), &error(), ALLOWED, 0, waiting, dice);
            *seconds.entry(next.run_at / 1_000).or_insert(0u32) += 1;
        }
        let most = seconds.values().max().copied().unwrap_or_default();
        assert!(most <= 500, "{most} in one second");
    }

    #[test]
    fn pauses_grow_and_stay_below_their_limit() {
        let longest = |errors: u32| {
            let task = TaskProgress { errors, ..running() };
            let allowed = Allowance { retries: 99, expires_at: i64::MAX };
            (0..1_000u64).map(|n| after(&task, &error(), allowed, 0, 0, n * 7_919).run_at).max().unwrap()
        };
        assert!(longest(0) <= 1_000 && longest(0) > 800);
        assert!(longest(3) <= 8_000 && longest(3) > 6_000);
        assert!(longest(60) <= 300_000);
    }
}
