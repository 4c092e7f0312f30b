//! What to do about a tree that somebody was freezing or waking when the server ended. Pure: entry and observations in,
//! decision out.

use serde::{Deserialize, Serialize};

use crate::driver::State;
use crate::journal::{Entry, Step};

/// What was seen of one member of the entry, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It has ended, or its number belongs to another process now.
    Ended,
    /// The driver told its state.
    Is(State),
    /// The driver could not tell, or hung over it.
    Unknown,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Nothing is left of it: strike the entry.
    Forget,
    /// It runs as if nothing had been: strike the entry.
    Serve,
    /// Unlock these, then it serves.
    Unlock(Vec<u32>),
    /// It is parked, whole, and its device memory is free.
    Keep,
    /// The step may still be going on inside the processes: look again, at the latest at `Entry::until`.
    LookAgain,
    /// End the instance and start another.
    Kill(&'static str),
}

/// Decides. `now` is boot-time milliseconds, `boot_id` that of the present boot.
pub fn decide(entry: &Entry, seen: &[MemberState], now: u64, boot_id: &str) -> Decision {
    if entry.boot_id != boot_id || seen.iter().all(|seen| *seen == MemberState::Ended) {
        return Decision::Forget;
    }
    if seen.len() != entry.members.len() || seen.contains(&MemberState::Ended) {
        return Decision::Kill("a part of its processes has ended");
    }
    if entry.step == Step::Retiring {
        return Decision::Kill("it was being ended");
    }
    let any = |state: State| seen.contains(&MemberState::Is(state));
    if any(State::Failed) {
        return Decision::Kill("the driver gave a process up");
    }
    // Whatever is not settled may settle by itself, but not after its deadline.
    let unless_late = |why: &'static str| {
        if now < entry.until { Decision::LookAgain } else { Decision::Kill(why) }
    };
    if seen.contains(&MemberState::Unknown) {
        return unless_late("the driver does not tell the state of a process");
    }
    if any(State::Busy) {
        return unless_late("the driver did not finish with a process in time");
    }
    let (running, locked, checkpointed) = (any(State::Running), any(State::Locked), any(State::Checkpointed));
    let unlock = || Decision::Unlock(those(entry, seen, State::Locked));
    match (entry.step, running, locked, checkpointed) {
        (Step::Locking | Step::Unlocking, true, false, false) => Decision::Serve,
        (Step::Locking | Step::Unlocking, _, true, false) => unlock(),
        // Older drivers show no state of their own for a checkpoint under way. When it cannot be under way any more, it was
        // never begun.
        (Step::Checkpointing, false, true, false) if now < entry.until => Decision::LookAgain,
        (Step::Checkpointing, false, true, false) => unlock(),
        (Step::Checkpointing | Step::Parked, false, false, true) => Decision::Keep,
        (Step::Checkpointing, false, true, true) => unless_late("only a part of its processes was checkpointed"),
        // All are restored; that is what was wanted.
        (Step::Restoring, false, true, false) => unlock(),
        // A restore is never done twice: whether it had begun is not known.
        (Step::Restoring, false, _, true) => unless_late("it was not restored in time"),
        _ => Decision::Kill("its processes are in states that do not fit the step"),
    }
}

fn those(entry: &Entry, seen: &[MemberState], state: State) -> Vec<u32> {
    let pairs = entry.members.iter().zip(seen);
    pairs.filter(|(_, seen)| **seen == MemberState::Is(state)).map(|(member, _)| member.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Member;

    const BOOT: &str = "boot";
    const R: MemberState = MemberState::Is(State::Running);
    const L: MemberState = MemberState::Is(State::Locked);
    const C: MemberState = MemberState::Is(State::Checkpointed);
    const F: MemberState = MemberState::Is(State::Failed);
    const B: MemberState = MemberState::Is(State::Busy);
    const STEPS: [Step; 6] =
        [Step::Locking, Step::Checkpointing, Step::Parked, Step::Restoring, Step::Unlocking, Step::Retiring];

    fn entry(step: Step) -> Entry {
        Entry {
            instance: "i-1-1-1".parse().unwrap(),
            operation: 4,
            step,
            members: vec![Member { pid: 7, started: 1 }, Member { pid: 8, started: 2 }],
            devices: vec!["GPU-0".to_owned()],
            bytes: 1,
            was_restored: false,
            boot_id: BOOT.to_owned(),
            until: 100,
        }
    }

    /// The whole table for a tree of two: what is decided before and after the deadline.
    #[test]
    fn the_table() {
        use Decision::{Keep, LookAgain, Serve, Unlock};
        let kill = Decision::Kill("");
        let both = || Unlock(vec![7, 8]);
        for (step, seen, before, after) in [
            (Step::Locking, [R, R], Serve, Serve),
            (Step::Locking, [L, R], Unlock(vec![7]), Unlock(vec![7])),
            (Step::Locking, [R, L], Unlock(vec![8]), Unlock(vec![8])),
            (Step::Locking, [L, L], both(), both()),
            (Step::Locking, [C, L], kill.clone(), kill.clone()),
            (Step::Checkpointing, [L, L], LookAgain, both()),
            (Step::Checkpointing, [C, L], LookAgain, kill.clone()),
            (Step::Checkpointing, [C, C], Keep, Keep),
            (Step::Checkpointing, [R, L], kill.clone(), kill.clone()),
            (Step::Checkpointing, [R, R], kill.clone(), kill.clone()),
            (Step::Parked, [C, C], Keep, Keep),
            (Step::Parked, [R, R], kill.clone(), kill.clone()),
            (Step::Parked, [C, L], kill.clone(), kill.clone()),
            (Step::Restoring, [L, L], both(), both()),
            (Step::Restoring, [C, C], LookAgain, kill.clone()),
            (Step::Restoring, [L, C], LookAgain, kill.clone()),
            (Step::Restoring, [R, L], kill.clone(), kill.clone()),
            (Step::Unlocking, [R, R], Serve, Serve),
            (Step::Unlocking, [R, L], Unlock(vec![8]), Unlock(vec![8])),
            (Step::Unlocking, [C, L], kill.clone(), kill.clone()),
            (Step::Retiring, [R, R], kill.clone(), kill.clone()),
            (Step::Retiring, [C, C], kill.clone(), kill),
        ] {
            for (now, expected) in [(99, before), (100, after)] {
                let decision = match decide(&entry(step), &seen, now, BOOT) {
                    Decision::Kill(_) => Decision::Kill(""),
                    other => other,
                };
                assert_eq!(decision, expected, "{step:?} {seen:?} at {now}");
            }
        }
    }

    #[test]
    fn what_holds_at_every_step() {
        for step in STEPS {
            let decide = |seen: [MemberState; 2], now| decide(&entry(step), &seen, now, BOOT);
            assert_eq!(decide([MemberState::Ended; 2], 0), Decision::Forget, "{step:?}");
            assert!(matches!(decide([MemberState::Ended, L], 0), Decision::Kill(_)), "{step:?}");
            assert!(matches!(decide([F, L], 0), Decision::Kill(_)), "{step:?}");
            for unsettled in [MemberState::Unknown, B] {
                assert!(matches!(decide([unsettled, L], 100), Decision::Kill(_)), "{step:?}");
                let early = decide([unsettled, L], 99);
                assert!(early == Decision::LookAgain || step == Step::Retiring, "{step:?}: {early:?}");
            }
            assert_eq!(super::decide(&entry(step), &[L, L], 0, "another boot"), Decision::Forget);
        }
    }

    /// Never serves what is not all running, keeps what is not all checkpointed, or leaves anything as it is for ever.
    #[test]
    fn no_state_of_two_processes_is_decided_dangerously() {
        let all = [R, L, C, F, B, MemberState::Unknown, MemberState::Ended];
        for step in STEPS {
            for seen in all.iter().flat_map(|one| all.iter().map(|other| [*one, *other])) {
                match decide(&entry(step), &seen, 100, BOOT) {
                    Decision::Serve => assert_eq!(seen, [R, R]),
                    Decision::Keep => assert_eq!(seen, [C, C]),
                    Decision::Unlock(_) => assert!(!seen.contains(&C) && seen.contains(&L)),
                    Decision::Forget => assert_eq!(seen, [MemberState::Ended; 2]),
                    Decision::LookAgain => panic!("{step:?} {seen:?} is left for ever"),
                    Decision::Kill(_) => {}
                }
            }
        }
    }
}
