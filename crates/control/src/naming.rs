//! How a cell finds what a qualifier means, and how it holds versions, aliases and traffic that were changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kip_fleet::{AliasNumber, Draw, Event, Qualifier, Target};
use kip_spec::qualifier::{LATEST, label};
use kip_spec::scaling::Fc;
use kip_spec::{QualifierName, VersionId};
use kip_store::{AliasTarget, StoredAlias, StoredVersion, TrafficShare};

use crate::cell::{Cell, Inner};
use crate::qualifiers::{Qualifiers, Resolution, TRAFFIC, number_of};
use crate::version::Version;

/// Draws begin at one of so many places.
const PHASES: u128 = 100;

impl Inner {
    pub(crate) fn qualifiers(&self) -> Option<&Qualifiers> {
        self.qualifiers.as_deref()
    }

    /// What a request asks for. Without a qualifier the function's traffic answers.
    pub(crate) fn resolve(&self, asked: Option<&QualifierName>) -> Resolution<'_> {
        let named = self.qualifiers.as_deref();
        match asked {
            None if named.is_some_and(|named| !named.traffic.is_empty()) => {
                Resolution::Known(Qualifier::Alias(TRAFFIC), None, named.and_then(Qualifiers::sticky_traffic))
            }
            None => Resolution::Known(Qualifier::Latest, None, None),
            Some(QualifierName::Latest) => Resolution::Known(Qualifier::Latest, Some(QualifierName::Latest), None),
            Some(QualifierName::Alias(name)) => match named.and_then(|named| named.alias(name.as_str())) {
                Some(alias) => {
                    let whole = QualifierName::Alias(alias.name.clone());
                    Resolution::Known(Qualifier::Alias(number_of(alias)), Some(whole), alias.sticky.as_ref())
                }
                None => Resolution::Unknown,
            },
            Some(QualifierName::Number(number)) => match named.and_then(|named| named.numbered(*number)) {
                Some(version) => self.by_itself(version.revision, asked),
                None => Resolution::Unknown,
            },
            Some(QualifierName::Revision(revision)) => self.by_itself(*revision, asked),
            Some(QualifierName::Ordinal(ordinal)) => {
                match self.versions.values().find(|version| version.ordinal == *ordinal) {
                    Some(version) => self.by_itself(version.id, asked),
                    None => Resolution::Unloaded,
                }
            }
        }
    }

    /// The versions that a qualifier may mean; none where any will do.
    pub(crate) fn meant(&self, asked: Option<&QualifierName>) -> Option<Vec<VersionId>> {
        let serving = self.serving().id;
        Some(match asked? {
            QualifierName::Latest => vec![serving],
            QualifierName::Alias(name) => {
                let alias = self.qualifiers().and_then(|named| named.alias(name.as_str()));
                let targets = alias.map(|alias| alias.targets.as_slice()).unwrap_or_default();
                targets.iter().map(|target| target.revision.unwrap_or(serving)).collect()
            }
            other => match self.qualifier(&other.to_string()) {
                Some(Qualifier::Version(version)) => vec![version],
                _ => Vec::new(),
            },
        })
    }

    /// For whom, by its name: LATEST, an alias, or a version in any of its spellings.
    pub(crate) fn qualifier(&self, name: &str) -> Option<Qualifier> {
        let asked: QualifierName = name.parse().ok()?;
        let named = self.qualifiers();
        Some(match asked {
            QualifierName::Latest => Qualifier::Latest,
            QualifierName::Alias(name) => Qualifier::Alias(number_of(named?.alias(name.as_str())?)),
            QualifierName::Number(number) => Qualifier::Version(named?.numbered(number)?.revision),
            QualifierName::Revision(revision) => Qualifier::Version(revision),
            QualifierName::Ordinal(ordinal) => {
                Qualifier::Version(self.versions.values().find(|version| version.ordinal == ordinal)?.id)
            }
        })
    }

    /// What is provisioned for a version by itself.
    pub(crate) fn provision_of(&self, version: VersionId) -> Option<Arc<Fc>> {
        let of = |name: &String| self.qualifier(name) == Some(Qualifier::Version(version));
        self.provisions.iter().find(|(name, _)| of(name)).map(|(_, settings)| settings.clone())
    }

    /// The name by which it is kept.
    pub(crate) fn name_of(&self, qualifier: Qualifier) -> String {
        match qualifier {
            Qualifier::Latest => LATEST.to_owned(),
            Qualifier::Alias(number) => {
                let aliases = self.qualifiers().map(Qualifiers::aliases).unwrap_or_default();
                let alias = aliases.iter().find(|alias| number_of(alias) == number);
                alias.map_or_else(|| format!("alias {}", number.0), |alias| alias.name.to_string())
            }
            // What was put by an earlier server has the number in the store as its name.
            Qualifier::Version(version) => match version.to_string() {
                early if self.provisions.contains_key(&early) => early,
                _ => self.label(version),
            },
        }
    }

    fn by_itself(&self, revision: VersionId, asked: Option<&QualifierName>) -> Resolution<'_> {
        let known = revision == self.serving().id
            || self.qualifiers.as_deref().is_some_and(|named| named.called.contains(&revision));
        if known { Resolution::Known(Qualifier::Version(revision), asked.cloned(), None) } else { Resolution::Unloaded }
    }

    /// The version of a revision that is held here already.
    pub(crate) fn held_version(&self, revision: VersionId) -> Option<Arc<Version>> {
        self.versions.get(&revision).cloned()
    }

    /// How a revision is shown.
    pub(crate) fn label(&self, revision: VersionId) -> String {
        let number = self.qualifiers().and_then(|named| named.of_revision(revision)).map(|version| version.number);
        let ordinal = self.versions.get(&revision).map(|version| version.ordinal).filter(|ordinal| *ordinal > 0);
        match (number, ordinal.or_else(|| self.outcomes.ordinal(revision))) {
            (None, None) => revision.to_string(),
            (number, ordinal) => label(number, ordinal.unwrap_or_default()),
        }
    }
}

impl Cell {
    /// A change of what can be named. What is left empty is put away.
    fn rename<T>(&self, change: impl FnOnce(&mut Qualifiers) -> T) -> T {
        let mut inner = self.lock();
        let changed = change(inner.qualifiers.get_or_insert_default());
        inner.qualifiers.take_if(|named| named.is_empty());
        changed
    }

    /// Holds published versions.
    pub(crate) fn hold_versions(&self, versions: Vec<StoredVersion>) {
        self.rename(|named| named.versions = versions);
        self.number_versions();
    }

    pub(crate) fn hold_version(&self, version: StoredVersion) {
        self.rename(|named| named.versions.push(version));
        self.number_versions();
    }

    /// Removes a number. The version is not to be asked for by itself any more; aliases may still point at its revision.
    pub(crate) fn forget_version(self: &Arc<Self>, number: u64) {
        let revision = self.rename(|named| {
            let revision = named.numbered(number).map(|version| version.revision)?;
            named.versions.retain(|version| version.number != number);
            let called = named.called.iter().position(|called| *called == revision)?;
            Some(named.called.swap_remove(called))
        });
        self.number_versions();
        if let Some(version) = revision {
            self.step(Event::Unname { version });
        }
    }

    /// Tells each version that is held here its number.
    fn number_versions(&self) {
        let inner = self.lock();
        let number = |version: &Version| {
            let known = inner.qualifiers().and_then(|named| named.of_revision(version.id));
            version.number.store(known.map_or(0, |known| known.number), Ordering::Relaxed);
        };
        inner.versions.values().for_each(|version| number(version));
        inner.links.values().for_each(|link| number(&link.version));
        number(inner.serving());
    }

    /// Tells a version its number before it is held.
    pub(crate) fn number_version(&self, version: &Version) {
        let inner = self.lock();
        let known = inner.qualifiers().and_then(|named| named.of_revision(version.id));
        version.number.store(known.map_or(0, |known| known.number), Ordering::Relaxed);
    }

    /// A version may be asked for by itself from now on.
    pub(crate) fn call_by_itself(self: &Arc<Self>, version: Arc<Version>) {
        let (id, policy) = (version.id, version.policy());
        {
            let mut inner = self.lock();
            inner.versions.entry(id).or_insert(version);
            let named = inner.qualifiers.get_or_insert_default();
            if !named.called.contains(&id) {
                named.called.push(id);
            }
        }
        self.number_versions();
        self.step(Event::Name { version: id, policy });
    }

    /// The same before decisions begin.
    pub(crate) fn remember_called(&self, version: Arc<Version>) {
        let event = Event::Name { version: version.id, policy: version.policy() };
        {
            let mut inner = self.lock();
            let id = version.id;
            inner.versions.entry(id).or_insert(version);
            inner.qualifiers.get_or_insert_default().called.push(id);
        }
        self.number_versions();
        self.remember(&event);
    }

    /// Holds an alias whose targets are among `versions`, or held here already, and points it there.
    pub(crate) fn point(self: &Arc<Self>, alias: StoredAlias, versions: Vec<Arc<Version>>) {
        let event = self.hold_alias(alias, versions);
        self.step(event);
        self.point_traffic();
    }

    /// The same before decisions begin.
    pub(crate) fn remember_alias(self: &Arc<Self>, alias: StoredAlias, versions: Vec<Arc<Version>>) {
        let event = self.hold_alias(alias, versions);
        self.remember(&event);
    }

    fn hold_alias(&self, alias: StoredAlias, versions: Vec<Arc<Version>>) -> Event {
        {
            let mut inner = self.lock();
            for version in versions {
                inner.versions.entry(version.id).or_insert(version);
            }
        }
        let (number, targets) = (number_of(&alias), alias.targets.clone());
        self.rename(|named| {
            named.aliases.retain(|known| known.id != alias.id);
            named.aliases.push(alias);
            named.aliases.sort_by(|one, other| one.name.cmp(&other.name));
        });
        self.number_versions();
        self.pointing(number, &targets)
    }

    /// The event that points an alias.
    fn pointing(&self, alias: AliasNumber, targets: &[AliasTarget]) -> Event {
        let inner = self.lock();
        let latest = targets.iter().filter(|target| target.revision.is_none()).map(|target| target.millionths).sum();
        let target = |target: &AliasTarget| {
            let version = inner.versions.get(&target.revision?)?;
            Some(Target { version: version.id, policy: version.policy(), weight: target.millionths })
        };
        let targets = targets.iter().filter_map(target).collect();
        // Anywhere in its round: aliases that are set together, and those of a server that begins anew, do not all begin alike.
        let phase = u32::try_from(kip_host::random::bits() % PHASES).unwrap_or(0);
        Event::Alias { alias, targets, latest, provisioned: 0, draw: Draw::Begin(phase) }
    }

    /// Holds an alias whose targets did not change.
    pub(crate) fn hold_stored_alias(&self, alias: StoredAlias) {
        self.rename(|named| {
            if let Some(known) = named.aliases.iter_mut().find(|known| known.id == alias.id) {
                *known = alias;
            }
        });
    }

    /// A revision is not to be asked for by itself any more, until somebody does; aliases may still point at it.
    pub(crate) fn uncall(self: &Arc<Self>, revision: VersionId) {
        let uncalled = self.rename(|named| {
            let called = named.called.iter().position(|called| *called == revision);
            called.map(|called| named.called.swap_remove(called)).is_some()
        });
        if uncalled {
            self.step(Event::Unname { version: revision });
        }
    }

    /// Removes an alias.
    pub(crate) fn forget_alias(self: &Arc<Self>, name: &str) {
        let gone = self.rename(|named| {
            let place = named.aliases.iter().position(|alias| alias.name.as_str() == name)?;
            Some(named.aliases.remove(place))
        });
        if let Some(alias) = gone {
            self.step(self.pointing(number_of(&alias), &[]));
            self.point_traffic();
        }
    }

    /// Holds the function's traffic.
    pub(crate) fn hold_traffic(self: &Arc<Self>, traffic: Vec<TrafficShare>) {
        let changed = self.rename(|named| {
            let changed = named.traffic != traffic;
            named.traffic = traffic;
            changed
        });
        if changed {
            let targets = self.traffic_targets();
            self.step(self.pointing(TRAFFIC, &targets));
        }
    }

    /// The same before decisions begin.
    pub(crate) fn remember_traffic(self: &Arc<Self>, traffic: Vec<TrafficShare>) {
        self.rename(|named| named.traffic = traffic);
        let targets = self.traffic_targets();
        self.remember(&self.pointing(TRAFFIC, &targets));
    }

    fn traffic_targets(&self) -> Vec<AliasTarget> {
        self.lock().qualifiers().map(Qualifiers::traffic_targets).unwrap_or_default()
    }

    /// An alias of it moved: so does the traffic that goes through it.
    fn point_traffic(self: &Arc<Self>) {
        let targets = self.traffic_targets();
        if !targets.is_empty() {
            self.step(self.pointing(TRAFFIC, &targets));
        }
    }

    /// Where its requests without a qualifier go; nothing if the version that serves gets them all.
    pub fn traffic(&self) -> Vec<TrafficShare> {
        self.lock().qualifiers().map(|named| named.traffic().to_vec()).unwrap_or_default()
    }

    /// How a revision is shown: by the number of its version, or its ordinal.
    pub fn label(&self, revision: VersionId) -> String {
        self.lock().label(revision)
    }
}
