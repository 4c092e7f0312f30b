//! `data`: folders and buckets that the operator gives a name, mounted into a function. What is behind a name is settled when the function is deployed.

use kip_spec::code;
use kip_spec::container::Mount;
use kip_spec::function::Program;
use kip_spec::share::{ShareName, refused_target};

use crate::keys;
use crate::report::{Report, shown};
use crate::section::{Field, Section};
use crate::tree::Kind;
use crate::value::{flag, refuse, wrong_type};

/// Mounts of a function at most.
const MOST: usize = 16;
const HINT: &str = "write `/mnt/photos: oss://photos/train`, `/mnt/models: server:/models`, or a map: {share: oss://photos/train, writable: true}";

/// The mounts; their sources are names of shares.
pub(crate) fn read(function: &Section<'_>, program: Option<&Program>, report: &mut Report<'_>) -> Vec<Mount> {
    let entries = function.entries("data", report);
    let Some(field) = function.field("data").filter(|_| !entries.is_empty()) else { return Vec::new() };
    let in_container = matches!(program, Some(Program::Image(_)));
    let fault = match program {
        Some(Program::Model { .. }) => Some("`data` is for a program or an image; a model is its own file".to_owned()),
        _ if entries.len() > MOST => Some(format!("a function has at most {MOST} mounts")),
        _ => None,
    };
    if let Some(message) = fault {
        report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
        return Vec::new();
    }
    let mounts: Vec<Mount> = entries.iter().filter_map(|entry| mount(entry, in_container, report)).collect();
    let nested = mounts.iter().enumerate().find_map(|(at, one)| {
        let inside = |other: &&Mount| std::path::Path::new(&one.target).starts_with(&other.target);
        mounts[..at].iter().chain(&mounts[at + 1..]).find(inside).map(|other| (one, other))
    });
    if let Some((one, other)) = nested {
        let message = format!("{} is inside of {}", one.target, other.target);
        report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
    }
    mounts
}

fn mount(entry: &Field<'_>, in_container: bool, report: &mut Report<'_>) -> Option<Mount> {
    let target = entry.key.trim_end_matches('/').to_owned();
    if let Some(why) = refused_target(&target, in_container) {
        let message = format!("nothing can be mounted at `{}`: {why}", shown(entry.key));
        report.add(entry.key_at, refuse(entry, code::MANIFEST_BAD_VALUE, message).hint(HINT));
        return None;
    }
    let (share, writable) = match &entry.node.kind {
        Kind::Map(_) => {
            let layer = Section::layer(entry.node, "data", report)?;
            let section = Section::open(vec![layer], entry.node.at, &keys::DATA, report);
            let writable = section.field("writable").is_some_and(|field| flag(&field, report));
            (section.field("share").and_then(|field| field.node.scalar().map(str::to_owned)), writable)
        }
        Kind::Text(text) => (Some(text.clone()), false),
        _ => {
            wrong_type(entry, "the name of a share", report);
            return None;
        }
    };
    let share = share.unwrap_or_default();
    match share.parse::<ShareName>() {
        Ok(share) => Some(Mount { source: share.to_string(), target, writable }),
        Err(error) => {
            report.add(entry.node.at, refuse(entry, code::MANIFEST_BAD_VALUE, error).hint(HINT));
            None
        }
    }
}
