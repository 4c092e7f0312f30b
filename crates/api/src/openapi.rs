//! The OpenAPI document of this API, made of the table of routes and of the types that handlers take and give. It is committed as
//! `docs/api/openapi.json` and compared by a test, so that no answer changes its shape unnoticed.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::Method;
use kip_wire::Errors;
use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::guard::COMPARED;
use crate::routes::{Entry, open_paths, table};

/// Where schemas stand in the document.
const SCHEMAS: &str = "/components/schemas";

type Shape = fn(&mut SchemaGenerator) -> Schema;

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// An answer that is no error.
#[derive(Debug, Clone)]
struct Reply {
    status: u16,
    why: &'static str,
    /// Its media type and its shape, where it has a body.
    body: Option<Content>,
}

/// A media type, and the shape of what comes in it where that is JSON.
type Content = (&'static str, Option<Shape>);

/// What the document says of an entry.
#[derive(Debug, Clone)]
pub(crate) struct Doc {
    summary: &'static str,
    query: Option<Shape>,
    takes: Option<(&'static str, Shape)>,
    replies: Vec<Reply>,
    tagged: bool,
}

/// What a path does, in a sentence.
pub(crate) fn says(summary: &'static str) -> Doc {
    Doc { summary, query: None, takes: None, replies: Vec::new(), tagged: false }
}

impl Doc {
    /// It answers 200 with JSON of this type.
    pub(crate) fn gives<T: JsonSchema>(self) -> Doc {
        self.answers(200, "done", Some(("application/json", Some(shape::<T>))))
    }

    /// It answers 200 with bytes of this media type.
    pub(crate) fn gives_media(self, media: &'static str) -> Doc {
        self.answers(200, "done", Some((media, None)))
    }

    /// It answers 200 with a JSON value of this type a line.
    pub(crate) fn gives_lines<T: JsonSchema>(self) -> Doc {
        self.answers(200, "one JSON value a line", Some(("application/x-ndjson", Some(shape::<T>))))
    }

    /// It answers with this status and no body.
    pub(crate) fn empty(self, status: u16, why: &'static str) -> Doc {
        self.answers(status, why, None)
    }

    fn answers(mut self, status: u16, why: &'static str, body: Option<Content>) -> Doc {
        self.replies.push(Reply { status, why, body });
        self
    }

    /// It answers 202 with JSON of this type.
    pub(crate) fn accepts<T: JsonSchema>(self) -> Doc {
        self.answers(202, "on the disk", Some(("application/json", Some(shape::<T>))))
    }

    /// It takes JSON of this type.
    pub(crate) fn takes<T: JsonSchema>(self) -> Doc {
        Doc { takes: Some(("application/json", shape::<T>)), ..self }
    }

    /// It takes any bytes.
    pub(crate) fn takes_bytes(self) -> Doc {
        Doc { takes: Some(("application/octet-stream", |_| Schema::default())), ..self }
    }

    /// It takes this query.
    pub(crate) fn query<T: JsonSchema>(self) -> Doc {
        Doc { query: Some(shape::<T>), ..self }
    }

    /// Its answer carries the object's revision as `ETag`.
    pub(crate) fn tagged(self) -> Doc {
        Doc { tagged: true, ..self }
    }
}

fn generator(contract: Contract) -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    settings.contract = contract;
    settings.into_generator()
}

/// The document.
pub fn document() -> Value {
    let (mut gives, mut takes) = (generator(Contract::Serialize), generator(Contract::Deserialize));
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for entry in table().iter().chain(&open_paths()) {
        let operation = operation(entry, &mut gives, &mut takes);
        paths.entry(entry.path).or_default().insert(entry.method.as_str().to_lowercase(), operation);
    }
    let errors = shape::<Errors>(&mut gives);
    let (schemas, renamed) = merged(gives.take_definitions(true), takes.take_definitions(true));
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Kipwake",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The native API of a Kipwake server. Conventions and their exceptions: docs/decisions/0010-wire.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "a key of this server"}},
            "responses": {
                "Error": {
                    "description": "the request was refused, or failed: `error.code` has a page in docs/errors",
                    "content": {"application/json": {"schema": errors}},
                },
            },
            "schemas": schemas,
        },
    });
    rename(document, &renamed)
}

/// Serves the document.
pub(crate) async fn serve() -> Json<Value> {
    Json(document())
}

/// The document as text, as it is committed.
pub fn text() -> String {
    serde_json::to_string_pretty(&document()).unwrap_or_default() + "\n"
}

/// Marks references of requests until both kinds of schemas are merged.
const INPUT: &str = "#input";

/// Schemas of answers and of requests in one map. Where a type has both and they differ, because a request may leave something out,
/// the request's has `Input` behind its name.
fn merged(gives: Map<String, Value>, takes: Map<String, Value>) -> (Map<String, Value>, Vec<String>) {
    let differs = |name: &String, schema: &Value| gives.get(name).is_some_and(|other| other != schema);
    let renamed: Vec<String> =
        takes.iter().filter(|(name, schema)| differs(name, schema)).map(|(name, _)| name.clone()).collect();
    let mut all = gives.clone();
    for (name, schema) in takes {
        let name = if renamed.contains(&name) { format!("{name}Input") } else { name };
        all.entry(name).or_insert(marked(schema));
    }
    (all, renamed)
}

/// Each reference of a request's schema, marked.
fn marked(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mark = |(key, value): (String, Value)| match (key.as_str(), value) {
                ("$ref", Value::String(to)) => (key, Value::String(to + INPUT)),
                (_, value) => (key, marked(value)),
            };
            Value::Object(map.into_iter().map(mark).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(marked).collect()),
        other => other,
    }
}

/// Marked references by the names they have after the merge.
fn rename(value: Value, renamed: &[String]) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (key, rename(value, renamed))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| rename(item, renamed)).collect()),
        Value::String(text) => match text.strip_suffix(INPUT) {
            Some(to) if renamed.iter().any(|name| to.rsplit('/').next() == Some(name)) => format!("{to}Input").into(),
            Some(to) => to.into(),
            None => text.into(),
        },
        other => other,
    }
}

fn operation(entry: &Entry, gives: &mut SchemaGenerator, takes: &mut SchemaGenerator) -> Value {
    let Doc { summary, query, takes: body, replies, tagged } = &entry.doc;
    let mut parameters: Vec<Value> = names_in(entry.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if let Some(query) = query {
        parameters.extend(parameters_of(query, takes));
    }
    if entry.action.is_some_and(|action| COMPARED.contains(&action)) {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "schema": {"type": "string"},
            "description": "the revision that was read, as ETag gave it; another one now is refused with KW-8025",
        }));
    }
    let mut responses = Map::new();
    for Reply { status, why, body } in replies {
        let mut response = json!({"description": why});
        if let Some((media, shape)) = body {
            let schema = shape.map(|shape| shape(gives).to_value());
            let content = schema.map_or_else(|| json!({}), |schema| json!({"schema": schema}));
            response["content"] = json!({*media: content});
        }
        if *tagged {
            response["headers"] =
                json!({"ETag": {"schema": {"type": "string"}, "description": "the object's revision"}});
        }
        responses.insert(status.to_string(), response);
    }
    responses.insert("default".to_owned(), json!({"$ref": "#/components/responses/Error"}));
    let mut operation = json!({
        "operationId": operation_id(&entry.method, entry.path),
        "summary": summary,
        "parameters": parameters,
        "responses": responses,
        "x-kip-role": entry.role.map(|role| role.name()),
    });
    if let Some(action) = entry.action {
        operation["x-kip-audit"] = action.into();
    }
    if entry.role.is_none() {
        operation["security"] = json!([]);
    }
    if let Some((media, shape)) = body {
        let schema = marked(shape(takes).to_value());
        operation["requestBody"] = json!({"required": true, "content": {*media: {"schema": schema}}});
    }
    operation
}

/// The parameters in a path.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The fields of a query's type as parameters.
fn parameters_of(query: &Shape, takes: &mut SchemaGenerator) -> Vec<Value> {
    // In a generator of its own: the type itself is no part of the document.
    let mut own = generator(Contract::Deserialize);
    let reference = query(&mut own).to_value();
    let name = reference["$ref"].as_str().and_then(|to| to.rsplit('/').next()).unwrap_or_default().to_owned();
    let mut definitions = own.take_definitions(true);
    let schema = definitions.remove(&name).unwrap_or(reference);
    takes.definitions_mut().extend(definitions);
    let fields = schema["properties"].as_object().cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter = json!({"name": name, "in": "query", "schema": marked(schema)});
        description.into_iter().for_each(|text| parameter["description"] = text);
        parameter
    };
    fields.into_iter().map(parameter).collect()
}

/// `get_functions_name_tasks` for `GET /api/v1/functions/{name}/tasks`.
fn operation_id(method: &Method, path: &str) -> String {
    let parts = path.trim_start_matches("/api/v1").split('/').filter(|part| !part.is_empty());
    let parts = parts.map(|part| part.trim_matches(['{', '}']).replace(['-', '.'], "_"));
    std::iter::once(method.as_str().to_lowercase()).chain(parts).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_committed_document_is_the_present_one() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/openapi.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == text(), "docs/api/openapi.json: cargo xtask openapi --write");
    }

    #[test]
    fn each_entry_is_in_it_with_an_id_of_its_own_and_all_references_lead_somewhere() {
        let document = document();
        let mut ids = BTreeSet::new();
        for entry in table() {
            let operation = &document["paths"][entry.path][entry.method.as_str().to_lowercase()];
            assert!(ids.insert(operation["operationId"].to_string()), "{}", entry.path);
            assert!(operation["responses"].as_object().is_some_and(|all| all.len() > 1), "{}", entry.path);
        }
        let mut left = vec![&document];
        while let Some(value) = left.pop() {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(to)) = map.get("$ref") {
                        let to = to.strip_prefix('#').unwrap();
                        assert!(document.pointer(to).is_some(), "{to} leads nowhere");
                    }
                    left.extend(map.values());
                }
                Value::Array(items) => left.extend(items),
                _ => {}
            }
        }
    }

    #[test]
    fn a_request_may_leave_out_what_an_answer_always_has() {
        let document = document();
        let required = |name: &str| document["components"]["schemas"][name]["required"].to_string();
        assert!(!required("Deployment").contains("only"));
        assert!(required("AsyncConfig").contains("asyncTask"));
        assert!(!required("AsyncConfigInput").contains("asyncTask"));
    }
}
