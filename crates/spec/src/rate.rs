//! How many requests a caller may send in a time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most a rate can be: above this an interval would be shorter than the clock tells apart.
const MOST_PER_SECOND: u64 = 1_000_000;

const PERIODS: [(&str, u64); 4] = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Requests in a period. Text form: `10/s`, `90/m`, `1000/h`, `5/d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    count: u32,
    period: u64,
}

/// Why a rate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not of the form.
    #[error("`{0}` is not a rate: write a whole number and a period, such as 10/s, 90/m, 1000/h or 5/d")]
    Form(String),
    /// Nothing would ever be let through.
    #[error("`{0}` would let nothing through: a rate is at least 1 in its period")]
    Zero(String),
    /// More than can be told apart.
    #[error("`{0}` is more than 1000000/s, the highest rate that can be kept")]
    TooHigh(String),
}

impl Rate {
    /// How long one request stands for, in nanoseconds.
    pub fn interval(self) -> u64 {
        self.period * 1_000_000 / u64::from(self.count)
    }

    /// Requests in a second, rounded up: what may come at once unless said otherwise.
    pub fn per_second(self) -> u32 {
        u32::try_from(u64::from(self.count).saturating_mul(1_000).div_ceil(self.period)).unwrap_or(u32::MAX)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let form = || RateError::Form(text.to_owned());
        let (count, period) = text.trim().split_once('/').ok_or_else(form)?;
        let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let period = PERIODS.iter().find(|(name, _)| *name == period).filter(|_| digits).ok_or_else(form)?.1;
        let too_high = || RateError::TooHigh(text.to_owned());
        let count: u32 = count.parse().map_err(|_| too_high())?;
        if count == 0 {
            return Err(RateError::Zero(text.to_owned()));
        }
        if u64::from(count) * 1_000 > MOST_PER_SECOND * period {
            return Err(too_high());
        }
        Ok(Self { count, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = PERIODS.iter().find(|(_, period)| *period == self.period).map_or("s", |(name, _)| name);
        write!(f, "{}/{name}", self.count)
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written_alike() {
        for (text, interval, per_second) in [
            ("10/s", 100_000_000, 10),
            ("90/m", 666_666_666, 2),
            ("1000/h", 3_600_000_000, 1),
            ("5/d", 17_280_000_000_000, 1),
            ("1000000/s", 1_000, 1_000_000),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.to_string().as_str(), rate.interval(), rate.per_second()), (text, interval, per_second));
        }
    }

    #[test]
    fn what_is_no_rate_says_why() {
        for wrong in ["", "10", "10/", "/s", "10/w", "-1/s", "+1/s", "1.5/s", "ten/s", "10 /s"] {
            assert_eq!(wrong.parse::<Rate>(), Err(RateError::Form(wrong.to_owned())), "{wrong}");
        }
        assert_eq!("0/s".parse::<Rate>(), Err(RateError::Zero("0/s".to_owned())));
        for high in ["1000001/s", "4294967296/h"] {
            assert_eq!(high.parse::<Rate>(), Err(RateError::TooHigh(high.to_owned())));
        }
    }
}
