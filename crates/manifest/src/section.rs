//! One map of the manifest with the defaults below it: a key of the function wins, maps are merged key by key.
//!
//! Nothing is copied for the merge. A lookup asks the layers in order, so ten thousand functions over large defaults cost
//! no more memory than the text.

use std::collections::BTreeMap;

use kip_spec::{Problem, code};

use crate::keys::Keys;
use crate::report::{Report, shown};
use crate::tree::{Kind, Node, Position};

/// A map as it stands in the file.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub(crate) pairs: &'a [(Node, Node)],
    /// `defaults` or `functions.<name>`; empty at the top of the file.
    pub(crate) owner: &'a str,
}

/// The layers of one map, the winning one first.
pub(crate) struct Section<'a> {
    layers: Vec<Layer<'a>>,
    /// Keys that lead here from the owner.
    trail: Vec<&'static str>,
    /// Where its winning layer begins.
    pub(crate) at: Position,
    /// Whether this is `defaults` alone, in which functions may fill gaps.
    pub(crate) is_partial: bool,
}

/// A value under a key.
pub(crate) struct Field<'a> {
    pub(crate) key: &'a str,
    pub(crate) node: &'a Node,
    /// Where its key stands.
    pub(crate) key_at: Position,
    /// Dotted, from the top of the file.
    pub(crate) path: String,
}

impl<'a> Section<'a> {
    /// The top of the file.
    pub(crate) fn root(pairs: &'a [(Node, Node)], at: Position, keys: &'static Keys, report: &mut Report<'_>) -> Self {
        Self::open(vec![Layer { pairs, owner: "" }], at, keys, report)
    }

    /// Layers over which no key has been asked yet.
    pub(crate) fn open(layers: Vec<Layer<'a>>, at: Position, keys: &'static Keys, report: &mut Report<'_>) -> Self {
        let section = Self { layers, trail: Vec::new(), at, is_partial: false };
        section.check_keys(keys, report);
        section
    }

    /// The defaults before they are merged into any function.
    pub(crate) fn partial(layer: Layer<'a>, at: Position, keys: &'static Keys, report: &mut Report<'_>) -> Self {
        Self { is_partial: true, ..Self::open(vec![layer], at, keys, report) }
    }

    /// A node that must be a map.
    pub(crate) fn layer(node: &'a Node, owner: &'a str, report: &mut Report<'_>) -> Option<Layer<'a>> {
        if let Kind::Map(pairs) = &node.kind {
            return Some(Layer { pairs, owner });
        }
        report.add(node.at, not_a_map(owner, node));
        None
    }

    /// The value of a key.
    pub(crate) fn field(&self, key: &'static str) -> Option<Field<'a>> {
        self.fields(key).next()
    }

    /// The map under a key, merged over the layers that have it. A layer whose value is not a map ends the merge; if it is
    /// the winning one, that is a problem.
    pub(crate) fn section(&self, key: &'static str, keys: &'static Keys, report: &mut Report<'_>) -> Option<Self> {
        let section = self.maps(key, report)?;
        section.check_keys(keys, report);
        Some(section)
    }

    /// Like [`Section::section`], for a map whose keys are the user's own.
    pub(crate) fn entries(&self, key: &'static str, report: &mut Report<'_>) -> Vec<Field<'a>> {
        let Some(section) = self.maps(key, report) else { return Vec::new() };
        let mut entries = Vec::new();
        let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, layer) in section.layers.iter().enumerate() {
            for (name, node) in layer.pairs {
                let Some(text) = name.scalar() else {
                    report.add(name.at, key_not_text(&section.path(layer, ""), name));
                    continue;
                };
                match taken.get(text) {
                    Some(first) if *first == index => {
                        report.add(name.at, written_twice(text, &section.path(layer, "")));
                    }
                    Some(_) => {}
                    None => {
                        taken.insert(text, index);
                        let path = section.path(layer, &shown(text));
                        entries.push(Field { key: text, node, key_at: name.at, path });
                    }
                }
            }
        }
        entries
    }

    /// Whose map this is: `functions.<name>` or `defaults`.
    pub(crate) fn owner(&self) -> &str {
        self.layers.first().map_or("", |layer| layer.owner)
    }

    /// The keys of the winning layer, known or not.
    pub(crate) fn own_keys(&self) -> impl Iterator<Item = &'a str> {
        self.layers.first().into_iter().flat_map(|layer| layer.pairs).filter_map(|(name, _)| name.scalar())
    }

    /// The value of a key in the winning layer.
    pub(crate) fn own_field(&self, key: &'static str) -> Option<Field<'a>> {
        let layer = self.layers.first()?;
        let (name, node) = layer.pairs.iter().find(|(name, _)| name.scalar() == Some(key))?;
        Some(Field { key, node, key_at: name.at, path: self.path(layer, key) })
    }

    /// The dotted name of a key here, for messages.
    pub(crate) fn name_of(&self, key: &str) -> String {
        self.layers.first().map_or_else(|| key.to_owned(), |layer| self.path(layer, key))
    }

    fn fields(&self, key: &'static str) -> impl Iterator<Item = Field<'a>> {
        self.layers.iter().filter_map(move |layer| {
            let (name, node) = layer.pairs.iter().find(|(name, _)| name.scalar() == Some(key))?;
            Some(Field { key, node, key_at: name.at, path: self.path(layer, key) })
        })
    }

    fn maps(&self, key: &'static str, report: &mut Report<'_>) -> Option<Self> {
        let mut layers = Vec::with_capacity(self.layers.len());
        let mut at = None;
        for layer in &self.layers {
            let Some((_, node)) = layer.pairs.iter().find(|(name, _)| name.scalar() == Some(key)) else { continue };
            let Kind::Map(pairs) = &node.kind else {
                if at.is_none() {
                    report.add(node.at, not_a_map(&self.path(layer, key), node));
                    return None;
                }
                break;
            };
            at.get_or_insert(node.at);
            layers.push(Layer { pairs, owner: layer.owner });
        }
        let mut trail = self.trail.clone();
        trail.push(key);
        at.map(|at| Self { layers, trail, at, is_partial: self.is_partial })
    }

    fn path(&self, layer: &Layer<'_>, key: &str) -> String {
        let parts = std::iter::once(layer.owner).chain(self.trail.iter().copied()).chain(std::iter::once(key));
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
    }

    fn check_keys(&self, keys: &'static Keys, report: &mut Report<'_>) {
        for layer in &self.layers {
            let mut seen: Vec<&str> = Vec::new();
            for (name, _) in layer.pairs {
                let Some(text) = name.scalar() else {
                    report.add(name.at, key_not_text(&self.path(layer, ""), name));
                    continue;
                };
                if !keys.known.contains(&text) {
                    report.add(name.at, keys.refuse(text, &self.path(layer, &shown(text))));
                } else if seen.contains(&text) {
                    report.add(name.at, written_twice(text, &self.path(layer, "")));
                } else {
                    seen.push(text);
                }
            }
        }
    }
}

fn not_a_map(path: &str, node: &Node) -> Problem {
    let message = format!("`{path}` must be a map of keys; here it is {}", node.described());
    let problem = Problem::new(code::MANIFEST_WRONG_TYPE, message);
    let written = node.scalar().map(shown);
    let last = path.rsplit('.').next().unwrap_or(path);
    match (&node.kind, last, written) {
        (Kind::Null, ..) => problem.hint("write keys below it, or remove it"),
        // The form that was meant.
        (_, "probes", Some(path)) => {
            let slash = if path.starts_with('/') || path == "tcp" { "" } else { "/" };
            problem.hint(format!("write `probes: {{ready: {slash}{path}}}`"))
        }
        (Kind::Number(_), "gpu", Some(count)) => problem.hint(format!(
            "write `gpu: {{cards: {count}}}` for whole devices, or `gpu: {{memory: 6GiB}}` for a share of one"
        )),
        (_, "gpu", Some(value)) => {
            let key = if value.parse::<kip_spec::Bytes>().is_ok() { "memory" } else { "memory: 6GiB, type" };
            problem.hint(format!("write `gpu: {{{key}: {value}}}`"))
        }
        (_, "resources", Some(value)) if value.parse::<kip_spec::Bytes>().is_ok() => {
            problem.hint(format!("write `resources: {{memory: {value}}}`"))
        }
        (Kind::Number(_), "instances", Some(count)) => problem.hint(format!("write `instances: {{max: {count}}}`")),
        (_, "idle", Some(time)) => problem.hint(format!("write `idle: {{pause: {time}}}`")),
        (_, "timeouts", Some(time)) => problem.hint(format!("write `timeouts: {{total: {time}}}`")),
        (Kind::Number(_), "queue", Some(depth)) => problem.hint(format!("write `queue: {{depth: {depth}}}`")),
        (_, "watchdog", Some(time)) => problem.hint(format!("write `watchdog: {{stall: {time}}}`")),
        (_, "scaling", Some(mode)) => problem.hint(format!("write `scaling: {{mode: {mode}}}`")),
        (_, "trigger", Some(_)) => problem.hint("write `trigger: {http: {auth: key}}`"),
        _ => problem,
    }
}

fn key_not_text(path: &str, key: &Node) -> Problem {
    let place = if path.is_empty() { "the manifest" } else { path };
    let message = format!("a key of `{place}` must be text; here it is {}", key.described());
    Problem::new(code::MANIFEST_WRONG_TYPE, message)
}

fn written_twice(key: &str, path: &str) -> Problem {
    let place = if path.is_empty() { "the manifest".to_owned() } else { format!("`{path}`") };
    let message = format!("`{}` is written twice in {place}", shown(key));
    Problem::new(code::MANIFEST_CONTRADICTION, message).hint("keep one of the two")
}
