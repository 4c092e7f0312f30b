//! What cargo knows of the workspace and of the crates it is built from.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::{command, read};

/// `cargo metadata`.
pub(crate) fn metadata(arguments: &[&str]) -> Result<Value> {
    let text = read(command("cargo", &[&["metadata", "--format-version", "1"], arguments].concat()))?;
    serde_json::from_str(&text).context("cargo metadata did not answer with JSON")
}

/// Whether the workspace has this package.
pub(crate) fn has_package(metadata: &Value, name: &str) -> bool {
    metadata["packages"].as_array().into_iter().flatten().any(|package| package["name"] == name)
}

/// The crates that `cargo tree` prints, as (name, version).
pub(crate) fn crates(arguments: &[&str]) -> Result<BTreeSet<(String, String)>> {
    let text = read(command("cargo", &[&["tree", "--prefix", "none", "--format", "{p}"], arguments].concat()))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> BTreeSet<(String, String)> {
    let words = text.lines().map(str::split_whitespace);
    words.filter_map(|mut words| Some((words.next()?.to_owned(), words.next()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_counts_once_for_each_version() {
        let text = "kip v0.1.0 (/somewhere/kip)\nserde v1.0.1\nserde_derive v1.0.1 (proc-macro)\nserde v1.0.1 (*)\n\nserde v0.9.0\n";
        let names: Vec<_> = parse(text).into_iter().map(|(name, version)| format!("{name} {version}")).collect();
        assert_eq!(names, ["kip v0.1.0", "serde v0.9.0", "serde v1.0.1", "serde_derive v1.0.1"]);
    }
}
