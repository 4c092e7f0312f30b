//! What is printed: data on standard output, everything else on standard error.
#![expect(clippy::print_stderr, reason = "this module is where the command line prints")]

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::tz::TimeZone;
use kip_spec::people;
use kip_spec::scaling::zone;
use kip_spec::terminal::{is_obeyed, json};
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use crate::arguments::Format;

/// Where results and remarks go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// The same without progress.
    pub(crate) fn quiet(self) -> Self {
        Self { format: Format::Json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// A result: as JSON, or as the text that `text` makes of it.
    pub(crate) fn result<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let shown = if self.is_json() {
            json(&(serde_json::to_string_pretty(value)? + "\n")).into_owned()
        } else {
            lines(&text(value))
        };
        self.data(shown.as_bytes())
    }

    /// One of many results that keep coming: one JSON value a line, or text.
    pub(crate) fn line<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let shown =
            if self.is_json() { json(&serde_json::to_string(value)?).into_owned() } else { lines(&text(value)) };
        self.data((shown + "\n").as_bytes())
    }

    /// Bytes of a result. A reader that has left is no error.
    pub(crate) fn data(self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream(bytes).map(drop)
    }

    /// Bytes on standard output, as they are; false if nobody reads them any more.
    pub(crate) fn stream(self, bytes: &[u8]) -> anyhow::Result<bool> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    /// A line for people, on standard output where that is what was asked for (`kip up`), else left out.
    pub(crate) fn say(self, line: &str) {
        if !self.is_json() {
            // A reader that has left, or a full disk, must not end what is being done.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }

    /// Bytes on standard error, as they are. A reader that has left is no error.
    pub(crate) fn raw_remark(self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut out = std::io::stderr().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    /// A remark beside the result.
    pub(crate) fn remark(self, line: &str) {
        eprintln!("{line}");
    }

    /// Whether a person looks at standard error, where progress is shown.
    pub(crate) fn shows_progress(self) -> bool {
        !self.is_json() && std::io::stderr().is_terminal()
    }

    /// Whether a person looks at standard output.
    pub(crate) fn is_terminal(self) -> bool {
        !self.is_json() && std::io::stdout().is_terminal()
    }
}

/// Lines that may have in them what others wrote: functions, callers, paths.
fn lines(text: &str) -> String {
    let mut lines = text.split('\n').map(printable);
    let first = lines.next().unwrap_or_default().into_owned();
    lines.fold(first, |all, line| all + "\n" + &line)
}

/// What others wrote, fit for a terminal: colours are left out, and other control characters are shown instead of obeyed.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_obeyed(c) && c != '\t') {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let colour = rest
            .strip_prefix('[')
            .filter(|_| c == '\x1b')
            .and_then(|codes| codes.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').strip_prefix('m'));
        match colour {
            Some(after) => rest = after,
            None if is_obeyed(c) && c != '\t' => shown.extend(c.escape_default()),
            None => shown.push(c),
        }
    }
    shown.into()
}

/// A text in the place of what a terminal shows, for what is refreshed. Elsewhere the texts follow each other, an empty line between.
pub(crate) fn screen(output: Output, text: &str) -> anyhow::Result<()> {
    let text = if output.is_terminal() { format!("\x1b[H\x1b[2J{text}") } else { format!("{text}\n") };
    output.data(text.as_bytes())
}

/// A table with aligned columns; columns whose name begins with `#` are right-aligned numbers.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|name| name.trim_start_matches('#').width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for ((cell, width), name) in cells.zip(&widths).zip(header) {
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            let (before, after) = if name.starts_with('#') { (padding.as_str(), "") } else { ("", padding.as_str()) };
            text.push_str(&format!("{before}{cell}{after}  "));
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut all = line(&mut header.iter().map(|name| name.trim_start_matches('#')));
    for row in rows {
        all.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    all
}

/// Microseconds for people: `0.38 ms`, `152 ms`, `2.4 s`.
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        0 => "-".to_owned(),
        1..10_000 => format!("{}.{:02} ms", micros / 1_000, micros % 1_000 / 10),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => people::duration(micros / 1_000),
    }
}

/// Milliseconds for people, in the two largest units: `1.9 s`, `2 min 5 s`.
pub(crate) fn millis(millis: u64) -> String {
    people::duration(millis)
}

/// Whether times are shown in UTC.
static UTC: AtomicBool = AtomicBool::new(false);

/// From here on times are shown in UTC, or in the time zone of the caller: `TZ`, or that of the system.
pub(crate) fn set_utc(utc: bool) {
    UTC.store(utc, Ordering::Relaxed);
}

fn zone() -> TimeZone {
    if UTC.load(Ordering::Relaxed) {
        return TimeZone::UTC;
    }
    // Where the system has no zone database, ours knows the names.
    let named = kip_host::environment::read("TZ").and_then(|name| zone::find(name.trim_start_matches(':')));
    named.unwrap_or_else(TimeZone::system)
}

/// The time of day with its zone, and with its day if that is not today, from milliseconds since 1970: `14:03:09.218 CET`.
pub(crate) fn clock(at: i64) -> String {
    clock_in(at, kip_host::clock::wall_millis(), zone())
}

fn clock_in(at: i64, now: i64, zone: TimeZone) -> String {
    let local = |at| jiff::Timestamp::from_millisecond(at).unwrap_or_default().to_zoned(zone.clone());
    let (time, now) = (local(at), local(now));
    let form = if time.date() == now.date() { "%H:%M:%S%.3f %Z" } else { "%Y-%m-%d %H:%M:%S%.3f %Z" };
    time.strftime(form).to_string()
}

/// A day and a time of it with the zone, from milliseconds since 1970: `2026-11-29 14:03:09 CET`.
pub(crate) fn date(at: i64) -> String {
    date_in(at, zone())
}

fn date_in(at: i64, zone: TimeZone) -> String {
    let time = jiff::Timestamp::from_millisecond(at).unwrap_or_default().to_zoned(zone);
    time.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_write_does_not_steer_the_terminal() {
        assert_eq!(printable("plain\tä"), "plain\tä");
        assert_eq!(printable("a\u{202e}b\u{9b}31m"), "a\\u{202e}b\\u{9b}31m");
        assert_eq!(lines("a\x1b]0;x\x07\nb\n"), "a\\u{1b}]0;x\\u{7}\nb\n");
        assert_eq!(json("{\n\"a\": \"\u{9b}ä\u{202e}\"}"), "{\n\"a\": \"\\u009bä\\u202e\"}");
        assert_eq!(
            printable("\x1b[1;32mINFO\x1b[0m: \x1b]0;title\x07 \x1b[2J\r"),
            "INFO: \\u{1b}]0;title\\u{7} \\u{1b}[2J\\r"
        );
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "9".to_owned()]];
        assert_eq!(table(&["NAME", "#N"], &rows), "NAME   N\na     10\nlong   9\n");
        let wide = [vec!["语言".to_owned(), "1".to_owned()], vec!["abcd".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["NAME", "#N"], &wide), "NAME  N\n语言  1\nabcd  2\n", "wide characters take two columns");
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!([micros(0), micros(380), micros(152_300), micros(12_400_000)], ["-", "0.38 ms", "152 ms", "12 s"]);
        assert_eq!([millis(12), millis(1_914), millis(3_661_000)], ["12 ms", "1.9 s", "1 h 1 min"]);
    }

    #[test]
    fn times_name_their_zone_and_other_days() {
        let berlin = zone::find("Europe/Berlin").unwrap();
        let (at, later) = (1_719_795_600_123, 1_719_795_600_123 + 86_400_000);
        assert_eq!(clock_in(at, at, TimeZone::UTC), "01:00:00.123 UTC");
        assert_eq!(clock_in(at, at, berlin.clone()), "03:00:00.123 CEST");
        assert_eq!(clock_in(at, later, berlin.clone()), "2024-07-01 03:00:00.123 CEST");
        assert_eq!(date_in(at, berlin), "2024-07-01 03:00:00 CEST");
        assert_eq!(date_in(at, TimeZone::UTC), "2024-07-01 01:00:00 UTC");
    }
}
