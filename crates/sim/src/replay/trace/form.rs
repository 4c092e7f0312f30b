//! Which forms of traces there are.

use std::fmt;
use std::str::FromStr;

use super::error::TraceError;

/// The form of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Ours: CSV with a head, arrivals in `t_s`, `at_s`, `t_ms` or `at_ms`.
    Csv,
    /// Azure's traces of language models: `TIMESTAMP,ContextTokens,GeneratedTokens`.
    AzureLlm,
    /// Azure's functions of 2021: `app,func,end_timestamp,duration`.
    AzureFunctions,
    /// Azure's functions of 2019: for each function how many calls came in each minute.
    AzureMinutes,
    /// BurstGPT: `Timestamp,Model,Request tokens,Response tokens,…`.
    BurstGpt,
    /// Mooncake: JSON lines with `timestamp`, `input_length` and `output_length`.
    Mooncake,
    /// ServeGen: rates of clients by window.
    ServeGen,
    /// Kipwake's records of requests: `kip requests -o json`.
    Requests,
    /// Kipwake's tasks: `kip task list -o json`.
    Tasks,
}

const NAMES: [(&str, Form); 9] = [
    ("csv", Form::Csv),
    ("azure-llm", Form::AzureLlm),
    ("azure-functions", Form::AzureFunctions),
    ("azure-minutes", Form::AzureMinutes),
    ("burstgpt", Form::BurstGpt),
    ("mooncake", Form::Mooncake),
    ("servegen", Form::ServeGen),
    ("requests", Form::Requests),
    ("tasks", Form::Tasks),
];

impl Form {
    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, form)| *form == self).map_or("csv", |(name, _)| name)
    }

    /// All names, for messages.
    pub fn names() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    /// Whether its rows are in the order of arrival.
    pub(super) fn is_sorted(self) -> bool {
        !matches!(self, Self::AzureFunctions | Self::Requests | Self::Tasks)
    }

    /// Whether its rows are JSON.
    pub(super) fn is_json(self) -> bool {
        matches!(self, Self::Mooncake | Self::Requests | Self::Tasks)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, form)| *form).ok_or_else(|| format!("`{text}` is not a form of traces: {}", Self::names()))
    }
}

/// The columns of a trace, by its first line.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) form: Form,
    /// Names as they are written, with `_` for spaces.
    pub(super) columns: Vec<String>,
    /// The first line is a row already.
    pub(super) is_row: bool,
}

impl Head {
    pub(super) fn read(line: &[u8], form: Option<Form>) -> Result<Self, TraceError> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim().trim_start_matches('\u{feff}');
        if text.starts_with(['{', '[']) {
            return Self::json(text, form);
        }
        let columns: Vec<String> =
            text.split(',').map(|name| name.trim().trim_matches('"').replace(' ', "_")).collect();
        let has = |name: &str| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
        let found = match () {
            () if has("TIMESTAMP") && has("ContextTokens") => Some(Form::AzureLlm),
            () if has("end_timestamp") && has("duration") => Some(Form::AzureFunctions),
            () if has("HashFunction") || has("fn") && has("minute") && has("count") => Some(Form::AzureMinutes),
            () if has("Timestamp") && has("Request_tokens") => Some(Form::BurstGpt),
            () if has("rate") && has("cv") => Some(Form::ServeGen),
            () if columns.first().is_some_and(|first| first.parse::<f64>().is_ok()) => None,
            () => Some(Form::Csv),
        };
        let is_row = form == Some(Form::ServeGen) && columns.iter().any(|column| column.parse::<f64>().is_ok());
        let columns = match is_row {
            true => ["t_s", "rate", "cv", "dist"].map(str::to_owned).to_vec(),
            false => columns,
        };
        let form = form.or(found).ok_or_else(|| TraceError::UnknownForm { known: columns.join(", ") })?;
        Ok(Self { form, columns, is_row })
    }

    fn json(text: &str, form: Option<Form>) -> Result<Self, TraceError> {
        let row: serde_json::Value = match text.strip_prefix('[') {
            // The list of a command, over many lines or in one.
            Some(_) => serde_json::Value::Null,
            None => serde_json::from_str(text).unwrap_or_default(),
        };
        let columns: Vec<String> = row.as_object().map(|row| row.keys().cloned().collect()).unwrap_or_default();
        let has = |name: &str| columns.iter().any(|column| column == name);
        let found = match () {
            () if form.is_some() => form,
            () if has("timestamp") && has("input_length") => Some(Form::Mooncake),
            () if has("total_us") => Some(Form::Requests),
            () if has("taskId") || has("tasks") => Some(Form::Tasks),
            // `kip requests -o json` prints a list.
            () if columns.is_empty() => Some(Form::Requests),
            () => None,
        };
        let form = found.ok_or_else(|| TraceError::UnknownForm { known: columns.join(", ") })?;
        Ok(Self { form, columns, is_row: true })
    }
}
