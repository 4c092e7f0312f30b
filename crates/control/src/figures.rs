//! Functions in numbers, for metrics: what is now, and what has happened since the server was started.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use kip_fleet::State;
use kip_spec::FunctionName;
use kip_wire::ScalingInfo;

use crate::cell::{Cell, now};
use crate::control::Control;

/// A function in numbers.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The number of its cell, which requests are counted by.
    pub number: u32,
    /// Its name.
    pub name: FunctionName,
    /// Requests that instances have.
    pub in_flight: u64,
    /// Requests that wait.
    pub queued: u64,
    /// How long the oldest of them has waited, in milliseconds.
    pub oldest: Option<u64>,
    /// Instances by state.
    pub states: BTreeMap<&'static str, u64>,
    /// Programs that were started.
    pub starts: u64,
    /// Starts that failed.
    pub failed: u64,
    /// Instances that were woken.
    pub wakes: u64,
    /// Instances that gave way to others.
    pub evictions: u64,
    /// What scaling policies want.
    pub scaling: Vec<ScalingInfo>,
}

impl Figures {
    /// What is now of both together. What has happened is left at that of the first: it would fall when one of them goes.
    #[must_use]
    pub fn together(mut self, other: Self) -> Self {
        self.in_flight += other.in_flight;
        self.queued += other.queued;
        self.oldest = self.oldest.max(other.oldest);
        for (state, count) in other.states {
            *self.states.entry(state).or_default() += count;
        }
        self
    }
}

impl Cell {
    /// The number that tells it from every other of this server's life.
    pub fn number(&self) -> u32 {
        self.number.0
    }

    /// The function in numbers.
    pub fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut figures = Figures {
            number: self.number(),
            name: self.name().clone(),
            in_flight: 0,
            queued: 0,
            oldest: None,
            states: BTreeMap::new(),
            starts: read(&self.tally.starts),
            failed: read(&self.tally.failed),
            wakes: read(&self.tally.wakes),
            evictions: read(&self.tally.evictions),
            scaling: Vec::new(),
        };
        let now = now();
        let inner = self.lock();
        self.look(&inner, |core| {
            figures.scaling = Self::scaling_infos(&inner, core);
            for instance in core.instances().filter(|instance| !matches!(instance.state, State::Gone(_))) {
                figures.in_flight += u64::from(instance.in_flight);
                *figures.states.entry(instance.state.name()).or_default() += 1;
            }
            for (_, revision) in core.revisions() {
                figures.queued += u64::from(revision.queue.depth());
                let age = revision.queue.oldest().map(|since| now.boot.saturating_sub(since));
                figures.oldest = figures.oldest.max(age);
            }
        });
        drop(inner);
        figures
    }
}

impl Control {
    /// All functions in numbers, by name.
    pub fn figures(&self) -> Vec<Figures> {
        self.sorted().into_iter().map(|cell| cell.figures()).collect()
    }
}
