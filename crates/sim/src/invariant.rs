//! What must be true after each step, whatever goes wrong, and what must become true once nothing goes wrong any more.

use kip_fleet::function::Role;
use kip_fleet::instance::Instance;
use kip_fleet::{Class, FunctionCore, Operate, Rung, State, Usage};
use kip_spec::InstanceId;

use crate::body::Condition;
use crate::cell::Cell;
use crate::world::World;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When, virtual milliseconds.
    pub at: u64,
    /// Which rule is broken.
    pub invariant: &'static str,
    /// How.
    pub detail: String,
}

/// Timers are this late at most.
const TIMER_SLACK: u64 = 500;

impl World {
    /// Notes the first failure; what follows from it is of no interest.
    pub(crate) fn fail(&mut self, invariant: &'static str, detail: String) {
        let at = self.now;
        self.trace.tell(at, || format!("VIOLATED {invariant}: {detail}"));
        self.failure.get_or_insert(Failure { at, invariant, detail });
    }

    /// After each step of a function.
    pub(crate) fn check(&mut self, function: usize) {
        let cell = &self.cells[function];
        let verdict = match cell.core() {
            Some(core) => self.check_core(cell, core),
            None if cell.waiting > 0 || !cell.bodies.is_empty() => Err((
                "the core is dropped last",
                format!("{} has {} waiting, {:?}", cell.name, cell.waiting, cell.bodies),
            )),
            None => Ok(()),
        };
        if let Err((invariant, detail)) = verdict {
            self.fail(invariant, detail);
        }
    }

    fn check_core(&self, cell: &Cell, core: &FunctionCore) -> Result<(), (&'static str, String)> {
        if core.instances().count() != cell.bodies.len() {
            return Err(("bodies", format!("{} knows other instances than there are", cell.name)));
        }
        for instance in core.instances() {
            self.check_instance(cell, instance)?;
        }
        let mut queued = 0;
        for (version, revision) in core.revisions() {
            let policy = &revision.policy;
            let alive = core.instances().filter(|instance| instance.version == version);
            let (mut number, mut progress, mut free, mut replaced, mut grows) = (0, false, false, false, false);
            for instance in alive {
                number += 1;
                replaced |= instance.replace.is_some();
                grows |= instance.state == State::Requested && instance.since == self.now;
                let hot = instance.state.class() == Class::Hot;
                free |= hot && instance.in_flight < policy.concurrency.hard && !instance.unready;
                progress |= instance.operation.is_some() || instance.wants_room || hot;
            }
            // A bound that was lowered is reached by and by, but nothing is added above it.
            if grows && number > revision.maximum() + u32::from(replaced) {
                return Err(("max", format!("{} {version} has {number} instances, max is {}", cell.name, policy.max)));
            }
            let depth = revision.queue.depth();
            queued += depth;
            let Some(deadline) = revision.queue.next_deadline() else { continue };
            if free {
                return Err(("late binding", format!("{depth} requests of {} wait beside a free instance", cell.name)));
            }
            if depth > policy.queue_depth {
                return Err(("queue bound", format!("{depth} requests of {} wait", cell.name)));
            }
            if cell.alarm.is_none_or(|alarm| alarm > deadline.max(self.now)) {
                return Err(("timer", format!("{} waits until {deadline}, its timer is {:?}", cell.name, cell.alarm)));
            }
            if deadline.saturating_add(TIMER_SLACK) < self.now {
                return Err(("queue timeout", format!("{} should have refused at {deadline}", cell.name)));
            }
            let makes_way = core.revisions().any(|(_, other)| other.role == Role::Candidate && other.policy.recreate);
            // A rollout that set it aside is looked at again.
            let makes_way = makes_way || core.is_aside(version);
            if !progress && revision.on_demand() && !makes_way {
                return Err(("progress", format!("{depth} requests of {} wait and nothing happens", cell.name)));
            }
        }
        if queued != cell.waiting {
            return Err(("ends once", format!("{} queues {queued}, but {} wait", cell.name, cell.waiting)));
        }
        if core.revisions().filter(|(_, revision)| revision.role == Role::Serving).count() > 1 {
            return Err(("one serves", format!("{} has two serving versions", cell.name)));
        }
        let (versions, instances) = (core.revisions().count(), cell.bodies.len());
        if versions > instances + cell.requests.len() + 5 {
            return Err(("memory", format!("{} keeps {versions} versions for {instances} instances", cell.name)));
        }
        Ok(())
    }

    fn check_instance(&self, cell: &Cell, instance: &Instance) -> Result<(), (&'static str, String)> {
        let Some(body) = cell.bodies.get(&instance.id) else {
            return Err(("bodies", format!("{} is not there", instance.id)));
        };
        let rests = matches!(instance.state, State::Ready | State::Busy) || instance.state.rung().is_some();
        if instance.operation.is_none() != rests {
            return Err((
                "one operation",
                format!("{} is {} with {:?}", instance.id, instance.state, instance.operation),
            ));
        }
        let hot = instance.state.class() == Class::Hot;
        let working = matches!(instance.state, State::Busy | State::Draining);
        if instance.in_flight > 0 && !working
            || instance.state == State::Busy && instance.in_flight == 0 && instance.attached == 0
            || hot && instance.in_flight - instance.inherited.map_or(0, |(left, _)| left) != body.in_flight
        {
            let (believed, real) = (instance.in_flight, body.in_flight);
            return Err(("in flight", format!("{} {} counts {believed}, has {real}", instance.id, instance.state)));
        }
        let stall = cell.versions.get(&instance.version).and_then(|policy| policy.stall);
        let silent = self.now - body.last_byte.min(self.now);
        if hot && body.stuck > 0 && stall.is_some_and(|stall| silent > 2 * stall + 2 * TIMER_SLACK) {
            return Err(("watchdog", format!("{} gave no byte for {silent} ms", instance.id)));
        }
        let lifetime = instance.lifetime(self.now);
        if lifetime != self.now - body.born {
            return Err(("meter", format!("{} was metered for {lifetime} ms: {body:?}", instance.id)));
        }
        Ok(())
    }

    /// When a request goes to an instance.
    pub(crate) fn check_dispatch(&mut self, function: usize, id: InstanceId) {
        let cell = &self.cells[function];
        let believed = cell.core().and_then(|core| core.instance(id));
        let policy = believed.and_then(|instance| cell.versions.get(&instance.version));
        let (Some(body), Some(policy)) = (cell.bodies.get(&id), policy) else {
            self.fail("dispatch", format!("{id} has no version"));
            return;
        };
        if body.in_flight > policy.concurrency.hard {
            self.fail("hard limit", format!("{id} has {} requests", body.in_flight));
        } else if policy.initialize && !body.initialized {
            self.fail("dispatch", format!("{id} is not initialized"));
        }
    }

    /// When an operation is asked for.
    pub(crate) fn check_operation(&mut self, function: usize, id: InstanceId, what: Operate) {
        let cell = &self.cells[function];
        let Some(body) = cell.bodies.get(&id) else {
            self.fail("bodies", format!("{what:?} of {id}, which is not there"));
            return;
        };
        let (in_flight, busy) = (body.in_flight, body.in_flight > 0);
        let granted = self.rooms.may_run(id);
        let overlaps = body.asked.is_some_and(|asked| asked.at <= self.now && !matches!(what, Operate::Kill { .. }));
        if busy && matches!(what, Operate::Pause | Operate::Stop { .. }) && !body.end_known && body.stuck == 0 {
            self.fail("busy", format!("{what:?} of {id} with {in_flight} in flight"));
        } else if busy
            && matches!(what, Operate::Kill { .. })
            && !(body.end_known || body.killed || body.not_live)
            && body.stuck == 0
        {
            self.fail("busy", format!("{id} is killed with {in_flight} in flight and no fault"));
        } else if overlaps {
            self.fail("one operation", format!("{what:?} of {id} before the end of {:?}", body.asked));
        } else if matches!(what, Operate::Start { .. } | Operate::Resume { .. }) && !granted {
            self.fail("ledger", format!("{id} starts without room"));
        } else if matches!(what, Operate::Pause | Operate::Resume { .. }) && body.condition == Condition::Starting {
            self.fail("never paused before ready", format!("{what:?} of {id}"));
        }
    }

    /// When room is given back.
    pub(crate) fn check_release(&mut self, id: InstanceId) {
        let alive = self.cells[id.core as usize].bodies.get(&id);
        if alive.is_some_and(|body| body.condition != Condition::Nothing) {
            self.fail("ledger", format!("the room of {id} is given back while it lives"));
        }
    }

    /// After each step of the placer.
    pub(crate) fn check_ledger(&mut self) {
        let (reserved, _, _) = self.placer.ledger();
        let granted = self.rooms.memory();
        if reserved != granted {
            self.fail("ledger", format!("{reserved} reserved, {granted} granted"));
        }
        if let Some(excess) = self.rooms.excess(self.placer.inventory()).filter(|_| !self.rooms.overfull) {
            self.fail("ledger", excess);
        }
    }

    /// When an instance is said to rest: it must have given back what that rung does not keep.
    pub(crate) fn check_rests(&mut self, id: InstanceId, rung: Rung) {
        let cell = &self.cells[id.core as usize];
        let body = cell.bodies.get(&id);
        let condition = body.map(|body| body.condition);
        let need = body.and_then(|body| cell.versions.get(&body.version)).map(|policy| policy.need).unwrap_or_default();
        let holds_more = match condition {
            // One that has nothing of what lies between both rungs wakes without asking, and may have slept again when this arrives.
            Some(Condition::Frozen(real)) => real < rung && need.kept_on(real) != need.kept_on(rung),
            Some(Condition::Starting) => true,
            _ => false,
        };
        if holds_more {
            self.fail("ledger", format!("{id} is said to rest {rung:?} but is {condition:?}"));
        }
    }

    /// When an instance is gone: its times add up to its life.
    pub(crate) fn check_usage(&mut self, function: usize, usage: &Usage) {
        let metered: u64 = usage.times.iter().flatten().sum();
        let body = self.cells[function].bodies.get(&usage.instance);
        if metered != usage.until - usage.since || body.is_some_and(|body| self.now - body.born != metered) {
            self.fail("meter", format!("{usage:?} of {body:?}"));
        }
    }
}
