//! The OpenAPI document of this API, made of the table that routes requests. It is committed as `docs/api/fc.json` and compared by a test.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use kip_spec::code;
use serde_json::{Map, Value, json};

use crate::PREFIX;
use crate::routes::{Operation, ROUTES, Route};
use kip_spec::fc_code;

/// Bodies beyond this are refused, bytes: of code, of payloads.
const BYTES: &str = "application/octet-stream";

/// The name of the parameter that stands behind a part of a path.
fn parameter_of(part: &str) -> &'static str {
    match part {
        "functions" => "functionName",
        "versions" => "versionId",
        "aliases" => "aliasName",
        "triggers" => "triggerName",
        "async-tasks" => "taskId",
        "vpc-bindings" => "vpcId",
        "layers" => "layerName",
        "layerarn" => "arn",
        "custom-domains" => "domainName",
        _ => "name",
    }
}

/// A path with its parameters in braces, and their names.
fn templated(path: &str) -> (String, Vec<&'static str>) {
    let mut before = "";
    let (mut parts, mut names) = (Vec::new(), Vec::new());
    for part in path.split('/') {
        if part == "*" {
            let name = parameter_of(before);
            parts.push(format!("{{{name}}}"));
            names.push(name);
        } else {
            parts.push(part.to_owned());
        }
        before = part;
    }
    (format!("{PREFIX}/{}", parts.join("/")), names)
}

/// The fields of a query: a name, and its schema.
fn query(operation: Operation) -> Vec<(&'static str, Value)> {
    let text = || json!({"type": "string"});
    let flag = || json!({"type": "string", "enum": ["true", "false"]});
    let limit = || json!({"type": "integer", "minimum": 1, "maximum": 100});
    // Clients write lists as a text in JSON.
    let list = || json!({"type": "string", "contentMediaType": "application/json"});
    let paged = |more: Vec<(&'static str, Value)>| {
        [("prefix", text()), ("limit", limit()), ("nextToken", text())].into_iter().chain(more).collect()
    };
    let qualified = || vec![("qualifier", text())];
    match operation {
        Operation::ListFunctions => paged(vec![
            ("fcVersion", json!({"type": "string", "enum": ["v2", "v3"]})),
            ("functionName", text()),
            ("description", text()),
            ("runtime", text()),
            ("gpuType", text()),
            ("tags", list()),
        ]),
        Operation::ListAliases | Operation::ListTriggers | Operation::ListCustomDomains => paged(Vec::new()),
        Operation::ListLayers => paged(vec![("public", flag()), ("official", flag())]),
        Operation::ListLayerVersions => {
            vec![("startVersion", json!({"type": "integer", "minimum": 0})), ("limit", limit())]
        }
        Operation::PutLayerACL => {
            vec![("acl", json!({"type": "string", "enum": ["0", "1"]})), ("public", flag())]
        }
        Operation::ListFunctionVersions => vec![
            ("direction", json!({"type": "string", "enum": ["BACKWARD", "FORWARD"]})),
            ("limit", limit()),
            ("nextToken", text()),
        ],
        Operation::ListProvisionConfigs
        | Operation::ListScalingConfigs
        | Operation::ListConcurrencyConfigs
        | Operation::ListAsyncInvokeConfigs => {
            vec![("functionName", text()), ("limit", limit()), ("nextToken", text())]
        }
        Operation::GetFunction
        | Operation::GetFunctionCode
        | Operation::InvokeFunction
        | Operation::PutProvisionConfig
        | Operation::GetProvisionConfig
        | Operation::DeleteProvisionConfig
        | Operation::PutScalingConfig
        | Operation::GetScalingConfig
        | Operation::DeleteScalingConfig
        | Operation::PutAsyncInvokeConfig
        | Operation::GetAsyncInvokeConfig
        | Operation::DeleteAsyncInvokeConfig
        | Operation::GetAsyncTask
        | Operation::StopAsyncTask => qualified(),
        Operation::ListAsyncTasks => paged(vec![
            ("qualifier", text()),
            ("status", text()),
            ("startedTimeBegin", json!({"type": "integer"})),
            ("startedTimeEnd", json!({"type": "integer"})),
            ("sortOrderByTime", json!({"type": "string", "enum": ["asc", "desc"]})),
            ("includePayload", flag()),
        ]),
        Operation::ListInstances => vec![
            ("qualifier", text()),
            ("instanceIds", list()),
            ("instanceStatus", list()),
            ("withAllActive", flag()),
            ("limit", limit()),
        ],
        Operation::ListTagResources => {
            let names = ["ResourceType", "ResourceId", "Tag", "Limit", "NextToken"];
            names.into_iter().map(|name| (name, text())).collect()
        }
        Operation::UntagResources => {
            ["ResourceType", "ResourceId", "TagKey", "All"].into_iter().map(|name| (name, text())).collect()
        }
        _ => Vec::new(),
    }
}

/// The body of a change: the fields that it needs, and that it takes.
fn body(operation: Operation) -> Option<Value> {
    let object = |required: &[&str], fields: &[(&str, Value)]| {
        let properties: Map<String, Value> =
            fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        Some(schema)
    };
    let text = || json!({"type": "string"});
    let map = || json!({"type": "object"});
    let list = || json!({"type": "array"});
    let whole = |least: u64, most: u64| json!({"type": "integer", "minimum": least, "maximum": most});
    let function = || {
        vec![
            ("runtime", json!({"type": "string", "enum": crate::config::RUNTIMES})),
            ("handler", text()),
            ("description", text()),
            ("timeout", whole(1, 86_400)),
            ("memorySize", whole(128, 131_072)),
            ("cpu", json!({"type": "number", "minimum": 0.05, "maximum": 16})),
            ("diskSize", whole(512, 102_400)),
            ("instanceConcurrency", whole(1, 200)),
            ("environmentVariables", json!({"type": "object", "additionalProperties": {"type": "string"}})),
            ("layers", list()),
            ("code", map()),
            ("customRuntimeConfig", map()),
            ("customContainerConfig", map()),
            ("gpuConfig", map()),
            ("instanceLifecycleConfig", map()),
            ("tags", list()),
        ]
    };
    let trigger = || vec![("triggerConfig", text()), ("qualifier", text()), ("description", text())];
    let alias = || vec![("versionId", text()), ("description", text()), ("additionalVersionWeight", map())];
    let domain = || {
        vec![
            ("protocol", text()),
            ("routeConfig", map()),
            ("authConfig", map()),
            ("certConfig", map()),
            ("corsConfig", map()),
        ]
    };
    let with = |first: (&'static str, Value), rest: Vec<(&'static str, Value)>| [vec![first], rest].concat();
    match operation {
        Operation::CreateFunction => object(&["functionName", "runtime"], &with(("functionName", text()), function())),
        Operation::UpdateFunction => object(&[], &function()),
        Operation::DisableFunctionInvocation => {
            object(&[], &[("reason", text()), ("abortOngoingRequest", json!({"type": "boolean"}))])
        }
        Operation::PublishFunctionVersion => object(&[], &[("description", text())]),
        Operation::CreateAlias => object(&["aliasName", "versionId"], &with(("aliasName", text()), alias())),
        Operation::UpdateAlias => object(&[], &alias()),
        Operation::CreateTrigger => {
            let fields = [vec![("triggerName", text()), ("triggerType", text())], trigger()].concat();
            object(&["triggerName", "triggerType"], &fields)
        }
        Operation::UpdateTrigger => object(&[], &trigger()),
        Operation::PutProvisionConfig => object(
            &[],
            &[("defaultTarget", whole(0, 10_000)), ("targetTrackingPolicies", list()), ("scheduledActions", list())],
        ),
        Operation::PutScalingConfig => object(&[], &[("minInstances", whole(0, 10_000))]),
        Operation::PutConcurrencyConfig => {
            object(&["reservedConcurrency"], &[("reservedConcurrency", whole(1, 10_000))])
        }
        Operation::PutAsyncInvokeConfig => object(
            &[],
            &[
                ("asyncTask", json!({"type": "boolean"})),
                ("maxAsyncRetryAttempts", whole(0, 8)),
                ("maxAsyncEventAgeInSeconds", whole(1, 604_800)),
                ("destinationConfig", map()),
            ],
        ),
        Operation::CreateLayerVersion => object(
            &["code"],
            &[("code", map()), ("compatibleRuntime", list()), ("description", text()), ("license", text())],
        ),
        Operation::CreateCustomDomain => object(&["domainName"], &with(("domainName", text()), domain())),
        Operation::UpdateCustomDomain => object(&[], &domain()),
        Operation::CreateVpcBinding => object(&["vpcId"], &[("vpcId", text())]),
        Operation::TagResources => object(
            &["ResourceType", "ResourceId", "Tag"],
            &[("ResourceType", text()), ("ResourceId", list()), ("Tag", list())],
        ),
        _ => None,
    }
}

/// Errors by status, with the vendor's codes and ours.
fn errors() -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, (BTreeSet<&str>, BTreeSet<String>)> = BTreeMap::new();
    for entry in code::ALL {
        // The vendor knows no 401.
        let status = if entry.status == 401 { 403 } else { entry.status };
        let (theirs, ours) = by_status.entry(status).or_default();
        theirs.insert(fc_code::of(entry.code));
        ours.insert(entry.code.to_string());
    }
    let extra = [
        (403, "SignatureNotMatch"),
        (403, "InvalidAccessKeyID"),
        (403, "MissingRequiredHeader"),
        (400, "PathNotSupported"),
    ];
    for (status, theirs) in extra {
        by_status.entry(status).or_default().0.insert(theirs);
    }
    let one = |(status, (theirs, ours)): (u16, (BTreeSet<&str>, BTreeSet<String>))| {
        let answer = json!({
            "description": format!("refused: {}", theirs.into_iter().collect::<Vec<_>>().join(", ")),
            "headers": {"x-kip-error": {"description": "the code of Kipwake", "schema": {"type": "string", "enum": ours}}},
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        });
        (status.to_string(), answer)
    };
    by_status.into_iter().map(one).collect()
}

fn replies(route: &Route) -> Map<String, Value> {
    let json_body = || json!({"description": "done", "content": {"application/json": {"schema": {"type": "object"}}}});
    let nothing = || json!({"description": "done, without a body"});
    let done = match route.operation {
        Operation::InvokeFunction => vec![
            (
                "200",
                json!({"description": "the answer of the function, or its failure with X-Fc-Error-Type", "content": {"*/*": {}}}),
            ),
            ("202", json!({"description": "the task is on the disk, with its id in X-Fc-Async-Task-Id"})),
        ],
        Operation::StopAsyncTask | Operation::CreateVpcBinding | Operation::TagResources | Operation::PutLayerACL => {
            vec![("204", nothing())]
        }
        _ if route.method == Method::DELETE => vec![("204", nothing())],
        _ => vec![("200", json_body())],
    };
    let done = done.into_iter().map(|(status, answer)| (status.to_owned(), answer));
    let errors = errors();
    let failed =
        errors.keys().map(|status| (status.clone(), json!({"$ref": format!("#/components/responses/{status}")})));
    done.chain(failed).collect()
}

fn operation(route: &Route, names: &[&str]) -> Value {
    let in_path = names.iter().map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}),
    );
    let in_query =
        query(route.operation).into_iter().map(|(name, schema)| json!({"name": name, "in": "query", "schema": schema}));
    let mut parameters: Vec<Value> = in_path.chain(in_query).collect();
    let mut operation = json!({
        "operationId": route.name,
        "description": format!("needs the role {}", route.role),
        "responses": replies(route),
    });
    if route.operation == Operation::InvokeFunction {
        for (name, values) in [("x-fc-invocation-type", ["Sync", "Async"]), ("x-fc-log-type", ["None", "Tail"])] {
            parameters.push(json!({"name": name, "in": "header", "schema": {"type": "string", "enum": values}}));
        }
        parameters.push(
            json!({"name": "x-fc-async-task-id", "in": "header", "schema": {"type": "string", "maxLength": 128}}),
        );
        operation["requestBody"] = json!({"content": {BYTES: {}}});
    }
    if let Some(schema) = body(route.operation) {
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

/// The document.
pub fn document() -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let (path, names) = templated(route.path);
        paths.entry(path).or_default().insert(route.method.as_str().to_lowercase(), operation(route, &names));
    }
    let text = json!({"type": "string", "minLength": 1});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Kipwake: the API of Function Compute 3.0",
            "version": "2023-03-30",
            "description": "The operations that a Kipwake server carries out for clients of Function Compute. docs/fc-api.md says what each one means here.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}, {"signature": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "a key of this server"},
                "signature": {"type": "apiKey", "in": "header", "name": "authorization", "description": "ACS3-HMAC-SHA256 with an access-key pair of this server"},
            },
            "responses": errors(),
            "schemas": {"Error": {
                "type": "object",
                "required": ["Code", "Message", "RequestId"],
                "properties": {"Code": text, "Message": text, "RequestId": text},
            }},
        },
    })
}

/// The document as text, as it is committed.
pub fn text() -> String {
    serde_json::to_string_pretty(&document()).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_the_present_one() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/fc.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == text(), "docs/api/fc.json: cargo xtask openapi --write");
    }

    #[test]
    fn each_route_is_in_it_with_its_parameters_and_errors() {
        let document = document();
        let operations: usize =
            document["paths"].as_object().unwrap().values().map(|one| one.as_object().unwrap().len()).sum();
        assert_eq!(operations, ROUTES.len());
        for (path, methods) in document["paths"].as_object().unwrap() {
            for operation in methods.as_object().unwrap().values() {
                let of_path =
                    operation["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "path");
                assert_eq!(of_path.count(), path.matches('{').count(), "{path}");
                for status in ["400", "403", "404", "409", "413", "429", "500"] {
                    assert!(operation["responses"][status].is_object(), "{path} {status}");
                }
            }
        }
        assert_eq!(
            templated("functions/*/async-tasks/*/stop").0,
            "/2023-03-30/functions/{functionName}/async-tasks/{taskId}/stop"
        );
    }
}
