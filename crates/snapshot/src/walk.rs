//! What of a folder is captured, what stays live, and what is left out.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{CaptureError, Limits};

/// What is left out, in the syntax of `.gitignore`.
pub(crate) const IGNORE: &str = ".kipignore";
/// Files above this are not copied: 64 MiB.
pub(crate) const LARGE_FILE: u64 = 64 << 20;
/// What everybody may do: read a file, and read and search a folder.
pub(crate) const READ: u32 = 0o4;
const SEARCH: u32 = 0o5;
/// Folders that no program needs, at any depth.
const LEFT_OUT: [&str; 8] = [".git", ".hg", ".svn", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox"];
/// Ends of names of files that are left out if git ignores them.
const SCRAP: [&str; 8] = [".log", ".pid", ".tmp", ".swp", ".sock", ".pyc", ".DS_Store", "~"];
/// A folder that git ignores stays live above so many bytes, or so many files.
const HEAVY_BYTES: u64 = 256 << 20;
const HEAVY_ENTRIES: usize = 10_000;

/// What shows that a file did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
    pub(crate) changed_ns: i64,
    pub(crate) inode: u64,
}

impl Stamp {
    pub(crate) fn of(about: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            size: about.len(),
            modified_ns: nanos(about.mtime(), about.mtime_nsec()),
            changed_ns: nanos(about.ctime(), about.ctime_nsec()),
            inode: about.ino(),
        }
    }
}

/// What a path of a folder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Kind {
    Folder,
    File {
        is_executable: bool,
        stamp: Stamp,
    },
    Link(String),
    /// The live file or folder is shown here.
    Live {
        is_folder: bool,
    },
    /// A large file, shown as it is in the folder.
    Pinned(Stamp),
}

/// Everything that a version sees, in the order of paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<(String, Kind)>,
    /// Folders that stay live, though nobody declared that.
    pub(crate) live: Vec<String>,
    /// What is there and cannot be captured.
    pub(crate) skipped: Vec<String>,
}

/// How a folder is looked at.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    pub(crate) root: &'a Path,
    /// Paths below the folder that instances write.
    pub(crate) writable: &'a [String],
    /// Whole paths that are never captured: the data directory.
    pub(crate) without: &'a [PathBuf],
    /// Whether everything may be captured, or only what everybody may read.
    pub(crate) open: bool,
    pub(crate) limits: Limits,
}

impl Walk<'_> {
    /// Looks at the folder.
    ///
    /// # Errors
    /// Where it has more than the limits, or cannot be read.
    pub(crate) fn list(&self) -> Result<Listing, CaptureError> {
        let io = |source| CaptureError::Io { path: self.root.to_owned(), source };
        let mut own = GitignoreBuilder::new(self.root);
        // A pattern that nobody understands fits nothing.
        let _ = is_list(&self.root.join(IGNORE)).then(|| own.add(self.root.join(IGNORE)));
        let own = own.build().unwrap_or_else(|_| Gitignore::empty());
        if !self.open && fs::metadata(self.root).map_err(io)?.permissions().mode() & SEARCH != SEARCH {
            return Err(io(io::ErrorKind::PermissionDenied.into()));
        }
        // By what they are: a path may lead there by links.
        let without =
            self.without.iter().filter_map(|path| fs::metadata(path).ok()).map(|about| (about.dev(), about.ino()));
        let without = without.collect();
        let mut state = State { own, without, listing: Listing::default(), bytes: 0, seen: 0 };
        let mut ignores = Vec::new();
        self.folder("", &mut ignores, &mut state).map_err(|stop| match stop {
            Stop::Limit => CaptureError::TooLarge { path: self.root.to_owned(), limits: self.limits },
            Stop::Io(source) => io(source),
        })?;
        let mut listing = state.listing;
        listing.entries.sort_by(|one, other| one.0.cmp(&other.0));
        listing.live.sort();
        listing.skipped.sort();
        Ok(listing)
    }

    fn folder(&self, below: &str, ignores: &mut Vec<Gitignore>, state: &mut State) -> Result<(), Stop> {
        let folder = self.root.join(below);
        let list = folder.join(".gitignore");
        ignores.push(if is_list(&list) { Gitignore::new(list).0 } else { Gitignore::empty() });
        let walked = self.entries(&folder, below, ignores, state);
        ignores.pop();
        walked
    }

    fn entries(&self, folder: &Path, below: &str, ignores: &mut Vec<Gitignore>, state: &mut State) -> Result<(), Stop> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // Nor may an instance look into it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !below.is_empty() => {
                state.listing.skipped.push(below.to_owned());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                state.listing.skipped.push(entry.path().display().to_string());
                continue;
            };
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            let whole = entry.path();
            // It may be gone by now.
            let Ok(about) = fs::symlink_metadata(&whole) else { continue };
            if state.without.contains(&(about.dev(), about.ino()))
                || state.own.matched(&whole, about.is_dir()).is_ignore()
            {
                continue;
            }
            if self.writable.contains(&path) {
                state.put(path, Kind::Live { is_folder: about.is_dir() }, self.limits)?;
                continue;
            }
            let needed = if about.is_dir() { SEARCH } else { READ };
            if !self.open && !about.is_symlink() && about.permissions().mode() & needed != needed {
                state.listing.skipped.push(path);
                continue;
            }
            let git = ignores.iter().rev().map(|ignore| ignore.matched(&whole, about.is_dir()));
            let is_ignored = git.into_iter().find(|found| !found.is_none()).is_some_and(|found| found.is_ignore());
            if about.is_dir() {
                self.inner(&name, path, is_ignored, ignores, state)?;
            } else if about.is_symlink() {
                let target = fs::read_link(&whole)?;
                match target.to_str() {
                    Some(target) => state.put(path, Kind::Link(target.to_owned()), self.limits)?,
                    None => state.listing.skipped.push(path),
                }
            } else if about.is_file() {
                if is_ignored && SCRAP.iter().any(|end| name.ends_with(end)) {
                    continue;
                }
                let stamp = Stamp::of(&about);
                let kind = match about.len() > LARGE_FILE {
                    true => Kind::Pinned(stamp),
                    false => Kind::File { is_executable: about.permissions().mode() & 0o111 != 0, stamp },
                };
                state.put(path, kind, self.limits)?;
            }
        }
        Ok(())
    }

    fn inner(
        &self,
        name: &str,
        path: String,
        is_ignored: bool,
        ignores: &mut Vec<Gitignore>,
        state: &mut State,
    ) -> Result<(), Stop> {
        let whole = self.root.join(&path);
        if LEFT_OUT.contains(&name) {
            return Ok(());
        }
        // What is below it is written by instances: it is looked at as usual.
        let holds_writable = self.writable.iter().any(|writable| Path::new(writable).starts_with(&path));
        if !holds_writable && (name == ".cache" || is_ignored && (is_environment(name, &whole) || is_heavy(&whole))) {
            state.listing.live.push(path.clone());
            return state.put(path, Kind::Live { is_folder: true }, self.limits);
        }
        state.put(path.clone(), Kind::Folder, self.limits)?;
        self.folder(&path, ignores, state)
    }
}

#[derive(Debug)]
struct State {
    own: Gitignore,
    without: Vec<(u64, u64)>,
    listing: Listing,
    bytes: u64,
    seen: usize,
}

impl State {
    fn put(&mut self, path: String, kind: Kind, limits: Limits) -> Result<(), Stop> {
        self.seen += 1;
        if let Kind::File { stamp, .. } = &kind {
            self.bytes += stamp.size;
        }
        if self.seen > limits.entries || self.bytes > limits.bytes {
            return Err(Stop::Limit);
        }
        self.listing.entries.push((path, kind));
        Ok(())
    }
}

enum Stop {
    Limit,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Changes when anything changes that a capture of the folder would see. Reads names and times, never contents.
///
/// # Errors
/// Where the folder cannot be read, or has more than a capture takes.
pub fn fingerprint(folder: &Path, writable: &[String]) -> Result<String, CaptureError> {
    let walk = Walk { root: folder, writable, without: &[], open: true, limits: Limits::default() };
    let listing = walk.list()?;
    let entries = serde_json::to_vec(&listing.entries).unwrap_or_default();
    Ok(HEXLOWER.encode(&Sha256::digest(entries)))
}

/// Whether a file can be a list of patterns: a pipe would be waited for.
fn is_list(path: &Path) -> bool {
    const LONGEST: u64 = 1 << 20;
    fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() <= LONGEST)
}

/// An environment of a package manager: it is large, it knows its own path, and tools change it.
fn is_environment(name: &str, folder: &Path) -> bool {
    name == "node_modules" || ["pyvenv.cfg", "conda-meta"].iter().any(|mark| folder.join(mark).exists())
}

/// Whether a folder has more than is worth a copy.
fn is_heavy(folder: &Path) -> bool {
    let (mut folders, mut bytes, mut seen) = (vec![folder.to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            seen += 1;
            if about.is_dir() {
                folders.push(entry.path());
            } else if about.len() <= LARGE_FILE {
                bytes += about.len();
            }
            if bytes > HEAVY_BYTES || seen > HEAVY_ENTRIES {
                return true;
            }
        }
    }
    false
}
