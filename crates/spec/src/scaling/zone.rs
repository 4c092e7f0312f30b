//! Time zones by their names, and local times in them. The database is part of the program, so that the same schedule
//! means the same on every host.

use std::sync::LazyLock;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The zone of a name such as `Asia/Shanghai`; nothing is UTC.
pub fn find(name: &str) -> Option<TimeZone> {
    match name {
        "" | "UTC" | "Z" => Some(TimeZone::UTC),
        name => ZONES.get(name).ok(),
    }
}

/// The zone of what names none.
pub const fn utc() -> TimeZone {
    TimeZone::UTC
}

/// Why a time was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time: write 2024-07-01T08:00:00Z, or without the Z for the policy's time zone")]
pub struct TimeError(pub String);

/// A moment, milliseconds since 1970: with an offset as it is, without one in the zone. A local time that clocks skip is the
/// moment they are put forward; one they show twice is the first.
pub fn moment(text: &str, zone: &TimeZone) -> Result<i64, TimeError> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(moment.as_millisecond());
    }
    let local: DateTime = text.parse().map_err(|_| TimeError(text.to_owned()))?;
    LocalTime::of(local, zone).first().ok_or_else(|| TimeError(text.to_owned()))
}

/// When a local time is, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalTime {
    /// Once.
    Once(i64),
    /// Never: clocks were put forward over it, at this moment.
    Skipped(i64),
    /// Twice: clocks were put back.
    Twice(i64, i64),
    /// Outside of what calendars cover.
    Outside,
}

impl LocalTime {
    /// When a local time is in a zone.
    pub fn of(local: DateTime, zone: &TimeZone) -> Self {
        let at = |offset: jiff::tz::Offset| offset.to_timestamp(local).map(jiff::Timestamp::as_millisecond);
        let ambiguous = zone.to_ambiguous_timestamp(local);
        let moments = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset).map(Self::Once),
            AmbiguousOffset::Fold { before, after } => {
                at(before).and_then(|first| at(after).map(|second| Self::Twice(first, second)))
            }
            // Read with the offset after the jump, the local time lies before it.
            AmbiguousOffset::Gap { before, after } => {
                let early = after.to_timestamp(local);
                let jump = early.map(|early| zone.following(early).next().map(|next| next.timestamp()));
                let late = before.to_timestamp(local);
                jump.and_then(|jump| Ok(Self::Skipped(jump.map_or(late?, |jump| jump).as_millisecond())))
            }
        };
        moments.unwrap_or(Self::Outside)
    }

    /// The one moment that stands for it.
    pub fn first(self) -> Option<i64> {
        match self {
            Self::Once(at) | Self::Skipped(at) | Self::Twice(at, _) => Some(at),
            Self::Outside => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_that_are_skipped_and_repeated() {
        let berlin = find("Europe/Berlin").expect("a zone");
        let at = |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_millisecond();
        let of = |text: &str| LocalTime::of(text.parse().expect("a local time"), &berlin);
        assert_eq!(of("2024-07-01T08:00:00"), LocalTime::Once(at("2024-07-01T06:00:00Z")));
        assert_eq!(of("2024-03-31T02:00:00"), LocalTime::Skipped(at("2024-03-31T01:00:00Z")));
        assert_eq!(of("2024-03-31T02:59:59"), LocalTime::Skipped(at("2024-03-31T01:00:00Z")));
        assert_eq!(of("2024-03-31T03:00:00"), LocalTime::Once(at("2024-03-31T01:00:00Z")));
        let twice = LocalTime::Twice(at("2024-10-27T00:30:00Z"), at("2024-10-27T01:30:00Z"));
        assert_eq!(of("2024-10-27T02:30:00"), twice);
        assert_eq!(moment("2024-07-01T08:00:00", &berlin), Ok(at("2024-07-01T06:00:00Z")));
        assert_eq!(moment("2024-07-01T08:00:00Z", &berlin), Ok(at("2024-07-01T08:00:00Z")));
        assert_eq!(moment("2024-07-01T08:00:00.000+08:00", &berlin), Ok(at("2024-07-01T00:00:00Z")));
        assert!(moment("yesterday", &berlin).is_err());
        assert!(find("Mars/Olympus").is_none());
    }
}
