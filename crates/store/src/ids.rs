//! What has a revision, and the numbers of commits and functions.

use std::fmt;

use kip_spec::{AliasName, FunctionName};
use serde::{Deserialize, Serialize};

/// The number of a commit. 0 is before the first commit: the revision of an object that does not exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a function. A name that is made again gets another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FunctionId(pub u64);

/// Something that has a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A function: its declaration. Which revision serves is its state and does not count.
    Function(FunctionName),
    /// The instances that are provisioned for a qualifier.
    Provision(FunctionName, String),
    /// An alias of a function.
    Alias(FunctionName, AliasName),
    /// A key, by its number.
    Key(u64),
    /// A secret, by its name.
    Secret(String),
    /// A trigger of a function.
    Trigger(FunctionName, String),
    /// A setting of a function for a qualifier, by its kind.
    Setting(FunctionName, String, String),
    /// A resource that belongs to no function, by its kind and its name.
    Resource(String, String),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(name) => write!(f, "function/{name}"),
            Self::Provision(name, qualifier) => write!(f, "provision/{name}/{qualifier}"),
            Self::Alias(function, name) => write!(f, "alias/{function}/{name}"),
            Self::Key(id) => write!(f, "key/{id}"),
            Self::Secret(name) => write!(f, "secret/{name}"),
            Self::Trigger(function, name) => write!(f, "trigger/{function}/{name}"),
            Self::Setting(function, qualifier, kind) => write!(f, "{kind}/{function}/{qualifier}"),
            Self::Resource(kind, name) => write!(f, "{kind}/{name}"),
        }
    }
}
