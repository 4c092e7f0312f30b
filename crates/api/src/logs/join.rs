//! Records of several lines, put together: lines that are indented belong to the one before, and a Python traceback ends
//! with the first line that is not.

use kip_wire::LogLine;
use std::collections::BTreeMap;

/// No record becomes longer than this.
const MOST: usize = 64 << 10;
/// The first line of a traceback.
const TRACEBACK: &str = "Traceback (most recent call last):";

/// Puts the lines of one instance together, each stream by itself.
#[derive(Debug)]
pub(super) struct LineJoiner {
    wanted: bool,
    open: BTreeMap<String, LogLine>,
}

impl LineJoiner {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, open: BTreeMap::new() }
    }

    /// Takes a line and gives the record that it shows to be whole.
    pub(super) fn add(&mut self, line: LogLine) -> Option<LogLine> {
        if !self.wanted {
            return Some(line);
        }
        let Some(mut open) = self.open.remove(&line.stream) else {
            self.open.insert(line.stream.clone(), line);
            return None;
        };
        let indented = line.line.starts_with([' ', '\t']);
        // The exception itself, after the indented lines of its traceback.
        let last = !indented && open.line.starts_with(TRACEBACK) && open.line.lines().last().is_some_and(is_indented);
        if (indented || last) && open.line.len() + line.line.len() < MOST {
            open.line.push('\n');
            open.line.push_str(&line.line);
            if last {
                return Some(open);
            }
            self.open.insert(open.stream.clone(), open);
            return None;
        }
        self.open.insert(line.stream.clone(), line);
        Some(open)
    }

    /// What is left when nothing more comes.
    pub(super) fn rest(&mut self) -> Vec<LogLine> {
        let mut rest: Vec<LogLine> = std::mem::take(&mut self.open).into_values().collect();
        rest.sort_by_key(|line| line.at);
        rest
    }
}

fn is_indented(line: &str) -> bool {
    line.starts_with([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(wanted: bool, lines: &[(&str, &str)]) -> Vec<String> {
        let mut joiner = LineJoiner::new(wanted);
        let line = |(stream, text): &(&str, &str)| {
            LogLine::new("i-1-1-1".to_owned(), 0, (*stream).to_owned(), (*text).to_owned())
        };
        let mut records: Vec<LogLine> = lines.iter().filter_map(|pair| joiner.add(line(pair))).collect();
        records.extend(joiner.rest());
        records.into_iter().map(|record| record.line).collect()
    }

    #[test]
    fn a_traceback_is_one_record() {
        let lines = [
            ("err", "begin"),
            ("err", "Traceback (most recent call last):"),
            ("err", "  File \"a.py\", line 1"),
            ("out", "meanwhile"),
            ("err", "    f()"),
            ("err", "ValueError: no"),
            ("err", "after"),
        ];
        let traceback = "Traceback (most recent call last):\n  File \"a.py\", line 1\n    f()\nValueError: no";
        let mut records = joined(true, &lines);
        records.sort();
        assert_eq!(records, [traceback, "after", "begin", "meanwhile"]);
        assert_eq!(joined(false, &lines).len(), lines.len());
    }

    #[test]
    fn records_do_not_grow_without_end() {
        let long = format!(" {}", "x".repeat(20_000));
        let lines: Vec<(&str, &str)> = (0..10).map(|_| ("out", long.as_str())).collect();
        assert!(joined(true, &lines).iter().all(|record| record.len() <= MOST));
    }
}
