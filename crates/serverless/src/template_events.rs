//! Events of a template.yml as triggers of edition 3.

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::{Kind, Node};
use kip_spec::{Problem, code};

use crate::node::{get, items, map_node, pairs, text, text_node};

/// Types of events and of triggers.
const TYPES: [(&str, &str); 8] = [
    ("HTTP", "http"),
    ("Timer", "timer"),
    ("OSS", "oss"),
    ("Log", "log"),
    ("MNSTopic", "mns_topic"),
    ("TableStore", "tablestore"),
    ("CDN", "cdn_events"),
    ("RDS", "eventbridge"),
];
/// Properties of an event that are the trigger's own.
const OWN: [&str; 3] = ["InvocationRole", "SourceArn", "Qualifier"];

/// A value with the first letters of its keys small: `ServerAddr` becomes `serverAddr`, `VSwitchIds` becomes `vSwitchIds`.
pub(crate) fn lowered(node: &Node) -> Node {
    let kind = match &node.kind {
        Kind::List(all) => Kind::List(all.iter().map(lowered).collect()),
        Kind::Map(all) => {
            Kind::Map(all.iter().map(|(key, value)| (text_node(key.at, small(key)), lowered(value))).collect())
        }
        other => other.clone(),
    };
    Node { at: node.at, kind }
}

fn small(key: &Node) -> String {
    let mut letters = key.scalar().unwrap_or_default().chars();
    letters.next().map(|first| first.to_ascii_lowercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// The events of a function, as a map with `triggers`.
pub(crate) fn triggers(function: &Node, report: &mut Report<'_>) -> Node {
    let Some(events) = get(function, "Events") else { return map_node(function.at, Vec::new()) };
    let all = pairs(events).iter().filter_map(|(key, event)| trigger(key, event, report)).collect();
    map_node(function.at, vec![("triggers", Node { at: events.at, kind: Kind::List(all) })])
}

fn trigger(key: &Node, event: &Node, report: &mut Report<'_>) -> Option<Node> {
    let of = text(event, "Type").unwrap_or_default();
    let Some((_, kind)) = TYPES.iter().find(|(theirs, _)| *theirs == of) else {
        let known: Vec<&str> = TYPES.iter().map(|(theirs, _)| *theirs).collect();
        let message = format!("`{}` is no type of event", shown(of));
        let at = get(event, "Type").map_or(key.at, |node| node.at);
        let problem = Problem::new(code::FILE_VALUE, message);
        report.add(at, problem.hint(format!("types are {}", known.join(", "))));
        return None;
    };
    let empty = Node { at: event.at, kind: Kind::Map(Vec::new()) };
    let properties = get(event, "Properties").unwrap_or(&empty);
    let config = match *kind {
        "http" => http(properties),
        "timer" => lowered(properties),
        _ => lowered(properties),
    };
    let mut made = vec![
        ("triggerName", text_node(key.at, key.scalar().unwrap_or_default())),
        ("triggerType", text_node(key.at, *kind)),
        ("triggerConfig", without_own(config)),
    ];
    let names = [("invocationRole", "InvocationRole"), ("sourceArn", "SourceArn"), ("qualifier", "Qualifier")];
    for (ours, theirs) in names {
        if let Some(node) = get(properties, theirs) {
            made.push((ours, node.clone()));
        }
    }
    Some(map_node(key.at, made))
}

fn without_own(config: Node) -> Node {
    let own: Vec<String> = OWN.iter().map(|name| small(&text_node(config.at, *name))).collect();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    crate::merge::without(&config, &own)
}

/// `AuthType: ANONYMOUS` and `Methods` in any case.
fn http(properties: &Node) -> Node {
    let mut made = Vec::new();
    if let Some(auth) = get(properties, "AuthType") {
        made.push(("authType", text_node(auth.at, auth.scalar().unwrap_or_default().to_lowercase())));
    }
    if let Some(methods) = get(properties, "Methods") {
        let all = items(methods);
        let upper = |method: &Node| text_node(method.at, method.scalar().unwrap_or_default().to_uppercase());
        made.push(("methods", Node { at: methods.at, kind: Kind::List(all.iter().map(upper).collect()) }));
    }
    map_node(properties.at, made)
}
