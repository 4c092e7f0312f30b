//! Checks of props, each with its place: slips in keys, numbers, placeholders, variables, and what a program needs to start.

use std::collections::BTreeSet;

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::{Kind, Node};
use kip_spec::{Problem, code};
use serde_json::{Map, Value};

use crate::effects::{FUNCTION, is_wiring};
use crate::node::{at, get, items, pairs};

/// Numbers with their range. Some are written between quotes, or come from the environment as text.
pub(crate) const NUMBERS: [(&[&str], f64, f64); 16] = [
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
    if is_wiring(FUNCTION, way) {
        report.warn(node.at, problem);
    } else {
        report.add(node.at, problem);
    }
}

/// A key that is nearly one of the component's is a slip. Others are reported as without effect.
pub(crate) fn check_keys(props: &Node, report: &mut Report<'_>) {
    let known: BTreeSet<&str> = FUNCTION.iter().filter_map(|row| row.0.split('.').next()).collect();
    for (key, _) in pairs(props) {
        let name = key.scalar().unwrap_or_default();
        if known.contains(name) {
            continue;
        }
        let near = known.iter().find(|known| {
            strsim::damerau_levenshtein(&known.to_lowercase(), &name.to_lowercase()) <= 2 && known.len() > 3
        });
        if let Some(near) = near {
            let message = format!("`{}` is no key of a function", shown(name));
            report.add(key.at, Problem::new(code::FILE_UNKNOWN_KEY, message).hint(format!("did you mean `{near}`?")));
        }
    }
}

pub(crate) fn check_numbers(props: &Node, report: &mut Report<'_>) {
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
                wrong(
                    format!("`{name}` is {kind}, and here it is {seen}"),
                    format!("write {kind} from {least} to {most}"),
                ),
            );
        } else if name == "memorySize" && value.is_some_and(|value| value % 64.0 != 0.0) {
            report.add(
                node.at,
                wrong(
                    format!("`memorySize` is a multiple of 64 MB, not {}", node.scalar().unwrap_or_default()),
                    "write 128, 512 or 1024",
                ),
            );
        }
    }
}

/// Text of digits becomes a number.
pub(crate) fn as_number(config: &mut Map<String, Value>, way: &[&str]) {
    let Some((last, before)) = way.split_last() else { return };
    let inner = before.iter().try_fold(config, |map, key| map.get_mut(*key).and_then(Value::as_object_mut));
    if let Some(inner) = inner
        && let Some(Value::String(text)) = inner.get(*last)
        && let Some(number) = crate::node::number(text)
    {
        inner.insert((*last).to_owned(), number);
    }
}

pub(crate) fn environment(node: &Node, report: &mut Report<'_>) -> Map<String, Value> {
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
pub(crate) fn check_program(
    (key, props): (&Node, &Node),
    runtime: Option<&str>,
    config: &mut Map<String, Value>,
    report: &mut Report<'_>,
) {
    if runtime == Some("custom-container") && text_at(props, &["customContainerConfig", "image"]).is_none() {
        let problem = Problem::new(code::FILE_MISSING_KEY, "`customContainerConfig.image` is missing");
        report.add(key.at, problem.hint("write `customContainerConfig: {image: IMAGE, port: 9000}`"));
    }
    let handled = runtime.is_some_and(|runtime| !runtime.starts_with("custom"));
    match get(props, "handler") {
        Some(node) if handled && !node.scalar().is_some_and(|text| text.contains('.')) => {
            let seen = shown(node.scalar().unwrap_or_default());
            report.add(
                node.at,
                wrong(format!("`handler` is MODULE.FUNCTION, not `{seen}`"), "write `handler: index.handler`"),
            );
        }
        Some(_) => {}
        None if handled => {
            let problem = Problem::new(code::FILE_MISSING_KEY, "`handler` is missing");
            report.add(key.at, problem.hint("write `handler: index.handler`"));
        }
        None => drop(config.insert("handler".to_owned(), "index.handler".into())),
    }
    for (field, name) in [
        ("customRuntimeConfig", "command"),
        ("customRuntimeConfig", "args"),
        ("customContainerConfig", "command"),
        ("customContainerConfig", "entrypoint"),
    ] {
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
        if let Some(node) =
            at(props, &["instanceLifecycleConfig", hook, "command"]).filter(|node| !items(node).is_empty())
        {
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
