//! Whose room is asked back: the idle before the busy, those nobody promised before the kept, then by priority and by expected
//! loss; and rather one that suffices than several.

use std::collections::BTreeMap;

use kip_spec::InstanceId;
use kip_spec::function::FunctionPriority;
use serde::{Deserialize, Serialize};

use super::ledger::PoolUsage;
use super::{Holding, Placer, Waiter};
use crate::room::{Gpu, Place, RoomNeed, Shortage};

/// What a function tells of an instance that it could give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it would take to have it back, milliseconds; 0 for one that nobody waits for.
    pub restore: u64,
    /// When it was last used, boot time.
    pub unused_since: u64,
    /// It works, but has had its turn: it would finish and then leave.
    pub busy: bool,
    /// It is kept by policy: without it there would be fewer than was promised.
    pub kept: bool,
    /// It has not had its turn: it goes for requests that wait and for new versions, not for what is kept or replaced.
    #[serde(default)]
    pub early: bool,
}

/// Who could be asked for one resource, with how much each has.
type Candidates<'a> = Vec<(Cost, InstanceId, u64)>;

/// What asking somebody costs; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    busy: u32,
    kept: u32,
    /// The most important of them.
    priority: FunctionPriority,
    loss: u64,
}

impl Default for Cost {
    fn default() -> Self {
        Self { busy: 0, kept: 0, priority: FunctionPriority::Low, loss: 0 }
    }
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self {
            busy: self.busy + other.busy,
            kept: self.kept + other.kept,
            priority: self.priority.max(other.priority),
            loss: self.loss.saturating_add(other.loss),
        }
    }

    /// What decides before the expected loss.
    fn class(self) -> (u32, u32, FunctionPriority) {
        (self.busy, self.kept, self.priority)
    }
}

impl Offer {
    /// What giving it up costs by expectation: the time to have it back, times how likely it is wanted soon. Who knows
    /// nothing else of a sleeper may expect that it goes on as long as it has.
    pub(crate) fn loss(&self, now: u64) -> u64 {
        self.restore.saturating_mul(1_000) / now.saturating_sub(self.unused_since).saturating_add(1_000)
    }
}

/// Those to ask, each for what.
pub(super) type VictimRequests = Vec<(InstanceId, Shortage)>;

impl Placer {
    /// Whom to ask for a waiter, and where it will be then. Nobody to ask and a place: those asked before suffice. `None` if
    /// asking whom may be asked would not help: then nobody gives up anything for it.
    pub(super) fn victims(&self, now: u64, waiter: &Waiter, used: &PoolUsage) -> Option<(Place, VictimRequests)> {
        let quota = self.quota_lack(waiter, used);
        let missing = self.missing(waiter);
        let new = !self.holdings.contains(waiter.instance);
        let stop = Shortage { quota: true, ..Shortage::default() };
        let mut best: Option<(Cost, Place, VictimRequests)> = None;
        for place in self.places(waiter, &missing) {
            let Some(mut plan) = self.plan(now, waiter, place, &missing, used) else { continue };
            let in_pool = |holding: &Holding| holding.place.pool == place.pool;
            if new && self.pool_is_full(place.pool, used) && !self.relieve(now, waiter, stop, &in_pool, &mut plan) {
                continue;
            }
            let with_device = |holding: &Holding| holding.room().gpu != Gpu::None;
            let (lack, which): (Shortage, &dyn Fn(&Holding) -> bool) = match quota.gpu {
                true => (Shortage { quota: false, ..quota }, &with_device),
                false => (stop, &|_| true),
            };
            let helps = !quota.gpu || self.could_be_within(now, waiter, place, &missing);
            if quota.quota && !(helps && self.relieve(now, waiter, lack, which, &mut plan)) {
                continue;
            }
            if best.as_ref().is_none_or(|(least, _, _)| plan.0 < *least) {
                best = Some((plan.0, place, plan.1));
            }
        }
        best.map(|(_, place, victims)| (place, victims))
    }

    /// Whether the quota of cards would do, if everybody who may be asked gave up theirs.
    fn could_be_within(&self, now: u64, waiter: &Waiter, place: Place, missing: &RoomNeed) -> bool {
        let asked: Vec<InstanceId> = self.candidates(now, waiter).map(|(_, id, _)| id).collect();
        let mut used = PoolUsage::default();
        let stays = |id: &InstanceId, holding: &Holding| !asked.contains(id) && holding.asked.is_none();
        self.holdings
            .iter()
            .filter(|(id, holding)| stays(id, holding))
            .for_each(|(_, holding)| used.add_holding(holding));
        used.add(place, missing);
        self.within_cards(&used)
    }

    /// Makes sure that one of certain holders gives up something: one asked before, one who is to be asked anyway, or one
    /// more. False if there is none.
    fn relieve(
        &self,
        now: u64,
        waiter: &Waiter,
        lack: Shortage,
        which: &dyn Fn(&Holding) -> bool,
        plan: &mut (Cost, VictimRequests),
    ) -> bool {
        let covers = |asked: Shortage| asked.and(lack) == asked;
        if self.holdings.asked().any(|holding| which(holding) && holding.asked.is_some_and(covers)) {
            return true;
        }
        let planned = plan.1.iter_mut().find(|(id, _)| self.holdings.get(*id).is_some_and(which));
        if let Some((_, planned)) = planned {
            *planned = planned.and(lack);
            return true;
        }
        let more = self.candidates(now, waiter).filter(|(_, _, holding)| which(holding));
        let Some((cost, id, _)) = more.min_by_key(|(cost, id, _)| (*cost, *id)) else { return false };
        plan.0 = plan.0.plus(cost);
        plan.1.push((id, lack));
        true
    }

    /// Where it could be, if others left.
    fn places(&self, waiter: &Waiter, missing: &RoomNeed) -> Vec<Place> {
        if let Some(holding) = self.holdings.get(waiter.instance) {
            return vec![holding.place];
        }
        if let Some(chosen) = waiter.chosen {
            return vec![chosen];
        }
        let mut places = Vec::new();
        for host in self.open_to(missing) {
            match missing.gpu {
                Gpu::None => places.push(host),
                Gpu::Slice(_) => {
                    places.extend(
                        self.device_choices(host, missing).into_iter().map(|devices| Place { devices, ..host }),
                    );
                }
                Gpu::Cards(cards) => {
                    // The cheapest to clear, one by one: sets of devices are not compared with each other.
                    let choices = self.device_choices(host, missing);
                    let holders = |devices: u64| {
                        let on = |h: &Holding| same(h, host) && h.place.devices & devices != 0;
                        self.holdings.iter().filter(|(_, holding)| on(holding)).count()
                    };
                    let mut by_use: Vec<(usize, u64)> = choices.into_iter().map(|bit| (holders(bit), bit)).collect();
                    by_use.sort_unstable();
                    if by_use.len() >= usize::from(cards) {
                        let devices = by_use.iter().take(usize::from(cards)).fold(0, |bits, (_, bit)| bits | bit);
                        places.push(Place { devices, ..host });
                    }
                }
            }
        }
        places
    }

    /// Whom to ask at one place.
    fn plan(
        &self,
        now: u64,
        waiter: &Waiter,
        place: Place,
        missing: &RoomNeed,
        used: &PoolUsage,
    ) -> Option<(Cost, VictimRequests)> {
        let (mut cpu, mut memory, mut gpu) = self.deficits(place, missing, used)?;
        for holding in self.holdings.asked().filter(|holding| same(holding, place)) {
            let Some(asked) = holding.asked else { continue };
            let room = holding.room();
            // Without a rung to go to it gives everything.
            cpu = cpu.saturating_sub(if asked.cpu { room.cpu } else { 0 });
            memory = memory.saturating_sub(if asked.memory { room.memory } else { 0 });
            gpu = gpu.saturating_sub(if asked.gpu { self.device_bytes(holding, place) } else { 0 });
        }
        // Whoever was asked for a port stops, and whoever stops gives its port too.
        let gives_port = |holding: &Holding| {
            let stops = holding.asked.is_some_and(|asked| asked.port || asked.quota);
            same(holding, place) && stops && holding.room().port == missing.port
        };
        let taken = Self::port_is_taken(place, missing, used) && !self.holdings.asked().any(gives_port);
        let mut victims: BTreeMap<InstanceId, (Cost, Shortage)> = BTreeMap::new();
        let of_cpu = |holding: &Holding| holding.room().cpu;
        let of_memory = |holding: &Holding| holding.room().memory;
        let of_gpu = |holding: &Holding| self.device_bytes(holding, place);
        let nothing = Shortage::default();
        self.pick(now, waiter, place, gpu, &of_gpu, Shortage { gpu: true, ..nothing }, &mut victims)?;
        self.pick(now, waiter, place, memory, &of_memory, Shortage { memory: true, ..nothing }, &mut victims)?;
        self.pick(now, waiter, place, cpu, &of_cpu, Shortage { cpu: true, ..nothing }, &mut victims)?;
        let of_port = |holding: &Holding| u64::from(holding.room().port == missing.port);
        let port = u64::from(taken);
        self.pick(now, waiter, place, port, &of_port, Shortage { port: true, ..nothing }, &mut victims)?;
        let cost = victims.values().fold(Cost::default(), |sum, (cost, _)| sum.plus(*cost));
        Some((cost, victims.into_iter().map(|(instance, (_, lack))| (instance, lack)).collect()))
    }

    /// Adds those who give so much of one resource; `None` if they cannot.
    #[expect(clippy::too_many_arguments, reason = "one resource of one place: each of these differs from call to call")]
    fn pick(
        &self,
        now: u64,
        waiter: &Waiter,
        place: Place,
        mut missing: u64,
        has: &dyn Fn(&Holding) -> u64,
        lack: Shortage,
        victims: &mut BTreeMap<InstanceId, (Cost, Shortage)>,
    ) -> Option<()> {
        if missing == 0 {
            return Some(());
        }
        let mut candidates: Candidates<'_> = self
            .candidates(now, waiter)
            .filter(|(_, _, holding)| same(holding, place))
            .map(|(cost, id, holding)| {
                (if victims.contains_key(&id) { Cost::default() } else { cost }, id, has(holding))
            })
            .filter(|(_, _, bytes)| *bytes > 0)
            .collect();
        candidates.sort_unstable_by_key(|(cost, id, bytes)| (*cost, u64::MAX - *bytes, *id));
        let mut chosen = Vec::new();
        if let Some(alone) = candidates.iter().find(|(_, _, bytes)| *bytes >= missing).copied() {
            // One that suffices, unless several cheaper classes of victims do as well.
            let several = candidates.iter().take_while(|(cost, _, _)| cost.class() < alone.0.class());
            let together: u64 = several.clone().map(|(_, _, bytes)| *bytes).fold(0, u64::saturating_add);
            if together < missing {
                chosen.push(alone);
                missing = 0;
            }
        }
        for candidate in candidates {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(candidate.2);
            chosen.push(candidate);
        }
        for (cost, id, _) in chosen {
            let entry = victims.entry(id).or_insert_with(|| (cost, Shortage::default()));
            entry.1 = entry.1.and(lack);
        }
        (missing == 0).then_some(())
    }

    /// Who may be asked on behalf of a waiter.
    fn candidates(&self, now: u64, waiter: &Waiter) -> impl Iterator<Item = (Cost, InstanceId, &Holding)> {
        let forceful = waiter.is_forceful();
        let own = (waiter.function, waiter.version);
        self.holdings.offered().filter(move |(_, holding)| (holding.function, holding.version) != own).filter_map(
            move |(id, holding)| {
                let offer = holding.offer.filter(|offer| forceful || !offer.kept && !offer.busy && !offer.early)?;
                let (busy, kept) = (u32::from(offer.busy), u32::from(offer.kept));
                let cost = Cost { busy, kept, priority: holding.need.priority, loss: offer.loss(now) };
                Some((cost, id, holding))
            },
        )
    }
}

fn same(holding: &Holding, place: Place) -> bool {
    super::ledger::same_host(holding.place, place)
}
