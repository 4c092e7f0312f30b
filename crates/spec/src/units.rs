//! Durations, sizes and CPU shares with their human text forms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a quantity was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Nothing, or something that does not begin with a number.
    #[error("`{text}` is not a {what}: expected a number with a unit, such as {example}")]
    NotANumber {
        /// What was given.
        text: String,
        /// The kind of quantity.
        what: &'static str,
        /// A value that would be taken.
        example: &'static str,
    },
    /// A number alone.
    #[error("`{text}` has no unit: write {example}")]
    NoUnit {
        /// What was given.
        text: String,
        /// A value that would be taken.
        example: String,
    },
    /// A unit that is not known.
    #[error("`{unit}` is not a unit of {what}: use one of {units}")]
    UnknownUnit {
        /// The unit as given.
        unit: String,
        /// The kind of quantity.
        what: &'static str,
        /// The units there are.
        units: &'static str,
    },
    /// A unit that is written out.
    #[error("`{text}` is not written as a duration: write `{example}`")]
    LongUnit {
        /// What was given.
        text: String,
        /// The same with a short unit.
        example: String,
    },
    /// Past what the type holds.
    #[error("`{text}` is too large")]
    TooLarge {
        /// What was given.
        text: String,
    },
}

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// A length of time in whole milliseconds. Text form: `250ms`, `5s`, `1m30s`, `12h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000)
    }

    /// As the standard library's type.
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl FromStr for Millis {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text.trim();
        let mut total: u64 = 0;
        let too_large = || UnitError::TooLarge { text: text.to_owned() };
        if rest.is_empty() {
            return Err(UnitError::NotANumber { text: text.to_owned(), what: "duration", example: "500ms, 5s or 12h" });
        }
        while !rest.is_empty() {
            let (number, after) = split_number(rest, text, "duration", "500ms, 5s or 12h")?;
            let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, tail) = after.split_at(unit_end);
            let written = &rest[..rest.len() - after.len()];
            if unit.is_empty() {
                let word = after.trim_start();
                let word = &word[..word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len())];
                let known = DURATION_UNITS.iter().map(|(name, _)| *name).find(|name| *name == word);
                if let Some(short) = known.or_else(|| short_unit(word)) {
                    return Err(UnitError::LongUnit { text: text.to_owned(), example: format!("{written}{short}") });
                }
                let example = format!("{text}s (seconds) or {text}ms (milliseconds)");
                return Err(UnitError::NoUnit { text: text.to_owned(), example });
            }
            let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
                if let Some(short) = short_unit(unit) {
                    return Err(UnitError::LongUnit { text: text.to_owned(), example: format!("{written}{short}") });
                }
                return Err(UnitError::UnknownUnit { unit: unit.to_owned(), what: "time", units: "ms, s, m, h, d" });
            };
            let part = scale(number, *factor).ok_or_else(too_large)?;
            total = total.checked_add(part).ok_or_else(too_large)?;
            rest = tail.trim_start();
        }
        Ok(Self(total))
    }
}

/// The unit that somebody means who writes it out.
fn short_unit(unit: &str) -> Option<&'static str> {
    match unit.to_ascii_lowercase().as_str() {
        "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => Some("ms"),
        "sec" | "secs" | "second" | "seconds" => Some("s"),
        "min" | "mins" | "minute" | "minutes" => Some("m"),
        "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "day" | "days" => Some("d"),
        _ => None,
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, factor) in DURATION_UNITS.iter().rev() {
            let count = rest / factor;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// An amount of memory or disk in bytes. Text form: `512MiB`, `4GiB`, `1GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text.trim(), text, "size", "512MiB or 4GiB")?;
        let unit = unit.trim();
        if unit.is_empty() {
            let example = format!("{text}MiB or {text}GiB");
            return Err(UnitError::NoUnit { text: text.to_owned(), example });
        }
        let Some((_, factor)) = BYTE_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(UnitError::UnknownUnit {
                unit: unit.to_owned(),
                what: "size",
                units: "B, KiB, MiB, GiB, TiB, KB, MB, GB, TB",
            });
        };
        scale(number, *factor).map(Self).ok_or_else(|| UnitError::TooLarge { text: text.to_owned() })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in &BYTE_UNITS[..4] {
            if self.0 >= *factor && self.0.is_multiple_of(*factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A share of CPU in thousandths of a core. Text form: `2`, `0.5` or `500m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MilliCpu(pub u64);

impl FromStr for MilliCpu {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text.trim(), text, "number of cores", "2, 0.5 or 500m")?;
        let factor = match unit {
            "" => 1_000,
            "m" => 1,
            other => {
                return Err(UnitError::UnknownUnit { unit: other.to_owned(), what: "CPU", units: "none (cores), m" });
            }
        };
        scale(number, factor).map(Self).ok_or_else(|| UnitError::TooLarge { text: text.to_owned() })
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000) { write!(f, "{}", self.0 / 1_000) } else { write!(f, "{}m", self.0) }
    }
}

/// A decimal number as (digits, power of ten below one), so that `1.5` scales exactly.
#[derive(Clone, Copy)]
struct Decimal {
    digits: u64,
    places: u32,
}

fn split_number<'a>(
    rest: &'a str,
    text: &str,
    what: &'static str,
    example: &'static str,
) -> Result<(Decimal, &'a str), UnitError> {
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    let bad = || UnitError::NotANumber { text: text.to_owned(), what, example };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 6 {
        return Err(bad());
    }
    let digits: u64 =
        format!("{whole}{fraction}").parse().map_err(|_| UnitError::TooLarge { text: text.to_owned() })?;
    let places = u32::try_from(fraction.len()).map_err(|_| bad())?;
    Ok((Decimal { digits, places }, after))
}

fn scale(number: Decimal, factor: u64) -> Option<u64> {
    let scaled = u128::from(number.digits) * u128::from(factor) / 10u128.pow(number.places);
    u64::try_from(scaled).ok()
}

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
text_form!(Millis, Bytes, MilliCpu);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, expected) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("0.5s", 500),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(text.parse::<Millis>(), Ok(Millis(expected)), "{text}");
        }
    }

    #[test]
    fn a_missing_or_wrong_unit_is_named() {
        assert_eq!(
            "5".parse::<Millis>().unwrap_err().to_string(),
            "`5` has no unit: write 5s (seconds) or 5ms (milliseconds)"
        );
        assert!(matches!("5x".parse::<Millis>(), Err(UnitError::UnknownUnit { .. })));
        assert!(matches!("".parse::<Millis>(), Err(UnitError::NotANumber { .. })));
        assert!(matches!("99999999999999999999s".parse::<Millis>(), Err(UnitError::TooLarge { .. })));
        assert_eq!("4".parse::<Bytes>().unwrap_err().to_string(), "`4` has no unit: write 4MiB or 4GiB");
        assert!("4gb".parse::<Bytes>().is_err());
        assert!("-1GiB".parse::<Bytes>().is_err());
    }

    #[test]
    fn sizes_and_cores() {
        assert_eq!("1.5GiB".parse::<Bytes>(), Ok(Bytes(1_610_612_736)));
        assert_eq!("0.5".parse::<MilliCpu>(), Ok(MilliCpu(500)));
        assert_eq!(Bytes(6 << 30).to_string(), "6GiB");
        assert_eq!(MilliCpu(2_000).to_string(), "2");
    }

    proptest! {
        #[test]
        fn text_forms_round_trip(value in 0u64..1 << 52) {
            prop_assert_eq!(Millis(value).to_string().parse::<Millis>(), Ok(Millis(value)));
            prop_assert_eq!(Bytes(value).to_string().parse::<Bytes>(), Ok(Bytes(value)));
            prop_assert_eq!(MilliCpu(value).to_string().parse::<MilliCpu>(), Ok(MilliCpu(value)));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,24}") {
            let _ = text.parse::<Millis>();
            let _ = text.parse::<Bytes>();
            let _ = text.parse::<MilliCpu>();
        }
    }
}
