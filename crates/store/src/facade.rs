//! What facades keep of functions beside their declaration: words that the declaration does not have, triggers, and settings by qualifier.

use kip_spec::FunctionName;

use crate::ids::Seq;

/// What a facade keeps of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionExtra {
    /// An object of JSON, by the name of the facade.
    pub text: String,
    /// The digest of the code archive that the revision runs, if it runs one.
    pub code: Option<String>,
}

/// A trigger as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTrigger {
    /// Its number, never given again; the store sets it.
    pub id: u64,
    /// Its function.
    pub function: FunctionName,
    /// Its name.
    pub name: String,
    /// Its type, as its facade names it.
    pub kind: String,
    /// The qualifier that it calls.
    pub qualifier: String,
    /// Its settings, JSON of its facade.
    pub config: String,
    /// When it was made, milliseconds since 1970.
    pub created: i64,
    /// When it was changed last, milliseconds since 1970.
    pub changed: i64,
    /// The commit that changed it last. The store sets it.
    pub rev: Seq,
}

/// A resource of a facade that belongs to no function, such as a layer or a custom domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResource {
    /// Its kind.
    pub kind: String,
    /// Its name, of which there is one of each kind.
    pub name: String,
    /// Its content, JSON of its facade.
    pub config: String,
    /// The digest of the archive that it keeps, if it keeps one.
    pub code: Option<String>,
    /// The commit that changed it last. The store sets it.
    pub rev: Seq,
}

/// A setting of a function as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSetting {
    /// The function.
    pub function: FunctionName,
    /// The qualifier that it is for; empty for the function itself.
    pub qualifier: String,
    /// Its kind.
    pub kind: String,
    /// Its content, JSON of its facade.
    pub config: String,
    /// The commit that changed it last. The store sets it.
    pub rev: Seq,
}

/// A change of a setting that belongs to another change and is stored in the same commit.
#[derive(Debug, Clone)]
pub enum SettingChange {
    /// Stores it.
    Put(StoredSetting),
    /// Removes it.
    Remove {
        /// The function.
        function: FunctionName,
        /// The qualifier that it is for; empty for the function itself.
        qualifier: String,
        /// Its kind.
        kind: String,
    },
}
