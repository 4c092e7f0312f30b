//! Aliases: a version, and shares of further ones.

use axum::response::Response;
use kip_control::{AliasChange, AskedTarget};
use kip_host::clock::wall_millis;
use kip_spec::QualifierName;
use kip_spec::code;
use kip_wire::AliasInfo;
use serde_json::{Map, Value, json};

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::query::{listed, page};
use crate::request::{Request, empty, json, qualifier, required, text, time};
use crate::settings::{self, ALIAS};

/// All of an alias's traffic.
const WHOLE: u32 = 1_000_000;

async fn shown(fc: &Fc, alias: &AliasInfo) -> FcResult<Value> {
    let mut targets = alias.targets.iter();
    let main = targets.next().map(|target| target.version.clone()).unwrap_or_default();
    let share = |percent: &str| percent.parse::<f64>().unwrap_or_default() / 100.0;
    let additional: Map<String, Value> =
        targets.map(|target| (target.version.clone(), json!(rounded(share(&target.percent))))).collect();
    let times = settings::read(fc, ALIAS, &alias.function, &alias.name).await?;
    let at = |name: &str| time(times.as_ref().and_then(|times| times[name].as_i64()).unwrap_or_default());
    let mut shown = json!({
        "aliasName": alias.name,
        "versionId": main,
        "description": alias.description,
        "createdTime": at("created"),
        "lastModifiedTime": at("changed"),
    });
    if !additional.is_empty() {
        shown["additionalVersionWeight"] = additional.into();
    }
    Ok(shown)
}

/// A share has six places at most.
fn rounded(share: f64) -> f64 {
    (share * f64::from(WHOLE)).round() / f64::from(WHOLE)
}

/// A version as aliases may point at it.
fn version(text: &str) -> FcResult<QualifierName> {
    match qualifier(text)? {
        QualifierName::Alias(_) => Err(FcError::invalid(format!("versionId is a version, and `{text}` is none"))),
        version => Ok(version),
    }
}

/// Where an alias is to point: the version gets what the further ones leave.
fn targets(version_id: &str, weights: &Map<String, Value>) -> FcResult<Vec<AskedTarget>> {
    let mut further = Vec::new();
    for (name, weight) in weights {
        let weight = weight.as_f64().filter(|weight| (0.0..=1.0).contains(weight));
        let weight = weight.ok_or_else(|| FcError::invalid("additionalVersionWeight has shares from 0 to 1"))?;
        further.push((version(name)?, millionths(weight)));
    }
    let given: u64 = further.iter().map(|(_, share)| u64::from(*share)).sum();
    let Some(left) = u32::try_from(given).ok().and_then(|given| WHOLE.checked_sub(given)) else {
        return Err(FcError::invalid("additionalVersionWeight adds up to more than 1"));
    };
    Ok(std::iter::once((version(version_id)?, left)).chain(further).collect())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be from 0 to 1")]
fn millionths(weight: f64) -> u32 {
    (weight * f64::from(WHOLE)).round() as u32
}

fn weights(given: &Map<String, Value>) -> FcResult<Option<&Map<String, Value>>> {
    crate::config::object(given, "additionalVersionWeight")
}

pub(crate) async fn create(fc: &Fc, request: &Request) -> FcResult<Response> {
    let given = request.object()?;
    let name = required(&given, "aliasName")?;
    let function = request.function();
    if fc.control.alias(function, name).is_ok() {
        let said = format!("alias '{name}' of function '{function}' already exists");
        return Err(FcError::new(code::ALIAS_EXISTS, "AliasAlreadyExists", said));
    }
    let none = Map::new();
    let targets = targets(required(&given, "versionId")?, weights(&given)?.unwrap_or(&none))?;
    let description = text(&given, "description")?.map(str::to_owned);
    let now = wall_millis();
    let times = json!({"created": now, "changed": now});
    let kept = vec![settings::put_change(ALIAS, fc.control.require(function)?.name(), name, &times)];
    let change = AliasChange { targets, description, sticky: None };
    let alias = fc.control.set_alias_with(function, name, change, kept, request.author()).await?;
    Ok(json(shown(fc, &alias).await?))
}

pub(crate) async fn get(fc: &Fc, request: &Request) -> FcResult<Response> {
    let alias = fc.control.alias(request.function(), request.parameter(1))?;
    Ok(json(shown(fc, &alias).await?))
}

pub(crate) async fn update(fc: &Fc, request: &Request) -> FcResult<Response> {
    let given = request.object()?;
    let (function, name) = (request.function(), request.parameter(1));
    let before = fc.control.alias(function, name)?;
    let was = shown(fc, &before).await?;
    let version = text(&given, "versionId")?.filter(|text| !text.is_empty());
    let version = version.or_else(|| was["versionId"].as_str()).unwrap_or_default();
    let kept = was["additionalVersionWeight"].as_object().cloned().unwrap_or_default();
    let targets = targets(version, weights(&given)?.unwrap_or(&kept))?;
    let description = text(&given, "description")?.map(str::to_owned);
    let times = settings::read(fc, ALIAS, &before.function, &before.name).await?.unwrap_or_else(|| json!({}));
    let times = json!({"created": times["created"], "changed": wall_millis()});
    let kept = vec![settings::put_change(ALIAS, &before.function, &before.name, &times)];
    let change = AliasChange { targets, description, sticky: None };
    let alias = fc.control.set_alias_with(function, name, change, kept, request.author()).await?;
    Ok(json(shown(fc, &alias).await?))
}

pub(crate) async fn remove(fc: &Fc, request: &Request) -> FcResult<Response> {
    let alias = fc.control.alias(request.function(), request.parameter(1))?;
    fc.control.remove_alias(request.function(), &alias.name, request.author()).await?;
    settings::remove(fc, ALIAS, &alias.function, &alias.name, request.author()).await?;
    Ok(empty())
}

pub(crate) async fn list(fc: &Fc, request: &Request) -> FcResult<Response> {
    let all = fc.control.aliases(request.function())?;
    let (aliases, next) = page(all, &request.query, |alias| alias.name.clone())?;
    let mut rows = Vec::new();
    for alias in &aliases {
        rows.push(shown(fc, alias).await?);
    }
    Ok(json(listed("aliases", rows, next)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_gets_what_the_further_ones_leave() {
        let weights = |value: Value| value.as_object().unwrap().clone();
        let made = targets("1", &weights(json!({"2": 0.1, "3": 0.05}))).unwrap();
        let number = |number, share| (QualifierName::Number(number), share);
        assert_eq!(made, [number(1, 850_000), number(2, 100_000), number(3, 50_000)]);
        assert_eq!(targets("LATEST", &Map::new()).unwrap(), [(QualifierName::Latest, WHOLE)]);
        for wrong in [json!({"2": 1.1}), json!({"2": -0.1}), json!({"2": 0.6, "3": 0.6}), json!({"2": "x"})] {
            assert!(targets("1", &weights(wrong.clone())).is_err(), "{wrong}");
        }
        assert!(targets("prod", &Map::new()).is_err());
    }
}
