//! Liveness: once traffic and faults have ended, everything must come to the declared rest, still serve, and end when asked.

use kip_fleet::function::Role;
use kip_fleet::{Call, Event, State};

use crate::setup::Setup;
use crate::world::World;

/// Longer than any pause after failures, any idle time and any deadline that is drawn, several in a row.
const LONG: u64 = 600_000;
/// From room to an answer without faults takes less than this with all durations that are drawn.
const PROMPT: u64 = 4_000;

impl World {
    /// After the horizon; faults are off.
    pub(crate) fn settle(&mut self, setup: &Setup) {
        self.run_until(self.now + LONG);
        self.check_rest();
        for function in 0..self.cells.len() {
            if self.failure.is_some() {
                return;
            }
            self.probe(function, setup.inventory.pools[0].hosts[0].memory);
        }
        self.run_until(self.now + LONG);
        self.check_rest();
        for function in 0..self.cells.len() {
            self.step(function, Event::Shutdown);
        }
        self.run_until(self.now + LONG);
        self.check_end();
    }

    /// Whether each function has what was declared and nothing else.
    fn check_rest(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let mut faults = Vec::new();
        for cell in &self.cells {
            let mut fault = |text: String| faults.push(format!("{}: {text}", cell.name));
            if !cell.requests.is_empty() {
                fault(format!("requests have not ended: {:?}", cell.requests));
            }
            let Some(core) = &cell.core else { continue };
            for (version, revision) in core.revisions() {
                let policy = &revision.policy;
                let states: Vec<State> =
                    core.instances().filter(|i| i.version == version).map(|instance| instance.state).collect();
                let number = u32::try_from(states.len()).unwrap_or(u32::MAX);
                let minimum = if revision.role == Role::Serving { policy.min } else { 0 };
                let most = if policy.idle.stop.is_some() { minimum } else { policy.max };
                let asleep = states.iter().all(|state| *state == State::Paused);
                if revision.role != Role::Serving {
                    fault(format!("{version} is still {:?} with {states:?}", revision.role));
                } else if number < minimum || number > most {
                    fault(format!("{version} rests with {number} instances, not {minimum} to {most}: {states:?}"));
                } else if policy.idle.pause.is_some() && !asleep {
                    fault(format!("{version} does not sleep: {states:?}"));
                }
            }
        }
        let (reserved, _, waiting) = self.placer.ledger();
        let needed = self.rooms.memory();
        if waiting > 0 || reserved != needed || !self.rooms.all_granted() {
            faults.push(format!("{reserved} reserved, {needed} needed, {waiting} wait for room"));
        }
        if !faults.is_empty() {
            self.fail("rest", faults.join("; "));
        }
    }

    /// A function at rest must answer a request, unless it cannot in the time or room it was given.
    fn probe(&mut self, function: usize, capacity: u64) {
        let cell = &self.cells[function];
        let Some(policy) = cell.versions.get(&cell.serving).filter(|_| !cell.closed).cloned() else { return };
        let before = cell.ends;
        self.arrive(function, 10, None, Call::default());
        self.run_until(self.now + policy.queue_timeout + PROMPT);
        // The next function is asked only when this one rests again: idle hot instances are not asked for their room yet.
        self.run_until(self.now + LONG);
        let possible = policy.need.memory <= capacity && policy.queue_timeout >= PROMPT;
        let ends = self.cells[function].ends;
        if possible && ends.left != before.left + 1 && self.failure.is_none() {
            self.fail("serves after rest", format!("{} did not serve: {ends:?}", self.cells[function].name));
        }
    }

    /// Whether nothing is left.
    fn check_end(&mut self) {
        let (reserved, _, waiting) = self.placer.ledger();
        for cell in &self.cells {
            let ends = cell.ends;
            if cell.core.is_some() || !cell.bodies.is_empty() || !cell.requests.is_empty() {
                let text = format!("{} is left after shutdown: {:?} {:?}", cell.name, cell.bodies, cell.requests);
                return self.fail("end", text);
            }
            if ends.accepted != ends.left + ends.refused + ends.cancelled {
                return self.fail("ends once", format!("{}: {ends:?}", cell.name));
            }
        }
        if reserved > 0 || waiting > 0 || !self.rooms.is_empty() {
            self.fail("end", format!("{reserved} reserved, {waiting} wait, {:?}", self.rooms));
        }
    }
}
