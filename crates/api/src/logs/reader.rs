//! Reads the log files of a function side by side, in pieces of a bounded size.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use kip_control::{Cell, LogFile, LogRecord};
use kip_spec::{InstanceId, VersionId};
use kip_wire::LogLine;

use super::join::LineJoiner;
use super::request::{Filter, LogSelection};

/// How much of an instance's log is read at once.
const PIECE: u64 = 256 << 10;
/// The lines of one answer, or of one look for more, take about this much at most.
const ANSWER: usize = 8 << 20;
/// A line is about this long, to guess how far back the last ones begin.
const LINE: u64 = 512;
/// Pieces of a line are put together up to this size.
const LONGEST_LINE: usize = 64 << 10;

/// Which lines are wanted.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub(super) only: Option<InstanceId>,
    /// Instances of these versions; none for all.
    pub(super) versions: Option<Vec<VersionId>>,
    pub(super) since: Option<i64>,
    pub(super) wanted: LogSelection,
    pub(super) join: bool,
    pub(super) tail: usize,
    pub(super) follow: bool,
}

/// Reads all logs of a function.
pub(super) struct Reader {
    folder: PathBuf,
    /// What names the versions: the function, as long as it is not removed.
    function: Option<Arc<Cell>>,
    selection: Selection,
    logs: BTreeMap<InstanceId, Position>,
}

/// How far an instance's log has been read.
struct Position {
    log: LogFile,
    /// How its version is shown.
    version: Option<String>,
    /// The file that was read last, by its inode: its name changes when it is turned over.
    inode: u64,
    offset: u64,
    /// The beginning of a line that goes on, by stream.
    begun: BTreeMap<String, LogLine>,
    filter: Filter,
    joiner: LineJoiner,
}

impl Reader {
    pub(super) fn new(folder: PathBuf, function: Option<Arc<Cell>>, selection: Selection) -> Self {
        Self { folder, function, selection, logs: BTreeMap::new() }
    }

    /// One that has nothing to read.
    pub(super) fn empty() -> Self {
        let (only, versions, since, wanted) = (None, None, None, LogSelection::All);
        let selection = Selection { only, versions, since, wanted, join: false, tail: 0, follow: false };
        Self::new(PathBuf::new(), None, selection)
    }

    pub(super) fn follows(&self) -> bool {
        self.selection.follow
    }

    /// The last lines there are.
    pub(super) fn first(&mut self) -> Vec<LogLine> {
        self.look_for_logs(true);
        let (tail, follow) = (self.selection.tail, self.selection.follow);
        let mut all: Vec<LogLine> = Vec::new();
        for position in self.logs.values_mut() {
            loop {
                let (mut lines, more) = position.read(self.selection.since);
                if !more {
                    lines.extend(position.rest(follow));
                }
                all.append(&mut lines);
                if !more || all.len() > tail.saturating_mul(2) || bytes(&all) > ANSWER {
                    keep_last(&mut all, tail);
                }
                if !more {
                    break;
                }
            }
        }
        all
    }

    /// What was written since.
    pub(super) fn next(&mut self) -> Vec<LogLine> {
        self.look_for_logs(false);
        let mut all = Vec::new();
        for position in self.logs.values_mut() {
            if bytes(&all) > ANSWER {
                break;
            }
            let (mut lines, _) = position.read(self.selection.since);
            if lines.is_empty() {
                lines.extend(position.rest(true));
            }
            all.append(&mut lines);
        }
        all.sort_by_key(|line| line.at);
        all
    }

    /// New instances' logs, and old ones' that are gone. `first`: those that are there already are not read from their
    /// beginning if only their last lines are wanted.
    fn look_for_logs(&mut self, first: bool) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let found: Vec<LogFile> = entries.filter_map(|entry| LogFile::from_path(&entry.path())).collect();
        self.logs.retain(|instance, _| found.iter().any(|log| log.instance() == *instance));
        for log in found {
            let instance = log.instance();
            let wanted =
                self.selection.only.is_none_or(|only| only == instance) && self.selection.wanted.may_be_of(instance);
            if !wanted || self.logs.contains_key(&instance) {
                continue;
            }
            let version = log.version();
            let versions = self.selection.versions.as_ref();
            if versions.is_some_and(|versions| version.is_none_or(|version| !versions.contains(&version))) {
                continue;
            }
            let label = version.map(|version| match &self.function {
                Some(function) => function.label(version),
                None => version.to_string(),
            });
            let all = !first || self.selection.since.is_some() || !matches!(self.selection.wanted, LogSelection::All);
            let back = (!all).then(|| (self.selection.tail as u64).saturating_mul(LINE).max(PIECE));
            self.logs.insert(instance, Position::new(log, label, back, &self.selection));
        }
    }
}

impl Position {
    /// Begins with the oldest file, or so many bytes before the end of the newest.
    fn new(log: LogFile, version: Option<String>, back: Option<u64>, selection: &Selection) -> Self {
        let files = log.files();
        let file = if back.is_some() { files.last() } else { files.first() };
        let metadata = file.and_then(|file| file.metadata().ok());
        let (inode, length) = metadata.map_or((0, 0), |metadata| (metadata.ino(), metadata.len()));
        let offset = back.map_or(0, |back| length.saturating_sub(back));
        let (filter, joiner) = (Filter::new(selection.wanted.clone()), LineJoiner::new(selection.join));
        Self { log, version, inode, offset, begun: BTreeMap::new(), filter, joiner }
    }

    /// Reads a piece; false if that was all there is.
    fn read(&mut self, since: Option<i64>) -> (Vec<LogLine>, bool) {
        let Ok((bytes, more)) = self.piece() else { return (Vec::new(), false) };
        let mut lines = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            let Some(record) = LogRecord::parse(line) else { continue };
            let Some(line) = self.put_together(record) else { continue };
            if since.is_none_or(|since| line.at >= since) && self.filter.takes(&line) {
                lines.extend(self.joiner.add(line));
            }
        }
        (lines, more)
    }

    /// Whole records from where we are.
    fn piece(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let files = self.log.files();
        let inode = |file: &PathBuf| file.metadata().map(|metadata| metadata.ino()).unwrap_or(0);
        // One that is not there any more was turned over too often meanwhile: on with the oldest that is.
        let place = files.iter().position(|file| inode(file) == self.inode);
        if place.is_none() {
            self.offset = 0;
        }
        let place = place.unwrap_or(0);
        let Some(path) = files.get(place) else { return Ok((Vec::new(), false)) };
        let mut file = kip_host::directory::open_regular(path, OpenOptions::new().read(true))?;
        self.inode = file.metadata()?.ino();
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        let read = file.take(PIECE).read_to_end(&mut bytes)? as u64;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let last = place + 1 == files.len();
        if whole == 0 && !last {
            // A record that was cut off by a lack of disk: nothing more of this file.
            (self.inode, self.offset) = (inode(&files[place + 1]), 0);
            return Ok((Vec::new(), true));
        }
        bytes.truncate(whole);
        self.offset += whole as u64;
        Ok((bytes, !last || read == PIECE))
    }

    fn put_together(&mut self, record: LogRecord) -> Option<LogLine> {
        let goes_on = record.cut;
        let mut line = match self.begun.remove(&record.stream) {
            Some(mut begun) => {
                begun.line.push_str(&record.text);
                begun
            }
            None => {
                let line = LogLine::new(self.log.instance().to_string(), record.at, record.stream, record.text);
                LogLine { version: self.version.clone(), ..line }
            }
        };
        if goes_on && line.line.len() < LONGEST_LINE {
            self.begun.insert(line.stream.clone(), line);
            return None;
        }
        line.cut = goes_on;
        line.recognise();
        Some(line)
    }

    /// What waits for more, when no more is there; `stay`: beginnings of lines stay, because the rest may come.
    fn rest(&mut self, stay: bool) -> Vec<LogLine> {
        let mut lines = Vec::new();
        if !stay {
            for (_, mut line) in std::mem::take(&mut self.begun) {
                line.recognise();
                if self.filter.takes(&line) {
                    lines.extend(self.joiner.add(line));
                }
            }
        }
        lines.extend(self.joiner.rest());
        lines
    }
}

fn bytes(lines: &[LogLine]) -> usize {
    lines.iter().map(|line| line.line.len() + 64).sum()
}

/// Keeps the last so many, by time, and of those not more than an answer may hold.
fn keep_last(lines: &mut Vec<LogLine>, most: usize) {
    lines.sort_by_key(|line| line.at);
    lines.drain(..lines.len().saturating_sub(most));
    let mut left = bytes(lines);
    let too_many = lines
        .iter()
        .take_while(|line| {
            let over = left > ANSWER;
            left -= line.line.len() + 64;
            over
        })
        .count();
    lines.drain(..too_many);
}
