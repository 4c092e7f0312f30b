//! A plan for people and for programs.

use kip_serverless::plan::{FieldChange, Step};
use kip_serverless::{Action, Effect, KeyEffect};
use serde::Serialize;
use serde_json::Value;

use super::compare::FunctionPlan;
use super::project_file::ProjectFile;

/// What a deployment of a file would do.
#[derive(Debug, Serialize)]
pub(crate) struct PlanResult<'a> {
    file: &'a str,
    format: kip_serverless::Format,
    functions: &'a [FunctionPlan],
    /// Each leaf key of the file with its effect.
    keys: &'a [KeyEffect],
    /// What a conversion from an older format changed.
    changes: &'a [String],
    actions: Vec<&'a Action>,
}

impl<'a> PlanResult<'a> {
    pub(crate) fn new(file: &'a ProjectFile, functions: &'a [FunctionPlan]) -> Self {
        let of_functions = file.project.functions.iter().flat_map(|function| &function.actions);
        Self {
            file: &file.file,
            format: file.project.format,
            functions,
            keys: &file.project.keys,
            changes: &file.project.changes,
            actions: file.project.actions.iter().chain(of_functions).collect(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text: String = self.functions.iter().map(steps).collect();
        if self.functions.iter().all(FunctionPlan::is_nothing) {
            text.push_str("nothing changes\n");
        }
        for change in self.changes {
            text.push_str(&format!("converted: {change}\n"));
        }
        for action in &self.actions {
            text.push_str(&format!("command: {} in {} ({})\n", action.text, action.directory.display(), action.when));
        }
        let count = |effect| self.keys.iter().filter(|key| key.effect == effect).count();
        text.push_str(&format!(
            "keys of {}: {} in force, {} stored, {} without effect\n",
            self.file,
            count(Effect::Mapped),
            count(Effect::Stored),
            count(Effect::WithoutEffect)
        ));
        text + &notes(self.keys)
    }
}

/// What a file asks for and does not get here: a line for each consequence.
pub(crate) fn notes(keys: &[KeyEffect]) -> String {
    let mut seen: Vec<(&str, Vec<&KeyEffect>)> = Vec::new();
    for key in keys.iter().filter(|key| key.effect != Effect::Mapped && !key.note.is_empty()) {
        match seen.iter_mut().find(|(note, _)| *note == key.note) {
            Some((_, keys)) => keys.push(key),
            None => seen.push((key.note, vec![key])),
        }
    }
    let line = |(note, keys): &(&str, Vec<&KeyEffect>)| {
        let names: Vec<&str> = keys.iter().map(|key| key.path.rsplit('.').next().unwrap_or_default()).collect();
        let first = keys.first().map_or(0, |key| key.line);
        let mut names: Vec<&str> = names;
        names.dedup();
        let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
        names.truncate(3);
        format!("  line {first}: {}{more}: {note}\n", names.join(", "))
    };
    seen.iter().map(line).collect()
}

/// The steps of a function.
pub(crate) fn steps(plan: &FunctionPlan) -> String {
    let sign = |step: &Step| match step {
        Step::Create => '+',
        Step::Change(_) => '~',
        Step::Keep => '=',
        Step::Remove => '-',
    };
    let whole = match &plan.configuration {
        Step::Keep if plan.code => '~',
        step => sign(step),
    };
    let mut text = format!("{whole} function {}\n", plan.function);
    if let Step::Change(changes) = &plan.configuration {
        text.extend(changes.iter().map(field));
    }
    if plan.code && !matches!(plan.configuration, Step::Create) {
        text.push_str("    the code is another\n");
    }
    for part in &plan.parts {
        let space = if part.name.is_empty() { "" } else { " " };
        text.push_str(&format!("  {} {}{space}{}\n", sign(&part.step), part.kind.noun(), part.name));
        if let Step::Change(changes) = &part.step {
            text.extend(changes.iter().map(field));
        }
    }
    for name in &plan.other_triggers {
        text.push_str(&format!("  = trigger {name} is not in the file and stays\n"));
    }
    text
}

fn field(change: &FieldChange) -> String {
    let shown = |value: &Value| match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!("    {}: {} → {}\n", change.path, shown(&change.from), shown(&change.to))
}
