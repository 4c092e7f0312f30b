//! What instances cost: their time by state, what they reserve, and a price book.

use std::collections::BTreeMap;

use kip_fleet::State;
use kip_fleet::state::PriceClass;
use kip_spec::function::{GpuNeed, Resources};
use kip_wire::VersionUsage;

use super::book::{PriceBook, Rate};
use super::money::Money;

/// The time of instances in billing units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Priced {
    /// Milliseconds at the active price.
    pub active_ms: u64,
    /// Milliseconds at the idle price.
    pub idle_ms: u64,
    /// Milliseconds by state.
    pub times: BTreeMap<String, u64>,
    /// Billing units.
    pub units: Money,
    /// The billing units if all of the time were at the active price.
    pub units_all_active: Money,
    /// A type of device that the price book has no price for.
    pub unpriced: Option<String>,
}

impl Priced {
    /// Adds another version's.
    pub fn add(&mut self, other: &Self) {
        self.active_ms += other.active_ms;
        self.idle_ms += other.idle_ms;
        for (state, time) in &other.times {
            *self.times.entry(state.clone()).or_default() += time;
        }
        self.units = self.units + other.units;
        self.units_all_active = self.units_all_active + other.units_all_active;
        self.unpriced = self.unpriced.take().or_else(|| other.unpriced.clone());
    }
}

/// Bytes of a GiB.
const GIB: i128 = 1 << 30;

/// The billing units of a version's time. `idle_mode` says whether time without a request is at the idle price while the instance is
/// hot: where instances are paused soon, that is what it is.
pub fn bill(book: &PriceBook, resources: &Resources, idle_mode: bool, usage: &VersionUsage) -> Priced {
    let mut priced = Priced::default();
    for (state, time) in usage.times.values().flatten() {
        *priced.times.entry(state.clone()).or_default() += time;
        match class(state) {
            Some(PriceClass::Active | PriceClass::ActiveWithWork) => priced.active_ms += time,
            Some(PriceClass::ActiveOrIdle) if !idle_mode => priced.active_ms += time,
            Some(PriceClass::ActiveOrIdle | PriceClass::Idle) => priced.idle_ms += time,
            Some(PriceClass::Free) | None => {}
        }
    }
    let (second, unpriced) = second(book, resources);
    priced.unpriced = unpriced;
    let of = |price: Money, millis: u64| price.times(i128::from(millis), 1_000);
    let requests = book.requests.times(i128::from(usage.served), 10_000);
    priced.units = of(second.active, priced.active_ms) + of(second.idle, priced.idle_ms) + requests;
    priced.units_all_active = of(second.active, priced.active_ms + priced.idle_ms) + requests;
    priced
}

/// The billing units of a second of an instance, and a type of device that has no price.
pub(super) fn second(book: &PriceBook, resources: &Resources) -> (Rate, Option<String>) {
    let (mut second, mut unpriced) = (Rate::default(), None);
    let mut take = |rate: Rate, numerator: i128, denominator: i128| {
        second.active = second.active + rate.active.times(numerator, denominator);
        second.idle = second.idle + rate.idle.times(numerator, denominator);
    };
    if let Some(cpu) = resources.cpu {
        take(book.cpu, i128::from(cpu.0), 1_000);
    }
    if let Some(memory) = resources.memory {
        take(book.memory, i128::from(memory.0), GIB);
    }
    if let Some(gpu) = &resources.gpu {
        let kind = gpu.kind.as_deref();
        let size = |cards: u8| Some(book.card(kind)?.times(i128::from(cards), 1));
        let size = match gpu.need {
            GpuNeed::Memory(bytes) => Some(Money::whole(1).times(i128::from(bytes.0), GIB)),
            GpuNeed::Cards(cards) => size(cards),
            // What it was measured to need is not known here.
            GpuNeed::Measured => size(1),
        };
        match book.device(kind).zip(size) {
            Some((rate, size)) => take(Rate { active: rate.active.by(size), idle: rate.idle.by(size) }, 1, 1),
            None => unpriced = Some(kind.unwrap_or("any").to_owned()),
        }
    }
    (second, unpriced)
}

/// The price class of a state by its name; none of what is gone.
fn class(name: &str) -> Option<PriceClass> {
    State::named(name).map(State::price)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::book::Tier;
    use kip_spec::function::GpuResources;
    use kip_spec::{Bytes, MilliCpu, VersionId};

    fn usage(served: u64, times: &[(&str, u64)]) -> VersionUsage {
        let times: BTreeMap<String, u64> = times.iter().map(|(state, time)| ((*state).to_owned(), *time)).collect();
        VersionUsage {
            version: VersionId(1),
            label: "1".to_owned(),
            instances: 1,
            living: 1,
            served,
            total_ms: times.values().sum(),
            times: [("on-demand".to_owned(), times)].into(),
        }
    }

    fn gpu(gib: u64) -> Resources {
        let need = GpuNeed::Memory(Bytes(gib << 30));
        Resources {
            gpu: Some(GpuResources { need, kind: Some("Tesla".to_owned()), isolation: Default::default() }),
            ..Resources::default()
        }
    }

    /// The vendor's own example of idle mode: 16 GB for an hour, 1,800 requests of a second; 1.0368 USD without it and 0.7200 with it.
    #[test]
    fn the_example_of_the_vendor() {
        let book = PriceBook {
            tiers: vec![Tier { up_to: None, price: Money::whole(1) }],
            gpu: [("any".to_owned(), Rate { active: "0.000018".parse().unwrap(), idle: "0.000007".parse().unwrap() })]
                .into(),
            requests: Money::ZERO,
            ..PriceBook::function_compute()
        };
        let usage = usage(1_800, &[("busy", 1_800_000), ("paused", 1_800_000)]);
        let priced = bill(&book, &gpu(16), true, &usage);
        assert_eq!(book.price(priced.units).to_string(), "0.72");
        assert_eq!(book.price(priced.units_all_active).to_string(), "1.0368");
        assert_eq!((priced.active_ms, priced.idle_ms), (1_800_000, 1_800_000));
        assert_eq!(priced.times.values().sum::<u64>(), priced.active_ms + priced.idle_ms);
    }

    /// A T4 with 8 GB, 2 cores and 8 GB of memory for an hour, a quarter of it in use: 32,040 units; 72,000 if it were always active.
    #[test]
    fn units_of_an_hour() {
        let book = PriceBook { requests: Money::ZERO, ..PriceBook::function_compute() };
        let resources = Resources { cpu: Some(MilliCpu(2_000)), memory: Some(Bytes(8 << 30)), ..gpu(8) };
        let usage = usage(0, &[("busy", 900_000), ("ready", 700_000), ("paused", 2_000_000)]);
        let priced = bill(&book, &resources, true, &usage);
        assert_eq!(priced.units.to_string(), "32040");
        assert_eq!(priced.units_all_active.to_string(), "72000");
        // Without an idle mode, hot time costs what active time does.
        assert_eq!(bill(&book, &resources, false, &usage).active_ms, 1_600_000);
    }

    /// (1 - u)(1 - r) of the price is saved where u of the time is active and idle time costs r of active time.
    #[test]
    fn the_saving_identity() {
        let book = PriceBook::function_compute();
        for (active, saved) in [(360_000, "0.686"), (720_000, "0.610"), (1_080_000, "0.533")] {
            let usage = usage(0, &[("busy", active), ("paused", 3_600_000 - active)]);
            let priced = bill(&book, &gpu(16), true, &usage);
            let share = (priced.units_all_active - priced.units).over(priced.units_all_active).unwrap();
            assert_eq!(share.rounded(3), saved);
        }
    }

    #[test]
    fn a_device_without_a_price_is_named() {
        let book = PriceBook { gpu: BTreeMap::new(), ..PriceBook::function_compute() };
        let priced = bill(&book, &gpu(16), true, &usage(0, &[("busy", 1_000)]));
        assert_eq!(priced.unpriced.as_deref(), Some("Tesla"));
    }
}
