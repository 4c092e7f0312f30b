//! What a manifest takes from whoever deploys it: variables of its environment, and files of variables. The client sends exactly what
//! the manifest names; nothing of the server's own environment gets in here.

use std::collections::{BTreeMap, BTreeSet};

use kip_spec::reference;

use crate::tree::{self, Kind, Node};

/// What the client sent along with a manifest.
#[derive(Debug, Clone, Copy)]
pub struct Deployer<'a> {
    /// Variables of its environment, by name.
    pub variables: &'a BTreeMap<String, String>,
    /// Texts of the files under `env_file`, by the path that the manifest gives.
    pub env_files: &'a BTreeMap<String, String>,
}

/// What a manifest needs of its deployer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Names of variables in `${NAME}`.
    pub variables: BTreeSet<String>,
    /// Paths under `env_file`.
    pub env_files: BTreeSet<String>,
}

/// What a manifest needs of its deployer. Of a text that is no manifest, nothing: reading it says what is wrong.
pub fn needs(text: &str) -> Needs {
    let mut needs = Needs::default();
    let Ok(root) = tree::parse(text.trim_start_matches('\u{feff}')) else { return needs };
    for section in ["functions", "jobs"] {
        for (_, declared) in value(&root, section).map(pairs).unwrap_or_default() {
            add(declared, &mut needs);
        }
    }
    value(&root, "defaults").into_iter().for_each(|defaults| add(defaults, &mut needs));
    needs
}

fn add(declared: &Node, needs: &mut Needs) {
    for (_, given) in value(declared, "env").map(pairs).unwrap_or_default() {
        let names = reference::names(given.scalar().unwrap_or_default());
        needs.variables.extend(names.filter(|name| !is_set_at_start(name)).map(str::to_owned));
    }
    let Some(files) = value(declared, "env_file") else { return };
    match &files.kind {
        Kind::List(items) => needs.env_files.extend(items.iter().filter_map(Node::scalar).map(str::to_owned)),
        _ => needs.env_files.extend(files.scalar().map(str::to_owned)),
    }
}

fn pairs(node: &Node) -> &[(Node, Node)] {
    match &node.kind {
        Kind::Map(pairs) => pairs,
        _ => &[],
    }
}

fn value<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    pairs(node).iter().find(|(name, _)| name.scalar() == Some(key)).map(|(_, value)| value)
}

/// Set for every instance; a declared one would be overwritten in silence.
pub(crate) const OURS: [&str; 3] = ["PORT", "FC_SERVER_PORT", "FC_CUSTOM_LISTEN_PORT"];

/// Whether Kipwake sets a variable when an instance starts, so that a reference to it is resolved then.
pub(crate) fn is_set_at_start(name: &str) -> bool {
    OURS.contains(&name) || ["PORT_", "FC_", "KIPWAKE_"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_what_is_named_is_needed() {
        let text = "api: kip/v1\ndefaults: {env: {A: '${D}'}, env_file: all.env}\nfunctions:\n  f:\n    run: x ${OTHER}\n    env: {B: 'a${E}b${F:-x}', \
                    C: '$${G} ${PORT}'}\n    env_file: [one.env, two.env]\njobs:\n  j: {run: y, env: {H: '${I}'}}\n";
        let needs = needs(text);
        assert_eq!(needs.variables.iter().map(String::as_str).collect::<Vec<_>>(), ["D", "E", "F", "I"]);
        assert_eq!(needs.env_files.iter().map(String::as_str).collect::<Vec<_>>(), ["all.env", "one.env", "two.env"]);
        assert_eq!(super::needs("a: [").variables.len(), 0);
        assert_eq!(super::needs("functions: 5").env_files.len(), 0);
    }
}
