//! The `props` of a function, in the words of fc3, into a declaration.

use std::collections::{BTreeMap, BTreeSet};

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::{Kind, Node, Position};
use kip_spec::{FunctionName, Problem, code};
use serde_json::{Map, Value};

use crate::effects::{Effect, FUNCTION, find};
use crate::node::{at, get, items, json, pairs, text};
use crate::project::{CodeSource, DeclaredFunction};
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
/// Numbers with their range. Some are written between quotes, or come from the environment as text.
const NUMBERS: [(&[&str], f64, f64); 16] = [
    (&["timeout"], 1.0, 86_400.0),
    (&["memorySize"], 128.0, 131_072.0),
    (&["cpu"], 0.05, 64.0),
    (&["diskSize"], 512.0, 102_400.0),
    (&["instanceConcurrency"], 1.0, 200.0),
    (&["gpuConfig", "gpuMemorySize"], 1_024.0, 1_048_576.0),
    (&["customRuntimeConfig", "port"], 0.0, 65_535.0),
    (&["customContainerConfig", "port"], 0.0, 65_535.0),
    (&["customRuntimeConfig", "healthCheckConfig", "timeoutSeconds"], 1.0, 3.0),
    (&["customRuntimeConfig", "healthCheckConfig", "initialDelaySeconds"], 0.0, 120.0),
    (&["customContainerConfig", "healthCheckConfig", "timeoutSeconds"], 1.0, 3.0),
    (&["customContainerConfig", "healthCheckConfig", "initialDelaySeconds"], 0.0, 120.0),
    (&["instanceLifecycleConfig", "initializer", "timeout"], 1.0, 300.0),
    (&["instanceLifecycleConfig", "preStop", "timeout"], 1.0, 86_400.0),
    (&["idleTimeout"], 0.0, 86_400.0),
    (&["concurrencyConfig", "reservedConcurrency"], 1.0, 10_000.0),
];
/// Seconds that a pre-stop hook may take; the vendor's tool takes more and the service does not.
const LONGEST_PRE_STOP: u64 = 90;

/// A problem of a value.
pub(crate) fn wrong(message: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem::new(code::FILE_VALUE, message).hint(hint)
}

/// The runtimes of a file that do not run here, in order.
pub(crate) fn runtimes(scope: &Scope<'_>, report: &mut Report<'_>) -> Vec<String> {
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
    let _ = report;
    all.into_iter().collect()
}

/// Reads a function; `None` if it has no usable name.
pub(crate) fn read(input: &FunctionInput<'_>, report: &mut Report<'_>) -> Option<DeclaredFunction> {
    let FunctionInput { key, props, source, .. } = *input;
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
    if let Some(role) = config.get("role").filter(|role| !role.is_string() || *role == "auto") {
        let _ = role;
        config.remove("role");
    }
    if let Some(image) = config.get_mut("customContainerConfig").and_then(Value::as_object_mut) {
        image.remove("registryConfig");
    }
    check_program(input, runtime.as_deref(), &mut config, report);
    let code = code_of(input, runtime.as_deref(), report);
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
        tags: settings::tags(props),
        aliases: Vec::new(),
        actions: Vec::new(),
        config: {
            config.insert("functionName".to_owned(), text(props, "functionName").unwrap_or_default().into());
            let _ = source;
            config
        },
    })
}

/// Names that differ only in their case, or not at all, are one function.
pub(crate) fn check_names(functions: &[DeclaredFunction], report: &mut Report<'_>) {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for function in functions {
        let at = Position { line: function.place.line, column: function.place.column };
        match seen.get(&function.name.as_str().to_ascii_lowercase()) {
            Some(line) => {
                let message = format!("two resources declare the function `{}`", function.name);
                report.add(at, wrong(message, format!("rename one of them; the first is on line {line}")));
            }
            None => drop(seen.insert(function.name.as_str().to_ascii_lowercase(), function.place.line)),
        }
    }
}

/// Placeholders of a template that was never rendered, where they would have an effect.
pub(crate) fn check_placeholders(props: &Node, report: &mut Report<'_>) {
    look_for_placeholders(props, &mut Vec::new(), report);
}

fn look_for_placeholders<'n>(node: &'n Node, way: &mut Vec<&'n str>, report: &mut Report<'_>) {
    for (key, value) in pairs(node) {
        way.push(key.scalar().unwrap_or_default());
        look_for_placeholders(value, way, report);
        way.pop();
    }
    items(node).iter().for_each(|item| look_for_placeholders(item, way, report));
    let Kind::Text(written) = &node.kind else { return };
    if !(written.contains("{{") && written.contains("}}")) {
        return;
    }
    let message = format!("`{}` is a placeholder of a template that was not rendered", shown(written.trim()));
    let problem = Problem::new(code::FILE_PLACEHOLDER, message).hint("write the value in its place");
    if find(FUNCTION, way).is_none_or(|row| row.1 == Effect::WithoutEffect) {
        report.warn(node.at, problem);
    } else {
        report.add(node.at, problem);
    }
}

/// A key that is nearly one of the component's is a slip. Others are reported as without effect.
fn check_keys(props: &Node, report: &mut Report<'_>) {
    let known: BTreeSet<&str> = FUNCTION.iter().filter_map(|row| row.0.split('.').next()).collect();
    for (key, _) in pairs(props) {
        let name = key.scalar().unwrap_or_default();
        if known.contains(name) {
            continue;
        }
        let near = known.iter().find(|known| strsim::damerau_levenshtein(&known.to_lowercase(), &name.to_lowercase()) <= 2 && known.len() > 3);
        if let Some(near) = near {
            let message = format!("`{}` is no key of a function", shown(name));
            report.add(key.at, Problem::new(code::FILE_UNKNOWN_KEY, message).hint(format!("did you mean `{near}`?")));
        }
    }
}

fn check_numbers(props: &Node, report: &mut Report<'_>) {
    for (way, least, most) in NUMBERS {
        let Some(node) = at(props, way) else { continue };
        let name = way.join(".");
        let value = node.scalar().and_then(|text| text.parse::<f64>().ok());
        let whole = name == "cpu" || value.is_none_or(|value| value.fract() == 0.0);
        if value.is_none_or(|value| !(least..=most).contains(&value)) || !whole {
            let kind = if name == "cpu" { "a number" } else { "a whole number" };
            let seen = node.scalar().map_or_else(|| node.described().to_owned(), |text| format!("`{}`", shown(text)));
            report.add(
                node.at,
                wrong(format!("`{name}` is {kind}, and here it is {seen}"), format!("write {kind} from {least} to {most}")),
            );
        } else if name == "memorySize" && value.is_some_and(|value| value % 64.0 != 0.0) {
            report.add(node.at, wrong(format!("`memorySize` is a multiple of 64 MB, not {}", node.scalar().unwrap_or_default()), "write 128, 512 or 1024"));
        }
    }
}

/// Text of digits becomes a number.
fn as_number(config: &mut Map<String, Value>, way: &[&str]) {
    let Some((last, before)) = way.split_last() else { return };
    let inner = before.iter().try_fold(config, |map, key| map.get_mut(*key).and_then(Value::as_object_mut));
    if let Some(inner) = inner
        && let Some(Value::String(text)) = inner.get(*last)
        && let Some(number) = crate::node::number(text)
    {
        inner.insert((*last).to_owned(), number);
    }
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
            report.add(node.at, wrong(message, "use 1 to 64 letters, digits, `-` or `_`, beginning with a letter or `_`"));
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

fn environment(node: &Node, report: &mut Report<'_>) -> Map<String, Value> {
    let mut all = Map::new();
    if !matches!(node.kind, Kind::Map(_) | Kind::Null) {
        let message = format!("`environmentVariables` is a map of names and values; here it is {}", node.described());
        report.add(node.at, wrong(message, "write each variable as `NAME: value` below it"));
    }
    for (key, value) in pairs(node) {
        let name = key.scalar().unwrap_or_default();
        let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !begins || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let message = format!("`{}` cannot be the name of an environment variable", shown(name));
            report.add(key.at, wrong(message, "use letters, digits and `_`, beginning with a letter"));
        }
        let text = match &value.kind {
            Kind::Null => Some(String::new()),
            _ => value.scalar().map(str::to_owned),
        };
        match text {
            Some(text) => drop(all.insert(name.to_owned(), text.into())),
            None => {
                let message = format!("the variable `{}` is {}", shown(name), value.described());
                report.add(value.at, wrong(message, "write text, JSON between quotes if it has parts"));
            }
        }
    }
    all
}

/// What a function needs for its program to start.
fn check_program(
    input: &FunctionInput<'_>,
    runtime: Option<&str>,
    config: &mut Map<String, Value>,
    report: &mut Report<'_>,
) {
    let props = input.props;
    if runtime == Some("custom-container") && text_at(props, &["customContainerConfig", "image"]).is_none() {
        let problem = Problem::new(code::FILE_MISSING_KEY, "`customContainerConfig.image` is missing");
        report.add(input.key.at, problem.hint("write `customContainerConfig: {image: IMAGE, port: 9000}`"));
    }
    let handled = runtime.is_some_and(|runtime| !runtime.starts_with("custom"));
    match get(props, "handler") {
        Some(node) if handled && !node.scalar().is_some_and(|text| text.contains('.')) => {
            let seen = shown(node.scalar().unwrap_or_default());
            report.add(node.at, wrong(format!("`handler` is MODULE.FUNCTION, not `{seen}`"), "write `handler: index.handler`"));
        }
        Some(_) => {}
        None if handled => {
            let problem = Problem::new(code::FILE_MISSING_KEY, "`handler` is missing");
            report.add(input.key.at, problem.hint("write `handler: index.handler`"));
        }
        None => drop(config.insert("handler".to_owned(), "index.handler".into())),
    }
    for (field, name) in [("customRuntimeConfig", "command"), ("customRuntimeConfig", "args"), ("customContainerConfig", "command"), ("customContainerConfig", "entrypoint")] {
        let Some(node) = at(props, &[field, name]) else { continue };
        let is_list = matches!(node.kind, Kind::List(_) | Kind::Null);
        if !is_list || items(node).iter().any(|item| item.scalar().is_none()) {
            let message = format!("`{field}.{name}` is a list of words; here it is {}", node.described());
            report.add(node.at, wrong(message, "write [python3, app.py]"));
        } else if let Some(Value::Array(words)) = config.get_mut(field).and_then(|own| own.get_mut(name)) {
            // A port between other words is a number to YAML.
            for (word, item) in words.iter_mut().zip(items(node)) {
                *word = item.scalar().unwrap_or_default().into();
            }
        }
    }
    for hook in ["initializer", "preStop"] {
        if let Some(node) = at(props, &["instanceLifecycleConfig", hook, "command"]).filter(|node| !items(node).is_empty()) {
            let message = format!("`{hook}` with a command is not run here");
            let problem = Problem::new(code::FILE_UNSUPPORTED, message);
            report.add(node.at, problem.hint("use a handler: the program answers POST /initialize or GET /pre-stop"));
        }
    }
    if let Some(timeout) = config
        .get_mut("instanceLifecycleConfig")
        .and_then(|lifecycle| lifecycle.get_mut("preStop"))
        .and_then(|hook| hook.get_mut("timeout"))
        && timeout.as_u64().is_some_and(|seconds| seconds > LONGEST_PRE_STOP)
    {
        *timeout = LONGEST_PRE_STOP.into();
    }
    if let Some(node) = at(props, &["gpuConfig", "gpuMemorySize"])
        && node.scalar().and_then(|text| text.parse::<u64>().ok()).is_some_and(|memory| memory % 1_024 != 0)
    {
        report.add(node.at, wrong("`gpuConfig.gpuMemorySize` is a multiple of 1024 MB", "write 8192 for 8 GB"));
    }
}

fn text_at<'a>(props: &'a Node, way: &[&str]) -> Option<&'a str> {
    at(props, way).and_then(Node::scalar).filter(|text| !text.is_empty())
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
        Some(node) if text(node, "ossBucketName").is_some() || !pairs(node).is_empty() => {
            report.add(node.at, remote("in a bucket"));
            None
        }
        Some(node) => {
            let path = node.scalar().unwrap_or_default();
            if path.contains("://") {
                report.add(node.at, remote("at an address"));
                return None;
            }
            let path = absolute(input.source.directory, path).into();
            Some(CodeSource { path, place: report.place(node.at) })
        }
    }
}
