//! One map over another, for `extend`.

use kip_manifest::tree::{Kind, Node};

/// `over` on top of `base`: maps are merged, anything else is replaced.
pub(crate) fn merge(base: &Node, over: &Node) -> Node {
    let (Kind::Map(below), Kind::Map(above)) = (&base.kind, &over.kind) else { return over.clone() };
    let mut pairs = below.clone();
    for (key, value) in above {
        match pairs.iter_mut().find(|(name, _)| name.scalar() == key.scalar()) {
            Some((_, before)) => *before = merge(before, value),
            None => pairs.push((key.clone(), value.clone())),
        }
    }
    Node { at: over.at, kind: Kind::Map(pairs) }
}

/// A map without some of its keys.
pub(crate) fn without(node: &Node, keys: &[&str]) -> Node {
    let Kind::Map(pairs) = &node.kind else { return node.clone() };
    let stays = |(key, _): &&(Node, Node)| !key.scalar().is_some_and(|key| keys.contains(&key));
    Node { at: node.at, kind: Kind::Map(pairs.iter().filter(stays).cloned().collect()) }
}
