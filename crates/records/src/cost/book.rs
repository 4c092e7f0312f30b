//! The price book: what a second of each resource costs, while it is used and while it is idle.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::money::Money;

/// What a resource costs for a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// While an instance is used.
    pub active: Money,
    /// While it is idle or asleep.
    pub idle: Money,
}

/// The price of a billing unit, up to a number of units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Up to so many units; none is the last tier.
    pub up_to: Option<Money>,
    /// The price of a unit.
    pub price: Money,
}

/// A price book. Rates are in billing units; tiers say what a unit costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceBook {
    /// What it is called.
    pub name: String,
    /// The currency, such as USD.
    pub currency: String,
    /// Prices of a billing unit, by how many were used.
    pub tiers: Vec<Tier>,
    /// A core, for a second.
    #[serde(default)]
    pub cpu: Rate,
    /// A GiB of memory, for a second.
    #[serde(default)]
    pub memory: Rate,
    /// A GiB of the memory of a device, for a second, by the type of the device. `any` is for types that are not named.
    #[serde(default)]
    pub gpu: BTreeMap<String, Rate>,
    /// GiB of a whole device, by type, for functions that ask for cards. `any` is for types that are not named.
    #[serde(default)]
    pub card: BTreeMap<String, Money>,
    /// 10,000 requests.
    #[serde(default)]
    pub requests: Money,
}

/// Why a price book cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// No tier says what a unit costs.
    #[error("it has no tiers: write `[[tiers]]` with `price`")]
    NoTiers,
    /// The tiers do not go up, or the last one ends.
    #[error("its tiers must go up by `up_to`, and the last one has none")]
    Tiers,
    /// A price is below nothing.
    #[error("{0} is below zero")]
    Negative(String),
}

impl PriceBook {
    /// The factors of Function Compute's pay-as-you-go prices, in billing units (CU), with the international price of a unit in USD.
    ///
    /// Source: the vendor's pages "Billing overview" and "Pay-as-you-go", as of 2026-11; see docs/cost.md.
    pub fn function_compute() -> Self {
        let money = |text: &str| text.parse().unwrap_or_default();
        let rate = |active: &str, idle: &str| Rate { active: money(active), idle: money(idle) };
        let tier = |up_to: Option<&str>, price: &str| Tier { up_to: up_to.map(money), price: money(price) };
        Self {
            name: "Function Compute, international, pay as you go".to_owned(),
            currency: "USD".to_owned(),
            tiers: vec![
                tier(Some("100000000"), "0.000020"),
                tier(Some("500000000"), "0.000017"),
                tier(None, "0.000014"),
            ],
            cpu: rate("1", "0"),
            memory: rate("0.15", "0.15"),
            gpu: [("any", rate("2.1", "0.5")), ("tesla", rate("2.1", "0.5")), ("ada", rate("1.5", "0.25"))]
                .into_iter()
                .map(|(name, rate)| (name.to_owned(), rate))
                .collect(),
            card: [("any", "16"), ("tesla", "16"), ("ada", "48")]
                .into_iter()
                .map(|(name, size)| (name.to_owned(), money(size)))
                .collect(),
            requests: money("75"),
        }
    }

    /// Looks whether it can be used.
    ///
    /// # Errors
    /// [`BookError`].
    pub fn check(&self) -> Result<(), BookError> {
        let last = self.tiers.last().ok_or(BookError::NoTiers)?;
        let bounds: Option<Vec<Money>> = self.tiers[..self.tiers.len() - 1].iter().map(|tier| tier.up_to).collect();
        let bounds = bounds.ok_or(BookError::Tiers)?;
        if last.up_to.is_some() || bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(BookError::Tiers);
        }
        let rates = [("cpu", self.cpu), ("memory", self.memory)].map(|(name, rate)| (name.to_owned(), rate));
        let devices = self.gpu.iter().map(|(name, rate)| (format!("gpu.{name}"), *rate));
        let of_rates = rates
            .into_iter()
            .chain(devices)
            .flat_map(|(name, rate)| [(format!("{name}.active"), rate.active), (format!("{name}.idle"), rate.idle)]);
        let of_tiers = self.tiers.iter().map(|tier| ("tiers.price".to_owned(), tier.price));
        let others = [("requests".to_owned(), self.requests)];
        match of_rates.chain(of_tiers).chain(others).find(|(_, price)| *price < Money::ZERO) {
            Some((name, _)) => Err(BookError::Negative(name)),
            None => Ok(()),
        }
    }

    /// What so many billing units cost.
    pub fn price(&self, units: Money) -> Money {
        let (mut below, mut sum) = (Money::ZERO, Money::ZERO);
        for tier in &self.tiers {
            let end = tier.up_to.map_or(units, |up_to| up_to.min(units));
            if end > below {
                sum = sum + (end - below).by(tier.price);
                below = end;
            }
        }
        sum
    }

    /// What a type of device costs.
    pub(crate) fn device(&self, kind: Option<&str>) -> Option<Rate> {
        by_type(&self.gpu, kind)
    }

    /// GiB of a whole device of a type.
    pub(crate) fn card(&self, kind: Option<&str>) -> Option<Money> {
        by_type(&self.card, kind)
    }
}

fn by_type<T: Copy>(table: &BTreeMap<String, T>, kind: Option<&str>) -> Option<T> {
    let named = kind.and_then(|kind| table.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind)));
    named.map(|(_, value)| *value).or_else(|| table.get("any").copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_filled_one_after_the_other() {
        let book = PriceBook::function_compute();
        book.check().unwrap();
        let money = |text: &str| text.parse::<Money>().unwrap();
        assert_eq!(book.price(money("1000")).to_string(), "0.02");
        assert_eq!(book.price(money("100000000")).to_string(), "2000");
        assert_eq!(book.price(money("600000000")).to_string(), "10200", "2000 + 6800 + 1400");
        let broken = PriceBook { tiers: Vec::new(), ..book.clone() };
        assert_eq!(broken.check(), Err(BookError::NoTiers));
        let broken = PriceBook { tiers: vec![book.tiers[0].clone()], ..book.clone() };
        assert_eq!(broken.check(), Err(BookError::Tiers));
        let broken = PriceBook { requests: money("-1"), ..book };
        assert_eq!(broken.check(), Err(BookError::Negative("requests".to_owned())));
    }
}
