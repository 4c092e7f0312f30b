//! Keys: made, changed, given a new secret, removed.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use kip_auth::{IssuedKey, KeyChange, NewKey};
use kip_host::clock::wall_millis;
use kip_spec::{FunctionName, Millis, Problem, Rate, code};
use kip_store::Seq;
use kip_wire::{KeyAnswer, KeyInfo, KeyRotation, KeySettings, Role};

use crate::error::ApiResult;
use crate::extract::Path;
use crate::guard::{Requester, tagged};

use crate::{Api, bad_request, key_problem};

pub(crate) async fn list(State(api): State<Api>) -> Json<Vec<KeyInfo>> {
    Json(api.keys.list())
}

pub(crate) async fn show(State(api): State<Api>, Path(name): Path<String>) -> ApiResult<Response> {
    let key = api.keys.show(&name).map_err(key_problem)?;
    Ok(tagged(Seq(key.rev), key))
}

pub(crate) async fn create(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<KeySettings>, JsonRejection>,
) -> ApiResult<Json<KeyAnswer>> {
    let mut settings = read(body)?;
    let name = settings.name.take().ok_or_else(|| invalid("a key needs a name", "give `name`"))?;
    who.changes(name.clone());
    let role = settings.role.take();
    let role: Role =
        role.ok_or_else(|| invalid("a key needs a role", "give `role`: invoke, operate, deploy or admin"))?.parse()?;
    let pair = settings.access_key.unwrap_or(false);
    let change = parse(settings)?;
    let made = api.keys.create(NewKey { name, role, change, pair }, who.author()).await.map_err(key_problem)?;
    Ok(Json(answer(&api, made)))
}

pub(crate) async fn change(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    body: Result<Json<KeySettings>, JsonRejection>,
) -> ApiResult<Json<KeyAnswer>> {
    let settings = read(body)?;
    if settings.name.is_some() {
        return Err(invalid("a key keeps its name", "make another key and remove this one").into());
    }
    if settings.access_key.is_some() {
        return Err(invalid("a key stays what it is: a bearer key or an access-key pair", "make another key").into());
    }
    let key = api.keys.change(&name, parse(settings)?, who.author()).await.map_err(key_problem)?;
    let warnings = warnings(&api, &key);
    Ok(Json(KeyAnswer { key, secret: None, warnings }))
}

pub(crate) async fn rotate(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    body: Result<Json<KeyRotation>, JsonRejection>,
) -> ApiResult<Json<KeyAnswer>> {
    let Json(rotation) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    let overlap: Millis = match rotation.overlap {
        Some(text) => text.parse().map_err(|error: kip_spec::units::UnitError| {
            invalid(&format!("overlap: {error}"), "write a duration such as 1h")
        })?,
        None => Millis(0),
    };
    let made = api.keys.rotate(&name, overlap, who.author()).await.map_err(key_problem)?;
    Ok(Json(answer(&api, made)))
}

pub(crate) async fn remove(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
) -> ApiResult<Json<serde_json::Value>> {
    api.keys.remove(&name, who.author()).await.map_err(key_problem)?;
    Ok(Json(serde_json::json!({"removed": name})))
}

fn read(body: Result<Json<KeySettings>, JsonRejection>) -> ApiResult<KeySettings> {
    Ok(body.map_err(|rejection| bad_request(rejection.body_text()))?.0)
}

fn answer(api: &Api, made: IssuedKey) -> KeyAnswer {
    let mut warnings = warnings(api, &made.info);
    warnings.extend(made.file.map(Problem::from));
    KeyAnswer { key: made.info, secret: Some(made.secret), warnings }
}

/// Functions that are not there yet may be meant: a key can be made before they are deployed.
fn warnings(api: &Api, key: &KeyInfo) -> Vec<Problem> {
    let is_server = key.role == Role::Deploy && !api.about.isolated;
    let is_server = is_server.then(|| {
        let said = format!(
            "the key `{}` can do what the server can, because functions run as the server's user here",
            key.name
        );
        Problem::new(code::KEY_IS_SERVER, said)
            .cause(format!(
                "{}; a list of functions does not limit it",
                api.about.isolation_missing.as_deref().unwrap_or(&api.about.isolation)
            ))
            .hint("`kip doctor` and docs/hardening.md say what keeps functions from the server")
    });
    let missing = key.functions.iter().flatten().filter_map(|name| api.control.require(name).err());
    let warn = |error: kip_control::Error| {
        let kip_control::Error::NoFunction { name, nearest } = error else { return Problem::from(error) };
        let said = format!("the key names the function `{name}`, which does not exist");
        let hint = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "the key works for it once it is deployed; `kip ls` lists those there are".to_owned(),
        };
        Problem::new(code::KEY_UNKNOWN_FUNCTION, said).hint(hint)
    };
    is_server.into_iter().chain(missing.map(warn)).collect()
}

fn invalid(what: &str, hint: &str) -> Problem {
    Problem::new(code::KEY_INVALID, what).hint(hint)
}

fn parse(settings: KeySettings) -> Result<KeyChange, Problem> {
    let KeySettings { name: _, role, functions, rate, burst, concurrency, tenant, expires, disabled, access_key: _ } =
        settings;
    Ok(KeyChange {
        role: role.map(|role| role.parse()).transpose()?,
        functions: functions
            .map(|names| names.map(|names| names.iter().map(|name| function(name)).collect()).transpose())
            .transpose()?,
        rate: rate.map(|rate| rate.map(|text| read_rate(&text)).transpose()).transpose()?,
        burst,
        concurrency,
        tenant,
        expires: expires.map(|expires| expires.map(|text| expiry(&text)).transpose()).transpose()?,
        disabled,
    })
}

fn function(name: &str) -> Result<FunctionName, Problem> {
    let hint = "give names as `kip ls` shows them; there are no patterns";
    name.parse().map_err(|error: kip_spec::id::IdError| invalid(&format!("functions: {error}"), hint))
}

fn read_rate(text: &str) -> Result<Rate, Problem> {
    let wrong =
        |error: kip_spec::rate::RateError| invalid(&format!("rate: {error}"), "for example 10/s, 90/m or 1000/h");
    text.parse().map_err(wrong)
}

/// A duration from now, or milliseconds since 1970.
fn expiry(text: &str) -> Result<i64, Problem> {
    if let Ok(at) = text.parse::<i64>() {
        return Ok(at);
    }
    let after: Millis = text.parse().map_err(|error: kip_spec::units::UnitError| {
        invalid(&format!("expires: {error}"), "write a duration such as 30d, or milliseconds since 1970")
    })?;
    Ok(wall_millis().saturating_add(i64::try_from(after.0).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_left_out_stays_and_null_takes_away() {
        let read = |text: &str| parse(serde_json::from_str(text).unwrap());
        let nothing = read("{}").unwrap();
        assert!(nothing.rate.is_none() && nothing.expires.is_none() && nothing.functions.is_none());
        let cleared =
            read(r#"{"rate": null, "burst": null, "concurrency": null, "expires": null, "functions": null}"#).unwrap();
        assert_eq!(cleared.functions, Some(None));
        assert_eq!(
            read(r#"{"functions": []}"#).unwrap().functions,
            Some(Some(BTreeSet::new())),
            "an empty list is none"
        );
        assert_eq!(
            (cleared.rate, cleared.burst, cleared.concurrency, cleared.expires),
            (Some(None), Some(None), Some(None), Some(None))
        );
        let set = read(r#"{"rate": "10/s", "burst": 2, "functions": ["f"], "expires": "1795341600000"}"#).unwrap();
        assert_eq!((set.burst, set.expires), (Some(Some(2)), Some(Some(1_795_341_600_000))));
        let soon = read(r#"{"expires": "1h"}"#).unwrap().expires.flatten().unwrap() - wall_millis();
        assert!((3_590_000..=3_600_000).contains(&soon), "{soon}");
        for wrong in [r#"{"rate": "fast"}"#, r#"{"role": "root"}"#, r#"{"functions": ["f*"]}"#, r#"{"expires": "30"}"#]
        {
            // A bare number is a time, in 1970 here, and refused as one that has passed.
            if let Err(problem) = read(wrong) {
                assert!(problem.code == code::KEY_INVALID && problem.hint.is_some(), "{problem}");
            } else {
                assert!(wrong.contains("30"), "{wrong}");
            }
        }
    }
}
