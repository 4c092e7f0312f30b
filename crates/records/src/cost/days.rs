//! The cost of days, by what users ask for: functions, versions, keys, states, days.
//!
//! The sum is the same by whatever it is taken. The cost of a version's day is divided among the keys by the time that instances worked
//! on their requests; where nothing was asked, it belongs to no key.

use std::collections::BTreeMap;

use kip_fleet::State;
use kip_fleet::state::PriceClass;
use kip_spec::function::Resources;
use kip_store::SpentDays;
use kip_wire::{CostBy, CostRow, CostTable};

use super::bill::second;
use super::book::{PriceBook, Rate};
use super::money::Money;

/// Days from 1970-01-01 as users read them.
pub fn date(day: i64) -> String {
    let seconds = day.saturating_mul(86_400);
    let at = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

/// The first day of the month of a day.
pub fn first_of_month(day: i64) -> i64 {
    let at = jiff::Timestamp::from_second(day.saturating_mul(86_400)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    day - i64::from(at.to_zoned(jiff::tz::TimeZone::UTC).day()) + 1
}

/// A part of what there is to pay for.
#[derive(Debug, Clone)]
struct Part<'a> {
    day: i64,
    function: &'a str,
    version: u64,
    key: Option<&'a str>,
    state: Option<&'a str>,
    active_ms: u64,
    idle_ms: u64,
    requests: u64,
    units: Money,
    full: Money,
}

/// What is known of a version's prices.
#[derive(Debug, Clone, Default)]
struct Prices {
    label: String,
    second: Rate,
    pauses: bool,
    unpriced: Option<String>,
}

/// A version's day.
#[derive(Debug, Default)]
struct Day<'a> {
    states: Vec<(&'a str, u64)>,
    keys: Vec<(&'a str, u64, u64)>,
}

impl Prices {
    /// Milliseconds in a state at the active and at the idle price.
    fn times(&self, state: &str, millis: u64) -> (u64, u64) {
        match State::named(state).map(State::price) {
            Some(PriceClass::Active | PriceClass::ActiveWithWork) => (millis, 0),
            Some(PriceClass::ActiveOrIdle) if !self.pauses => (millis, 0),
            Some(PriceClass::ActiveOrIdle | PriceClass::Idle) => (0, millis),
            Some(PriceClass::Free) | None => (0, 0),
        }
    }

    /// Units of time, and if all of it were at the active price.
    fn units(&self, active: u64, idle: u64) -> (Money, Money) {
        let of = |price: Money, millis: u64| price.times(i128::from(millis), 1_000);
        let (active_part, full) = (of(self.second.active, active), of(self.second.active, active + idle));
        (active_part + of(self.second.idle, idle), full)
    }
}

/// The cost of these days for the functions that fit, by these.
pub fn cost_of_days(book: &PriceBook, spent: &SpentDays, by: &[CostBy], fits: impl Fn(&str) -> bool) -> CostTable {
    let prices: BTreeMap<u64, Prices> = spent
        .versions
        .iter()
        .map(|version| {
            let resources: Resources = serde_json::from_str(&version.resources).unwrap_or_default();
            let (second, unpriced) = second(book, &resources);
            let (label, pauses) = (version.label.clone(), version.pauses);
            (version.version, Prices { label, second, pauses, unpriced })
        })
        .collect();
    let unknown = Prices::default();
    let mut days: BTreeMap<(i64, &str, u64), Day<'_>> = BTreeMap::new();
    for time in spent.instances.iter().filter(|time| fits(&time.function)) {
        let day = days.entry((time.day, &time.function, time.version)).or_default();
        day.states.push((&time.state, time.millis));
    }
    for time in spent.keys.iter().filter(|time| fits(&time.function)) {
        let day = days.entry((time.day, &time.function, time.version)).or_default();
        day.keys.push((&time.key, time.requests, time.micros));
    }
    let mut parts = Vec::new();
    for ((day, function, version), spent) in &days {
        let prices = prices.get(version).unwrap_or(&unknown);
        let own = Part {
            day: *day,
            function,
            version: *version,
            key: None,
            state: None,
            active_ms: 0,
            idle_ms: 0,
            requests: 0,
            units: Money::ZERO,
            full: Money::ZERO,
        };
        let states = spent.states.iter().map(|(state, millis)| {
            let (active_ms, idle_ms) = prices.times(state, *millis);
            let (units, full) = prices.units(active_ms, idle_ms);
            Part { state: Some(state), active_ms, idle_ms, units, full, ..own.clone() }
        });
        let requests = spent.keys.iter().map(|(key, requests, _)| {
            let units = book.requests.times(i128::from(*requests), 10_000);
            Part { key: Some(key), requests: *requests, units, full: units, ..own.clone() }
        });
        parts.extend(requests);
        if by.contains(&CostBy::Key) {
            parts.extend(states.flat_map(|part| divided(&part, &spent.keys)));
        } else {
            parts.extend(states);
        }
    }
    table(book, &prices, by, &parts)
}

/// A part as the parts of keys: by the time of their requests, the last one with what is left.
fn divided<'a>(part: &Part<'a>, keys: &[(&'a str, u64, u64)]) -> Vec<Part<'a>> {
    let all: u128 = keys.iter().map(|(.., micros)| u128::from(*micros)).sum();
    if all == 0 {
        return vec![Part { key: Some(""), ..part.clone() }];
    }
    let mut left = part.clone();
    let mut before = 0u128;
    let mut parts = Vec::with_capacity(keys.len());
    for (key, _, micros) in keys {
        before += u128::from(*micros);
        let rest = all - before + u128::from(*micros);
        let of = |number: u64| u64::try_from(u128::from(number) * u128::from(*micros) / rest).unwrap_or(number);
        let of_money = |money: Money| money.times(i128::from(*micros), i128::try_from(rest).unwrap_or(i128::MAX));
        let mut own = Part { key: Some(key), ..part.clone() };
        (own.active_ms, own.idle_ms) = (of(left.active_ms), of(left.idle_ms));
        (own.units, own.full) = (of_money(left.units), of_money(left.full));
        (left.active_ms, left.idle_ms) = (left.active_ms - own.active_ms, left.idle_ms - own.idle_ms);
        (left.units, left.full) = (left.units - own.units, left.full - own.full);
        parts.push(own);
        if rest == u128::from(*micros) {
            break;
        }
    }
    parts
}

fn table(book: &PriceBook, prices: &BTreeMap<u64, Prices>, by: &[CostBy], parts: &[Part<'_>]) -> CostTable {
    let mut rows: BTreeMap<Vec<String>, Part<'_>> = BTreeMap::new();
    for part in parts {
        let name = |by: &CostBy| match by {
            CostBy::Function => part.function.to_owned(),
            CostBy::Version => {
                let label = prices.get(&part.version).map(|prices| prices.label.clone());
                format!("{} {}", part.function, label.unwrap_or_else(|| part.version.to_string()))
            }
            CostBy::Key => part.key.filter(|key| !key.is_empty()).unwrap_or("-").to_owned(),
            CostBy::State => part.state.unwrap_or("requests").to_owned(),
            CostBy::Day => date(part.day),
        };
        let row = rows.entry(by.iter().map(name).collect()).or_insert_with(|| Part {
            active_ms: 0,
            idle_ms: 0,
            requests: 0,
            units: Money::ZERO,
            full: Money::ZERO,
            ..part.clone()
        });
        row.active_ms += part.active_ms;
        row.idle_ms += part.idle_ms;
        row.requests += part.requests;
        (row.units, row.full) = (row.units + part.units, row.full + part.full);
    }
    let sum = |of: fn(&Part<'_>) -> Money| parts.iter().fold(Money::ZERO, |sum, part| sum + of(part));
    let (units, full) = (sum(|part| part.units), sum(|part| part.full));
    // The tiers are those of all together; each row has its part of the sum.
    let (total, total_all_active) = (book.price(units), book.price(full));
    let share = |part: Money, of: Money, price: Money| part.over(of).map_or(Money::ZERO, |part| part.by(price));
    let used = parts.iter().map(|part| part.version).collect::<std::collections::BTreeSet<u64>>();
    let unpriced = prices.iter().filter(|(version, _)| used.contains(version));
    let mut unpriced: Vec<String> = unpriced.filter_map(|(_, prices)| prices.unpriced.clone()).collect();
    unpriced.sort();
    unpriced.dedup();
    CostTable {
        book: book.name.clone(),
        currency: book.currency.clone(),
        from: String::new(),
        to: String::new(),
        by: by.to_vec(),
        rows: rows
            .into_iter()
            .map(|(names, part)| CostRow {
                names,
                active_ms: part.active_ms,
                idle_ms: part.idle_ms,
                requests: part.requests,
                units: part.units.rounded(2),
                cost: share(part.units, units, total).rounded(6),
                cost_all_active: share(part.full, full, total_all_active).rounded(6),
            })
            .collect(),
        total: total.rounded(6),
        total_all_active: total_all_active.rounded(6),
        unpriced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::book::Tier;
    use kip_spec::MilliCpu;
    use kip_store::{InstanceTime, KeyTime, PricedVersion};

    fn book() -> PriceBook {
        PriceBook {
            tiers: vec![Tier { up_to: None, price: Money::whole(1) }],
            cpu: Rate { active: "0.01".parse().unwrap(), idle: "0.001".parse().unwrap() },
            requests: Money::whole(2),
            ..PriceBook::function_compute()
        }
    }

    fn time(day: i64, function: &str, version: u64, state: &str, millis: u64) -> InstanceTime {
        InstanceTime { day, function: function.to_owned(), version, state: state.to_owned(), millis }
    }

    fn key(day: i64, function: &str, version: u64, key: &str, requests: u64, micros: u64) -> KeyTime {
        KeyTime { day, function: function.to_owned(), version, key: key.to_owned(), requests, micros }
    }

    /// Two functions on two days: 100 s and 300 s of work, sleep, and two keys.
    fn spent() -> SpentDays {
        let resources = Resources { cpu: Some(MilliCpu(1_000)), ..Resources::default() };
        let version = |version, label: &str| PricedVersion {
            version,
            label: label.to_owned(),
            resources: serde_json::to_string(&resources).unwrap(),
            pauses: true,
        };
        SpentDays {
            instances: vec![
                time(20_000, "f", 1, "busy", 100_000),
                time(20_000, "f", 1, "paused", 1_000_000),
                time(20_001, "f", 2, "busy", 300_000),
                time(20_001, "g", 3, "ready", 10_001),
            ],
            keys: vec![
                key(20_000, "f", 1, "", 5_000, 30_000_000),
                key(20_000, "f", 1, "anna", 5_000, 60_000_000),
                key(20_001, "f", 2, "anna", 1, 7),
            ],
            versions: vec![version(1, "1"), version(2, "2"), version(3, "1")],
        }
    }

    fn rows(by: &[CostBy]) -> Vec<(String, String)> {
        let table = cost_of_days(&book(), &spent(), by, |_| true);
        table.rows.into_iter().map(|row| (row.names.join(" "), row.cost)).collect()
    }

    fn shown(rows: &[(&str, &str)]) -> Vec<(String, String)> {
        rows.iter().map(|(name, cost)| ((*name).to_owned(), (*cost).to_owned())).collect()
    }

    #[test]
    fn by_each_dimension() {
        // 1 + 1 + 3 + 0.010001 of time, 2.0002 of requests.
        assert_eq!(rows(&[CostBy::Function]), shown(&[("f", "7.000200"), ("g", "0.010001")]));
        assert_eq!(rows(&[CostBy::Day]), shown(&[("2024-10-04", "4.000000"), ("2024-10-05", "3.010201")]));
        assert_eq!(rows(&[CostBy::Version]), shown(&[("f 1", "4.000000"), ("f 2", "3.000200"), ("g 1", "0.010001")]));
        assert_eq!(
            rows(&[CostBy::State]),
            shown(&[("busy", "4.000000"), ("paused", "1.000000"), ("ready", "0.010001"), ("requests", "2.000200")])
        );
        // A third of 2 and half of the requests have no key; nobody asked g.
        assert_eq!(rows(&[CostBy::Key]), shown(&[("-", "1.676668"), ("anna", "5.333533")]));
        assert_eq!(
            rows(&[CostBy::Function, CostBy::Key]),
            shown(&[("f -", "1.666667"), ("f anna", "5.333533"), ("g -", "0.010001")])
        );
    }

    #[test]
    fn the_sum_is_the_same_by_whatever_it_is_taken() {
        use CostBy::{Day, Function, Key, State, Version};
        let total = |by: &[CostBy]| {
            let table = cost_of_days(&book(), &spent(), by, |_| true);
            let times = table
                .rows
                .iter()
                .fold((0, 0, 0), |sum, row| (sum.0 + row.active_ms, sum.1 + row.idle_ms, sum.2 + row.requests));
            (table.total, table.total_all_active, times)
        };
        let all = total(&[]);
        assert_eq!(all.2, (400_000, 1_010_001, 10_001));
        for by in [&[Function][..], &[Version], &[Key], &[State], &[Day], &[Day, Key, Version], &[Function, State]] {
            assert_eq!(total(by), all, "{by:?}");
        }
    }

    #[test]
    fn only_the_functions_that_fit() {
        let table = cost_of_days(&book(), &spent(), &[CostBy::Function], |name| name == "g");
        assert_eq!(table.rows.len(), 1);
        assert_eq!(table.total, "0.010001");
    }

    #[test]
    fn days_and_months() {
        assert_eq!((date(0), date(20_000), date(-1)), ("1970-01-01".into(), "2024-10-04".into(), "1969-12-31".into()));
        assert_eq!(date(first_of_month(20_000)), "2024-10-01");
        assert_eq!(first_of_month(first_of_month(20_000)), first_of_month(20_000));
    }
}
