//! Tags of functions: a list of `{Key, Value}`, kept beside the function.

use axum::response::Response;
use kip_spec::RequestId;
use serde_json::{Map, Value, json};

use crate::Fc;
use crate::arn;
use crate::error::{FcError, FcResult};
use crate::query::QueryFields;
use crate::request::{Request, empty, json, required, text};
use crate::settings::{self, TAGS};

/// Tags of a function at most, and characters of a key and of a value.
const MOST: usize = 20;
const LONGEST: usize = 128;

/// A tag with both spellings of its fields.
fn tag(value: &Value) -> FcResult<(String, String)> {
    let wrong = || FcError::invalid(format!("a tag is {{Key, Value}}, texts of at most {LONGEST} characters"));
    let Value::Object(fields) = value else { return Err(wrong()) };
    let field = |names: [&str; 2]| names.into_iter().find_map(|name| fields.get(name)).and_then(Value::as_str);
    let (key, value) = (field(["Key", "key"]).ok_or_else(wrong)?, field(["Value", "value"]).unwrap_or_default());
    if key.is_empty() || key.chars().count() > LONGEST || value.chars().count() > LONGEST {
        return Err(wrong());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A list of tags, each key once.
pub(crate) fn checked(tags: &Value) -> FcResult<Value> {
    let Value::Array(items) = tags else { return Err(FcError::invalid("tags is a list")) };
    let mut all: Vec<(String, String)> = Vec::new();
    for item in items {
        let (key, value) = tag(item)?;
        all.retain(|(known, _)| *known != key);
        all.push((key, value));
    }
    if all.len() > MOST {
        return Err(FcError::invalid(format!("a function has at most {MOST} tags")));
    }
    Ok(all.into_iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect())
}

/// The tags that a list is filtered by.
pub(crate) fn filter(query: &QueryFields) -> FcResult<Option<Vec<(String, String)>>> {
    let tags = query.list("tags")?;
    if tags.is_empty() {
        return Ok(None);
    }
    tags.iter().map(tag).collect::<FcResult<_>>().map(Some)
}

/// Whether all of these tags are among those of a function.
pub(crate) fn has_all(tags: &Value, wanted: &[(String, String)]) -> bool {
    let has = |(key, value): &(String, String)| {
        tags.as_array().is_some_and(|tags| {
            tags.iter().any(|tag| tag["Key"] == key.as_str() && (value.is_empty() || tag["Value"] == value.as_str()))
        })
    };
    wanted.iter().all(has)
}

/// The functions that a request names, each of which its caller must see.
fn functions(fc: &Fc, request: &Request, ids: &[Value]) -> FcResult<Vec<kip_spec::FunctionName>> {
    let one = |id: &Value| {
        let text = id.as_str().ok_or_else(|| FcError::invalid("ResourceId is a list of texts"))?;
        let name = arn::function_of(text).unwrap_or(text);
        request.require_function(name)?;
        Ok(fc.control.require(name)?.name().clone())
    };
    ids.iter().map(one).collect()
}

fn require_function_type(kind: Option<&str>) -> FcResult<()> {
    match kind {
        None | Some("function" | "functions") => Ok(()),
        Some(other) => Err(FcError::invalid(format!("ResourceType is function, not `{other}`"))),
    }
}

pub(crate) async fn tag_resources(fc: &Fc, request: &Request) -> FcResult<Response> {
    let given = request.object()?;
    require_function_type(Some(required(&given, "ResourceType")?))?;
    let ids = list(&given, "ResourceId")?;
    let added = checked(&Value::from(list(&given, "Tag")?.clone()))?;
    for function in functions(fc, request, ids)? {
        let mut all = settings::read(fc, TAGS, &function, "").await?.unwrap_or_else(|| json!([]));
        if let (Some(all), Some(added)) = (all.as_array_mut(), added.as_array()) {
            all.extend(added.iter().cloned());
        }
        settings::put(fc, TAGS, &function, "", &checked(&all)?, request.author()).await?;
    }
    Ok(empty())
}

fn list<'a>(given: &'a Map<String, Value>, name: &str) -> FcResult<&'a Vec<Value>> {
    given.get(name).and_then(Value::as_array).ok_or_else(|| FcError::invalid(format!("{name} is a list")))
}

pub(crate) async fn untag_resources(fc: &Fc, request: &Request) -> FcResult<Response> {
    let query = &request.query;
    require_function_type(query.get("ResourceType"))?;
    let (keys, all) = (query.list("TagKey")?, query.flag("All"));
    for function in functions(fc, request, &query.list("ResourceId")?)? {
        let Some(Value::Array(mut tags)) = settings::read(fc, TAGS, &function, "").await? else { continue };
        tags.retain(|tag| !all && !keys.contains(&tag["Key"]));
        if tags.is_empty() {
            settings::remove(fc, TAGS, &function, "", request.author()).await?;
        } else {
            settings::put(fc, TAGS, &function, "", &Value::from(tags), request.author()).await?;
        }
    }
    Ok(empty())
}

pub(crate) async fn list_tag_resources(fc: &Fc, request: &Request) -> FcResult<Response> {
    let query = &request.query;
    require_function_type(query.get("ResourceType"))?;
    let limit = query.limit_of("Limit")?;
    let wanted = query.list("Tag")?.iter().map(tag).collect::<FcResult<Vec<_>>>()?;
    let only = match query.list("ResourceId")? {
        ids if ids.is_empty() => None,
        ids => Some(functions(fc, request, &ids)?),
    };
    let mut rows = Vec::new();
    for setting in fc.control.settings(TAGS, None).await? {
        let name = &setting.function;
        let tags = settings::value(&setting)?;
        let fits = request.key.sees(name.as_str())
            && only.as_ref().is_none_or(|only| only.contains(name))
            && has_all(&tags, &wanted);
        if !fits {
            continue;
        }
        for tag in tags.as_array().into_iter().flatten() {
            rows.push(json!({
                "ResourceType": "function",
                "ResourceId": arn::function(name.as_str(), None),
                "TagKey": tag["Key"],
                "TagValue": tag["Value"],
            }));
        }
    }
    let position = |row: &Value| format!("{} {}", text_of(&row["ResourceId"]), text_of(&row["TagKey"]));
    rows.sort_by_key(position);
    let after = query.get("NextToken");
    let mut rest = rows.into_iter().filter(|row| after.is_none_or(|after| position(row).as_str() > after));
    let page: Vec<Value> = rest.by_ref().take(limit).collect();
    let next = rest.next().and_then(|_| page.last().map(position));
    let mut answer = json!({"TagResources": page, "RequestId": request_id(&request.id)});
    if let Some(next) = next {
        answer["NextToken"] = next.into();
    }
    Ok(json(answer))
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn request_id(id: &RequestId) -> &str {
    id.as_str()
}

/// The resources that a change of tags names, for the audit record.
pub(crate) fn subject(request: &Request) -> Option<String> {
    let given = request.object().ok()?;
    if let Ok(Some(name)) = text(&given, "functionName") {
        return Some(name.to_owned());
    }
    let ids = match given.get("ResourceId") {
        Some(Value::Array(ids)) => ids.clone(),
        _ => request.query.list("ResourceId").ok()?,
    };
    let names: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
    Some(names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked_and_compared() {
        let tags =
            checked(&json!([{"Key": "a", "Value": "1"}, {"key": "b", "value": "2"}, {"Key": "a", "Value": "3"}]));
        let tags = tags.unwrap();
        assert_eq!(tags, json!([{"Key": "b", "Value": "2"}, {"Key": "a", "Value": "3"}]));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert!(has_all(&tags, &[pair("a", "3"), pair("b", "")]) && !has_all(&tags, &[pair("a", "1")]));
        for wrong in [json!({}), json!([{}]), json!([{"Key": ""}]), json!([{"Key": "x".repeat(129)}])] {
            assert!(checked(&wrong).is_err(), "{wrong}");
        }
    }
}
