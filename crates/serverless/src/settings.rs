//! What belongs to a function and is put beside it: triggers, asynchronous calls, provisioned instances, tags.

use std::collections::BTreeMap;

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::{Kind, Node};
use kip_spec::{Problem, code};
use serde_json::{Map, Value};

use crate::checks::wrong;
use crate::node::{get, items, json, pairs, text};
use crate::project::DeclaredTrigger;

const TYPES: [&str; 8] = ["http", "timer", "oss", "log", "mns_topic", "cdn_events", "tablestore", "eventbridge"];
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"];
/// Fields of a trigger that are kept.
const KEPT: [&str; 3] = ["description", "invocationRole", "sourceArn"];

/// The triggers of a function.
pub(crate) fn triggers(props: &Node, report: &mut Report<'_>) -> Vec<DeclaredTrigger> {
    let Some(list) = get(props, "triggers") else { return Vec::new() };
    if !matches!(list.kind, Kind::List(_) | Kind::Null) {
        let message = format!("`triggers` is a list; here it is {}", list.described());
        report.add(list.at, wrong(message, "write each trigger as `- triggerName: …`"));
    }
    let mut all: Vec<DeclaredTrigger> = Vec::new();
    for node in items(list) {
        let Some(trigger) = trigger(node, report) else { continue };
        if all.iter().any(|other| other.name == trigger.name) {
            let message = format!("two triggers have the name `{}`", shown(&trigger.name));
            report.add(node.at, wrong(message, "rename one of them"));
            continue;
        }
        all.push(trigger);
    }
    all
}

fn trigger(node: &Node, report: &mut Report<'_>) -> Option<DeclaredTrigger> {
    let missing = |key: &str| {
        let hint = format!("write `{key}:` for each trigger");
        Problem::new(code::FILE_MISSING_KEY, format!("a trigger has no `{key}`")).hint(hint)
    };
    let Some(name) = text(node, "triggerName") else {
        report.add(node.at, missing("triggerName"));
        return None;
    };
    let Some(kind) = text(node, "triggerType") else {
        report.add(node.at, missing("triggerType"));
        return None;
    };
    if !TYPES.contains(&kind) {
        let at = get(node, "triggerType").map_or(node.at, |node| node.at);
        let message = format!("`{}` is no type of trigger", shown(kind));
        report.add(at, wrong(message, format!("types are {}", TYPES.join(", "))));
        return None;
    }
    if let Some(config) = get(node, "triggerConfig") {
        match kind {
            "http" => check_http(config, report),
            "timer" => check_timer(config, report),
            _ => {}
        }
    } else if kind == "timer" {
        report.add(node.at, missing("triggerConfig"));
    }
    let config = get(node, "triggerConfig").map(json).filter(Value::is_object);
    let mut other = Map::new();
    for key in KEPT {
        if let Some(value) = text(node, key) {
            other.insert(key.to_owned(), value.into());
        }
    }
    Some(DeclaredTrigger {
        name: name.to_owned(),
        kind: kind.to_owned(),
        qualifier: text(node, "qualifier").unwrap_or("LATEST").to_owned(),
        config: config.unwrap_or_else(|| Value::Object(Map::new())),
        other,
    })
}

fn check_http(config: &Node, report: &mut Report<'_>) {
    if let Some(auth) = get(config, "authType") {
        match auth.scalar().unwrap_or_default() {
            "anonymous" | "function" => {}
            "jwt" if get(config, "authConfig").is_some_and(|of| matches!(of.kind, Kind::Map(_))) => {}
            "jwt" => {
                let problem = Problem::new(code::FILE_MISSING_KEY, "`authType: jwt` has no `authConfig`");
                report.add(
                    auth.at,
                    problem.hint("write `authConfig: {jwks: {keys: [...]}}` with the keys of the issuer"),
                );
            }
            other => {
                let message = format!("`authType` is anonymous, function or jwt, not `{}`", shown(other));
                report.add(auth.at, wrong(message, "write `authType: anonymous`"));
            }
        }
    }
    let Some(methods) = get(config, "methods") else { return };
    if !matches!(methods.kind, Kind::List(_)) {
        let message = format!("`methods` is a list; here it is {}", methods.described());
        report.add(methods.at, wrong(message, "write [GET, POST]"));
    }
    for method in items(methods) {
        if !method.scalar().is_some_and(|method| METHODS.contains(&method)) {
            let message = format!("`{}` is no method", shown(method.scalar().unwrap_or_default()));
            report.add(method.at, wrong(message, format!("methods are {}", METHODS.join(", "))));
        }
    }
}

fn check_timer(config: &Node, report: &mut Report<'_>) {
    let Some(node) = get(config, "cronExpression") else {
        let problem = Problem::new(code::FILE_MISSING_KEY, "a timer has no `cronExpression`");
        report.add(config.at, problem.hint("write `cronExpression: '@every 5m'` or `'0 0 8 * * *'`"));
        return;
    };
    let written = node.scalar().unwrap_or_default().trim();
    let fields = match written.strip_prefix("CRON_TZ=") {
        Some(rest) => rest.split_once(' ').map_or("", |(_, fields)| fields),
        None => written,
    };
    let fault = match fields.strip_prefix("@every") {
        Some(every) => every.trim().parse::<kip_spec::Millis>().err().map(|error| error.to_string()),
        None if fields.split_whitespace().count() != 6 => Some("a schedule has six fields, seconds first".to_owned()),
        None => fields.replace('?', "*").parse::<kip_spec::scaling::Cron>().err().map(|error| error.to_string()),
    };
    if let Some(fault) = fault {
        let message = format!("`{}` is no schedule: {fault}", shown(written));
        report.add(
            node.at,
            wrong(message, "write `'@every 5m'`, or six fields that begin with the seconds: `'0 0 8 * * *'`"),
        );
    }
}

/// The asynchronous configuration with its qualifier. A destination that is no function is left out.
pub(crate) fn asynchronous(props: &Node, report: &mut Report<'_>) -> Option<(String, Value)> {
    let node = get(props, "asyncInvokeConfig")?;
    if pairs(node).is_empty() {
        return None;
    }
    let mut value = json(node);
    let fields = value.as_object_mut()?;
    let qualifier = fields.remove("qualifier");
    if let Some(destinations) = fields.get_mut("destinationConfig").and_then(Value::as_object_mut) {
        destinations.retain(|_, of| of["destination"].as_str().is_some_and(is_function));
    }
    for (way, most) in [("maxAsyncRetryAttempts", 8.0), ("maxAsyncEventAgeInSeconds", 604_800.0)] {
        if let Some(number) = get(node, way)
            && number
                .scalar()
                .and_then(|text| text.parse::<f64>().ok())
                .is_none_or(|value| !(0.0..=most).contains(&value))
        {
            let message = format!("`asyncInvokeConfig.{way}` is a whole number");
            report.add(number.at, wrong(message, format!("write a number from 0 to {most}")));
        }
    }
    let qualifier = qualifier.and_then(|text| text.as_str().map(str::to_owned));
    Some((qualifier.unwrap_or_else(|| "LATEST".to_owned()), value))
}

/// Whether a destination names a function: `acs:fc:…:functions/NAME`.
fn is_function(destination: &str) -> bool {
    destination.contains(":fc:") && destination.contains("functions/") && !destination.contains('<')
}

/// The input of provisioned instances.
pub(crate) fn provision(props: &Node, report: &mut Report<'_>) -> Option<Value> {
    let node = get(props, "provisionConfig")?;
    let mut value = json(node);
    let fields = value.as_object_mut()?;
    fields.remove("mode");
    if let Some(target) = fields.remove("target") {
        fields.entry("defaultTarget").or_insert(target);
    }
    if let Err(faults) = kip_manifest::provision::read(&value) {
        let message = format!("`provisionConfig` cannot be used: {}", faults.join("; "));
        report.add(node.at, wrong(message, "see docs/scaling-fc.md for its fields"));
        return None;
    }
    Some(value)
}

/// The input of elastic scaling, without the pool that is not here.
pub(crate) fn scaling(props: &Node) -> Option<Value> {
    let mut value = json(get(props, "scalingConfig")?);
    value.as_object_mut()?.remove("residentPoolId");
    Some(value)
}

/// Tags by key.
pub(crate) fn tags(props: &Node) -> BTreeMap<String, String> {
    let Some(node) = get(props, "tags") else { return BTreeMap::new() };
    let of = |item: &Node| {
        let either = |small: &str, large: &str| text(item, small).or_else(|| text(item, large)).map(str::to_owned);
        Some((either("key", "Key")?, either("value", "Value").unwrap_or_default()))
    };
    items(node).iter().filter_map(of).collect()
}
