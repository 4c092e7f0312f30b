//! From the engine's copy of a container's output to the log store: one stream for each container, read on one thread.
//!
//! The engine keeps the output in files. What was read is remembered by the engine's time of the last line and the number of lines that
//! have this time, so that another server, or a new connection, goes on behind it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt as _;
use kip_host::disk::Pressure;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::failure::{Failure, failure};
use super::instance::Instance;
use crate::logs::{LogFile, stamp};

/// Lines that are written down together.
const BATCH: usize = 512;
/// From the end of a stream to the next look, while the container lives.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long the rest of an ended container's output is waited for.
const REST: Duration = Duration::from_secs(2);
/// How long the output of a living one is waited for.
const SETTLE: Duration = Duration::from_secs(2);
/// No further line for so long: the lines of one moment are all there.
const QUIET: Duration = Duration::from_millis(15);
/// The file of the cursor in the instance's folder.
const FILE: &str = "output.json";
/// Bytes of it at most.
const LARGEST: u64 = 4 << 10;

/// What has been read of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LinePosition {
    /// The engine's time of the last line. Times of one engine have one form, so that they are compared as text.
    time: String,
    /// Lines with this time that were read.
    lines: u64,
}

/// What has been read of a container's output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor(BTreeMap<String, LinePosition>);

/// Decides which lines of a stream that begins anew were read before.
#[derive(Debug)]
struct Resumption {
    cursor: Cursor,
    /// Lines at the last known time that are still to be skipped.
    left: BTreeMap<String, u64>,
}

impl Resumption {
    fn new(cursor: Cursor) -> Self {
        let left = cursor.0.iter().map(|(stream, place)| (stream.clone(), place.lines)).collect();
        Self { cursor, left }
    }

    /// Whether a line is new; the cursor then stands behind it.
    fn take(&mut self, stream: &str, time: &str) -> bool {
        let place = self.cursor.0.entry(stream.to_owned()).or_default();
        let left = self.left.entry(stream.to_owned()).or_default();
        match time.cmp(place.time.as_str()) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal if *left > 0 => {
                *left -= 1;
                false
            }
            std::cmp::Ordering::Equal => {
                place.lines += 1;
                true
            }
            std::cmp::Ordering::Greater => {
                *place = LinePosition { time: time.to_owned(), lines: 1 };
                *left = 0;
                true
            }
        }
    }

    /// Whole seconds since 1970 from which on something may be new.
    fn since(&self) -> i32 {
        let seconds =
            |place: &LinePosition| place.time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
        let first = self.cursor.0.values().map(seconds).min().unwrap_or(0);
        i32::try_from(first).unwrap_or(0)
    }
}

/// The thread that reads the output of all containers.
#[derive(Debug)]
pub(super) struct Reader {
    runtime: Handle,
    pressure: Pressure,
    end: watch::Sender<bool>,
}

/// The reading of one container's output.
#[derive(Debug, Clone)]
pub(super) struct Output {
    done: watch::Receiver<bool>,
    /// The engine's time of the newest line that was written down.
    newest: watch::Receiver<String>,
}

impl Reader {
    pub(super) fn start(pressure: Pressure) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, mut ended) = watch::channel(false);
        kip_host::tasks::thread("container-logs", move || {
            runtime.block_on(async move { drop(ended.wait_for(|ended| *ended).await) });
        })?;
        Ok(Self { runtime: handle, pressure, end })
    }

    /// Reads a container's output until it has ended and all is read.
    pub(super) fn read(&self, docker: Docker, instance: &Arc<Instance>, log: LogFile) -> Output {
        let (done, is_done) = watch::channel(false);
        let (newest, seen) = watch::channel(String::new());
        let writer = Writer { log, pressure: self.pressure.clone(), lost: Mutex::new(0) };
        let instance = Arc::downgrade(instance);
        kip_host::tasks::spawn_on(&self.runtime, "read container output", async move {
            loop {
                let Some(known) = instance.upgrade() else { break };
                let (container, folder, mut ended) =
                    (known.container.clone(), known.folder.clone(), known.ended.subscribe());
                // Before the stream: what ends during it is looked at once more.
                let had_ended = known.has_ended();
                drop(known);
                let gone = follow(&docker, &container, &folder, &writer, &newest).await;
                if gone || had_ended {
                    break;
                }
                let _ = tokio::time::timeout(LOOK_AGAIN, ended.wait_for(Option::is_some)).await;
            }
            done.send_replace(true);
        });
        Output { done: is_done, newest: seen }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.end.send_replace(true);
    }
}

impl Output {
    /// Waits until all that an ended container wrote is written down.
    pub(super) async fn rest(mut self) {
        let _ = tokio::time::timeout(REST, self.done.wait_for(|done| *done)).await;
    }

    /// Waits until what a living container wrote up to now is written down, as far as the engine shows it.
    pub(super) async fn settle(mut self, docker: &Docker, container: &str) {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).timestamps(true).tail("1").build();
        let mut last = std::pin::pin!(docker.logs(container, Some(options)));
        let mut time = String::new();
        while let Some(Ok(line)) = last.next().await {
            let (_, text) = parts(&line);
            time = time.max(split(text).0.to_owned());
        }
        let reached = async {
            while !*self.done.borrow() && self.newest.borrow().as_str() < time.as_str() {
                tokio::select! {
                    changed = self.newest.changed() => if changed.is_err() { return },
                    changed = self.done.changed() => if changed.is_err() { return },
                }
            }
            while tokio::time::timeout(QUIET, self.newest.changed()).await.is_ok_and(|changed| changed.is_ok()) {}
        };
        let _ = tokio::time::timeout(SETTLE, reached).await;
    }
}

/// Reads what is there and what comes, until the engine ends the stream. Answers whether the container is gone.
async fn follow(
    docker: &Docker,
    container: &str,
    folder: &Path,
    writer: &Writer,
    newest: &watch::Sender<String>,
) -> bool {
    let file = folder.join(FILE);
    let mut resumption = Resumption::new(read(&file));
    let options = LogsOptionsBuilder::default()
        .follow(true)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .since(resumption.since())
        .build();
    let mut batches = std::pin::pin!(docker.logs(container, Some(options)).ready_chunks(BATCH));
    while let Some(batch) = batches.next().await {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut last = String::new();
        for line in batch {
            let line = match line {
                Ok(line) => line,
                Err(error) => return matches!(failure(&error), Failure::Missing(_)),
            };
            let (stream, text) = parts(&line);
            let (time, text) = split(text);
            if resumption.take(stream, time) {
                bytes += text.len();
                record(&mut records, stream, text);
                last = last.max(time.to_owned());
            }
        }
        if !records.is_empty() {
            writer.write(&records, bytes);
            write(&file, &resumption.cursor);
            newest.send_if_modified(|newest| {
                let further = last >= *newest;
                if further {
                    *newest = last;
                }
                further
            });
        }
    }
    false
}

fn read(file: &Path) -> Cursor {
    let bytes = kip_host::directory::read_regular(file, LARGEST).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// What is not written down is read a second time by the next server.
fn write(file: &Path, cursor: &Cursor) {
    let text = serde_json::to_vec(cursor).unwrap_or_default();
    let _ = kip_host::directory::write_unsynced(file, &text);
}

fn parts(line: &LogOutput) -> (&'static str, &[u8]) {
    match line {
        LogOutput::StdErr { message } => ("err", message),
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            ("out", message)
        }
    }
}

/// The engine's time before a line, and the line.
fn split(line: &[u8]) -> (&str, &[u8]) {
    let space = line.iter().position(|byte| *byte == b' ');
    let split = space.and_then(|space| Some((std::str::from_utf8(&line[..space]).ok()?, &line[space + 1..])));
    split.unwrap_or(("", line))
}

/// A piece without an end is one of a longer line.
fn record(records: &mut Vec<u8>, stream: &str, text: &[u8]) {
    let (tag, text) = text.strip_suffix(b"\n").map_or(("P", text), |text| ("F", text));
    let stamp = stamp();
    for part in [stamp.as_bytes(), b" ", stream.as_bytes(), b" ", tag.as_bytes(), b" ", text, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Writes records down, and counts what has no room.
struct Writer {
    log: LogFile,
    pressure: Pressure,
    lost: Mutex<u64>,
}

impl Writer {
    fn write(&self, records: &[u8], bytes: usize) {
        let mut lost = self.lost.lock();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let room = if self.pressure.sheds() { Err(full()) } else { Ok(()) };
        if *lost > 0 && room.is_ok() {
            let remark = format!("{} kip F {lost} bytes of its output were left out: the disk was full\n", stamp());
            if self.log.append(remark.as_bytes()).is_ok() {
                *lost = 0;
            }
        }
        if let Err(error) = room.and_then(|()| self.log.append(records)) {
            if *lost == 0 {
                tracing::error!(instance = %self.log.instance(), %error, "what it writes is left out");
            }
            *lost += bytes as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_begins_anew_goes_on_behind_what_was_read() {
        let lines = [("out", "1Z"), ("out", "1Z"), ("err", "1Z"), ("out", "2Z")];
        let mut first = Resumption::new(Cursor::default());
        assert!(lines.iter().all(|(stream, time)| first.take(stream, time)));
        let mut second = Resumption::new(first.cursor);
        // All of them again, as an engine does that knows whole seconds only, and three new ones.
        let again: Vec<bool> = lines.iter().map(|(stream, time)| second.take(stream, time)).collect();
        assert_eq!(again, [false, false, false, false]);
        assert!(second.take("out", "2Z") && second.take("err", "1Z") && second.take("err", "3Z"));
        let mut third = Resumption::new(second.cursor);
        let all = [("out", "2Z"), ("out", "2Z"), ("err", "3Z"), ("out", "4Z")];
        let again: Vec<bool> = all.iter().map(|(stream, time)| third.take(stream, time)).collect();
        assert_eq!(again, [false, false, false, true]);
    }

    #[test]
    fn a_stream_begins_at_the_second_of_what_was_read() {
        let mut resumption = Resumption::new(Cursor::default());
        assert_eq!(resumption.since(), 0);
        resumption.take("out", "2026-11-29T12:41:19.500000000Z");
        resumption.take("err", "2026-11-29T12:41:18.000000000Z");
        assert_eq!(resumption.since(), 1_795_956_078);
    }

    #[test]
    fn lines_and_pieces_become_records() {
        let mut records = Vec::new();
        record(&mut records, "out", b"a b\n");
        record(&mut records, "err", b"piece");
        let parsed: Vec<crate::logs::Record> =
            records.split(|byte| *byte == b'\n').filter_map(crate::logs::Record::parse).collect();
        let seen: Vec<_> = parsed.iter().map(|one| (one.stream.as_str(), one.cut, one.text.as_str())).collect();
        assert_eq!(seen, [("out", false, "a b"), ("err", true, "piece")]);
        assert_eq!(split(b"2026Z text with spaces\n"), ("2026Z", b"text with spaces\n".as_slice()));
    }
}
