//! Who holds what, with the sums and lists that planning asks for again and again: kept with each change, never counted anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kip_spec::InstanceId;
use serde::{Deserialize, Serialize};

use super::Holding;
use super::ledger::PoolUsage;
use crate::CoreNumber;

/// The holdings by instance.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<InstanceId, Holding>", into = "BTreeMap<InstanceId, Holding>")]
pub(super) struct Holdings {
    map: BTreeMap<InstanceId, Holding>,
    used: PoolUsage,
    functions: BTreeMap<CoreNumber, Share>,
    /// Those that could be asked for their room.
    offered: BTreeSet<InstanceId>,
    /// Those that were asked and have not answered.
    asked: BTreeSet<InstanceId>,
    /// Functions of which something changed since this was last taken.
    touched: BTreeSet<CoreNumber>,
}

/// What one function holds.
#[derive(Debug, Clone, Default)]
struct Share {
    instances: BTreeSet<InstanceId>,
    awake: u64,
    /// Of its instances, so many hold anything that is counted.
    filled: u32,
    /// Of its instances, so many are offered or asked for.
    movable: u32,
}

impl Holdings {
    pub(super) fn get(&self, instance: InstanceId) -> Option<&Holding> {
        self.map.get(&instance)
    }

    pub(super) fn contains(&self, instance: InstanceId) -> bool {
        self.map.contains_key(&instance)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Holding)> {
        self.map.iter()
    }

    /// What all of them take.
    pub(super) fn used(&self) -> &PoolUsage {
        &self.used
    }

    /// Instances that could be asked for their room.
    pub(super) fn offered(&self) -> impl Iterator<Item = (InstanceId, &Holding)> {
        self.offered.iter().filter_map(|instance| Some((*instance, self.map.get(instance)?)))
    }

    /// Instances that were asked for their room and have not answered.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Holding> {
        self.asked.iter().filter_map(|instance| self.map.get(instance))
    }

    /// What a function holds.
    pub(super) fn of(&self, function: CoreNumber) -> impl Iterator<Item = &Holding> {
        let instances = self.functions.get(&function).map(|share| &share.instances);
        instances.into_iter().flatten().filter_map(|instance| self.map.get(instance))
    }

    /// How many of a function's instances are awake, or on the way.
    pub(super) fn awake(&self, function: CoreNumber) -> u64 {
        self.functions.get(&function).map_or(0, |share| share.awake)
    }

    /// Whether something of a function could be asked for, or was.
    pub(super) fn is_movable(&self, function: CoreNumber) -> bool {
        self.functions.get(&function).is_some_and(|share| share.movable > 0)
    }

    /// Whether a function holds anything; `counted`: instances that hold nothing else are in the way as well.
    pub(super) fn holds(&self, function: CoreNumber, counted: bool) -> bool {
        self.functions.get(&function).is_some_and(|share| counted || share.filled > 0)
    }

    /// All functions that hold anything.
    pub(super) fn functions(&self) -> impl Iterator<Item = CoreNumber> {
        self.functions.keys().copied()
    }

    /// Functions of which something changed since the last call.
    pub(super) fn take_touched(&mut self) -> BTreeSet<CoreNumber> {
        std::mem::take(&mut self.touched)
    }

    pub(super) fn insert(&mut self, instance: InstanceId, holding: Holding) {
        self.remove(instance);
        self.map.insert(instance, holding);
        self.note(instance, &holding, true);
    }

    pub(super) fn remove(&mut self, instance: InstanceId) {
        if let Some(before) = self.map.remove(&instance) {
            self.note(instance, &before, false);
        }
    }

    /// Changes one, if it is there. True if it is another one afterwards.
    pub(super) fn change(&mut self, instance: InstanceId, change: impl FnOnce(&mut Holding)) -> bool {
        let Some(holding) = self.map.get_mut(&instance) else { return false };
        let before = *holding;
        change(holding);
        let after = *holding;
        if before == after {
            return false;
        }
        self.note(instance, &before, false);
        self.note(instance, &after, true);
        true
    }

    /// Nobody waits any more: what was offered is not wanted.
    pub(super) fn forget_offers(&mut self) {
        let all: Vec<InstanceId> = self.offered.iter().chain(&self.asked).copied().collect();
        for instance in all {
            self.change(instance, |holding| holding.offer = None);
        }
    }

    /// Whether sums and lists are what counting anew gives.
    pub(super) fn are_sound(&self) -> bool {
        let anew = Self::from(self.map.clone());
        let lists = |all: &Self| format!("{:?} {:?} {:?}", all.functions, all.offered, all.asked);
        self.used.memory() == anew.used.memory() && lists(self) == lists(&anew)
    }

    /// Adds one to the sums and lists, or takes it out of them.
    fn note(&mut self, instance: InstanceId, holding: &Holding, there: bool) {
        let room = holding.room();
        if there {
            self.used.add_holding(holding)
        } else {
            self.used.remove_holding(holding)
        }
        let (offered, asked) = (holding.offer.is_some() && holding.asked.is_none(), holding.asked.is_some());
        let change = |set: &mut BTreeSet<InstanceId>| {
            let _ = if there { set.insert(instance) } else { set.remove(&instance) };
        };
        if offered {
            change(&mut self.offered);
        }
        if asked {
            change(&mut self.asked);
        }
        let share = self.functions.entry(holding.function).or_default();
        change(&mut share.instances);
        let (awake, filled, movable) =
            (u64::from(holding.rung.is_none()), u32::from(!room.is_nothing()), u32::from(offered || asked));
        if there {
            (share.awake, share.filled, share.movable) =
                (share.awake + awake, share.filled + filled, share.movable + movable);
        } else {
            (share.awake, share.filled, share.movable) =
                (share.awake - awake, share.filled - filled, share.movable - movable);
        }
        if share.instances.is_empty() {
            self.functions.remove(&holding.function);
        }
        self.touched.insert(holding.function);
    }
}

impl fmt::Debug for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}

impl From<BTreeMap<InstanceId, Holding>> for Holdings {
    fn from(map: BTreeMap<InstanceId, Holding>) -> Self {
        let mut all = Self::default();
        map.into_iter().for_each(|(instance, holding)| all.insert(instance, holding));
        all
    }
}

impl From<Holdings> for BTreeMap<InstanceId, Holding> {
    fn from(holdings: Holdings) -> Self {
        holdings.map
    }
}
