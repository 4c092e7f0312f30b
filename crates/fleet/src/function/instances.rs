//! The instances of a core, and what each step asks of all of them: how many there are of each kind, which are idle, free or due. These
//! totals follow each change, so that a step costs what it changes and not what there is.
//!
//! Whoever changes an instance takes it with [`Instances::get_mut`], which notes its id. [`Instances::refresh`] brings the totals up to
//! date before they are read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Revision;
use crate::instance::{Goal, Instance};
use crate::sparse::SparseMap;
use crate::state::STATES;
use crate::why::{EndReason, Reason};
use crate::{Class, Kind, State};

/// All instances of a core, with totals by version.
#[derive(Debug, Clone, Default)]
pub(super) struct Instances {
    map: SparseMap<InstanceId, Entry>,
    /// By version; few have any.
    totals: Vec<(VersionId, Totals)>,
    /// When something is due of an instance, boot time.
    deadlines: BTreeSet<(u64, InstanceId)>,
    /// Instances that may have changed since the totals were brought up to date.
    changed: Vec<InstanceId>,
}

#[derive(Debug, Clone)]
struct Entry {
    instance: Instance,
    /// What of it is part of the totals.
    part: Option<Part>,
}

/// What the instances of a version are together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Totals {
    states: [u32; STATES],
    /// All of them.
    pub(super) count: u32,
    /// Hot ones, whether they are ready or not.
    pub(super) hot: u32,
    /// Of those, the ones whose ready probe fails.
    pub(super) unready: u32,
    /// On the way to being hot, sleepers that wait for room included.
    pub(super) starting: u32,
    /// Of those, new ones that were told that there is no room.
    pub(super) stranded: u32,
    /// Asleep, or to sleep when their work is done.
    pub(super) asleep: u32,
    /// On the way to their end.
    pub(super) leaving: u32,
    /// Requests in flight on all of them.
    pub(super) in_flight: u32,
    /// Requests in flight on busy ones.
    pub(super) busy_in_flight: u32,
    /// Provisioned ones that stay.
    pub(super) provisioned: u32,
    /// New ones and sleepers that wait for room.
    pub(super) asking: u32,
    /// Of those, the sleepers.
    pub(super) wants_room: u32,
    /// Ones that were told what there is too little of.
    pub(super) lacking: u32,
    /// Ones that are to be replaced.
    pub(super) replaced: u32,
    /// Idle ones that may not be paused before some time.
    pub(super) postponed: u32,
    /// Since when each idle one that was not released is unused, longest first. Boot times.
    pub(super) idle: Vec<u64>,
    /// The same of those asleep.
    pub(super) sleepers: Vec<u64>,
    /// Ready to take a request, below the soft limit: the one that is used first comes last.
    free: Vec<Reverse<StackOrder>>,
}

/// What is kept anyway works first, and what costs extra last.
type StackOrder = (bool, u16, InstanceId);

/// How an instance counts when it is compared with what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CountClass {
    Hot,
    Starting,
    Asleep,
    Leaving,
    /// Its successor counts in its place.
    Nothing,
}

/// Totals that an instance is part of or not.
const FLAGS: usize = 8;

/// What an instance adds to the totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    version: VersionId,
    state: usize,
    standing: CountClass,
    in_flight: u32,
    /// In the order of [`Totals::flagged`].
    flags: [bool; FLAGS],
    idle: Option<u64>,
    sleeper: Option<u64>,
    free: Option<StackOrder>,
    deadline: Option<u64>,
}

/// The order in which a version's free instances take requests.
pub(super) fn stack_order(instance: &Instance) -> StackOrder {
    (instance.kind == Kind::OnDemand, instance.place.pool, instance.id)
}

fn standing(instance: &Instance) -> CountClass {
    match instance.state.class() {
        Class::Hot => CountClass::Hot,
        Class::Starting => CountClass::Starting,
        Class::Asleep if instance.wants_room => CountClass::Starting,
        // It will not be there when it is wanted.
        Class::Asleep if matches!(instance.goal, Some((Goal::Stop, _))) => CountClass::Leaving,
        Class::Asleep => CountClass::Asleep,
        // One that finishes its work and then sleeps counts as what it will be.
        Class::Leaving if matches!(instance.goal, Some((Goal::Sleep(_), _))) => CountClass::Asleep,
        // Its successor is there already, beside it.
        Class::Leaving if matches!(instance.goal, Some((_, Reason::Succeeded))) => CountClass::Nothing,
        Class::Leaving => CountClass::Leaving,
        Class::Gone => CountClass::Nothing,
    }
}

impl Part {
    /// One that its body has no touch with is there and counts as nothing.
    fn of_lost(instance: &Instance) -> Self {
        let deadlines = [instance.operation.and_then(|operation| operation.deadline), instance.watch];
        Self {
            version: instance.version,
            state: State::Gone(EndReason::Exited).index(),
            standing: CountClass::Nothing,
            in_flight: 0,
            flags: [false; FLAGS],
            idle: None,
            sleeper: None,
            free: None,
            deadline: deadlines.into_iter().chain([instance.inherited.map(|(_, until)| until)]).flatten().min(),
        }
    }

    fn of(instance: &Instance, soft: u32) -> Self {
        if instance.lost {
            return Self::of_lost(instance);
        }
        let class = instance.state.class();
        let (hot, ready) = (class == Class::Hot, instance.state == State::Ready);
        let requested = instance.state == State::Requested;
        let free = hot && !instance.unready && instance.in_flight < soft;
        let deadline = [
            instance.operation.and_then(|operation| operation.deadline),
            instance.inherited.map(|(_, until)| until),
            instance.watch,
        ];
        Self {
            version: instance.version,
            state: instance.state.index(),
            standing: standing(instance),
            in_flight: instance.in_flight,
            flags: [
                hot && instance.unready,
                requested && instance.waits_for.is_some(),
                instance.kind == Kind::Provisioned && !matches!(class, Class::Leaving | Class::Gone),
                requested || instance.wants_room,
                instance.wants_room,
                instance.waits_for.is_some(),
                instance.replace.is_some(),
                ready && instance.pause_not_before > 0,
            ],
            idle: (ready && !instance.released).then_some(instance.last_used),
            sleeper: (class == Class::Asleep && !instance.released).then_some(instance.last_used),
            free: free.then(|| stack_order(instance)),
            deadline: deadline.into_iter().flatten().min(),
        }
    }
}

/// A sorted list has another value in the place of one. New values are mostly the greatest.
fn change_sorted<T: Ord>(sorted: &mut Vec<T>, before: Option<T>, after: Option<T>) {
    if before == after {
        return;
    }
    if let Some(before) = before {
        if sorted.last() == Some(&before) {
            sorted.pop();
        } else if let Ok(at) = sorted.binary_search(&before) {
            sorted.remove(at);
        }
    }
    if let Some(after) = after {
        match sorted.last() {
            Some(last) if *last > after => sorted.insert(sorted.partition_point(|other| *other <= after), after),
            _ => sorted.push(after),
        }
    }
}

fn count(number: &mut u32, before: Option<&Part>, after: Option<&Part>, what: impl Fn(&Part) -> u32) {
    let (less, more) = (before.map_or(0, &what), after.map_or(0, &what));
    if less != more {
        *number = *number + more - less;
    }
}

impl Totals {
    const NOTHING: &'static Self = &Self {
        states: [0; STATES],
        count: 0,
        hot: 0,
        unready: 0,
        starting: 0,
        stranded: 0,
        asleep: 0,
        leaving: 0,
        in_flight: 0,
        busy_in_flight: 0,
        provisioned: 0,
        asking: 0,
        wants_room: 0,
        lacking: 0,
        replaced: 0,
        postponed: 0,
        idle: Vec::new(),
        sleepers: Vec::new(),
        free: Vec::new(),
    };

    /// So many are in this state.
    pub(super) fn in_state(&self, state: State) -> u32 {
        self.states[state.index()]
    }

    /// The instance below its soft limit that takes the next request.
    pub(super) fn first_free(&self) -> Option<InstanceId> {
        self.free.last().map(|Reverse((.., id))| *id)
    }

    fn flagged(&mut self) -> [&mut u32; FLAGS] {
        [
            &mut self.unready,
            &mut self.stranded,
            &mut self.provisioned,
            &mut self.asking,
            &mut self.wants_room,
            &mut self.lacking,
            &mut self.replaced,
            &mut self.postponed,
        ]
    }

    fn standing(&mut self, standing: CountClass) -> Option<&mut u32> {
        match standing {
            CountClass::Hot => Some(&mut self.hot),
            CountClass::Starting => Some(&mut self.starting),
            CountClass::Asleep => Some(&mut self.asleep),
            CountClass::Leaving => Some(&mut self.leaving),
            CountClass::Nothing => None,
        }
    }

    /// An instance that was one thing is another now; nothing stands for one that is not there.
    fn change(&mut self, before: Option<&Part>, after: Option<&Part>) {
        fn differ<T: PartialEq>(before: Option<T>, after: Option<T>) -> Option<(Option<T>, Option<T>)> {
            (before != after).then_some((before, after))
        }
        count(&mut self.count, before, after, |_| 1);
        count(&mut self.in_flight, before, after, |part| part.in_flight);
        let busy = |part: &Part| if part.state == State::Busy.index() { part.in_flight } else { 0 };
        count(&mut self.busy_in_flight, before, after, busy);
        if let Some((left, entered)) = differ(before.map(|part| part.state), after.map(|part| part.state)) {
            left.into_iter().for_each(|state| self.states[state] -= 1);
            entered.into_iter().for_each(|state| self.states[state] += 1);
        }
        if let Some((left, entered)) = differ(before.map(|part| part.standing), after.map(|part| part.standing)) {
            left.and_then(|standing| self.standing(standing)).into_iter().for_each(|number| *number -= 1);
            entered.and_then(|standing| self.standing(standing)).into_iter().for_each(|number| *number += 1);
        }
        if before.map(|part| part.flags) != after.map(|part| part.flags) {
            for (flag, number) in self.flagged().into_iter().enumerate() {
                count(number, before, after, |part| u32::from(part.flags[flag]));
            }
        }
        let of = |part: Option<&Part>, what: fn(&Part) -> Option<u64>| part.and_then(what);
        change_sorted(&mut self.idle, of(before, |part| part.idle), of(after, |part| part.idle));
        change_sorted(&mut self.sleepers, of(before, |part| part.sleeper), of(after, |part| part.sleeper));
        let free = |part: Option<&Part>| part.and_then(|part| part.free).map(Reverse);
        change_sorted(&mut self.free, free(before), free(after));
    }

    /// Whether the lists of idle ones are not what scalers are to see: one is not ready, or may not be paused before some time.
    pub(super) fn is_uneven(&self) -> bool {
        self.unready > 0 || self.postponed > 0
    }

    /// Of a single instance.
    pub(super) fn of(instance: &Instance) -> Self {
        let mut totals = Self::default();
        totals.change(None, Some(&Part::of(instance, 0)));
        totals
    }
}

impl Instances {
    pub(super) fn get(&self, id: &InstanceId) -> Option<&Instance> {
        self.map.get(id).map(|entry| &entry.instance)
    }

    pub(super) fn get_mut(&mut self, id: &InstanceId) -> Option<&mut Instance> {
        let entry = self.map.get_mut(id)?;
        if self.changed.last() != Some(id) {
            self.changed.push(*id);
        }
        Some(&mut entry.instance)
    }

    pub(super) fn contains_key(&self, id: &InstanceId) -> bool {
        self.map.contains_key(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(super) fn insert(&mut self, id: InstanceId, instance: Instance) {
        self.remove(&id);
        self.map.insert(id, Entry { instance, part: None });
        self.changed.push(id);
    }

    pub(super) fn remove(&mut self, id: &InstanceId) {
        if let Some(part) = self.map.get(id).and_then(|entry| entry.part) {
            change(&mut self.totals, &mut self.deadlines, *id, (part.version, Some(&part), None));
            self.totals.retain(|(_, totals)| totals.count > 0);
        }
        self.map.remove(id);
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &InstanceId> {
        self.map.keys()
    }

    pub(super) fn values(&self) -> impl DoubleEndedIterator<Item = &Instance> {
        self.map.values().map(|entry| &entry.instance)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.changed.clear();
        self.changed.extend(self.map.keys().copied());
        self.map.values_mut().map(|entry| &mut entry.instance)
    }

    /// Brings the totals up to date.
    pub(super) fn refresh(&mut self, revisions: &SparseMap<VersionId, Revision>) {
        while let Some(id) = self.changed.pop() {
            let Some(entry) = self.map.get_mut(&id) else { continue };
            let revision = revisions.get(&entry.instance.version);
            let soft = revision.map_or(0, |revision| revision.policy.concurrency.soft);
            let part = Part::of(&entry.instance, soft);
            let before = entry.part.replace(part);
            if before == Some(part) {
                continue;
            }
            change(&mut self.totals, &mut self.deadlines, id, (part.version, before.as_ref(), Some(&part)));
        }
        debug_assert!(self.is_consistent(revisions), "the totals are not those of the instances");
    }

    /// The totals of a version, as of the last [`Instances::refresh`].
    pub(super) fn totals(&self, version: VersionId) -> &Totals {
        debug_assert!(self.changed.is_empty(), "totals are read that are out of date");
        let found = self.totals.iter().find(|(other, _)| *other == version);
        found.map_or(Totals::NOTHING, |(_, totals)| totals)
    }

    /// The totals of all versions that have instances or had some.
    pub(super) fn all_totals(&self) -> impl Iterator<Item = &Totals> {
        debug_assert!(self.changed.is_empty(), "totals are read that are out of date");
        self.totals.iter().map(|(_, totals)| totals)
    }

    /// When the first operation is late, or the first instance is to be looked at, boot time.
    pub(super) fn first_deadline(&self) -> Option<u64> {
        debug_assert!(self.changed.is_empty(), "deadlines are read that are out of date");
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Whether totals that were made anew would be the same.
    fn is_consistent(&self, revisions: &SparseMap<VersionId, Revision>) -> bool {
        let (mut totals, mut deadlines) = (Vec::new(), BTreeSet::new());
        for instance in self.values() {
            let revision = revisions.get(&instance.version);
            let part = Part::of(instance, revision.map_or(0, |revision| revision.policy.concurrency.soft));
            change(&mut totals, &mut deadlines, instance.id, (part.version, None, Some(&part)));
        }
        let of = |all: &[(VersionId, Totals)], version| {
            all.iter().find(|(other, _)| *other == version).map(|(_, totals)| totals.clone()).unwrap_or_default()
        };
        let mut versions = totals.iter().chain(&self.totals).map(|(version, _)| *version);
        deadlines == self.deadlines && versions.all(|version| of(&totals, version) == of(&self.totals, version))
    }
}

fn change(
    totals: &mut Vec<(VersionId, Totals)>,
    deadlines: &mut BTreeSet<(u64, InstanceId)>,
    id: InstanceId,
    (version, before, after): (VersionId, Option<&Part>, Option<&Part>),
) {
    let deadline = |part: Option<&Part>| part.and_then(|part| part.deadline);
    let (left, entered) = (deadline(before), deadline(after));
    if left != entered {
        left.into_iter().for_each(|deadline| {
            let _ = deadlines.remove(&(deadline, id));
        });
        entered.into_iter().for_each(|deadline| {
            let _ = deadlines.insert((deadline, id));
        });
    }
    let at = totals.iter().position(|(other, _)| *other == version).unwrap_or_else(|| {
        totals.push((version, Totals::default()));
        totals.len() - 1
    });
    totals[at].1.change(before, after);
}

/// Only the instances are written down.
impl Serialize for Instances {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.values().map(|instance| (instance.id, instance)))
    }
}

impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut instances = Self::default();
        for (id, instance) in BTreeMap::<InstanceId, Instance>::deserialize(deserializer)? {
            instances.insert(id, instance);
        }
        Ok(instances)
    }
}
