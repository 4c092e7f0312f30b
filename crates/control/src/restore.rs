//! Backups of a running server, and the way back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kip_fleet::Event;
use kip_snapshot::Archives;
use kip_spec::{FunctionName, Problem, code};
use kip_store::backup::{self, Manifest, StagedBackup};
use kip_store::{CommitTurn, Effect, StoredKey};
use kip_wire::{RestoreReport, RestoredKey, VersionStatus};

use crate::control::Control;
use crate::error::Error;

/// The copy of what was there before, in the data directory.
pub const BEFORE_RESTORE: &str = "before-restore.backup";

/// The keys that were not there before a restore.
pub fn added_keys(before: &[StoredKey], after: Vec<StoredKey>) -> Vec<RestoredKey> {
    let added = after.into_iter().filter(|key| !before.iter().any(|known| known.id == key.id));
    added.map(|key| RestoredKey { name: key.name, role: key.role }).collect()
}

/// What becomes of the keys in a backup that a server does not have: taken, left out, or nobody was asked.
pub type KeyConsent = Option<bool>;

/// Takes the keys out of a backup that nobody wants.
///
/// # Errors
/// A problem with code KW-7070 where there are such keys and nobody was asked.
pub fn settle_keys(
    staged: &StagedBackup,
    known: &[StoredKey],
    server: Option<&str>,
    consent: KeyConsent,
) -> Result<(), Problem> {
    let added = staged.added_keys(known, server).map_err(backup_problem)?;
    match consent {
        Some(true) => Ok(()),
        _ if added.is_empty() => Ok(()),
        Some(false) => staged.drop_keys().map_err(backup_problem),
        None => {
            let listed: Vec<String> = added.iter().map(|(name, role)| format!("{name} ({role})")).collect();
            let message =
                format!("the backup would add {} keys, which are valid at once: {}", added.len(), listed.join(", "));
            Err(Problem::new(code::RESTORE_ADDS_KEYS, message)
                .hint("restore with them: --yes; or without them: --without-keys"))
        }
    }
}

/// A problem about a backup, for people.
pub fn backup_problem(error: backup::Error) -> Problem {
    let message = error.to_string();
    match error {
        backup::Error::Exists { .. } => {
            Problem::new(code::BACKUP_EXISTS, message).hint("name another file, or overwrite it: --force")
        }
        backup::Error::Io { .. } => Problem::new(code::BACKUP_FILE, message)
            .hint("the server reads and writes the file: it needs the right to, and room"),
        backup::Error::Damaged { .. } => Problem::new(code::BACKUP_DAMAGED, message)
            .hint("nothing was changed; take another copy of the file, or an older backup"),
        backup::Error::Newer { .. } => {
            Problem::new(code::BACKUP_NEWER, message).hint("nothing was changed; restore it with that version of kip")
        }
        backup::Error::Foreign { .. } => Problem::new(code::BACKUP_FOREIGN, message)
            .hint("nothing was changed; --force takes the functions of another server"),
        backup::Error::Store(error) => Error::Store(error).into(),
    }
}

/// The code in a backup cannot be kept.
pub fn code_problem(error: &std::io::Error) -> Problem {
    Problem::new(code::BACKUP_DAMAGED, format!("the code in the backup cannot be restored: {error}"))
        .hint("nothing was changed; take another copy of the file, or an older backup")
}

impl Control {
    /// Writes functions, keys and records into one file, and tasks and the code of versions if they are wanted.
    ///
    /// # Errors
    /// As [`backup_problem`] says.
    pub async fn backup(&self, file: &Path, overwrite: bool, tasks: bool, code: bool) -> Result<Manifest, Problem> {
        // What the recorder holds still belongs to it.
        self.recorder().flush().await;
        let shared = &self.shared;
        let no_file = || Error::Store(kip_store::Error::NoFile);
        let (control, files) = shared.changes.file().zip(shared.files.as_ref()).ok_or_else(no_file)?;
        let archives = if code { self.archives().await? } else { Archives::default() };
        let tasks = tasks.then_some(&*files.tasks as _);
        let files = backup::Files { control, records: &*files.records, tasks, code: &archives.files };
        let written = backup::write(file, overwrite, env!("CARGO_PKG_VERSION"), shared.changes.read(), files);
        written.await.map_err(backup_problem)
    }

    /// The code of all revisions, in files of the data directory for a while.
    async fn archives(&self) -> Result<Archives, Problem> {
        let digests = self.shared.changes.read().codes().await.map_err(Error::Store)?;
        let options = &self.shared.options;
        let (snapshots, folder) = (options.code.snapshots.clone(), options.disk.directory.clone());
        let written = move || Archives::write(&snapshots, &digests, &folder);
        let written = kip_host::tasks::blocking("archive code", written).await;
        let failed =
            |why: String| Problem::new(code::BACKUP_FILE, "the code of versions cannot be archived").cause(why);
        written.ok_or_else(|| failed("the work on it broke off".to_owned()))?.map_err(|error| {
            failed(error.to_string())
                .hint("`--no-code` leaves it out; versions then need a deployment after a restore elsewhere")
        })
    }

    /// Puts the functions of a backup in the place of ours, as one change. Functions whose version is the same keep their
    /// instances; others get a new version, which takes over when it is ready; those not in the backup are removed.
    ///
    /// # Errors
    /// As [`backup_problem`] says; nothing is changed then.
    pub async fn restore(
        &self,
        file: &Path,
        foreign: bool,
        (records, keys): (bool, KeyConsent),
        by: String,
    ) -> Result<RestoreReport, Problem> {
        let (control, file) = (self.clone(), file.to_owned());
        let unit = self
            .shared
            .changes
            .unit(move |turn| async move { control.replace(&turn, file, foreign, (records, keys), by).await });
        unit.await
    }

    async fn replace(
        &self,
        turn: &CommitTurn,
        file: PathBuf,
        foreign: bool,
        (records, consent): (bool, KeyConsent),
        by: String,
    ) -> Result<RestoreReport, Problem> {
        let shared = &self.shared;
        if self.is_closing() {
            return Err(Error::ShuttingDown.into());
        }
        let directory = shared.options.disk.directory.clone();
        let identity = turn.read().identity().await.map_err(Error::Store)?;
        let server = identity.map(|identity| identity.server);
        let ours = server.clone().filter(|_| !foreign);
        let within = directory.clone();
        let staged = kip_host::tasks::blocking("restore", move || backup::stage(&file, &within, ours.as_deref()));
        let staged = staged.await.ok_or_else(|| Problem::new(code::BACKUP_FILE, "looking at the backup broke off"))?;
        let staged = staged.map_err(backup_problem)?;
        let keys = turn.read().keys().await.map_err(Error::Store)?;
        settle_keys(&staged, &keys, server.as_deref(), consent)?;
        self.backup(&directory.join(BEFORE_RESTORE), true, false, false).await?;
        let (snapshots, archives) = (shared.options.code.snapshots.clone(), staged.code());
        let kept = kip_host::tasks::blocking("restore code", move || Archives::read(&snapshots, &archives)).await;
        kept.transpose().map_err(|error| code_problem(&error))?;

        let current = staged.current_versions().map_err(backup_problem)?;
        let mut restored = RestoreReport::default();
        let mut renew = Vec::new();
        for (name, version) in &current {
            // Names that differ in case only would share a host name; within a backup they do not.
            let Some(cell) = self.cell(name.as_str()) else {
                restored.deployed.push(name.clone());
                continue;
            };
            let info = cell.info();
            let proving = info.outcomes.iter().any(|(_, status)| *status == VersionStatus::Candidate);
            if info.version == *version
                && !proving
                && cell.serving().spec == staged.spec(*version).map_err(backup_problem)?
            {
                restored.kept.push(name.clone());
            } else {
                restored.deployed.push(name.clone());
                renew.push(name.clone());
            }
        }
        let committed = turn.replace(by, &staged, renew).await.map_err(Error::Store)?;
        restored.keys = added_keys(&keys, turn.read().keys().await.map_err(Error::Store)?);
        let Effect::Replaced(revisions) = committed.effect else { return Ok(restored) };
        let wanted: BTreeSet<&FunctionName> = current.iter().map(|(name, _)| name).collect();
        for info in self.functions() {
            if !wanted.contains(&info.name) {
                self.forget(&info.name, Event::Remove);
                restored.removed.push(info.name);
            }
        }
        for stored in revisions {
            if restored.deployed.contains(&stored.spec.name) {
                shared.deploy(stored);
            }
        }
        self.name_again().await?;
        self.provision_again().await?;
        if records {
            let files = shared.files.as_ref().ok_or(Error::Store(kip_store::Error::NoFile))?;
            files.records.replace(&staged).await.map_err(Error::Store)?;
        }
        tracing::warn!(
            kept = restored.kept.len(),
            deployed = restored.deployed.len(),
            removed = restored.removed.len(),
            keys = ?restored.keys.iter().map(|key| &*key.name).collect::<Vec<_>>(),
            "restored a backup"
        );
        Ok(restored)
    }
}
