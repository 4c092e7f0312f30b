//! From instances' pipes to their logs: one thread for all of them, which sleeps while nobody writes.
//!
//! What is in a pipe is looked at without being taken (`tee`), written down, and taken then. So a server that is killed
//! in between loses nothing: the next one finds it still there and writes it a second time. A line without an end stays
//! in its pipe for a moment, so that no stream needs a buffer.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kip_host::disk::Pressure;
use kip_spec::InstanceId;
use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::unsafe_readable::readable;
use crate::logs::{LogFile, stamp};

/// What is looked at at once.
const CHUNK: usize = 256 << 10;
/// A longer line is cut into pieces.
const LONGEST_LINE: usize = 64 << 10;
/// So many milliseconds the rest of a line is waited for; then what is there becomes a piece.
const PATIENCE: u64 = 1_000;
/// The first of the looks in between. The kernel does not wake us for a writer that waits because the pipe is full, when
/// something was left in it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// And the last.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The thread and what it reads.
#[derive(Debug)]
pub(super) struct Pump {
    runtime: Handle,
    streams: Arc<Mutex<HashMap<InstanceId, Vec<Arc<Stream>>>>>,
    workspace: Arc<Mutex<Workspace>>,
    pressure: Pressure,
    /// Set at the end; the thread goes then.
    end: watch::Sender<bool>,
}

#[derive(Debug)]
struct Stream {
    name: &'static str,
    pipe: Arc<OwnedFd>,
    log: LogFile,
    longest: usize,
    pressure: Pressure,
    /// Bytes that could not be written down.
    lost: Mutex<u64>,
}

/// Shared by all streams, since one thread reads them.
#[derive(Debug)]
struct Workspace {
    /// What was looked at lies here until it is read.
    shelf: (OwnedFd, OwnedFd),
    buffer: Vec<u8>,
    records: Vec<u8>,
}

/// What a look at a pipe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PipeRead {
    /// Something was written down; there may be more.
    More,
    /// The pipe is empty.
    Nothing,
    /// The beginning of a line is there.
    Begun,
    /// Nobody holds the other end any more.
    End,
}

/// What is to become of a line whose end is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartialLine {
    /// It stays in the pipe.
    Stays,
    /// It becomes a piece that goes on.
    Cut,
    /// Nothing follows: it is a line.
    Line,
}

impl Pump {
    /// Starts the thread.
    pub(super) fn start(pressure: Pressure) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, mut ended) = watch::channel(false);
        kip_host::tasks::thread("logs", move || {
            runtime.block_on(async move { drop(ended.wait_for(|ended| *ended).await) });
        })?;
        let shelf = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = rustix::pipe::fcntl_setpipe_size(&shelf.0, 1 << 20);
        let workspace = Workspace { shelf, buffer: vec![0; CHUNK], records: Vec::new() };
        Ok(Self { runtime: handle, streams: Arc::default(), workspace: Arc::new(Mutex::new(workspace)), pressure, end })
    }

    /// Reads a stream of an instance until nobody can write to it any more.
    pub(super) fn read(&self, instance: InstanceId, name: &'static str, pipe: File, log: LogFile) {
        let capacity = rustix::pipe::fcntl_getpipe_size(&pipe).unwrap_or(4_096);
        // A pipe may be full at half its size, when every write begins a page: a line must be cut before that.
        let longest = LONGEST_LINE.min(capacity / 4);
        let (pipe, pressure, lost) = (Arc::new(pipe.into()), self.pressure.clone(), Mutex::new(0));
        let stream = Arc::new(Stream { name, pipe, log, longest, pressure, lost });
        lock(&self.streams).entry(instance).or_default().push(stream.clone());
        let (streams, workspace) = (self.streams.clone(), self.workspace.clone());
        kip_host::tasks::spawn_on(&self.runtime, "read output", async move {
            if let Err(error) = follow(&stream, &workspace).await {
                tracing::error!(%instance, stream = stream.name, %error, "its output is not read any more");
            }
            let mut streams = lock(&streams);
            if let Some(all) = streams.get_mut(&instance) {
                all.retain(|one| !Arc::ptr_eq(one, &stream));
                if all.is_empty() {
                    streams.remove(&instance);
                }
            }
        });
    }

    /// Writes down everything that an instance has written up to now, lines without an end as well.
    pub(super) async fn settle(&self, instance: InstanceId) {
        let streams = lock(&self.streams).get(&instance).cloned().unwrap_or_default();
        self.settle_streams(streams).await;
    }

    /// The same for every instance whose log is in this folder.
    pub(super) async fn settle_folder(&self, folder: &Path) {
        let streams: Vec<Arc<Stream>> =
            lock(&self.streams).values().flatten().filter(|stream| stream.log.is_in(folder)).cloned().collect();
        self.settle_streams(streams).await;
    }

    async fn settle_streams(&self, streams: Vec<Arc<Stream>>) {
        if streams.is_empty() {
            return;
        }
        let (done, settled) = oneshot::channel();
        let workspace = self.workspace.clone();
        kip_host::tasks::spawn_on(&self.runtime, "settle output", async move {
            for stream in streams {
                // Bounded: it may be writing faster than we read.
                for _ in 0..64 {
                    match stream.look(&workspace, PartialLine::Cut) {
                        Ok(PipeRead::More) => tokio::task::yield_now().await,
                        Ok(PipeRead::Nothing | PipeRead::Begun | PipeRead::End) | Err(_) => break,
                    }
                }
            }
            let _ = done.send(());
        });
        let _ = settled.await;
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.end.send_replace(true);
    }
}

async fn follow(stream: &Stream, workspace: &Mutex<Workspace>) -> io::Result<()> {
    let pipe = readable(stream.pipe.clone())?;
    loop {
        let mut closed = {
            let mut ready = pipe.readable().await?;
            // Readiness that comes from now on stays, so nothing is missed. That of the end is never cleared.
            let closed = ready.ready().is_read_closed();
            ready.clear_ready();
            closed
        };
        let (mut begun, mut pause) = (None, LOOK_AGAIN);
        loop {
            let now = kip_host::clock::boot_millis();
            let rest = match begun {
                _ if closed => PartialLine::Line,
                Some(since) if now >= since + PATIENCE => PartialLine::Cut,
                _ => PartialLine::Stays,
            };
            match stream.look(workspace, rest)? {
                PipeRead::More => {
                    begun = None;
                    tokio::task::yield_now().await;
                }
                PipeRead::Begun => {
                    begun = begun.or(Some(now));
                    if let Ok(ready) = tokio::time::timeout(pause, pipe.readable()).await {
                        let mut ready = ready?;
                        closed |= ready.ready().is_read_closed();
                        ready.clear_ready();
                    } else {
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                PipeRead::Nothing => break,
                PipeRead::End => return Ok(()),
            }
        }
    }
}

impl Stream {
    /// Looks at what is there, writes lines down and takes them out.
    fn look(&self, workspace: &Mutex<Workspace>, rest: PartialLine) -> io::Result<PipeRead> {
        let mut workspace = lock(workspace);
        let Workspace { shelf, buffer, records } = &mut *workspace;
        match rustix::pipe::tee(&self.pipe, &shelf.1, CHUNK, SpliceFlags::NONBLOCK) {
            Ok(0) => return Ok(PipeRead::End),
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(PipeRead::Nothing),
            Err(rustix::io::Errno::INTR) => return Ok(PipeRead::More),
            Err(error) => return Err(error.into()),
        }
        let mut seen = 0;
        while seen < CHUNK {
            match rustix::io::read(&shelf.0, &mut buffer[seen..]) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(read) => seen += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        records.clear();
        let taken = self.cut(&buffer[..seen], rest, records);
        if taken == 0 {
            return Ok(PipeRead::Begun);
        }
        self.write_down(records, taken);
        let mut left = taken;
        while left > 0 {
            match rustix::io::read(&self.pipe, &mut buffer[..left]) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(read) => left -= read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(PipeRead::More)
    }

    /// Makes records of whole lines, and of pieces of lines that are too long. Gives how much of `seen` they cover.
    fn cut(&self, seen: &[u8], last: PartialLine, records: &mut Vec<u8>) -> usize {
        let stamp = stamp();
        let mut record = |tag: &str, text: &[u8]| {
            for part in [stamp.as_bytes(), b" ", self.name.as_bytes(), b" ", tag.as_bytes(), b" ", text, b"\n"] {
                records.extend_from_slice(part);
            }
        };
        let mut begin = 0;
        loop {
            let rest = &seen[begin..];
            let reach = &rest[..rest.len().min(self.longest + 1)];
            match reach.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    record("F", &rest[..end]);
                    begin += end + 1;
                }
                None if rest.len() > self.longest => {
                    record("P", &rest[..self.longest]);
                    begin += self.longest;
                }
                None if last != PartialLine::Stays && !rest.is_empty() => {
                    record(if last == PartialLine::Cut { "P" } else { "F" }, rest);
                    return seen.len();
                }
                None => return begin,
            }
        }
    }

    fn write_down(&self, records: &[u8], bytes: usize) {
        let mut lost = lock(&self.lost);
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let room = if self.pressure.sheds() { Err(full()) } else { Ok(()) };
        if *lost > 0 && room.is_ok() {
            let remark =
                format!("{} kip F {lost} bytes of its {} were left out: the disk was full\n", stamp(), self.name);
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

fn lock<T>(mutex: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(test)]
mod tests {
    use super::super::streams;
    use super::*;
    use std::io::Write as _;

    struct Bench {
        folder: tempfile::TempDir,
        pump: Pump,
        log: LogFile,
        pipe: Option<File>,
    }

    fn id() -> InstanceId {
        "i-1-1-1".parse().unwrap()
    }

    fn bench() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile::of(folder.path(), "f", id());
        let pump = Pump::start(Pressure::default()).unwrap();
        let (ours, theirs) = streams::make(folder.path(), "out").unwrap();
        pump.read(id(), "out", ours, log.clone());
        Bench { folder, pump, log, pipe: Some(theirs) }
    }

    impl Bench {
        fn write(&mut self, bytes: &[u8]) {
            self.pipe.as_mut().unwrap().write_all(bytes).unwrap();
        }

        fn records(&self) -> Vec<crate::logs::Record> {
            let text: Vec<u8> = self.log.files().iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
            text.split(|byte| *byte == b'\n').filter_map(crate::logs::Record::parse).collect()
        }

        fn until(&self, what: impl Fn(&[crate::logs::Record]) -> bool) {
            let end = kip_host::clock::boot_millis() + 20_000;
            while !what(&self.records()) {
                assert!(kip_host::clock::boot_millis() < end, "{:?}", self.records().len());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn whole_lines_are_written_down_and_the_rest_at_the_end() {
        let mut bench = bench();
        bench.write(b"one\ntwo\nthr");
        bench.until(|records| records.len() == 2);
        bench.write(b"ee\nfour");
        bench.until(|records| records.len() == 3);
        assert_eq!(bench.records()[2].text, "three");
        bench.pipe = None;
        bench.until(|records| records.len() == 4);
        let last = bench.records().pop().unwrap();
        assert_eq!((last.text.as_str(), last.cut), ("four", false));
    }

    #[test]
    fn an_endless_line_is_cut_into_pieces() {
        let mut bench = bench();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..4 {
            bench.write(&piece);
        }
        bench.write(b"\n");
        bench.until(|records| records.iter().any(|record| !record.cut));
        let records = bench.records();
        assert!(records.iter().all(|record| record.text.len() <= LONGEST_LINE));
        assert_eq!(records.iter().map(|record| record.text.len()).sum::<usize>(), 4 << 20);
        assert_eq!(records.iter().filter(|record| !record.cut).count(), 1);
    }

    #[test]
    fn what_was_written_while_nobody_read_is_found_by_the_next() {
        let mut bench = bench();
        bench.write(b"begun");
        drop(std::mem::replace(&mut bench.pump, Pump::start(Pressure::default()).unwrap()));
        let lines: String = (0..1_000).map(|number| format!(" {number}\n")).collect();
        bench.write(lines.as_bytes());
        let ours = streams::open(bench.folder.path(), "out").unwrap();
        bench.pump.read(id(), "out", ours, bench.log.clone());
        bench.until(|records| records.len() == 1_000);
        let records = bench.records();
        assert_eq!((records[0].text.as_str(), records[999].text.as_str()), ("begun 0", " 999"));
    }

    #[test]
    fn a_nearly_full_disk_costs_lines_and_that_is_said_afterwards() {
        let mut bench = bench();
        bench.write(b"before\n");
        bench.until(|records| records.len() == 1);
        bench.pump.pressure.set(kip_host::disk::Level::Low);
        bench.write(b"left out\n");
        let end = kip_host::clock::boot_millis() + 20_000;
        let lost = || lock(&bench.pump.streams)[&id()].iter().map(|stream| *lock(&stream.lost)).sum::<u64>();
        while lost() != 9 {
            assert!(kip_host::clock::boot_millis() < end, "{} bytes are left out", lost());
            std::thread::sleep(Duration::from_millis(5));
        }
        bench.pump.pressure.set(kip_host::disk::Level::Ok);
        bench.write(b"after\n");
        bench.until(|records| records.len() == 3);
        let texts: Vec<String> = bench.records().into_iter().map(|record| record.text).collect();
        assert_eq!(texts, ["before", "9 bytes of its out were left out: the disk was full", "after"]);
    }

    #[tokio::test]
    async fn settling_waits_for_what_was_written() {
        let mut bench = bench();
        for number in 0..100 {
            bench.write(format!("line {number}\nno end").as_bytes());
            bench.pump.settle(id()).await;
            assert_eq!(bench.records().last().unwrap().text, "no end");
        }
    }
}
