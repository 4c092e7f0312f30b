//! How long things take and how they end: drawn from the seed, or told by a script.

use std::collections::BTreeMap;

use kip_fleet::{Operate, Rung};
use kip_queue::RunOutcome;

use crate::fault::{Fault, FaultRates};
use crate::random::Random;

/// How an operation on an instance ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperationEnd {
    /// As asked.
    Well,
    /// Not as asked, and that is reported.
    Fails,
    /// Nothing is ever reported; the body may have done it all the same.
    Silent {
        /// Whether it did.
        done: bool,
    },
}

/// What becomes of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OperationFate {
    /// Milliseconds until it has happened.
    pub(crate) takes: u64,
    /// How it ends.
    pub(crate) end: OperationEnd,
    /// Milliseconds from there until it is known.
    pub(crate) known_after: u64,
    /// Milliseconds until it is reported once more.
    pub(crate) again_after: Option<u64>,
    /// A failure leaves the state of its memory unknown.
    pub(crate) unknown: bool,
}

/// Who decides.
#[derive(Debug)]
pub(crate) enum FateSource {
    /// The seed.
    Seeded(Box<SeededFates>),
    /// A script; what it does not mention goes well.
    Scripted(ScriptedFates),
}

/// Streams of one seed, a set for each function so that leaving one out does not shift the others.
#[derive(Debug)]
pub(crate) struct SeededFates {
    pub(crate) rates: FaultRates,
    operations: Vec<Random>,
    unknown: Vec<Random>,
    deaths: Vec<Random>,
    ailments: Vec<Random>,
    restarts: Random,
    clock: Random,
    clients: Vec<Random>,
    news: Vec<Random>,
    router: Random,
    timers: Random,
    panics: Vec<Random>,
    runs: Vec<Random>,
    store: Random,
}

/// Fixed durations, and ends that were asked for.
#[derive(Debug, Default)]
pub(crate) struct ScriptedFates {
    /// How long an operation takes, by function.
    pub(crate) takes: BTreeMap<(usize, &'static str), u64>,
    /// The next request gets no byte.
    pub(crate) stuck: bool,
    /// Ends of the next operations of a kind.
    pub(crate) next: Vec<(&'static str, OperationEnd)>,
}

/// What an operation is called in scripts and transcripts.
pub(crate) const fn operation_name(what: Operate) -> &'static str {
    match what {
        Operate::Start { .. } => "start",
        Operate::Initialize => "initialize",
        Operate::Pause => "pause",
        Operate::Park => "park",
        Operate::Spill => "spill",
        Operate::Resume { .. } => "resume",
        Operate::Stop { .. } => "stop",
        Operate::Kill { .. } => "kill",
    }
}

impl SeededFates {
    pub(crate) fn new(seed: u64, functions: usize, rates: FaultRates) -> Self {
        let streams = |name| (0..functions).map(|number| Random::stream(seed, name, number)).collect();
        Self {
            rates,
            operations: streams("operations"),
            unknown: streams("unknown"),
            deaths: streams("deaths"),
            ailments: streams("ailments"),
            restarts: Random::stream(seed, "restarts", 0),
            clock: Random::stream(seed, "clock", 0),
            clients: streams("clients"),
            news: streams("news"),
            router: Random::stream(seed, "messages", 0),
            timers: Random::stream(seed, "timers", 0),
            panics: streams("panics"),
            runs: streams("runs"),
            store: Random::stream(seed, "store", 0),
        }
    }

    fn operation(&mut self, function: usize, what: Operate) -> OperationFate {
        let random = &mut self.operations[function];
        let (low, high, fault) = match what {
            Operate::Start { .. } => (10, 400, Fault::Start),
            Operate::Initialize => (1, 50, Fault::Initialize),
            Operate::Pause => (1, 8, Fault::Pause),
            Operate::Park | Operate::Spill => (5, 40, Fault::Park),
            Operate::Resume { from: Rung::Paused } => (1, 8, Fault::Resume),
            Operate::Resume { .. } => (5, 40, Fault::Resume),
            Operate::Stop { .. } => (1, 80, Fault::Stop),
            Operate::Kill { .. } => (1, 20, Fault::Stop),
        };
        let takes = random.between(low, high);
        let (fails, hangs, done) =
            (random.per_mille(self.rates.of(fault)), random.per_mille(self.rates.of(Fault::Hang)), random.one_in(2));
        let end = match (what, fails, hangs) {
            // What could not be ended is not reported: the shell leaves it to the deadline.
            (Operate::Stop { .. } | Operate::Kill { .. }, true, _) => OperationEnd::Silent { done: false },
            (_, _, true) => OperationEnd::Silent { done },
            (_, true, false) => OperationEnd::Fails,
            _ => OperationEnd::Well,
        };
        let (late, twice) =
            (random.per_mille(self.rates.of(Fault::Late)), random.per_mille(self.rates.of(Fault::Twice)));
        let known_after = if late { random.scale(5, 4_000) } else { random.below(2) };
        let again_after = random.scale(1, 2_000);
        let unknown = self.unknown[function].one_in(3);
        OperationFate { takes, end, known_after, again_after: twice.then_some(again_after), unknown }
    }
}

impl FateSource {
    pub(crate) fn operation(&mut self, function: usize, what: Operate) -> OperationFate {
        match self {
            Self::Seeded(seeded) => seeded.operation(function, what),
            Self::Scripted(scripted) => {
                let usual = match what {
                    Operate::Start { .. } => 1_000,
                    Operate::Park | Operate::Spill => 500,
                    Operate::Stop { .. } => 100,
                    Operate::Initialize | Operate::Kill { .. } => 10,
                    Operate::Pause | Operate::Resume { from: Rung::Paused } => 1,
                    Operate::Resume { .. } => 500,
                };
                let takes = scripted.takes.get(&(function, operation_name(what))).copied().unwrap_or(usual);
                let asked = scripted.next.iter().position(|(other, _)| *other == operation_name(what));
                let end = asked.map_or(OperationEnd::Well, |index| scripted.next.remove(index).1);
                OperationFate { takes, end, known_after: 0, again_after: None, unknown: false }
            }
        }
    }

    /// When a body that has come up will end by itself: in a thousand-to-one world, never.
    pub(crate) fn death(&mut self, function: usize, fault: Fault, within: u64) -> Option<u64> {
        let Self::Seeded(seeded) = self else { return None };
        let random = &mut seeded.deaths[function];
        let (dies, after) = (random.per_mille(seeded.rates.of(fault) / 4), random.below(within));
        dies.then_some(after)
    }

    /// When a body that is up fails its ready probe, and for how long.
    pub(crate) fn unready(&mut self, function: usize) -> Option<(u64, u64)> {
        let Self::Seeded(seeded) = self else { return None };
        let random = &mut seeded.ailments[function];
        let (ails, after, lasts) =
            (random.per_mille(seeded.rates.of(Fault::Unready)), random.below(5_000), random.scale(5, 10_000));
        ails.then_some((after, lasts))
    }

    /// When a body that is up fails its live probe, and whether it is only slow.
    pub(crate) fn not_live(&mut self, function: usize) -> Option<(u64, bool)> {
        let Self::Seeded(seeded) = self else { return None };
        let random = &mut seeded.ailments[function];
        let (ails, after, slow) =
            (random.per_mille(seeded.rates.of(Fault::NotLive) / 2), random.below(10_000), random.one_in(2));
        ails.then_some((after, slow))
    }

    /// Whether a request gets no byte.
    pub(crate) fn stuck(&mut self, function: usize) -> bool {
        let seeded = match self {
            Self::Seeded(seeded) => seeded,
            Self::Scripted(scripted) => return scripted.stuck,
        };
        let rate = seeded.rates.of(Fault::Stuck) / 8;
        seeded.clients[function].per_mille(rate)
    }

    /// When the server is killed, between two moments.
    pub(crate) fn restarts(&mut self, horizon: u64) -> Vec<u64> {
        let Self::Seeded(seeded) = self else { return Vec::new() };
        let rate = seeded.rates.of(Fault::Restart);
        let mut times: Vec<u64> = (0..4)
            .filter_map(|_| {
                let (killed, at) = (seeded.restarts.per_mille(rate), seeded.restarts.below(horizon));
                killed.then_some(at)
            })
            .collect();
        times.sort_unstable();
        times
    }

    /// Whether something that was under way when the server was killed happened all the same.
    pub(crate) fn went_on(&mut self) -> bool {
        let Self::Seeded(seeded) = self else { return true };
        seeded.restarts.one_in(2)
    }

    /// What the wall clock says.
    pub(crate) fn wall(&mut self, boot: u64) -> i64 {
        let Self::Seeded(seeded) = self else { return 0 };
        let stepped = seeded.clock.per_mille(seeded.rates.of(Fault::Clock));
        let step = if stepped { seeded.clock.below(7_200_000) } else { 3_600_000 };
        i64::try_from(boot + step).unwrap_or(i64::MAX) - 3_600_000
    }

    /// How long the news of an exit takes.
    pub(crate) fn news(&mut self, function: usize) -> u64 {
        let Self::Seeded(seeded) = self else { return 0 };
        let late = seeded.rates.of(Fault::Late);
        let random = &mut seeded.news[function];
        let (late, far, near) = (random.per_mille(late), random.scale(5, 2_000), random.below(3));
        if late { far } else { near }
    }

    /// How long a caller waits before it leaves, if it does.
    pub(crate) fn patience(&mut self, function: usize) -> Option<u64> {
        let Self::Seeded(seeded) = self else { return None };
        let rate = seeded.rates.of(Fault::Leave);
        let random = &mut seeded.clients[function];
        let (leaves, after) = (random.per_mille(rate), random.scale(1, 2_000));
        leaves.then_some(after)
    }

    /// How long a message between a function and the placer is under way.
    pub(crate) fn message(&mut self) -> u64 {
        let Self::Seeded(seeded) = self else { return 0 };
        let slow = seeded.router.per_mille(seeded.rates.of(Fault::Router));
        if slow { seeded.router.scale(1, 500) } else { 0 }
    }

    /// How late a timer fires.
    pub(crate) fn timer(&mut self) -> u64 {
        let Self::Seeded(seeded) = self else { return 0 };
        let late = seeded.timers.per_mille(seeded.rates.of(Fault::Timer));
        if late { seeded.timers.scale(1, 200) } else { 0 }
    }

    /// Whether a step of a core panics.
    pub(crate) fn panics(&mut self, function: usize) -> bool {
        let Self::Seeded(seeded) = self else { return false };
        let rate = seeded.rates.of(Fault::Panic);
        // Twice within a minute is the end of a function, so it must be rare.
        rate > 0 && seeded.panics[function].below(200_000) < rate
    }

    /// How long a commit takes, or the way from there to memory.
    pub(crate) fn commit(&mut self) -> u64 {
        let Self::Seeded(seeded) = self else { return 1 };
        seeded.store.scale(1, 20) - 1
    }

    /// Whether the store fails to write.
    pub(crate) fn store_fails(&mut self) -> bool {
        let Self::Seeded(seeded) = self else { return false };
        let rate = seeded.rates.of(Fault::Store) / 4;
        seeded.store.per_mille(rate)
    }

    /// How a run of a task ends, where nothing else ends it.
    pub(crate) fn run(&mut self, function: usize) -> RunOutcome {
        let well = RunOutcome::Well { status: 200 };
        let Self::Seeded(seeded) = self else { return well };
        let rate = seeded.rates.of(Fault::TaskError);
        let random = &mut seeded.runs[function];
        let (fails, room, asked) = (random.per_mille(rate), random.one_in(3), random.one_in(4));
        let retry_after = asked.then(|| random.scale(10, 5_000));
        let detail = String::new();
        match (fails, room) {
            (false, _) => well,
            (true, true) => RunOutcome::NoRoom { detail, retry_after },
            (true, false) => RunOutcome::Error { status: 500, kind: "drawn", detail, retry_after, exit: None },
        }
    }

    /// Dice for the rules of tasks.
    pub(crate) fn dice(&mut self, function: usize) -> u64 {
        let Self::Seeded(seeded) = self else { return 0 };
        seeded.runs[function].below(1 << 40)
    }

    /// From now on nothing goes wrong.
    pub(crate) fn calm(&mut self) {
        if let Self::Seeded(seeded) = self {
            seeded.rates = FaultRates::CALM;
        }
    }
}
