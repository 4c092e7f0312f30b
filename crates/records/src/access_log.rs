//! The access log: one JSON line for each request, on request. Lines are written by a thread of their own; the data plane
//! hands them in and never waits.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use kip_host::disk::Pressure;
use kip_spec::terminal;
use kip_store::RequestRecord;
use serde::Serialize;
use tokio::sync::oneshot;

/// Lines that may wait; more are dropped and counted.
const WAITING: usize = 16_384;

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Standard error, beside the server's own log.
    Stderr,
    /// A file; when it has grown to so many bytes it is renamed to `.1`, which goes then, and begun anew.
    File {
        /// Which.
        path: PathBuf,
        /// How large.
        most: u64,
    },
}

/// How the access log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogOptions {
    /// Where to.
    pub target: AccessLogTarget,
    /// Whether queries are in it: they can hold secrets.
    pub query: bool,
}

/// Where lines are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Item {
    Line(Box<Entry>),
    Flush(oneshot::Sender<()>),
}

/// A request and who sent it.
#[derive(Debug)]
pub struct Entry {
    /// What the request was.
    pub record: RequestRecord,
    /// Its caller's address.
    pub peer: Option<IpAddr>,
}

/// A line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: String,
    id: &'a str,
    function: &'a str,
    version: Option<u64>,
    instance: Option<&'a str>,
    method: &'a str,
    path: &'a str,
    status: u16,
    code: Option<&'a str>,
    start: Option<&'a str>,
    queue_us: u64,
    first_byte_us: u64,
    total_us: u64,
    bytes_in: u64,
    bytes: u64,
    outcome: &'a str,
    key: Option<&'a str>,
    tenant: Option<&'a str>,
    peer: Option<IpAddr>,
}

impl AccessLog {
    /// Opens the log and starts its thread.
    ///
    /// # Errors
    /// When the file cannot be opened or there is no room for a thread.
    pub fn start(options: &AccessLogOptions, pressure: Pressure) -> io::Result<Self> {
        let out = match &options.target {
            AccessLogTarget::Stderr => Sink::Stderr(BufWriter::new(io::stderr())),
            AccessLogTarget::File { path, most } => Sink::File(RotatedFile::open(path, *most)?),
        };
        let (lines, queue) = sync_channel(WAITING);
        let dropped: Arc<AtomicU64> = Arc::default();
        let writer = Writer { out, query: options.query, dropped: dropped.clone(), pressure, failed: false };
        kip_host::tasks::thread("access log", move || writer.run(&queue))?;
        Ok(Self { lines, dropped })
    }

    /// Hands in a line, or drops and counts it when the writer does not keep up.
    pub fn hand_in(&self, entry: Entry) {
        if self.lines.try_send(Item::Line(Box::new(entry))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was handed in is written, unless so much waits that there is no room even for this.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.lines.try_send(Item::Flush(done)).is_ok() {
            let _ = flushed.await;
        }
    }

    /// Lines that were not written since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
enum Sink {
    Stderr(BufWriter<io::Stderr>),
    File(RotatedFile),
}

struct Writer {
    out: Sink,
    query: bool,
    dropped: Arc<AtomicU64>,
    pressure: Pressure,
    /// The last write failed; that is said once.
    failed: bool,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Item>) {
        while let Ok(first) = queue.recv() {
            // Those that wait already go with it, and then all of them to the disk.
            let mut batch = Vec::new();
            let mut flushes = Vec::new();
            for item in std::iter::once(first).chain(queue.try_iter().take(WAITING)) {
                match item {
                    Item::Line(entry) => batch.push(*entry),
                    Item::Flush(done) => flushes.push(done),
                }
            }
            let count = batch.len() as u64;
            let written = match self.out {
                Sink::File(_) if self.pressure.sheds() => Err(io::ErrorKind::StorageFull.into()),
                _ => self.write(&batch),
            };
            match written {
                Ok(()) => self.failed = false,
                Err(error) => {
                    self.dropped.fetch_add(count, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.failed, true) {
                        tracing::error!(%error, "lines of the access log are lost");
                    }
                }
            }
            for done in flushes {
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self, batch: &[Entry]) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut text = Vec::with_capacity(batch.len() * 400);
        for entry in batch {
            text.extend_from_slice(written(entry, self.query)?.as_bytes());
        }
        match &mut self.out {
            Sink::Stderr(out) => out.write_all(&text).and_then(|()| out.flush()),
            Sink::File(kept) => kept.write(&text),
        }
    }
}

/// A line of the file. Whoever looks at it in a terminal obeys no caller.
fn written(entry: &Entry, query: bool) -> io::Result<String> {
    let line = serde_json::to_string(&line(entry, query))?;
    Ok(terminal::json(&line).into_owned() + "\n")
}

fn line(entry: &Entry, query: bool) -> Line<'_> {
    let Entry { record, peer } = entry;
    let path = if query { &record.path } else { record.path.split('?').next().unwrap_or_default() };
    Line {
        time: jiff::Timestamp::from_millisecond(record.at).unwrap_or_default().to_string(),
        id: &record.id,
        function: &record.function,
        version: record.version,
        instance: record.instance.as_deref(),
        method: &record.method,
        path,
        status: record.status,
        code: record.code.as_deref(),
        start: record.start.as_deref(),
        queue_us: record.queue_us,
        first_byte_us: record.first_byte_us,
        total_us: record.total_us,
        bytes_in: record.bytes_in,
        bytes: record.bytes,
        outcome: &record.outcome,
        key: record.key.as_deref(),
        tenant: record.tenant.as_deref(),
        peer: *peer,
    }
}

/// A file that is begun anew when it is full, and when somebody else has renamed or removed it.
#[derive(Debug)]
struct RotatedFile {
    path: PathBuf,
    most: u64,
    file: File,
    length: u64,
    inode: u64,
}

impl RotatedFile {
    fn open(path: &Path, most: u64) -> io::Result<Self> {
        // Paths and addresses are nobody else's business.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let about = file.metadata()?;
        Ok(Self { path: path.to_owned(), most, length: about.len(), inode: about.ino(), file })
    }

    /// Writes lines, as many at once as the file still holds.
    fn write(&mut self, mut text: &[u8]) -> io::Result<()> {
        if std::fs::metadata(&self.path).map_or(true, |about| about.ino() != self.inode) {
            *self = Self::open(&self.path, self.most)?;
        }
        while !text.is_empty() {
            let room = usize::try_from(self.most.saturating_sub(self.length)).unwrap_or(usize::MAX);
            let fits = if room >= text.len() {
                text.len()
            } else {
                text[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
            };
            if fits == 0 && self.length > 0 {
                self.put_aside()?;
                continue;
            }
            // A line that is too long for any file is written whole.
            let first = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
            let (lines, rest) = text.split_at(if fits == 0 { first } else { fits });
            self.file.write_all(lines)?;
            self.length = self.length.saturating_add(lines.len() as u64);
            text = rest;
        }
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, old)?;
        *self = Self::open(&self.path, self.most)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let record = RequestRecord {
            id: "r1".to_owned(),
            at: 1_795_341_600_123,
            function: "f".to_owned(),
            version: Some(3),
            label: None,
            qualifier: None,
            instance: Some("i-1-1-1".to_owned()),
            method: "GET".to_owned(),
            path: "/a\"b?token=secret".to_owned(),
            status: 200,
            code: None,
            start: Some("warm".to_owned()),
            queue_us: 1,
            first_byte_us: 2,
            total_us: 3,
            bytes: 4,
            bytes_in: 5,
            kind: None,
            peak_memory: None,
            outcome: "done".to_owned(),
            key: Some("k".to_owned()),
            tenant: Some("t".to_owned()),
        };
        Entry { record, peer: "127.0.0.1".parse().ok() }
    }

    #[test]
    fn queries_are_left_out_unless_asked_for() {
        let shown = |query| serde_json::to_value(line(&entry(), query)).unwrap();
        assert_eq!(shown(false)["path"], "/a\"b");
        assert_eq!(shown(true)["path"], "/a\"b?token=secret");
        assert_eq!(shown(false)["time"], "2026-11-22T10:00:00.123Z");
        assert_eq!((&shown(false)["peer"], &shown(false)["key"]), (&"127.0.0.1".into(), &"k".into()));
    }

    #[test]
    fn a_path_that_a_terminal_would_obey_is_escaped() {
        let mut entry = entry();
        entry.record.path = "/\u{9b}31m\u{202e}x".to_owned();
        let text = written(&entry, false).unwrap();
        assert!(text.contains("/\\u009b31m\\u202ex") && text.ends_with("}\n"), "{text}");
    }

    #[test]
    fn a_full_file_is_renamed_and_a_renamed_one_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let mut kept = RotatedFile::open(&path, 10).unwrap();
        kept.write(b"12345678\n").unwrap();
        kept.write(b"abc\n").unwrap();
        assert_eq!((read("access.log.1").as_str(), read("access.log").as_str()), ("12345678\n", "abc\n"));
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        kept.write(b"d\n").unwrap();
        assert_eq!((read("moved").as_str(), read("access.log").as_str()), ("abc\n", "d\n"));
        kept.write(b"a line longer than the file may be\n").unwrap();
        assert_eq!(read("access.log").lines().count(), 1, "what is too large alone is kept whole");
        kept.write(b"111\n222\n333\n444\n").unwrap();
        assert_eq!((read("access.log.1").as_str(), read("access.log").as_str()), ("111\n222\n", "333\n444\n"));
    }
}
