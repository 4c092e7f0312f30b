//! Each leaf key of a file with its effect, once.

use kip_manifest::tree::{Kind, Node, Position};

use crate::effects::{Effect, Row, find};
use crate::node::pairs;
use crate::project::KeyEffect;

/// How a part of a file is classified.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Classes {
    /// By a table.
    Table(&'static [Row]),
    /// All of it alike.
    All(Effect, &'static str),
}

/// The note of a key that no table has.
const UNKNOWN: &str = "no key of this component";

/// Gathers leaves: a leaf is a key with one value, or with a list of values.
#[derive(Debug, Default)]
pub(crate) struct KeyList {
    keys: Vec<KeyEffect>,
}

impl KeyList {
    pub(crate) fn into_keys(mut self) -> Vec<KeyEffect> {
        self.keys.sort_by_key(|key| (key.line, key.column));
        self.keys
    }

    /// Takes in the leaves at and below a value. `path` is its path in the file, `way` its way in the table.
    pub(crate) fn add(&mut self, at: Position, node: &Node, path: &str, way: &[&str], classes: Classes) {
        match &node.kind {
            Kind::Map(all) if !all.is_empty() => {
                for (key, value) in all {
                    let name = key.scalar().unwrap_or_default();
                    let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                    self.add(key.at, value, &path, &[way, &[name]].concat(), classes);
                }
            }
            Kind::List(items) if items.iter().any(|item| !pairs(item).is_empty()) => {
                for (number, item) in items.iter().enumerate() {
                    self.add(item.at, item, &format!("{path}[{number}]"), way, classes);
                }
            }
            _ => {
                let (effect, note) = match classes {
                    Classes::All(effect, note) => (effect, note),
                    Classes::Table(table) => {
                        find(table, way).map_or((Effect::WithoutEffect, UNKNOWN), |row| (row.1, row.2))
                    }
                };
                self.keys.push(KeyEffect { path: path.to_owned(), line: at.line, column: at.column, effect, note });
            }
        }
    }

    /// Takes in the leaves of a document but for those below `props` of its resources, which have tables of their own.
    pub(crate) fn add_document(&mut self, root: &Node, group: &str) {
        for (key, value) in pairs(root) {
            let name = key.scalar().unwrap_or_default();
            if name != group || pairs(value).is_empty() {
                self.add(key.at, value, name, &[name], Classes::Table(crate::effects::DOCUMENT));
                continue;
            }
            for (resource, body) in pairs(value) {
                let resource_name = resource.scalar().unwrap_or_default();
                let path = format!("{group}.{resource_name}");
                if pairs(body).is_empty() {
                    let classes = Classes::All(Effect::WithoutEffect, "");
                    self.add(resource.at, body, &path, &[], classes);
                }
                for (part, inner) in pairs(body).iter().filter(|(part, _)| part.scalar() != Some("props")) {
                    let part_name = part.scalar().unwrap_or_default();
                    let way = [group, resource_name, part_name];
                    let classes = Classes::Table(crate::effects::DOCUMENT);
                    self.add(part.at, inner, &format!("{path}.{part_name}"), &way, classes);
                }
            }
        }
    }
}
