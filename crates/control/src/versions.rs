//! Published versions and aliases: the changes that users make, and what is shown of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_spec::function::FunctionSpec;
use kip_spec::qualifier::{LATEST, host_label, label, split_label};
use kip_spec::sticky::Sticky;
use kip_spec::{AliasName, FunctionName, QualifierName, VersionId};
use kip_store::{
    AliasTarget, Author, Change, CommitTurn, DecisionRecord, Effect, Object, Record, StoredAlias, StoredVersion,
    TrafficShare, UnreadableRow,
};
use kip_wire::{AliasInfo, FieldChange, RevisionInfo, TargetInfo, VersionDiff, VersionStatus};

use crate::cell::Cell;
use crate::control::Control;
use crate::error::Error;
use crate::qualifiers::{WHOLE, noted, percent};
use crate::shared::Shared;
use crate::version::Version;
use kip_records::decision::Decision;

/// A target of an alias as it is asked for: whom, and its share in millionths.
pub type AskedTarget = (QualifierName, u32);

/// What an alias is to be.
#[derive(Debug, Clone, Default)]
pub struct AliasChange {
    /// Where it points.
    pub targets: Vec<AskedTarget>,
    /// Its note; that of before stays without one.
    pub description: Option<String>,
    /// By what its callers stay on their version, or that they do not; as before if nothing is said.
    pub sticky: Option<Option<Sticky>>,
}

/// The longest note of a version or an alias, in bytes.
const LONGEST_NOTE: usize = 512;

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

    async fn traffic_versions(&self, cell: &Cell, shares: &[TrafficShare]) -> Result<Vec<Arc<Version>>, Error> {
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
    async fn revision_of(&self, cell: &Cell, qualifier: &QualifierName) -> Result<Option<VersionId>, Error> {
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
    fn register_labels(&self, cell: &Arc<Cell>) {
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

    fn register_label(&self, cell: &Arc<Cell>, qualifier: QualifierName) {
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

impl Control {
    /// A function by the first label of a host name, in lower case, with the qualifier that the label says.
    pub fn cell_by_host(&self, label: &str) -> Option<(Arc<Cell>, Option<QualifierName>)> {
        let cells = self.shared.cells();
        if let Some(cell) = cells.by_host.get(label) {
            return Some((cell.clone(), None));
        }
        if let Some((cell, qualifier)) = cells.by_label.get(label) {
            return Some((cell.clone(), Some(qualifier.clone())));
        }
        split_label(label).find_map(|(function, qualifier)| {
            let cell = cells.by_host.get(function)?;
            Some((cell.clone(), Some(qualifier.parse().ok()?)))
        })
    }

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

    /// Makes an alias, or points it elsewhere. A note that is not given stays as it was.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoQualifier`], [`Error::AliasInvalid`], [`Error::HostNameTaken`] or [`Error::Store`].
    pub async fn set_alias(
        &self,
        name: &str,
        alias: &str,
        change: AliasChange,
        author: Author,
    ) -> Result<AliasInfo, Error> {
        let AliasChange { targets, description, sticky } = change;
        let (control, name, alias) = (self.clone(), name.to_owned(), alias.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let cell = control.require(&name)?;
            let alias: AliasName = alias.parse().map_err(|error| invalid(&error))?;
            let (held, description, sticky) = {
                let inner = cell.lock();
                let known = inner.qualifiers().and_then(|named| named.alias(alias.as_str()));
                let kept = known.map(|known| known.description.clone()).unwrap_or_default();
                let sticky = sticky.unwrap_or_else(|| known.and_then(|known| known.sticky.clone()));
                (known.map(|known| known.name.clone()), description.unwrap_or(kept), sticky)
            };
            check_note(&description)?;
            match held {
                Some(held) if held != alias => {
                    return Err(Error::HostNameTaken {
                        name: format!("{name}@{alias}"),
                        existing: format!("{name}@{held}"),
                    });
                }
                Some(_) if control.shared.open_rollout(cell.name(), &alias) => {
                    return Err(Error::RolloutOpen { function: name, alias: alias.to_string() });
                }
                Some(_) => {}
                None => control.check_label(&cell, &alias)?,
            }
            let targets = control.targets(&cell, &targets).await?;
            let versions = control.shared.versions_of(&cell, &targets).await?;
            let (function, object) = (cell.name().clone(), Object::Alias(cell.name().clone(), alias.clone()));
            let change =
                Change::PutAlias { function, name: alias.clone(), targets, description, sticky, rollout: None };
            let committed = turn.commit(author.proposal(object, change)).await?;
            let Effect::Alias(stored) = committed.effect else { return Err(Error::NoFunction { name, nearest: None }) };
            let description = stored.description.clone();
            cell.point(stored, versions);
            control.shared.register_label(&cell, QualifierName::Alias(alias.clone()));
            let info = control.alias(&name, alias.as_str())?;
            let to = format!("alias {alias} is {}", shares(&info.targets));
            control.shared.note_named(&cell, to, noted(&description, &author.by));
            Ok(info)
        });
        unit.await
    }

    /// Points an alias back to where it pointed before.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoAlias`], [`Error::NothingBefore`] or [`Error::Store`].
    pub async fn rollback_alias(&self, name: &str, alias: &str, author: Author) -> Result<AliasInfo, Error> {
        let (control, name, alias) = (self.clone(), name.to_owned(), alias.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let cell = control.require(&name)?;
            let mut held = control.held_alias(&cell, &alias)?;
            if control.shared.open_rollout(cell.name(), &held.name) {
                return Err(Error::RolloutOpen { function: name, alias });
            }
            // A rollout that is complete is one change, however many steps it took.
            if let Some(before) = control.shared.before_rollout(&held) {
                held.before = before;
            }
            if held.before.is_empty() {
                return Err(Error::NothingBefore { what: format!("alias `{alias}` of the function `{name}`") });
            }
            let versions = control.shared.versions_of(&cell, &held.before).await?;
            let (function, object) = (cell.name().clone(), Object::Alias(cell.name().clone(), held.name.clone()));
            let (targets, description) = (held.before, held.description);
            let change = Change::PutAlias {
                function,
                name: held.name.clone(),
                targets,
                description,
                sticky: held.sticky.clone(),
                rollout: None,
            };
            let by = author.by.clone();
            let committed = turn.commit(author.proposal(object, change)).await?;
            let Effect::Alias(stored) = committed.effect else { return Err(Error::NoFunction { name, nearest: None }) };
            cell.point(stored, versions);
            let info = control.alias(&name, &alias)?;
            let to = format!("alias {} is rolled back to {}", held.name, shares(&info.targets));
            control.shared.note_named(&cell, to, noted("", &by));
            Ok(info)
        });
        unit.await
    }

    /// Targets as they are stored: revisions of the function, each once, whose shares add up.
    pub(crate) async fn targets(&self, cell: &Cell, asked: &[AskedTarget]) -> Result<Vec<AliasTarget>, Error> {
        let mut targets: Vec<AliasTarget> = Vec::new();
        for (qualifier, millionths) in asked {
            let revision = match qualifier {
                QualifierName::Latest => None,
                QualifierName::Alias(name) => {
                    return Err(Error::AliasInvalid {
                        detail: format!("an alias points at versions, and `{name}` is none"),
                        hint: "write a version such as 3, a revision such as r12, or LATEST".to_owned(),
                    });
                }
                other => {
                    let unknown =
                        || Error::NoQualifier { function: cell.name().to_string(), qualifier: other.to_string() };
                    Some(self.shared.revision_of(cell, other).await?.ok_or_else(unknown)?)
                }
            };
            if targets.iter().any(|target| target.revision == revision) {
                return Err(Error::AliasInvalid {
                    detail: format!("`{qualifier}` is among the targets twice"),
                    hint: "name each version once".to_owned(),
                });
            }
            targets.push(AliasTarget { revision, millionths: *millionths });
        }
        let sum: u64 = targets.iter().map(|target| u64::from(target.millionths)).sum();
        if sum != u64::from(WHOLE) {
            return Err(Error::AliasInvalid {
                detail: format!("the shares add up to {} %", percent(sum)),
                hint: "they must add up to 100: 3=90,4=10, or one version alone: 3".to_owned(),
            });
        }
        Ok(targets)
    }

    /// Removes an alias.
    ///
    /// # Errors
    /// [`Error::NoFunction`], [`Error::NoAlias`], [`Error::AliasInUse`] or [`Error::Store`].
    pub async fn remove_alias(&self, name: &str, alias: &str, author: Author) -> Result<(), Error> {
        let (control, name, alias) = (self.clone(), name.to_owned(), alias.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let cell = control.require(&name)?;
            let held = control.held_alias(&cell, &alias)?.name;
            let mut users = users_of_alias(&cell, &held);
            if control.shared.open_rollout(cell.name(), &held) {
                users.push(format!("a rollout (kip rollout abort {name} {held})"));
            }
            let means = |asked: &QualifierName| matches!(asked, QualifierName::Alias(name) if *name == held);
            users.extend(control.tasks_that_use(&cell, means));
            if !users.is_empty() {
                return Err(Error::AliasInUse { function: name, alias: held.to_string(), users });
            }
            let object = Object::Alias(cell.name().clone(), held.clone());
            let change = Change::RemoveAlias { function: cell.name().clone(), name: held.clone() };
            turn.commit(author.proposal(object, change)).await?;
            control.shared.cells.write().by_label.remove(&host_label(&name, Some(held.as_str())));
            cell.forget_alias(held.as_str());
            control.shared.forget_rollout(cell.name(), &held);
            control.shared.note_named(&cell, format!("alias {held} is removed"), noted("", &author.by));
            Ok(())
        });
        unit.await
    }

    pub(crate) fn held_alias(&self, cell: &Cell, alias: &str) -> Result<StoredAlias, Error> {
        let inner = cell.lock();
        let held = inner.qualifiers().and_then(|named| named.alias(alias)).cloned();
        held.ok_or_else(|| Error::NoAlias { function: cell.name().to_string(), alias: alias.to_owned() })
    }

    /// An alias of a function.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::NoAlias`].
    pub fn alias(&self, name: &str, alias: &str) -> Result<AliasInfo, Error> {
        let cell = self.require(name)?;
        let held = self.held_alias(&cell, alias)?;
        Ok(info(&cell, &held))
    }

    /// The aliases of a function, by name.
    ///
    /// # Errors
    /// [`Error::NoFunction`].
    pub fn aliases(&self, name: &str) -> Result<Vec<AliasInfo>, Error> {
        let cell = self.require(name)?;
        let held: Vec<StoredAlias> = cell.lock().qualifiers().map(|named| named.aliases().to_vec()).unwrap_or_default();
        Ok(held.iter().map(|alias| info(&cell, alias)).collect())
    }

    /// Traffic as it may be stored: of qualifiers that the function has, whose shares add up.
    pub(crate) async fn check_traffic(&self, function: &FunctionName, shares: &[TrafficShare]) -> Result<(), Error> {
        let sum: u64 = shares.iter().map(|share| u64::from(share.millionths)).sum();
        if sum != u64::from(WHOLE) {
            return Err(Error::AliasInvalid {
                detail: format!("the traffic of `{function}` adds up to {} %", percent(sum)),
                hint: "traffic must add up to 100: {prod: 90, LATEST: 10}".to_owned(),
            });
        }
        for share in shares.iter().filter(|share| share.to != QualifierName::Latest) {
            let unknown = || Error::NoQualifier { function: function.to_string(), qualifier: share.to.to_string() };
            let cell = self.cell(function.as_str()).ok_or_else(unknown)?;
            match &share.to {
                QualifierName::Alias(name) => drop(self.held_alias(&cell, name.as_str())?),
                QualifierName::Number(_) => {
                    self.shared.revision_of(&cell, &share.to).await?.ok_or_else(unknown)?;
                }
                _ => {
                    return Err(Error::AliasInvalid {
                        detail: format!("`{}` cannot have traffic", share.to),
                        hint: "traffic goes to aliases, published versions and LATEST".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Holds the traffic of a deployment that was committed.
    pub(crate) async fn direct_traffic(&self, function: &FunctionName, shares: Vec<TrafficShare>) -> Result<(), Error> {
        let cell = self.require(function.as_str())?;
        for version in self.shared.traffic_versions(&cell, &shares).await? {
            cell.call_by_itself(version);
        }
        cell.hold_traffic(shares);
        Ok(())
    }

    /// Holds what the store says of versions, aliases and traffic, after it was replaced.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn name_again(&self) -> Result<(), Error> {
        let read = self.shared.changes.read();
        let (versions, (aliases, _), (traffic, _)) =
            (read.versions().await?, read.aliases().await?, read.traffic().await?);
        for cell in self.sorted() {
            let name = cell.name();
            cell.hold_versions(versions.iter().filter(|version| version.function == *name).cloned().collect());
            let wanted: Vec<&StoredAlias> = aliases.iter().filter(|alias| alias.function == *name).collect();
            let held: Vec<StoredAlias> =
                cell.lock().qualifiers().map(|named| named.aliases().to_vec()).unwrap_or_default();
            for gone in held.iter().filter(|held| !wanted.iter().any(|alias| alias.id == held.id)) {
                cell.forget_alias(gone.name.as_str());
            }
            for alias in wanted {
                let targets = self.shared.versions_of(&cell, &alias.targets).await?;
                cell.point(alias.clone(), targets);
            }
            let shares = traffic.iter().find(|(function, _)| function == name).map(|(_, shares)| shares.clone());
            self.direct_traffic(name, shares.unwrap_or_default()).await?;
            self.shared.register_labels(&cell);
        }
        Ok(())
    }

    /// Whether the host names of new functions are free, of all of them at once: a manifest may declare thousands.
    pub(crate) fn check_hosts(&self, new: &[&FunctionName]) -> Result<(), Error> {
        let taken = |name: &FunctionName, existing: &str| Error::HostNameTaken {
            name: name.to_string(),
            existing: existing.to_owned(),
        };
        let labels: BTreeMap<String, &FunctionName> =
            new.iter().map(|name| (host_label(name.as_str(), None), *name)).collect();
        for (label, name) in &labels {
            match self.cell_by_host(label) {
                Some((cell, None)) if cell.name().as_str().eq_ignore_ascii_case(name.as_str()) => {
                    return Err(Error::NameCase { name: name.to_string(), existing: cell.name().to_string() });
                }
                Some((cell, None)) => return Err(taken(name, cell.name().as_str())),
                Some((cell, Some(qualifier))) if has(&cell, &qualifier) => {
                    return Err(taken(name, &format!("{}@{qualifier}", cell.name())));
                }
                _ => {}
            }
        }
        // `a` would have a version `a--3`, whose host name the function `a--3` has. Few names have two dashes.
        let numbered = |label: &str| {
            let split = split_label(label).find(|(function, qualifier)| {
                let numbered = qualifier.parse().is_ok_and(|read| !matches!(read, QualifierName::Alias(_)));
                numbered && labels.contains_key(*function)
            });
            split.and_then(|(function, _)| labels.get(function).copied())
        };
        let cells = self.shared.cells();
        let doubled = |label: &&String| label.contains("--");
        let all = cells.by_host.keys().filter(doubled).chain(labels.keys().filter(doubled));
        match all.into_iter().find_map(|label| Some((numbered(label)?, label))) {
            Some((name, existing)) => Err(taken(name, existing)),
            None => Ok(()),
        }
    }

    fn check_label(&self, cell: &Cell, alias: &AliasName) -> Result<(), Error> {
        let label = host_label(cell.name().as_str(), Some(alias.as_str()));
        let cells = self.shared.cells();
        let existing = cells.by_host.get(&label).map(|other| other.name().to_string());
        let existing =
            existing.or_else(|| cells.by_label.get(&label).map(|(other, named)| format!("{}@{named}", other.name())));
        match existing {
            Some(existing) => Err(Error::HostNameTaken { name: format!("{}@{alias}", cell.name()), existing }),
            None => Ok(()),
        }
    }
}

/// Whether a function has what a qualifier names, or may have it one day.
fn has(cell: &Cell, qualifier: &QualifierName) -> bool {
    match qualifier {
        QualifierName::Alias(name) => {
            cell.lock().qualifiers().is_some_and(|named| named.alias(name.as_str()).is_some())
        }
        _ => true,
    }
}

fn invalid(error: &dyn std::fmt::Display) -> Error {
    let hint = "use 1 to 64 letters, digits, `-` or `_`, beginning with a letter or `_`, such as prod".to_owned();
    Error::AliasInvalid { detail: error.to_string(), hint }
}

fn check_note(note: &str) -> Result<(), Error> {
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

fn users_of_alias(cell: &Cell, alias: &AliasName) -> Vec<String> {
    let inner = cell.lock();
    let mut users = Vec::new();
    let to = |share: &TrafficShare| matches!(&share.to, QualifierName::Alias(name) if name == alias);
    if inner.qualifiers().is_some_and(|named| named.traffic().iter().any(to)) {
        users.push("the function's traffic".to_owned());
    }
    if inner.provisions.contains_key(alias.as_str()) {
        users.push(format!("provisioned instances of {alias}"));
    }
    users
}

fn info(cell: &Cell, alias: &StoredAlias) -> AliasInfo {
    let inner = cell.lock();
    let target = |target: &AliasTarget| TargetInfo {
        version: target.revision.map_or_else(|| LATEST.to_owned(), |revision| inner.label(revision)),
        revision: target.revision,
        percent: percent(target.millionths.into()),
    };
    AliasInfo {
        function: cell.name().clone(),
        name: alias.name.to_string(),
        targets: alias.targets.iter().map(target).collect(),
        description: alias.description.clone(),
        rev: alias.rev.0,
        host: format!("{}.localhost", host_label(cell.name().as_str(), Some(alias.name.as_str()))),
        sticky: alias.sticky.as_ref().map(ToString::to_string),
    }
}

/// `3 90 %, 4 10 %`.
fn shares(targets: &[TargetInfo]) -> String {
    if let [only] = targets {
        return only.version.clone();
    }
    let each: Vec<String> = targets.iter().map(|target| format!("{} {} %", target.version, target.percent)).collect();
    each.join(", ")
}

/// The fields in which two declarations differ, values that look like secrets hidden.
pub fn differences(from: &FunctionSpec, to: &FunctionSpec) -> Vec<FieldChange> {
    let fields = |spec: &FunctionSpec| {
        let mut fields = std::collections::BTreeMap::new();
        flatten("", &serde_json::to_value(spec).unwrap_or_default(), &mut fields);
        fields
    };
    let (before, after) = (fields(from), fields(to));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown = |name: &str, value: Option<&serde_json::Value>| {
        let last = name.rsplit('.').next().unwrap_or(name);
        value.map(|value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            kip_spec::secret::masked(last, &text).into_owned()
        })
    };
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| FieldChange {
            field: name.clone(),
            before: shown(name, before.get(name)),
            after: shown(name, after.get(name)),
        })
        .collect()
}

fn flatten(name: &str, value: &serde_json::Value, fields: &mut std::collections::BTreeMap<String, serde_json::Value>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, fields);
            }
        }
        serde_json::Value::Null => {}
        other => drop(fields.insert(name.to_owned(), other.clone())),
    }
}
