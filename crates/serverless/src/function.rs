//! The `props` of a function, in the words of fc3, into a declaration.

use std::collections::BTreeSet;

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::{Kind, Node, Position};
use kip_spec::{FunctionName, Problem, code};
use serde_json::{Map, Value};

use crate::checks::{NUMBERS, as_number, check_keys, check_numbers, check_program, environment, wrong};
use crate::node::{at, get, items, json, pairs, text};
use crate::project::{CodeSource, DeclaredFunction, RemoteCode};
use crate::scope::{Scope, absolute};
use crate::{Source, runtime, settings};

/// A function to read.
pub(crate) struct FunctionInput<'a> {
    /// Its key in the file.
    pub(crate) key: &'a Node,
    /// Its props, with nothing left to resolve.
    pub(crate) props: &'a Node,
    pub(crate) source: &'a Source<'a>,
    /// All runtimes of the file that do not run here.
    pub(crate) refused: &'a [String],
}

/// Fields of CreateFunction that are sent as they are.
const SENT: [&str; 26] = [
    "description",
    "runtime",
    "handler",
    "timeout",
    "memorySize",
    "cpu",
    "diskSize",
    "instanceConcurrency",
    "customRuntimeConfig",
    "customContainerConfig",
    "gpuConfig",
    "instanceLifecycleConfig",
    "internetAccess",
    "layers",
    "logConfig",
    "nasConfig",
    "ossMountConfig",
    "role",
    "vpcConfig",
    "tracingConfig",
    "customDNS",
    "sessionAffinity",
    "sessionAffinityConfig",
    "instanceIsolationMode",
    "idleTimeout",
    "disableOndemand",
];
/// Of these, the ones that a word such as `auto` may stand for: the vendor's tool makes the thing then.
const MADE_BY_THE_TOOL: [&str; 5] = ["logConfig", "nasConfig", "ossMountConfig", "vpcConfig", "tracingConfig"];
/// The runtimes of a file that do not run here, in order.
pub(crate) fn runtimes(scope: &Scope<'_>) -> Vec<String> {
    let mut all = BTreeSet::new();
    for resource in &scope.resources {
        let nodes = [get(&resource.props, "runtime"), at(&resource.props, &["function", "runtime"])];
        for node in nodes.into_iter().flatten() {
            // What cannot be resolved is said when the props are read.
            let mut aside = Report::new("", "");
            let found = scope.resolve(node, &resource.name, &mut Vec::new(), &|_| true, &mut aside);
            let name = scope.source.runtimes.get(found.scalar().unwrap_or_default()).to_owned();
            if !runtime::runs(&name) {
                all.insert(name);
            }
        }
    }
    all.into_iter().collect()
}

/// Reads a function; `None` if it has no usable name.
pub(crate) fn read(input: &FunctionInput<'_>, report: &mut Report<'_>) -> Option<DeclaredFunction> {
    let FunctionInput { key, props, .. } = *input;
    check_keys(props, report);
    check_numbers(props, report);
    let name = name(input, report);
    let runtime = runtime_of(input, report);
    let mut config = Map::new();
    if let Some(runtime) = &runtime {
        config.insert("runtime".to_owned(), runtime.as_str().into());
    }
    for field in SENT.iter().filter(|field| **field != "runtime") {
        let Some(node) = get(props, field) else { continue };
        if let Some(word) = node.scalar().filter(|_| *field == "nasConfig") {
            let function = text(props, "functionName").unwrap_or_default();
            config.extend(crate::share::of_word(word, function).map(|made| ((*field).to_owned(), made)));
            continue;
        }
        let made = MADE_BY_THE_TOOL.contains(field) && !matches!(node.kind, Kind::Map(_));
        let value = json(node);
        if !made && !is_empty(&value) {
            config.insert((*field).to_owned(), value);
        }
    }
    for (way, ..) in NUMBERS {
        as_number(&mut config, way);
    }
    if let Some(variables) = get(props, "environmentVariables") {
        let variables = environment(variables, report);
        config.insert("environmentVariables".to_owned(), variables.into());
    }
    if config.get("role").is_some_and(|role| !role.is_string() || role == "auto") {
        config.remove("role");
    }
    if let Some(image) = config.get_mut("customContainerConfig").and_then(Value::as_object_mut) {
        image.remove("registryConfig");
    }
    check_program((key, props), runtime.as_deref(), &mut config, report);
    let code = code_of(input, runtime.as_deref(), report);
    config.insert("functionName".to_owned(), text(props, "functionName").unwrap_or_default().into());
    Some(DeclaredFunction {
        key: key.scalar().unwrap_or_default().to_owned(),
        place: report.place(key.at),
        name: name?,
        code,
        triggers: settings::triggers(props, report),
        asynchronous: settings::asynchronous(props, report),
        provisions: settings::provision(props, report).into_iter().map(|put| ("LATEST".to_owned(), put)).collect(),
        scaling: settings::scaling(props),
        concurrency: at(props, &["concurrencyConfig", "reservedConcurrency"])
            .and_then(Node::scalar)
            .and_then(|text| text.parse().ok()),
        networks: at(props, &["vpcBinding", "vpcIds"])
            .map(items)
            .unwrap_or_default()
            .iter()
            .filter_map(|id| id.scalar().map(str::to_owned))
            .collect(),
        domains: domains(props, report),
        tags: settings::tags(props),
        aliases: Vec::new(),
        actions: Vec::new(),
        config,
    })
}

/// The custom domains of a function; edition 3 has one. Those that the vendor's tool makes up (`auto`) have no counterpart.
fn domains(props: &Node, report: &mut Report<'_>) -> Vec<Map<String, Value>> {
    let Some(node) = get(props, "customDomain") else { return Vec::new() };
    let nodes = if matches!(node.kind, Kind::List(_)) { items(node) } else { std::slice::from_ref(node) };
    let mut all = Vec::new();
    for node in nodes {
        let Value::Object(mut given) = json(node) else { continue };
        let name = given.get("domainName").and_then(Value::as_str).unwrap_or_default();
        if name.eq_ignore_ascii_case("auto") || name.is_empty() {
            continue;
        }
        if given.get("route").and_then(|route| route["path"].as_str()).is_none() {
            let message = format!("the custom domain `{}` has no `route` with a `path`", shown(name));
            report.add(node.at, wrong(message, "write `route: {path: /*}`"));
            continue;
        }
        // A file lets the tool choose what a host needs none of.
        if given.get("certConfig").is_some_and(|certificate| !certificate.is_object()) {
            given.remove("certConfig");
        }
        all.push(given);
    }
    all
}

/// Joins resources that declare one function alike, each with triggers of its own. Others of the same name, or of one that differs only
/// in its case, contradict each other.
pub(crate) fn join(functions: Vec<DeclaredFunction>, report: &mut Report<'_>) -> Vec<DeclaredFunction> {
    let mut joined: Vec<DeclaredFunction> = Vec::new();
    for function in functions {
        let name = function.name.as_str();
        let before = joined.iter_mut().find(|other| other.name.as_str().eq_ignore_ascii_case(name));
        let Some(before) = before else {
            joined.push(function);
            continue;
        };
        let path = |one: &DeclaredFunction| one.code.as_ref().map(|code| (code.path.clone(), code.from.clone()));
        if before.name == function.name && before.config == function.config && path(before) == path(&function) {
            let others = function.triggers.into_iter();
            let new: Vec<_> = others.filter(|one| before.triggers.iter().all(|other| other.name != one.name)).collect();
            before.triggers.extend(new);
            continue;
        }
        let at = Position { line: function.place.line, column: function.place.column };
        let message = format!("two resources declare the function `{name}`, and differ");
        report.add(at, wrong(message, format!("rename one of them; the first is on line {}", before.place.line)));
    }
    joined
}

/// Whether a value says nothing.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn name(input: &FunctionInput<'_>, report: &mut Report<'_>) -> Option<FunctionName> {
    let Some(node) = get(input.props, "functionName").filter(|node| node.scalar().is_some_and(|text| !text.is_empty()))
    else {
        let problem = Problem::new(code::FILE_MISSING_KEY, "`functionName` is missing");
        report.add(input.key.at, problem.hint("write `functionName: NAME` below `props:`"));
        return None;
    };
    let text = node.scalar().unwrap_or_default();
    match text.parse() {
        Ok(name) => Some(name),
        // A placeholder was named as such.
        Err(_) if text.contains("{{") => None,
        Err(_) => {
            let message = format!("`{}` cannot be the name of a function", shown(text));
            report.add(
                node.at,
                wrong(message, "use 1 to 64 letters, digits, `-` or `_`, beginning with a letter or `_`"),
            );
            None
        }
    }
}

fn runtime_of(input: &FunctionInput<'_>, report: &mut Report<'_>) -> Option<String> {
    let Some(node) = get(input.props, "runtime").filter(|node| node.scalar().is_some_and(|text| !text.is_empty()))
    else {
        let problem = Problem::new(code::FILE_MISSING_KEY, "`runtime` is missing");
        report.add(input.key.at, problem.hint("write `runtime: custom.debian12`, python3.10 or nodejs20"));
        return None;
    };
    let runtime = input.source.runtimes.get(node.scalar().unwrap_or_default()).to_owned();
    if !runtime::runs(&runtime) {
        report.add(node.at, runtime::refusal(&runtime, input.refused, input.source.file));
        return None;
    }
    Some(runtime)
}

fn code_of(input: &FunctionInput<'_>, runtime: Option<&str>, report: &mut Report<'_>) -> Option<CodeSource> {
    if runtime == Some("custom-container") {
        return None;
    }
    let remote = |what: &str| {
        Problem::new(code::FILE_CODE, format!("the code is {what}, which is not fetched"))
            .hint("download it, and write the path of the folder or archive: `code: ./code`")
    };
    match get(input.props, "code") {
        None => {
            // Without a runtime that is known, it is not known whether code is needed.
            if runtime.is_some() {
                let problem = Problem::new(code::FILE_MISSING_KEY, "`code` is missing");
                report.add(input.key.at, problem.hint("write `code: ./code`, the folder of the program"));
            }
            None
        }
        Some(node) if !pairs(node).is_empty() => {
            let (bucket, object) = (text(node, "ossBucketName"), text(node, "ossObjectName"));
            let Some((bucket, object)) = bucket.zip(object) else {
                report.add(node.at, remote("in a bucket without `ossBucketName` or `ossObjectName`"));
                return None;
            };
            let from = RemoteCode::Bucket { bucket: bucket.to_owned(), object: object.to_owned() };
            Some(CodeSource { path: std::path::PathBuf::new(), from: Some(from), place: report.place(node.at) })
        }
        Some(node) => {
            let path = node.scalar().unwrap_or_default();
            if path.starts_with("http://") || path.starts_with("https://") {
                let from = Some(RemoteCode::Address(path.to_owned()));
                return Some(CodeSource { path: std::path::PathBuf::new(), from, place: report.place(node.at) });
            }
            if path.contains("://") {
                report.add(node.at, remote("at an address that is neither http nor https"));
                return None;
            }
            let path = absolute(input.source.directory, path).into();
            Some(CodeSource { path, from: None, place: report.place(node.at) })
        }
    }
}
