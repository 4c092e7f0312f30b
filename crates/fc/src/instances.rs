//! Instances of a function.

use std::collections::BTreeMap;

use axum::response::Response;
use kip_control::UsageRecord;
use kip_host::clock::wall_millis;
use kip_spec::QualifierName;
use kip_wire::InstanceInfo;
use serde_json::{Value, json};

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::invoke::version_id;
use crate::query::QueryFields;
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

/// An instance that is gone, by its record. Of its version the number of the revision is known alone.
fn past(record: &UsageRecord, version: &str) -> Value {
    let kind = record.times.keys().next().map_or("on-demand", String::as_str);
    json!({
        "instanceId": record.instance,
        "status": "Destroyed",
        "versionId": if version == kip_control::LATEST { "0" } else { version },
        "qualifier": version,
        "resourceType": if kind == "provisioned" { "provisioned" } else { "ondemand" },
        "createdTimeMs": record.since,
        "destroyedTimeMs": record.until,
    })
}

/// The time that a caller asks about: from, to. None asks about now.
fn span(query: &QueryFields) -> FcResult<Option<(i64, i64)>> {
    let (from, to) = (query.number("startTimeMs")?, query.number("endTimeMs")?);
    if from.is_none() && to.is_none() {
        return Ok(None);
    }
    let (from, to) = (from.unwrap_or(0), to.unwrap_or_else(wall_millis));
    if from > to {
        return Err(FcError::invalid("startTimeMs is after endTimeMs"));
    }
    Ok(Some((from, to)))
}

pub(crate) async fn list(fc: &Fc, request: &Request) -> FcResult<Response> {
    let cell = fc.control.require(request.function())?;
    let query = &request.query;
    let asked = query.get("qualifier").map(qualifier).transpose()?;
    let (ids, states) = (query.list("instanceIds")?, query.list("instanceStatus")?);
    // All that are active, whatever time is asked about besides.
    let (span, all_active) = (span(query)?, query.flag("withAllActive"));
    let lives = fc.control.lives(cell.name().as_str()).await?;
    let created: BTreeMap<&str, i64> = lives.living.iter().map(|one| (one.instance.as_str(), one.since)).collect();
    let mut rows = Vec::new();
    for instance in fc.control.instances().iter().filter(|instance| instance.function == *cell.name()) {
        let mut row = shown(instance);
        let since = created.get(instance.id.to_string().as_str()).copied();
        if let Some(since) = since {
            row["createdTimeMs"] = since.into();
        }
        let lived = |(_, to): (i64, i64)| since.is_none_or(|since| since <= to);
        if all_active || span.is_none_or(lived) {
            rows.push(row);
        }
    }
    if let Some((from, to)) = span {
        let revisions = fc.control.revisions(cell.name().as_str()).await?;
        for record in lives.gone.iter().filter(|record| record.since <= to && record.until >= from) {
            let label = revisions.iter().find(|info| info.id.0 == record.version).map(|info| version_id(&info.label));
            rows.push(past(record, label.as_deref().unwrap_or(kip_control::LATEST)));
        }
    }
    rows.retain(|row| {
        let of_version = match &asked {
            Some(QualifierName::Number(number)) => row["versionId"] == number.to_string().as_str(),
            Some(QualifierName::Latest) | None => true,
            Some(other) => row["qualifier"] == other.to_string().as_str(),
        };
        of_version
            && (ids.is_empty() || ids.contains(&row["instanceId"]))
            && (states.is_empty() || states.contains(&row["status"]))
    });
    let id = |row: &Value| row["instanceId"].as_str().unwrap_or_default().to_owned();
    rows.sort_by_key(id);
    let first = query.get("startKey").unwrap_or_default();
    let rows: Vec<Value> = rows.into_iter().filter(|row| id(row).as_str() >= first).take(query.limit()?).collect();
    Ok(json(json!({"instances": rows, "requestId": request.id.as_str()})))
}
