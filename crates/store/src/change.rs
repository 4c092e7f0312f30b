//! The changes of control objects as values, and the traits of the store that keeps them.
//!
//! Each commit has a number, [`Seq`]. Memory applies the commits in the order of these numbers, and so will a replica. The
//! revision of an object is the number of the commit that changed it last; whoever changes an object can say which
//! revision it read, and the store compares inside the transaction.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use kip_spec::function::FunctionSpec;
use kip_spec::scaling::Fc;
use kip_spec::sticky::Sticky;
use kip_spec::{AliasName, FunctionName, VersionId};

use crate::database::Error;
use crate::facade::{RevisionExtra, SettingChange, StoredResource, StoredSetting, StoredTrigger};
use crate::health::Condition;
use crate::ids::{FunctionId, Object, Seq};
use crate::keys::{AuditFilter, AuditRecord, StoredKey};
use crate::secrets::StoredSecret;
use crate::version::{AliasTarget, StoredAlias, StoredTraffic, StoredVersion, TrafficShare};
use crate::{Identity, VersionSource};

/// An immutable revision of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRevision {
    /// Its number, unique over all functions. Instances, journals and records hold it.
    pub id: VersionId,
    /// Its function.
    pub function: FunctionId,
    /// Counts the revisions of the function, from 1.
    pub ordinal: u64,
    /// The declaration.
    pub spec: FunctionSpec,
}

/// A condition of a commit: the object still has this revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch {
    /// The object.
    pub object: Object,
    /// The revision that the caller read.
    pub rev: Seq,
}

/// A change of control objects.
#[derive(Debug, Clone)]
pub enum Change {
    /// Makes a revision of each function, all or none; each is what its function is to serve. Functions are made as needed.
    Deploy {
        /// The declarations.
        specs: Vec<FunctionSpec>,
        /// The document they were read from.
        document: String,
        /// In whose words it is written.
        facade: &'static str,
        /// The traffic of these functions; of others the version that serves gets all of it.
        traffic: BTreeMap<FunctionName, Vec<TrafficShare>>,
        /// The revisions do not serve and change no traffic; the functions must exist.
        held: bool,
        /// Revisions that must not be collected: instances of them live.
        keep: Vec<VersionId>,
        /// What a facade keeps of these revisions; others take over what the revision before them has.
        extra: BTreeMap<FunctionName, RevisionExtra>,
    },
    /// A revision serves from now on. Nothing, if it was removed meanwhile.
    Serve {
        /// Its function.
        function: FunctionName,
        /// The revision.
        revision: VersionId,
    },
    /// Removes a function with its revisions and settings.
    RemoveFunction(FunctionName),
    /// Sets how many instances are provisioned for a qualifier. Nothing, if there is no such function.
    PutProvision {
        /// The function.
        function: FunctionName,
        /// The qualifier.
        qualifier: String,
        /// The policies.
        settings: Box<Fc>,
    },
    /// Removes that again.
    RemoveProvision {
        /// The function.
        function: FunctionName,
        /// The qualifier.
        qualifier: String,
    },
    /// The revision that served before is what the function is to serve. Nothing, if none is known.
    Rollback(FunctionName),
    /// Gives a revision the next number of its function. Nothing, if it has one or does not exist.
    PublishVersion {
        /// The function.
        function: FunctionName,
        /// The revision.
        revision: VersionId,
        /// The publisher's note.
        description: String,
    },
    /// Removes the number of a version; its revision stays until it is collected.
    RemoveVersion {
        /// The function.
        function: FunctionName,
        /// The number.
        number: u64,
    },
    /// Makes an alias, or changes where it points. Nothing, if there is no such function.
    PutAlias {
        /// The function.
        function: FunctionName,
        /// Its name.
        name: AliasName,
        /// Where it points.
        targets: Vec<AliasTarget>,
        /// The note of the caller.
        description: String,
        /// By what its callers stay on their version.
        sticky: Option<Sticky>,
        /// Its rollout, stored in the same commit.
        rollout: Option<Box<StoredSetting>>,
    },
    /// Removes an alias, and its rollout.
    RemoveAlias {
        /// The function.
        function: FunctionName,
        /// Its name.
        name: AliasName,
    },
    /// Stores a key: a new one if its number is 0. When it was last used stays as it is.
    PutKey(Box<StoredKey>),
    /// Removes a key, by its number.
    RemoveKey(u64),
    /// Stores a secret in the place of what has its name. Its revision and its time are set by the store.
    PutSecret(StoredSecret),
    /// Removes a secret.
    RemoveSecret(String),
    /// Stores a resource that belongs to no function.
    PutResource(Box<StoredResource>),
    /// Removes one.
    RemoveResource {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Stores a trigger in the place of what has its name. Nothing, if there is no such function.
    PutTrigger(Box<StoredTrigger>),
    /// Removes a trigger.
    RemoveTrigger {
        /// The function.
        function: FunctionName,
        /// Its name.
        name: String,
    },
    /// Stores a setting of a function. Nothing, if there is no such function.
    PutSetting(Box<StoredSetting>),
    /// Removes a setting.
    RemoveSetting {
        /// The function.
        function: FunctionName,
        /// The qualifier that it is for; empty for the function itself.
        qualifier: String,
        /// Its kind.
        kind: String,
    },
    /// A change with settings that belong to it: all of it or nothing. Its effect is that of the change.
    Together {
        /// The change.
        main: Box<Change>,
        /// The settings, stored after it: a function that it makes has them.
        settings: Vec<SettingChange>,
    },
}

impl Change {
    /// The change with settings that belong to it.
    #[must_use]
    pub fn together(self, settings: Vec<SettingChange>) -> Self {
        if settings.is_empty() { self } else { Self::Together { main: Box::new(self), settings } }
    }

    /// Its name in the table of changes. The names are part of the file's format.
    pub fn op(&self) -> &'static str {
        match self {
            Self::Deploy { .. } => "deploy",
            Self::Together { main, .. } => main.op(),
            Self::Serve { .. } => "serve",
            Self::RemoveFunction(_) => "function.remove",
            Self::PutProvision { .. } => "provision.put",
            Self::RemoveProvision { .. } => "provision.remove",
            Self::Rollback(_) => "function.rollback",
            Self::PublishVersion { .. } => "version.publish",
            Self::RemoveVersion { .. } => "version.remove",
            Self::PutAlias { .. } => "alias.put",
            Self::RemoveAlias { .. } => "alias.remove",
            Self::PutKey(_) => "key.put",
            Self::RemoveKey(_) => "key.remove",
            Self::PutSecret(_) => "secret.put",
            Self::RemoveSecret(_) => "secret.remove",
            Self::PutTrigger(_) => "trigger.put",
            Self::RemoveTrigger { .. } => "trigger.remove",
            Self::PutSetting(_) => "setting.put",
            Self::RemoveSetting { .. } => "setting.remove",
            Self::PutResource(_) => "resource.put",
            Self::RemoveResource { .. } => "resource.remove",
        }
    }
}

/// A change as it is asked for.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The name of the key that asks; empty for the server itself.
    pub by: String,
    /// The change.
    pub change: Change,
    /// All of these must hold.
    pub if_match: Vec<IfMatch>,
}

impl Proposal {
    /// A change that the server makes by itself.
    pub fn own(change: Change) -> Self {
        Self { by: String::new(), change, if_match: Vec::new() }
    }
}

/// The caller of a change: the name of its key, and the revision of the object that it read, if it says so.
#[derive(Debug, Clone, Default)]
pub struct Author {
    /// The name of the key; empty for the server itself.
    pub by: String,
    /// The change is refused if the object's revision is another one.
    pub if_match: Option<Seq>,
}

impl Author {
    /// This caller's change of an object.
    pub fn proposal(&self, object: Object, change: Change) -> Proposal {
        let if_match = self.if_match.map(|rev| IfMatch { object, rev });
        Proposal { by: self.by.clone(), change, if_match: if_match.into_iter().collect() }
    }
}

/// A change that is on the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedChange {
    /// The commit's number; of the last commit, if nothing was changed.
    pub seq: Seq,
    /// The effect.
    pub effect: Effect,
}

/// The effect of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// There was nothing to change, and there is no commit.
    Nothing,
    /// It is as the change says.
    Done,
    /// The new revisions, in the order of their declarations.
    Deployed(Vec<StoredRevision>),
    /// The version that was published.
    Published(StoredVersion),
    /// The alias as it is now.
    Alias(StoredAlias),
    /// The number of the key that was stored.
    Key(u64),
    /// Everything was replaced; the revision that each function serves now.
    Replaced(Vec<StoredRevision>),
}

/// Provisioned instances as stored: function, qualifier, policies.
pub type StoredProvision = (FunctionName, String, Fc);

/// Something in the store that this version cannot read. It stays there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRow {
    /// The object, as in the table of changes.
    pub object: String,
    /// Why it cannot be read.
    pub detail: String,
}

/// Questions about control objects.
#[async_trait]
pub trait ControlReader: Send + Sync + fmt::Debug {
    /// The revision that each function serves, or the one that it is to serve if none has served yet; by name.
    async fn current_revisions(&self) -> Result<Vec<StoredRevision>, Error>;
    /// A revision by its number, whether it serves or not; none that was removed or collected.
    async fn revision(&self, revision: VersionId) -> Result<Option<StoredRevision>, Error>;
    /// A revision of a function by its ordinal.
    async fn revision_at(&self, function: FunctionName, ordinal: u64) -> Result<Option<StoredRevision>, Error>;
    /// All published versions, by function and number.
    async fn versions(&self) -> Result<Vec<StoredVersion>, Error>;
    /// All aliases, by function and name, and the rows that cannot be read.
    async fn aliases(&self) -> Result<(Vec<StoredAlias>, Vec<UnreadableRow>), Error>;
    /// The traffic of each function that has one of its own, and the rows that cannot be read.
    async fn traffic(&self) -> Result<(Vec<StoredTraffic>, Vec<UnreadableRow>), Error>;
    /// The revisions of a function with their documents, oldest first.
    async fn revisions(&self, function: FunctionName) -> Result<Vec<VersionSource>, Error>;
    /// The revision of an object; 0 if it does not exist.
    async fn rev(&self, object: Object) -> Result<Seq, Error>;
    /// The provisioned instances, and the rows that cannot be read.
    async fn provisions(&self) -> Result<(Vec<StoredProvision>, Vec<UnreadableRow>), Error>;
    /// All secrets as they are sealed, by name.
    async fn secrets(&self) -> Result<Vec<StoredSecret>, Error>;
    /// The triggers of a function, by name; without one, of all functions.
    async fn triggers(&self, function: Option<FunctionName>) -> Result<Vec<StoredTrigger>, Error>;
    /// The settings of a kind, by function and qualifier; without a function, of all functions.
    async fn settings(&self, kind: &'static str, function: Option<FunctionName>) -> Result<Vec<StoredSetting>, Error>;
    /// The resources of a kind, by name.
    async fn resources(&self, kind: &'static str) -> Result<Vec<StoredResource>, Error>;
    /// What a facade keeps of a revision; none if nothing is kept, or there is no such revision.
    async fn extra(&self, revision: VersionId) -> Result<Option<RevisionExtra>, Error>;
    /// The code that revisions use, by its digest.
    async fn codes(&self) -> Result<Vec<String>, Error>;
    /// The ids of the images that revisions use.
    async fn images(&self) -> Result<Vec<String>, Error>;
    /// The revisions whose declarations contain one of these texts as they are written in JSON, with their functions.
    async fn revisions_with(&self, texts: Vec<String>) -> Result<Vec<FunctionSpec>, Error>;
    /// All keys, by name.
    async fn keys(&self) -> Result<Vec<StoredKey>, Error>;
    /// The audit records that fit, newest first.
    async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRecord>, Error>;
    /// The server that this store belongs to; none before the first start.
    async fn identity(&self) -> Result<Option<Identity>, Error>;
    /// Whether changes are taken.
    fn condition(&self) -> Condition;
}

/// Control objects. Every method that returns `Ok` after a change has it on the disk.
#[async_trait]
pub trait ControlStore: ControlReader {
    /// Counts a start of the server.
    async fn begin_boot(&self) -> Result<Identity, Error>;
    /// Makes a change, all of it or nothing, unless one of its conditions does not hold: [`Error::Stale`].
    async fn commit(&self, proposal: Proposal) -> Result<CommittedChange, Error>;
    /// Notes when keys were last used: numbers and milliseconds since 1970.
    async fn keys_used(&self, uses: Vec<(u64, i64)>) -> Result<(), Error>;
    /// Begins an audit record and gives its number. The oldest records are deleted.
    async fn audit_begin(&self, record: AuditRecord) -> Result<i64, Error>;
    /// Ends an audit record: what was changed, and the result.
    async fn audit_end(&self, record: i64, object: String, result: String) -> Result<(), Error>;
}
