//! `s.yaml` with `edition: 3.0.0`: resources, templates, flow.

use std::cell::RefCell;
use std::collections::BTreeSet;

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::{Kind, Node};
use kip_spec::{Problem, code};

use crate::effects::{Effect, FUNCTION, is_wiring};
use crate::function::{self, FunctionInput};
use crate::keys::{Classes, KeyList};
use crate::merge::{merge, without};
use crate::node::{at, check_duplicates, get, items, pairs, text};
use crate::project::{Format, Project};
use crate::scope::{ResourceBody, Scope};
use crate::{Source, actions, checks, flow};

/// Files that extend each other.
const DEEPEST: usize = 8;

/// Reads a document.
pub(crate) fn read(root: Node, source: &Source<'_>, report: &mut Report<'_>) -> Option<Project> {
    let mut keys = KeyList::default();
    keys.add_document(&root, "resources");
    let own = root.clone();
    let root = with_base(root, source, 0, report)?;
    let resources = resources(&root, "resources", report);
    let arrows = RefCell::new(BTreeSet::new());
    let scope = Scope { source, root, resources, bare_names: false, arrows };
    let project = project(&scope, &own, Format::Edition3, &mut keys, report);
    Some(Project { keys: keys.into_keys(), ..project })
}

/// The document over the files that it extends.
fn with_base(root: Node, source: &Source<'_>, depth: usize, report: &mut Report<'_>) -> Option<Node> {
    let Some(extend) = get(&root, "extend") else { return Some(root) };
    let name = extend.scalar().unwrap_or_default();
    let place = extend.at;
    let missing = |why: String| {
        Problem::new(code::FILE_REFERENCE, format!("the file {} that this extends cannot be read", shown(name)))
            .cause(why)
            .hint("`extend` names a file beside this one: extend: ./base.yaml")
    };
    if depth > DEEPEST {
        report.add(place, missing("files extend each other in a ring".to_owned()));
        return None;
    }
    let read = match std::fs::read_to_string(source.directory.join(name)) {
        Ok(read) => read,
        Err(error) => {
            report.add(place, missing(error.to_string()));
            return None;
        }
    };
    let mut of_base = Report::new(name, &read);
    let base = kip_manifest::parse(&read, &mut of_base);
    if let Err(problems) = of_base.close() {
        report
            .add(place, missing(problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ")));
        return None;
    }
    let base = with_base(moved(base?, place), source, depth + 1, report)?;
    Some(without(&merge(&base, &without(&root, &["extend"])), &["extend"]))
}

/// A tree of another file, at the place where this one names that.
fn moved(node: Node, at: kip_manifest::tree::Position) -> Node {
    let kind = match node.kind {
        Kind::List(items) => Kind::List(items.into_iter().map(|item| moved(item, at)).collect()),
        Kind::Map(pairs) => {
            Kind::Map(pairs.into_iter().map(|(key, value)| (moved(key, at), moved(value, at))).collect())
        }
        other => other,
    };
    Node { at, kind }
}

/// The resources of a document, with their templates below them.
pub(crate) fn resources(root: &Node, group: &str, report: &mut Report<'_>) -> Vec<ResourceBody> {
    let Some(all) = get(root, group) else {
        let problem = Problem::new(code::FILE_MISSING_KEY, format!("`{group}` is missing: the file declares nothing"));
        report.add(root.at, problem.hint(format!("declare a function below `{group}:`")));
        return Vec::new();
    };
    if pairs(all).is_empty() {
        let message = format!("`{group}` must be a map from names to resources; here it is {}", all.described());
        report.add(all.at, Problem::new(code::FILE_VALUE, message).hint("write each resource below a name"));
    }
    pairs(all).iter().filter_map(|(key, body)| resource(root, key, body, report)).collect()
}

fn resource(root: &Node, key: &Node, body: &Node, report: &mut Report<'_>) -> Option<ResourceBody> {
    let name = key.scalar().unwrap_or_default().to_owned();
    if pairs(body).is_empty() {
        let message = format!("`{}` must be a map with `component` and `props`", shown(&name));
        let problem = Problem::new(code::FILE_VALUE, message);
        report.add(key.at, problem.hint("write `component: fc3` and `props:` below it"));
        return None;
    }
    check_duplicates(body, report);
    let empty = Node { at: key.at, kind: Kind::Map(Vec::new()) };
    let props = get(body, "props").unwrap_or(&empty);
    // Some write it beside `props`, some in it.
    let extend = get(body, "extend").or_else(|| get(props, "extend"));
    let Some(extend) = extend else {
        return Some(ResourceBody { key: key.clone(), name, body: body.clone(), props: props.clone() });
    };
    let wanted = text(extend, "name").or_else(|| extend.scalar()).unwrap_or_default();
    let Some(template) = at(root, &["template", wanted]) else {
        let message = format!("there is no template `{}` for `{}` to extend", shown(wanted), shown(&name));
        let known: Vec<&str> =
            get(root, "template").map(pairs).unwrap_or_default().iter().filter_map(|(key, _)| key.scalar()).collect();
        let hint = match known.as_slice() {
            [] => "declare it below `template:` at the top of the file".to_owned(),
            known => format!("templates of the file: {}", known.join(", ")),
        };
        report.add(extend.at, Problem::new(code::FILE_REFERENCE, message).hint(hint));
        return None;
    };
    let ignored = get(extend, "ignore");
    let ignored: Vec<&str> = match ignored {
        Some(list) if !items(list).is_empty() => items(list).iter().filter_map(Node::scalar).collect(),
        Some(one) => one.scalar().into_iter().collect(),
        None => Vec::new(),
    };
    let props = merge(&without(template, &ignored), &without(props, &["extend"]));
    Some(ResourceBody { key: key.clone(), name, body: body.clone(), props })
}

/// The kind of a component.
enum Component {
    Function,
    /// Not known, with the keys of a function.
    Likely,
    Domain,
    Other,
}

fn component(name: &str, props: &Node) -> Component {
    let bare = name.split('@').next().unwrap_or_default();
    let is_path = bare.starts_with(['.', '/', '~']) || std::path::Path::new(bare).is_dir();
    let bare = bare.rsplit('/').next().unwrap_or_default();
    match bare {
        _ if is_path => Component::Function,
        "fc3" | "fc" => Component::Function,
        "fc3-domain" => Component::Domain,
        _ if text(props, "functionName").is_some() && text(props, "runtime").is_some() => Component::Likely,
        _ if at(props, &["function", "runtime"]).is_some() => Component::Likely,
        _ => Component::Other,
    }
}

/// Where the fields of a function are in its props.
enum Layout {
    /// In the props, as edition 3 has them.
    Flat,
    /// Below `function`, with the names of edition 3.
    Nested,
    /// Below `service` and `function`, as edition 1 has them.
    Edition1,
}

fn layout(props: &Node) -> Layout {
    match get(props, "function") {
        Some(inner) if get(inner, "name").is_some() => Layout::Edition1,
        Some(inner) if !pairs(inner).is_empty() && get(props, "functionName").is_none() => Layout::Nested,
        _ => Layout::Flat,
    }
}

/// Takes in the keys of props, by the table of their layout.
fn add_props(props: &Node, path: &str, classes: Classes, keys: &mut KeyList) {
    match (classes, layout(props)) {
        (Classes::Table(_), Layout::Edition1) => {
            keys.add(props.at, props, path, &[], Classes::Table(crate::effects::FUNCTION_1));
        }
        (Classes::Table(_), Layout::Nested) => {
            for (key, value) in pairs(props) {
                let name = key.scalar().unwrap_or_default();
                let way: &[&str] = if name == "function" { &[] } else { &[name] };
                keys.add(key.at, value, &format!("{path}.{name}"), way, classes);
            }
        }
        _ => keys.add(props.at, props, path, &[], classes),
    }
}

/// The functions of resources, in the order of their deployment.
pub(crate) fn project(
    scope: &Scope<'_>,
    own: &Node,
    format: Format,
    keys: &mut KeyList,
    report: &mut Report<'_>,
) -> Project {
    let group = if format == Format::Edition1 { "services" } else { "resources" };
    let table = if format == Format::Edition1 { crate::effects::FUNCTION_1 } else { FUNCTION };
    let runtimes = function::runtimes(scope);
    let (mut functions, mut changes, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for resource in &scope.resources {
        let own_props = at(own, &[group, &resource.name, "props"]);
        let path = format!("{group}.{}.props", resource.name);
        let of_wiring = |way: &[String]| {
            let way: Vec<&str> = way.iter().map(String::as_str).collect();
            is_wiring(table, &way)
        };
        let nothing = &|_: &[String]| true;
        let component_node = get(&resource.body, "component").cloned();
        let name = match component_node {
            Some(node) => {
                let resolved = scope.resolve(&node, &resource.name, &mut Vec::new(), nothing, report);
                resolved.scalar().unwrap_or_default().to_owned()
            }
            None => {
                let problem =
                    Problem::new(code::FILE_MISSING_KEY, format!("`{}` has no `component`", shown(&resource.name)));
                report.add(resource.key.at, problem.hint("write `component: fc3`"));
                continue;
            }
        };
        let kind = component(&name, &resource.props);
        let classes = match kind {
            Component::Function | Component::Likely => Classes::Table(table),
            Component::Domain => {
                Classes::All(Effect::WithoutEffect, "custom domains are not served: call the function's URL")
            }
            Component::Other => Classes::All(Effect::WithoutEffect, "resources of other components are not made here"),
        };
        if let Some(props) = own_props {
            add_props(props, &path, classes, keys);
        }
        if let Component::Likely = kind {
            let message = format!(
                "the component `{}` is not known: its props are those of a function, and it is deployed as one",
                shown(&name)
            );
            report.warn(resource.key.at, Problem::new(code::FILE_NO_FUNCTION, message).hint("write `component: fc3`"));
        }
        if let Component::Domain | Component::Other = kind {
            others.push((resource.key.at, name));
            continue;
        }
        let props = scope.resolve(&resource.props, &resource.name, &mut Vec::new(), &of_wiring, report);
        let props = match (format, layout(&props)) {
            (Format::Edition1, _) | (_, Layout::Edition1) => crate::conversion::convert(&props, &mut changes),
            (_, Layout::Nested) => {
                let inner = get(&props, "function").cloned().unwrap_or_else(|| props.clone());
                merge(&without(&props, &["function"]), &inner)
            }
            (_, Layout::Flat) => props,
        };
        checks::check_placeholders(&props, report);
        let input = FunctionInput { key: &resource.key, props: &props, source: scope.source, refused: &runtimes };
        if let Some(mut function) = function::read(&input, report) {
            function.actions = actions::read(&resource.body, &resource.name, scope, report);
            functions.push(function);
        }
    }
    if let ([], Some((at, name))) = (functions.as_slice(), others.first())
        && scope.resources.len() == others.len()
    {
        let message = format!("nothing in the file is a function: the component `{}` is not run here", shown(name));
        let hint = "only functions are deployed: `component: fc3` with a runtime, or `kip deploy` of a kip.yaml with the start command";
        report.add(*at, Problem::new(code::FILE_NO_FUNCTION, message).hint(hint));
    } else {
        for (at, name) in &others {
            let message = format!("the component `{}` is left out: it is no function", shown(name));
            report.warn(*at, Problem::new(code::FILE_NO_FUNCTION, message));
        }
    }
    let mut functions = function::join(functions, report);
    let order = flow::order(scope, report);
    functions.sort_by_key(|function| order.iter().position(|name| *name == function.key).unwrap_or(usize::MAX));
    Project {
        format,
        name: text(&scope.root, "name").unwrap_or_default().to_owned(),
        functions,
        actions: actions::read(&scope.root, "", scope, report),
        keys: Vec::new(),
        changes,
        warnings: Vec::new(),
    }
}
