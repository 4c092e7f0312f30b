//! What must be true of tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kip_fleet::Class;
use kip_fleet::function::Role;
use kip_queue::{Counts, Wait};
use kip_spec::task::{TaskNumber, TaskState};

use crate::task::HEAVY;
use crate::world::World;

impl World {
    /// The tenants of a function whose tasks could run now, with these.
    pub(crate) fn tenants_ready(&self, name: &str) -> BTreeMap<Arc<str>, BTreeSet<TaskNumber>> {
        let book = &self.tasks.book;
        let mut tenants: BTreeMap<Arc<str>, BTreeSet<TaskNumber>> = BTreeMap::new();
        for number in book.of_function(name).filter(|number| book.wait(*number) == Some(Wait::Turn)) {
            // By the disk: what the book believes of a tenant is what is looked at.
            if let Some(row) = self.tasks.disk.get(&number) {
                tenants.entry(row.tenant().clone()).or_default().insert(number);
            }
        }
        tenants
    }

    /// Nobody waits for more turns of others than these may have in a row.
    pub(crate) fn check_turn(
        &mut self,
        function: usize,
        ready: BTreeMap<Arc<str>, BTreeSet<TaskNumber>>,
        number: TaskNumber,
    ) {
        let Some(taken) = self.tasks.disk.get(&number).map(|row| row.tenant().clone()) else { return };
        let others = u32::try_from(ready.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let passed = &mut self.tasks.passed_over;
        // Who had nothing ready in between has begun to wait anew.
        passed.retain(|(at, tenant), passed| {
            let waits = ready.get(tenant).is_some_and(|ready| !ready.is_disjoint(&passed.ready));
            *at != function || waits && *tenant != taken
        });
        let mut late = None;
        for (tenant, ready) in ready.into_iter().filter(|(tenant, _)| *tenant != taken) {
            let passed = passed.entry((function, tenant.clone())).or_default();
            passed.turns += 1;
            passed.others = passed.others.max(others);
            passed.ready = ready;
            // Each of the others may have its turns, once more for one that has just come in between.
            if passed.turns > 2 * passed.others.max(1) * HEAVY.1 {
                late = Some(tenant);
            }
        }
        if let Some(tenant) = late {
            self.fail(
                "tenants take turns",
                format!("{tenant} waits while others are served: {:?}", self.tasks.passed_over),
            );
        }
    }

    /// When a run begins.
    pub(crate) fn check_begin(&mut self, number: TaskNumber) {
        let Some(row) = self.tasks.disk.get(&number) else { return };
        let same = |other: &crate::task::Row| {
            other.function == row.function && other.order == row.order && other.tenant() == row.tenant()
        };
        let ordered = row.order.is_some();
        let before = self.tasks.open().find(|(other, open)| ordered && *other < number && same(open));
        let beside = self
            .tasks
            .working
            .keys()
            .find(|other| ordered && **other != number && self.tasks.disk.get(other).is_some_and(same));
        let (before, beside) = (before.map(|(other, _)| other), beside.copied());
        let state = row.now.state;
        if self.tasks.working.contains_key(&number) {
            self.fail("a task runs once at a time", format!("{number:?} begins while it runs"));
        } else if let Some(other) = before.or(beside) {
            self.fail("ordering keys", format!("{number:?} begins and {other:?}, which has its key, is not over"));
        } else if !matches!(state, TaskState::Running | TaskState::Stopping) {
            self.fail("what is stopped does not run", format!("{number:?} begins and is {state:?}"));
        }
    }

    /// No task waits beside a place that is free.
    pub(crate) fn check_served(&mut self, function: usize) {
        let cell = &self.cells[function];
        let offered = self.tasks.offered.get(&function).copied().unwrap_or(0);
        let ready = self.tasks.book.counts(&cell.name).ready;
        let Some(core) = cell.core().filter(|_| !cell.closed && offered == 0 && ready > 0) else { return };
        let waits_beside = core.revisions().any(|(version, revision)| {
            let hard = revision.policy.concurrency.hard;
            let free = core.instances().any(|instance| {
                let hot = instance.state.class() == Class::Hot && !instance.unready;
                // One that became hot just now is offered in this moment.
                instance.version == version && hot && instance.in_flight < hard && instance.since + 1_500 < self.now
            });
            let serves = revision.role == Role::Serving && version == cell.serving;
            serves && free && revision.queue.is_empty()
        });
        if waits_beside {
            let detail = format!("{ready} tasks of {} wait beside a free place", cell.name);
            self.fail("tasks are served", detail);
        }
    }

    /// What the book counts is what there is, and what memory says is what the disk says.
    pub(crate) fn check_tasks(&mut self) {
        let book = &self.tasks.book;
        let mut fault = None;
        for cell in &self.cells {
            let mut counts = Counts::default();
            for number in book.of_function(&cell.name) {
                let Some(entry) = book.entry(number) else { continue };
                match book.wait(number) {
                    Some(Wait::Turn) => counts.ready += 1,
                    Some(Wait::Time) => counts.later += 1,
                    Some(Wait::Order) => counts.held += 1,
                    None => counts.running += 1,
                }
                counts.retrying += u64::from(entry.state == TaskState::Retrying && book.wait(number).is_some());
            }
            let counted = Counts { oldest: None, ..book.counts(&cell.name) };
            if counted != counts {
                fault = Some(format!("{}: {counts:?} but {counted:?} are counted", cell.name));
            }
        }
        if let Some(fault) = fault {
            self.fail("tasks are counted", fault);
        }
    }

    /// Where tasks do not rest.
    pub(crate) fn tasks_unrest(&self) -> Option<String> {
        let (number, row) = self.tasks.open().next()?;
        let book = &self.tasks.book;
        let open = self.tasks.open().count();
        Some(format!("{open} tasks are not over, such as {number:?}: {row:?}; the book has {:?}", book.entry(number)))
    }
}
