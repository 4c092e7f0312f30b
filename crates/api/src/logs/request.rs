//! Which lines belong to one request.

use std::sync::Arc;

use kip_spec::InstanceId;
use kip_wire::LogLine;
use parking_lot::Mutex;

/// Function Compute's marks; what stands between them on one instance is the request's.
const START: &str = "FC Invoke Start RequestId: ";
const END: &str = "FC Invoke End RequestId: ";

/// What is wanted.
#[derive(Debug, Clone)]
pub(super) enum LogSelection {
    /// Every line.
    All,
    /// Those between a request's marks, and those that name it.
    Request(String),
    /// Those that were written in runs of a task.
    Runs(Runs),
    /// Those that an instance wrote in this time, milliseconds since 1970.
    Interval {
        /// Which instance.
        instance: InstanceId,
        /// From when.
        from: i64,
        /// Until when.
        to: i64,
    },
}

/// The runs of a task, as far as they are known by now.
pub(super) type Runs = Arc<Mutex<Vec<Run>>>;

/// A run of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// On which instance.
    pub(super) instance: InstanceId,
    /// When it began, milliseconds since 1970.
    pub(super) from: i64,
    /// When it was over; none while it goes on.
    pub(super) to: Option<i64>,
}

impl Run {
    /// Whether a line was written in it.
    pub(super) fn has(&self, line: &LogLine) -> bool {
        line.instance == self.instance.to_string() && line.at >= self.from && self.to.is_none_or(|to| line.at <= to)
    }
}

impl LogSelection {
    /// Whether an instance may have written any of it.
    pub(super) fn may_be_of(&self, instance: InstanceId) -> bool {
        match self {
            Self::All | Self::Request(_) => true,
            Self::Interval { instance: wanted, .. } => *wanted == instance,
            Self::Runs(runs) => runs.lock().iter().any(|run| run.instance == instance),
        }
    }
}

/// Goes along one instance's lines.
#[derive(Debug)]
pub(super) struct Filter {
    wanted: LogSelection,
    /// Between the marks.
    within: bool,
}

impl Filter {
    pub(super) fn new(wanted: LogSelection) -> Self {
        Self { wanted, within: false }
    }

    pub(super) fn takes(&mut self, line: &LogLine) -> bool {
        match &self.wanted {
            LogSelection::All => true,
            LogSelection::Interval { from, to, .. } => (*from..=*to).contains(&line.at),
            LogSelection::Runs(runs) => runs.lock().iter().any(|run| run.has(line)),
            LogSelection::Request(id) => {
                let names = names(&line.line, id);
                if line.line.contains(START) {
                    // At concurrency 1 another request's start ends this one, even if its end was not written.
                    self.within = names;
                } else if line.line.contains(END) && names {
                    self.within = false;
                    return true;
                }
                names || self.within
            }
        }
    }
}

/// Whether an id stands in a line as a word of its own.
fn names(line: &str, id: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_' | '.');
    !id.is_empty()
        && line.match_indices(id).any(|(at, _)| {
            !line[..at].chars().next_back().is_some_and(part) && !line[at + id.len()..].chars().next().is_some_and(part)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(id: &str, lines: &[&str]) -> Vec<usize> {
        let mut filter = Filter::new(LogSelection::Request(id.to_owned()));
        let line = |text: &&str| LogLine::new("i-1-1-1".to_owned(), 0, "out".to_owned(), (*text).to_owned());
        let lines: Vec<LogLine> = lines.iter().map(line).collect();
        (0..lines.len()).filter(|number| filter.takes(&lines[*number])).collect()
    }

    #[test]
    fn by_marks() {
        let lines = [
            "before",
            "FC Invoke Start RequestId: r-1",
            "of r-1 without a name",
            "FC Invoke End RequestId: r-1",
            "between",
            "FC Invoke Start RequestId: r-2",
            "of the other",
        ];
        assert_eq!(taken("r-1", &lines), [1, 2, 3]);
        assert_eq!(taken("r-2", &lines), [5, 6]);
    }

    #[test]
    fn by_name_as_a_word() {
        let lines = ["a r-1 b", "r-12", "x-r-1", r#"{"request_id":"r-1","message":"m"}"#, "(r-1)", "r-1"];
        assert_eq!(taken("r-1", &lines), [0, 3, 4, 5]);
        assert_eq!(taken("", &lines), Vec::<usize>::new());
    }
}
