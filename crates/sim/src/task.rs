//! Tasks: what was accepted on the disk, the book in memory, claims, runs, stops and ends; as the server does it, with time
//! between a commit and what memory makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kip_fleet::{Backlog, Event, Ticket};
use kip_queue::{Allowance, Book, Entry, RunOutcome, after};
use kip_spec::InstanceId;
use kip_spec::task::{TaskNumber, TaskProgress, TaskState};

use crate::body::Condition;
use crate::cell::Request;
use crate::plant::PlantedBug;
use crate::world::{World, WorldEvent};

/// After a commit that failed, a claim waits this long, milliseconds.
const PAUSE: i64 = 1_000;
/// How often tasks of each function are looked at, whatever happens, milliseconds.
const LOOK: u64 = 1_000;
/// Tasks in a row that the tenant of this name may have.
pub(crate) const HEAVY: (&str, u32) = ("heavy", 3);

/// How a tenant of a function waits while others are served.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) turns: u32,
    /// The most others there were.
    pub(crate) others: u32,
    /// What it had ready at the last turn.
    pub(crate) ready: BTreeSet<TaskNumber>,
}

/// All of it. Times are milliseconds of the virtual clock, which is the wall clock of tasks.
#[derive(Debug)]
pub(crate) struct Tasks {
    /// What the server has in memory.
    pub(crate) book: Book,
    /// What is on the disk.
    pub(crate) disk: BTreeMap<TaskNumber, Row>,
    next: u64,
    /// Places on their way to a task, by function.
    pub(crate) offered: BTreeMap<usize, u32>,
    /// Runs that the server knows of.
    pub(crate) runs: BTreeMap<TaskNumber, Run>,
    /// Programs that really work on a task, with the instance.
    pub(crate) working: BTreeMap<TaskNumber, InstanceId>,
    /// When the next round is planned.
    pub(crate) round: Option<u64>,
    pub(crate) looks: bool,
    /// Commits and their news keep their order.
    pub(crate) store: u64,
    pub(crate) memory: u64,
    pub(crate) passed_over: BTreeMap<(usize, Arc<str>), Passed>,
    pub(crate) inherited: u64,
}

/// A task on the disk.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) function: usize,
    pub(crate) order: Option<Arc<str>>,
    tenant: Arc<str>,
    priority: u8,
    created: i64,
    pub(crate) now: TaskProgress,
    /// Its run outlives the server.
    held: bool,
    pub(crate) retries: u32,
    work: u64,
    instance: Option<InstanceId>,
}

/// A task as it is submitted.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    pub(crate) order: Option<&'static str>,
    pub(crate) tenant: &'static str,
    pub(crate) priority: u8,
    pub(crate) held: bool,
    pub(crate) retries: u32,
    pub(crate) work: u64,
    /// Not to be run before, from its acceptance on.
    pub(crate) delay: u64,
    /// Not to be begun after, from its acceptance on.
    pub(crate) expires: u64,
    /// It is stopped so long after its acceptance.
    pub(crate) stop: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) function: usize,
    pub(crate) epoch: u32,
    pub(crate) ticket: Ticket,
}

/// What happens to tasks.
#[derive(Debug, Clone)]
pub(crate) enum TaskEvent {
    /// Somebody submits one.
    Submit(Submission),
    /// The store writes.
    Commit(Write),
    /// Memory hears what became of a write; `None` is an error of the store.
    Applied(Write, Option<bool>),
    /// A place is given to a task.
    Claim(Ticket, InstanceId),
    /// A run of this epoch ends.
    Ends(TaskNumber, u32, RunOutcome),
    /// Somebody stops it.
    Stop(TaskNumber),
    /// Something may be due.
    Round,
    /// Every function's tasks are looked at.
    Look,
}

/// A change of the disk.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Accept(Submission, TaskNumber),
    Claim { number: TaskNumber, from: TaskState, epoch: u32, ticket: Ticket, instance: InstanceId },
    Finish { number: TaskNumber, epoch: u32, ended: RunOutcome, dice: u64 },
    Stopping { number: TaskNumber, epoch: u32 },
    End { number: TaskNumber, from: TaskState, epoch: u32, to: TaskState },
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self {
            book: Self::empty(),
            disk: BTreeMap::new(),
            next: 0,
            offered: BTreeMap::new(),
            runs: BTreeMap::new(),
            working: BTreeMap::new(),
            round: None,
            looks: false,
            store: 0,
            memory: 0,
            passed_over: BTreeMap::new(),
            inherited: 0,
        }
    }

    pub(crate) fn empty() -> Book {
        Book::weighted(BTreeMap::from([(HEAVY.0.to_owned(), HEAVY.1)]))
    }

    /// Those that are not over, on the disk.
    pub(crate) fn open(&self) -> impl Iterator<Item = (TaskNumber, &Row)> {
        self.disk.iter().filter(|(_, row)| !row.now.state.is_terminal()).map(|(number, row)| (*number, row))
    }

    /// Applies a write; whether it was in time.
    pub(crate) fn commit(&mut self, write: &mut Write, function: usize, now: u64, plant: Option<PlantedBug>) -> bool {
        let wall = wall(now);
        match write {
            Write::Accept(submission, number) => {
                self.next += 1;
                *number = TaskNumber(self.next);
                self.disk.insert(*number, Row::new(function, submission, wall));
                true
            }
            Write::Claim { number, from, epoch, instance, .. } => {
                let unfenced = plant == Some(PlantedBug::UnfencedClaim);
                let Some(row) = self.disk.get_mut(number) else { return false };
                if !unfenced && (row.now.state, row.now.epoch) != (*from, *epoch) {
                    return false;
                }
                row.now =
                    TaskProgress { state: TaskState::Running, epoch: *epoch + 1, started: wall, ..row.now.clone() };
                row.instance = Some(*instance);
                true
            }
            Write::Finish { number, epoch, ended, dice } => {
                let Some(row) = self.disk.get_mut(number) else { return false };
                if row.now.epoch != *epoch || !matches!(row.now.state, TaskState::Running | TaskState::Stopping) {
                    return false;
                }
                let allowed = Allowance { retries: row.retries, expires_at: row.now.expires_at };
                row.now = after(&row.now, ended, allowed, wall, 0, *dice);
                true
            }
            Write::Stopping { number, epoch } => {
                let row = self.disk.get_mut(number).filter(|row| row.now.epoch == *epoch);
                let Some(row) = row.filter(|row| row.now.state == TaskState::Running) else { return false };
                row.now.state = TaskState::Stopping;
                true
            }
            Write::End { number, from, epoch, to } => {
                let row = self.disk.get_mut(number);
                let Some(row) = row.filter(|row| (row.now.state, row.now.epoch) == (*from, *epoch)) else {
                    return false;
                };
                (row.now.state, row.now.ended) = (*to, wall);
                true
            }
        }
    }

    /// Whether a program works on it for a server that was killed.
    pub(crate) fn is_held(&self, number: TaskNumber) -> bool {
        self.working.contains_key(&number) && self.disk.get(&number).is_some_and(|row| row.held)
    }
}

impl Row {
    fn new(function: usize, submission: &Submission, now: i64) -> Self {
        let after = |millis: u64| now.saturating_add(i64::try_from(millis).unwrap_or(i64::MAX));
        let entry = Entry {
            function_id: 0,
            step: 0,
            id: None,
            function: Arc::from(""),
            qualifier: Arc::from("LATEST"),
            tenant: Arc::from(submission.tenant),
            priority: submission.priority,
            kind: 0,
            order: submission.order.map(Arc::from),
            size: 0,
            created: now,
            expires_at: after(submission.expires),
            state: TaskState::Enqueued,
            epoch: 0,
            run_at: after(submission.delay),
            started: 0,
            errors: 0,
            crashes: 0,
            refusals: 0,
        };
        Self {
            function,
            order: entry.order.clone(),
            tenant: entry.tenant.clone(),
            priority: entry.priority,
            created: now,
            now: entry.progressed(),
            held: submission.held,
            retries: submission.retries,
            work: submission.work,
            instance: None,
        }
    }

    pub(crate) fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// What the book keeps of it.
    fn entry(&self, name: &str) -> Entry {
        Entry {
            function_id: 0,
            step: 0,
            id: None,
            function: Arc::from(name),
            qualifier: Arc::from("LATEST"),
            tenant: self.tenant.clone(),
            priority: self.priority,
            kind: u8::from(self.held),
            order: self.order.clone(),
            size: 0,
            created: self.created,
            expires_at: self.now.expires_at,
            state: self.now.state,
            epoch: self.now.epoch,
            run_at: self.now.run_at,
            started: self.now.started,
            errors: self.now.errors,
            crashes: self.now.crashes,
            refusals: self.now.refusals,
        }
    }
}

pub(crate) fn wall(now: u64) -> i64 {
    i64::try_from(now).unwrap_or(i64::MAX)
}

fn take_in(entry: &mut Entry, now: &TaskProgress) {
    (entry.state, entry.epoch, entry.run_at, entry.started) = (now.state, now.epoch, now.run_at, now.started);
    (entry.errors, entry.crashes, entry.refusals) = (now.errors, now.crashes, now.refusals);
}

impl World {
    fn plan_task(&mut self, at: u64, function: usize, event: TaskEvent) {
        self.plan(at, function, WorldEvent::Task(event));
    }

    /// Hands a change to the store.
    fn write(&mut self, function: usize, write: Write) {
        self.tasks.store = self.tasks.store.max(self.now + self.fates.commit());
        self.plan_task(self.tasks.store, function, TaskEvent::Commit(write));
    }

    pub(crate) fn task(&mut self, function: usize, event: TaskEvent) {
        match event {
            TaskEvent::Submit(submission) if !self.cells[function].closed => {
                self.write(function, Write::Accept(submission, TaskNumber(0)));
            }
            TaskEvent::Submit(_) => {}
            TaskEvent::Commit(mut write) => {
                let stored = (!self.fates.store_fails()).then(|| {
                    let (now, plant) = (self.now, self.plant);
                    self.tasks.commit(&mut write, function, now, plant)
                });
                self.tasks.memory = self.tasks.memory.max(self.now + self.fates.commit());
                self.plan_task(self.tasks.memory, function, TaskEvent::Applied(write, stored));
            }
            TaskEvent::Applied(write, stored) => self.applied(function, write, stored),
            TaskEvent::Claim(ticket, instance) => self.claim(function, ticket, instance),
            TaskEvent::Ends(number, epoch, ended) => self.run_ends(number, epoch, ended),
            TaskEvent::Stop(number) => self.stop_task(function, number),
            TaskEvent::Round => self.round(),
            TaskEvent::Look => self.look(),
        }
    }

    /// Memory hears what became of a write.
    fn applied(&mut self, function: usize, write: Write, stored: Option<bool>) {
        let now = wall(self.now);
        match (write, stored) {
            (Write::Accept(..), None | Some(false)) => {}
            (Write::Accept(submission, number), Some(true)) => {
                if let Some(after) = submission.stop {
                    self.plan_task(self.now + after, function, TaskEvent::Stop(number));
                }
                if self.plant == Some(PlantedBug::LostAdmit) && number.0.is_multiple_of(7) {
                    return;
                }
                self.admit(number);
                self.report(function);
            }
            (Write::Claim { number, epoch, ticket, instance, .. }, Some(true)) => {
                self.begin(function, number, epoch + 1, ticket, instance);
            }
            (Write::Claim { ticket, .. }, Some(false)) => self.leave(function, ticket),
            (Write::Claim { number, ticket, .. }, None) => {
                self.tasks.book.settle(number, |entry| entry.run_at = entry.run_at.max(now + PAUSE), now);
                self.leave(function, ticket);
                self.report(function);
            }
            // What is over must be written, whatever it takes.
            (write @ Write::Finish { .. }, None) => self.write(function, write),
            (Write::Finish { number, .. } | Write::End { number, .. }, Some(true)) => {
                self.settle_task(number);
                self.report(function);
            }
            (Write::Stopping { number, epoch }, Some(true)) => {
                self.settle_task(number);
                self.halt(number, epoch);
            }
            (Write::Stopping { number, .. }, Some(false)) => {
                self.plan_task(self.now + 2, function, TaskEvent::Stop(number));
            }
            (Write::End { number, to: TaskState::Stopped, .. }, Some(false)) => {
                self.plan_task(self.now + 2, function, TaskEvent::Stop(number));
            }
            (Write::Stopping { .. } | Write::End { .. } | Write::Finish { .. }, _) => {}
        }
        self.plan_round();
    }

    pub(crate) fn admit(&mut self, number: TaskNumber) {
        let Some(row) = self.tasks.disk.get(&number) else { return };
        let mut entry = row.entry(&self.cells[row.function].name);
        match self.plant {
            Some(PlantedBug::ForgottenOrder) => entry.order = None,
            Some(PlantedBug::OneTenant) => entry.tenant = Arc::from("all"),
            _ => {}
        }
        self.tasks.book.admit(number, entry, wall(self.now));
        if !self.tasks.looks {
            self.tasks.looks = true;
            self.plan_task(self.now + LOOK, 0, TaskEvent::Look);
        }
    }

    /// The book learns what the disk says.
    pub(crate) fn settle_task(&mut self, number: TaskNumber) {
        let Some(now) = self.tasks.disk.get(&number).map(|row| row.now.clone()) else { return };
        self.tasks.book.settle(number, |entry| take_in(entry, &now), wall(self.now));
    }

    /// Tells the core how many tasks are ready.
    pub(crate) fn report(&mut self, function: usize) {
        let cell = &self.cells[function];
        let (version, name) = (cell.serving, cell.name.clone());
        if cell.closed || version.0 == 0 {
            return;
        }
        let counts = self.tasks.book.counts(&name);
        let ready = u32::try_from(counts.ready).unwrap_or(u32::MAX);
        let count = ready.saturating_sub(self.tasks.offered.get(&function).copied().unwrap_or(0));
        if self.plant == Some(PlantedBug::DeafBacklog) || count == 0 && cell.core().is_none() {
            return;
        }
        let oldest = counts.oldest.map_or(self.now, |oldest| oldest.unsigned_abs());
        self.step(function, Event::Backlog { version, backlog: Backlog { count, oldest } });
    }

    /// A core offers a place.
    pub(crate) fn offered(&mut self, function: usize, ticket: Ticket, instance: InstanceId) {
        let cell = &mut self.cells[function];
        let Some(body) = cell.bodies.get_mut(&instance) else {
            return self.fail("offers", format!("{ticket:?} is offered on {instance}, which does not exist"));
        };
        body.in_flight += 1;
        body.last_byte = self.now;
        let (condition, news) = (body.condition, body.news);
        cell.ends.accepted += 1;
        cell.requests.insert(ticket, Request { since: self.now, at: Some(instance), work: u64::MAX, stuck: false });
        match condition {
            Condition::Up => {}
            Condition::Dead if news > 0 => self.plan(self.now + 1, function, WorldEvent::Leave(ticket)),
            condition => self.fail("offers", format!("{instance} is offered and is {condition:?}")),
        }
        self.check_dispatch(function, instance);
        *self.tasks.offered.entry(function).or_default() += 1;
        let at = self.now + self.fates.commit();
        self.plan_task(at, function, TaskEvent::Claim(ticket, instance));
    }

    /// A place meets the task whose turn it is.
    fn claim(&mut self, function: usize, ticket: Ticket, instance: InstanceId) {
        let name = self.cells[function].name.clone();
        let there = self.cells[function].requests.contains_key(&ticket);
        let ready = self.tenants_ready(&name);
        let taken = if there { self.tasks.book.take(&name, "LATEST", |_| true) } else { None };
        if let Some(offered) = self.tasks.offered.get_mut(&function) {
            *offered = offered.saturating_sub(1);
        }
        match taken.and_then(|number| Some((number, self.tasks.book.entry(number)?.clone()))) {
            Some((number, entry)) => {
                self.check_turn(function, ready, number);
                let (from, epoch) = (entry.state, entry.epoch);
                self.write(function, Write::Claim { number, from, epoch, ticket, instance });
            }
            // Nobody needs it.
            None => self.leave(function, ticket),
        }
        self.report(function);
    }

    /// The claim is on the disk.
    fn begin(&mut self, function: usize, number: TaskNumber, epoch: u32, ticket: Ticket, instance: InstanceId) {
        self.check_begin(number);
        self.settle_task(number);
        self.tasks.runs.insert(number, Run { function, epoch, ticket });
        if !self.cells[function].requests.contains_key(&ticket) {
            let detail = "the instance ended".to_owned();
            return self.plan_task(self.now, function, TaskEvent::Ends(number, epoch, RunOutcome::Crashed { detail }));
        }
        self.tasks.working.insert(number, instance);
        let work = self.tasks.disk.get(&number).map_or(0, |row| row.work);
        let ended = self.fates.run(function);
        self.plan_task(self.now + work, function, TaskEvent::Ends(number, epoch, ended));
        if self.tasks.book.entry(number).is_some_and(|entry| entry.state == TaskState::Stopping) {
            self.halt(number, epoch);
        }
    }

    /// A run was told to stop: its place, and then the exchange.
    fn halt(&mut self, number: TaskNumber, epoch: u32) {
        let Some(run) = self.tasks.runs.get(&number).copied().filter(|run| run.epoch == epoch) else { return };
        self.step(run.function, Event::Halt { ticket: run.ticket });
        self.plan_task(self.now + 3, run.function, TaskEvent::Ends(number, epoch, RunOutcome::Stopped));
    }

    fn run_ends(&mut self, number: TaskNumber, epoch: u32, ended: RunOutcome) {
        let Some(run) = self.tasks.runs.get(&number).copied().filter(|run| run.epoch == epoch) else { return };
        self.tasks.runs.remove(&number);
        self.tasks.working.remove(&number);
        self.leave(run.function, run.ticket);
        let dice = self.fates.dice(run.function);
        self.write(run.function, Write::Finish { number, epoch, ended, dice });
    }

    /// A place is gone: whatever run had it has ended with its instance.
    pub(crate) fn place_lost(&mut self, function: usize, ticket: Ticket) {
        let run = self.tasks.runs.iter().find(|(_, run)| run.function == function && run.ticket == ticket);
        let Some((number, epoch)) = run.map(|(number, run)| (*number, run.epoch)) else { return };
        let detail = "the instance ended".to_owned();
        self.run_ends(number, epoch, RunOutcome::Crashed { detail });
    }

    fn stop_task(&mut self, function: usize, number: TaskNumber) {
        let Some(row) = self.tasks.disk.get(&number).filter(|row| !row.now.state.is_terminal()) else { return };
        let (state, epoch) = (row.now.state, row.now.epoch);
        let book = &self.tasks.book;
        if let Some(entry) = book.entry(number).filter(|_| !book.is_out(number)) {
            let (from, epoch) = (entry.state, entry.epoch);
            return self.write(function, Write::End { number, from, epoch, to: TaskState::Stopped });
        }
        match state {
            TaskState::Running => self.write(function, Write::Stopping { number, epoch }),
            TaskState::Stopping => self.halt(number, epoch),
            // It is on its way from one state to the next.
            _ => self.plan_task(self.now + 2, function, TaskEvent::Stop(number)),
        }
    }

    pub(crate) fn plan_round(&mut self) {
        let Some(due) = self.tasks.book.next_due() else { return };
        let at = due.max(0).unsigned_abs().max(self.now + 2);
        if self.tasks.round.is_none_or(|round| at < round) {
            self.tasks.round = Some(at);
            self.plan_task(at, 0, TaskEvent::Round);
        }
    }

    fn round(&mut self) {
        self.tasks.round = None;
        let now = wall(self.now);
        let names = self.tasks.book.due(now);
        for number in self.tasks.book.expired(now, usize::MAX) {
            let (Some(entry), Some(row)) = (self.tasks.book.entry(number), self.tasks.disk.get(&number)) else {
                continue;
            };
            let (from, epoch, function) = (entry.state, entry.epoch, row.function);
            self.write(function, Write::End { number, from, epoch, to: TaskState::Expired });
        }
        let touched = |cell: &crate::cell::Cell| names.iter().any(|name| **name == *cell.name);
        let functions: Vec<usize> = (0..self.cells.len()).filter(|at| touched(&self.cells[*at])).collect();
        functions.into_iter().for_each(|function| self.report(function));
        self.plan_round();
    }

    /// Tasks of functions that are gone end; the others are reported again.
    fn look(&mut self) {
        let functions: BTreeSet<usize> = self.tasks.open().map(|(_, row)| row.function).collect();
        for function in &functions {
            let cell = &self.cells[*function];
            let waiting: Vec<TaskNumber> = self.tasks.book.of_function(&cell.name).collect();
            if cell.closed {
                for number in waiting.into_iter().filter(|number| !self.tasks.book.is_out(*number)).collect::<Vec<_>>()
                {
                    let Some(entry) = self.tasks.book.entry(number) else { continue };
                    let (from, epoch) = (entry.state, entry.epoch);
                    self.write(*function, Write::End { number, from, epoch, to: TaskState::Invalid });
                }
            }
            self.check_served(*function);
            self.report(*function);
        }
        self.check_tasks();
        self.tasks.looks = !functions.is_empty();
        if self.tasks.looks {
            self.plan_task(self.now + LOOK, 0, TaskEvent::Look);
        }
    }
}
