//! Standard output and error of an instance: one FIFO each, which the instance itself keeps open for reading and writing.
//! So it meets neither a broken pipe nor an end of file while no server is there: it writes on until the pipe is full, and
//! waits then.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// What a pipe holds while nobody reads it; more than this only a privileged user may ask for.
const CAPACITY: usize = 1 << 20;

/// The two streams, with their names in records.
pub(super) const NAMES: [&str; 2] = ["out", "err"];

/// The FIFO of a stream in an instance's folder.
pub(super) fn fifo(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.fifo"))
}

/// Makes a FIFO and opens both its ends: ours, and the one that the instance is given.
pub(super) fn make(folder: &Path, name: &str) -> io::Result<(File, File)> {
    let path = fifo(folder, name);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR)?;
    let ours = open(folder, name)?;
    let theirs = OpenOptions::new().read(true).write(true).open(&path)?;
    // Refused where this user's pipes hold much already; it is a smaller pipe then.
    let _ = rustix::pipe::fcntl_setpipe_size(&ours, CAPACITY);
    Ok((ours, theirs))
}

/// Opens our end of a FIFO.
pub(super) fn open(folder: &Path, name: &str) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(fifo(folder, name))
}
