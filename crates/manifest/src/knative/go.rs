//! Numbers and durations as Go reads and prints them, because error texts and accepted values are Knative's.

use std::fmt;

/// A duration in nanoseconds, printed as Go does: `1h0m0s`, `1.5s`, `82ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Duration(pub(crate) i64);

const NANOS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
];

pub(crate) const SECOND: i64 = 1_000_000_000;

impl Duration {
    pub(crate) const fn seconds(seconds: i64) -> Self {
        Self(seconds * SECOND)
    }

    /// Reads a duration; an error is Go's text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("time: invalid duration {text:?}");
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
            let whole = digits(rest);
            let (number, mut after) = rest.split_at(whole);
            let mut fraction = "";
            if let Some(point) = after.strip_prefix('.') {
                (fraction, after) = point.split_at(digits(point));
            }
            if number.is_empty() && fraction.is_empty() {
                return Err(invalid());
            }
            let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, tail) = after.split_at(unit_end);
            if unit.is_empty() {
                return Err(format!("time: missing unit in duration {text:?}"));
            }
            let Some((_, nanos)) = NANOS.iter().find(|(name, _)| *name == unit) else {
                return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
            };
            let whole: i128 = if number.is_empty() { 0 } else { number.parse().map_err(|_| invalid())? };
            let part = whole.checked_mul(i128::from(*nanos)).ok_or_else(invalid)?;
            // More digits than these are below a nanosecond in every unit.
            let fraction: String = fraction.chars().take(15).collect();
            let scale = 10i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
            let small = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| invalid())? };
            total = total.checked_add(part + i128::from(*nanos) * small / scale).ok_or_else(invalid)?;
            if total > i128::from(i64::MAX) {
                return Err(invalid());
            }
            rest = tail;
        }
        let total = i64::try_from(total).map_err(|_| invalid())?;
        Ok(Self(if negative { -total } else { total }))
    }

    pub(crate) fn is_whole_seconds(self) -> bool {
        self.0 % SECOND == 0
    }

    /// In milliseconds, rounded up; nothing if negative.
    pub(crate) fn millis(self) -> kip_spec::Millis {
        kip_spec::Millis(u64::try_from(self.0).unwrap_or(0).div_ceil(1_000_000))
    }
}

impl From<kip_spec::Millis> for Duration {
    fn from(millis: kip_spec::Millis) -> Self {
        Self(i64::try_from(millis.0).unwrap_or(i64::MAX).saturating_mul(1_000_000))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let second = SECOND.unsigned_abs();
        let below = [(1_000_000, "ms"), (1_000, "µs"), (1, "ns")];
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < second {
            let (unit, name) = below.into_iter().find(|(unit, _)| nanos >= *unit).unwrap_or((1, "ns"));
            return write!(f, "{}{name}", decimal(nanos, unit));
        }
        let (hours, minutes) = (nanos / (3_600 * second), nanos / (60 * second) % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", decimal(nanos % (60 * second), second))
    }
}

fn decimal(value: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    if digits == 0 { (value / unit).to_string() } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

/// Reads a float; an error is Go's text. What is not finite is refused, though Go takes it: nothing can be decided by it.
pub(crate) fn float(text: &str) -> Result<f64, String> {
    let error = |what| Err(format!("strconv.ParseFloat: parsing {text:?}: {what}"));
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) if text.bytes().any(|byte| byte.is_ascii_digit()) => error("value out of range"),
        _ => error("invalid syntax"),
    }
}

/// Why an integer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntError {
    Syntax,
    Range,
}

/// Reads an integer.
pub(crate) fn int(text: &str) -> Result<i32, IntError> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse::<i32>().map_err(|error| match error.kind() {
        PosOverflow | NegOverflow => IntError::Range,
        _ => IntError::Syntax,
    })
}

/// Reads an integer; an error is Go's text.
pub(crate) fn int_or_text(text: &str) -> Result<i32, String> {
    int(text).map_err(|error| {
        let what = if error == IntError::Range { "value out of range" } else { "invalid syntax" };
        format!("strconv.ParseInt: parsing {text:?}: {what}")
    })
}

/// Reads a boolean; an error is Go's text.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// A float as Go prints it by `%v`: with an exponent where it is very small or very large.
pub(crate) fn shown(number: f64) -> String {
    let magnitude = number.abs();
    if number == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let rows = [
            ("0", "0s"),
            ("60s", "1m0s"),
            ("1h", "1h0m0s"),
            ("365h", "365h0m0s"),
            ("1m9s82ms", "1m9.082s"),
            ("-42s", "-42s"),
            ("42.5s", "42.5s"),
            ("+1.5h", "1h30m0s"),
            (".5ms", "500µs"),
            ("5ns", "5ns"),
            ("1us", "1µs"),
        ];
        for (text, shown) in rows {
            assert_eq!(Duration::parse(text).map(|duration| duration.to_string()), Ok(shown.to_owned()), "{text}");
        }
        let rows = [
            ("", "time: invalid duration \"\""),
            ("jerry", "time: invalid duration \"jerry\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5d", "time: unknown unit \"d\" in duration \"5d\""),
            ("3000000h", "time: invalid duration \"3000000h\""),
        ];
        for (text, error) in rows {
            assert_eq!(Duration::parse(text), Err(error.to_owned()));
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(
            [shown(1.0), shown(0.01), shown(0.000_01), shown(1e21), shown(2.5)],
            ["1", "0.01", "1e-05", "1e+21", "2.5"]
        );
        assert_eq!((int("2147483648"), int("foo"), int("-1")), (Err(IntError::Range), Err(IntError::Syntax), Ok(-1)));
        assert!(float("NaN").is_err() && float("inf").is_err() && float(" 1").is_err() && float("1e400").is_err());
        assert_eq!((float("1e3"), boolean("TRUE"), boolean("no").is_err()), (Ok(1000.0), Ok(true), true));
    }
}
