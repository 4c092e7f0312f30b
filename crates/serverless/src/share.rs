//! The share that a tool of the vendor makes by itself, where a file says `auto`.

use kip_manifest::tree::{Kind, Node, Position};
use kip_spec::share::{AUTO, AUTO_TARGET};

use serde_json::{Value, json};

use crate::node::{map_node, text_node};

/// A `nasConfig` with a path of that share: a folder for each service, or for a function without one.
pub(crate) fn auto(at: Position, name: &str) -> Node {
    let point =
        vec![("serverAddr", text_node(at, format!("{AUTO}:/{name}"))), ("mountDir", text_node(at, AUTO_TARGET))];
    let points = Node { at, kind: Kind::List(vec![map_node(at, point)]) };
    map_node(at, vec![("mountPoints", points)])
}

/// The same of edition 3: `auto`, or `auto|mountDir=/mnt/x|nasDir=/y`. Without these words, both are named after the function.
pub(crate) fn of_word(word: &str, function: &str) -> Option<Value> {
    let mut parts = word.split('|').map(str::trim);
    if parts.next() != Some("auto") {
        return None;
    }
    let (mut target, mut path) = (format!("/mnt/{function}"), format!("/{function}"));
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim() {
            "mountDir" => target = value.trim().to_owned(),
            "nasDir" => path = value.trim().to_owned(),
            _ => {}
        }
    }
    let path = path.trim_matches('/');
    Some(json!({"mountPoints": [{"serverAddr": format!("{AUTO}:/{path}"), "mountDir": target}]}))
}
