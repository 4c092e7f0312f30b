//! A file and what it may take from its surroundings.

use std::collections::BTreeMap;
use std::path::Path;

use crate::RuntimeMap;

/// A file as it was found.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file as the user named it; problems name it so.
    pub file: &'a str,
    /// Its whole text.
    pub text: &'a str,
    /// Absolute: relative paths are looked for from here.
    pub directory: &'a Path,
    /// Variables of the environment, for `${env(X)}`.
    pub variables: &'a BTreeMap<String, String>,
    /// Host and port where functions are called, for `${resources.x.output.url}`.
    pub gateway: &'a str,
    /// The runtimes that take the place of others.
    pub runtimes: &'a RuntimeMap,
}
