//! Nodes of a document: looked into, made, and turned into JSON.

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::{Kind, Node, Position};
use kip_spec::{Problem, code};
use serde_json::{Map, Value};

/// The value of a key.
pub(crate) fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    pairs(node).iter().find(|(name, _)| name.scalar() == Some(key)).map(|(_, value)| value)
}

/// The value at a way of keys.
pub(crate) fn at<'a>(node: &'a Node, way: &[&str]) -> Option<&'a Node> {
    way.iter().try_fold(node, |node, key| get(node, key))
}

/// The text of a key, if it is not empty.
pub(crate) fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    get(node, key).and_then(Node::scalar).filter(|text| !text.is_empty())
}

/// Keys and values of a map; none of anything else.
pub(crate) fn pairs(node: &Node) -> &[(Node, Node)] {
    match &node.kind {
        Kind::Map(pairs) => pairs,
        _ => &[],
    }
}

/// The items of a list; none of anything else.
pub(crate) fn items(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::List(items) => items,
        _ => &[],
    }
}

/// A text at a place.
pub(crate) fn text_node(at: Position, text: impl Into<String>) -> Node {
    Node { at, kind: Kind::Text(text.into()) }
}

/// A map at a place.
pub(crate) fn map_node(at: Position, pairs: Vec<(&str, Node)>) -> Node {
    let pairs = pairs.into_iter().map(|(key, value)| (text_node(value.at, key), value)).collect();
    Node { at, kind: Kind::Map(pairs) }
}

/// A value in JSON. A number that JSON does not have stays text.
pub(crate) fn json(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Flag(flag) => Value::Bool(*flag),
        Kind::Number(text) => number(text).unwrap_or_else(|| Value::String(text.clone())),
        Kind::Text(text) => Value::String(text.clone()),
        Kind::List(items) => items.iter().map(json).collect(),
        Kind::Map(pairs) => {
            let pair = |(key, value): &(Node, Node)| (key.scalar().unwrap_or_default().to_owned(), json(value));
            Value::Object(pairs.iter().map(pair).collect::<Map<_, _>>())
        }
    }
}

/// A number of YAML as one of JSON.
pub(crate) fn number(text: &str) -> Option<Value> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    let real: f64 = text.parse().ok()?;
    serde_json::Number::from_f64(real).map(Value::Number)
}

/// A key that is written twice in one map is a slip: only one of the two can hold.
pub(crate) fn check_duplicates(node: &Node, report: &mut Report<'_>) {
    let all = pairs(node);
    for (index, (key, value)) in all.iter().enumerate() {
        let name = key.scalar().unwrap_or_default();
        if name != "<<" && all[..index].iter().any(|(other, _)| other.scalar() == Some(name)) {
            let problem = Problem::new(code::FILE_VALUE, format!("`{}` is written twice", shown(name)));
            report.add(key.at, problem.hint("keep one of the two"));
        }
        check_duplicates(value, report);
    }
    items(node).iter().for_each(|item| check_duplicates(item, report));
}
