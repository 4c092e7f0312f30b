//! `s.yaml` with `edition: 1.0.0`: services with one function each, converted into the words of edition 3.

use std::cell::RefCell;
use std::collections::BTreeSet;

use kip_manifest::report::Report;
use kip_manifest::tree::Node;

use crate::Source;
use crate::edition3;
use crate::keys::KeyList;
use crate::project::{Format, Project};
use crate::scope::Scope;

/// Reads a document.
pub(crate) fn read(root: Node, source: &Source<'_>, report: &mut Report<'_>) -> Option<Project> {
    let mut keys = KeyList::default();
    keys.add_document(&root, "services");
    let resources = edition3::resources(&root, "services", report);
    let own = root.clone();
    let scope = Scope { source, root, resources, bare_names: true, arrows: RefCell::new(BTreeSet::new()) };
    let project = edition3::project(&scope, &own, Format::Edition1, &mut keys, report);
    Some(Project { keys: keys.into_keys(), ..project })
}
