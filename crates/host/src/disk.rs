//! How much room a directory's file system has, what kind it is, and a reserve kept for the day when it is full.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{FallocateFlags, fallocate, statfs, statvfs};

/// How the disk of the data directory stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// There is room.
    Ok = 0,
    /// What can be left out is left out: records and logs.
    Low = 1,
    /// Only state is written.
    Full = 2,
}

impl Level {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Low => "low",
            Self::Full => "full",
        }
    }
}

/// The level, shared by those who write. Reading it costs one load.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<AtomicU8>);

impl Pressure {
    /// How the disk stands.
    pub fn level(&self) -> Level {
        match self.0.load(Ordering::Relaxed) {
            0 => Level::Ok,
            1 => Level::Low,
            _ => Level::Full,
        }
    }

    /// Whether records and logs are to be left out.
    pub fn sheds(&self) -> bool {
        self.level() != Level::Ok
    }

    /// Notes how the disk stands; gives what was noted before.
    pub fn set(&self, level: Level) -> Level {
        let before = self.level();
        self.0.store(level as u8, Ordering::Relaxed);
        before
    }
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What we may still use.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// The room on the file system of a path.
///
/// # Errors
/// What the operating system says.
pub fn space(path: &Path) -> io::Result<Space> {
    let found = statvfs(path)?;
    Ok(Space {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// What kind of file system a directory lies on, as far as it matters for state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A disk, or what pretends to be one.
    Local,
    /// Its locks and shared memory cannot be relied on.
    Network(&'static str),
    /// Its content is gone with the power.
    Memory(&'static str),
}

/// The kind of file system of a path. One that is not known counts as local.
///
/// # Errors
/// What the operating system says.
pub fn kind(path: &Path) -> io::Result<Kind> {
    // statfs(2) lists the numbers; only the lower 32 bits mean something on every architecture.
    let magic = u64::try_from(statfs(path)?.f_type).unwrap_or(0) & 0xFFFF_FFFF;
    Ok(kind_of(magic))
}

fn kind_of(magic: u64) -> Kind {
    match magic {
        0x6969 => Kind::Network("nfs"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => Kind::Network("cifs"),
        0x0102_1997 => Kind::Network("9p"),
        0x6573_5546 => Kind::Network("fuse"),
        0x00C3_6400 => Kind::Network("ceph"),
        0x0102_1994 => Kind::Memory("tmpfs"),
        0x8584_58F6 => Kind::Memory("ramfs"),
        _ => Kind::Local,
    }
}

/// A file that holds room for state: removed when the disk is full, made again when there is room.
#[derive(Debug, Clone)]
pub struct Reserve {
    path: PathBuf,
    bytes: u64,
}

const EXPLANATION: &[u8] =
    b"This file keeps room for the server's state. It is given up when the disk is full and made again later.\n";

impl Reserve {
    /// A reserve of this size at this place; nothing is made yet.
    pub fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes }
    }

    /// Whether the room is held.
    pub fn is_held(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| file.len() >= self.bytes)
    }

    /// How much it holds, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds the room. That it succeeds proves that the disk takes writes again.
    ///
    /// # Errors
    /// What the operating system says; nothing is held then.
    pub fn hold(&self) -> io::Result<()> {
        if self.is_held() {
            return Ok(());
        }
        let made = self.make();
        if made.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        made
    }

    fn make(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let mut file = crate::directory::open_regular(&self.path, &mut options)?;
        file.write_all(EXPLANATION)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            // A file system that cannot promise room is filled by hand.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let zeros = vec![0u8; 1 << 16];
                let mut left = self.bytes.saturating_sub(EXPLANATION.len() as u64);
                while left > 0 {
                    let piece = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                    file.write_all(&zeros[..piece])?;
                    left -= piece as u64;
                }
            }
            other => other?,
        }
        file.sync_all()
    }

    /// Gives the room up. False if none was held.
    pub fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_takes_room_and_gives_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(folder.path().join("reserve"), 1 << 20);
        assert!(!reserve.is_held() && !reserve.release());
        reserve.hold().unwrap();
        reserve.hold().unwrap();
        assert!(reserve.is_held());
        assert!(reserve.release() && !reserve.is_held());
        let impossible = Reserve::new(folder.path().join("reserve"), space(folder.path()).unwrap().total * 4);
        assert!(impossible.hold().is_err());
        assert!(!folder.path().join("reserve").exists(), "a reserve that cannot be held leaves nothing behind");
    }

    #[test]
    fn file_systems_are_told_apart() {
        assert_eq!(kind_of(0x6969), Kind::Network("nfs"));
        assert_eq!(kind_of(0xFF53_4D42), Kind::Network("cifs"));
        assert_eq!(kind_of(0x0102_1997), Kind::Network("9p"));
        assert_eq!(kind_of(0x6573_5546), Kind::Network("fuse"));
        assert_eq!(kind_of(0x0102_1994), Kind::Memory("tmpfs"));
        assert_eq!(kind_of(0xEF53), Kind::Local);
        assert_eq!(kind(Path::new("/proc")).unwrap(), Kind::Local);
    }

    #[test]
    fn pressure_is_shared_and_remembers() {
        let pressure = Pressure::default();
        let other = pressure.clone();
        assert_eq!(pressure.set(Level::Low), Level::Ok);
        assert!(other.sheds() && other.level() == Level::Low);
    }
}
