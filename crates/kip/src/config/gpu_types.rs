//! `[gpu_types]` of `kipwake.toml`: the cards of this host that stand for the vendor's types.

use std::collections::BTreeMap;

use kip_spec::Problem;

use super::value::invalid;

/// Entries of the table at most.
const MOST: usize = 64;

/// Reads the table: `"fc.gpu.tesla.1" = "T4"`.
pub(super) fn read(value: &toml::Value) -> Result<BTreeMap<String, String>, Problem> {
    const HINT: &str = "write [gpu_types] and below it \"fc.gpu.tesla.1\" = \"T4\", the type of a [[device]]";
    let toml::Value::Table(table) = value else {
        return Err(invalid("`gpu_types` must be a table".to_owned()).hint(HINT));
    };
    if table.len() > MOST {
        return Err(invalid(format!("gpu_types has {} entries; {MOST} are the most", table.len())));
    }
    let mut types = BTreeMap::new();
    for (theirs, ours) in table {
        match ours {
            toml::Value::String(text) if !text.trim().is_empty() => types.insert(theirs.clone(), text.clone()),
            other => {
                let message = format!("gpu_types: `{theirs}` must be the type of a device, not {}", other.type_str());
                return Err(invalid(message).hint(HINT));
            }
        };
    }
    Ok(types)
}

/// What an editor is told of it.
pub(super) fn schema() -> serde_json::Value {
    serde_json::json!({
        "type": "object",
        "description": "device types by the vendor's: \"fc.gpu.tesla.1\" = \"T4\"; others are any card with the memory",
        "additionalProperties": {"type": "string"},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_texts() {
        let of = |text: &str| read(&toml::Value::Table(text.parse().unwrap()));
        assert_eq!(of("\"fc.gpu.tesla.1\" = \"T4\"").unwrap()["fc.gpu.tesla.1"], "T4");
        assert!(of("a = 1").is_err() && of("a = \" \"").is_err() && read(&toml::Value::Integer(1)).is_err());
        // Without quotes, TOML reads the dots as tables.
        assert!(
            of("fc.gpu.tesla.1 = \"T4\"").unwrap_err().hint.is_some_and(|hint| hint.contains("\"fc.gpu.tesla.1\""))
        );
    }
}
