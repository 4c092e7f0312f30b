//! Host names of functions and their qualifiers: which is whose, and which is free.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_spec::qualifier::{host_label, split_label};
use kip_spec::{AliasName, FunctionName, QualifierName};
use kip_store::StoredAlias;

use crate::cell::Cell;
use crate::control::Control;
use crate::error::Error;

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

    pub(crate) fn check_label(&self, cell: &Cell, alias: &AliasName) -> Result<(), Error> {
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
