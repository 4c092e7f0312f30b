//! What the callers of a function can name besides LATEST: its aliases, its published versions, and its traffic. It is part of the
//! cell, so that a request finds it under the one lock that it takes anyway.

use kip_fleet::{AliasNumber, Qualifier};
use kip_spec::sticky::Sticky;
use kip_spec::{QualifierName, VersionId};
use kip_store::{AliasTarget, StoredAlias, StoredVersion, TrafficShare};

/// The alias that stands for the function's traffic in its core; those of users count from 1.
pub(crate) const TRAFFIC: AliasNumber = AliasNumber(0);
/// All of an alias's requests, in millionths.
pub(crate) const WHOLE: u32 = 1_000_000;

/// What can be named. Most functions have none of it.
#[derive(Debug, Default)]
pub(crate) struct Qualifiers {
    pub(crate) aliases: Vec<StoredAlias>,
    /// By number.
    pub(crate) versions: Vec<StoredVersion>,
    pub(crate) traffic: Vec<TrafficShare>,
    /// Versions that were asked for by themselves and are known to the core.
    pub(crate) called: Vec<VersionId>,
}

impl Qualifiers {
    pub(crate) fn aliases(&self) -> &[StoredAlias] {
        &self.aliases
    }

    pub(crate) fn versions(&self) -> &[StoredVersion] {
        &self.versions
    }

    pub(crate) fn traffic(&self) -> &[TrafficShare] {
        &self.traffic
    }

    /// An alias by its name; host names know no case, so no two differ in case only.
    pub(crate) fn alias(&self, name: &str) -> Option<&StoredAlias> {
        self.aliases.iter().find(|alias| alias.name.as_str().eq_ignore_ascii_case(name))
    }

    /// The version of a revision.
    pub(crate) fn of_revision(&self, revision: VersionId) -> Option<&StoredVersion> {
        self.versions.iter().find(|version| version.revision == revision)
    }

    pub(crate) fn numbered(&self, number: u64) -> Option<&StoredVersion> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// Whether an alias points at a revision, or callers asked for it by itself.
    pub(crate) fn names(&self, revision: VersionId) -> bool {
        self.called.contains(&revision)
            || self.aliases.iter().any(|alias| alias.targets.iter().any(|target| target.revision == Some(revision)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.aliases.is_empty() && self.versions.is_empty() && self.traffic.is_empty() && self.called.is_empty()
    }

    /// By what callers without a qualifier stay on their version: as the one alias says that gets them all.
    pub(crate) fn sticky_traffic(&self) -> Option<&Sticky> {
        match self.traffic.as_slice() {
            [TrafficShare { to: QualifierName::Alias(name), .. }] => self.alias(name.as_str())?.sticky.as_ref(),
            _ => None,
        }
    }

    /// Where the function's traffic goes in the end: what an alias of it gets is split by that alias.
    pub(crate) fn traffic_targets(&self) -> Vec<AliasTarget> {
        let mut targets: Vec<AliasTarget> = Vec::new();
        let mut add = |revision, millionths: u64| {
            let millionths = u32::try_from(millionths).unwrap_or(WHOLE);
            match targets.iter_mut().find(|target| target.revision == revision) {
                Some(target) => target.millionths += millionths,
                None => targets.push(AliasTarget { revision, millionths }),
            }
        };
        for share in &self.traffic {
            match &share.to {
                QualifierName::Alias(name) => {
                    let of: &[AliasTarget] = self.alias(name.as_str()).map_or(&[], |alias| &alias.targets);
                    let weights: Vec<u32> = of.iter().map(|target| target.millionths).collect();
                    let parts = kip_fleet::alias::split(share.millionths, &weights);
                    of.iter().zip(parts).for_each(|(target, part)| add(target.revision, part.into()));
                    // An alias that is gone: the version that serves takes its part.
                    if of.is_empty() {
                        add(None, share.millionths.into());
                    }
                }
                QualifierName::Number(number) => {
                    add(self.numbered(*number).map(|version| version.revision), share.millionths.into());
                }
                QualifierName::Revision(revision) => add(Some(*revision), share.millionths.into()),
                QualifierName::Latest | QualifierName::Ordinal(_) => add(None, share.millionths.into()),
            }
        }
        targets
    }
}

/// What a request's qualifier means.
pub(crate) enum Resolution<'a> {
    /// This, the qualifier in the spelling of its function, and by what callers stay on their version.
    Known(Qualifier, Option<QualifierName>, Option<&'a Sticky>),
    /// The store has to be asked.
    Unloaded,
    /// Nothing of the function is called so.
    Unknown,
}

/// An alias in its function's core.
pub(crate) fn number_of(alias: &StoredAlias) -> AliasNumber {
    AliasNumber(u32::try_from(alias.id).unwrap_or(u32::MAX))
}

/// Millionths as a percentage without needless zeros.
pub(crate) fn percent(millionths: u64) -> String {
    let (whole, part) = (millionths / 10_000, millionths % 10_000);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{part:04}").trim_end_matches('0').to_owned()
}

/// The reason of a change: the caller's note, or who made it.
pub(crate) fn noted(note: &str, by: &str) -> String {
    match (note, by) {
        ("", "") => "set by the server".to_owned(),
        ("", by) => format!("set with the key {by}"),
        (note, _) => note.to_owned(),
    }
}
