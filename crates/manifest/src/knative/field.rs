//! Errors of fields as Knative reports them: equal messages share a line, lines and paths are sorted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// What is wrong, by message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Errors(BTreeMap<String, BTreeSet<String>>);

impl Errors {
    pub(crate) fn add(&mut self, message: impl Into<String>, paths: &[&str]) {
        let places = self.0.entry(message.into()).or_default();
        places.extend(paths.iter().map(|path| (*path).to_owned()));
    }

    pub(crate) fn invalid(&mut self, value: impl Display, path: &str) {
        self.add(format!("invalid value: {value}"), &[path]);
    }

    pub(crate) fn outside(&mut self, least: impl Display, value: impl Display, most: impl Display, path: &str) {
        self.add(format!("expected {least} <= {value} <= {most}"), &[path]);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn append(&mut self, other: Self) {
        for (message, paths) in other.0 {
            self.0.entry(message).or_default().extend(paths);
        }
    }

    /// One line each.
    pub(crate) fn lines(self) -> Vec<String> {
        let line = |(message, paths): (String, BTreeSet<String>)| {
            let paths: Vec<String> = paths.into_iter().collect();
            format!("{message}: {}", paths.join(", "))
        };
        self.0.into_iter().map(line).collect()
    }
}
