//! Liveness: once traffic and faults have ended, everything must come to the declared rest, still serve, and end when asked.

use std::collections::BTreeSet;

use kip_fleet::function::Role;
use kip_fleet::instance::Instance;
use kip_fleet::{Call, Event, Kind, State};
use kip_spec::scaling::Scaling;
use kip_spec::{InstanceId, VersionId};

use crate::setup::Setup;
use crate::world::World;

/// Longer than any pause after failures, any idle time and any deadline that is drawn, several in a row.
const LONG: u64 = 600_000;
/// From room to an answer without faults takes less than this with all durations that are drawn.
const PROMPT: u64 = 4_000;
/// Who waits this long gets room, whatever others hold: they have had the longest turn there is, stretched or not.
const PATIENT: u64 = 200_000;
/// How often it is looked whether everything rests, milliseconds, and how often in a row it must.
const LOOK: u64 = 10_000;
const LOOKS: u32 = 3;
/// Without faults no stop and no kill takes longer than this with all durations that are drawn.
const LONGEST_STOP: u64 = 5_000;

impl World {
    /// After the horizon; faults are off.
    pub(crate) fn settle(&mut self, setup: &Setup) {
        self.run_until(self.now + LONG);
        self.rest(setup);
        for function in 0..self.cells.len() {
            if self.failure.is_some() {
                return;
            }
            self.probe(function, setup);
        }
        for function in 0..self.cells.len() {
            self.step(function, Event::Shutdown);
        }
        self.run_until(self.now + LONG);
        self.check_end();
    }

    /// Lets time pass until everything rests, and stays so for a while; it must come to that.
    fn rest(&mut self, setup: &Setup) {
        let (end, mut calm) = (self.now + LONG, 0);
        while self.failure.is_none() {
            let faults = self.unrest(setup);
            calm = if faults.is_empty() { calm + 1 } else { 0 };
            if calm == LOOKS {
                return;
            }
            if self.now >= end && !faults.is_empty() {
                return self.fail("rest", format!("{}; {:?}", faults.join("; "), self.placer));
            }
            self.run_until(self.now + LOOK);
        }
    }

    /// Where a function has something else than what was declared.
    fn unrest(&self, setup: &Setup) -> Vec<String> {
        let mut faults = Vec::new();
        for (function, cell) in self.cells.iter().enumerate() {
            let mut fault = |text: String| faults.push(format!("{}: {text}", cell.name));
            if let Some(text) = self.rollout_unrest(function) {
                fault(text);
            }
            if !cell.requests.is_empty() {
                fault(format!("requests have not ended: {:?}", cell.requests));
            }
            let Some(core) = cell.core() else { continue };
            for (version, revision) in core.revisions() {
                let policy = &revision.policy;
                let own: Vec<&Instance> = core.instances().filter(|i| i.version == version).collect();
                let states: Vec<State> = own.iter().map(|instance| instance.state).collect();
                // A calendar may have released some just now.
                let going = |state: &&State| core.provisions().is_empty() || **state != State::Stopping;
                let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                let number = count(states.iter().filter(going).count());
                let stops = |i: &&Instance| i.state == State::Stopping && i.since + LONGEST_STOP < self.now;
                let minimum = revision.minimum();
                let wanted = revision.scaler.applied();
                let most =
                    if policy.idle.stop.is_some() { minimum.max(wanted.unwrap_or(0)) } else { revision.maximum() };
                // Those are kept hot, or were provisioned just now.
                let warm = wanted.is_some() || revision.provisioned > 0;
                // What is kept may have to wait for room that others keep.
                let rests = |instance: &&Instance| {
                    instance.state.rung().is_some() && !instance.wants_room || instance.state == State::Requested
                };
                let stays = matches!(revision.role, Role::Serving | Role::Named);
                let hopeless = !setup.fits(policy);
                // Others may keep an instance on its port.
                let shared = policy.need.port > 0;
                // Those that grow old are replaced for ever, one at a time; its successor may follow when it is gone.
                let ages = policy.max_age.is_some();
                let least = if ages { count(states.len()) } else { number };
                if !stays {
                    fault(format!("{version} is still {:?} with {states:?}", revision.role));
                } else if own.iter().any(stops) {
                    fault(format!("{version} does not end what it stops: {states:?}"));
                } else if !hopeless && !shared && least < minimum || number > most + u32::from(ages) {
                    fault(format!("{version} rests with {number} instances, not {minimum} to {most}: {states:?}"));
                } else if policy.idle.pause.is_some() && !ages && !warm && !own.iter().all(rests) {
                    fault(format!("{version} does not sleep: {states:?}"));
                } else if !ages
                    && !warm
                    && own.iter().any(|instance| instance.kind == Kind::OnDemand && instance.state == State::Requested)
                {
                    fault(format!("{version} waits for room that nobody needs: {states:?}"));
                }
            }
        }
        faults.extend(self.tasks_unrest());
        let (reserved, _, _) = self.placer.ledger();
        let needed = self.rooms.memory();
        let instances = self.cells.iter().filter_map(|cell| cell.core()).flat_map(|core| core.instances());
        let wants = |i: &&Instance| i.state == State::Requested || i.wants_room;
        let wanting: BTreeSet<InstanceId> = instances.filter(wants).map(|instance| instance.id).collect();
        let waiting: BTreeSet<InstanceId> = self.placer.waiting().collect();
        if wanting != waiting || reserved != needed {
            faults
                .push(format!("{reserved} reserved, {needed} needed; {waiting:?} wait for room, {wanting:?} want it"));
        }
        faults
    }

    /// A function at rest must answer a request, unless it cannot in the time or room it was given.
    fn probe(&mut self, function: usize, setup: &Setup) {
        let cell = &self.cells[function];
        let Some(policy) =
            cell.versions.get(&cell.serving).filter(|_| !cell.closed && !cell.host.is_quarantined()).cloned()
        else {
            return;
        };
        let before = cell.ends;
        self.arrive(function, 10, None, Call::default());
        let end = self.now + policy.queue_timeout + PROMPT;
        while !self.cells[function].requests.is_empty() && self.now < end && self.failure.is_none() {
            let next = self.next_at().map_or(end, |next| next.min(end));
            self.run_until(next);
        }
        // The next function is asked only when this one rests again: idle hot instances are not asked for their room yet.
        self.rest(setup);
        // Others may have to be waited for until they have had their turn.
        let waits_for_ever = matches!(&policy.scaling, Scaling::Fc(fc) if fc.disable_ondemand);
        // Nor can an instance be asked for its room that is pinned, or that could not be back in time.
        let holds_on = |other: usize| {
            let cell = &self.cells[other];
            let own = |version: VersionId| other == function && version == cell.serving;
            let others = cell.versions.iter().filter(|(version, _)| !own(**version));
            others.map(|(_, policy)| policy).any(|policy| policy.pinned || policy.wake.is_some())
        };
        let kept_from_it = (0..self.cells.len()).any(holds_on);
        let possible = !waits_for_ever && !kept_from_it && setup.fits(&policy) && policy.queue_timeout >= PATIENT;
        let ends = self.cells[function].ends;
        if possible && ends.left != before.left + 1 && self.failure.is_none() {
            let (name, placer) = (&self.cells[function].name, &self.placer);
            self.fail("serves after rest", format!("{name} did not serve: {ends:?}; {placer:?}"));
        }
    }

    /// Whether nothing is left.
    fn check_end(&mut self) {
        let (reserved, _, waiting) = self.placer.ledger();
        for cell in &self.cells {
            let ends = cell.ends;
            if cell.core().is_some() || !cell.bodies.is_empty() || !cell.requests.is_empty() {
                let text = format!("{} is left after shutdown: {:?} {:?}", cell.name, cell.bodies, cell.requests);
                return self.fail("end", text);
            }
            if ends.accepted != ends.left + ends.refused + ends.cancelled + ends.broken {
                return self.fail("ends once", format!("{}: {ends:?}", cell.name));
            }
        }
        if self.orphans > 0 {
            let orphans = self.orphans;
            return self.fail("end", format!("{orphans} programs have no server"));
        }
        if reserved > 0 || waiting > 0 || !self.rooms.is_empty() {
            self.fail("end", format!("{reserved} reserved, {waiting} wait, {:?}", self.rooms));
        }
    }
}
