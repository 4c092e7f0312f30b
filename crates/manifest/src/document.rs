//! The top of the file: the format, the defaults and the names of the functions.

use std::collections::BTreeMap;
use std::path::Path;

use kip_spec::{FunctionName, Problem, code};

use crate::function::FunctionSettings;
use crate::report::{self, Report};
use crate::section::{Field, Layer, Section};
use crate::tree::{Kind, Node, Position};
use crate::{MOST_FUNCTIONS, ManifestContent, Source, function, job, keys};

/// Bytes that the text of all functions of one manifest may take in memory once defaults are merged into each. The most
/// functions with thirty variables each stay below.
const MOST_EXPANDED: usize = 64 << 20;

/// Every function that is right; what is wrong goes to the report.
pub(crate) fn read<'a>(root: &Node, source: &Source<'a>, report: &mut Report<'a>) -> ManifestContent {
    let Kind::Map(pairs) = &root.kind else {
        report.add(root.at, not_a_document(root));
        return ManifestContent::default();
    };
    let section = Section::root(pairs, root.at, &keys::DOCUMENT, report);
    check_api(&section, report);
    let defaults = section.field("defaults").and_then(|field| read_defaults(field.node, report));
    // In the defaults nothing is resolved: a function may set what a reference names.
    report.take_from(Some(source.deployer));
    let functions = section.field("functions").map(|field| named(&field, report));
    let jobs = section.field("jobs").map(|field| named(&field, report));
    if functions.is_none() && jobs.is_none() {
        let problem =
            Problem::new(code::MANIFEST_MISSING_KEY, "the manifest declares no functions: `functions` is missing")
                .hint("begin with:\nfunctions:\n  hello:\n    run: python3 app.py");
        report.add(root.at, problem);
    }
    let declared =
        DeclaredNames { functions: functions.flatten().unwrap_or_default(), jobs: jobs.flatten().unwrap_or_default() };
    read_all(&declared, defaults, source.directory, report)
}

/// What is declared, by its names.
struct DeclaredNames<'a> {
    functions: &'a [(Node, Node)],
    jobs: &'a [(Node, Node)],
}

/// A map from names to what they name, with at least one in it.
fn named<'a>(field: &Field<'a>, report: &mut Report<'_>) -> Option<&'a [(Node, Node)]> {
    let (plural, one) = if field.key == "jobs" { ("jobs", "job") } else { ("functions", "function") };
    let Kind::Map(pairs) = &field.node.kind else {
        let message = format!("`{plural}` must be a map from names to {plural}; here it is {}", field.node.described());
        let problem = Problem::new(code::MANIFEST_WRONG_TYPE, message);
        report.add(field.node.at, problem.hint(format!("write each {one}'s name as a key below `{plural}:`")));
        return None;
    };
    if pairs.is_empty() {
        let message = format!("`{plural}` is an empty map: the manifest declares nothing");
        let problem = Problem::new(code::MANIFEST_MISSING_KEY, message);
        report.add(field.node.at, problem.hint(format!("declare at least one {one}")));
    }
    Some(pairs)
}

fn not_a_document(root: &Node) -> Problem {
    const HINT: &str = "begin with `api: kip/v1`, then `functions:`";
    match root.kind {
        Kind::Null => Problem::new(code::MANIFEST_MISSING_KEY, "the manifest is empty").hint(HINT),
        _ => {
            let message = format!("a manifest must be a map of keys; here it is {}", root.described());
            Problem::new(code::MANIFEST_WRONG_TYPE, message).hint(HINT)
        }
    }
}

fn check_api(section: &Section<'_>, report: &mut Report<'_>) {
    const HINT: &str = "write `api: kip/v1`";
    match section.field("api") {
        None => {
            let message = "the manifest does not say which format it has: `api` is missing";
            report.add(section.at, Problem::new(code::MANIFEST_MISSING_KEY, message).hint(HINT));
        }
        Some(field) if field.node.scalar() != Some("kip/v1") => {
            let message = match field.node.scalar() {
                Some(text) => format!("`api` is `{}`, which this version does not know", report::shown(text)),
                None => format!("`api` must be text; here it is {}", field.node.described()),
            };
            report.add(field.node.at, Problem::new(code::MANIFEST_BAD_VALUE, message).hint(HINT));
        }
        Some(_) => {}
    }
}

/// Reads the defaults as if they were a function, so that what is wrong in them is said once and not for each function.
/// Wrong ones are left out of the rest.
fn read_defaults<'a>(node: &'a Node, report: &mut Report<'_>) -> Option<Layer<'a>> {
    let before = report.count();
    let layer = Section::layer(node, "defaults", report)?;
    let section = Section::partial(layer, node.at, &keys::DEFAULTS, report);
    let _nothing_but_its_problems = function::read_shared(&section, report);
    (report.count() == before).then_some(layer)
}

fn read_all(
    declared: &DeclaredNames<'_>,
    defaults: Option<Layer<'_>>,
    directory: &Path,
    report: &mut Report<'_>,
) -> ManifestContent {
    let DeclaredNames { functions, jobs } = declared;
    let count = functions.len() + jobs.len();
    if count > MOST_FUNCTIONS {
        let at =
            functions.first().or_else(|| jobs.first()).map_or(Position { line: 1, column: 1 }, |(name, _)| name.at);
        let message = format!("{count} functions are declared; a manifest holds at most {MOST_FUNCTIONS}");
        report.add(at, Problem::new(code::MANIFEST_TOO_LARGE, message).hint("split it into several files"));
        return ManifestContent::default();
    }
    let mut all = ManifestContent { functions: Vec::with_capacity(count), ..ManifestContent::default() };
    let mut names: BTreeMap<String, (String, u64)> = BTreeMap::new();
    let mut expanded = 0usize;
    for (is_job, (key, node)) in functions.iter().map(|one| (false, one)).chain(jobs.iter().map(|one| (true, one))) {
        let Some(name) = function_name(key, &mut names, report) else { continue };
        let spec = if is_job {
            job::read(name, key.at, node, directory, report).map(|spec| (spec, FunctionSettings::default()))
        } else {
            function::read(name, key.at, node, defaults, directory, report)
        };
        let Some((spec, settings)) = spec else { continue };
        expanded = expanded.saturating_add(function::text_of(&spec));
        if expanded > MOST_EXPANDED {
            let message = "with the defaults merged into each, the functions take more than 64 MiB";
            let hint = "move large values out of `defaults.env`, or split the file";
            report.add(key.at, Problem::new(code::MANIFEST_TOO_LARGE, message).hint(hint));
            return ManifestContent::default();
        }
        let FunctionSettings { traffic, rollout } = settings;
        if !traffic.is_empty() {
            all.traffic.insert(spec.name.clone(), traffic);
        }
        if let Some(rollout) = rollout {
            all.rollouts.insert(spec.name.clone(), rollout);
        }
        all.functions.push(spec);
    }
    all
}

/// A name that is well formed and not taken, also not in other upper and lower case: paths and host names do not tell
/// these apart everywhere.
fn function_name(
    key: &Node,
    names: &mut BTreeMap<String, (String, u64)>,
    report: &mut Report<'_>,
) -> Option<FunctionName> {
    let Some(text) = key.scalar() else {
        let message = format!("a function's name must be text; here it is {}", key.described());
        report.add(key.at, Problem::new(code::MANIFEST_WRONG_TYPE, message));
        return None;
    };
    let Ok(name) = text.parse::<FunctionName>() else {
        let message = format!("`{}` cannot be a function's name", report::shown(text));
        let hint = "use 1 to 64 letters, digits, `-` or `_`, beginning with a letter or `_`";
        report.add(key.at, Problem::new(code::MANIFEST_BAD_VALUE, message).hint(hint));
        return None;
    };
    if let Some((first, line)) = names.get(&text.to_ascii_lowercase()) {
        let message = if first == text {
            format!("the function `{text}` is declared twice")
        } else {
            format!("the functions `{first}` and `{text}` differ only in upper and lower case")
        };
        let hint = format!("rename one of them; the first is on line {line}");
        report.add(key.at, Problem::new(code::MANIFEST_CONTRADICTION, message).hint(hint));
        return None;
    }
    names.insert(text.to_ascii_lowercase(), (text.to_owned(), key.at.line));
    Some(name)
}
