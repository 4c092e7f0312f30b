//! Lines that say the same again and again: whoever can cause one could fill the disk with it, and push out what is worth reading.
//! A line is written a few times in a minute; further ones are counted, and the count is written once. Pure.

use std::collections::VecDeque;

/// How often a line is written in one window.
const WRITTEN: u32 = 5;
/// How long a window lasts, milliseconds.
const WINDOW: u64 = 60_000;
/// Different lines that are remembered. What comes more rarely than so many others is no repetition.
const REMEMBERED: usize = 64;

/// A line that was seen lately.
#[derive(Debug)]
struct SeenLine {
    /// The line without its time.
    text: Vec<u8>,
    /// The whole line, the latest.
    line: Vec<u8>,
    /// When its window began.
    since: u64,
    seen: u32,
}

/// What was seen lately, the oldest window first.
#[derive(Debug, Default)]
pub(super) struct Repeats(VecDeque<SeenLine>);

impl Repeats {
    /// Takes a line. What is to be written, in this order: counts of windows that are over, and the line unless it is one of too many.
    pub(super) fn take(&mut self, line: Vec<u8>, now: u64) -> Vec<Vec<u8>> {
        let mut written = self.over(now);
        let text = without_time(&line);
        if let Some(seen) = self.0.iter_mut().find(|seen| seen.text == text) {
            seen.seen += 1;
            if seen.seen <= WRITTEN {
                written.push(line);
            } else {
                seen.line = line;
            }
            return written;
        }
        if self.0.len() == REMEMBERED {
            written.extend(self.0.pop_front().and_then(counted));
        }
        self.0.push_back(SeenLine { text: text.to_vec(), line: line.clone(), since: now, seen: 1 });
        written.push(line);
        written
    }

    /// Counts of windows that are over.
    pub(super) fn over(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut written = Vec::new();
        while self.0.front().is_some_and(|seen| now.saturating_sub(seen.since) >= WINDOW) {
            written.extend(self.0.pop_front().and_then(counted));
        }
        written
    }
}

/// The latest of the lines that were left out, with their number.
fn counted(seen: SeenLine) -> Option<Vec<u8>> {
    let left_out = seen.seen.checked_sub(WRITTEN).filter(|number| *number > 0)?;
    let line = seen.line.strip_suffix(b"\n").unwrap_or(&seen.line);
    Some(match line.strip_prefix(b"{") {
        Some(rest) => [format!("{{\"repeated\":{left_out},").as_bytes(), rest, b"\n"].concat(),
        None => [line, format!(" (one of {left_out} such lines, the others are left out)\n").as_bytes()].concat(),
    })
}

/// A line behind its time: the first word of a text, the first member of an object.
fn without_time(line: &[u8]) -> &[u8] {
    let end = if line.starts_with(b"{") { b',' } else { b' ' };
    line.iter().position(|byte| *byte == end).map_or(line, |at| &line[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: Vec<Vec<u8>>) -> Vec<String> {
        lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn what_is_repeated_is_counted() {
        let mut repeats = Repeats::default();
        let mut all = Vec::new();
        for second in 0..1_000u64 {
            all.extend(shown(repeats.take(format!("{second} WARN wrong key\n").into_bytes(), second * 10)));
        }
        all.extend(shown(repeats.take(b"x WARN another\n".to_vec(), 10_000)));
        assert_eq!(all.len(), 6, "{all:?}");
        assert_eq!((all[0].as_str(), all[5].as_str()), ("0 WARN wrong key\n", "x WARN another\n"));
        let over = shown(repeats.over(WINDOW));
        assert_eq!(over, ["999 WARN wrong key (one of 995 such lines, the others are left out)\n"]);
        assert_eq!(shown(repeats.take(b"y WARN wrong key\n".to_vec(), WINDOW)), ["y WARN wrong key\n"], "a new window");
        assert_eq!(shown(repeats.over(u64::MAX)), [""; 0], "one line alone is not counted");
    }

    #[test]
    fn a_line_of_json_stays_one() {
        let mut repeats = Repeats::default();
        for at in 0..7 {
            repeats.take(format!("{{\"timestamp\":\"{at}\",\"level\":\"WARN\"}}\n").into_bytes(), 0);
        }
        let over = shown(repeats.over(WINDOW));
        assert_eq!(over, ["{\"repeated\":2,\"timestamp\":\"6\",\"level\":\"WARN\"}\n"]);
    }

    #[test]
    fn many_different_lines_take_no_more_memory() {
        let mut repeats = Repeats::default();
        let written: usize =
            (0..10_000).map(|number| repeats.take(format!("t {number}\n").into_bytes(), 0).len()).sum();
        assert_eq!((written, repeats.0.len()), (10_000, REMEMBERED));
    }
}
