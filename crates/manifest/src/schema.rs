//! The JSON Schema of `kip.yaml`, for editors. It is committed as `docs/schema/kip.schema.json`.

use serde_json::{Value, json};

use crate::wire::Document;

/// The JSON Schema of `kip.yaml`.
pub fn schema() -> Value {
    let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<Document>().to_value();
    let definitions = &mut schema["$defs"];
    // `defaults` holds what a function does, but for what only one function can have.
    let mut defaults = definitions["Function"].clone();
    if let Some(properties) = defaults["properties"].as_object_mut() {
        const OWN: [&str; 12] = [
            "dir",
            "run",
            "model",
            "image",
            "entrypoint",
            "pull",
            "container",
            "writable",
            "traffic",
            "rollout",
            "names",
            "data",
        ];
        properties.retain(|key, _| !OWN.contains(&key.as_str()));
    }
    defaults["description"] =
        json!("Values for every function that does not say otherwise; maps are merged key by key.");
    definitions["Defaults"] = defaults;
    definitions["Function"]["oneOf"] = json!([
        { "required": ["run"], "not": { "required": ["image"] } },
        { "required": ["model"] },
        { "required": ["image"] },
    ]);
    definitions["Job"]["anyOf"] = json!([{ "required": ["run"] }, { "required": ["image"] }]);
    for key in ["functions", "jobs"] {
        let named = &mut schema["properties"][key];
        named["propertyNames"] = json!({ "pattern": "^[A-Za-z_][A-Za-z0-9_-]{0,63}$" });
        named["minProperties"] = json!(1);
        named["maxProperties"] = json!(crate::MOST_FUNCTIONS);
    }
    schema["anyOf"] = json!([{ "required": ["functions"] }, { "required": ["jobs"] }]);
    tidy(&mut schema);
    schema
}

/// A key with nothing behind it is an error, so `null` is no choice where a key may be left out; and the formats are Rust's.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| !(key == "default" && value.is_null() || key == "format" && value.is_string()));
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|choice| choice != &json!({ "type": "null" }));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    map.remove("anyOf");
                    map.extend(only);
                }
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
