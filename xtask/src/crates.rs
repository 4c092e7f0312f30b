//! Crates that must not come in, and how many the server is built from. `deny.toml` says the same to cargo-deny.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::command::root;
use crate::tree;

/// The default build of the server, default features included, has at most this many crates.
const MOST: usize = 340;

/// Crates that no build of ours contains.
pub(crate) const BANNED: [(&str, &str); 6] = [
    ("openssl-sys", "a C library of the host: builds would depend on it, and one TLS implementation is enough"),
    ("aws-lc-sys", "needs cmake and minutes of C; ring is the one provider until a decision record changes it"),
    ("native-tls", "another TLS implementation on each system; rustls with ring is ours"),
    ("serde_yaml", "deprecated by its author; serde-saphyr reads YAML with limits and places"),
    ("serde_yml", "archived, and RUSTSEC-2025-0068; serde-saphyr reads YAML"),
    ("serde_yaml_ng", "keeps the machine-translated C parser; serde-saphyr reads YAML"),
];

/// Crates that do not come into some of ours.
const BANNED_IN: [(&str, &[&str], &str); 1] =
    [("chrono", &["kip-spec", "kip-fleet"], "cores get time as an argument; calendars are done with jiff")];

/// Libraries that could end TLS; a build has one at most.
const TLS: [&str; 6] = ["ring", "aws-lc-rs", "openssl", "boring", "rustls-openssl", "schannel"];

/// The only place crates come from. It is the name that lock files give crates.io.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn run() -> Result<()> {
    let metadata = tree::metadata(&["--no-deps"])?;
    let all = tree::crates(&["--workspace", "--all-features", "--edges", "normal,build,dev"])?;
    let mut faults = banned(&all);
    for (name, packages, reason) in BANNED_IN {
        for package in packages.iter().filter(|package| tree::has_package(&metadata, package)) {
            let below = tree::crates(&["--package", package, "--edges", "normal,build,dev"])?;
            if below.iter().any(|(other, _)| other == name) {
                faults.push(format!("{name} in {package}: {reason}"));
            }
        }
    }
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).context("Cargo.lock cannot be read")?;
    faults.extend(foreign_sources(&lock));
    if tree::has_package(&metadata, "kip") {
        let server = tree::crates(&["--package", "kip", "--edges", "normal,build"])?;
        faults.extend(second_tls(&server));
        println!("crates: the server is built from {}; at most {MOST} are allowed", server.len());
        if server.len() > MOST {
            faults.push(format!("the server is built from {} crates: put heavy ones behind a feature", server.len()));
        }
    } else {
        println!("crates: there is no package `kip` yet, so nothing is counted");
    }
    if !faults.is_empty() {
        bail!("crates that must not come in:\n  {}", faults.join("\n  "));
    }
    println!("crates: {} in the whole workspace, none banned", all.len());
    Ok(())
}

fn banned(crates: &BTreeSet<(String, String)>) -> Vec<String> {
    let found = BANNED.iter().filter(|(name, _)| crates.iter().any(|(other, _)| other == name));
    found.map(|(name, reason)| format!("{name}: {reason}")).collect()
}

fn second_tls(crates: &BTreeSet<(String, String)>) -> Option<String> {
    let found: Vec<&str> = TLS.into_iter().filter(|name| crates.iter().any(|(other, _)| other == name)).collect();
    (found.len() > 1).then(|| format!("{}: one TLS provider is enough", found.join(" and ")))
}

/// Sources of a lock file other than crates.io.
fn foreign_sources(lock: &str) -> Vec<String> {
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = \"")?.strip_suffix('"'));
    let foreign: BTreeSet<&str> = sources.filter(|source| *source != REGISTRY).collect();
    foreign
        .into_iter()
        .map(|source| format!("{source}: crates come from crates.io only, in released versions"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), "v1.0.0".to_owned())).collect()
    }

    #[test]
    fn banned_crates_are_caught_with_their_reason() {
        assert_eq!(banned(&set(&["serde", "ring", "serde_norway"])), Vec::<String>::new());
        let faults = banned(&set(&["serde", "serde_yml"]));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("serde_yml: archived"), "{faults:?}");
    }

    #[test]
    fn a_second_tls_provider_is_caught() {
        assert_eq!(second_tls(&set(&["ring", "rustls"])), None);
        assert!(second_tls(&set(&["ring", "aws-lc-rs"])).is_some());
    }

    #[test]
    fn sources_other_than_the_registry_are_caught() {
        let lock =
            format!("name = \"a\"\nsource = \"{REGISTRY}\"\nname = \"b\"\nsource = \"git+https://example.org/b#1\"\n");
        assert_eq!(foreign_sources(&lock).len(), 1);
    }

    /// cargo-deny is not needed to build; this keeps its file from saying something else.
    #[test]
    fn deny_toml_bans_the_same_crates() {
        let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
        for (name, _) in BANNED {
            assert!(text.contains(&format!("crate = \"{name}\"")), "deny.toml does not ban {name}");
        }
        assert_eq!(text.matches("crate = \"").count(), BANNED.len(), "deny.toml bans more");
    }
}
