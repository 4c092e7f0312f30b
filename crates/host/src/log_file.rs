//! The log file of a server in the background. It is the server's standard error, and turns over: a file that has grown large
//! becomes `server.log.1`, in place of the one before.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::directory::open_regular;

/// Bytes from which on a log file turns over.
const LARGEST: u64 = 16 << 20;

/// Opens the log file to append to it, for its owner only. A large one turns over first.
///
/// # Errors
/// What the operating system says.
pub fn open(path: &Path) -> io::Result<File> {
    if std::fs::symlink_metadata(path).is_ok_and(|about| about.is_file() && about.len() >= LARGEST) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    let file = open_regular(path, OpenOptions::new().create(true).append(true).mode(0o600))?;
    // Earlier versions made it readable for others.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Standard error, which turns over if it is the log file at this path.
#[derive(Debug)]
pub struct TurningLog {
    path: PathBuf,
    /// Bytes in the file; none if standard error is something else.
    bytes: Option<u64>,
    largest: u64,
}

impl TurningLog {
    /// Standard error as it is now.
    pub fn of_standard_error(path: PathBuf) -> Self {
        let same = |file: &std::fs::Metadata| {
            let own = rustix::fs::fstat(rustix::stdio::stderr()).ok()?;
            (own.st_dev == file.dev() && own.st_ino == file.ino()).then_some(file.len())
        };
        let bytes = std::fs::symlink_metadata(&path).ok().and_then(|file| same(&file));
        Self { path, bytes, largest: LARGEST }
    }

    fn turn(&self) -> io::Result<()> {
        std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        let file = open(&self.path)?;
        // Panics and what helpers write go there too.
        rustix::stdio::dup2_stderr(&file)?;
        Ok(())
    }
}

impl Write for TurningLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.is_some_and(|there| there >= self.largest) {
            // One that cannot turn over now is written on, and tried again after as much more.
            let _ = self.turn();
            self.bytes = Some(0);
        }
        let written = io::stderr().write(bytes)?;
        self.bytes = self.bytes.map(|there| there + written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
