//! The fields in which two declarations differ.

use kip_spec::function::FunctionSpec;
use kip_wire::FieldChange;

/// The fields in which two declarations differ, values that look like secrets hidden.
pub fn differences(from: &FunctionSpec, to: &FunctionSpec) -> Vec<FieldChange> {
    let fields = |spec: &FunctionSpec| {
        let mut fields = std::collections::BTreeMap::new();
        flatten("", &serde_json::to_value(spec).unwrap_or_default(), &mut fields);
        fields
    };
    let (before, after) = (fields(from), fields(to));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown = |name: &str, value: Option<&serde_json::Value>| {
        let last = name.rsplit('.').next().unwrap_or(name);
        value.map(|value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            kip_spec::secret::masked(last, &text).into_owned()
        })
    };
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| FieldChange {
            field: name.clone(),
            before: shown(name, before.get(name)),
            after: shown(name, after.get(name)),
        })
        .collect()
}

fn flatten(name: &str, value: &serde_json::Value, fields: &mut std::collections::BTreeMap<String, serde_json::Value>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, fields);
            }
        }
        serde_json::Value::Null => {}
        other => drop(fields.insert(name.to_owned(), other.clone())),
    }
}
