//! Published versions: the changes that users make, and what is shown of them.

use std::sync::Arc;

use kip_spec::qualifier::{host_label, label};
use kip_spec::{QualifierName, VersionId};
use kip_store::{Author, Change, CommitTurn, Effect, Object};
use kip_wire::{RevisionInfo, VersionDiff, VersionStatus};

use crate::cell::Cell;
use crate::control::Control;
use crate::differences::differences;
use crate::error::Error;
use crate::qualifiers::noted;
use crate::version::Version;

/// The longest note of a version or an alias, in bytes.
const LONGEST_NOTE: usize = 512;

impl Control {
    /// Makes a version known that a request asks for by itself. False if the function has none of this name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn load_version(&self, cell: &Arc<Cell>, qualifier: &QualifierName) -> Result<bool, Error> {
        let Some(revision) = self.shared.revision_of(cell, qualifier).await? else { return Ok(false) };
        let Some(version) = self.shared.version_of(cell, revision).await? else { return Ok(false) };
        cell.call_by_itself(version);
        Ok(true)
    }

    /// The revision that a qualifier of a function means now; an alias means none, because it may mean several.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoQualifier`] or [`Error::Store`].
    pub async fn revision_named(&self, name: &str, qualifier: &QualifierName) -> Result<Arc<Version>, Error> {
        let cell = self.require(name)?;
        if *qualifier == QualifierName::Latest {
            return Ok(cell.serving());
        }
        let unknown = || Error::NoQualifier { function: name.to_owned(), qualifier: qualifier.to_string() };
        let revision = self.shared.revision_of(&cell, qualifier).await?.ok_or_else(unknown)?;
        self.shared.version_of(&cell, revision).await?.ok_or_else(unknown)
    }

    /// The revisions that a qualifier means now: several for an alias that divides requests.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoQualifier`] or [`Error::Store`].
    pub async fn versions_meant(&self, name: &str, qualifier: &QualifierName) -> Result<Vec<VersionId>, Error> {
        let QualifierName::Alias(alias) = qualifier else {
            return Ok(vec![self.revision_named(name, qualifier).await?.id]);
        };
        let cell = self.require(name)?;
        let targets = self.held_alias(&cell, alias.as_str())?.targets;
        Ok(targets.into_iter().map(|target| target.revision.unwrap_or_else(|| cell.serving().id)).collect())
    }

    /// Gives a revision of a function the next number: the revision that was deployed last, unless another is named. False beside it
    /// says that it has its number already.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoQualifier`], [`Error::RevisionNotReady`] or [`Error::Store`].
    pub async fn publish(
        &self,
        name: &str,
        revision: Option<QualifierName>,
        description: String,
        author: Author,
    ) -> Result<(RevisionInfo, bool), Error> {
        let (control, name) = (self.clone(), name.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let cell = control.require(&name)?;
            check_note(&description)?;
            let unknown = |asked: &str| Error::NoQualifier { function: name.clone(), qualifier: asked.to_owned() };
            let revision = match &revision {
                Some(QualifierName::Latest) => cell.serving().id,
                Some(asked) => {
                    let found = control.shared.revision_of(&cell, asked).await?;
                    found.ok_or_else(|| unknown(&asked.to_string()))?
                }
                None => control.newest_ready(&turn, &cell).await?,
            };
            let published = {
                let inner = cell.lock();
                inner.qualifiers().and_then(|named| named.of_revision(revision)).is_some()
            };
            if !published {
                let change = Change::PublishVersion { function: cell.name().clone(), revision, description };
                let committed = turn.commit(author.proposal(Object::Function(cell.name().clone()), change)).await?;
                let Effect::Published(version) = committed.effect else { return Err(unknown(&revision.to_string())) };
                let why = noted(&version.description, &author.by);
                let to = format!("version {} is r{}", version.number, version.ordinal);
                let number = QualifierName::Number(version.number);
                cell.hold_version(version);
                control.shared.register_label(&cell, number);
                control.shared.note_named(&cell, to, why);
            }
            let infos = control.revisions(&name).await?;
            let info = infos.into_iter().find(|info| info.id == revision);
            Ok((info.ok_or_else(|| unknown(&revision.to_string()))?, !published))
        });
        unit.await
    }

    /// The revision that was deployed last; an error if it is known not to start.
    async fn newest_ready(&self, turn: &CommitTurn, cell: &Cell) -> Result<VersionId, Error> {
        let newest = turn.read().revisions(cell.name().clone()).await?.pop();
        let newest = newest.ok_or_else(|| Error::NoFunction { name: cell.name().to_string(), nearest: None })?;
        let inner = cell.lock();
        if let Some(VersionStatus::Failed { .. }) = inner.outcomes.of(newest.id) {
            return Err(Error::RevisionNotReady {
                function: cell.name().to_string(),
                revision: label(newest.number, newest.ordinal),
                serving: inner.serving().label(),
            });
        }
        Ok(newest.id)
    }

    /// Removes the number of a version. Its revision is collected when nothing else needs it.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoQualifier`], [`Error::VersionInUse`] or [`Error::Store`].
    pub async fn remove_version(&self, name: &str, number: u64, author: Author) -> Result<(), Error> {
        let (control, name) = (self.clone(), name.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let cell = control.require(&name)?;
            let unknown = || Error::NoQualifier { function: name.clone(), qualifier: number.to_string() };
            let qualifier = QualifierName::Number(number);
            let revision = control.shared.revision_of(&cell, &qualifier).await?.ok_or_else(unknown)?;
            let mut users = users_of(&cell, revision, &qualifier);
            users.extend(control.tasks_that_use(&cell, |asked| *asked == qualifier));
            if !users.is_empty() {
                return Err(Error::VersionInUse { function: name, number, users });
            }
            let change = Change::RemoveVersion { function: cell.name().clone(), number };
            turn.commit(author.proposal(Object::Function(cell.name().clone()), change)).await?;
            control.shared.cells.write().by_label.remove(&host_label(&name, Some(&number.to_string())));
            cell.forget_version(number);
            control.shared.note_named(&cell, format!("version {number} is removed"), noted("", &author.by));
            Ok(())
        });
        unit.await
    }

    /// The revisions of a function, oldest first, with their versions and what points at them.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::Store`].
    pub async fn revisions(&self, name: &str) -> Result<Vec<RevisionInfo>, Error> {
        let cell = self.require(name)?;
        let sources = self.shared.changes.read().revisions(cell.name().clone()).await?;
        let newest = sources.last().map(|source| source.id);
        let inner = cell.lock();
        let serving = inner.serving().id;
        let info = |source: kip_store::VersionSource| RevisionInfo {
            label: label(source.number, source.ordinal),
            serves: source.id == serving,
            newest: Some(source.id) == newest,
            status: inner.outcomes.of(source.id).cloned(),
            aliases: inner
                .qualifiers()
                .map(|named| {
                    let aliases = named.aliases().iter();
                    aliases
                        .filter(|alias| alias.targets.iter().any(|target| target.revision == Some(source.id)))
                        .map(|alias| alias.name.to_string())
                        .collect()
                })
                .unwrap_or_default(),
            id: source.id,
            ordinal: source.ordinal,
            number: source.number,
            description: source.description,
            created: source.created,
            facade: source.facade,
            source: source.source,
        };
        Ok(sources.into_iter().map(info).collect())
    }

    /// What differs between two revisions of a function, field by field.
    ///
    /// # Errors
    /// As [`Control::revision_named`].
    pub async fn diff(&self, name: &str, from: &QualifierName, to: &QualifierName) -> Result<VersionDiff, Error> {
        let (from, to) = (self.revision_named(name, from).await?, self.revision_named(name, to).await?);
        let mut fields = differences(&from.spec, &to.spec);
        let (control, codes) = (self.clone(), (from.spec.code.clone(), to.spec.code.clone()));
        let files = kip_host::tasks::blocking("compare code", move || control.changed_files(&codes.0, &codes.1)).await;
        fields.extend(files.unwrap_or_default());
        Ok(VersionDiff { from: from.label(), to: to.label(), fields })
    }
}

pub(crate) fn check_note(note: &str) -> Result<(), Error> {
    if note.len() <= LONGEST_NOTE && !note.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::AliasInvalid {
        detail: format!("a note has at most {LONGEST_NOTE} bytes and no line breaks"),
        hint: "write a short one: -m \"new tokenizer\"".to_owned(),
    })
}

/// What needs a version: aliases, traffic, and what is provisioned for it.
fn users_of(cell: &Cell, revision: VersionId, qualifier: &QualifierName) -> Vec<String> {
    let inner = cell.lock();
    let mut users = Vec::new();
    if let Some(named) = inner.qualifiers() {
        let points = named.aliases().iter().filter(|alias| alias.targets.iter().any(|t| t.revision == Some(revision)));
        users.extend(points.map(|alias| format!("alias {}", alias.name)));
        if named.traffic().iter().any(|share| share.to == *qualifier) {
            users.push("the function's traffic".to_owned());
        }
    }
    if inner.provisions.contains_key(&qualifier.to_string()) {
        users.push(format!("provisioned instances of {qualifier}"));
    }
    users
}
