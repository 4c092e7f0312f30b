//! The ledger of everything that instances reserve. It grants room before a start or a wake, and asks idle instances'
//! room back when somebody waits.
//!
//! Room is granted before it is used and given back when it is no longer, so the sum of what is granted never exceeds what
//! there is. Functions are not asked what they could spare until somebody waits: then they are *pressed*, and offer their
//! idle instances for as long as that lasts. So a request to a hot instance never concerns the placer. It chooses whom to evict when
//! all of them have offered.
//!
//! * [`message`]: what functions and the placer tell each other.
//! * [`ledger`]: what is used where, and where something fits.
//! * [`victims`]: whose room is asked back.
//! * [`thrash`]: how much of its time a place spends on changing hands.
//! * [`yields`]: devices that are not to be used for a time.

mod holdings;
mod ledger;
mod losses;
mod message;
#[cfg(test)]
mod tests;
mod thrash;
mod victims;
mod yields;

use std::collections::{BTreeMap, BTreeSet};

use kip_spec::function::FunctionPriority;
use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::room::{DeviceKind, Gpu, Inventory, Place, RoomNeed, Shortage};
use crate::router::Message;
use crate::state::Rung;
use crate::{CoreNumber, Now, OperationNumber};

use holdings::Holdings;
use ledger::PoolUsage;
use losses::{Loss, Losses};
use thrash::Thrash;

pub use ledger::DeviceUse;
pub use message::{FromPlacer, ToPlacer, Urgency};
pub use victims::Offer;

/// By how much a step of urgency counts as having come later, in milliseconds.
const URGENCY_STEP: u64 = 5_000;
/// By how much each instance that a function holds already counts as its having come later: fairness between functions.
const FAIR_STEP: u64 = 1_000;
/// By how much one of high priority that requests or a new version need counts as having come earlier, and one of low priority later.
const PRIORITY_STEP: u64 = 30_000;
/// One that has waited this long is not overtaken any more by those who need what it lacks.
const OVERTAKEN_AT_MOST: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Holding {
    function: CoreNumber,
    version: VersionId,
    need: RoomNeed,
    place: Place,
    /// Asleep there; `None` is awake, or on the way.
    rung: Option<Rung>,
    /// Bytes of host memory and of its device that it was seen to use.
    observed: u64,
    observed_gpu: u64,
    /// Bytes of both that it keeps on its rung, though it gave them back.
    residue: u64,
    residue_gpu: u64,
    offer: Option<Offer>,
    /// Asked to give this up and not yet answered.
    asked: Option<Shortage>,
    /// It was granted at the cost of another; since when that change of hands goes on, boot time.
    switching: Option<u64>,
}

impl Holding {
    /// What it takes at present: declared or observed, whichever is larger.
    fn room(&self) -> RoomNeed {
        let kept = self.rung.map_or(self.need, |rung| self.need.kept_on(rung));
        let memory = if self.rung == Some(Rung::Spilled) { self.residue } else { kept.memory.max(self.observed) };
        let gpu = match (kept.gpu, self.need.gpu) {
            // What its program kept of its part when it gave the rest back: the context of the driver, for one.
            (Gpu::None, Gpu::Slice(_) | Gpu::Cards(1)) if self.rung.is_some() && self.residue_gpu > 0 => {
                Gpu::Slice(self.residue_gpu)
            }
            (kept, _) => self.charged(kept),
        };
        RoomNeed { memory, gpu, ..kept }
    }

    /// Of a part of a device it is charged what it uses; whole devices are its own anyway.
    fn charged(&self, gpu: Gpu) -> Gpu {
        match gpu {
            Gpu::Slice(bytes) => Gpu::Slice(bytes.max(self.observed_gpu)),
            other => other,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Waiter {
    function: CoreNumber,
    version: VersionId,
    instance: InstanceId,
    need: RoomNeed,
    urgency: Urgency,
    number: OperationNumber,
    since: u64,
    /// Where it will be, once those who were asked have left.
    chosen: Option<Place>,
    /// Since when others leave for it, boot time.
    switching: Option<u64>,
    told: Option<Shortage>,
}

impl Waiter {
    /// Requests or a new version need it: the turns of others do not hold it back.
    fn is_forceful(&self) -> bool {
        self.urgency <= Urgency::Candidate
    }
}

/// The ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Placer {
    inventory: Inventory,
    holdings: Holdings,
    waiting: Vec<Waiter>,
    pressed: BTreeMap<CoreNumber, u8>,
    /// So many times functions were pressed whose offers are still to come.
    #[serde(default)]
    weighing: u32,
    /// How those at each place are pressed, while somebody waits.
    stretch: Option<Vec<u8>>,
    thrash: Vec<(Place, Thrash)>,
    /// Who gave room up for whom, until the other one serves.
    losses: Losses,
    /// Devices that are not to be used, by pool, host and number: until when, boot time.
    #[serde(default)]
    yielded: BTreeMap<(u16, u32, usize), u64>,
    /// Pools that do not answer: nothing is granted there.
    #[serde(default)]
    lost: BTreeSet<u16>,
}

impl Placer {
    /// A ledger of what there is.
    pub fn new(inventory: Inventory) -> Self {
        Self {
            inventory,
            holdings: Holdings::default(),
            waiting: Vec::new(),
            pressed: BTreeMap::new(),
            weighing: 0,
            stretch: None,
            thrash: Vec::new(),
            losses: Losses::default(),
            yielded: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    /// Bytes of host memory granted, bytes there are, and how many instances wait for room.
    pub fn ledger(&self) -> (u64, u64, usize) {
        let hosts = self.inventory.pools.iter().flat_map(|pool| &pool.hosts);
        let memory = hosts.fold(0u64, |sum, host| sum.saturating_add(host.memory));
        (self.holdings.used().memory(), memory, self.waiting.len())
    }

    /// Pools that do not answer, by their numbers in the inventory.
    pub fn lost(&self) -> &BTreeSet<u16> {
        &self.lost
    }

    /// What is granted in a pool: instances, bytes of memory, thousandths of CPU.
    pub fn granted_in(&self, pool: u16) -> (u32, u64, u64) {
        self.holdings.used().in_pool(pool)
    }

    /// Instances of all functions that were granted room.
    pub fn granted(&self) -> u32 {
        self.holdings.used().instances
    }

    /// The instances that wait for room.
    pub fn waiting(&self) -> impl Iterator<Item = InstanceId> {
        self.waiting.iter().map(|waiter| waiter.instance)
    }

    /// What there is.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Every device with what is granted of it, by pool, host and device.
    pub fn devices(&self) -> Vec<DeviceUse> {
        self.holdings.used().devices(&self.inventory)
    }

    /// What holds a part of devices of a place, and how much of each; nothing of those that gave it back.
    pub fn on_device(&self, place: Place) -> impl Iterator<Item = (InstanceId, Gpu)> {
        let here = move |holding: &Holding| {
            ledger::same_host(holding.place, place) && holding.place.devices & place.devices != 0
        };
        self.holdings.iter().filter(move |(_, holding)| here(holding)).map(|(id, holding)| (*id, holding.room().gpu))
    }

    /// The share of the last ten minutes, in a thousand, that the worst place spent on changing hands.
    pub fn thrash(&self, now: Now) -> u32 {
        self.thrash.iter().map(|(_, thrash)| thrash.per_mille(now.boot)).max().unwrap_or(0)
    }

    /// The part of [`Placer::thrash`] that went into changes in vain: the loser wanted its room back before the winner served.
    pub fn thrash_in_vain(&self, now: Now) -> u32 {
        self.thrash.iter().map(|(_, thrash)| thrash.in_vain(now.boot)).max().unwrap_or(0)
    }

    /// Whether so much could be granted if nothing else were there.
    pub fn could_ever(&self, need: RoomNeed) -> bool {
        self.fits_empty(need)
    }

    /// Whether so much could be granted to a new instance now.
    pub fn has_room(&self, need: RoomNeed) -> bool {
        let nobody = InstanceId { boot: 0, core: 0, sequence: 0 };
        let (chosen, switching, told) = (None, None, None);
        let waiter = Waiter {
            function: CoreNumber(0),
            version: VersionId(0),
            instance: nobody,
            need,
            urgency: Urgency::Candidate,
            number: OperationNumber(0),
            since: 0,
            chosen,
            switching,
            told,
        };
        self.place(&waiter, self.holdings.used(), &[]).is_ok()
    }

    /// The functions with room that an instance waits for: at the place that it is to have, else on any device or host that it
    /// could use.
    pub fn in_the_way(&self, instance: InstanceId) -> Vec<CoreNumber> {
        let Some(waiter) = self.waiting.iter().find(|waiter| waiter.instance == instance) else { return Vec::new() };
        let needs_device = waiter.need.gpu != Gpu::None;
        let choices: Vec<Place> = match (waiter.chosen, needs_device) {
            (Some(place), _) => vec![place],
            (None, false) => self.hosts().collect(),
            (None, true) => {
                let on = |host| self.device_choices(host, &waiter.need).into_iter().map(move |bit| (host, bit));
                self.hosts().flat_map(on).map(|(host, devices)| Place { devices, ..host }).collect()
            }
        };
        let blocks = |holding: &Holding| {
            choices.iter().any(|place| {
                ledger::same_host(holding.place, *place)
                    && (!needs_device || holding.room().gpu != Gpu::None && holding.place.devices & place.devices != 0)
            })
        };
        let all = self.holdings.iter().filter(|(id, holding)| **id != instance && blocks(holding));
        let mut functions: Vec<CoreNumber> = all.map(|(_, holding)| holding.function).collect();
        functions.sort_unstable();
        functions.dedup();
        functions
    }

    /// Takes one message and appends the answers.
    pub fn step(&mut self, now: Now, message: ToPlacer, answers: &mut Vec<Message>) {
        let now = now.boot;
        let mut restore = Vec::new();
        match message {
            ToPlacer::Ask { function, instance, version, need, urgency, number } => {
                if urgency == Urgency::Demand {
                    self.losses.wanted_back(function);
                }
                if let Some(waiter) = self.waiting.iter_mut().find(|waiter| waiter.instance == instance) {
                    // Asked for again, because it has become more or less urgent.
                    (waiter.urgency, waiter.number) = (urgency, number);
                } else if self.fits_somewhere(instance, need) {
                    if !self.holdings.holds(function, true) {
                        // Its core may have been made anew since it was pressed.
                        self.pressed.remove(&function);
                    }
                    let (chosen, switching, told) = (None, None, None);
                    let waiter = Waiter {
                        function,
                        version,
                        instance,
                        need,
                        urgency,
                        number,
                        since: now,
                        chosen,
                        switching,
                        told,
                    };
                    self.waiting.push(waiter);
                } else {
                    answers.push(Message::ToFunction { function, message: FromPlacer::Refuse { instance } });
                }
            }
            ToPlacer::Hold { function, instance, version, need, place, rung } => {
                self.holdings.insert(instance, Holding::new(function, version, need, place, rung));
            }
            ToPlacer::Release { instance } => {
                self.forget_waiter(instance);
                self.holdings.remove(instance);
                restore = self.losses.never_served(instance);
            }
            ToPlacer::Rests { instance, rung } => self.with(instance, |holding| {
                (holding.rung, holding.switching) = (Some(rung), None);
                // On its way deeper it will give more; what it keeps of what this rung gives back, it does not.
                let room = holding.need.kept_on(rung);
                holding.asked = holding
                    .asked
                    .filter(|lack| lack.quota || lack.gpu && room.gpu != Gpu::None || lack.memory && room.memory > 0);
            }),
            ToPlacer::Cancel { instance } => self.forget_waiter(instance),
            ToPlacer::Yield { place, until } => self.yield_devices(place, until, answers),
            ToPlacer::Regain { place } => self.regain(place),
            ToPlacer::Lose { pool } => {
                self.lost.insert(pool);
                // Others leave room there in vain.
                let elsewhere = |place: &Place| place.pool != pool;
                self.waiting.iter_mut().for_each(|waiter| waiter.chosen = waiter.chosen.filter(elsewhere));
            }
            ToPlacer::Find { pool } => drop(self.lost.remove(&pool)),
            ToPlacer::Weigh { again: false } => {
                return answers.push(Message::ToPlacer(ToPlacer::Weigh { again: true }));
            }
            ToPlacer::Weigh { again: true } => self.weighing = self.weighing.saturating_sub(1),
            ToPlacer::Limit(quota) => self.inventory.quota = quota,
            ToPlacer::Resize { instance, gpu } => self.with(instance, |holding| holding.need.gpu = gpu),
            ToPlacer::Serving { instance } => self.serving(now, instance),
            ToPlacer::Offer { instance, offer } => self.with(instance, |holding| holding.offer = Some(offer)),
            ToPlacer::Withdraw { instance } => self.with(instance, |holding| holding.offer = None),
            ToPlacer::Declined { instance } => {
                self.with(instance, |holding| (holding.asked, holding.offer) = (None, None));
                self.losses.declined(instance);
                // Whoever waited for it must look elsewhere.
                self.waiting.iter_mut().for_each(|waiter| waiter.chosen = None);
            }
            ToPlacer::Residue { instance, memory, gpu } => {
                let most = self.device_memory(instance);
                self.with(instance, |holding| (holding.residue, holding.residue_gpu) = (memory, gpu.min(most)));
            }
            ToPlacer::Observed { instance, memory, gpu } => {
                // More than there is can be no part of a device; it is as good as all of it.
                let most = self.device_memory(instance);
                let changed = self.holdings.change(instance, |holding| {
                    holding.observed = memory.unwrap_or(holding.observed);
                    holding.observed_gpu = gpu.map_or(holding.observed_gpu, |gpu| gpu.min(most));
                });
                if !changed {
                    return;
                }
            }
        }
        self.grant(now, answers);
        self.press(now, answers);
        self.move_from_yielded(answers);
        for (function, version) in restore {
            answers.push(Message::ToFunction { function, message: FromPlacer::Restore { version } });
        }
        debug_assert!(self.holdings.are_sound(), "the sums of what is held are wrong: {:?}", self.holdings);
    }

    fn with(&mut self, instance: InstanceId, change: impl FnOnce(&mut Holding)) {
        self.holdings.change(instance, change);
    }

    fn forget_waiter(&mut self, instance: InstanceId) {
        self.waiting.retain(|waiter| waiter.instance != instance);
    }

    /// The change of hands is over.
    fn serving(&mut self, now: u64, instance: InstanceId) {
        let Some(holding) = self.holdings.get(instance).copied() else { return };
        self.holdings.change(instance, |holding| (holding.rung, holding.switching) = (None, None));
        let in_vain = self.losses.served(instance);
        if let Some(since) = holding.switching {
            let place = holding.place;
            let index = self.thrash.iter().position(|(other, _)| *other == place).unwrap_or_else(|| {
                self.thrash.push((place, Thrash::default()));
                self.thrash.len() - 1
            });
            self.thrash[index].1.switched(now, now.saturating_sub(since), in_vain);
        }
    }

    /// Grants what fits, in the order of urgency, age and fairness; what does not fit asks others for their room.
    fn grant(&mut self, now: u64, answers: &mut Vec<Message>) {
        while !self.waiting.is_empty() {
            let mut pass = Pass { used: self.holdings.used().clone(), closed: Vec::new(), hopeless: Vec::new() };
            let granted = self
                .order()
                .into_iter()
                .find_map(|index| Some((index, self.consider(now, index, &mut pass, answers)?)));
            let Some((index, place)) = granted else { return };
            let waiter = self.waiting.swap_remove(index);
            self.take(&waiter, place);
            let from = self.losses.loser(waiter.instance);
            let message = FromPlacer::Grant { instance: waiter.instance, place, number: waiter.number, from };
            answers.push(Message::ToFunction { function: waiter.function, message });
        }
    }

    /// Where a waiter may be now. If nowhere, others are asked for its sake, and what it is to have is kept from those behind.
    fn consider(&mut self, now: u64, index: usize, pass: &mut Pass, answers: &mut Vec<Message>) -> Option<Place> {
        let waiter = self.waiting[index];
        // One like it found nothing in this pass and nobody to ask, and nothing has changed since: so will this one.
        let own = self.holdings.contains(waiter.instance) || self.holdings.is_movable(waiter.function);
        let alike = (waiter.need, waiter.is_forceful());
        let comparable = !own && waiter.chosen.is_none();
        let known = pass.hopeless.iter().find(|(other, _)| comparable && *other == alike).map(|(_, lack)| *lack);
        let lack = match known {
            Some(lack) => {
                self.tell_lack(index, lack, answers);
                lack
            }
            None => match self.place(&waiter, &pass.used, &pass.closed) {
                Ok(place) => return Some(place),
                Err(lack) => {
                    let asked = self.blocked(now, index, lack, &pass.used, answers);
                    if asked {
                        pass.hopeless.clear();
                    } else if comparable && self.waiting[index].chosen.is_none() {
                        pass.hopeless.push((alike, lack));
                    }
                    lack
                }
            },
        };
        let waiter = self.waiting[index];
        // One that only stands back for another keeps nothing from those behind it: they may be whom the other waits for.
        let stands_back = !pass.closed.is_empty() && self.place(&waiter, &pass.used, &[]).is_ok();
        if let Some(place) = waiter.chosen.filter(|_| !stands_back) {
            pass.used.reserve(place, &self.missing(&waiter), self.holdings.contains(waiter.instance));
            pass.hopeless.clear();
        } else if now.saturating_sub(waiter.since) >= OVERTAKEN_AT_MOST {
            let closes = (lack, waiter.need.kind);
            if !pass.closed.contains(&closes) && self.may_insist(&waiter) {
                pass.closed.push(closes);
                pass.hopeless.clear();
            }
        }
        None
    }

    /// Whether others have to stand back for a waiter: not for what never takes anything from anybody, and not for one
    /// that waits for its own like.
    fn may_insist(&self, waiter: &Waiter) -> bool {
        let mut own = PoolUsage::default();
        let like = self.holdings.of(waiter.function).filter(|holding| holding.version == waiter.version);
        like.for_each(|holding| own.add_holding(holding));
        waiter.urgency <= Urgency::Candidate && self.place(waiter, &own, &[]).is_ok()
    }

    /// Whose turn it is: indices of `waiting`.
    fn order(&self) -> Vec<usize> {
        let rank = |waiter: &Waiter| {
            let held = self.holdings.awake(waiter.function);
            let later = waiter.urgency.steps() * URGENCY_STEP + held * FAIR_STEP;
            // What nobody waits for is not important to anybody.
            let (earlier, later) = match waiter.need.priority {
                FunctionPriority::High if waiter.is_forceful() => (PRIORITY_STEP, later),
                FunctionPriority::Low if waiter.is_forceful() => (0, later + PRIORITY_STEP),
                _ => (0, later),
            };
            // From a moment before the host's boot, so that nothing comes earlier than that.
            (PRIORITY_STEP + waiter.since).saturating_add(later).saturating_sub(earlier)
        };
        let mut order: Vec<usize> = (0..self.waiting.len()).collect();
        order.sort_by_cached_key(|index| {
            (rank(&self.waiting[*index]), self.waiting[*index].since, self.waiting[*index].instance)
        });
        order
    }

    fn take(&mut self, waiter: &Waiter, place: Place) {
        if !self.holdings.contains(waiter.instance) {
            let holding = Holding::new(waiter.function, waiter.version, waiter.need, place, None);
            self.holdings.insert(waiter.instance, holding);
        }
        self.holdings.change(waiter.instance, |holding| {
            (holding.rung, holding.offer, holding.asked) = (None, None, None);
            holding.switching = waiter.switching;
        });
    }

    fn tell_lack(&mut self, index: usize, lack: Shortage, answers: &mut Vec<Message>) {
        let waiter = &mut self.waiting[index];
        if waiter.told != Some(lack) {
            waiter.told = Some(lack);
            let message = FromPlacer::Waits { instance: waiter.instance, lack };
            answers.push(Message::ToFunction { function: waiter.function, message });
        }
    }

    /// Tells a waiter what it waits for, and asks others for it; true if it asked anybody. `used` is what is granted, and what
    /// those before it are to have.
    fn blocked(
        &mut self,
        now: u64,
        index: usize,
        lack: Shortage,
        used: &PoolUsage,
        answers: &mut Vec<Message>,
    ) -> bool {
        self.tell_lack(index, lack, answers);
        if self.weighing > 0 {
            return false;
        }
        let waiter = self.waiting[index];
        // What was chosen before may not be had any more.
        let anew = Waiter { chosen: None, ..waiter };
        let victims = self.victims(now, &waiter, used).or_else(|| self.victims(now, &anew, used));
        let Some((place, victims)) = victims else {
            self.waiting[index].chosen = None;
            return false;
        };
        let waiter = &mut self.waiting[index];
        waiter.chosen = Some(place);
        let asks = !victims.is_empty();
        if asks {
            waiter.switching.get_or_insert(now);
        }
        let (winner, by, urgency) = (waiter.instance, waiter.function, waiter.urgency);
        for (instance, lack) in victims {
            let Some(holding) = self.holdings.get(instance).copied() else { continue };
            let Holding { function, version, .. } = holding;
            self.holdings.change(instance, |holding| holding.asked = Some(lack));
            self.losses.add(Loss { function, version, instance, winner, urgency, in_vain: false });
            let message = FromPlacer::Evict { instance, lack, by: Some(by) };
            answers.push(Message::ToFunction { function, message });
        }
        asks
    }

    /// Who holds room is pressed while somebody waits, and relaxed when nobody does.
    fn press(&mut self, now: u64, answers: &mut Vec<Message>) {
        let touched = self.holdings.take_touched();
        if self.waiting.is_empty() {
            for function in std::mem::take(&mut self.pressed).into_keys() {
                answers.push(Message::ToFunction { function, message: FromPlacer::Relax });
            }
            self.stretch = None;
            return self.holdings.forget_offers();
        }
        let stretches: Vec<u8> = self.thrash.iter().map(|(_, thrash)| stretch(thrash.in_vain(now))).collect();
        // Where instances are counted, those that hold nothing else are in the way as well.
        let counted =
            self.inventory.quota.instances.is_some() || self.inventory.pools.iter().any(|pool| pool.max.is_some());
        // Only what changed can be new to it, unless everybody is to be told something else.
        let all = self.stretch.as_ref() != Some(&stretches);
        let looked_at: Vec<CoreNumber> =
            if all { self.holdings.functions().collect() } else { touched.into_iter().collect() };
        let mut has_pressed = false;
        for function in looked_at.into_iter().filter(|function| self.holdings.holds(*function, counted)) {
            let stretch = self.stretch_of(function, &stretches);
            if self.pressed.insert(function, stretch) != Some(stretch) {
                let message = FromPlacer::Press { stretch, longest: self.inventory.turns.longest };
                answers.push(Message::ToFunction { function, message });
                has_pressed = true;
            }
        }
        if has_pressed {
            self.weighing += 1;
            answers.push(Message::ToPlacer(ToPlacer::Weigh { again: false }));
        }
        self.stretch = Some(stretches);
    }

    /// The longest of those of the places where a function holds anything.
    fn stretch_of(&self, function: CoreNumber, stretches: &[u8]) -> u8 {
        let touches = |a: Place, b: Place| {
            ledger::same_host(a, b) && (a.devices == 0 || b.devices == 0 || a.devices & b.devices != 0)
        };
        let places = || self.thrash.iter().map(|(place, _)| *place).zip(stretches.iter().copied());
        let own = self.holdings.of(function).flat_map(|holding| {
            places().filter(move |(place, _)| touches(holding.place, *place)).map(|(_, stretch)| stretch)
        });
        if stretches.iter().all(|stretch| *stretch == 0) { 0 } else { own.max().unwrap_or(0) }
    }
}

/// How many turns an idle instance has, by the share of the time that went into changing hands in vain, in a thousand.
fn stretch(in_vain: u32) -> u8 {
    match in_vain {
        0..=250 => 0,
        251..=500 => 1,
        _ => 2,
    }
}

/// One way through those that wait.
struct Pass {
    /// What is granted, and what those before are to have.
    used: PoolUsage,
    /// What nobody may take, because somebody has waited too long for it, and of which type of device that is.
    closed: Vec<(Shortage, DeviceKind)>,
    /// What finds no room as things are now, and nobody to ask for it: need, whether it is forceful, and what it lacks.
    hopeless: Vec<((RoomNeed, bool), Shortage)>,
}

impl Holding {
    fn new(function: CoreNumber, version: VersionId, need: RoomNeed, place: Place, rung: Option<Rung>) -> Self {
        Self {
            function,
            version,
            need,
            place,
            rung,
            observed: 0,
            observed_gpu: 0,
            residue: 0,
            residue_gpu: 0,
            offer: None,
            asked: None,
            switching: None,
        }
    }
}
