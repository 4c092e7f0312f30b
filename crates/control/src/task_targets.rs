//! Which versions the tasks of a qualifier run on, as it is at this moment: a task of an alias runs where the alias points when it begins.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use kip_spec::{QualifierName, VersionId};

use crate::cell::Cell;
use crate::control::Control;
use crate::error::Error;
use crate::open_tasks::OpenTasks;
use crate::qualifiers::WHOLE;

/// The versions that tasks of a qualifier may run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskTargets {
    /// These, with their shares in millionths.
    Versions(Vec<(VersionId, u32)>),
    /// The version is not known here yet: ask again after [`Control::load_version`].
    Unloaded,
    /// Nothing of the function is called so.
    Unknown,
}

impl TaskTargets {
    /// Whether tasks may run on a version.
    pub fn names(&self, version: VersionId) -> bool {
        matches!(self, Self::Versions(targets) if targets.iter().any(|(target, _)| *target == version))
    }
}

impl Cell {
    /// The versions that tasks of a qualifier run on now.
    pub fn task_targets(&self, qualifier: &str) -> TaskTargets {
        let inner = self.lock();
        let serving = inner.serving().id;
        let one = |version| TaskTargets::Versions(vec![(version, WHOLE)]);
        let Ok(asked) = qualifier.parse::<QualifierName>() else { return TaskTargets::Unknown };
        let known = |revision: Option<VersionId>| match revision {
            None => TaskTargets::Unknown,
            Some(revision) if revision == serving => one(revision),
            Some(revision) if inner.qualifiers().is_some_and(|named| named.called.contains(&revision)) => one(revision),
            Some(_) => TaskTargets::Unloaded,
        };
        match asked {
            QualifierName::Latest => one(serving),
            QualifierName::Alias(name) => match inner.qualifiers().and_then(|named| named.alias(name.as_str())) {
                Some(alias) => {
                    let targets = alias.targets.iter();
                    let targets = targets.map(|target| (target.revision.unwrap_or(serving), target.millionths));
                    TaskTargets::Versions(targets.filter(|(_, share)| *share > 0).collect())
                }
                None => TaskTargets::Unknown,
            },
            QualifierName::Number(number) => {
                known(inner.qualifiers().and_then(|named| named.numbered(number)).map(|version| version.revision))
            }
            QualifierName::Revision(revision) => known(Some(revision)),
            QualifierName::Ordinal(ordinal) => match inner.versions.values().find(|v| v.ordinal == ordinal) {
                Some(version) => known(Some(version.id)),
                None => TaskTargets::Unloaded,
            },
        }
    }

    /// How a version is shown: its number, else `r` and its ordinal.
    pub fn version_label(&self, version: VersionId) -> String {
        self.label(version)
    }
}

impl Control {
    /// From here on what open tasks name is asked for here: it is neither collected nor removed.
    pub fn keep_for_tasks(&self, tasks: Weak<dyn OpenTasks>) {
        let _ = self.shared.open_tasks.set(tasks);
    }

    /// The qualifiers that open tasks of a function name.
    fn named_by_tasks(&self, function: &str) -> BTreeMap<Arc<str>, u64> {
        let tasks = self.shared.open_tasks.get().and_then(Weak::upgrade);
        tasks.map(|tasks| tasks.qualifiers(function)).unwrap_or_default()
    }

    /// The revisions that open tasks of a function name by themselves.
    pub(crate) fn revisions_of_tasks(&self, cell: &Cell) -> Vec<VersionId> {
        let of = |(qualifier, _): (Arc<str>, u64)| match cell.task_targets(&qualifier) {
            TaskTargets::Versions(targets) => targets.into_iter().map(|(version, _)| version).collect(),
            TaskTargets::Unloaded | TaskTargets::Unknown => Vec::new(),
        };
        self.named_by_tasks(cell.name().as_str()).into_iter().flat_map(of).collect()
    }

    /// The open tasks that name a qualifier so that `is_so`, in words.
    pub(crate) fn tasks_that_use(&self, cell: &Cell, is_so: impl Fn(&QualifierName) -> bool) -> Vec<String> {
        let name = cell.name();
        let meant = |qualifier: &str| qualifier.parse().is_ok_and(|asked| is_so(&asked));
        let named = self.named_by_tasks(name.as_str()).into_iter().filter(|(qualifier, _)| meant(qualifier));
        named.map(|(qualifier, count)| format!("{count} open tasks of {name}@{qualifier}")).collect()
    }

    /// The qualifier of a task in the spelling of its function. Its version is known here from then on.
    ///
    /// # Errors
    /// [`Error::NoQualifier`], [`Error::OnlyLatest`] for a job, or [`Error::Store`].
    pub async fn task_qualifier(&self, cell: &Arc<Cell>, qualifier: &str) -> Result<String, Error> {
        let unknown = || Error::NoQualifier { function: cell.name().to_string(), qualifier: qualifier.to_owned() };
        let asked = qualifier.parse::<QualifierName>().map_err(|_| unknown())?;
        if asked == QualifierName::Latest {
            return Ok(crate::LATEST.to_owned());
        }
        if cell.serving().spec.job.is_some() {
            return Err(Error::OnlyLatest { function: cell.name().to_string(), qualifier: qualifier.to_owned() });
        }
        if let QualifierName::Alias(name) = &asked {
            let inner = cell.lock();
            let alias = inner.qualifiers().and_then(|named| named.alias(name.as_str()));
            return alias.map(|alias| alias.name.to_string()).ok_or_else(unknown);
        }
        if cell.task_targets(qualifier) == TaskTargets::Unloaded && !self.load_version(cell, &asked).await? {
            return Err(unknown());
        }
        match cell.task_targets(qualifier) {
            TaskTargets::Versions(_) => Ok(asked.to_string()),
            TaskTargets::Unloaded | TaskTargets::Unknown => Err(unknown()),
        }
    }
}
