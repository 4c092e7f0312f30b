//! Single values of `kip.yaml` as types, with the patterns that editors check.

use std::borrow::Cow;

use kip_spec::{Bytes, Millis};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

const DURATION: &str = r"([0-9]+(\.[0-9]{1,6})?(ms|s|m|h|d) *)+";

/// A length of time with its unit: `500ms`, `5s`, `1m30s`, `12h`, `7d`.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Duration(pub(crate) Millis);

/// A length of time with its unit, or `never`.
pub(crate) struct DurationOrNever(pub(crate) Option<Millis>);

/// A length of time with its unit, `when-needed`, or `never`.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum DurationOrKeyword {
    Time(Duration),
    Keyword(&'static str),
}

/// An amount of memory with its unit: `512MiB`, `4GiB`.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Size(pub(crate) Bytes);

/// An amount of memory with its unit, or `auto`.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum SizeOrAuto {
    Size(Size),
    Auto(&'static str),
}

/// A path on the instance's web server.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct PathOnInstance(pub(crate) String);

/// Text; a number, true or false is taken as it is written.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Scalar(pub(crate) String);

/// A command line, split by quotes as a shell would, or a list of arguments.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "commands are written as lists; the text form is for the schema")]
pub(crate) enum Run {
    /// Split by quotes.
    Line(String),
    /// Program and arguments.
    Words(Vec<Scalar>),
}

/// The value of a variable: text, or a secret by its name.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Variable {
    Text(Scalar),
    Secret { secret: String },
}

/// A method that a function may take.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Method(pub(crate) String);

impl Serialize for DurationOrNever {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(duration) => duration.serialize(serializer),
            None => serializer.serialize_str("never"),
        }
    }
}

/// Cores: a number, or text such as `500m`.
pub(crate) fn cpu(_generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Cores: 2, 0.5 or 500m.",
        "anyOf": [
            { "type": "number", "exclusiveMinimum": 0, "maximum": 10_000 },
            { "type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,6})?m?$" },
        ],
    })
}

macro_rules! described {
    ($($name:ident => $schema:tt;)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

described! {
    Duration => {
        "description": "A length of time with its unit: 500ms, 5s, 1m30s, 12h or 7d.",
        "type": "string",
        "pattern": (format!("^{DURATION}$")),
    };
    DurationOrNever => {
        "description": "A length of time with its unit, or never.",
        "type": "string",
        "pattern": (format!("^(never|{DURATION})$")),
    };
    DurationOrKeyword => {
        "description": "A length of time with its unit, when-needed, or never.",
        "type": "string",
        "pattern": (format!("^(never|when-needed|{DURATION})$")),
    };
    Size => {
        "description": "An amount of memory with its unit: 512MiB, 4GiB.",
        "type": "string",
        "pattern": r"^[0-9]+(\.[0-9]{1,6})? *([KMGT]i?B|B)$",
    };
    SizeOrAuto => {
        "description": "An amount of memory with its unit, or auto.",
        "type": "string",
        "pattern": r"^(auto|[0-9]+(\.[0-9]{1,6})? *([KMGT]i?B|B))$",
    };
    PathOnInstance => {
        "description": "A path on the instance's web server.",
        "type": "string",
        "pattern": "^/[!-~]*$",
        "maxLength": 2048,
    };
    Method => {
        "description": "A method that a function may take.",
        "enum": (crate::value::METHODS),
    };
    Variable => {
        "description": "Text, or a secret by its name; a number, true or false is taken as it is written.",
        "anyOf": [
            { "type": ["string", "number", "boolean"] },
            {
                "type": "object",
                "properties": { "secret": { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$" } },
                "required": ["secret"],
                "additionalProperties": false,
            },
        ],
    };
    Scalar => {
        "description": "Text; a number, true or false is taken as it is written.",
        "type": ["string", "number", "boolean"],
    };
}
