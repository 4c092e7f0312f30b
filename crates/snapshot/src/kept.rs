//! Snapshots in the data directory: a folder for each digest, and what is known of the files of each folder that was captured.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::walk::Stamp;

/// Names of folders that are being made begin so.
const STAGED: &str = ".new-";
/// The folder with what is known of files.
const KNOWN: &str = ".known";
/// What a snapshot has, beside its files.
const CONTENTS: &str = "contents.json";
/// There since nothing named the snapshot any more.
const UNUSED: &str = "unused";
/// A snapshot that nothing names stays for this long: a day.
const KEPT_MS: i64 = 24 * 3_600 * 1_000;
/// The longest list of files that is read again.
pub(crate) const LONGEST_LIST: u64 = 256 << 20;

/// The snapshots of a server.
#[derive(Debug, Clone)]
pub struct Snapshots {
    folder: PathBuf,
    /// So that none is removed that is just about to be named.
    turn: Arc<Mutex<()>>,
}

/// What a snapshot has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// Of which folder it was made first.
    pub(crate) folder: PathBuf,
    /// In the order of paths.
    pub(crate) files: Vec<KeptFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptFile {
    pub(crate) path: String,
    #[serde(flatten)]
    pub(crate) kind: KeptKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum KeptKind {
    Folder,
    File { is_executable: bool, sha256: String },
    Link { target: String },
    Live { is_folder: bool },
}

impl KeptFile {
    /// What goes into the digest of a snapshot. A path has no byte 0.
    pub(crate) fn line(&self) -> String {
        let path = &self.path;
        match &self.kind {
            KeptKind::Folder => format!("d\0{path}\0"),
            KeptKind::File { is_executable, sha256 } => format!("f\0{is_executable}\0{sha256}\0{path}\0"),
            KeptKind::Link { target } => format!("l\0{target}\0{path}\0"),
            KeptKind::Live { is_folder } => format!("v\0{is_folder}\0{path}\0"),
        }
    }
}

/// What is known of the files of a folder since it was captured last.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    digest: Option<String>,
    files: BTreeMap<String, (Stamp, String)>,
    /// Where the snapshot has a file with this digest.
    #[serde(skip)]
    places: BTreeMap<String, String>,
}

impl Known {
    /// The digest of a file that did not change.
    pub(crate) fn sum(&self, path: &str, stamp: &Stamp) -> Option<&str> {
        let (known, sum) = self.files.get(path)?;
        (known == stamp).then_some(sum.as_str())
    }

    /// The snapshot that was made last of the folder.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// A path in that snapshot where a file with this digest is.
    pub(crate) fn place(&self, sum: &str) -> Option<&str> {
        self.places.get(sum).map(String::as_str)
    }
}

impl Snapshots {
    /// Below this folder, which is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, turn: Arc::default() }
    }

    /// The files of a snapshot.
    pub fn tree(&self, digest: &str) -> PathBuf {
        self.folder.join(digest).join("tree")
    }

    /// Whether it is there.
    pub fn has(&self, digest: &str) -> bool {
        self.folder.join(digest).join(CONTENTS).is_file()
    }

    /// What a snapshot has; none where it is not there.
    pub(crate) fn contents(&self, digest: &str) -> Option<Contents> {
        read_json(&self.folder.join(digest).join(CONTENTS))
    }

    /// A new folder in which a snapshot is made.
    pub(crate) fn stage(&self) -> io::Result<PathBuf> {
        kip_host::directory::create_private(&self.folder)?;
        let staged = self.folder.join(format!("{STAGED}{:032x}", kip_host::random::bits()));
        kip_host::directory::create_private(&staged)?;
        Ok(staged)
    }

    /// Keeps what was staged, whole or not at all.
    pub(crate) fn keep(&self, staged: &Path, digest: &str, contents: &Contents) -> io::Result<()> {
        let (place, made) = (self.folder.join(digest), staged.join("made"));
        kip_host::directory::create_private(&made)?;
        fs::rename(staged.join("tree"), made.join("tree"))?;
        kip_host::directory::write_unsynced(&made.join(CONTENTS), &serde_json::to_vec(contents)?)?;
        rustix::fs::syncfs(File::open(&made)?)?;
        // Whoever runs in it may pass through.
        fs::set_permissions(&made, fs::Permissions::from_mode(0o711))?;
        match fs::rename(&made, &place) {
            // Somebody else made the same in this moment.
            Err(_) if self.has(digest) => Ok(()),
            done => done,
        }
    }

    /// Whether it is there. If so, it stays for another day at least: something is about to name it.
    pub(crate) fn use_again(&self, digest: &str) -> bool {
        let _turn = self.turn.lock();
        let _ = fs::remove_file(self.folder.join(digest).join(UNUSED));
        self.has(digest)
    }

    /// What is known of a folder's files.
    pub(crate) fn known(&self, folder: &Path) -> Known {
        let mut known: Known = read_json(&self.known_file(folder)).unwrap_or_default();
        let contents = known.digest.as_deref().and_then(|digest| self.contents(digest));
        for file in contents.map(|contents| contents.files).unwrap_or_default() {
            if let KeptKind::File { sha256, .. } = file.kind {
                known.places.insert(sha256, file.path);
            }
        }
        known
    }

    pub(crate) fn remember(
        &self,
        folder: &Path,
        digest: &str,
        files: BTreeMap<String, (Stamp, String)>,
    ) -> io::Result<()> {
        kip_host::directory::create_private(&self.folder.join(KNOWN))?;
        let known = Known { digest: Some(digest.to_owned()), files, places: BTreeMap::new() };
        kip_host::directory::write_unsynced(&self.known_file(folder), &serde_json::to_vec(&known)?)
    }

    fn known_file(&self, folder: &Path) -> PathBuf {
        let name = HEXLOWER.encode(&Sha256::digest(folder.as_os_str().as_encoded_bytes()));
        self.folder.join(KNOWN).join(format!("{name}.json"))
    }

    /// Removes what nothing has named for a day. `used` has digests. Returns how many were removed.
    ///
    /// # Errors
    /// Where the folder cannot be read or a snapshot cannot be removed.
    pub fn collect(&self, used: &BTreeSet<String>) -> io::Result<usize> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let (now, mut removed) = (kip_host::clock::wall_millis(), 0);
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == KNOWN {
                continue;
            }
            let mark = entry.path().join(UNUSED);
            let turn = self.turn.lock();
            if used.contains(&name) {
                let _ = fs::remove_file(&mark);
                continue;
            }
            let since = match name.starts_with(STAGED) {
                true => entry.metadata()?,
                false if mark.exists() => mark.metadata()?,
                false => {
                    File::create(&mark)?;
                    continue;
                }
            };
            if now - Stamp::of(&since).modified_ns / 1_000_000 > KEPT_MS {
                let leaving = self.folder.join(format!("{STAGED}{:032x}", kip_host::random::bits()));
                fs::rename(entry.path(), &leaving)?;
                drop(turn);
                remove(&leaving)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A folder with folders in it that may be protected against writing.
fn remove(folder: &Path) -> io::Result<()> {
    if fs::remove_dir_all(folder).is_ok() {
        return Ok(());
    }
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(folder)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    if path.metadata().ok()?.len() > LONGEST_LIST {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
