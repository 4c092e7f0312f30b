//! A backup that was checked and unpacked, and what can be wrong with one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use kip_spec::function::FunctionSpec;
use kip_spec::{FunctionName, VersionId};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::database;
use crate::keys::{self, StoredKey};

/// The database of tasks, and the folder beside it.
pub(crate) const TASKS: &str = "tasks.db";
pub(crate) const BLOBS: &str = "tasks.blobs";
/// Archives of the code of revisions, by digest.
pub(crate) const CODE: &str = "code";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Manifest {
    /// The form of the file.
    pub format: u32,
    /// The id of the server it was taken of.
    pub server: String,
    /// When, milliseconds since 1970.
    pub made: i64,
    /// By which version of Kipwake.
    pub by: String,
    /// How many functions it holds.
    pub functions: u64,
    /// The databases.
    pub files: Vec<BackupPart>,
}

/// A database in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BackupPart {
    /// Its name in the data directory.
    pub name: String,
    /// The number of its schema.
    pub schema: u32,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// Why a backup could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is a file of this name.
    #[error("{} exists already", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{} cannot be read or written: {detail}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was said.
        detail: String,
    },
    /// The file is something else, or not whole.
    #[error("{} is not a whole backup: {detail}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// It was made by a newer version.
    #[error("{} was made by Kipwake {by}, whose {what} this version does not know", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// By which version.
        by: String,
        /// What is newer.
        what: String,
    },
    /// It was taken of another server.
    #[error("{} was taken of the server {found}, and this is {ours}", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who we are.
        ours: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] database::Error),
}

/// A backup that was checked, unpacked into a folder of its own, which goes with this.
#[derive(Debug)]
pub struct StagedBackup {
    /// What it says of itself.
    pub manifest: Manifest,
    pub(crate) control: PathBuf,
    pub(crate) records: PathBuf,
    /// Tasks, if the backup has them.
    pub(crate) tasks: Option<PathBuf>,
    pub(crate) folder: PathBuf,
}

impl StagedBackup {
    /// The functions in it with the version that each has as current.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn current_versions(&self) -> Result<Vec<(FunctionName, VersionId)>, Error> {
        let read = || -> Result<Vec<(String, i64)>, rusqlite::Error> {
            let query = "SELECT name, coalesce(serving, desired) FROM functions ORDER BY name";
            Connection::open(&self.control)?
                .prepare(query)?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        };
        let rows = read().map_err(|error| self.damaged(&error))?;
        let parse = |(name, version): (String, i64)| {
            let name = name.parse().map_err(|error| self.damaged(&error))?;
            Ok((name, VersionId(version.unsigned_abs())))
        };
        rows.into_iter().map(parse).collect()
    }

    /// What a version in it declares.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn spec(&self, version: VersionId) -> Result<FunctionSpec, Error> {
        let read = || -> Result<String, rusqlite::Error> {
            let id = i64::try_from(version.0).unwrap_or(i64::MAX);
            Connection::open(&self.control)?
                .query_row("SELECT spec FROM revisions WHERE id = ?1", [id], |row| row.get(0))
        };
        let text = read().map_err(|error| self.damaged(&error))?;
        serde_json::from_str(&text).map_err(|error| self.damaged(&error))
    }

    /// The keys in it that a restore would add to these: names and roles. `server` is whose these are.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn added_keys(&self, known: &[StoredKey], server: Option<&str>) -> Result<Vec<(String, String)>, Error> {
        // A backup of this very server brings no key back that was removed here.
        if server == Some(self.manifest.server.as_str()) {
            return Ok(Vec::new());
        }
        let read = || keys::all(&Connection::open(&self.control)?);
        let theirs = read().map_err(|error| self.damaged(&error))?;
        let is_known = |key: &StoredKey| {
            known.iter().any(|ours| {
                let same_pair = ours.pair.as_ref().zip(key.pair.as_ref()).is_some_and(|(a, b)| a.id == b.id);
                ours.hash == key.hash || same_pair || ours.previous.is_some_and(|(previous, _)| previous == key.hash)
            })
        };
        Ok(theirs.into_iter().filter(|key| !is_known(key)).map(|key| (key.name, key.role)).collect())
    }

    /// Takes all keys out of it.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn drop_keys(&self) -> Result<(), Error> {
        let drop_all = || Connection::open(&self.control)?.execute("DELETE FROM keys", []);
        drop_all().map(drop).map_err(|error| self.damaged(&error))
    }

    /// The archives of the code of revisions in it, by digest.
    pub fn code(&self) -> Vec<(String, PathBuf)> {
        let parts = self.manifest.files.iter().filter_map(|part| part.name.split_once('/'));
        let code = parts.filter(|(kind, _)| *kind == CODE);
        code.map(|(kind, digest)| (digest.to_owned(), self.folder.join(kind).join(digest))).collect()
    }

    /// Whether it holds tasks.
    pub fn has_tasks(&self) -> bool {
        self.tasks.is_some()
    }

    /// Puts its tasks into a data directory that has none, and whose server does not run.
    ///
    /// # Errors
    /// [`Error::Exists`] or [`Error::Io`].
    pub fn put_tasks(&self, data: &Path) -> Result<(), Error> {
        let Some(tasks) = &self.tasks else { return Ok(()) };
        let (file, blobs) = (data.join(TASKS), data.join(BLOBS));
        for path in [&file, &blobs] {
            if fs::symlink_metadata(path).is_ok() {
                return Err(Error::Exists { path: path.clone() });
            }
        }
        let io = |error: std::io::Error| Error::Io { path: file.clone(), detail: error.to_string() };
        // Claims in it are of no server that lives: whoever opens it voids them.
        let disown = || Connection::open(tasks)?.execute("UPDATE tasks SET server = '' WHERE state < 10", []);
        disown().map_err(|error| self.damaged(&error))?;
        fs::rename(self.folder.join(BLOBS), &blobs).map_err(io)?;
        fs::rename(tasks, &file).map_err(io)?;
        File::open(data).and_then(|data| data.sync_all()).map_err(io)
    }

    fn damaged(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Damaged { path: self.control.clone(), detail: error.to_string() }
    }
}

impl Drop for StagedBackup {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
