//! All open tasks in memory, in the order in which they are to run. Pure: time comes in, nothing goes out but what is asked.
//!
//! Within a function tenants take turns (deficit round robin, so that a flood of one does not hold up another), within a
//! tenant the priority decides, with ageing, then who came first. Of a tenant's tasks with the same ordering key one is let in at a time,
//! in the order of their numbers, and the next only when it is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kip_spec::task::{TaskNumber, TaskProgress, TaskState};

/// What one step of priority is worth, in milliseconds of waiting.
const PRIORITY_STEP: i64 = 10_000;

/// What is remembered of an open task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The id that its caller chose.
    pub id: Option<Arc<str>>,
    /// Its function.
    pub function: Arc<str>,
    /// The function's id: a name that is made again is another function.
    pub function_id: u64,
    /// The place of its latest step in the order of commits.
    pub step: u64,
    /// Which version or alias of it.
    pub qualifier: Arc<str>,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Who goes first: lower numbers do.
    pub priority: u8,
    /// What kind it is.
    pub kind: u8,
    /// Tasks of a function and a tenant with the same key run one after another.
    pub order: Option<Arc<str>>,
    /// Bytes of its payload.
    pub size: u64,
    /// When it was accepted, milliseconds since 1970.
    pub created: i64,
    /// Not to be begun after, milliseconds since 1970.
    pub expires_at: i64,
    /// Where it stands.
    pub state: TaskState,
    /// Counts claims.
    pub epoch: u32,
    /// Not before, milliseconds since 1970.
    pub run_at: i64,
    /// When its latest run began, milliseconds since 1970.
    pub started: i64,
    /// Runs that ended with an error.
    pub errors: u32,
    /// Runs that ended with the instance or the server.
    pub crashes: u32,
    /// Times without room.
    pub refusals: u32,
}

impl Entry {
    /// What is stored of it when it takes its next step.
    pub fn progressed(&self) -> TaskProgress {
        TaskProgress {
            state: self.state,
            epoch: self.epoch,
            server: Arc::from(""),
            boot: 0,
            revision: 0,
            lease_until: 0,
            run_at: self.run_at,
            expires_at: self.expires_at,
            started: self.started,
            ended: 0,
            errors: self.errors,
            crashes: self.crashes,
            refusals: self.refusals,
            instance: None,
            status: 0,
            error_kind: None,
            error: None,
        }
    }

    /// Callers choose ordering keys, so a key belongs to a tenant.
    fn ordering_key(&self) -> Option<OrderingKey> {
        Some((self.tenant.clone(), self.order.clone()?))
    }

    fn rank(&self) -> i64 {
        self.run_at.saturating_add(i64::from(self.priority) * PRIORITY_STEP)
    }
}

/// A tenant and an ordering key of it.
type OrderingKey = (Arc<str>, Arc<str>);

/// What a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Its time has not come.
    Time,
    /// Its turn: a place for it, or those before it.
    Turn,
    /// Another one with its ordering key.
    Order,
}

/// Where a task is within this book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Its time has not come.
    Later,
    /// It waits for its turn.
    Ready,
    /// Another one with its ordering key goes first.
    Held,
    /// It was taken to be run.
    Out,
}

#[derive(Debug, Default)]
struct Tenant {
    ready: BTreeSet<(i64, TaskNumber)>,
    /// Tasks that it may still have in this turn.
    credit: u32,
}

#[derive(Debug)]
struct Key {
    owner: TaskNumber,
    held: BTreeSet<TaskNumber>,
}

/// The tasks of a function and a qualifier that are ready.
#[derive(Debug, Default)]
struct Lane {
    tenants: BTreeMap<Arc<str>, Tenant>,
    turns: VecDeque<Arc<str>>,
    /// By the time since which they are ready.
    since: BTreeSet<(i64, TaskNumber)>,
}

/// The open tasks of one function.
#[derive(Debug, Default)]
struct FunctionQueue {
    /// By qualifier. One without a task that is ready is not in it.
    lanes: BTreeMap<Arc<str>, Lane>,
    /// Open tasks by qualifier, wherever they are.
    open: BTreeMap<Arc<str>, u64>,
    keys: BTreeMap<OrderingKey, Key>,
    tally: Tally,
    /// The same by tenant, for those who see one only. Tenants without open tasks are not in it.
    tally_of: BTreeMap<Arc<str>, Tally>,
}

/// Open tasks by where they are. Those that are ready are counted in their sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    later: u64,
    held: u64,
    out: u64,
    retrying: u64,
}

impl FunctionQueue {
    fn ready(&self) -> u64 {
        self.lanes.values().map(|lane| lane.since.len() as u64).sum()
    }

    /// Counts a task of a tenant in another place.
    fn count(&mut self, tenant: &Arc<str>, change: impl Fn(&mut Tally)) {
        change(&mut self.tally);
        match self.tally_of.get_mut(tenant) {
            Some(tally) => {
                change(tally);
                if *tally == Tally::default() {
                    self.tally_of.remove(tenant);
                }
            }
            None => {
                let mut tally = Tally::default();
                change(&mut tally);
                self.tally_of.insert(tenant.clone(), tally);
            }
        }
    }
}

/// How many open tasks a function has, and where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// They wait for their turn.
    pub ready: u64,
    /// They wait for their time: delayed, or to be retried.
    pub later: u64,
    /// They wait for another one with their ordering key.
    pub held: u64,
    /// They run.
    pub running: u64,
    /// Of those that wait, they failed before.
    pub retrying: u64,
    /// Since when the oldest that is ready is, milliseconds since 1970.
    pub oldest: Option<i64>,
}

impl Counts {
    /// All that wait.
    pub fn queued(&self) -> u64 {
        self.ready + self.later + self.held
    }
}

/// The open tasks.
#[derive(Debug, Default)]
pub struct Book {
    entries: BTreeMap<TaskNumber, (Entry, Place)>,
    queues: BTreeMap<Arc<str>, FunctionQueue>,
    later: BTreeSet<(i64, TaskNumber)>,
    expiry: BTreeSet<(i64, TaskNumber)>,
    queued: u64,
    queued_bytes: u64,
    /// Payload bytes of the tasks that wait, by tenant.
    bytes_by_tenant: BTreeMap<Arc<str>, u64>,
    /// Tasks in a row that a tenant may have when its turn comes; one where nothing is said.
    weights: BTreeMap<String, u32>,
}

impl Book {
    /// An empty one in which these tenants have more than one task in a row.
    pub fn weighted(weights: BTreeMap<String, u32>) -> Self {
        Self { weights, ..Self::default() }
    }

    /// Takes a task in at its place.
    pub fn admit(&mut self, number: TaskNumber, entry: Entry, now: i64) {
        if self.entries.contains_key(&number) {
            return;
        }
        let queue = self.queues.entry(entry.function.clone()).or_default();
        *queue.open.entry(entry.qualifier.clone()).or_default() += 1;
        let running = matches!(entry.state, TaskState::Running | TaskState::Stopping);
        self.entries.insert(number, (entry, Place::Out));
        if running { self.note_out(number) } else { self.queue(number, now) }
    }

    /// A task by its number.
    pub fn entry(&self, number: TaskNumber) -> Option<&Entry> {
        self.entries.get(&number).map(|(entry, _)| entry)
    }

    /// Whether it was taken to be run.
    pub fn is_out(&self, number: TaskNumber) -> bool {
        self.entries.get(&number).is_some_and(|(_, place)| *place == Place::Out)
    }

    /// What it waits for; none if it does not.
    pub fn wait(&self, number: TaskNumber) -> Option<Wait> {
        match self.entries.get(&number)?.1 {
            Place::Later => Some(Wait::Time),
            Place::Ready => Some(Wait::Turn),
            Place::Held => Some(Wait::Order),
            Place::Out => None,
        }
    }

    /// All that wait, of all functions.
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// Payload bytes of all that wait, of all functions.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Payload bytes of a tenant's tasks that wait.
    pub fn queued_bytes_of(&self, tenant: &str) -> u64 {
        self.bytes_by_tenant.get(tenant).copied().unwrap_or_default()
    }

    /// The functions with open tasks.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.queues.keys()
    }

    /// How many open tasks a function has.
    pub fn counts(&self, function: &str) -> Counts {
        let Some(queue) = self.queues.get(function) else { return Counts::default() };
        Counts {
            ready: queue.ready(),
            later: queue.tally.later,
            held: queue.tally.held,
            running: queue.tally.out,
            retrying: queue.tally.retrying,
            oldest: queue.lanes.values().filter_map(|lane| lane.since.first()).map(|(since, _)| *since).min(),
        }
    }

    /// How many open tasks of a function belong to a tenant. The oldest is that whose turn comes first.
    pub fn counts_of(&self, function: &str, tenant: &str) -> Counts {
        let Some(queue) = self.queues.get(function) else { return Counts::default() };
        let Tally { later, held, out, retrying } = queue.tally_of.get(tenant).copied().unwrap_or_default();
        let own = || queue.lanes.values().filter_map(|lane| lane.tenants.get(tenant));
        let first = own().filter_map(|own| self.entry(own.ready.first()?.1));
        Counts {
            ready: own().map(|own| own.ready.len() as u64).sum(),
            later,
            held,
            running: out,
            retrying,
            oldest: first.map(|entry| entry.run_at).min(),
        }
    }

    /// The tasks that run.
    pub fn running(&self) -> impl Iterator<Item = (TaskNumber, &Entry)> {
        self.entries.iter().filter(|(_, (_, place))| *place == Place::Out).map(|(number, (entry, _))| (*number, entry))
    }

    /// The open tasks of a function.
    pub fn of_function<'a>(&'a self, function: &'a str) -> impl Iterator<Item = TaskNumber> + 'a {
        self.entries.iter().filter(move |(_, (entry, _))| &*entry.function == function).map(|(number, _)| *number)
    }

    /// How many of its function's tasks go before it, as far as that can be said now. None if it does not wait for its turn.
    pub fn ahead(&self, number: TaskNumber) -> Option<u64> {
        let (entry, place) = self.entries.get(&number)?;
        if *place != Place::Ready {
            return None;
        }
        let lane = self.queues.get(&entry.function)?.lanes.get(&entry.qualifier)?;
        let own = lane.tenants.get(&entry.tenant)?;
        let before = own.ready.range(..(entry.rank(), number)).count() as u64;
        // Others take turns with it.
        let others = lane.tenants.iter().filter(|(name, _)| **name != entry.tenant);
        Some(before + others.map(|(_, tenant)| (tenant.ready.len() as u64).min(before)).sum::<u64>())
    }

    /// The qualifiers of a function's tasks that are ready: how many of each, and since when the oldest is. The oldest comes first.
    pub fn lanes(&self, function: &str) -> Vec<(Arc<str>, u64, i64)> {
        let lanes = self.queues.get(function).into_iter().flat_map(|queue| &queue.lanes);
        let of = |(qualifier, lane): (&Arc<str>, &Lane)| {
            Some((qualifier.clone(), lane.since.len() as u64, lane.since.first()?.0))
        };
        let mut lanes: Vec<_> = lanes.filter_map(of).collect();
        lanes.sort_by_key(|(_, _, since)| *since);
        lanes
    }

    /// The qualifiers of a function's open tasks, and how many name each.
    pub fn qualifiers(&self, function: &str) -> BTreeMap<Arc<str>, u64> {
        self.queues.get(function).map(|queue| queue.open.clone()).unwrap_or_default()
    }

    /// The first tasks of a function and a qualifier that are ready, in the order in which they became so.
    pub fn first_ready(&self, function: &str, qualifier: &str) -> impl Iterator<Item = (i64, TaskNumber)> {
        let lane = self.queues.get(function).and_then(|queue| queue.lanes.get(qualifier));
        lane.into_iter().flat_map(|lane| lane.since.iter().copied())
    }

    /// Gives the next task of a function and a qualifier out to be run, of those that fit.
    pub fn take(&mut self, function: &str, qualifier: &str, fits: impl Fn(TaskNumber) -> bool) -> Option<TaskNumber> {
        let lane = self.queues.get_mut(function)?.lanes.get_mut(qualifier)?;
        let mut passed = 0;
        loop {
            if passed >= lane.turns.len() {
                return None;
            }
            let name = lane.turns.front()?.clone();
            let Some(tenant) = lane.tenants.get_mut(&name) else {
                lane.turns.pop_front();
                continue;
            };
            if tenant.ready.is_empty() {
                tenant.credit = 0;
                lane.turns.pop_front();
                lane.tenants.remove(&name);
                continue;
            }
            let Some(next) = tenant.ready.iter().find(|(_, number)| fits(*number)).copied() else {
                tenant.credit = 0;
                lane.turns.rotate_left(1);
                passed += 1;
                continue;
            };
            if tenant.credit == 0 {
                tenant.credit = self.weights.get(&*name).copied().unwrap_or(1).max(1);
            }
            tenant.ready.remove(&next);
            let (_, number) = next;
            tenant.credit -= 1;
            if tenant.credit == 0 {
                lane.turns.rotate_left(1);
            }
            self.forget_wait(number);
            self.note_out(number);
            return Some(number);
        }
    }

    /// Writes down what became of a task that is out, or that was stopped while it waited. One that is over leaves the book and
    /// lets the next with its ordering key in. A claim that was not stored comes back with its old state.
    pub fn settle(&mut self, number: TaskNumber, change: impl FnOnce(&mut Entry), now: i64) {
        let Some((entry, place)) = self.entries.get_mut(&number) else { return };
        let place = *place;
        let mut changed = entry.clone();
        change(&mut changed);
        let stays_out = matches!(changed.state, TaskState::Running | TaskState::Stopping);
        if place == Place::Out && stays_out {
            *entry = changed;
            return;
        }
        self.withdraw(number, place);
        let Some((entry, _)) = self.entries.get_mut(&number) else { return };
        *entry = changed;
        if entry.state.is_terminal() {
            self.close(number, now);
        } else if stays_out {
            self.note_out(number);
        } else {
            self.queue(number, now);
        }
    }

    /// Lets those in whose time has come. The functions concerned.
    pub fn due(&mut self, now: i64) -> BTreeSet<Arc<str>> {
        let mut touched = BTreeSet::new();
        while let Some((at, number)) = self.later.first().copied()
            && at <= now
        {
            self.withdraw(number, Place::Later);
            self.queue(number, now);
            touched.extend(self.entry(number).map(|entry| entry.function.clone()));
        }
        touched
    }

    /// Those that wait and are too old by now.
    pub fn expired(&self, now: i64, most: usize) -> Vec<TaskNumber> {
        self.expiry.iter().take_while(|(at, _)| *at < now).take(most).map(|(_, number)| *number).collect()
    }

    /// When something is due next, milliseconds since 1970.
    pub fn next_due(&self) -> Option<i64> {
        let later = self.later.first().map(|(at, _)| *at);
        let expiry = self.expiry.first().map(|(at, _)| at.saturating_add(1));
        later.into_iter().chain(expiry).min()
    }

    /// Puts a task that waits at its place.
    fn queue(&mut self, number: TaskNumber, now: i64) {
        let Some((entry, place)) = self.entries.get_mut(&number) else { return };
        let Some(queue) = self.queues.get_mut(&entry.function) else { return };
        self.queued += 1;
        self.queued_bytes += entry.size;
        *self.bytes_by_tenant.entry(entry.tenant.clone()).or_default() += entry.size;
        if entry.state == TaskState::Retrying {
            queue.count(&entry.tenant, |tally| tally.retrying += 1);
        }
        self.expiry.insert((entry.expires_at, number));
        if let Some(name) = entry.ordering_key() {
            let key = queue.keys.entry(name).or_insert(Key { owner: number, held: BTreeSet::new() });
            if key.owner != number {
                key.held.insert(number);
                queue.count(&entry.tenant, |tally| tally.held += 1);
                *place = Place::Held;
                return;
            }
        }
        if entry.run_at > now {
            *place = Place::Later;
            queue.count(&entry.tenant, |tally| tally.later += 1);
            self.later.insert((entry.run_at, number));
            return;
        }
        *place = Place::Ready;
        let lane = queue.lanes.entry(entry.qualifier.clone()).or_default();
        lane.since.insert((entry.run_at, number));
        let tenant = lane.tenants.entry(entry.tenant.clone()).or_insert_with(|| {
            lane.turns.push_back(entry.tenant.clone());
            Tenant::default()
        });
        tenant.ready.insert((entry.rank(), number));
    }

    /// Takes a task out of where it is.
    fn withdraw(&mut self, number: TaskNumber, place: Place) {
        let Some((entry, _)) = self.entries.get(&number) else { return };
        let Some(queue) = self.queues.get_mut(&entry.function) else { return };
        match place {
            Place::Out => {
                queue.count(&entry.tenant, |tally| tally.out -= 1);
                return;
            }
            Place::Later => {
                queue.count(&entry.tenant, |tally| tally.later -= 1);
                self.later.remove(&(entry.run_at, number));
            }
            Place::Held => {
                queue.count(&entry.tenant, |tally| tally.held -= 1);
                if let Some(key) = entry.ordering_key().and_then(|name| queue.keys.get_mut(&name)) {
                    key.held.remove(&number);
                }
            }
            Place::Ready => {
                let lane = queue.lanes.get_mut(&entry.qualifier);
                if let Some(tenant) = lane.and_then(|lane| lane.tenants.get_mut(&entry.tenant)) {
                    tenant.ready.remove(&(entry.rank(), number));
                }
                return self.forget_wait(number);
            }
        }
        self.forget_queued(number);
    }

    /// One that was ready is so no more, and is gone from its tenant already.
    fn forget_wait(&mut self, number: TaskNumber) {
        let Some((entry, _)) = self.entries.get(&number) else { return };
        if let Some(queue) = self.queues.get_mut(&entry.function)
            && let Some(lane) = queue.lanes.get_mut(&entry.qualifier)
        {
            lane.since.remove(&(entry.run_at, number));
            if lane.since.is_empty() {
                queue.lanes.remove(&entry.qualifier);
            }
        }
        self.forget_queued(number);
    }

    fn forget_queued(&mut self, number: TaskNumber) {
        let Some((entry, _)) = self.entries.get(&number) else { return };
        self.queued -= 1;
        self.queued_bytes -= entry.size;
        if let Some(bytes) = self.bytes_by_tenant.get_mut(&entry.tenant) {
            *bytes -= entry.size;
            if *bytes == 0 {
                self.bytes_by_tenant.remove(&entry.tenant);
            }
        }
        self.expiry.remove(&(entry.expires_at, number));
        if entry.state == TaskState::Retrying
            && let Some(queue) = self.queues.get_mut(&entry.function)
        {
            queue.count(&entry.tenant, |tally| tally.retrying -= 1);
        }
    }

    fn note_out(&mut self, number: TaskNumber) {
        let Some((entry, place)) = self.entries.get_mut(&number) else { return };
        *place = Place::Out;
        let Some(queue) = self.queues.get_mut(&entry.function) else { return };
        queue.count(&entry.tenant, |tally| tally.out += 1);
        let Some(name) = entry.ordering_key() else { return };
        let key = queue.keys.entry(name).or_insert(Key { owner: number, held: BTreeSet::new() });
        let before = std::mem::replace(&mut key.owner, number);
        if before != number {
            self.hold_back(before);
        }
    }

    /// Another one with its ordering key runs already, though it was taken in later: after a restart.
    fn hold_back(&mut self, number: TaskNumber) {
        let Some(place) = self.entries.get(&number).map(|(_, place)| *place).filter(|place| *place != Place::Out)
        else {
            return;
        };
        self.withdraw(number, place);
        self.queue(number, i64::MIN);
    }

    /// Takes a task that is over out of the book.
    fn close(&mut self, number: TaskNumber, now: i64) {
        let Some((entry, _)) = self.entries.remove(&number) else { return };
        let Some(queue) = self.queues.get_mut(&entry.function) else { return };
        if let Some(open) = queue.open.get_mut(&entry.qualifier) {
            *open -= 1;
            if *open == 0 {
                queue.open.remove(&entry.qualifier);
            }
        }
        let mut next = None;
        if let Some(name) = entry.ordering_key()
            && let Some(key) = queue.keys.get_mut(&name)
            && key.owner == number
        {
            match key.held.pop_first() {
                Some(held) => (key.owner, next) = (held, Some(held)),
                None => drop(queue.keys.remove(&name)),
            }
        }
        if let Some(next) = next {
            // Those with the same ordering key are of the same tenant.
            queue.count(&entry.tenant, |tally| tally.held -= 1);
            self.forget_queued(next);
            self.queue(next, now);
        }
        let empty = |queue: &FunctionQueue| queue.lanes.is_empty() && queue.tally == Tally::default();
        if self.queues.get(&entry.function).is_some_and(empty) {
            self.queues.remove(&entry.function);
        }
    }
}

#[cfg(test)]
mod tests;
