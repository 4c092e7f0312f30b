//! Amounts of money, exact: integers of 10^-12 of a currency's unit.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Decimal places that are kept.
const PLACES: usize = 12;
const ONE: i128 = 1_000_000_000_000;

/// An amount, or a price or factor without a unit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Money(i128);

/// A text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount: write digits with at most 12 decimal places, such as 0.00011")]
pub struct MoneyError(String);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many units.
    pub fn whole(units: i64) -> Self {
        Self(i128::from(units) * ONE)
    }

    /// This times a fraction. Rounded half away from zero, at the last place that is kept.
    #[must_use]
    pub fn times(self, numerator: i128, denominator: i128) -> Self {
        Self(divided(self.0.saturating_mul(numerator), denominator))
    }

    /// This times another: a price and a factor.
    #[must_use]
    pub fn by(self, factor: Self) -> Self {
        self.times(factor.0, ONE)
    }

    /// This as a share of another; none of nothing.
    pub fn share_of(self, whole: Self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "shares are for people")]
        (whole.0 != 0).then(|| self.0 as f64 / whole.0 as f64)
    }

    /// How often another goes into this, as a fraction with 12 places.
    pub fn over(self, other: Self) -> Option<Self> {
        (other.0 != 0).then(|| Self(divided(self.0.saturating_mul(ONE), other.0)))
    }

    /// Rounded half away from zero to so many decimal places, as text.
    pub fn rounded(self, places: usize) -> String {
        let places = places.min(PLACES);
        let step = 10_i128.pow(u32::try_from(PLACES - places).unwrap_or(0));
        let scaled = divided(self.0, step);
        let unit = 10_i128.pow(u32::try_from(places).unwrap_or(0));
        let sign = if scaled < 0 { "-" } else { "" };
        let (whole, part) = (scaled.abs() / unit, scaled.abs() % unit);
        if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part:0places$}") }
    }
}

fn divided(value: i128, by: i128) -> i128 {
    let half = by.abs() / 2;
    if (value < 0) == (by < 0) { (value.abs() + half) / by.abs() } else { -((value.abs() + half) / by.abs()) }
}

impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let wrong = || MoneyError(text.to_owned());
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 15 || part.len() > PLACES || !is_number(whole) || !is_number(part) {
            return Err(wrong());
        }
        if digits.contains('.') && part.is_empty() {
            return Err(wrong());
        }
        let whole: i128 = whole.parse().map_err(|_| wrong())?;
        let part: i128 = format!("{part:0<PLACES$}").parse().map_err(|_| wrong())?;
        Ok(Self(sign * (whole * ONE + part)))
    }
}

impl TryFrom<String> for Money {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl From<Money> for String {
    fn from(money: Money) -> Self {
        money.to_string()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.rounded(PLACES);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        f.write_str(if text.is_empty() { "0" } else { text })
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Money {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_exact_and_are_rounded_half_up_when_they_are_shown() {
        assert_eq!(money("0.00011").to_string(), "0.00011");
        assert_eq!((money("0.1") + money("0.2")).to_string(), "0.3");
        assert_eq!(money("738.81").rounded(2), "738.81");
        assert_eq!((money("1.005").rounded(2), money("-1.005").rounded(2)), ("1.01".to_owned(), "-1.01".to_owned()));
        assert_eq!(money("1006.65").rounded(0), "1007");
        assert_eq!(money("1").times(1, 3).to_string(), "0.333333333333");
        assert_eq!(money("-1").times(2, 3).to_string(), "-0.666666666667");
        assert_eq!(money("246.27").over(money("892.80")).unwrap().rounded(3), "0.276");
        assert_eq!(money("5").over(Money::ZERO), None);
        for wrong in ["", ".5", "1.", "1e3", "1,5", "0.0000000000001", "1234567890123456", "--1", "x"] {
            assert!(wrong.parse::<Money>().is_err(), "{wrong}");
        }
    }
}
