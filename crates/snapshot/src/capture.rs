//! Takes a folder as it is at one moment.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use data_encoding::HEXLOWER;
use kip_spec::snapshot::{PinnedFile, Snapshot};
use sha2::{Digest, Sha256};

use crate::difference::difference;
use crate::kept::{Contents, KeptFile, KeptKind, Known, Snapshots};
use crate::walk::{Kind, Listing, READ, Stamp, Walk};
use crate::{CaptureError, FileChange, Limits};

/// How often a folder that changes meanwhile is looked at again.
const ATTEMPTS: usize = 4;
/// Files and folders of the live folder that an instance can be shown: each is a mount of its own.
const MOST_LIVE: usize = 24;
/// A file that was written so few milliseconds before it was looked at may change again without a new time.
const FRESH_MS: i64 = 2_000;
/// Folders of the system, and those below which everybody's are.
const WHOLE: [&str; 13] =
    ["etc", "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "boot", "dev", "proc", "sys", "run"];
const ITSELF: [&str; 7] = ["/", "/var", "/home", "/root", "/opt", "/tmp", "/srv"];

/// A folder to capture.
#[derive(Debug, Clone)]
pub struct Request {
    /// The folder, absolute.
    pub folder: PathBuf,
    /// Paths below it that instances write.
    pub writable: Vec<String>,
    /// Files of it that versions see but do not differ by, such as its manifest.
    pub beside: Vec<String>,
    /// What is never captured: the data directory.
    pub without: Vec<PathBuf>,
    /// Whether everything may be captured that the server can read, or only what everybody may read. Whoever runs the snapshot can read all
    /// of it.
    pub open: bool,
    /// Whether instances run in the snapshot itself, because it cannot be shown at the folder's path.
    pub moved: bool,
    /// How much may be captured.
    pub limits: Limits,
    /// Whether it is kept, or only compared.
    pub keep: bool,
    /// The snapshot that it is compared with.
    pub before: Option<String>,
}

/// What was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// For the revision.
    pub snapshot: Snapshot,
    /// Files in it.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Paths that could not be captured.
    pub skipped: Vec<String>,
    /// In what it differs from the snapshot that it was compared with.
    pub changes: Vec<FileChange>,
}

impl Snapshots {
    /// Captures a folder. Reads and writes files: not for a runtime's thread.
    ///
    /// # Errors
    /// Where it is too large, changes all the time, or cannot be read or kept.
    pub fn capture(&self, request: &Request) -> Result<Captured, CaptureError> {
        if is_of_the_host(&request.folder) {
            return Err(CaptureError::NotOwn { path: request.folder.clone() });
        }
        let walk = Walk {
            root: &request.folder,
            writable: &request.writable,
            without: &request.without,
            open: request.open,
            limits: request.limits,
        };
        let mut listing = walk.list()?;
        for _ in 0..ATTEMPTS {
            let attempt = Attempt { snapshots: self, request, listing: &listing };
            let made = attempt.make()?;
            let again = walk.list()?;
            if again == listing {
                return attempt.finish(made);
            }
            made.drop();
            listing = again;
        }
        let again = walk.list()?;
        let missing = |of: &Listing, other: &Listing| {
            of.entries.iter().find(|entry| !other.entries.contains(entry)).map(|(path, _)| path.clone())
        };
        let path = missing(&listing, &again).or_else(|| missing(&again, &listing)).unwrap_or_else(|| ".".to_owned());
        Err(CaptureError::Changing { folder: request.folder.clone(), path })
    }
}

/// One pass over a folder.
struct Attempt<'a> {
    snapshots: &'a Snapshots,
    request: &'a Request,
    listing: &'a Listing,
}

/// What a pass made: the digests of files, and copies of those that were not known.
struct CopiedFiles {
    staged: PathBuf,
    sums: BTreeMap<String, String>,
    copies: BTreeMap<String, PathBuf>,
    known: Known,
}

impl CopiedFiles {
    fn drop(self) {
        let _ = fs::remove_dir_all(self.staged);
    }
}

impl Attempt<'_> {
    fn io(&self, path: &str) -> impl Fn(io::Error) -> CaptureError + use<> {
        let path = self.request.folder.join(path);
        move |source| CaptureError::Io { path: path.clone(), source }
    }

    fn make(&self) -> Result<CopiedFiles, CaptureError> {
        let pinned =
            self.listing.entries.iter().filter(|(_, kind)| matches!(kind, Kind::Live { .. } | Kind::Pinned(_)));
        let found = pinned.count();
        if found > MOST_LIVE && !self.request.moved {
            return Err(CaptureError::TooManyLive { path: self.request.folder.clone(), found, most: MOST_LIVE });
        }
        let staged = self.snapshots.stage().map_err(self.io(""))?;
        let known = self.snapshots.known(&self.request.folder);
        let mut made = CopiedFiles { staged, sums: BTreeMap::new(), copies: BTreeMap::new(), known };
        let copied = self.copy(&mut made);
        match copied {
            Ok(()) => Ok(made),
            Err(error) => {
                made.drop();
                Err(error)
            }
        }
    }

    /// Copies what is not known by its stamp. The digest is that of the copy, so that it is never that of something else.
    fn copy(&self, made: &mut CopiedFiles) -> Result<(), CaptureError> {
        for (number, (path, kind)) in self.listing.entries.iter().enumerate() {
            let Kind::File { is_executable, stamp } = kind else { continue };
            if let Some(sum) = made.known.sum(path, stamp) {
                made.sums.insert(path.clone(), sum.to_owned());
                continue;
            }
            let copy = made.staged.join(format!("file-{number}"));
            let source = self.request.folder.join(path);
            match self.copy_file(&source, &copy, *is_executable) {
                Ok(()) => {}
                // Instances may not read it either. One that is gone is seen by the next look at the folder.
                Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound) => {
                    continue;
                }
                Err(error) => return Err(self.io(path)(error)),
            }
            let sum = sum_of(&copy).map_err(self.io(path))?;
            made.sums.insert(path.clone(), sum);
            made.copies.insert(path.clone(), copy);
        }
        Ok(())
    }

    fn finish(&self, made: CopiedFiles) -> Result<Captured, CaptureError> {
        let result = self.assemble(&made);
        made.drop();
        result
    }

    fn assemble(&self, made: &CopiedFiles) -> Result<Captured, CaptureError> {
        let entries = &self.listing.entries;
        let mut digest = Sha256::new();
        if self.request.moved {
            // It has links into the folder.
            digest.update(format!("folder {}\0", self.request.folder.display()));
        }
        let mut contents = Contents { folder: self.request.folder.clone(), files: Vec::new() };
        let (mut files, mut bytes) = (0, 0);
        let mut skipped = self.listing.skipped.clone();
        let mut pinned = Vec::new();
        for (path, kind) in entries {
            let kept = match kind {
                Kind::Folder => KeptKind::Folder,
                Kind::Link(target) => KeptKind::Link { target: target.clone() },
                Kind::Live { is_folder } => KeptKind::Live { is_folder: *is_folder },
                Kind::Pinned(stamp) => {
                    let Stamp { size, modified_ns, inode, .. } = *stamp;
                    pinned.push(PinnedFile { path: path.clone(), size, modified_ns, inode });
                    KeptKind::Live { is_folder: false }
                }
                Kind::File { is_executable, stamp } => {
                    let Some(sum) = made.sums.get(path) else {
                        skipped.push(path.clone());
                        continue;
                    };
                    (files, bytes) = (files + 1, bytes + stamp.size);
                    KeptKind::File { is_executable: *is_executable, sha256: sum.clone() }
                }
            };
            let file = KeptFile { path: path.clone(), kind: kept };
            if !self.is_beside(path) {
                digest.update(file.line());
            }
            contents.files.push(file);
        }
        let digest = HEXLOWER.encode(&digest.finalize());
        if self.request.keep {
            if !self.snapshots.use_again(&digest) {
                let tree = made.staged.join("tree");
                self.build(&tree, &contents, made)?;
                self.snapshots.keep(&made.staged, &digest, &contents).map_err(self.io(""))?;
            }
            self.remember(&digest, made);
        }
        let before = self.request.before.as_deref().filter(|before| *before != digest);
        let before = before.and_then(|before| self.snapshots.contents(before));
        let changes = before.map(|before| difference(before, contents)).unwrap_or_default();
        let snapshot = Snapshot { digest, live: self.listing.live.clone(), pinned, moved: self.request.moved };
        Ok(Captured { snapshot, files, bytes, skipped, changes })
    }

    /// What is made by running the program, and the manifest: they make no other version.
    fn is_beside(&self, path: &str) -> bool {
        let made = Path::new(path).components().any(|part| part == Component::Normal("__pycache__".as_ref()));
        made || self.request.beside.iter().any(|beside| beside == path)
    }

    fn build(&self, tree: &Path, contents: &Contents, made: &CopiedFiles) -> Result<(), CaptureError> {
        fs::create_dir(tree).map_err(self.io(""))?;
        let before = made.known.digest().map(|digest| self.snapshots.tree(digest));
        for KeptFile { path, kind } in &contents.files {
            let (at, io) = (tree.join(path), self.io(path));
            match kind {
                KeptKind::Folder => fs::create_dir(&at).map_err(&io)?,
                KeptKind::Link { target } => symlink(target, &at).map_err(&io)?,
                KeptKind::Live { .. } if self.request.moved => {
                    symlink(self.request.folder.join(path), &at).map_err(&io)?;
                }
                KeptKind::Live { is_folder: true } => fs::create_dir(&at).map_err(&io)?,
                KeptKind::Live { is_folder: false } => drop(File::create(&at).map_err(&io)?),
                KeptKind::File { is_executable, sha256 } => {
                    if let Some(copy) = made.copies.get(path) {
                        fs::rename(copy, &at).map_err(&io)?;
                        continue;
                    }
                    // Nobody can write a snapshot that is mounted; one that is run where it is may be written by who runs it.
                    let shared = before.as_ref().filter(|_| !self.request.moved).zip(made.known.place(sha256));
                    let linked = shared.is_some_and(|(before, place)| {
                        let source = before.join(place);
                        is_executable_file(&source) == Some(*is_executable) && fs::hard_link(source, &at).is_ok()
                    });
                    if !linked {
                        self.copy_file(&self.request.folder.join(path), &at, *is_executable).map_err(&io)?;
                        if sum_of(&at).map_err(&io)? != *sha256 {
                            let folder = self.request.folder.clone();
                            return Err(CaptureError::Changing { folder, path: path.clone() });
                        }
                    }
                }
            }
        }
        let folders = contents.files.iter().rev().filter(|file| file.kind == KeptKind::Folder);
        for folder in folders.map(|file| tree.join(&file.path)).chain([tree.to_owned()]) {
            let mode = if self.request.moved { 0o555 } else { 0o755 };
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).map_err(self.io(""))?;
        }
        Ok(())
    }

    /// With its time, by which Python knows whether what it compiled still fits. File systems that can share the blocks.
    fn copy_file(&self, source: &Path, target: &Path, is_executable: bool) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut from = options.read(true).custom_flags(nofollow()).open(source)?;
        let about = from.metadata()?;
        if !about.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Of the file that is open: another one may have taken its name.
        if !self.request.open && about.permissions().mode() & READ == 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mode = if is_executable { 0o755 } else { 0o644 };
        let mut to = OpenOptions::new().write(true).create_new(true).mode(mode).open(target)?;
        io::copy(&mut from, &mut to)?;
        to.set_permissions(fs::Permissions::from_mode(mode))?;
        to.set_times(FileTimes::new().set_modified(about.modified()?))
    }

    /// So that the next capture need not read what did not change.
    fn remember(&self, digest: &str, made: &CopiedFiles) {
        let now = kip_host::clock::wall_millis();
        let settled = |stamp: &Stamp| now - stamp.modified_ns.max(stamp.changed_ns) / 1_000_000 > FRESH_MS;
        let files = self.listing.entries.iter().filter_map(|(path, kind)| match kind {
            Kind::File { stamp, .. } if settled(stamp) => Some((path.clone(), (*stamp, made.sums.get(path)?.clone()))),
            _ => None,
        });
        // It is read again without this.
        let _ = self.snapshots.remember(&self.request.folder, digest, files.collect());
    }
}

fn is_executable_file(path: &Path) -> Option<bool> {
    Some(path.symlink_metadata().ok().filter(fs::Metadata::is_file)?.permissions().mode() & 0o111 != 0)
}

fn nofollow() -> i32 {
    // Nor is a pipe waited for that took the name of a file.
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed()
}

fn sum_of(path: &Path) -> io::Result<String> {
    let (mut file, mut digest, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(HEXLOWER.encode(&digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}

/// Whether a folder is the system's, or the home of somebody.
fn is_of_the_host(folder: &Path) -> bool {
    let home = kip_host::environment::read("HOME");
    WHOLE.iter().any(|name| folder.starts_with(Path::new("/").join(name)))
        || ITSELF.iter().any(|itself| folder == Path::new(itself))
        || home.is_some_and(|home| folder == Path::new(&home))
        || folder.join(".ssh").exists()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
