//! Provisioned instances, scaling and reserved concurrency, by qualifier: kept as they were sent, and in force where the product has the means.

use axum::response::Response;
use kip_control::LATEST;
use kip_spec::scaling::Fc as Policies;
use kip_spec::{FunctionName, code};
use kip_store::{Object, SettingChange};
use serde_json::{Map, Value, json};

use crate::Fc;
use crate::arn;
use crate::config::number;
use crate::error::{FcError, FcResult};
use crate::functions::deploy;
use crate::query::{listed, page};
use crate::request::{Request, empty, json};
use crate::settings::{self, CONCURRENCY, PROVISION, SCALING};

/// Fields of an input that are empty lists mean nothing.
fn without_empty(mut given: Map<String, Value>) -> Map<String, Value> {
    given.retain(|_, value| !matches!(value, Value::Array(items) if items.is_empty()));
    given
}

fn name_of(fc: &Fc, request: &Request) -> FcResult<FunctionName> {
    Ok(fc.control.require(request.function())?.name().clone())
}

/// Lets policies hold, and keeps what was sent in the same commit.
async fn provision(
    fc: &Fc,
    request: &Request,
    given: &Map<String, Value>,
    (kind, sent): (&str, &Value),
) -> FcResult<()> {
    let input = Value::from(without_empty(given.clone()));
    let provision = kip_manifest::provision::read(&input).map_err(|faults| FcError::invalid(faults.join("; ")))?;
    let policies = Policies::new(provision);
    let qualifier = request.query.qualifier();
    let kept = settings::put_change(kind, &name_of(fc, request)?, qualifier, sent);
    fc.control.put_provision_with(request.function(), qualifier, policies, vec![kept], request.author()).await?;
    Ok(())
}

/// Takes policies and what was sent away, in one commit.
async fn remove_both(fc: &Fc, request: &Request, function: &FunctionName, kind: &'static str) -> FcResult<()> {
    let qualifier = request.query.qualifier();
    if fc.control.provision(function.as_str(), qualifier).is_ok() {
        let kept = vec![settings::remove_change(kind, function, qualifier)];
        fc.control.remove_provision_with(function.as_str(), qualifier, kept, request.author()).await?;
    } else {
        settings::remove(fc, kind, function, qualifier, request.author()).await?;
    }
    Ok(())
}

/// How many there are, and how many are wanted.
fn counts(fc: &Fc, function: &str, qualifier: &str) -> (u32, u32, Option<String>) {
    match fc.control.provision(function, qualifier) {
        Ok(info) => (info.target, info.current, info.current_error),
        Err(_) => (0, 0, None),
    }
}

async fn provision_shown(fc: &Fc, function: &FunctionName, qualifier: &str) -> FcResult<Option<Value>> {
    let sent = settings::read(fc, PROVISION, function, qualifier).await?;
    let sent = match (sent, fc.control.provision(function.as_str(), qualifier)) {
        (Some(sent), _) => sent,
        // Put by somebody else.
        (None, Ok(info)) if !info.settings.provision.is_empty() => {
            kip_manifest::provision::write(&info.settings.provision)
        }
        _ => return Ok(None),
    };
    let Value::Object(mut shown) = sent else { return Ok(None) };
    let (target, current, error) = counts(fc, function.as_str(), qualifier);
    shown.insert("functionArn".to_owned(), arn::function(function.as_str(), Some(qualifier)).into());
    shown.insert("target".to_owned(), target.into());
    shown.insert("current".to_owned(), current.into());
    shown.insert("currentError".to_owned(), error.unwrap_or_default().into());
    Ok(Some(Value::from(shown)))
}

pub(crate) async fn put_provision(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = name_of(fc, request)?;
    let mut given = request.object()?;
    // What it was called before.
    if let Some(target) = given.remove("target") {
        given.entry("defaultTarget").or_insert(target);
    }
    given.entry("defaultTarget").or_insert_with(|| 0.into());
    provision(fc, request, &given, (PROVISION, &Value::from(given.clone()))).await?;
    let qualifier = request.query.qualifier();
    Ok(json(provision_shown(fc, &function, qualifier).await?.unwrap_or_else(|| json!({}))))
}

pub(crate) async fn get_provision(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = name_of(fc, request)?;
    let qualifier = request.query.qualifier();
    fc.view(function.as_str(), qualifier).await?;
    // Clients wait for an object without instances after they removed it: none of it is no error.
    let shown = provision_shown(fc, &function, qualifier).await?;
    Ok(json(shown.unwrap_or_else(|| json!({"target": 0, "current": 0}))))
}

pub(crate) async fn remove_provision(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = name_of(fc, request)?;
    remove_both(fc, request, &function, PROVISION).await?;
    Ok(empty())
}

pub(crate) async fn list_provisions(fc: &Fc, request: &Request) -> FcResult<Response> {
    let wanted = request.query.get("functionName");
    let mut rows = Vec::new();
    for info in fc.control.provisions() {
        let (function, qualifier) = (info.function, info.qualifier);
        let fits = wanted.is_none_or(|wanted| function.as_str() == wanted) && request.key.sees(function.as_str());
        // What was put with nothing in it is as good as not put.
        if fits && !info.settings.provision.is_empty() {
            rows.extend(provision_shown(fc, &function, &qualifier).await?);
        }
    }
    let (rows, next) = page(rows, &request.query, arn_of)?;
    Ok(json(listed("provisionConfigs", rows, next)))
}

fn arn_of(row: &Value) -> String {
    row["functionArn"].as_str().unwrap_or_default().to_owned()
}

async fn scaling_shown(fc: &Fc, function: &FunctionName, qualifier: &str, sent: Value) -> Value {
    let Value::Object(mut shown) = sent else { return json!({}) };
    let (target, current, error) = counts(fc, function.as_str(), qualifier);
    shown.insert("functionArn".to_owned(), arn::function(function.as_str(), Some(qualifier)).into());
    shown.insert("targetInstances".to_owned(), target.into());
    shown.insert("currentInstances".to_owned(), current.into());
    shown.insert("currentError".to_owned(), error.unwrap_or_default().into());
    Value::from(shown)
}

/// Scaling in the words of provisioned instances, which have the same policies.
fn as_provision(given: &Map<String, Value>) -> FcResult<Map<String, Value>> {
    let least = number(given, "minInstances", 0, 10_000)?.unwrap_or_default();
    let mut input = Map::new();
    input.insert("defaultTarget".to_owned(), least.into());
    // Instances of this form may sleep.
    input.insert("alwaysAllocateCPU".to_owned(), false.into());
    input.insert("alwaysAllocateGPU".to_owned(), false.into());
    let renamed = |item: &Value, names: [(&str, &str); 2]| {
        let mut item = item.clone();
        if let Value::Object(fields) = &mut item {
            for (from, to) in names {
                if let Some(value) = fields.remove(from) {
                    fields.insert(to.to_owned(), value);
                }
            }
        }
        item
    };
    let list = |name: &str| given.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let names = [("minInstances", "minCapacity"), ("maxInstances", "maxCapacity")];
    let tracking: Vec<Value> = list("horizontalScalingPolicies").iter().map(|item| renamed(item, names)).collect();
    input.insert("targetTrackingPolicies".to_owned(), tracking.into());
    input.insert("scheduledActions".to_owned(), list("scheduledPolicies").into());
    Ok(input)
}

pub(crate) async fn put_scaling(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = name_of(fc, request)?;
    let given = request.object()?;
    if given.get("residentPoolId").and_then(Value::as_str).is_some_and(|pool| !pool.is_empty()) {
        return Err(FcError::refused("resident pools are not supported: leave residentPoolId out"));
    }
    provision(fc, request, &as_provision(&given)?, (SCALING, &Value::from(given.clone()))).await?;
    let qualifier = request.query.qualifier();
    Ok(json(scaling_shown(fc, &function, qualifier, given.into()).await))
}

pub(crate) async fn get_scaling(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = name_of(fc, request)?;
    let qualifier = request.query.qualifier();
    let sent = settings::read(fc, SCALING, &function, qualifier).await?;
    let missing = || {
        let said = format!("scaling config of function '{function}' with qualifier '{qualifier}' does not exist");
        FcError::new(code::NO_PROVISION, "ScalingConfigNotFound", said)
    };
    Ok(json(scaling_shown(fc, &function, qualifier, sent.ok_or_else(missing)?).await))
}

pub(crate) async fn remove_scaling(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = name_of(fc, request)?;
    let qualifier = request.query.qualifier();
    if settings::read(fc, SCALING, &function, qualifier).await?.is_some() {
        remove_both(fc, request, &function, SCALING).await?;
    }
    Ok(empty())
}

pub(crate) async fn list_scalings(fc: &Fc, request: &Request) -> FcResult<Response> {
    let rows = kept_rows(fc, request, SCALING).await?;
    let mut shown = Vec::new();
    for (function, qualifier, sent) in rows {
        shown.push(scaling_shown(fc, &function, &qualifier, sent).await);
    }
    let (rows, next) = page(shown, &request.query, arn_of)?;
    Ok(json(listed("scalingConfigs", rows, next)))
}

/// The settings of a kind that the caller sees.
pub(crate) async fn kept_rows(
    fc: &Fc,
    request: &Request,
    kind: &'static str,
) -> FcResult<Vec<(FunctionName, String, Value)>> {
    let wanted = request.query.get("functionName");
    let mut rows = Vec::new();
    for setting in fc.control.settings(kind, None).await? {
        let name = setting.function.as_str();
        if wanted.is_none_or(|wanted| name == wanted) && request.key.sees(name) {
            let value = settings::value(&setting)?;
            rows.push((setting.function, setting.qualifier, value));
        }
    }
    Ok(rows)
}

fn concurrency_shown(function: &FunctionName, sent: &Value) -> Value {
    json!({
        "functionArn": arn::function(function.as_str(), None),
        "reservedConcurrency": sent["reservedConcurrency"],
    })
}

pub(crate) async fn put_concurrency(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = name_of(fc, request)?;
    let given = request.object()?;
    let reserved = number(&given, "reservedConcurrency", 1, 10_000)?;
    let reserved = reserved.ok_or_else(|| FcError::invalid("reservedConcurrency is required"))?;
    let value = json!({"reservedConcurrency": reserved});
    let kept = settings::put_change(CONCURRENCY, &function, "", &value);
    let most = u32::try_from(reserved).unwrap_or(u32::MAX);
    if !bound_instances(fc, request, &function, Some(most), kept).await? {
        settings::put(fc, CONCURRENCY, &function, "", &value, request.author()).await?;
    }
    Ok(json(concurrency_shown(&function, &value)))
}

/// A bound of instances is part of a revision: it is deployed where it is another one, with the setting that says it. False if it is not.
async fn bound_instances(
    fc: &Fc,
    request: &Request,
    function: &FunctionName,
    most: Option<u32>,
    kept: SettingChange,
) -> FcResult<bool> {
    let rev = fc.control.rev(Object::Function(function.clone())).await?;
    let view = fc.view(function.as_str(), LATEST).await?;
    let usual = if view.spec.resources.gpu.is_some() || view.spec.resources.port.is_some() {
        kip_spec::function::defaults::INSTANCES_ON_A_DEVICE
    } else {
        kip_spec::function::defaults::INSTANCES.max
    };
    let most = most.unwrap_or(usual);
    if view.spec.instances.max == most {
        return Ok(false);
    }
    let mut spec = view.spec.clone();
    spec.instances.max = most;
    spec.instances.min = spec.instances.min.min(most);
    let record = view.record.clone().unwrap_or_default();
    let author = kip_store::Author { if_match: Some(rev), ..request.author() };
    deploy(fc, spec, &record, Some(&view), author, vec![kept]).await?;
    Ok(true)
}

pub(crate) async fn get_concurrency(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = name_of(fc, request)?;
    let missing = || {
        let said = format!("concurrency config of function '{function}' does not exist");
        FcError::new(code::NO_PROVISION, "ConcurrencyConfigNotFound", said)
    };
    let sent = settings::read(fc, CONCURRENCY, &function, "").await?.ok_or_else(missing)?;
    Ok(json(concurrency_shown(&function, &sent)))
}

pub(crate) async fn remove_concurrency(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = name_of(fc, request)?;
    if settings::read(fc, CONCURRENCY, &function, "").await?.is_some() {
        let gone = settings::remove_change(CONCURRENCY, &function, "");
        if !bound_instances(fc, request, &function, None, gone).await? {
            settings::remove(fc, CONCURRENCY, &function, "", request.author()).await?;
        }
    }
    Ok(empty())
}

pub(crate) async fn list_concurrency(fc: &Fc, request: &Request) -> FcResult<Response> {
    let rows = kept_rows(fc, request, CONCURRENCY).await?;
    let rows = rows.iter().map(|(function, _, sent)| concurrency_shown(function, sent)).collect();
    let (rows, next) = page(rows, &request.query, arn_of)?;
    Ok(json(listed("configs", rows, next)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_provisioning_in_other_words() {
        let given = json!({
            "minInstances": 2,
            "horizontalScalingPolicies": [{"name": "a", "metricType": "CPUUtilization", "metricTarget": 0.5,
                "minInstances": 1, "maxInstances": 4}],
            "scheduledPolicies": [],
        });
        let input = Value::from(without_empty(as_provision(given.as_object().unwrap()).unwrap()));
        let read = kip_manifest::provision::read(&input).unwrap();
        assert_eq!((read.default_target, read.tracking[0].min, read.tracking[0].max), (2, 1, 4));
        assert!(!read.always_allocate_gpu);
    }
}
