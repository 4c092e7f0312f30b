//! The states of an instance, and the one table that scaler, ledgers and prices read.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::why::EndReason;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Room was asked for.
    Requested,
    /// The program is starting and is not ready.
    Starting,
    /// The program is ready; its initialize hook runs.
    Initializing,
    /// Hot and idle.
    Ready,
    /// Hot with requests in flight.
    Busy,
    /// On the way to [`State::Paused`].
    Pausing,
    /// Gets no CPU; memory kept.
    Paused,
    /// On the way to [`State::Parked`].
    Parking,
    /// Paused, and device memory given back.
    Parked,
    /// On the way to [`State::Spilled`].
    Spilling,
    /// Parked, and host memory given back.
    Spilled,
    /// On the way from any sleep to [`State::Ready`].
    Waking,
    /// Takes no new requests; those in flight end.
    Draining,
    /// Being ended.
    Stopping,
    /// Ended.
    Gone(EndReason),
}

/// How deep an instance sleeps; each rung gives back more and wakes slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Gets no CPU.
    Paused,
    /// Device memory given back.
    Parked,
    /// Host memory given back.
    Spilled,
}

impl Rung {
    /// The state of an instance that has come to rest there.
    pub const fn state(self) -> State {
        match self {
            Self::Paused => State::Paused,
            Self::Parked => State::Parked,
            Self::Spilled => State::Spilled,
        }
    }

    /// The state on the way there.
    pub const fn way(self) -> State {
        match self {
            Self::Paused => State::Pausing,
            Self::Parked => State::Parking,
            Self::Spilled => State::Spilling,
        }
    }

    /// The next deeper one.
    pub const fn deeper(self) -> Option<Self> {
        match self {
            Self::Paused => Some(Self::Parked),
            Self::Parked => Some(Self::Spilled),
            Self::Spilled => None,
        }
    }
}

/// What a scaler counts an instance as; those that serve sooner come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Will be hot without further decision.
    Starting,
    /// Can serve now.
    Hot,
    /// Can serve after a wake.
    Asleep,
    /// Will not serve again.
    Leaving,
    /// Ended.
    Gone,
}

/// What an instance in a state keeps from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// CPU share.
    pub cpu: bool,
    /// Device memory.
    pub gpu: bool,
    /// Host memory.
    pub ram: bool,
    /// Disk space.
    pub disk: bool,
}

/// What an instance in a state costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceClass {
    /// The full price.
    Active,
    /// The full price, or the idle price where the function has an idle mode.
    ActiveOrIdle,
    /// The idle price.
    Idle,
    /// The full price while work is in flight.
    ActiveWithWork,
    /// Nothing.
    Free,
}

/// How many states there are, for arrays by [`State::index`].
pub const STATES: usize = 15;

/// Their names as users read them, by [`State::index`].
pub const NAMES: [&str; STATES] = [
    "requested",
    "starting",
    "initializing",
    "ready",
    "busy",
    "pausing",
    "paused",
    "parking",
    "parked",
    "spilling",
    "spilled",
    "waking",
    "draining",
    "stopping",
    "gone",
];

impl State {
    /// What a scaler counts it as.
    pub const fn class(self) -> Class {
        match self {
            Self::Requested | Self::Starting | Self::Initializing | Self::Waking => Class::Starting,
            Self::Ready | Self::Busy => Class::Hot,
            Self::Pausing | Self::Paused | Self::Parking | Self::Parked | Self::Spilling | Self::Spilled => {
                Class::Asleep
            }
            Self::Draining | Self::Stopping => Class::Leaving,
            Self::Gone(_) => Class::Gone,
        }
    }

    /// What it keeps from others. Draining and Stopping keep what the instance held before; the ledger answers for that.
    pub const fn holds(self) -> Holds {
        let (cpu, gpu, ram, disk) = match self {
            Self::Pausing | Self::Paused => (false, true, true, false),
            Self::Parking | Self::Parked => (false, false, true, false),
            Self::Spilling | Self::Spilled => (false, false, false, true),
            Self::Gone(_) => (false, false, false, false),
            _ => (true, true, true, false),
        };
        Holds { cpu, gpu, ram, disk }
    }

    /// What it costs.
    pub const fn price(self) -> PriceClass {
        match self {
            Self::Requested | Self::Starting | Self::Initializing | Self::Waking | Self::Busy => PriceClass::Active,
            Self::Ready => PriceClass::ActiveOrIdle,
            Self::Pausing | Self::Paused | Self::Parking | Self::Parked | Self::Spilling | Self::Spilled => {
                PriceClass::Idle
            }
            Self::Draining | Self::Stopping => PriceClass::ActiveWithWork,
            Self::Gone(_) => PriceClass::Free,
        }
    }

    /// The rung it rests on, if it has come to rest on one.
    pub const fn rung(self) -> Option<Rung> {
        match self {
            Self::Paused => Some(Rung::Paused),
            Self::Parked => Some(Rung::Parked),
            Self::Spilled => Some(Rung::Spilled),
            _ => None,
        }
    }

    /// Its place in arrays of length [`STATES`].
    pub const fn index(self) -> usize {
        match self {
            Self::Requested => 0,
            Self::Starting => 1,
            Self::Initializing => 2,
            Self::Ready => 3,
            Self::Busy => 4,
            Self::Pausing => 5,
            Self::Paused => 6,
            Self::Parking => 7,
            Self::Parked => 8,
            Self::Spilling => 9,
            Self::Spilled => 10,
            Self::Waking => 11,
            Self::Draining => 12,
            Self::Stopping => 13,
            Self::Gone(_) => 14,
        }
    }

    /// All but [`State::Gone`], in the order of their indices.
    pub const LIVING: [Self; STATES - 1] = [
        Self::Requested,
        Self::Starting,
        Self::Initializing,
        Self::Ready,
        Self::Busy,
        Self::Pausing,
        Self::Paused,
        Self::Parking,
        Self::Parked,
        Self::Spilling,
        Self::Spilled,
        Self::Waking,
        Self::Draining,
        Self::Stopping,
    ];

    /// The living state of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::LIVING.into_iter().find(|state| state.name() == name)
    }

    /// Its name as users read it.
    pub const fn name(self) -> &'static str {
        NAMES[self.index()]
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the design's section 5, line by line.
    #[test]
    fn the_table() {
        use State::{
            Busy, Draining, Initializing, Parked, Parking, Paused, Pausing, Ready, Requested, Spilled, Spilling,
            Starting, Stopping, Waking,
        };
        let rows: [(&[State], Class, PriceClass, &str); 7] = [
            (&[Requested, Starting, Initializing, Waking], Class::Starting, PriceClass::Active, "cpu gpu ram"),
            (&[Busy], Class::Hot, PriceClass::Active, "cpu gpu ram"),
            (&[Ready], Class::Hot, PriceClass::ActiveOrIdle, "cpu gpu ram"),
            (&[Pausing, Paused], Class::Asleep, PriceClass::Idle, "gpu ram"),
            (&[Parking, Parked], Class::Asleep, PriceClass::Idle, "ram"),
            (&[Spilling, Spilled], Class::Asleep, PriceClass::Idle, "disk"),
            (&[Draining, Stopping], Class::Leaving, PriceClass::ActiveWithWork, "cpu gpu ram"),
        ];
        let mut seen = [false; STATES];
        for (states, class, price, holds) in rows {
            for state in states {
                let held = state.holds();
                let words: Vec<&str> = [(held.cpu, "cpu"), (held.gpu, "gpu"), (held.ram, "ram"), (held.disk, "disk")]
                    .into_iter()
                    .filter_map(|(held, word)| held.then_some(word))
                    .collect();
                assert_eq!((state.class(), state.price(), words.join(" ").as_str()), (class, price, holds), "{state}");
                assert!(!std::mem::replace(&mut seen[state.index()], true), "{state} twice");
            }
        }
        assert_eq!(seen.iter().filter(|seen| **seen).count(), STATES - 1);
    }
}
