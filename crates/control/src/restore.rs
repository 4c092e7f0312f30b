//! Backups of a running server, and the way back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kip_fleet::Event;
use kip_spec::{FunctionName, Problem, code};
use kip_store::backup::{self, Manifest};
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

impl Control {
    /// Writes functions, keys and records into one file, and tasks if they are wanted.
    ///
    /// # Errors
    /// As [`backup_problem`] says.
    pub async fn backup(&self, file: &Path, overwrite: bool, tasks: bool) -> Result<Manifest, Problem> {
        // What the recorder holds still belongs to it.
        self.recorder().flush().await;
        let shared = &self.shared;
        let no_file = || Error::Store(kip_store::Error::NoFile);
        let (control, files) = shared.changes.file().zip(shared.files.as_ref()).ok_or_else(no_file)?;
        let files = backup::Files { control, records: &*files.records, tasks: tasks.then_some(&*files.tasks) };
        let written = backup::write(file, overwrite, env!("CARGO_PKG_VERSION"), shared.changes.read(), files);
        written.await.map_err(backup_problem)
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
        records: bool,
        by: String,
    ) -> Result<RestoreReport, Problem> {
        let (control, file) = (self.clone(), file.to_owned());
        let unit = self
            .shared
            .changes
            .unit(move |turn| async move { control.replace(&turn, file, foreign, records, by).await });
        unit.await
    }

    async fn replace(
        &self,
        turn: &CommitTurn,
        file: PathBuf,
        foreign: bool,
        records: bool,
        by: String,
    ) -> Result<RestoreReport, Problem> {
        let shared = &self.shared;
        if self.is_closing() {
            return Err(Error::ShuttingDown.into());
        }
        let directory = shared.options.disk.directory.clone();
        let identity = turn.read().identity().await.map_err(Error::Store)?;
        let ours = identity.filter(|_| !foreign).map(|identity| identity.server);
        let within = directory.clone();
        let staged = kip_host::tasks::blocking("restore", move || backup::stage(&file, &within, ours.as_deref()));
        let staged = staged.await.ok_or_else(|| Problem::new(code::BACKUP_FILE, "looking at the backup broke off"))?;
        let staged = staged.map_err(backup_problem)?;
        self.backup(&directory.join(BEFORE_RESTORE), true, false).await?;

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
        let keys = turn.read().keys().await.map_err(Error::Store)?;
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
