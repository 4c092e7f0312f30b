//! The canary: a known request whose answer says whether an instance is what it was.

use std::sync::Arc;

use kip_engine::{Body, CallAnswer, StartError, StartProblem};
use kip_spec::InstanceId;
use kip_spec::function::FunctionSpec;
use kip_spec::sleep::{Canary, Scalar};
use serde_json::Value;

use crate::cell::Cell;
use crate::shared::Shared;

/// Characters of a value in a message.
const LONGEST: usize = 80;

impl Shared {
    /// Sends the canary, where the version has one.
    ///
    /// # Errors
    /// How the answer differs.
    pub(crate) async fn ask_canary(
        &self,
        instance: InstanceId,
        spec: &FunctionSpec,
        body: &dyn Body,
    ) -> Result<(), String> {
        let Some(canary) = &spec.canary else { return Ok(()) };
        let answer = body.call(instance, "canary", &canary.call).await.map_err(|error| error.to_string())?;
        compare(canary, &answer)
    }

    /// Keeps how the answer differed, for `kip why` and the failure of the version.
    pub(crate) fn note_canary(&self, cell: &Arc<Cell>, instance: InstanceId, why: &str) -> Arc<str> {
        tracing::warn!(%instance, why, "the canary was not answered as expected");
        cell.lock().autopsies.insert(instance, why.into());
        let detail = format!("the canary: {why}");
        cell.note_failure(&StartError { problem: StartProblem::NeverReady, detail, last_lines: Vec::new() })
    }
}

/// # Errors
/// The first difference, in words.
fn compare(canary: &Canary, answer: &CallAnswer) -> Result<(), String> {
    let path = &canary.call.path;
    if answer.status != canary.status {
        return Err(format!("{path} answered {} in place of {}", answer.status, canary.status));
    }
    if canary.values.is_empty() {
        return Ok(());
    }
    let json: Value = serde_json::from_slice(&answer.body).map_err(|_| format!("{path} did not answer JSON"))?;
    for value in &canary.values {
        let Some(found) = json.pointer(&value.pointer) else {
            return Err(format!("the answer of {path} has nothing at `{}`", value.pointer));
        };
        if !equal(&value.expected, found, canary.tolerance.get()) {
            let expected = shown(&serde_json::to_value(&value.expected).unwrap_or_default());
            return Err(format!("`{}` is {} in place of {expected}", value.pointer, shown(found)));
        }
    }
    Ok(())
}

fn equal(expected: &Scalar, found: &Value, tolerance: f64) -> bool {
    match expected {
        Scalar::Null => found.is_null(),
        Scalar::Flag(flag) => found.as_bool() == Some(*flag),
        Scalar::Text(text) => found.as_str() == Some(text),
        Scalar::Number(number) => {
            let expected = number.get();
            found.as_f64().is_some_and(|found| (found - expected).abs() <= tolerance * expected.abs())
        }
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use kip_spec::sleep::{CallMethod, CanaryValue, InstanceCall};
    use kip_spec::{Finite, Millis};

    use super::*;

    fn canary(values: &[(&str, Scalar)], tolerance: f64) -> Canary {
        let call = InstanceCall {
            method: CallMethod::Get,
            path: "/canary".to_owned(),
            body: None,
            timeout: Millis::from_secs(1),
        };
        let value = |(pointer, expected): &(&str, Scalar)| CanaryValue {
            pointer: (*pointer).to_owned(),
            expected: expected.clone(),
        };
        let tolerance = Finite::new(tolerance).unwrap();
        Canary { call, status: 200, values: values.iter().map(value).collect(), tolerance }
    }

    #[test]
    fn an_answer_is_compared_by_status_and_by_value() {
        let number = |number| Scalar::Number(Finite::new(number).unwrap());
        type Row<'a> = (&'a [(&'a str, Scalar)], f64, u16, &'a str, Option<&'a str>);
        let rows: [Row<'_>; 9] = [
            (&[], 0.0, 200, "anything", None),
            (&[], 0.0, 500, "", Some("/canary answered 500 in place of 200")),
            (&[("/a", number(2.0))], 0.0, 200, r#"{"a": 2}"#, None),
            (&[("/a", number(2.0))], 0.01, 200, r#"{"a": 2.019}"#, None),
            (&[("/a", number(2.0))], 0.01, 200, r#"{"a": 2.021}"#, Some("`/a` is 2.021 in place of 2.0")),
            (&[("/a/0/b", Scalar::Text("x".to_owned()))], 0.0, 200, r#"{"a": [{"b": "x"}]}"#, None),
            (&[("/b", Scalar::Null)], 0.0, 200, r#"{"a": 1}"#, Some("the answer of /canary has nothing at `/b`")),
            (&[("/a", Scalar::Flag(true))], 0.0, 200, r#"{"a": "true"}"#, Some("`/a` is \"true\" in place of true")),
            (&[("", Scalar::Flag(true))], 0.0, 200, "<html>", Some("/canary did not answer JSON")),
        ];
        for (values, tolerance, status, body, differs) in rows {
            let answer = CallAnswer { status, body: body.to_owned().into() };
            assert_eq!(compare(&canary(values, tolerance), &answer).err().as_deref(), differs, "{body}");
        }
    }
}
