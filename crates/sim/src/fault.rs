//! What may go wrong in a run, as data: each kind has a rate that is drawn from the seed, and many runs lack a kind altogether.

use std::fmt;
use std::str::FromStr;

use crate::random::Random;

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A start fails.
    Start,
    /// An initialize hook fails.
    Initialize,
    /// A pause fails.
    Pause,
    /// A resume fails.
    Resume,
    /// Giving memory back fails.
    Park,
    /// A stop or a kill does not end the instance.
    Stop,
    /// An operation takes for ever, or its end is never reported.
    Hang,
    /// A program ends by itself when nobody expects it.
    Death,
    /// A program ends by itself while a request is in flight, while it sleeps, or while it wakes.
    DeathAtWork,
    /// A caller leaves before its answer, waiting or in flight.
    Leave,
    /// An observation comes much later than what it tells of, perhaps after its operation was given up.
    Late,
    /// An observation comes twice.
    Twice,
    /// Messages between functions and the placer take long.
    Router,
    /// Timers fire late.
    Timer,
    /// New versions are deployed.
    Deploy,
    /// The function is removed.
    Remove,
    /// Aliases are pointed elsewhere.
    Alias,
    /// Instances are asked to be replaced, or use too much memory.
    Rotate,
    /// The ready probe fails for a while.
    Unready,
    /// The live probe fails.
    NotLive,
    /// A request gets no byte of an answer.
    Stuck,
    /// The server is killed and started again; what lives is adopted.
    Restart,
    /// The wall clock is set forwards and backwards.
    Clock,
    /// A step of a core panics.
    Panic,
    /// Tasks are submitted.
    Task,
    /// Runs of tasks fail, or find no room.
    TaskError,
    /// Tasks are told to stop.
    TaskStop,
    /// The store fails to write.
    Store,
    /// Devices are yielded for a time.
    Yield,
    /// Aliases move to other versions in steps.
    Rollout,
}

/// All kinds, in the order of their numbers.
pub const FAULTS: [(Fault, &str); 30] = [
    (Fault::Start, "start"),
    (Fault::Initialize, "initialize"),
    (Fault::Pause, "pause"),
    (Fault::Resume, "resume"),
    (Fault::Park, "park"),
    (Fault::Stop, "stop"),
    (Fault::Hang, "hang"),
    (Fault::Death, "death"),
    (Fault::DeathAtWork, "death-at-work"),
    (Fault::Leave, "leave"),
    (Fault::Late, "late"),
    (Fault::Twice, "twice"),
    (Fault::Router, "router"),
    (Fault::Timer, "timer"),
    (Fault::Deploy, "deploy"),
    (Fault::Remove, "remove"),
    (Fault::Alias, "alias"),
    (Fault::Rotate, "rotate"),
    (Fault::Unready, "unready"),
    (Fault::NotLive, "not-live"),
    (Fault::Stuck, "stuck"),
    (Fault::Restart, "restart"),
    (Fault::Clock, "clock"),
    (Fault::Panic, "panic"),
    (Fault::Task, "task"),
    (Fault::TaskError, "task-error"),
    (Fault::TaskStop, "task-stop"),
    (Fault::Store, "store"),
    (Fault::Yield, "yield"),
    (Fault::Rollout, "rollout"),
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FAULTS.iter().find(|(fault, _)| fault == self).map_or("?", |(_, name)| name))
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || FAULTS.map(|(_, name)| name).join(", ");
        let found = FAULTS.iter().find(|(_, name)| *name == text);
        found.map(|(fault, _)| *fault).ok_or_else(|| format!("`{text}` is not a fault: use one of {}", names()))
    }
}

/// How often each kind happens, in a thousand.
#[derive(Debug, Clone)]
pub(crate) struct FaultRates {
    rates: [u64; FAULTS.len()],
}

impl FaultRates {
    /// Nothing goes wrong.
    pub(crate) const CALM: Self = Self { rates: [0; FAULTS.len()] };

    /// Drawn for one run. One run in eight is without any fault, and half of the kinds are missing from each of the others.
    pub(crate) fn draw(seed: u64, without: &[Fault]) -> Self {
        let calm = Random::stream(seed, "calm run", 0).one_in(8);
        let mut rates = [0; FAULTS.len()];
        for (index, (fault, name)) in FAULTS.iter().enumerate() {
            let mut random = Random::stream(seed, name, 0);
            let rate = if random.one_in(2) { random.pick(&[5, 20, 60, 150, 400]) } else { 0 };
            rates[index] = if calm || without.contains(fault) { 0 } else { rate };
        }
        Self { rates }
    }

    /// How often, in a thousand.
    pub(crate) fn of(&self, fault: Fault) -> u64 {
        FAULTS.iter().position(|(other, _)| *other == fault).map_or(0, |index| self.rates[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_what_is_left_out_never_happens() {
        for (fault, name) in FAULTS {
            assert_eq!((name.parse(), fault.to_string().as_str()), (Ok(fault), name));
            assert!((0..50).all(|seed| FaultRates::draw(seed, &[fault]).of(fault) == 0));
            assert!((0..50).any(|seed| FaultRates::draw(seed, &[]).of(fault) > 0));
        }
    }
}
