//! The server is killed and started again: cores, placer and everything under way are gone; programs go on, and are adopted.

use std::collections::BTreeMap;

use kip_fleet::{Event, FoundState, Placer, Router, ToPlacer};
use kip_spec::InstanceId;

use crate::body::{Body, Condition};
use crate::plant::PlantedBug;
use crate::room::Rooms;
use crate::world::{World, WorldEvent};

/// How long requests of the earlier server go on after their callers are gone, at most.
const LAST_WORK: u64 = 1_500;

impl World {
    /// Kills the server and starts the next one.
    pub(crate) fn restart(&mut self) {
        self.trace.tell(self.now, || "the server is killed and started again".to_owned());
        self.lose_what_is_under_way();
        self.forget_tasks();
        self.placer = Placer::new(self.placer.inventory().clone());
        self.router = Router::default();
        self.rooms = Rooms::default();
        self.yield_again();
        self.lanes.clear();
        self.cells.iter_mut().for_each(|cell| cell.restart());
        // Until all are adopted, cores know less than there is.
        let checked = std::mem::replace(&mut self.checked, false);
        let found: Vec<Vec<(InstanceId, FoundState)>> =
            (0..self.cells.len()).map(|function| self.find(function)).collect();
        for (function, found) in found.iter().enumerate() {
            found.iter().for_each(|(id, found)| self.hold(function, *id, *found));
        }
        found.into_iter().enumerate().for_each(|(function, found)| self.adopt_all(function, found));
        self.recover_tasks();
        self.checked = checked;
        if checked {
            (0..self.cells.len()).for_each(|function| self.check(function));
        }
    }

    /// Answers, timers and messages of the killed server are lost. What it had asked of a program has happened or not.
    fn lose_what_is_under_way(&mut self) {
        for (at, (function, happening)) in std::mem::take(&mut self.future) {
            match happening {
                WorldEvent::Operated(instance, _, what, _) => {
                    let went_on = self.fates.went_on();
                    if let Some(body) = self.cells[function].bodies.get_mut(&instance)
                        && went_on
                    {
                        body.apply(what);
                    }
                }
                WorldEvent::Task(event) => {
                    if let Some(event) = self.outlives(function, event) {
                        self.future.insert(at, (function, WorldEvent::Task(event)));
                    }
                }
                // The next server looks at what is open as well.
                WorldEvent::Arrive
                | WorldEvent::Rollout
                | WorldEvent::Dies(_)
                | WorldEvent::Ready(..)
                | WorldEvent::NotLive(..) => {
                    self.future.insert(at, (function, happening));
                }
                WorldEvent::Leave(_)
                | WorldEvent::Told(_)
                | WorldEvent::ToPlacer(_)
                | WorldEvent::Alarm(_)
                | WorldEvent::Settles(_) => {}
            }
        }
    }

    /// What lives and is known, by what it is; the new server ends everything else before it does anything.
    fn find(&mut self, function: usize) -> Vec<(InstanceId, FoundState)> {
        let plant = self.plant;
        let held: BTreeMap<InstanceId, u32> =
            self.cells[function].bodies.keys().map(|instance| (*instance, self.held_on(*instance))).collect();
        let (now, cell) = (self.now, &mut self.cells[function]);
        let lives = |body: &Body| {
            let policy = cell.versions.get(&body.version).filter(|_| !cell.closed);
            let ready = policy.is_some_and(|policy| body.initialized || !policy.initialize);
            ready && matches!(body.condition, Condition::Up | Condition::Frozen(_))
        };
        let mut found = Vec::new();
        cell.bodies.retain(|id, body| {
            let asleep = match body.condition {
                Condition::Frozen(rung) if plant != Some(PlantedBug::AdoptedAwake) => Some(rung),
                _ => None,
            };
            // What is held is no connection of the earlier server.
            let left = body.in_flight.saturating_sub(held.get(id).copied().unwrap_or(0));
            let busy = if asleep.is_none() { left } else { 0 };
            if lives(body) {
                found.push((*id, FoundState { asleep, busy, born: body.born, provisioned: false, place: body.place }));
                (body.in_flight, body.stuck, body.asked, body.news, body.born) = (0, 0, None, 0, now);
                true
            } else {
                false
            }
        });
        if plant == Some(PlantedBug::LostAdoption) && found.len() > 1 {
            let lost = found.pop().and_then(|(id, _)| cell.bodies.remove(&id));
            self.orphans += u32::from(lost.is_some());
        }
        let bodies = &self.cells[function].bodies;
        let gone = |instance: &InstanceId| instance.core as usize == function && !bodies.contains_key(instance);
        self.tasks.working.retain(|_, on| !gone(on));
        found
    }

    /// Room is held for what lives before anybody else can be given it.
    fn hold(&mut self, function: usize, instance: InstanceId, found: FoundState) {
        let cell = &self.cells[function];
        let Some(version) = cell.bodies.get(&instance).map(|body| body.version) else { return };
        let Some(need) = cell.versions.get(&version).map(|policy| policy.need) else { return };
        let (function, place, rung) = (cell.number, found.place, found.asleep);
        self.placer_told(ToPlacer::Hold { function, instance, version, need, place, rung });
    }

    /// What a server does when it starts: what lives is handed in, then decisions begin.
    fn adopt_all(&mut self, function: usize, found: Vec<(InstanceId, FoundState)>) {
        for (instance, found) in found {
            let cell = &self.cells[function];
            let Some(version) = cell.bodies.get(&instance).map(|body| body.version) else { continue };
            let Some(policy) = cell.versions.get(&version).cloned() else { continue };
            if found.busy > 0 {
                let ends = self.now + u64::from(instance.sequence) * 97 % LAST_WORK;
                self.plan(ends, function, WorldEvent::Settles(instance));
            }
            let awake = found.asleep.is_none();
            self.step(function, Event::Adopt { instance, version, policy, found });
            if awake {
                self.occupy_held(function, instance);
            }
        }
        self.serve(function);
    }

    pub(crate) fn settles(&mut self, function: usize, instance: InstanceId) {
        if self.cells[function].bodies.contains_key(&instance) {
            self.step(function, Event::Settled { instance });
        }
    }

    /// The ready probe of an instance that is up has another answer.
    pub(crate) fn probed(&mut self, function: usize, instance: InstanceId, ready: bool) {
        let up = self.cells[function].bodies.get(&instance).is_some_and(|body| body.condition == Condition::Up);
        if up {
            self.step(function, Event::Readiness { instance, ready });
        }
    }

    /// The live probe of an instance that is up fails.
    pub(crate) fn ails(&mut self, function: usize, instance: InstanceId, slow: bool) {
        use kip_fleet::ProbeFailure::{Refused, Slow};
        let Some(body) = self.cells[function].bodies.get_mut(&instance) else { return };
        if body.condition != Condition::Up {
            return;
        }
        body.not_live = !slow;
        let how = if slow { Slow } else { Refused };
        self.step(function, Event::Unhealthy { instance, how });
    }

    /// What befalls a program that has come up, unless nothing does.
    pub(crate) fn may_ail(&mut self, function: usize, instance: InstanceId) {
        if let Some((after, lasts)) = self.fates.unready(function) {
            self.plan(self.now + after, function, WorldEvent::Ready(instance, false));
            self.plan(self.now + after + lasts, function, WorldEvent::Ready(instance, true));
        }
        if let Some((after, slow)) = self.fates.not_live(function) {
            self.plan(self.now + after, function, WorldEvent::NotLive(instance, slow));
        }
    }
}
