//! When requests arrive.

use crate::random::Random;

/// The shape of a function's traffic. Times in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Workload {
    /// Evenly, with some jitter.
    Constant {
        /// Mean distance.
        every: u64,
    },
    /// Busy for a while, then silent.
    Bursty {
        /// Mean distance while busy.
        every: u64,
        /// Length of the busy part.
        on: u64,
        /// Length of the silent part.
        off: u64,
    },
    /// In turns with its neighbour: functions with even numbers have the first.
    Alternating {
        /// Mean distance within its turn.
        every: u64,
        /// Length of a turn.
        turn: u64,
        /// Whether it has the second turn.
        second: bool,
    },
    /// Ever more.
    Ramp {
        /// Mean distance at first.
        from: u64,
        /// Mean distance at last.
        to: u64,
        /// When it is reached.
        over: u64,
    },
    /// Almost nothing.
    Idle {
        /// Mean distance.
        every: u64,
    },
}

impl Workload {
    pub(crate) fn draw(random: &mut Random, function: usize, horizon: u64) -> Self {
        let every = random.scale(2, 800);
        match random.below(5) {
            0 => Self::Constant { every },
            1 => Self::Bursty { every, on: random.scale(50, 4_000), off: random.scale(200, 20_000) },
            2 => Self::Alternating { every, turn: random.scale(100, 5_000), second: function % 2 == 1 },
            3 => Self::Ramp { from: every.saturating_mul(8), to: every, over: horizon },
            _ => Self::Idle { every: random.scale(2_000, 60_000) },
        }
    }

    /// The next arrival after one at `now`; zero is the beginning of the run.
    pub(crate) fn next(&self, now: u64, random: &mut Random) -> u64 {
        let jittered = |every: u64, random: &mut Random| random.below(every.saturating_mul(2) + 1);
        match *self {
            Self::Constant { every } | Self::Idle { every } => now + jittered(every, random).max(1),
            Self::Ramp { from, to, over } => {
                let passed = now.min(over);
                let every = from - (from - to) * passed / over.max(1);
                now + jittered(every, random)
            }
            Self::Bursty { every, on, off } => {
                let at = now + jittered(every, random);
                let (round, within) = (at / (on + off), at % (on + off));
                if within < on { at } else { (round + 1) * (on + off) }
            }
            Self::Alternating { every, turn, second } => {
                let at = now + jittered(every, random);
                let mine = (at / turn) % 2 == u64::from(second);
                if mine { at } else { (at / turn + 1) * turn }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternating_functions_take_turns() {
        for second in [false, true] {
            let workload = Workload::Alternating { every: 10, turn: 100, second };
            let mut random = Random::stream(1, "traffic", 0);
            let mut now = 0;
            for _ in 0..500 {
                let next = workload.next(now, &mut random);
                assert!(next >= now && (next / 100 % 2 == 1) == second, "{next}");
                now = next;
            }
        }
    }
}
