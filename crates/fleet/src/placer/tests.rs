use super::*;
use crate::room::{Device, DeviceKind, Gpu, Host, Pool, Quota};

fn id(function: u32, sequence: u32) -> InstanceId {
    InstanceId { boot: 1, core: function, sequence }
}

/// A placer and the answers it gave last.
struct PlacerHarness {
    now: u64,
    placer: Placer,
}

impl PlacerHarness {
    fn new(inventory: Inventory) -> Self {
        Self { now: 0, placer: Placer::new(inventory) }
    }

    fn memory(bytes: u64) -> Self {
        Self::new(Inventory::of_memory(bytes))
    }

    fn devices(sizes: &[u64]) -> Self {
        let device = |memory: &u64| Device { name: "d".to_owned(), kind: DeviceKind::ANY, memory: *memory };
        let mut inventory = Inventory::of_memory(1_000);
        inventory.pools[0].hosts[0].devices = sizes.iter().map(device).collect();
        Self::new(inventory)
    }

    /// The answers without the functions they were made for.
    fn at(&mut self, now: u64, message: ToPlacer) -> Vec<FromPlacer> {
        let plain = |answer| match answer {
            FromPlacer::Grant { instance, place, number, .. } => {
                FromPlacer::Grant { instance, place, number, from: None }
            }
            FromPlacer::Evict { instance, lack, .. } => FromPlacer::Evict { instance, lack, by: Some(CoreNumber(0)) },
            other => other,
        };
        self.whole(now, message).into_iter().map(plain).collect()
    }

    fn whole(&mut self, now: u64, message: ToPlacer) -> Vec<FromPlacer> {
        self.now = now;
        let mut messages = std::collections::VecDeque::from([message]);
        let mut all = Vec::new();
        // No function offers anything before it has weighed what it was offered before.
        while let Some(message) = messages.pop_front() {
            let mut answers = Vec::new();
            self.placer.step(Now { boot: now, wall: 0 }, message, &mut answers);
            for answer in answers {
                match answer {
                    Message::ToFunction { message, .. } => all.push(message),
                    Message::ToPlacer(message) => messages.push_back(message),
                }
            }
        }
        all
    }

    fn step(&mut self, message: ToPlacer) -> Vec<FromPlacer> {
        self.at(self.now + 1, message)
    }
}

fn ask(function: u32, need: RoomNeed) -> ToPlacer {
    ask_for(function, 1, need, Urgency::Demand)
}

fn ask_for(function: u32, sequence: u32, need: RoomNeed, urgency: Urgency) -> ToPlacer {
    let (instance, version) = (id(function, sequence), VersionId(u64::from(function)));
    ToPlacer::Ask { function: CoreNumber(function), instance, version, need, urgency, number: NUMBER }
}

fn memory(memory: u64) -> RoomNeed {
    RoomNeed { memory, ..RoomNeed::default() }
}

fn slice(bytes: u64) -> RoomNeed {
    RoomNeed { gpu: Gpu::Slice(bytes), ..RoomNeed::default() }
}

fn grant(function: u32) -> FromPlacer {
    FromPlacer::Grant { instance: id(function, 1), place: Place::default(), number: NUMBER, from: None }
}

fn grant_on(function: u32, devices: u64) -> FromPlacer {
    FromPlacer::Grant {
        instance: id(function, 1),
        place: Place { devices, ..Place::default() },
        number: NUMBER,
        from: None,
    }
}

fn offer(function: u32, restore: u64, unused_since: u64) -> ToPlacer {
    let offer = Offer { restore, unused_since, busy: false, kept: false, early: false };
    ToPlacer::Offer { instance: id(function, 1), offer }
}

const NUMBER: OperationNumber = OperationNumber(1);
const MEMORY: Shortage =
    Shortage { memory: true, cpu: false, gpu: false, quota: false, port: false, yielded: None, pool: false };
const GPU: Shortage =
    Shortage { gpu: true, cpu: false, memory: false, quota: false, port: false, yielded: None, pool: false };
const PRESS: FromPlacer = FromPlacer::Press { stretch: 0, longest: 60_000 };

fn waits(function: u32, lack: Shortage) -> FromPlacer {
    FromPlacer::Waits { instance: id(function, 1), lack }
}

fn evict(function: u32, lack: Shortage) -> FromPlacer {
    FromPlacer::Evict { instance: id(function, 1), lack, by: Some(CoreNumber(0)) }
}

fn release(function: u32) -> ToPlacer {
    ToPlacer::Release { instance: id(function, 1) }
}

#[test]
fn the_second_waits_until_the_first_offers_itself_and_leaves() {
    let mut desk = PlacerHarness::memory(10);
    assert_eq!(desk.step(ask(1, memory(6))), [grant(1)]);
    assert_eq!(desk.step(ask(2, memory(6))), [waits(2, MEMORY), PRESS]);
    assert_eq!(desk.step(offer(1, 100, 0)), [evict(1, MEMORY)]);
    assert_eq!(desk.step(ask(3, memory(6))), [waits(3, MEMORY)], "the eviction under way is not asked for twice");
    assert_eq!(desk.step(release(1)), [grant(2), PRESS], "2 holds now and 3 still waits");
    assert_eq!(desk.placer.ledger(), (6, 10, 1));
    assert_eq!(desk.step(release(3)), [FromPlacer::Relax, FromPlacer::Relax]);
}

#[test]
fn a_port_is_had_by_one_and_the_others_take_turns() {
    let port = |port| RoomNeed { port, ..RoomNeed::default() };
    let lack = Shortage { port: true, ..Shortage::default() };
    let mut desk = PlacerHarness::memory(10);
    assert_eq!(desk.step(ask(1, port(9_000))), [grant(1)]);
    assert_eq!(desk.step(ask(2, port(9_001))), [grant(2)], "another port is nobody's");
    assert_eq!(desk.step(ask(3, memory(10))), [grant(3)], "no room is taken");
    assert_eq!(desk.step(ask(4, port(9_000))), [waits(4, lack), PRESS, PRESS, PRESS]);
    assert_eq!(desk.step(offer(2, 1, 0)), [], "another port does not help");
    assert_eq!(desk.step(offer(3, 1, 0)), [], "nor does room");
    // A sleeper listens still.
    assert_eq!(desk.step(ToPlacer::Rests { instance: id(1, 1), rung: Rung::Paused }), []);
    assert_eq!(desk.step(offer(1, 1, 0)), [evict(1, lack)]);
    assert!(desk.step(release(1)).contains(&grant(4)));
    assert_eq!(desk.step(ask(1, port(9_000)))[..1], [waits(1, lack)]);
    assert_eq!(desk.step(offer(4, 1, 0)), [evict(4, lack)], "and back");
}

#[test]
fn what_can_never_fit_is_refused_and_what_declares_nothing_passes() {
    let mut desk = PlacerHarness::memory(5);
    assert_eq!(desk.step(ask(1, memory(6))), [FromPlacer::Refuse { instance: id(1, 1) }]);
    assert_eq!(desk.step(ask(2, RoomNeed::default())), [grant(2)]);
    assert_eq!(desk.step(ask(3, slice(1))), [FromPlacer::Refuse { instance: id(3, 1) }], "there is no device");
}

#[test]
fn the_cheapest_expected_loss_goes_and_rather_one_than_two() {
    // The first is cheapest and does not suffice; of the other two the one that is quickly back.
    let mut both = PlacerHarness::memory(10);
    for (function, need) in [(1, 2), (2, 4), (3, 4)] {
        both.step(ask(function, memory(need)));
    }
    both.step(ask(9, memory(4)));
    both.step(offer(1, 1, 0));
    assert_eq!(both.at(100_000, offer(2, 20_000, 0)), [evict(2, MEMORY)]);
    let mut choice = PlacerHarness::memory(8);
    for function in [2, 3] {
        choice.step(ask(function, memory(4)));
    }
    let busy = Offer { restore: 1, unused_since: 0, busy: true, kept: false, early: false };
    choice.step(ask(9, memory(8)));
    assert_eq!(choice.step(ToPlacer::Offer { instance: id(2, 1), offer: busy }), [], "alone it does not suffice");
    choice.step(ToPlacer::Release { instance: id(9, 1) });
    choice.step(ask(8, memory(8)));
    choice.step(offer(3, 90_000, 50));
    assert_eq!(
        choice.step(ToPlacer::Offer { instance: id(2, 1), offer: busy }),
        [evict(2, MEMORY), evict(3, MEMORY)],
        "together they do"
    );
}

#[test]
fn a_kept_instance_yields_to_requests_and_not_to_another_minimum() {
    for (urgency, yields) in [(Urgency::Demand, true), (Urgency::Minimum, false), (Urgency::Rotation, false)] {
        let mut desk = PlacerHarness::memory(10);
        desk.step(ask(1, memory(6)));
        desk.step(ask_for(2, 1, memory(6), urgency));
        let offer = Offer { restore: 10, unused_since: 0, busy: false, kept: true, early: false };
        let answers = desk.step(ToPlacer::Offer { instance: id(1, 1), offer });
        assert_eq!(!answers.is_empty(), yields, "{urgency:?}");
    }
}

#[test]
fn slices_share_a_device_the_fullest_first_and_cards_want_empty_ones() {
    let mut desk = PlacerHarness::devices(&[24, 24, 24]);
    assert_eq!(desk.step(ask(1, slice(6))), [grant_on(1, 0b001)]);
    assert_eq!(desk.step(ask(2, slice(6))), [grant_on(2, 0b001)], "large pieces stay free");
    assert_eq!(desk.step(ask(3, slice(20))), [grant_on(3, 0b010)]);
    let card = RoomNeed { gpu: Gpu::Cards(1), ..RoomNeed::default() };
    assert_eq!(desk.step(ask(4, card)), [grant_on(4, 0b100)]);
    assert_eq!(desk.step(ask(5, card))[..1], [waits(5, GPU)]);
    assert_eq!(desk.step(ask(6, slice(4)))[..1], [grant_on(6, 0b010)], "who fits beside passes, for a while");
    desk.step(release(6));
    assert_eq!(desk.at(60_000, ask(7, slice(4)))[..1], [waits(7, GPU)], "and not for ever");
    let settled = desk.step(offer(3, 10, 0));
    assert_eq!(settled[..2], [evict(3, GPU), grant_on(7, 0b001)], "once it has a place of its own, others may pass");
    assert_eq!(desk.step(release(3))[..1], [grant_on(5, 0b010)]);
    let uses: Vec<u64> = desk.placer.devices().iter().map(|device| device.granted).collect();
    assert_eq!(uses, [16, 24, 24]);
}

#[test]
fn types_of_devices_are_respected() {
    let mut inventory = Inventory::of_memory(10);
    let device = |kind: &str| Device { name: kind.to_owned(), kind: DeviceKind::named(kind), memory: 10 };
    inventory.pools[0].hosts[0].devices = vec![device("L4"), device("H200")];
    let mut desk = PlacerHarness::new(inventory);
    let need = |kind: &str| RoomNeed { kind: DeviceKind::named(kind), ..slice(10) };
    assert_eq!(desk.step(ask(1, need("h200"))), [grant_on(1, 0b10)]);
    assert_eq!(desk.step(ask(2, need("a100"))), [FromPlacer::Refuse { instance: id(2, 1) }]);
    assert_eq!(desk.step(ask(3, need("any"))), [grant_on(3, 0b01)]);
    // Who has waited long for one type keeps nobody from another.
    assert_eq!(desk.step(ask(4, need("h200")))[..1], [waits(4, GPU)]);
    desk.step(release(3));
    assert_eq!(desk.at(60_000, ask(5, need("l4")))[..1], [grant_on(5, 0b01)]);
    assert_eq!(desk.step(ask(6, need("any")))[..1], [waits(6, GPU)]);
}

#[test]
fn a_quota_that_cannot_be_kept_costs_nobody_anything() {
    let mut desk = PlacerHarness::devices(&[10, 10]);
    desk.placer.inventory.quota.cards = Some(1);
    assert_eq!(desk.step(ask(1, slice(4))), [grant_on(1, 0b01)]);
    assert_eq!(desk.step(ask(2, slice(4))), [grant_on(2, 0b01)]);
    let card = RoomNeed { gpu: Gpu::Cards(1), ..RoomNeed::default() };
    desk.step(ask(3, card));
    assert_eq!(desk.step(offer(2, 1, 0)), [], "the first one would still hold its part of the only card there may be");
    assert_eq!(desk.step(offer(1, 1, 0)), [evict(1, GPU)], "both together help, one after the other");
    assert_eq!(desk.step(release(1))[..1], [evict(2, GPU)]);
}

#[test]
fn a_sleeper_gives_back_what_its_rung_does_not_keep_and_asks_again() {
    let mut desk = PlacerHarness::devices(&[10]);
    let need = RoomNeed { memory: 5, ..slice(8) };
    assert_eq!(desk.step(ask(1, need)), [grant_on(1, 1)]);
    desk.step(ToPlacer::Rests { instance: id(1, 1), rung: Rung::Paused });
    assert_eq!(desk.step(ask(2, slice(8)))[..1], [waits(2, GPU)], "paused keeps the device");
    assert_eq!(desk.step(offer(1, 10, 0)), [evict(1, GPU)]);
    assert_eq!(desk.step(ToPlacer::Rests { instance: id(1, 1), rung: Rung::Parked })[..1], [grant_on(2, 1)]);
    assert_eq!(desk.placer.ledger().0, 5);
    assert_eq!(desk.step(ask(1, need))[..1], [waits(1, GPU)]);
    assert_eq!(desk.step(release(2))[..1], [grant_on(1, 1)]);
}

#[test]
fn pools_fill_in_order_and_quotas_hold_over_all() {
    let host = Host { cpu: 1_000, memory: 10, devices: Vec::new() };
    let pool = |name: &str, max| Pool { name: name.to_owned(), max, hosts: vec![host.clone()] };
    let inventory = Inventory {
        pools: vec![pool("own", None), pool("burst", Some(1))],
        quota: Quota { cards: None, instances: Some(3) },
        ..Inventory::default()
    };
    let mut desk = PlacerHarness::new(inventory);
    let pools = |answers: &[FromPlacer]| match answers {
        [FromPlacer::Grant { place, .. }] => Some(place.pool),
        _ => None,
    };
    assert_eq!(pools(&desk.step(ask(1, memory(6)))), Some(0));
    assert_eq!(pools(&desk.step(ask(2, memory(6)))), Some(1));
    assert_eq!(desk.step(ask(3, memory(6)))[..1], [waits(3, MEMORY)]);
    desk.step(release(3));
    assert_eq!(pools(&desk.step(ask(4, memory(1)))), Some(0));
    let quota = Shortage { quota: true, ..Shortage::default() };
    assert_eq!(desk.step(ask(5, memory(1)))[..1], [waits(5, quota)]);
    assert_eq!(desk.step(offer(4, 1, 0)), [evict(4, quota)]);
    assert_eq!(desk.step(release(4))[..1], [grant(5)]);
}

#[test]
fn nothing_is_granted_in_pools_that_are_barred_or_do_not_answer() {
    let host = Host { cpu: 1_000, memory: 10, devices: Vec::new() };
    let pool = |name: &str| Pool { name: name.to_owned(), max: None, hosts: vec![host.clone()] };
    let inventory = Inventory { pools: vec![pool("own"), pool("far")], ..Inventory::default() };
    let mut desk = PlacerHarness::new(inventory);
    let pools = |answers: &[FromPlacer]| match answers {
        [FromPlacer::Grant { place, .. }] => Some(place.pool),
        _ => None,
    };
    let not_in = |barred| RoomNeed { barred, ..memory(4) };
    assert_eq!(pools(&desk.step(ask(1, not_in(0b01)))), Some(1));
    assert!(!desk.placer.could_ever(not_in(0b11)));
    desk.step(ToPlacer::Lose { pool: 1 });
    assert_eq!(pools(&desk.step(ask(2, memory(4)))), Some(0));
    let lost = Shortage { pool: true, ..Shortage::default() };
    assert_eq!(desk.step(ask(3, not_in(0b01)))[..1], [waits(3, lost)], "it is refused only where it could never be");
    let answers = desk.step(ToPlacer::Find { pool: 1 });
    let granted = |answer: &FromPlacer| matches!(answer, FromPlacer::Grant { place, .. } if place.pool == 1);
    assert!(answers.iter().any(granted), "{answers:?}");
    assert_eq!((desk.placer.granted_in(0), desk.placer.granted_in(1)), ((1, 4, 0), (2, 8, 0)));
}

#[test]
fn fairness_lets_who_has_nothing_go_first_and_urgency_counts() {
    let mut desk = PlacerHarness::memory(4);
    for sequence in 1..=4 {
        desk.step(ask_for(1, sequence, memory(1), Urgency::Demand));
    }
    desk.at(100, ask_for(1, 5, memory(1), Urgency::Demand));
    desk.at(101, ask_for(3, 1, memory(1), Urgency::Minimum));
    desk.at(3_000, ask_for(2, 1, memory(1), Urgency::Demand));
    let granted = |answers: Vec<FromPlacer>| match answers.first() {
        Some(FromPlacer::Grant { instance, .. }) => Some(instance.core),
        _ => None,
    };
    assert_eq!(granted(desk.step(ToPlacer::Release { instance: id(1, 1) })), Some(2));
    assert_eq!(granted(desk.step(ToPlacer::Release { instance: id(1, 2) })), Some(1));
    assert_eq!(granted(desk.step(ToPlacer::Release { instance: id(1, 3) })), Some(3));
}

#[test]
fn memory_seen_in_use_counts_where_it_exceeds_the_declaration() {
    let mut desk = PlacerHarness::memory(10);
    desk.step(ask(1, memory(2)));
    desk.step(ToPlacer::Observed { instance: id(1, 1), memory: Some(7), gpu: None });
    assert_eq!(desk.step(ask(2, memory(4)))[..1], [waits(2, MEMORY)]);
    assert_eq!(desk.step(ToPlacer::Observed { instance: id(1, 1), memory: Some(3), gpu: None })[..1], [grant(2)]);
}

#[test]
fn who_declines_is_not_waited_for() {
    let mut desk = PlacerHarness::memory(10);
    desk.step(ask(1, memory(5)));
    desk.step(ask(2, memory(5)));
    desk.step(ask(3, memory(5)));
    assert_eq!(desk.step(offer(1, 1, 0)), [evict(1, MEMORY)]);
    assert_eq!(desk.step(offer(2, 1, 0)), []);
    assert_eq!(desk.step(ToPlacer::Declined { instance: id(1, 1) }), [evict(2, MEMORY)]);
    assert_eq!(desk.step(release(2))[..1], [grant(3)]);
}

/// Two functions change hands, a second each; `early` milliseconds after a change began the loser asks again. Returns how the
/// holder is pressed then, and the shares of the time.
fn alternate(early: u64) -> (u8, u32, u32) {
    let mut desk = PlacerHarness::memory(10);
    desk.at(0, ask(0, memory(10)));
    let mut pressed = 0;
    for round in 1..12 {
        let (holder, next) = ((round - 1) % 2, round % 2);
        let now = u64::from(round) * 1_000;
        let answers = desk.at(now, ask(next, memory(10)));
        if let Some(FromPlacer::Press { stretch, .. }) = answers.last() {
            pressed = *stretch;
        }
        let answers = desk.at(now, offer(holder, 10, 0));
        assert!(answers.contains(&evict(holder, MEMORY)), "{round} {answers:?}");
        if early < 900 {
            desk.at(now + early, ask_for(holder, 2, memory(10), Urgency::Demand));
            desk.at(now + early, ToPlacer::Release { instance: id(holder, 2) });
        }
        desk.at(now + 900, release(holder));
        desk.at(now + 900, ToPlacer::Serving { instance: id(next, 1) });
    }
    let now = Now { boot: 11_900, wall: 0 };
    (pressed, desk.placer.thrash(now), desk.placer.thrash_in_vain(now))
}

#[test]
fn only_changes_of_hands_in_vain_give_the_idle_a_turn() {
    let (pressed, share, in_vain) = alternate(u64::MAX);
    assert!(pressed == 0 && share > 500 && in_vain == 0, "{pressed} {share} {in_vain}");
    let (pressed, share, in_vain) = alternate(300);
    assert!(pressed == 2 && share > 500 && in_vain > 500, "{pressed} {share} {in_vain}");
}

#[test]
fn thrash_on_one_device_gives_nobody_on_another_a_turn() {
    let mut desk = PlacerHarness::devices(&[10, 10]);
    desk.at(0, ask(7, slice(9)));
    desk.at(0, ask(0, slice(9)));
    for round in 1..12 {
        let (holder, next, now) = ((round - 1) % 2, round % 2, u64::from(round) * 1_000);
        desk.at(now, ask(next, slice(9)));
        assert!(desk.at(now, offer(holder, 10, 0)).contains(&evict(holder, GPU)));
        desk.at(now + 300, ask_for(holder, 2, slice(9), Urgency::Demand));
        desk.at(now + 300, ToPlacer::Release { instance: id(holder, 2) });
        desk.at(now + 900, release(holder));
        desk.at(now + 900, ToPlacer::Serving { instance: id(next, 1) });
    }
    let mut answers = Vec::new();
    desk.placer.step(Now { boot: 13_000, wall: 0 }, ask(5, slice(9)), &mut answers);
    let pressed = |function: u32| {
        answers.iter().find_map(|answer| match answer {
            Message::ToFunction { function: to, message: FromPlacer::Press { stretch, .. } } => {
                (to.0 == function).then_some(*stretch)
            }
            _ => None,
        })
    };
    assert_eq!((pressed(1), pressed(7)), (Some(2), Some(0)), "{answers:?}");
}

#[test]
fn an_early_offer_goes_for_requests_and_new_versions_only() {
    for (urgency, yields) in [(Urgency::Demand, true), (Urgency::Candidate, true), (Urgency::Minimum, false)] {
        let mut desk = PlacerHarness::memory(10);
        desk.step(ask(1, memory(6)));
        desk.step(ask_for(2, 1, memory(6), urgency));
        let offer = Offer { restore: 10, unused_since: 0, busy: false, kept: false, early: true };
        let answers = desk.step(ToPlacer::Offer { instance: id(1, 1), offer });
        assert_eq!(!answers.is_empty(), yields, "{urgency:?}");
    }
}

#[test]
fn who_made_room_for_a_new_version_that_fails_is_told_to_come_back() {
    for (urgency, serves, back) in
        [(Urgency::Candidate, false, true), (Urgency::Candidate, true, false), (Urgency::Demand, false, false)]
    {
        let mut desk = PlacerHarness::memory(10);
        desk.step(ask(1, memory(6)));
        desk.step(ask_for(2, 1, memory(6), urgency));
        let asked = desk.whole(3, offer(1, 10, 0));
        assert_eq!(asked, [FromPlacer::Evict { instance: id(1, 1), lack: MEMORY, by: Some(CoreNumber(2)) }]);
        let granted = desk.whole(4, release(1));
        assert!(
            matches!(granted[..], [FromPlacer::Grant { from: Some(CoreNumber(1)), .. }, ..]),
            "the winner knows whose room it has: {granted:?}"
        );
        if serves {
            desk.step(ToPlacer::Serving { instance: id(2, 1) });
        }
        let answers = desk.step(release(2));
        let told = answers.contains(&FromPlacer::Restore { version: VersionId(1) });
        assert_eq!(told, back, "{urgency:?} {answers:?}");
    }
}

#[test]
fn device_memory_that_is_used_beyond_what_is_declared_is_nobody_elses() {
    let mut desk = PlacerHarness::devices(&[24]);
    assert_eq!(desk.step(ask(1, slice(10))), [grant_on(1, 1)]);
    let observed = |memory, gpu| ToPlacer::Observed { instance: id(1, 1), memory, gpu };
    desk.step(observed(None, Some(20)));
    assert_eq!(desk.placer.devices()[0].granted, 20);
    assert_eq!(desk.step(ask(2, slice(10))), [waits(2, GPU), PRESS]);
    desk.step(observed(Some(3), None));
    assert_eq!((desk.placer.devices()[0].granted, desk.placer.ledger().0), (20, 3), "one says nothing of the other");
    let parked = ToPlacer::Rests { instance: id(1, 1), rung: Rung::Parked };
    assert_eq!(desk.step(parked)[..1], [grant_on(2, 1)], "what is parked gave it back");
    let wakes = ask(1, slice(10));
    assert_eq!(desk.step(wakes)[..1], [waits(1, GPU)], "and wants back what it used");
    assert_eq!(desk.step(release(2))[..1], [grant_on(1, 1)]);
    assert_eq!(desk.placer.devices()[0].granted, 20);
    desk.step(observed(None, Some(4)));
    assert_eq!(desk.placer.devices()[0].granted, 10, "what is declared is charged in any case");
}

#[test]
fn what_a_parked_instance_keeps_of_its_device_stays_charged_until_it_wakes() {
    let mut desk = PlacerHarness::devices(&[24]);
    assert_eq!(desk.step(ask(1, slice(20))), [grant_on(1, 1)]);
    desk.step(ToPlacer::Residue { instance: id(1, 1), memory: 0, gpu: 3 });
    assert_eq!(desk.placer.devices()[0].granted, 20, "it is awake");
    desk.step(ToPlacer::Rests { instance: id(1, 1), rung: Rung::Parked });
    assert_eq!(desk.placer.devices()[0].granted, 3);
    assert_eq!(desk.step(ask(2, slice(21))), [grant_on(2, 1)]);
    assert_eq!(desk.step(ask(1, slice(20)))[..1], [waits(1, GPU)], "17 more are missing");
    assert_eq!(desk.step(release(2))[..1], [grant_on(1, 1)]);
    assert_eq!(desk.placer.devices()[0].granted, 20);
}

fn whole_place(devices: u64) -> Place {
    Place { devices, ..Place::default() }
}

#[test]
fn a_yielded_device_is_asked_back_from_everybody_and_nothing_is_granted_on_it() {
    let mut desk = PlacerHarness::devices(&[10, 10]);
    assert_eq!(desk.step(ask(1, slice(10))), [grant_on(1, 0b01)]);
    assert_eq!(desk.step(ask(2, slice(10))), [grant_on(2, 0b10)]);
    let yielded = Shortage { yielded: Some(9_000), ..GPU };
    let first = ToPlacer::Yield { place: whole_place(0b01), until: 9_000 };
    assert_eq!(desk.step(first), [evict(1, yielded)], "who is on the other device is not concerned");
    assert_eq!(desk.step(first), [], "it was asked already");
    desk.step(ToPlacer::Declined { instance: id(1, 1) });
    assert_eq!(desk.step(first), [evict(1, yielded)], "and is asked again after it could not");
    desk.step(release(1));
    assert_eq!(desk.step(ask(3, slice(10))), [waits(3, GPU), PRESS], "the other device could still do");
    let second = ToPlacer::Yield { place: whole_place(0b10), until: 8_000 };
    assert!(desk.step(second).contains(&waits(3, Shortage { yielded: Some(8_000), ..GPU })), "now it cannot");
    assert_eq!(desk.step(ask(4, memory(1)))[0], grant(4), "who needs no device is not concerned");
    assert_eq!(desk.step(ToPlacer::Regain { place: whole_place(0b01) })[0], grant_on(3, 0b01));
}

#[test]
fn a_sleeper_of_a_yielded_device_ends_where_another_device_would_do() {
    let mut desk = PlacerHarness::devices(&[10, 10]);
    desk.step(ask(1, slice(6)));
    desk.step(ToPlacer::Rests { instance: id(1, 1), rung: Rung::Parked });
    let place = whole_place(0b01);
    assert_eq!(desk.step(ToPlacer::Yield { place, until: u64::MAX }), [], "it holds nothing of the device");
    let answers = desk.step(ask(1, slice(6)));
    let stop = Shortage { quota: true, yielded: Some(u64::MAX), ..GPU };
    assert!(answers.contains(&evict(1, stop)), "{answers:?}");
    // With no other device it stays as it is, and its callers are told.
    let mut one = PlacerHarness::devices(&[10]);
    one.step(ask(1, slice(6)));
    one.step(ToPlacer::Rests { instance: id(1, 1), rung: Rung::Parked });
    one.step(ToPlacer::Yield { place, until: u64::MAX });
    assert_eq!(one.step(ask(1, slice(6))), [waits(1, Shortage { yielded: Some(u64::MAX), ..GPU })]);
}

#[test]
fn a_measured_size_makes_room_and_a_quota_applies_from_then_on() {
    let mut desk = PlacerHarness::devices(&[10]);
    let whole = RoomNeed { gpu: Gpu::Cards(1), ..RoomNeed::default() };
    desk.step(ask(1, whole));
    assert_eq!(desk.step(ask(2, slice(4)))[0], waits(2, GPU));
    assert_eq!(desk.step(ToPlacer::Resize { instance: id(1, 1), gpu: Gpu::Slice(5) })[0], grant_on(2, 1));
    desk.step(ToPlacer::Limit(Quota { cards: None, instances: Some(2) }));
    assert_eq!(desk.step(ask(3, slice(1)))[0], waits(3, Shortage { quota: true, ..Shortage::default() }));
    assert!(desk.step(ToPlacer::Limit(Quota::default())).contains(&grant_on(3, 1)));
}

/// Seed 9300116906: a wake waited for the CPU that was kept for somebody who stood back for a third one.
#[test]
fn who_stands_back_keeps_nothing_from_those_behind() {
    let mut inventory = Inventory::of_memory(1_000);
    inventory.pools[0].hosts[0].cpu = 10;
    inventory.pools[0].hosts[0].devices = vec![Device { name: "d".to_owned(), kind: DeviceKind::ANY, memory: 10 }];
    let mut placer = PlacerHarness::new(inventory);
    let need = |cpu, bytes| RoomNeed { cpu, gpu: Gpu::Slice(bytes), ..RoomNeed::default() };
    // One sleeps with its part of the device, and another one works with all of the CPU.
    placer.at(1, ask(1, need(5, 4)));
    placer.at(2, ToPlacer::Rests { instance: id(1, 1), rung: Rung::Paused });
    placer.at(3, ask(2, RoomNeed { cpu: 10, ..RoomNeed::default() }));
    // The third wants the whole device: the sleeper's part is not offered, so it waits, and is not overtaken after a while.
    placer.at(4, ask(3, slice(10)));
    // The fourth wants CPU and a part of the device; the one that works leaves for it.
    placer.at(10, ask_for(4, 1, need(10, 4), Urgency::Minimum));
    let evicted = placer.at(11, offer(2, 1, 0));
    assert!(matches!(evicted[..], [FromPlacer::Evict { instance, .. }] if instance == id(2, 1)), "{evicted:?}");
    placer.at(40_000, ask(1, need(5, 4)));
    let granted = placer.at(40_001, ToPlacer::Release { instance: id(2, 1) });
    let wakes = |answer: &FromPlacer| matches!(answer, FromPlacer::Grant { instance, .. } if *instance == id(1, 1));
    assert!(granted.iter().any(wakes), "{granted:?}");
}

#[test]
fn whoever_is_missed_least_is_evicted_whoever_offers_first() {
    // As the router does it: what was posted first comes first.
    for slow in [1, 2, 3] {
        let mut placer = Placer::new(Inventory::of_memory(12));
        let mut queue = std::collections::VecDeque::new();
        let step = |placer: &mut Placer, queue: &mut std::collections::VecDeque<Message>, message| {
            let mut answers = Vec::new();
            placer.step(Now { boot: 1_000, wall: 0 }, message, &mut answers);
            queue.extend(answers);
        };
        for function in 1..=3 {
            step(&mut placer, &mut queue, ask(function, memory(4)));
        }
        queue.clear();
        step(&mut placer, &mut queue, ask(9, memory(4)));
        let mut evicted = Vec::new();
        while let Some(message) = queue.pop_front() {
            match message {
                Message::ToPlacer(message) => step(&mut placer, &mut queue, message),
                Message::ToFunction { function, message: FromPlacer::Press { .. } } => {
                    let restore = if function.0 == slow { 1 } else { 60_000 };
                    queue.push_back(Message::ToPlacer(offer(function.0, restore, 0)));
                }
                Message::ToFunction { function, message: FromPlacer::Evict { .. } } => evicted.push(function.0),
                Message::ToFunction { .. } => {}
            }
        }
        assert_eq!(evicted, [slow]);
    }
}

#[test]
fn the_less_important_goes_though_it_is_missed_more_and_waits_longer() {
    let of = |priority, bytes| RoomNeed { priority, ..memory(bytes) };
    // Somebody has waited all along, so that both offers are known.
    let mut both = PlacerHarness::memory(12);
    for (function, priority) in [(1, FunctionPriority::High), (2, FunctionPriority::Low), (3, FunctionPriority::Normal)]
    {
        both.step(ask(function, of(priority, 4)));
    }
    both.step(ask(8, memory(12)));
    for (function, restore) in [(1, 1), (2, 60_000)] {
        both.step(offer(function, restore, 0));
    }
    assert_eq!(both.step(ask(9, memory(4))), [waits(9, MEMORY), evict(2, MEMORY)]);

    // Of those that wait the more important come first, whoever came before; for a time.
    let order = |gap: u64| {
        let mut desk = PlacerHarness::memory(4);
        desk.step(ask(1, memory(4)));
        for (function, priority) in [(2, FunctionPriority::Low), (3, FunctionPriority::Normal)] {
            desk.step(ask(function, of(priority, 4)));
        }
        desk.at(gap, ask(4, of(FunctionPriority::High, 4)));
        let mut served = Vec::new();
        while served.len() < 3 {
            let holder = served.last().copied().unwrap_or(1);
            let answers = desk.step(ToPlacer::Release { instance: id(holder, 1) });
            served.extend(answers.iter().filter_map(|answer| match answer {
                FromPlacer::Grant { instance, .. } => Some(instance.core),
                _ => None,
            }));
        }
        served
    };
    assert_eq!(order(10_000), [4, 3, 2]);
    assert_eq!(order(70_000), [3, 2, 4], "nobody waits for ever");
}
