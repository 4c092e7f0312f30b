//! Files of other serverless systems that people have on disk. Of Function Compute: `s.yaml` of Serverless Devs (editions 3 and 1) and `template.yml` of Fun, into one
//! [`Project`], and a project back into an `s.yaml`. Of Knative: Services into the functions of a kip.yaml ([`read_knative`]).
//!
//! The room reads text and answers with every problem, each with its line and column, and with each key and its effect. It knows the words of
//! these files and nothing of servers: what exists on a server comes in as values ([`plan`]), and commands of a file are only listed.

mod actions;
mod checks;
mod conversion;
mod edition1;
mod edition3;
mod effects;
mod expression;
mod flow;
mod function;
mod keys;
mod knative;
mod merge;
mod node;
pub mod plan;
mod project;
mod runtime;
mod scope;
mod settings;
mod share;
mod source;
mod template;
mod template_events;
mod write;

#[cfg(test)]
mod tests;

use kip_manifest::report::Report;
use kip_manifest::tree::{Kind, Node};
use kip_spec::{Problem, code};

pub use crate::effects::Effect;
pub use crate::knative::{KnativeFile, KnativeService, is_knative, read_knative};
pub use crate::project::{
    Action, ActionKind, CodeSource, DeclaredAlias, DeclaredFunction, DeclaredTrigger, Format, KeyEffect, Project,
    RemoteCode,
};
pub use crate::runtime::RuntimeMap;
pub use crate::source::Source;
pub use crate::write::write;

/// The files that are looked for in a folder, in this order.
pub const NAMES: [&str; 4] = ["s.yaml", "s.yml", "template.yml", "template.yaml"];

/// The format of a text, by its first keys. `None` for a text that is no such file, such as a kip.yaml.
pub fn format(text: &str) -> Option<Format> {
    let mut report = Report::new("", text);
    format_of(&kip_manifest::parse(text.trim_start_matches('\u{feff}'), &mut report)?)
}

fn format_of(root: &Node) -> Option<Format> {
    let text = |key: &str| node::get(root, key).and_then(Node::scalar);
    if text("ROSTemplateFormatVersion").is_some()
        || text("Transform").is_some_and(|transform| transform.contains("Serverless"))
    {
        return Some(Format::Template);
    }
    if text("api").is_some() {
        return None;
    }
    match text("edition") {
        Some(edition) if edition.starts_with('3') => Some(Format::Edition3),
        Some(edition) if edition.starts_with('1') => Some(Format::Edition1),
        Some(_) => None,
        None if node::get(root, "services").is_some() => Some(Format::Edition1),
        None if node::get(root, "resources").is_some() || node::get(root, "extend").is_some() => Some(Format::Edition3),
        None => None,
    }
}

/// Reads a file.
///
/// # Errors
/// Every problem of the file, in its order; there is at least one.
pub fn read(source: &Source<'_>) -> Result<Project, Vec<Problem>> {
    let text = source.text.trim_start_matches('\u{feff}');
    let mut report = Report::new(source.file, text);
    if text.len() > kip_manifest::LARGEST {
        return Err(vec![Problem::new(
            code::MANIFEST_TOO_LARGE,
            format!("{} has {} bytes; the most that is read is 1 MiB", source.file, text.len()),
        )]);
    }
    let project = kip_manifest::parse(text, &mut report).and_then(|root| {
        node::check_duplicates(&root, &mut report);
        match format_of(&root) {
            Some(Format::Edition3) => edition3::read(root, source, &mut report),
            Some(Format::Edition1) => edition1::read(root, source, &mut report),
            Some(Format::Template) => template::read(&root, source, &mut report),
            None => {
                report.add(root.at, unknown_format(&root));
                None
            }
        }
    });
    let warnings = report.close()?;
    match project {
        Some(project) => Ok(Project { warnings, ..project }),
        None => Err(vec![Problem::new(code::FILE_FORMAT, format!("{} cannot be read", source.file))]),
    }
}

fn unknown_format(root: &Node) -> Problem {
    let edition = node::get(root, "edition").and_then(Node::scalar);
    let message = match (edition, &root.kind) {
        (Some(edition), _) => format!("edition `{}` is not known", kip_manifest::report::shown(edition)),
        (None, Kind::Map(_)) => "the file is neither an s.yaml nor a template.yml: `edition` is missing".to_owned(),
        (None, _) => format!("the file must be a map of keys; here it is {}", root.described()),
    };
    Problem::new(code::FILE_FORMAT, message)
        .hint("an s.yaml begins with `edition: 3.0.0`, a template.yml with `ROSTemplateFormatVersion: '2015-09-01'`")
}
