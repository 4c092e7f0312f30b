//! How an instance gives its memory back and how its way back is checked: `lifecycle.sleep`, `idle.park`, `idle.spill`,
//! `latency`, `canary`.

use kip_spec::function::{Idle, Lifecycle, defaults};
use kip_spec::sleep::{CallMethod, Canary, CanaryValue, InstanceCall, RungUse, Scalar, SleepCalls};
use kip_spec::{Finite, Millis, code};

use crate::keys;
use crate::report::{Report, shown};
use crate::section::{Field, Section};
use crate::tree::{Kind, Node};
use crate::value::{count, duration, path, path_of, refuse, word, wrong_type};

/// Bytes of a body at most.
const LARGEST_BODY: usize = 1 << 20;
/// Requests in one direction at most.
const MOST_CALLS: usize = 16;
/// Values that a canary compares at most.
const MOST_VALUES: usize = 64;
/// A canary's answer is late after this, unless it says otherwise.
const CANARY_TIMEOUT: Millis = Millis::from_secs(10);

const METHODS: [(&str, CallMethod); 4] =
    [("GET", CallMethod::Get), ("POST", CallMethod::Post), ("PUT", CallMethod::Put), ("DELETE", CallMethod::Delete)];

/// `lifecycle.sleep`.
pub(crate) fn calls(lifecycle: &Section<'_>, report: &mut Report<'_>) -> Option<SleepCalls> {
    let section = lifecycle.section("sleep", &keys::SLEEP, report)?;
    let before = report.count();
    let mut direction = |key: &'static str| {
        let Some(field) = section.field(key) else {
            if !section.is_partial {
                let field = lifecycle.field("sleep")?;
                let problem = refuse(&field, code::MANIFEST_MISSING_KEY, format!("`{key}` is missing"));
                report.add(field.node.at, problem.hint("write both, such as `{down: /sleep?level=1, up: /wake_up}`"));
            }
            return None;
        };
        // A program may take its memory again by itself, with its next request.
        list(&field, usize::from(key == "down"), report)
    };
    let (down, up) = (direction("down"), direction("up"));
    (report.count() == before).then_some(())?;
    Some(SleepCalls { down: down?, up: up? })
}

/// One request, or several in their order.
fn list(field: &Field<'_>, least: usize, report: &mut Report<'_>) -> Option<Vec<InstanceCall>> {
    let nodes: Vec<&Node> = match &field.node.kind {
        Kind::List(nodes) => nodes.iter().collect(),
        _ => vec![field.node],
    };
    if nodes.len() < least || nodes.len() > MOST_CALLS {
        let message = format!("a list of {least} to {MOST_CALLS} requests is expected");
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message));
        return None;
    }
    nodes.into_iter().map(|node| call(node, field, report)).collect()
}

/// A path alone, or a map.
fn call(node: &Node, field: &Field<'_>, report: &mut Report<'_>) -> Option<InstanceCall> {
    let default =
        |path: String| InstanceCall { method: CallMethod::Post, path, body: None, timeout: defaults::HOOK_TIMEOUT };
    match &node.kind {
        Kind::Text(text) => path_of(text, field, node.at, report).map(default),
        Kind::Map(pairs) => {
            let layer = crate::section::Layer { pairs, owner: &field.path };
            let section = Section::open(vec![layer], node.at, &keys::CALL, report);
            let Some(at) = section.field("path") else {
                let problem = refuse(field, code::MANIFEST_MISSING_KEY, "`path` is missing");
                report.add(node.at, problem.hint("write the path that is called, such as `path: /wake_up`"));
                return None;
            };
            let call = default(path(&at, report)?);
            request(&section, call, report)
        }
        _ => {
            wrong_type(field, "a path, a map of `path`, `method`, `body` and `timeout`, or a list of them", report);
            None
        }
    }
}

/// Method, body and timeout over what there is without them.
fn request(section: &Section<'_>, mut call: InstanceCall, report: &mut Report<'_>) -> Option<InstanceCall> {
    if let Some(field) = section.field("method") {
        call.method = word(&field, &METHODS, &[], report)?;
    }
    if let Some(field) = section.field("timeout") {
        call.timeout = duration(&field, false, report)?;
    }
    if let Some(field) = section.field("body") {
        call.body = Some(body(&field, report)?);
    }
    Some(call)
}

/// A text as it is, or a map or list, which is sent as JSON.
fn body(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = match &field.node.kind {
        Kind::Text(text) => text.clone(),
        Kind::Map(_) | Kind::List(_) => json(field.node).to_string(),
        _ => {
            wrong_type(field, "text, or a map or list that is sent as JSON", report);
            return None;
        }
    };
    if text.len() > LARGEST_BODY {
        let message = format!("a body of {} bytes is over the limit of {LARGEST_BODY}", text.len());
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message));
        return None;
    }
    Some(text)
}

/// A node as JSON. Numbers that JSON cannot hold become text.
fn json(node: &Node) -> serde_json::Value {
    match &node.kind {
        Kind::Null => serde_json::Value::Null,
        Kind::Flag(flag) => (*flag).into(),
        Kind::Number(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
        Kind::Text(text) => text.as_str().into(),
        Kind::List(nodes) => nodes.iter().map(json).collect(),
        Kind::Map(pairs) => {
            let pair = |(key, value): &(Node, Node)| (key.scalar().unwrap_or_default().to_owned(), json(value));
            serde_json::Value::Object(pairs.iter().map(pair).collect())
        }
    }
}

/// `idle.park` and `idle.spill`.
pub(crate) fn rungs(section: &Section<'_>, idle: &mut Idle, report: &mut Report<'_>) {
    for (key, rung) in [("park", &mut idle.park), ("spill", &mut idle.spill)] {
        let Some(field) = section.field(key) else { continue };
        let read = match field.node.scalar() {
            Some("never") => Some(RungUse::Never),
            Some("when-needed") => Some(RungUse::WhenNeeded),
            _ if !matches!(field.node.kind, Kind::Number(_) | Kind::Text(_)) => {
                wrong_type(&field, "a duration such as 60s, `when-needed`, or `never`", report);
                None
            }
            _ => duration(&field, true, report).map(RungUse::After),
        };
        *rung = read.unwrap_or_default();
    }
}

/// What `idle` says and no other key makes possible.
pub(crate) fn check(function: &Section<'_>, idle: Idle, lifecycle: &Lifecycle, report: &mut Report<'_>) {
    let Some(section) = function.section("idle", &keys::IDLE, report) else { return };
    if let (Some(field), Some(_), None) = (section.field("park"), idle.park.after(), &lifecycle.sleep) {
        let problem = refuse(&field, code::MANIFEST_CONTRADICTION, "the program has no `lifecycle.sleep`");
        let hint = "name the requests by which it gives its device memory back, or remove the key";
        report.warn(field.node.at, problem.hint(hint));
    }
}

/// `latency`.
pub(crate) fn wake(function: &Section<'_>, report: &mut Report<'_>) -> Option<Millis> {
    let section = function.section("latency", &keys::LATENCY, report)?;
    section.field("wake").and_then(|field| duration(&field, false, report))
}

/// `canary`.
pub(crate) fn canary(function: &Section<'_>, report: &mut Report<'_>) -> Option<Box<Canary>> {
    let section = function.section("canary", &keys::CANARY, report)?;
    let Some(at) = section.field("path") else {
        if let Some(field) = function.field("canary").filter(|_| !section.is_partial) {
            let problem = refuse(&field, code::MANIFEST_MISSING_KEY, "`path` is missing");
            report.add(field.node.at, problem.hint("write the path of the request, such as `path: /healthz`"));
        }
        return None;
    };
    let before = report.count();
    // A body asks for POST, as with curl.
    let method = if section.field("body").is_some() { CallMethod::Post } else { CallMethod::Get };
    let call = InstanceCall { method, path: path(&at, report)?, body: None, timeout: CANARY_TIMEOUT };
    let call = request(&section, call, report);
    let status = section.field("status").map_or(Some(200), |field| count(&field, 100..=599, report));
    let tolerance =
        section.field("tolerance").map_or_else(|| Some(Finite::default()), |field| tolerance(&field, report));
    let entries = section.entries("json", report);
    if entries.len() > MOST_VALUES
        && let Some(field) = section.field("json")
    {
        let message = format!("{} values are over the limit of {MOST_VALUES}", entries.len());
        report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
    }
    let values: Vec<CanaryValue> = entries.iter().filter_map(|field| value(field, report)).collect();
    (report.count() == before).then_some(())?;
    let status = u16::try_from(status?).ok()?;
    Some(Box::new(Canary { call: call?, status, values, tolerance: tolerance? }))
}

fn value(field: &Field<'_>, report: &mut Report<'_>) -> Option<CanaryValue> {
    if !field.key.is_empty() && !field.key.starts_with('/') {
        let message = format!("`{}` is not a JSON pointer", shown(field.key));
        let problem = refuse(field, code::MANIFEST_BAD_VALUE, message);
        report.add(field.key_at, problem.hint("write the way to the value, such as `/choices/0/text`"));
        return None;
    }
    let expected = match &field.node.kind {
        Kind::Null => Scalar::Null,
        Kind::Flag(flag) => Scalar::Flag(*flag),
        Kind::Text(text) => Scalar::Text(text.clone()),
        Kind::Number(text) => Scalar::Number(text.parse().ok().and_then(Finite::new)?),
        Kind::List(_) | Kind::Map(_) => {
            wrong_type(field, "text, a number, true, false or null", report);
            return None;
        }
    };
    Some(CanaryValue { pointer: field.key.to_owned(), expected })
}

fn tolerance(field: &Field<'_>, report: &mut Report<'_>) -> Option<Finite> {
    let Kind::Number(text) = &field.node.kind else {
        wrong_type(field, "a number such as 0.01", report);
        return None;
    };
    let read = text.parse().ok().filter(|number| (0.0..=1.0).contains(number)).and_then(Finite::new);
    if read.is_none() {
        let message = format!("`{}` is not a number from 0 to 1", shown(text));
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message));
    }
    read
}
