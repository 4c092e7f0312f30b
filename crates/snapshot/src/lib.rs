//! The folders of functions as they were when a version was deployed.
//!
//! A version runs the files that its folder had then, whatever becomes of the folder. Snapshots are kept by the digest of what is in
//! them, so that versions without a difference share one, and files that two snapshots of one folder share take room once. Large files
//! are not copied: they are pinned. This room knows folders and files; which versions there are, and how an instance is shown a snapshot,
//! it must never know.

mod archive;
mod capture;
mod difference;
mod inside;
mod kept;
mod pinned;
mod walk;

use std::io;
use std::path::PathBuf;

pub use archive::Archives;
pub use capture::{Captured, Request};
pub use difference::{FileChange, FileChangeKind};
pub use inside::{make_inside, open_inside};
pub use kept::Snapshots;
pub use pinned::changed;
pub use walk::fingerprint;

/// How much of a folder is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of files, without those that are pinned.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 2 << 30, entries: 100_000 }
    }
}

/// Why a folder cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It has more than the limits allow.
    #[error("{} has more than {} MiB of files up to 64 MiB, or more than {} files", path.display(), limits.bytes >> 20, limits.entries)]
    TooLarge {
        /// The folder.
        path: PathBuf,
        /// What is allowed.
        limits: Limits,
    },
    /// Its files change faster than they can be read.
    #[error("{path} in {} changes while it is captured", folder.display())]
    Changing {
        /// The folder.
        folder: PathBuf,
        /// A file of it that was seen to change.
        path: String,
    },
    /// It is a folder of the system or a home, and no folder of one program.
    #[error("{} is not the folder of one program", path.display())]
    NotOwn {
        /// The folder.
        path: PathBuf,
    },
    /// It works at its own path only, and this host cannot show a snapshot there.
    #[error("{} cannot be captured here: {why}", path.display())]
    Bound {
        /// The folder.
        path: PathBuf,
        /// What binds it to its path.
        why: String,
    },
    /// More folders stay live than an instance can be shown.
    #[error("{} folders and files of {} stay live or are pinned; at most {most} can", found, path.display())]
    TooManyLive {
        /// The folder.
        path: PathBuf,
        /// So many.
        found: usize,
        /// And no more than these.
        most: usize,
    },
    /// What instances are to write cannot be shown to them.
    #[error("`{path}` in {} cannot be written by instances: {why}", folder.display())]
    Writable {
        /// The folder.
        folder: PathBuf,
        /// The path below it.
        path: String,
        /// Why.
        why: String,
    },
    /// A part of it cannot be captured, such as a file that may not be read or whose name is no text.
    #[error("{} of {} cannot be captured", paths.join(", "), folder.display())]
    Partial {
        /// The folder.
        folder: PathBuf,
        /// The paths below it.
        paths: Vec<String>,
    },
    /// Reading or writing failed.
    #[error("{} cannot be captured", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}
