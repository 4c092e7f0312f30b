//! What a deployment would change: the wanted state of an object beside the one that is there.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::function::is_empty;

/// A field that is another one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// The way to it: `environmentVariables.MODE`.
    pub path: String,
    /// Before; null if it was not there.
    pub from: Value,
    /// After; null if it goes.
    pub to: Value,
}

/// The change of an object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It is not there.
    Create,
    /// It differs.
    Change(Vec<FieldChange>),
    /// It is there as wanted.
    Keep,
    /// It is there and goes.
    Remove,
}

impl Step {
    /// The step from what is there to what is wanted. Only fields that are wanted count, and an empty value is none.
    pub fn between(there: Option<&Map<String, Value>>, wanted: &Map<String, Value>) -> Self {
        let Some(there) = there else { return Self::Create };
        let mut changes = Vec::new();
        for (name, value) in wanted {
            compare(name, there.get(name), Some(value), &mut changes);
        }
        if changes.is_empty() { Self::Keep } else { Self::Change(changes) }
    }

    /// Whether something that exists becomes another one or goes.
    pub fn touches_existing(&self) -> bool {
        matches!(self, Self::Change(_) | Self::Remove)
    }

    /// Whether nothing is to be done.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

fn compare(path: &str, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<FieldChange>) {
    let present = |value: Option<&Value>| value.filter(|value| !is_empty(value)).cloned();
    match (from, to) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                compare(&format!("{path}.{name}"), before.get(name), after.get(name), changes);
            }
        }
        _ => {
            let (from, to) = (present(from), present(to));
            let same = match (&from, &to) {
                // 1 and 1.0 are one number.
                (Some(Value::Number(one)), Some(Value::Number(other))) => one.as_f64() == other.as_f64(),
                (from, to) => from == to,
            };
            if !same {
                changes.push(FieldChange {
                    path: path.to_owned(),
                    from: from.unwrap_or(Value::Null),
                    to: to.unwrap_or(Value::Null),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(there: Value, wanted: Value) -> Step {
        Step::between(there.as_object(), wanted.as_object().unwrap())
    }

    #[test]
    fn only_a_difference_in_meaning_is_one() {
        assert_eq!(step(Value::Null, json!({"a": 1})), Step::Create);
        let there =
            json!({"timeout": 3, "cpu": 1.0, "description": "", "more": true, "environmentVariables": {"A": "1"}});
        let same = json!({"timeout": 3, "cpu": 1, "layers": [], "environmentVariables": {"A": "1"}, "gpuConfig": {}});
        assert_eq!(step(there.clone(), same), Step::Keep);
        let Step::Change(changes) = step(there, json!({"timeout": 5, "environmentVariables": {"B": "2"}})) else {
            panic!("it differs")
        };
        let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["environmentVariables.A", "environmentVariables.B", "timeout"]);
        assert_eq!((&changes[0].to, &changes[1].from), (&Value::Null, &Value::Null));
    }
}
