//! As much of JSON Schema as our schema uses, so that tests can hold it against the reader.

use serde_json::Value;

/// Whether a value fits a schema; the answer names the first place that does not.
pub(super) fn fits(root: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let object = schema.as_object().ok_or("a schema must be a map")?;
    for (keyword, rule) in object {
        let bad = |why: &str| Err(format!("{place}: {why} ({keyword}: {rule})"));
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" | "default" | "pattern" => {}
            "$ref" => {
                let name = rule.as_str().and_then(|text| text.strip_prefix("#/$defs/")).ok_or("an unknown $ref")?;
                fits(root, &root["$defs"][name], value, place)?;
            }
            "type" => {
                let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                if !kinds.iter().any(|kind| is(value, kind.as_str().unwrap_or_default())) {
                    return bad("wrong type");
                }
            }
            "const" if value != rule => return bad("not the value"),
            "enum" if !rule.as_array().is_some_and(|choices| choices.contains(value)) => return bad("not a choice"),
            "const" | "enum" => {}
            "required" => {
                for key in rule.as_array().into_iter().flatten() {
                    if value.get(key.as_str().unwrap_or_default()).is_none() {
                        return bad("a key is missing");
                    }
                }
            }
            "anyOf" | "oneOf" => {
                let choices = rule.as_array().ok_or("choices must be a list")?;
                let fitting = choices.iter().filter(|choice| fits(root, choice, value, place).is_ok()).count();
                if fitting == 0 || (keyword == "oneOf" && fitting > 1) {
                    return bad("no choice, or more than one, fits");
                }
            }
            "not" => {
                if fits(root, rule, value, place).is_ok() {
                    return bad("what must not fit does");
                }
            }
            "properties" => {
                for (key, rule) in rule.as_object().into_iter().flatten() {
                    if let Some(part) = value.get(key) {
                        fits(root, rule, part, &format!("{place}/{key}"))?;
                    }
                }
            }
            "additionalProperties" => {
                for (key, part) in value.as_object().into_iter().flatten() {
                    if object.get("properties").and_then(|known| known.get(key)).is_some() {
                        continue;
                    }
                    if rule == &Value::Bool(false) {
                        return bad(&format!("`{key}` is unknown"));
                    }
                    fits(root, rule, part, &format!("{place}/{key}"))?;
                }
            }
            "items" => {
                for part in value.as_array().into_iter().flatten() {
                    fits(root, rule, part, place)?;
                }
            }
            "minimum" | "maximum" | "exclusiveMinimum" => {
                if let (Some(value), Some(limit)) = (value.as_f64(), rule.as_f64()) {
                    let inside = match keyword.as_str() {
                        "minimum" => value >= limit,
                        "maximum" => value <= limit,
                        _ => value > limit,
                    };
                    if !inside {
                        return bad("out of range");
                    }
                }
            }
            "minLength" | "maxLength" | "maxItems" => {
                let length = value.as_str().map(|text| text.chars().count()).or_else(|| value.as_array().map(Vec::len));
                if let (Some(length), Some(limit)) = (length.map(|length| length as u64), rule.as_u64())
                    && if keyword == "minLength" { length < limit } else { length > limit }
                {
                    return bad("too short or too long");
                }
            }
            "propertyNames" | "minProperties" | "maxProperties" => {}
            other => return Err(format!("the test knows no keyword `{other}`")),
        }
    }
    Ok(())
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => false,
    }
}
