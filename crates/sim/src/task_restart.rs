//! Tasks over a restart of the server: what was under way, what is held, what the next server finds on the disk.

use kip_fleet::{Event, Ticket};
use kip_queue::{Allowance, RunOutcome, after};
use kip_spec::InstanceId;
use kip_spec::task::{TaskNumber, TaskState};

use crate::cell::Request;
use crate::plant::PlantedBug;
use crate::task::{Run, TaskEvent, Tasks, wall};
use crate::world::World;

impl World {
    /// The server is killed: whether a happening of its tasks takes place all the same, for the next server.
    pub(crate) fn outlives(&mut self, function: usize, event: TaskEvent) -> Option<TaskEvent> {
        match event {
            TaskEvent::Submit(_) | TaskEvent::Stop(_) => Some(event),
            TaskEvent::Ends(number, ..) => self.tasks.is_held(number).then_some(event),
            TaskEvent::Commit(mut write) => {
                if self.fates.went_on() {
                    let (now, plant) = (self.now, self.plant);
                    self.tasks.commit(&mut write, function, now, plant);
                }
                None
            }
            TaskEvent::Applied(..) | TaskEvent::Claim(..) | TaskEvent::Round | TaskEvent::Look => None,
        }
    }

    /// What a server has in memory of tasks is gone, and so are runs that nobody holds.
    pub(crate) fn forget_tasks(&mut self) {
        let held: Vec<TaskNumber> =
            self.tasks.working.keys().copied().filter(|number| self.tasks.is_held(*number)).collect();
        let tasks = &mut self.tasks;
        tasks.working.retain(|number, _| held.contains(number));
        (tasks.book, tasks.round, tasks.looks) = (Tasks::empty(), None, false);
        (tasks.store, tasks.memory) = (0, 0);
        tasks.offered.clear();
        tasks.runs.clear();
        tasks.passed_over.clear();
    }

    /// Held runs on an instance.
    pub(crate) fn held_on(&self, instance: InstanceId) -> u32 {
        let held = self.tasks.working.iter().filter(|(number, on)| **on == instance && self.tasks.is_held(**number));
        u32::try_from(held.count()).unwrap_or(u32::MAX)
    }

    /// Held runs on adopted instances have their places, before anything is decided.
    pub(crate) fn occupy_held(&mut self, function: usize, instance: InstanceId) {
        let numbers: Vec<TaskNumber> =
            self.tasks.working.iter().filter(|(_, on)| **on == instance).map(|(number, _)| *number).collect();
        for number in numbers {
            self.tasks.inherited += 1;
            let ticket = Ticket::inherited(self.tasks.inherited);
            if let Some(body) = self.cells[function].bodies.get_mut(&instance) {
                body.in_flight += 1;
            }
            self.cells[function].ends.accepted += 1;
            let request = Request { since: self.now, at: Some(instance), work: u64::MAX, stuck: false };
            self.cells[function].requests.insert(ticket, request);
            self.step(function, Event::Occupy { ticket, instance });
            let epoch = self.tasks.disk.get(&number).map_or(0, |row| row.now.epoch);
            self.tasks.runs.insert(number, Run { function, epoch, ticket });
        }
    }

    /// Every open task of the disk is taken in; runs that nobody holds have ended with the server.
    pub(crate) fn recover_tasks(&mut self) {
        let (now, plant) = (wall(self.now), self.plant);
        let open: Vec<TaskNumber> = self.tasks.open().map(|(number, _)| number).collect();
        let works = |tasks: &Tasks, number: &TaskNumber| {
            tasks.disk.get(number).is_some_and(|row| matches!(row.now.state, TaskState::Running | TaskState::Stopping))
        };
        let (running, waiting): (Vec<TaskNumber>, Vec<TaskNumber>) =
            open.into_iter().partition(|number| works(&self.tasks, number));
        waiting.into_iter().for_each(|number| self.admit(number));
        for number in running {
            self.admit(number);
            let resumed = self.tasks.runs.contains_key(&number) && plant != Some(PlantedBug::DoubleRun);
            let Some(row) = self.tasks.disk.get_mut(&number) else { continue };
            if resumed && row.now.state == TaskState::Running {
                continue;
            }
            let allowed = Allowance { retries: row.retries, expires_at: i64::MAX };
            let ended = RunOutcome::Crashed { detail: "the server ended".to_owned() };
            row.now = after(&row.now, &ended, allowed, now, 0, 0);
            row.now.run_at = now;
            if plant != Some(PlantedBug::DoubleRun)
                && let Some(run) = self.tasks.runs.remove(&number)
            {
                // It was told to stop: its program ends before its place is another's.
                self.tasks.working.remove(&number);
                self.step(run.function, Event::Halt { ticket: run.ticket });
                self.leave(run.function, run.ticket);
            }
            self.settle_task(number);
        }
        (0..self.cells.len()).for_each(|function| self.report(function));
        self.plan_round();
    }
}
