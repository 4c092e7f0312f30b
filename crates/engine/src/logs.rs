//! Where an instance's output is kept: one file of records, `<logs>/<function>/<instance>.log`, turned over by size.
//!
//! A record is a line `time stream tag text`: RFC 3339 time, `out`, `err` or `kip` (our own remarks), `F` for a full line or
//! `P` for a piece of one that is too long and goes on with the next record of its stream. The first record of a file has the tag `V`
//! and the instance's version.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kip_host::directory::open_regular;
use kip_spec::{InstanceId, VersionId};

/// A file is turned over when it has this size.
const FILE_LIMIT: u64 = 16 << 20;
/// Files of one instance that are kept beside the one being written.
const TURNED_OVER: usize = 3;
/// What one function's files may take together.
const FUNCTION_LIMIT: u64 = 256 << 20;
/// Files of one function that are kept, so that a crash loop cannot fill the disk with files.
const FUNCTION_FILES: usize = 120;

/// The tag of the record that names the version.
const VERSION: &str = "V";

/// One record of what an instance wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was read, milliseconds since 1970.
    pub at: i64,
    /// `out`, `err` or `kip`.
    pub stream: String,
    /// Whether its line goes on with the next record of the stream.
    pub cut: bool,
    /// What was written; bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl Record {
    /// Reads a record's line; nothing from one that only names the version.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time: jiff::Timestamp = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let (stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?);
        if tag == VERSION.as_bytes() {
            return None;
        }
        Some(Self {
            at: time.as_millisecond(),
            stream: String::from_utf8_lossy(stream).into_owned(),
            cut: tag == b"P",
            text: String::from_utf8_lossy(text).trim_end_matches(['\n', '\r']).to_owned(),
        })
    }
}

/// The time as records say it.
pub(crate) fn stamp() -> String {
    let now = jiff::Timestamp::from_millisecond(kip_host::clock::wall_millis()).unwrap_or_default();
    format!("{now:.3}")
}

/// An instance's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    folder: PathBuf,
    instance: InstanceId,
    /// For its first record, when it is written.
    version: Option<VersionId>,
}

impl LogFile {
    /// Its place.
    pub fn of(logs: &Path, function: &str, instance: InstanceId) -> Self {
        Self { folder: logs.join(function), instance, version: None }
    }

    /// The same, to be written for an instance of this version.
    pub(crate) fn of_version(self, version: VersionId) -> Self {
        Self { version: Some(version), ..self }
    }

    /// The log of a file that is being written, if it is one.
    pub fn from_path(path: &Path) -> Option<Self> {
        let instance = path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()?;
        Some(Self { folder: path.parent()?.to_owned(), instance, version: None })
    }

    /// Whose it is.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The version of its instance, as its newest file says. Earlier servers did not write it.
    pub fn version(&self) -> Option<VersionId> {
        const LONGEST: u64 = 128;
        let file = open_regular(self.files().last()?, OpenOptions::new().read(true)).ok()?;
        let mut first = Vec::new();
        file.take(LONGEST).read_to_end(&mut first).ok()?;
        let line = first.split(|byte| *byte == b'\n').next()?;
        let mut parts = std::str::from_utf8(line).ok()?.splitn(4, ' ').skip(2);
        (parts.next()? == VERSION).then(|| parts.next()?.parse().ok().map(VersionId))?
    }

    pub(crate) fn is_in(&self, folder: &Path) -> bool {
        self.folder == folder
    }

    /// Its files that there are, oldest first; the last one is being written.
    pub fn files(&self) -> Vec<PathBuf> {
        (0..=TURNED_OVER).rev().map(|number| self.file(number)).filter(|file| file.exists()).collect()
    }

    /// The one being written is number 0.
    fn file(&self, number: usize) -> PathBuf {
        match number {
            0 => self.folder.join(format!("{}.log", self.instance)),
            older => self.folder.join(format!("{}.log.{older}", self.instance)),
        }
    }

    /// Makes room for a new instance's log.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        kip_host::directory::create_own(&self.folder)?;
        self.forget_oldest();
        Ok(())
    }

    /// Adds whole records. It is opened each time: an idle instance costs no file descriptor.
    pub(crate) fn append(&self, records: &[u8]) -> io::Result<()> {
        // One thread writes the logs of all: it waits for nothing that was put in the place of one.
        let open = || open_regular(&self.file(0), OpenOptions::new().create(true).append(true).mode(0o600));
        let mut file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                kip_host::directory::create_own(&self.folder)?;
                open()?
            }
            other => other?,
        };
        match self.version {
            Some(version) if file.metadata()?.len() == 0 => {
                let first = format!("{} kip {VERSION} {}\n", stamp(), version.0);
                file.write_all(&[first.as_bytes(), records].concat())?;
            }
            _ => file.write_all(records)?,
        }
        if file.metadata()?.len() >= FILE_LIMIT {
            self.turn_over();
        }
        Ok(())
    }

    fn turn_over(&self) {
        for number in (0..TURNED_OVER).rev() {
            let _ = fs::rename(self.file(number), self.file(number + 1));
        }
        self.forget_oldest();
    }

    /// Removes a function's oldest files beyond what it may keep.
    fn forget_oldest(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<(std::time::SystemTime, PathBuf, u64)> = entries
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, entry.path(), metadata.len()))
            })
            .collect();
        files.sort();
        let (mut kept, mut bytes) = (files.len(), files.iter().map(|(_, _, length)| length).sum::<u64>());
        for (_, file, length) in files {
            if kept <= FUNCTION_FILES && bytes <= FUNCTION_LIMIT {
                return;
            }
            let _ = fs::remove_file(file);
            (kept, bytes) = (kept - 1, bytes - length);
        }
    }

    /// The last lines of standard error, or of standard output if that is empty.
    pub fn last_lines(&self, most: usize) -> Vec<String> {
        const WINDOW: u64 = 64 << 10;
        let read = || -> io::Result<Vec<u8>> {
            let mut file = open_regular(&self.file(0), OpenOptions::new().read(true))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
            let mut bytes = Vec::new();
            file.take(WINDOW).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let records: Vec<Record> = bytes.split(|byte| *byte == b'\n').filter_map(Record::parse).collect();
        let of = |stream: &str| -> Vec<String> {
            let lines: Vec<&Record> = records.iter().filter(|record| record.stream == stream).collect();
            lines[lines.len().saturating_sub(most)..].iter().map(|record| shortened(&record.text)).collect()
        };
        let lines = of("err");
        if lines.is_empty() { of("out") } else { lines }
    }
}

/// A line fit for a message.
fn shortened(text: &str) -> String {
    const MOST: usize = 2_000;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &Path) -> LogFile {
        LogFile::of(folder, "f", "i-1-2-3".parse().unwrap())
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let line = format!("{} err P a b  c\r", stamp());
        let record = Record::parse(line.as_bytes()).unwrap();
        assert_eq!((record.stream.as_str(), record.cut, record.text.as_str()), ("err", true, "a b  c"));
        assert!((kip_host::clock::wall_millis() - record.at).abs() < 60_000);
        assert_eq!(Record::parse(b"not a record"), None);
    }

    #[test]
    fn each_file_names_the_version() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path());
        let line = format!("{} out F one\n", stamp());
        assert_eq!(log.version(), None, "there is none");
        let written = log.clone().of_version(VersionId(42));
        written.append(line.as_bytes()).unwrap();
        assert_eq!((log.version(), log.last_lines(5)), (Some(VersionId(42)), vec!["one".to_owned()]));
        written.append(&vec![b'x'; usize::try_from(FILE_LIMIT).unwrap()]).unwrap();
        written.append(line.as_bytes()).unwrap();
        assert_eq!((log.files().len(), log.version()), (2, Some(VersionId(42))));
        let earlier = LogFile::of(folder.path(), "g", "i-1-2-3".parse().unwrap());
        earlier.append(line.as_bytes()).unwrap();
        assert_eq!(earlier.version(), None);
    }

    #[test]
    fn a_large_log_is_turned_over_and_the_oldest_part_goes() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path());
        log.prepare().unwrap();
        let megabyte = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            log.append(&megabyte).unwrap();
        }
        let files = log.files();
        assert_eq!(files.len(), TURNED_OVER + 1);
        let sizes: Vec<u64> = files.iter().map(|file| file.metadata().unwrap().len()).collect();
        assert_eq!(sizes, [16 << 20, 16 << 20, 16 << 20, 4 << 20]);
        assert_eq!(LogFile::from_path(&files[TURNED_OVER]), Some(log));
    }

    #[test]
    fn a_function_keeps_so_many_files_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        for sequence in 0..200 {
            let log = LogFile::of(folder.path(), "f", InstanceId { boot: 1, core: 1, sequence });
            log.prepare().unwrap();
            log.append(b"x\n").unwrap();
        }
        assert!(fs::read_dir(folder.path().join("f")).unwrap().count() <= FUNCTION_FILES + 1);
    }

    #[test]
    fn last_lines_are_those_of_standard_error() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path());
        let now = stamp();
        log.append(format!("{now} out F one\n{now} out F two\n").as_bytes()).unwrap();
        assert_eq!(log.last_lines(1), ["two"]);
        log.append(format!("{now} err F bad\n{now} out F three\n").as_bytes()).unwrap();
        assert_eq!(log.last_lines(5), ["bad"]);
    }
}
