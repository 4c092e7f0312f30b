//! Instances of a function.

use axum::response::Response;
use kip_spec::QualifierName;
use kip_wire::InstanceInfo;
use serde_json::{Value, json};

use crate::Fc;
use crate::error::FcResult;
use crate::invoke::version_id;
use crate::request::{Request, json, qualifier};

fn shown(instance: &InstanceInfo) -> Value {
    let version = version_id(&instance.label);
    let status = match instance.state.as_str() {
        "requested" | "starting" | "initializing" => "Starting",
        "draining" | "stopping" => "Destroying",
        _ => "Running",
    };
    json!({
        "instanceId": instance.id.to_string(),
        "status": status,
        // What was not published has the number 0.
        "versionId": if version == kip_control::LATEST { "0" } else { version.as_str() },
        "qualifier": version,
        "resourceType": if instance.kind == "provisioned" { "provisioned" } else { "ondemand" },
    })
}

pub(crate) async fn list(fc: &Fc, request: &Request) -> FcResult<Response> {
    let cell = fc.control.require(request.function())?;
    let query = &request.query;
    let asked = query.get("qualifier").map(qualifier).transpose()?;
    let (ids, states) = (query.list("instanceIds")?, query.list("instanceStatus")?);
    let mut instances = fc.control.instances();
    instances.retain(|instance| instance.function == *cell.name());
    let rows: Vec<Value> = instances
        .iter()
        .map(shown)
        .filter(|row| {
            let of_version = match &asked {
                Some(QualifierName::Number(number)) => row["versionId"] == number.to_string().as_str(),
                Some(QualifierName::Latest) | None => true,
                Some(other) => row["qualifier"] == other.to_string().as_str(),
            };
            of_version
                && (ids.is_empty() || ids.contains(&row["instanceId"]))
                && (states.is_empty() || states.contains(&row["status"]))
        })
        .take(query.limit()?)
        .collect();
    Ok(json(json!({"instances": rows, "requestId": request.id.as_str()})))
}
