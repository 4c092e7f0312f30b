//! What is printed: data on standard output, everything else on standard error.
#![expect(clippy::print_stderr, reason = "this module is where the command line prints")]

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

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

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// A result: as JSON, or as the text that `text` makes of it.
    pub(crate) fn result<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let shown = if self.is_json() { serde_json::to_string_pretty(value)? + "\n" } else { text(value) };
        self.data(shown.as_bytes())
    }

    /// One of many results that keep coming: one JSON value a line, or text.
    pub(crate) fn line<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let shown = if self.is_json() { serde_json::to_string(value)? } else { text(value) };
        self.data((shown + "\n").as_bytes())
    }

    /// Bytes of a result. A reader that has left is no error.
    pub(crate) fn data(self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    /// A line for people, on standard output where that is what was asked for (`kip up`), else left out.
    pub(crate) fn say(self, line: &str) {
        if !self.is_json() {
            // A reader that has left, or a full disk, must not end what is being done.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }

    /// A remark beside the result.
    pub(crate) fn remark(self, line: &str) {
        eprintln!("{line}");
    }

    /// Whether a person looks at standard output.
    pub(crate) fn is_terminal(self) -> bool {
        !self.is_json() && std::io::stdout().is_terminal()
    }
}

/// What others wrote, fit for a terminal: colours are left out, and other control characters are shown instead of obeyed.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c.is_control() && c != '\t') {
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
            None if c.is_control() && c != '\t' => shown.extend(c.escape_default()),
            None => shown.push(c),
        }
    }
    shown.into()
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
        10_000..10_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

/// Milliseconds for people, in the two largest units.
pub(crate) fn millis(millis: u64) -> String {
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let text = kip_spec::Millis(millis / 1_000 * 1_000).to_string();
    let units: Vec<usize> = text.char_indices().filter(|(_, c)| c.is_ascii_alphabetic()).map(|(at, _)| at).collect();
    match units.get(1) {
        Some(end) => text[..=*end].to_owned(),
        None => text,
    }
}

/// A time of day, local, from milliseconds since 1970.
pub(crate) fn clock(at: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(at).unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
    time.strftime("%H:%M:%S%.3f").to_string()
}

/// A day and a time of it, local, from milliseconds since 1970.
pub(crate) fn date(at: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(at).unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_write_does_not_steer_the_terminal() {
        assert_eq!(printable("plain\tä"), "plain\tä");
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
        assert_eq!([micros(0), micros(380), micros(152_300), micros(12_400_000)], ["-", "0.38 ms", "152 ms", "12.4 s"]);
        assert_eq!([millis(12), millis(5_999), millis(3_661_000)], ["12ms", "5s", "1h1m"]);
    }
}
