//! A file while it is downloaded: the bytes at their places, and beside it a small file that says how far each range has come. Both
//! survive the kill of the server, so that the next try asks for the first byte that is missing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kip_host::directory::{open_regular, read_regular_text};
use parking_lot::Mutex;

/// A range of a file: from `start` to before `end`; `at` is the first byte that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) at: u64,
}

impl FileRange {
    pub(crate) fn is_complete(self) -> bool {
        self.at == self.end
    }
}

/// Ranges are no smaller than this, bytes.
const SMALLEST_RANGE: u64 = 16 << 20;
/// Digits of a number in the file of ranges: every line has the same length, so that one can be written over.
const DIGITS: usize = 20;
/// `start end at` and a line break.
const LINE: u64 = 3 * (DIGITS as u64 + 1);
/// Bytes of the file of ranges that are read at most.
const LARGEST: u64 = 64 << 10;

/// The file under way.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    content: File,
    state: File,
    /// What the file of ranges begins with: which content this is a part of.
    head: String,
    size: u64,
    ranges: Mutex<Vec<FileRange>>,
    /// How often it was begun anew.
    begun: AtomicU64,
}

fn state_path(path: &Path) -> PathBuf {
    path.with_extension("ranges")
}

fn line(range: FileRange) -> String {
    format!("{:0DIGITS$} {:0DIGITS$} {:0DIGITS$}\n", range.start, range.end, range.at)
}

/// The ranges that a file of this size is cut into.
fn cut(size: u64, most: u64) -> Vec<FileRange> {
    let count = (size / SMALLEST_RANGE).clamp(1, most.max(1));
    let step = size.div_ceil(count).max(1);
    let range = |number: u64| (number * step, ((number + 1) * step).min(size));
    (0..count)
        .map(range)
        .filter(|(start, end)| start < end || size == 0)
        .map(|(start, end)| FileRange { start, end, at: start })
        .collect()
}

/// The ranges that a file says, if they belong to this content and cover all of it.
fn read_ranges(text: &str, head: &str, size: u64) -> Option<Vec<FileRange>> {
    let lines = text.strip_prefix(head)?;
    let mut ranges = Vec::new();
    let mut expected = 0;
    for line in lines.lines() {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let [start, end, at] = numbers[..] else { return None };
        if start != expected || end < start || !(start..=end).contains(&at) {
            return None;
        }
        expected = end;
        ranges.push(FileRange { start, end, at });
    }
    (expected == size && !ranges.is_empty()).then_some(ranges)
}

impl Partial {
    /// Goes on with what is there of this content, or begins anew. `tag` is what the source calls the content; what belongs to another
    /// tag is thrown away.
    pub(crate) fn open(path: &Path, size: u64, tag: &str, most: u64) -> io::Result<Self> {
        let head = format!("{size} {}\n", tag.replace(['\n', '\r'], " "));
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let content = open_regular(path, &mut options)?;
        let found = read_regular_text(&state_path(path), LARGEST).ok();
        let found = found
            .and_then(|text| read_ranges(&text, &head, size))
            .filter(|_| content.metadata().is_ok_and(|metadata| metadata.len() == size));
        let state = open_regular(&state_path(path), &mut options)?;
        let partial = Self {
            path: path.to_owned(),
            content,
            state,
            head,
            size,
            ranges: Mutex::default(),
            begun: AtomicU64::new(0),
        };
        match found {
            Some(ranges) => *partial.ranges.lock() = ranges,
            None => partial.begin(most)?,
        }
        Ok(partial)
    }

    /// Throws away what is there.
    pub(crate) fn begin(&self, most: u64) -> io::Result<()> {
        let ranges = cut(self.size, most);
        self.state.set_len(0)?;
        self.content.set_len(0)?;
        self.content.set_len(self.size)?;
        let text: String = std::iter::once(self.head.clone()).chain(ranges.iter().copied().map(line)).collect();
        self.state.write_all_at(text.as_bytes(), 0)?;
        *self.ranges.lock() = ranges;
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// How often what was there was thrown away.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    pub(crate) fn ranges(&self) -> Vec<FileRange> {
        self.ranges.lock().clone()
    }

    pub(crate) fn range(&self, number: usize) -> Option<FileRange> {
        self.ranges.lock().get(number).copied()
    }

    /// Bytes that are there from the first one on, without a gap.
    pub(crate) fn prefix(&self) -> u64 {
        let ranges = self.ranges.lock();
        let gap = ranges.iter().find(|range| !range.is_complete());
        gap.map_or(self.size, |range| range.at)
    }

    /// Bytes that are there.
    pub(crate) fn received(&self) -> u64 {
        self.ranges.lock().iter().map(|range| range.at - range.start).sum()
    }

    /// Writes bytes where the range has come to, then how far that is. Blocks.
    pub(crate) fn write(&self, number: usize, bytes: &[u8]) -> io::Result<()> {
        let range = self.range(number).ok_or(io::ErrorKind::InvalidInput)?;
        let end = range.at.saturating_add(bytes.len() as u64);
        if end > range.end {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.content.write_all_at(bytes, range.at)?;
        let moved = FileRange { at: end, ..range };
        // After the bytes: a kill in between costs them, and never leaves a gap.
        self.state.write_all_at(line(moved).as_bytes(), self.head.len() as u64 + number as u64 * LINE)?;
        if let Some(known) = self.ranges.lock().get_mut(number) {
            *known = moved;
        }
        Ok(())
    }

    /// Reads bytes that are there. Blocks.
    pub(crate) fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.content.read_exact_at(buffer, at)
    }

    /// Syncs the content and gives it its name; the file of ranges goes. Blocks.
    pub(crate) fn complete(self, name: &Path) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        (&self.content).flush()?;
        self.content.set_permissions(std::fs::Permissions::from_mode(0o444))?;
        self.content.sync_all()?;
        std::fs::rename(&self.path, name)?;
        let _ = std::fs::remove_file(state_path(&self.path));
        match name.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Nothing of it is kept.
    pub(crate) fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(state_path(&self.path));
    }
}

/// Bytes that a partial file has already, if there is one.
pub(crate) fn bytes_of(path: &Path) -> u64 {
    let text = read_regular_text(&state_path(path), LARGEST).unwrap_or_default();
    let received = |line: &str| -> Option<u64> {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        numbers.get(2)?.checked_sub(*numbers.first()?)
    };
    text.lines().skip(1).filter_map(received).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_into_ranges_without_gaps() {
        for (size, most, count) in
            [(0, 4, 1), (1, 4, 1), (SMALLEST_RANGE * 2 - 1, 4, 1), (SMALLEST_RANGE * 9 + 7, 4, 4)]
        {
            let ranges = cut(size, most);
            assert_eq!(ranges.len(), count, "{size}");
            assert_eq!((ranges[0].start, ranges[count - 1].end), (0, size));
            assert!(ranges.windows(2).all(|two| two[0].end == two[1].start));
        }
    }

    #[test]
    fn a_partial_file_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.part");
        let partial = Partial::open(&path, 10, "tag", 4).unwrap();
        partial.write(0, b"hello").unwrap();
        assert!(partial.write(0, b"too much").is_err(), "no byte is written behind the range");
        drop(partial);
        assert_eq!(bytes_of(&path), 5);
        let partial = Partial::open(&path, 10, "tag", 4).unwrap();
        assert_eq!((partial.prefix(), partial.received()), (5, 5));
        partial.write(0, b"world").unwrap();
        let mut read = [0; 10];
        partial.read(&mut read, 0).unwrap();
        assert_eq!(&read, b"helloworld");
        partial.complete(&folder.path().join("whole")).unwrap();
        assert_eq!(std::fs::read(folder.path().join("whole")).unwrap(), b"helloworld");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn another_content_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.part");
        Partial::open(&path, 10, "tag", 4).unwrap().write(0, b"hello").unwrap();
        assert_eq!(Partial::open(&path, 10, "other", 4).unwrap().prefix(), 0);
        Partial::open(&path, 10, "other", 4).unwrap().write(0, b"hello").unwrap();
        assert_eq!(Partial::open(&path, 11, "other", 4).unwrap().prefix(), 0);
        for text in ["", "10 t\n", "10 t\n0 5 2\n", "10 t\n0 10 11\n", "10 t\n1 10 1\n", "10 t\nx\n"] {
            assert_eq!(read_ranges(text, "10 t\n", 10), None, "{text}");
        }
    }
}
