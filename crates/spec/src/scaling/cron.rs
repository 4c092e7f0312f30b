//! Cron expressions of six fields: second, minute, hour, day of month, month, day of week.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::zone::LocalTime;

/// A cron expression. What it matches is a local time:
///
/// * one that clocks skip (daylight saving begins) fires at the moment they are put forward, once however many are skipped;
/// * one that clocks show twice (daylight saving ends) fires the first time only;
/// * but an expression for every hour follows real time: it fires in both repeated hours and in no skipped one.
///
/// If both day fields are restricted, either suffices, as in all crons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    last_day: bool,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

/// Why a cron expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not six fields.
    #[error("`{text}` has {count} fields: write six, second minute hour day-of-month month day-of-week")]
    Fields {
        /// What was given.
        text: String,
        /// How many it has.
        count: usize,
    },
    /// A field that is not understood.
    #[error("`{part}` is no {what}: write {least} to {most}, a list, a range or a step such as 0/15")]
    Field {
        /// The part of the field.
        part: String,
        /// Which field.
        what: &'static str,
        /// From.
        least: u32,
        /// To.
        most: u32,
    },
    /// No day matches.
    #[error("`{text}` never fires: no month has such a day")]
    Never {
        /// What was given.
        text: String,
    },
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const LENGTHS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
/// 29 February on a given day of the week comes back within 40 years, over 2100 too.
const LONGEST_SEARCH: i32 = 41 * 366;
const ALL_HOURS: u64 = (1 << 24) - 1;
/// Milliseconds.
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

struct Field {
    what: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

impl Field {
    fn number(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        match named {
            Some(at) => Some(u32::try_from(at).ok()? + self.least),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            None => None,
        }
        .filter(|number| (self.least..=self.most).contains(number))
    }

    fn part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (self.least, self.most),
            Some((from, to)) => (self.number(from)?, self.number(to)?),
            None if step.is_some() => (self.number(range)?, self.most),
            None => (self.number(range)?, self.number(range)?),
        };
        let step = usize::try_from(step.unwrap_or(1)).ok()?;
        (from <= to).then(|| (from..=to).step_by(step).fold(0, |bits, number| bits | 1 << number))
    }

    fn read(&self, text: &str) -> Result<u64, CronError> {
        text.split(',').try_fold(0, |bits, part| match self.part(part) {
            Some(more) => Ok(bits | more),
            None => {
                let Self { what, least, most, .. } = *self;
                Err(CronError::Field { part: part.to_owned(), what, least, most })
            }
        })
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [second, minute, hour, day, month, weekday] = fields[..] else {
            return Err(CronError::Fields { text: text.to_owned(), count: fields.len() });
        };
        let field = |what, least, most, names| Field { what, least, most, names };
        let last_day = day.eq_ignore_ascii_case("L");
        let any = |field: &str| matches!(field, "*" | "?");
        // 7 is Sunday too.
        let weekdays = field("day of the week", 0, 7, &WEEKDAYS).read(weekday)?;
        let cron = Self {
            text: fields.join(" "),
            seconds: field("second", 0, 59, &[]).read(second)?,
            minutes: field("minute", 0, 59, &[]).read(minute)?,
            hours: field("hour", 0, 23, &[]).read(hour)?,
            days: if last_day { 0 } else { field("day of the month", 1, 31, &[]).read(day)? },
            last_day,
            months: field("month", 1, 12, &MONTHS).read(month)?,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            any_day: any(day),
            any_weekday: any(weekday),
        };
        let possible = (1..=12u32).zip(LENGTHS).any(|(month, length)| {
            cron.months & 1 << month != 0 && (cron.last_day || cron.days & ((1 << (length + 1)) - 1) != 0)
        });
        let by_weekday_too = !cron.any_day && !cron.any_weekday;
        if !possible && !by_weekday_too {
            return Err(CronError::Never { text: cron.text });
        }
        Ok(cron)
    }
}

impl Cron {
    /// The last time it fired at or before `now` and not before `since`, milliseconds since 1970.
    pub fn last(&self, now: i64, since: i64, zone: &TimeZone) -> Option<i64> {
        let mut date = local(now, zone)?.date();
        let first = local(since, zone).map_or(Date::MIN, |since| since.date());
        // Where clocks change about midnight, what is shown now may be of the day before what was.
        if regular_midnight(date, zone).is_none() {
            let near = [date.tomorrow().ok(), Some(date)].into_iter().flatten();
            let found = near.flat_map(|date| self.moments(date, zone)).filter(|at| *at <= now).max();
            if let Some(found) = found {
                return (found >= since).then_some(found);
            }
        }
        for _ in 0..LONGEST_SEARCH {
            let found = match self.regular(date, zone) {
                Some(midnight) => self.last_of_day(now.saturating_sub(midnight)).map(|at| midnight + at),
                None => self.moments(date, zone).filter(|at| *at <= now).max(),
            };
            if let Some(found) = found {
                return (found >= since).then_some(found);
            }
            if date <= first {
                return None;
            }
            date = date.yesterday().ok()?;
        }
        None
    }

    /// The next time it fires after `now`, milliseconds since 1970.
    pub fn next(&self, now: i64, zone: &TimeZone) -> Option<i64> {
        let mut date = local(now, zone)?.date();
        if regular_midnight(date, zone).is_none() {
            let near = [date.yesterday().ok(), Some(date), date.tomorrow().ok()].into_iter().flatten();
            let found = near.flat_map(|date| self.moments(date, zone)).filter(|at| *at > now).min();
            if found.is_some() {
                return found;
            }
        }
        for _ in 0..LONGEST_SEARCH {
            let found = match self.regular(date, zone) {
                Some(midnight) => self.next_of_day(now.saturating_sub(midnight)).map(|at| midnight + at),
                None => self.moments(date, zone).filter(|at| *at > now).min(),
            };
            if found.is_some() {
                return found;
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn matches(&self, date: Date) -> bool {
        let bit = |bits: u64, number: i8| bits & 1 << number.unsigned_abs() != 0;
        let last = self.last_day && date.day() == date.days_in_month();
        let day = last || bit(self.days, date.day());
        let weekday = bit(self.weekdays, date.weekday().to_sunday_zero_offset());
        let suits = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        bit(self.months, date.month()) && suits
    }

    /// The midnight of a day of 24 hours on which it fires: there its times ascend with the clock.
    fn regular(&self, date: Date, zone: &TimeZone) -> Option<i64> {
        self.matches(date).then(|| regular_midnight(date, zone)).flatten()
    }

    /// The last time of a day of 24 hours that is at most so long after midnight, in milliseconds after midnight.
    fn last_of_day(&self, limit: i64) -> Option<i64> {
        let parts = |bits: u64, unit: i64, before: i64| {
            numbers(bits).rev().map(move |number| before + i64::from(number) * unit).filter(move |at| *at <= limit)
        };
        let hours = parts(self.hours, HOUR, 0);
        let minutes = hours.flat_map(|hour| parts(self.minutes, MINUTE, hour));
        minutes.flat_map(|minute| parts(self.seconds, SECOND, minute)).next()
    }

    /// The first time of a day of 24 hours that is longer after midnight, in milliseconds after midnight.
    fn next_of_day(&self, limit: i64) -> Option<i64> {
        // What ends before the limit has no time after it.
        let parts = |bits: u64, unit: i64, before: i64| {
            numbers(bits).map(move |number| before + i64::from(number) * unit).filter(move |at| at + unit > limit)
        };
        let hours = parts(self.hours, HOUR, 0);
        let minutes = hours.flat_map(|hour| parts(self.minutes, MINUTE, hour));
        let seconds = minutes.flat_map(|minute| parts(self.seconds, SECOND, minute));
        let mut seconds = seconds;
        seconds.find(|at| *at > limit)
    }

    /// All moments of a day.
    fn moments(&self, date: Date, zone: &TimeZone) -> impl Iterator<Item = i64> {
        let hours = if self.matches(date) { self.hours } else { 0 };
        let every_hour = self.hours == ALL_HOURS;
        // A day of 24 hours needs no look at the zone for each of its times.
        let midnight = (hours != 0).then(|| regular_midnight(date, zone)).flatten();
        let times = numbers(hours).flat_map(move |hour| {
            let minutes = numbers(self.minutes);
            minutes.flat_map(move |minute| numbers(self.seconds).map(move |second| (hour, minute, second)))
        });
        let moments = move |(hour, minute, second): (i8, i8, i8)| {
            if let Some(midnight) = midnight {
                let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
                return [Some(midnight + seconds * 1_000), None];
            }
            match LocalTime::of(date.at(hour, minute, second, 0), zone) {
                LocalTime::Once(at) => [Some(at), None],
                LocalTime::Twice(first, second) => [Some(first), every_hour.then_some(second)],
                LocalTime::Skipped(at) => [(!every_hour).then_some(at), None],
                LocalTime::Outside => [None, None],
            }
        };
        times.flat_map(moments).flatten()
    }
}

/// When a day begins, if no clocks change in it.
fn regular_midnight(date: Date, zone: &TimeZone) -> Option<i64> {
    const DAY: i64 = 86_400_000;
    let LocalTime::Once(from) = LocalTime::of(date.at(0, 0, 0, 0), zone) else { return None };
    let LocalTime::Once(to) = LocalTime::of(date.tomorrow().ok()?.at(0, 0, 0, 0), zone) else { return None };
    (to - from == DAY).then_some(from)
}

fn numbers(bits: u64) -> impl DoubleEndedIterator<Item = i8> + Clone {
    (0..60i8).filter(move |number| bits & 1 << number.unsigned_abs() != 0)
}

fn local(at: i64, zone: &TimeZone) -> Option<DateTime> {
    Some(zone.to_datetime(jiff::Timestamp::from_millisecond(at).ok()?))
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Cron {
    type Error = CronError;

    fn try_from(text: String) -> Result<Self, CronError> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::zone;

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().expect("a time").as_millisecond()
    }

    fn shown(at: Option<i64>) -> String {
        at.map_or_else(|| "never".to_owned(), |at| jiff::Timestamp::from_millisecond(at).expect("a time").to_string())
    }

    #[test]
    fn the_times_before_and_after() {
        let rows = [
            ("0 0 4 * * *", "UTC", "2024-07-02T03:59:59Z", "2024-07-01T04:00:00Z", "2024-07-02T04:00:00Z"),
            ("0 0 4 * * *", "Asia/Shanghai", "2024-07-02T03:00:00Z", "2024-07-01T20:00:00Z", "2024-07-02T20:00:00Z"),
            ("0 0 4 * * *", "UTC", "2024-07-02T04:00:00Z", "2024-07-02T04:00:00Z", "2024-07-03T04:00:00Z"),
            ("0 */15 9-17 ? * MON-FRI", "UTC", "2024-07-06T12:00:00Z", "2024-07-05T17:45:00Z", "2024-07-08T09:00:00Z"),
            ("0 0 0 L * *", "UTC", "2024-02-10T00:00:00Z", "2024-01-31T00:00:00Z", "2024-02-29T00:00:00Z"),
            ("0 0 0 29 2 *", "UTC", "2024-03-10T00:00:00Z", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 12 13 * FRI", "UTC", "2024-09-10T00:00:00Z", "2024-09-06T12:00:00Z", "2024-09-13T12:00:00Z"),
            ("30 0 0 1 JAN 7", "UTC", "2024-07-01T00:00:00Z", "2024-01-28T00:00:30Z", "2025-01-01T00:00:30Z"),
            // Spring: 02:30 is skipped and fires as clocks jump from 02:00 to 03:00.
            ("0 30 2 * * *", "Europe/Berlin", "2024-03-31T12:00:00Z", "2024-03-31T01:00:00Z", "2024-04-01T00:30:00Z"),
            // Autumn: 02:30 comes twice and fires once.
            ("0 30 2 * * *", "Europe/Berlin", "2024-10-27T01:30:00Z", "2024-10-27T00:30:00Z", "2024-10-28T01:30:00Z"),
            // What is for every hour follows real time.
            ("0 30 * * * *", "Europe/Berlin", "2024-10-27T01:00:00Z", "2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z"),
            ("0 30 * * * *", "Europe/Berlin", "2024-03-31T01:10:00Z", "2024-03-31T00:30:00Z", "2024-03-31T01:30:00Z"),
            // Clocks go back over midnight: it comes twice and fires the first time, on a day that is not over yet.
            ("0 0 0 * * *", "America/St_Johns", "2006-10-29T02:45:00Z", "2006-10-29T02:30:00Z", "2006-10-30T03:30:00Z"),
            ("0 0 0 * * *", "America/St_Johns", "2006-10-29T02:00:00Z", "2006-10-28T02:30:00Z", "2006-10-29T02:30:00Z"),
            ("* * * * * *", "UTC", "2024-07-01T00:00:00.5Z", "2024-07-01T00:00:00Z", "2024-07-01T00:00:01Z"),
        ];
        for (text, name, now, last, next) in rows {
            let cron: Cron = text.parse().expect(text);
            let zone = zone::find(name).expect(name);
            assert_eq!(shown(cron.last(at(now), i64::MIN, &zone)), last, "{text} before {now}");
            assert_eq!(shown(cron.next(at(now), &zone)), next, "{text} after {now}");
        }
        let daily: Cron = "0 0 4 * * *".parse().expect("a cron");
        assert_eq!(daily.last(at("2024-07-02T03:00:00Z"), at("2024-07-01T05:00:00Z"), &TimeZone::UTC), None);
    }

    /// The quick way through a day of 24 hours finds the same as a look at all of its times.
    #[test]
    fn the_quick_way_through_a_day() {
        let mut dice = 0x9E37_79B9_7F4A_7C15u64;
        let zone = TimeZone::UTC;
        for text in ["*/20 * * * * *", "0 * * * * *", "30 */2 * * * *", "7,59 13 0,9-11,23 * * *", "0 0 0 * * *"] {
            let cron: Cron = text.parse().expect(text);
            for _ in 0..40 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let now = i64::try_from(dice >> 33).expect("31 bits") * 7 % (20 * 24 * HOUR);
                let date = local(now, &zone).expect("a date").date();
                let days = [date.yesterday().expect("a day"), date, date.tomorrow().expect("a day")];
                let all: Vec<i64> = days.into_iter().flat_map(|date| cron.moments(date, &zone)).collect();
                let last = all.iter().copied().filter(|at| *at <= now).max();
                let next = all.iter().copied().filter(|at| *at > now).min();
                assert_eq!((cron.last(now, i64::MIN / 2, &zone), cron.next(now, &zone)), (last, next), "{text} {now}");
            }
        }
    }

    #[test]
    fn what_is_refused() {
        let rows = [
            ("0 0 4 * *", "has 5 fields"),
            ("0 0 24 * * *", "`24` is no hour"),
            ("0 0 4 30 2 *", "never fires"),
            ("0 0 4 31 4,6,9,11 ?", "never fires"),
            ("0 5-3 4 * * *", "`5-3` is no minute"),
            ("0 0/0 4 * * *", "`0/0` is no minute"),
            ("x 0 4 * * *", "`x` is no second"),
            ("0 0 4 * SOMETIME *", "is no month"),
        ];
        for (text, message) in rows {
            let error = text.parse::<Cron>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
