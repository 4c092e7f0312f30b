//! Declarations as people write them, into validated [`FunctionSpec`]s and back out.
//!
//! Reads `kip.yaml` and answers with every problem it finds, each with its line and column. It looks at the disk only
//! to see whether declared directories and models exist; it knows nothing of servers, instances or requests.

mod data;
mod deployer;
mod document;
mod env_file;
mod environment;
mod function;
mod image;
mod job;
mod keys;
pub mod knative;
mod limits;
mod names;
mod probes;
mod program;
pub mod provision;
pub mod report;
mod rollout;
mod scaling;
mod schema;
mod section;
mod sleep;
mod source;
mod syntax;
mod traffic;
pub mod tree;
mod value;
mod wire;
mod wire_image;
mod wire_job;
mod wire_probes;
mod wire_sleep;
mod wire_text;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use kip_spec::function::FunctionSpec;
use kip_spec::{FunctionName, Problem};

use report::Report;

pub use deployer::{Deployer, Needs, needs};
pub use rollout::Rollout;
pub use schema::schema;
pub use traffic::Traffic;
pub use write::write;

/// Bytes of the largest manifest that is read.
pub const LARGEST: usize = 1 << 20;
/// Functions in one manifest.
pub const MOST_FUNCTIONS: usize = 10_000;

/// A manifest as it was found.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file as the user named it; problems name it so.
    pub file: &'a str,
    /// Its whole text.
    pub text: &'a str,
    /// Absolute: relative directories and models are looked for from here.
    pub directory: &'a Path,
    /// What it may take from its deployer.
    pub deployer: Deployer<'a>,
}

/// What a manifest declares.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// In the order of the file, jobs after the others; names differ, in more than upper and lower case.
    pub functions: Vec<FunctionSpec>,
    /// Where requests without a qualifier go, of functions where that is not the version that serves alone.
    pub traffic: BTreeMap<FunctionName, Traffic>,
    /// Of functions whose deployments begin a rollout.
    pub rollouts: BTreeMap<FunctionName, Rollout>,
    /// What is allowed but hardly meant.
    pub warnings: Vec<Problem>,
}

/// What a document declares.
#[derive(Debug, Default)]
pub(crate) struct ManifestContent {
    /// In the order of the file, jobs after the others.
    pub(crate) functions: Vec<FunctionSpec>,
    /// The traffic of functions that have their own.
    pub(crate) traffic: BTreeMap<FunctionName, Traffic>,
    /// The rollouts of functions that have one.
    pub(crate) rollouts: BTreeMap<FunctionName, Rollout>,
}

/// Reads a `kip.yaml`. An error is every problem found, in the order of the file; there is at least one.
pub fn read(source: &Source<'_>) -> Result<Manifest, Vec<Problem>> {
    if source.text.len() > LARGEST {
        return Err(vec![syntax::too_large(source.text.len())]);
    }
    // The parser skips a byte order mark and counts places from behind it.
    let text = source.text.trim_start_matches('\u{feff}');
    let mut report = Report::new(source.file, text);
    let declared = match parse(text, &mut report) {
        Some(root) => document::read(&root, source, &mut report),
        None => ManifestContent::default(),
    };
    report.finish(declared)
}

/// The variables of a file of `NAME=VALUE` lines, in its order.
///
/// # Errors
/// The line, from 1, and what is wrong with it, without a word of its values.
pub fn env_file(text: &str) -> Result<Vec<(String, String)>, (usize, &'static str)> {
    env_file::parse(text).map_err(|fault| (fault.line, fault.what))
}

/// A document as a tree; the report has the reason where there is none.
pub fn parse(text: &str, report: &mut Report<'_>) -> Option<tree::Node> {
    let parsed = tree::parse(text).map_err(|error| syntax::explain(&error, |at| report.line(at)));
    parsed.map_err(|(at, problem)| report.add(at, problem)).ok()
}
