//! The price of a card that somebody owns, as a price book: what it cost, for how long it is used, and its power.

use std::collections::BTreeMap;

use super::book::{PriceBook, Rate, Tier};
use super::money::Money;

/// A card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// What it cost.
    pub price: Money,
    /// For how many years it is used.
    pub years: Money,
    /// The price of a kWh.
    pub kwh: Money,
    /// What it takes while it works, watts.
    pub watts: Money,
    /// What it takes while it does not, watts.
    pub idle_watts: Money,
    /// Its memory, GiB.
    pub gib: Money,
}

/// Why no price follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// A card of no life or no memory costs nothing a second.
    #[error("{0} is not above 0")]
    NotPositive(&'static str),
    /// Nothing is paid back.
    #[error("{0} is below 0")]
    Negative(&'static str),
}

/// Seconds of 365 days.
const YEAR: i128 = 31_536_000;
/// Watt-seconds of a kWh.
const KWH: i128 = 3_600_000;

impl Card {
    /// The price book of a card: a GiB of its memory for a second costs its part of the price and of the power. An instance asleep pays for
    /// no part of the card: the card serves another one. Of whole cards, `any` has the memory of this one.
    ///
    /// # Errors
    /// A value is out of range.
    pub fn book(&self, currency: &str) -> Result<PriceBook, CardError> {
        for (name, value) in [("--years", self.years), ("--card-memory", self.gib)] {
            if value <= Money::ZERO {
                return Err(CardError::NotPositive(name));
            }
        }
        let others = [
            ("--card-price", self.price),
            ("--kwh", self.kwh),
            ("--watts", self.watts),
            ("--idle-watts", self.idle_watts),
        ];
        if let Some((name, _)) = others.into_iter().find(|(_, value)| *value < Money::ZERO) {
            return Err(CardError::Negative(name));
        }
        let per_gib = |amount: Money| amount.over(self.gib).unwrap_or(Money::ZERO);
        let worn = per_gib(self.price.times(1, YEAR).over(self.years).unwrap_or(Money::ZERO));
        let power = |watts: Money| per_gib(watts.by(self.kwh).times(1, KWH));
        let rate = Rate { active: worn + power(self.watts), idle: power(self.idle_watts) };
        Ok(PriceBook {
            name: "own cards".to_owned(),
            currency: currency.to_owned(),
            tiers: vec![Tier { up_to: None, price: Money::whole(1) }],
            cpu: Rate::default(),
            memory: Rate::default(),
            gpu: BTreeMap::from([("any".to_owned(), rate)]),
            card: BTreeMap::from([("any".to_owned(), self.gib)]),
            requests: Money::ZERO,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Money {
        text.parse().unwrap()
    }

    /// 24 GiB for 1,800 over three years, at 350 W and 0.30 a kWh.
    #[test]
    fn a_card_of_ones_own() {
        let card = Card {
            price: amount("1800"),
            years: amount("3"),
            kwh: amount("0.30"),
            watts: amount("350"),
            idle_watts: amount("0"),
            gib: amount("24"),
        };
        let priced = card.book("EUR").unwrap();
        let rate = priced.gpu["any"];
        // 1800 / (3 x 31,536,000 x 24) + 0.35 x 0.30 / (3,600 x 24)
        assert_eq!((rate.active.rounded(9).as_str(), rate.idle), ("0.000002008", Money::ZERO));
        assert!(priced.check().is_ok());
        assert_eq!(Card { years: Money::ZERO, ..card }.book("EUR"), Err(CardError::NotPositive("--years")));
        assert_eq!(Card { kwh: amount("-1"), ..card }.book("EUR"), Err(CardError::Negative("--kwh")));
        let idles = Card { idle_watts: amount("20"), ..card }.book("EUR").unwrap();
        assert!(idles.gpu["any"].idle > Money::ZERO);
    }
}
