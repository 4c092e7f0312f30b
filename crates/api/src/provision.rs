//! What is provisioned, why, and what scaling policies decided.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use kip_control::{LATEST, ProvisionInfo, ScalingRecord};
use kip_manifest::provision;
use kip_spec::scaling::{Fc, Scaling};
use kip_spec::{Finite, Millis, Problem, code};
use kip_store::Object;
use kip_wire::{Provision, Recommendation};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::guard::{Requester, tagged};

use crate::{Api, bad_request};

/// For whom.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct FunctionQuery {
    qualifier: Option<String>,
}

impl FunctionQuery {
    fn get(&self) -> &str {
        self.qualifier.as_deref().unwrap_or(LATEST)
    }
}

/// How many records to give, newest first.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct LimitQuery {
    limit: Option<u32>,
}

/// Said of an input with nothing in it.
const NOTHING: &str = "nothing is in it: write defaultTarget, targetTrackingPolicies or scheduledActions";

fn shown(info: ProvisionInfo) -> Provision {
    let standing = provision::standing(&info.settings.provision, kip_host::clock::wall_millis());
    Provision {
        function: info.function,
        qualifier: info.qualifier,
        declared: info.declared,
        overrides: info.overrides,
        target: info.target,
        current: info.current,
        current_error: info.current_error,
        why: info.why,
        reminder: info.reminder,
        policies: standing,
        period: info.settings.period,
        hold: info.settings.hold,
        coefficient: info.settings.coefficient.get(),
        input: provision::write(&info.settings.provision),
    }
}

pub(crate) async fn list(State(api): State<Api>, who: Requester) -> Json<Vec<Provision>> {
    let all = api.control.provisions().into_iter().filter(|info| who.sees(info.function.as_str()));
    // What was put with nothing in it is as good as not put.
    Json(all.filter(|info| info.declared || info.overrides || !info.settings.provision.is_empty()).map(shown).collect())
}

pub(crate) async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(whom): Query<FunctionQuery>,
) -> ApiResult<Response> {
    let info = api.control.provision(&name, whom.get())?;
    let rev = api.control.rev(Object::Provision(info.function.clone(), info.qualifier.clone())).await?;
    Ok(tagged(rev, shown(info)))
}

pub(crate) async fn put(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    Query(whom): Query<FunctionQuery>,
    body: Result<Json<Value>, JsonRejection>,
) -> ApiResult<Json<Provision>> {
    let Json(mut input) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    let mut own = match &api.control.require(&name)?.serving().spec.scaling {
        Scaling::Fc(fc) => fc.as_ref().clone(),
        _ => Fc::new(kip_spec::scaling::Provision::default()),
    };
    let mut errors = Vec::new();
    let flags = ["alwaysAllocateCPU", "alwaysAllocateGPU", "period", "hold", "coefficient"];
    match &mut input {
        Value::Object(map) if map.keys().all(|key| flags.contains(&key.as_str())) && !map.is_empty() => {
            // How, and not how many: that stays as it is.
            if let Ok(info) = api.control.provision(&name, whom.get()) {
                let mut there = provision::write(&info.settings.provision);
                own = info.settings;
                if let Some(there) = there.as_object_mut() {
                    there.append(map);
                    std::mem::swap(there, map);
                }
            }
        }
        Value::Object(map) if map.is_empty() => errors.push(NOTHING.to_owned()),
        Value::Array(items) if items.is_empty() => errors.push(NOTHING.to_owned()),
        _ => {}
    }
    let mut fc = match input.as_object_mut() {
        Some(map) => extras(own, map, &mut errors),
        None => own,
    };
    match provision::read(&input) {
        Ok(provision) => fc.provision = provision,
        Err(more) => errors.extend(more),
    }
    errors.extend(fc.check());
    if !errors.is_empty() {
        let problem = |error| Problem::new(code::SCALING_INVALID, error).hint("try it with `kip scaler validate`");
        return Err(errors.into_iter().map(problem).collect::<Vec<Problem>>().into());
    }
    Ok(Json(shown(api.control.put_provision(&name, whom.get(), fc, who.author()).await?)))
}

/// Takes our own keys out of the input: how policies are evaluated here.
fn extras(mut fc: Fc, map: &mut Map<String, Value>, errors: &mut Vec<String>) -> Fc {
    let mut wrong = |key: &str, what: &str| errors.push(format!("{key}: write {what}"));
    if let Some(value) = map.remove("period") {
        match value.as_str().and_then(|text| text.parse::<Millis>().ok()) {
            Some(period) => fc.period = period,
            None => wrong("period", "a duration such as 1s"),
        }
    }
    if let Some(value) = map.remove("hold") {
        match value.as_u64().and_then(|hold| u32::try_from(hold).ok()) {
            Some(hold) => fc.hold = hold,
            None => wrong("hold", "a number of periods"),
        }
    }
    if let Some(value) = map.remove("coefficient") {
        match value.as_f64().and_then(Finite::new) {
            Some(coefficient) => fc.coefficient = coefficient,
            None => wrong("coefficient", "a number above 0 and at most 1"),
        }
    }
    fc
}

pub(crate) async fn remove(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    Query(whom): Query<FunctionQuery>,
) -> ApiResult<Json<Value>> {
    if !api.control.remove_provision(&name, whom.get(), who.author()).await? {
        let missing = kip_control::Error::NoProvision { function: name, qualifier: whom.get().to_owned() };
        return Err(missing.into());
    }
    Ok(Json(serde_json::json!({"removed": name, "qualifier": whom.get()})))
}

pub(crate) async fn history(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(most): Query<LimitQuery>,
) -> ApiResult<Json<Vec<ScalingRecord>>> {
    api.control.require(&name)?;
    Ok(Json(api.control.scaling_history(&name, most.limit.unwrap_or(300).min(10_000)).await?))
}

pub(crate) async fn advice(State(api): State<Api>, Path(name): Path<String>) -> ApiResult<Json<Recommendation>> {
    Ok(Json(api.control.advise(&name).await?))
}
