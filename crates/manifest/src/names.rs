//! `names`: further names of a function's model, and what each does to a request.

use std::collections::{BTreeMap, BTreeSet};

use kip_spec::model_name::NameRewrite;
use kip_spec::{ModelName, code};
use serde_json::Value;

use crate::keys;
use crate::report::{Report, shown};
use crate::section::{Field, Section};
use crate::tree::{Kind, Node};
use crate::value::{refuse, texts, wrong_type};

const MOST_NAMES: usize = 100;
/// Parameters that a name sets or strips at most, bytes of them as JSON, and maps in maps.
const MOST_PARAMETERS: usize = 50;
const LONGEST: usize = 16 << 10;
const DEEPEST: usize = 16;
const NAMES: &str = "write names such as [Qwen/Qwen3-8B, qwen2.5:7b]: letters, digits, `.`, `_`, `-`, `:`, `+` and `/`, beginning and ending with a letter or digit; or a map: {name: fast, model: Qwen/Qwen3-8B, set: {temperature: 0}, strip: [logprobs]}";

/// The names in their order, and those that rewrite.
pub(crate) fn read(
    function: &Section<'_>,
    report: &mut Report<'_>,
) -> (Vec<ModelName>, BTreeMap<ModelName, NameRewrite>) {
    let (mut names, mut rewrites) = (Vec::new(), BTreeMap::new());
    let Some(field) = function.field("names") else { return (names, rewrites) };
    let Kind::List(items) = &field.node.kind else {
        wrong_type(&field, "a list", report);
        return (names, rewrites);
    };
    for item in items {
        let (name, rewrite) = match &item.kind {
            Kind::Map(_) => {
                let Some(layer) = Section::layer(item, "names", report) else { continue };
                let section = Section::open(vec![layer], item.at, &keys::NAME, report);
                let name = section.field("name").map(|name| name.node);
                (name, Some(rewrite(&section, report)))
            }
            _ => (Some(item), None),
        };
        let text = name.and_then(Node::scalar).unwrap_or_default();
        let Ok(name) = text.parse::<ModelName>() else {
            let message = match name {
                Some(_) => format!("`{}` does not belong here", shown(text)),
                None => "`name` is missing".to_owned(),
            };
            report.add(item.at, refuse(&field, code::MANIFEST_BAD_VALUE, message).hint(NAMES));
            continue;
        };
        let twice = names.contains(&name);
        if twice && (rewrite.is_some() || rewrites.contains_key(&name)) {
            let message = format!("the name `{name}` stands twice, and what it does to a request would not be clear");
            report.add(item.at, refuse(&field, code::MANIFEST_BAD_VALUE, message).hint("leave one of them"));
            continue;
        }
        if let Some(rewrite) = rewrite.filter(|rewrite| !rewrite.changes_nothing()) {
            rewrites.insert(name.clone(), rewrite);
        }
        if !twice {
            names.push(name);
        }
    }
    if names.len() > MOST_NAMES {
        let message = format!("more than {MOST_NAMES} names");
        report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
    }
    (names, rewrites)
}

fn rewrite(section: &Section<'_>, report: &mut Report<'_>) -> NameRewrite {
    let model = section.field("model").and_then(|field| {
        let text = field.node.scalar().unwrap_or_default();
        if text.is_empty() || text.len() > 512 || text.chars().any(char::is_control) {
            let message = format!("`{}` is no name of a model", shown(text));
            report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
            return None;
        }
        Some(text.to_owned())
    });
    let entries = section.entries("set", report);
    let set: BTreeMap<String, Value> = entries.iter().filter_map(|field| setting(field, report)).collect();
    let strip = section.field("strip").map(|field| texts(&field, is_parameter, PARAMETERS, report));
    let strip: BTreeSet<String> = strip.into_iter().flatten().collect();
    let both = strip.iter().find(|name| set.contains_key(*name) || (model.is_some() && *name == "model"));
    let size = set.values().map(|value| value.to_string().len()).sum::<usize>();
    let fault = match both {
        Some(name) => Some(format!("`{}` is both set and stripped", shown(name))),
        None if set.contains_key("model") => Some("`model` is set by the key `model` beside `set`".to_owned()),
        None if set.len() > MOST_PARAMETERS || strip.len() > MOST_PARAMETERS || size > LONGEST => {
            Some(format!("more than {MOST_PARAMETERS} parameters, or more than {LONGEST} bytes of them"))
        }
        None => None,
    };
    if let (Some(message), Some(field)) = (fault, section.field("strip").or_else(|| section.field("set"))) {
        report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
    }
    NameRewrite { model, set, strip }
}

const PARAMETERS: &str = "write names of parameters such as [logprobs, user]";

fn is_parameter(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-[]".contains(&byte))
}

fn setting(field: &Field<'_>, report: &mut Report<'_>) -> Option<(String, Value)> {
    if !is_parameter(field.key) {
        let message = format!("`{}` is no name of a parameter", shown(field.key));
        report.add(field.key_at, refuse(field, code::MANIFEST_BAD_VALUE, message));
        return None;
    }
    let value = json(field.node, DEEPEST);
    if value.is_none() {
        wrong_type(field, "a value of JSON", report);
    }
    Some((field.key.to_owned(), value?))
}

/// A value of the file as JSON; nothing where it has no such form.
fn json(node: &Node, deepest: usize) -> Option<Value> {
    let below = deepest.checked_sub(1)?;
    Some(match &node.kind {
        Kind::Null => Value::Null,
        Kind::Flag(flag) => Value::Bool(*flag),
        Kind::Text(text) => Value::String(text.clone()),
        Kind::Number(text) => serde_json::from_str(text).ok().filter(Value::is_number)?,
        Kind::List(items) => items.iter().map(|item| json(item, below)).collect::<Option<Vec<_>>>()?.into(),
        Kind::Map(pairs) => {
            let pair = |(key, value): &(Node, Node)| Some((key.scalar()?.to_owned(), json(value, below)?));
            Value::Object(pairs.iter().map(pair).collect::<Option<_>>()?)
        }
    })
}
