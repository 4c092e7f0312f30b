//! Which tests run together, and how long each may take.

use std::path::{Path, PathBuf};

/// Tests that are run one after the other and timed together.
#[derive(Debug)]
pub(crate) struct Suite {
    /// What `cargo xtask test NAME` calls it.
    pub(crate) name: &'static str,
    /// Folders of the packages whose tests it has; none is every package that no other suite has.
    pub(crate) folders: &'static [&'static str],
    /// Minutes that it should take at most on two cores, building left out. Twice as many fail.
    pub(crate) cap: u64,
    /// Tests at once, where they wait more than they compute.
    pub(crate) threads: Option<usize>,
    /// Only the tests of this module; other suites with the package leave them out.
    pub(crate) module: Option<&'static str>,
    /// Whether its tests need container engines.
    pub(crate) engines: bool,
}

/// In the order in which they run. CONTRIBUTING.md has the caps of suites to come.
pub(crate) const SUITES: [Suite; 6] = [
    Suite { name: "rooms", folders: &[], cap: 2, threads: None, module: None, engines: false },
    Suite {
        name: "brain",
        folders: &["crates/fleet", "crates/sim", "crates/queue"],
        cap: 3,
        threads: None,
        module: None,
        engines: false,
    },
    Suite { name: "models", folders: &["crates/infer"], cap: 2, threads: None, module: None, engines: false },
    Suite {
        name: "freezer",
        folders: &["crates/freezer", "crates/cuda-standin"],
        cap: 2,
        threads: Some(4),
        module: None,
        engines: false,
    },
    Suite { name: "server", folders: &["crates/kip"], cap: 8, threads: Some(4), module: None, engines: false },
    Suite {
        name: "containers",
        folders: &["crates/kip"],
        cap: 12,
        threads: Some(4),
        module: Some("containers::"),
        engines: true,
    },
];

/// A test program that cargo has built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program {
    /// The package's folder, from the root of the workspace.
    pub(crate) folder: PathBuf,
    /// The program.
    pub(crate) file: PathBuf,
}

impl Suite {
    /// Whether a package's tests are in this suite.
    pub(crate) fn has(&self, folder: &Path) -> bool {
        let named = |suite: &Self| suite.folders.iter().any(|known| Path::new(known) == folder);
        if self.folders.is_empty() { !SUITES.iter().any(named) } else { named(self) }
    }
}

impl Suite {
    /// What the harness is told to run and to leave out.
    pub(crate) fn filters(&self) -> Vec<String> {
        match self.module {
            Some(module) => vec![module.to_owned()],
            None => {
                let others = SUITES.iter().filter(|other| other.folders == self.folders);
                others
                    .filter_map(|other| other.module)
                    .flat_map(|module| ["--skip".to_owned(), module.to_owned()])
                    .collect()
            }
        }
    }
}

/// The test programs that cargo's messages name.
pub(crate) fn programs(messages: &str, root: &Path) -> Vec<Program> {
    let program = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?.strip_prefix(root).ok()?.to_owned();
        Some(Program { folder, file: message["executable"].as_str()?.into() })
    };
    let mut all: Vec<Program> = messages.lines().filter_map(program).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_is_in_one_suite() {
        let suites = |folder: &str| {
            let has = SUITES.iter().filter(|suite| suite.has(Path::new(folder)));
            has.map(|suite| suite.name).collect::<Vec<_>>()
        };
        assert_eq!(suites("crates/kip"), ["server", "containers"]);
        let filters = |name: &str| SUITES.iter().find(|suite| suite.name == name).unwrap().filters();
        assert_eq!(
            (filters("server"), filters("containers")),
            (vec!["--skip".to_owned(), "containers::".to_owned()], vec!["containers::".to_owned()])
        );
        assert_eq!(suites("crates/store"), ["rooms"]);
        assert_eq!(suites("xtask"), ["rooms"]);
    }

    #[test]
    fn programs_are_found_among_messages() {
        let text = r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/a/Cargo.toml","profile":{"test":true},"executable":"/w/t/a-1"}
{"reason":"compiler-artifact","manifest_path":"/w/crates/a/Cargo.toml","profile":{"test":false},"executable":"/w/t/a"}
{"reason":"compiler-artifact","manifest_path":"/elsewhere/b/Cargo.toml","profile":{"test":true},"executable":"/w/t/b-1"}
not JSON"#;
        let found = programs(text, Path::new("/w"));
        assert_eq!(found, [Program { folder: "crates/a".into(), file: "/w/t/a-1".into() }]);
    }
}
