//! Records of several lines, put together: lines that are indented belong to the one before, and a Python traceback ends
//! with the first line that is not. Tracebacks of one chain of exceptions stay together.

use kip_wire::LogLine;
use std::collections::BTreeMap;

/// No record becomes longer than this.
const MOST: usize = 64 << 10;
/// The first line of a traceback.
const TRACEBACK: &str = "Traceback (most recent call last):";
/// Lines of Python between two tracebacks of one chain of exceptions; an empty line stands before and after each.
const LINKS: [&str; 2] = [
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
];

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
        if continues(&open.line, &line.line) && open.line.len() + line.line.len() < MOST {
            open.line.push('\n');
            open.line.push_str(&line.line);
            self.open.insert(open.stream.clone(), open);
            return None;
        }
        let blank = open.line.len() - open.line.trim_end_matches('\n').len();
        open.line.truncate(open.line.len() - blank);
        self.open.insert(line.stream.clone(), line);
        Some(open)
    }

    /// What is left when nothing more comes.
    pub(super) fn rest(&mut self) -> Vec<LogLine> {
        let mut rest: Vec<LogLine> = std::mem::take(&mut self.open).into_values().collect();
        rest.iter_mut().for_each(|line| line.line.truncate(line.line.trim_end_matches('\n').len()));
        rest.sort_by_key(|line| line.at);
        rest
    }
}

/// Whether a line belongs to the record before it: it is indented, or goes on with a chain of Python's tracebacks.
fn continues(open: &str, line: &str) -> bool {
    if is_indented(line) {
        return true;
    }
    if !open.starts_with(TRACEBACK) {
        return false;
    }
    let mut before = open.rsplit('\n');
    let last = before.next().unwrap_or_default();
    // The last line that is not empty.
    let said = std::iter::once(last).chain(before).find(|line| !line.is_empty()).unwrap_or_default();
    match line {
        "" => !is_indented(said) && !last.is_empty(),
        TRACEBACK => last.is_empty() && LINKS.contains(&said),
        link if LINKS.contains(&link) => last.is_empty() && !is_indented(said),
        // The exception itself, after the indented lines of its traceback.
        _ => is_indented(last),
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
    fn chained_exceptions_are_one_record() {
        for link in LINKS {
            let lines = [
                ("err", "Traceback (most recent call last):"),
                ("err", "  File \"a.py\", line 1"),
                ("err", "KeyError: 'a'"),
                ("err", ""),
                ("err", link),
                ("err", ""),
                ("err", "Traceback (most recent call last):"),
                ("err", "  File \"a.py\", line 3"),
                ("err", "ValueError: no"),
                ("err", ""),
                ("err", "after"),
            ];
            let records = joined(true, &lines);
            assert_eq!(records.len(), 2, "{records:?}");
            assert!(records[0].contains("KeyError") && records[0].ends_with("ValueError: no"), "{records:?}");
            assert_eq!(records[1], "after");
        }
        let apart = [("err", "Traceback (most recent call last):"), ("err", " x"), ("err", "E: 1"), ("err", "")];
        let twice: Vec<(&str, &str)> = apart.into_iter().chain(apart).collect();
        assert_eq!(joined(true, &twice).len(), 2, "without a link they are two");
    }

    #[test]
    fn records_do_not_grow_without_end() {
        let long = format!(" {}", "x".repeat(20_000));
        let lines: Vec<(&str, &str)> = (0..10).map(|_| ("out", long.as_str())).collect();
        assert!(joined(true, &lines).iter().all(|record| record.len() <= MOST));
    }
}
