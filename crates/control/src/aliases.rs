//! Aliases: the changes that users make, and what is shown of them.

use kip_spec::qualifier::{LATEST, host_label};
use kip_spec::sticky::Sticky;
use kip_spec::{AliasName, QualifierName};
use kip_store::{AliasTarget, Author, Change, Effect, Object, SettingChange, StoredAlias, TrafficShare};
use kip_wire::{AliasInfo, TargetInfo};

use crate::cell::Cell;
use crate::control::Control;
use crate::error::Error;
use crate::qualifiers::{WHOLE, noted, percent};
use crate::versions::check_note;

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

impl Control {
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
        self.set_alias_with(name, alias, change, Vec::new(), author).await
    }

    /// The same, with settings that are stored in the same commit.
    ///
    /// # Errors
    /// As [`Control::set_alias`].
    pub async fn set_alias_with(
        &self,
        name: &str,
        alias: &str,
        change: AliasChange,
        beside: Vec<SettingChange>,
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
            let committed = turn.commit(author.proposal(object, change.together(beside))).await?;
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
}

fn invalid(error: &dyn std::fmt::Display) -> Error {
    let hint = "use 1 to 64 letters, digits, `-` or `_`, beginning with a letter or `_`, such as prod".to_owned();
    Error::AliasInvalid { detail: error.to_string(), hint }
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
