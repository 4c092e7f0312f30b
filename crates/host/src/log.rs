//! Where log lines go: standard error, by way of a thread of its own. Whoever logs never waits, and never fails: standard error may
//! be a file on a full disk, or a pipe that nobody reads. Lines that cannot be written are dropped and counted.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::tasks;

mod repeats;

use repeats::Repeats;

/// How often counts of repeated lines are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Lines that may wait.
const WAITING: usize = 4_096;

/// Lines that were not written since the process was started.
static DROPPED: AtomicU64 = AtomicU64::new(0);

static SINK: OnceLock<SyncSender<Item>> = OnceLock::new();

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Lines that were not written since the process was started.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Takes one line.
#[derive(Debug, Default)]
pub struct Line(Vec<u8>);

/// A line that is written when it is dropped. Before [`start`] it goes nowhere.
pub fn line() -> Line {
    Line::default()
}

/// Starts the thread that writes to `out`. Only the first call has an effect.
///
/// # Errors
/// When the operating system has no room for another thread.
pub fn start(out: impl Write + Send + 'static) -> io::Result<()> {
    let (lines, queue) = sync_channel(WAITING);
    if SINK.set(lines).is_ok() {
        tasks::thread("log", move || write_all(out, &queue))?;
    }
    Ok(())
}

/// Waits until what was logged before is written, but no longer than `limit`.
pub fn flush(limit: Duration) {
    let (done, written) = sync_channel(1);
    if let Some(sink) = SINK.get()
        && sink.try_send(Item::Flush(done)).is_ok()
    {
        let _ = written.recv_timeout(limit);
    }
}

fn write_all(mut out: impl Write, queue: &Receiver<Item>) {
    // Of these the reader of the log has not been told.
    let mut untold = 0;
    let mut repeats = Repeats::default();
    loop {
        let item = match queue.recv_timeout(LOOK) {
            Ok(item) => Some(item),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let now = crate::clock::boot_millis();
        let lines = match item {
            Some(Item::Line(line)) => repeats.take(line, now),
            Some(Item::Flush(done)) => {
                let _ = done.try_send(());
                continue;
            }
            None => repeats.over(now),
        };
        for line in lines {
            if untold > 0 && writeln!(out, "{untold} lines of this log could not be written").is_ok() {
                untold = 0;
            }
            if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
                untold += 1;
            }
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.0);
        if let Some(sink) = SINK.get().filter(|_| !line.is_empty())
            && sink.try_send(Item::Line(line)).is_err()
        {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use parking_lot::Mutex;

    use super::*;

    /// Fails while it is full.
    #[derive(Clone, Default)]
    struct Disk {
        full: Arc<AtomicBool>,
        text: Arc<Mutex<String>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.lock().push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_of_later() {
        let disk = Disk::default();
        start(disk.clone()).unwrap();
        let say = |text: &str| {
            writeln!(line(), "{text}").unwrap();
            flush(Duration::from_secs(10));
        };
        say("one");
        disk.full.store(true, Ordering::Relaxed);
        say("two");
        say("three");
        assert_eq!(dropped(), 2);
        disk.full.store(false, Ordering::Relaxed);
        say("four");
        assert_eq!(*disk.text.lock(), "one\n2 lines of this log could not be written\nfour\n");
    }
}
