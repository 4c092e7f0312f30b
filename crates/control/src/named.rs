//! What the store has of versions, aliases and traffic, made known to cells; and revisions that are not in memory.

use std::sync::Arc;

use kip_records::decision::Decision;
use kip_spec::qualifier::host_label;
use kip_spec::{QualifierName, VersionId};
use kip_store::{AliasTarget, DecisionRecord, Record, StoredVersion, TrafficShare, UnreadableRow};

use crate::cell::Cell;
use crate::error::Error;
use crate::shared::Shared;
use crate::version::Version;

impl Shared {
    /// Tells cells what the store has of versions, aliases and traffic, before decisions begin.
    pub(crate) async fn remember_qualifiers(self: &Arc<Self>) -> Result<(), Error> {
        let read = self.changes.read();
        let mut versions = read.versions().await?;
        let (aliases, mut unreadable) = read.aliases().await?;
        let (traffic, more) = read.traffic().await?;
        unreadable.extend(more);
        self.report_unreadable(unreadable);
        while let Some(first) = versions.first().map(|version| version.function.clone()) {
            let of = versions.iter().take_while(|version| version.function == first).count();
            let own: Vec<StoredVersion> = versions.drain(..of).collect();
            if let Some(cell) = self.cell_named(first.as_str()) {
                cell.hold_versions(own);
            }
        }
        for alias in aliases {
            let Some(cell) = self.cell_named(alias.function.as_str()) else { continue };
            let targets = self.versions_of(&cell, &alias.targets).await?;
            cell.remember_alias(alias, targets);
        }
        for (function, shares) in traffic {
            let Some(cell) = self.cell_named(function.as_str()) else { continue };
            for version in self.traffic_versions(&cell, &shares).await? {
                cell.remember_called(version);
            }
            cell.remember_traffic(shares);
        }
        self.all_cells().iter().for_each(|cell| self.register_labels(cell));
        Ok(())
    }

    /// Makes a version known that something is provisioned for, before decisions begin.
    pub(crate) async fn remember_version(&self, cell: &Cell, qualifier: &str) -> Result<(), Error> {
        let asked = match qualifier.parse::<QualifierName>() {
            // As earlier servers wrote it: it held only for as long as its version served.
            Ok(QualifierName::Revision(_)) | Err(_) => return Ok(()),
            Ok(asked) => asked,
        };
        let Some(revision) = self.revision_of(cell, &asked).await? else { return Ok(()) };
        if let Some(version) = self.version_of(cell, revision).await? {
            cell.remember_called(version);
        }
        Ok(())
    }

    fn report_unreadable(&self, rows: Vec<UnreadableRow>) {
        for UnreadableRow { object, detail } in rows {
            self.disk.report(format!(
                "{object} is stored in a form that this version cannot read, and does not hold: {detail}"
            ));
        }
    }

    /// The versions that targets name, from memory where they are there.
    pub(crate) async fn versions_of(&self, cell: &Cell, targets: &[AliasTarget]) -> Result<Vec<Arc<Version>>, Error> {
        let mut versions = Vec::new();
        for revision in targets.iter().filter_map(|target| target.revision) {
            versions.extend(self.version_of(cell, revision).await?);
        }
        Ok(versions)
    }

    pub(crate) async fn traffic_versions(
        &self,
        cell: &Cell,
        shares: &[TrafficShare],
    ) -> Result<Vec<Arc<Version>>, Error> {
        let mut versions = Vec::new();
        for share in shares {
            if let QualifierName::Number(_) = share.to
                && let Some(revision) = self.revision_of(cell, &share.to).await?
            {
                versions.extend(self.version_of(cell, revision).await?);
            }
        }
        Ok(versions)
    }

    /// The revision that a qualifier names, if it names one.
    pub(crate) async fn revision_of(&self, cell: &Cell, qualifier: &QualifierName) -> Result<Option<VersionId>, Error> {
        let ours = |revision: kip_store::StoredRevision| (revision.spec.name == *cell.name()).then_some(revision.id);
        match qualifier {
            QualifierName::Latest | QualifierName::Alias(_) => Ok(None),
            QualifierName::Number(number) => {
                let inner = cell.lock();
                let versions = inner.qualifiers().map(|named| named.versions()).unwrap_or_default();
                Ok(versions.iter().find(|version| version.number == *number).map(|version| version.revision))
            }
            QualifierName::Ordinal(ordinal) => {
                Ok(self.changes.read().revision_at(cell.name().clone(), *ordinal).await?.and_then(ours))
            }
            QualifierName::Revision(revision) => Ok(self.changes.read().revision(*revision).await?.and_then(ours)),
        }
    }

    /// Labels of host names that end in a hash: they cannot be read as a function and a qualifier.
    pub(crate) fn register_labels(&self, cell: &Arc<Cell>) {
        let qualifiers: Vec<QualifierName> = {
            let inner = cell.lock();
            let Some(named) = inner.qualifiers() else { return };
            let numbers = named.versions().iter().map(|version| QualifierName::Number(version.number));
            named.aliases().iter().map(|alias| QualifierName::Alias(alias.name.clone())).chain(numbers).collect()
        };
        for qualifier in qualifiers {
            self.register_label(cell, qualifier);
        }
    }

    pub(crate) fn register_label(&self, cell: &Arc<Cell>, qualifier: QualifierName) {
        let text = qualifier.to_string();
        let label = host_label(cell.name().as_str(), Some(&text));
        if !label.ends_with(&text.to_ascii_lowercase()) {
            self.cells.write().by_label.insert(label, (cell.clone(), qualifier));
        }
    }

    /// Writes a change of what a function's callers can name into the decision log.
    pub(crate) fn note_named(&self, cell: &Cell, to: String, why: String) {
        tracing::info!(function = %cell.name(), to, why, "versions and aliases changed");
        self.recorder.record(Record::Decision(DecisionRecord {
            at: kip_host::clock::wall_millis(),
            function: cell.name().to_string(),
            version: 0,
            label: None,
            instance: None,
            from: None,
            to: to.clone(),
            why,
            detail: None,
            decision: Decision::Named { what: to }.value(),
        }));
    }
}
